"""A service of Cloud Run as it is found: the variables of one of its containers.

A container's environment is a list of names. Some have their text with them: they are the document.
Others refer to a secret, or have a name that no variable can have, or one that Cloud Run keeps for
itself. They are nobody's business here: they are not in the document, and stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from envd.backends.documents import document
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    StoreUnavailable,
    StoreUnsupported,
    ValueTooLarge,
)
from envd.backends.gcp_names import project_of
from envd.backends.gcp_session import microseconds
from envd.core.names import VARIABLE_PATTERN

MAX_VALUE_BYTES: Final = 32_768
MAX_VARIABLES: Final = 1000

_RESERVED = re.compile(r"PORT|K_.*|X_GOOGLE_.*|FUNCTION_TARGET|FUNCTION_SIGNATURE_TYPE")
_VARIABLE = re.compile(VARIABLE_PATTERN)
_PLACE = re.compile(
    r"((?P<project>[^/#]+)/)?(?P<location>[a-z][a-z0-9-]{1,62})/"
    r"(?P<service>[a-z]([a-z0-9-]{0,61}[a-z0-9])?)(#(?P<container>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?))?"
)


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """One container of one service; `container` is "" for the one that takes requests."""

    project: str
    location: str
    service: str
    container: str = ""

    @staticmethod
    def of(text: str, settings: Mapping[str, object]) -> ServicePlace:
        """Raise StoreUnsupported for what is none."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise StoreUnsupported(
                "the place is no service of Cloud Run",
                hint="bind LOCATION/SERVICE or PROJECT/LOCATION/SERVICE, or one with #CONTAINER",
            )
        return ServicePlace(
            project_of(found["project"] or "", settings),
            found["location"],
            found["service"],
            found["container"] or "",
        )

    @property
    def name(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/services/{self.service}"

    @property
    def native(self) -> str:
        return f"{self.service}#{self.container}" if self.container else self.service

    @property
    def mark(self) -> str:
        """The annotation of the service that says that envd writes this container's variables."""
        return f"envd/{self.container}" if self.container else "envd"


@dataclass(frozen=True, slots=True)
class Found:
    """A service: its version, the variables, and the answer that a change is made of."""

    version: str
    generation: int
    uid: str
    variables: Mapping[str, str] = field(repr=False)
    others: frozenset[str]
    is_marked: bool
    changed_ms: int | None
    service: Any = field(repr=False)

    @property
    def is_there(self) -> bool:
        """Whether there is a document: a service without variables has none."""
        return bool(self.variables)


def found_of(answer: Any, place: ServicePlace) -> Found:
    """The variables of an answer. StoreUnavailable where it lacks what every service has, and
    StoreUnsupported where the service has no such container."""
    generation, uid = getattr(answer, "generation", 0), getattr(answer, "uid", "")
    if not generation or not uid or not answer.etag:
        raise StoreUnavailable(f"{place.native}: an answer without a version")
    variables: dict[str, str] = {}
    others: set[str] = set()
    for each in container_of(answer, place).env:
        name = str(each.name)
        if "value_source" in each or not _VARIABLE.fullmatch(name) or _RESERVED.fullmatch(name):
            others.add(name)
        else:
            variables[name] = str(each.value)
    changed_us = microseconds(answer.update_time)
    return Found(
        version_of(uid, generation),
        int(generation),
        str(uid),
        variables,
        frozenset(others),
        place.mark in answer.annotations,
        None if changed_us is None else changed_us // 1000,
        answer,
    )


def version_of(uid: str, generation: int) -> str:
    """The version of a service. Its generation goes up with each change of what is asked of it, and
    not with what becomes of it; a service that is made anew has another uid."""
    return f"{generation}-{uid}"


def container_of(answer: Any, place: ServicePlace) -> Any:
    """The container that is named, or else the one with a port, or else the first."""
    containers = list(answer.template.containers)
    if place.container:
        containers = [each for each in containers if each.name == place.container]
    with_port = [each for each in containers if list(each.ports)]
    for each in (*with_port, *containers):
        return each
    raise StoreUnsupported(f"{place.native} has no such container")


def changed(found: Found, place: ServicePlace, after: Mapping[str, str], *, marked: bool) -> Any:
    """The service with these variables instead, in the order in which they were; a copy.

    The name of the revision goes: with it the store would refuse another revision.
    """
    service = type(found.service)(found.service)
    container = container_of(service, place)
    left = dict(after)
    entries: list[Any] = []
    for each in container.env:
        name = str(each.name)
        if name not in found.variables:
            entries.append(each)
        elif name in left:
            entries.append({"name": name, "value": left.pop(name)})
    entries += [{"name": name, "value": value} for name, value in left.items()]
    container.env = entries
    service.template.revision = ""
    annotations = {name: text for name, text in service.annotations.items() if name != place.mark}
    service.annotations = {**annotations, **({place.mark: "managed"} if marked else {})}
    return service


def document_of(variables: Mapping[str, str]) -> str:
    """Variables as a document."""
    return json.dumps(dict(sorted(variables.items())), ensure_ascii=False)


def variables_of(text: str) -> dict[str, str]:
    """The variables of a document. Raises InvalidValue, without its text, for what is none."""
    found = document(text)
    if found is None:
        raise InvalidValue("the document is no JSON object of text")
    return found


def problem_of_variables(variables: Mapping[str, str]) -> BackendError | None:
    """Why these can't be the variables of a container, None where they can."""
    if len(variables) > MAX_VARIABLES:
        return ValueTooLarge(
            f"the document has {len(variables)} variables; Cloud Run takes {MAX_VARIABLES}"
        )
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            return InvalidName("the document has a name in it that is no variable's")
        if _RESERVED.fullmatch(name):
            return InvalidName(f"Cloud Run keeps {name} for itself")
        if "\0" in value:
            return InvalidValue(f"the value of {name} has a character of code 0 in it")
        size = _size(value)
        if size is None:
            return InvalidValue(f"the value of {name} is not valid UTF-8")
        if size > MAX_VALUE_BYTES:
            return ValueTooLarge(
                f"the value of {name} has {size} bytes; Cloud Run takes {MAX_VALUE_BYTES}"
            )
    return None


def _size(value: str) -> int | None:
    """Bytes of UTF-8; None for what JSON may spell and UTF-8 can't (half a pair of surrogates)."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return None
