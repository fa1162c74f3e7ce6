"""The bodies that writes take: their shapes, and the requests that they mean.

The dataclasses are the shapes: their fields are the known ones, and OpenAPI shows them. Errors
name the field that is wrong and never what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from envd.core.commit import Kind
from envd.core.errors import InvalidRequest, LimitExceeded
from envd.core.names import MAX_VARIABLE_NAME_BYTES, MAX_VARIABLES, VARIABLE_PATTERN
from envd.core.requests import Put, ResolveRequest, RollbackRequest, Unset, WriteRequest
from envd.net.http_json import shown
from envd.net.http_routes import Message, OperationId, misfit, refuse_unknown


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value with its flag; without the flag it is as it was, not secret for a new one."""

    value: str = field(repr=False)
    secret: bool | UnsetType = UNSET


Name = Annotated[str, Meta(pattern=f"^{VARIABLE_PATTERN}$", max_length=MAX_VARIABLE_NAME_BYTES)]
Values = dict[Name, str | NewValue]


@dataclass(frozen=True, slots=True)
class PatchBody:
    """One atomic commit of sets and unsets."""

    set: Annotated[Values, Meta(description="values by name")] = field(
        default_factory=dict, repr=False
    )
    unset: Annotated[list[Name], Meta(description="names to remove")] = field(default_factory=list)
    metadata: Annotated[
        dict[str, str | None],
        Meta(description="settings of the environment by name; null removes one"),
    ] = field(default_factory=dict)
    message: Message = ""
    operation: OperationId = ""


@dataclass(frozen=True, slots=True)
class PutBody:
    """All the variables that the environment has from then on; its settings stay."""

    variables: Annotated[Values, Meta(description="values by name")] = field(repr=False)
    message: Message = ""
    operation: OperationId = ""


@dataclass(frozen=True, slots=True)
class RollbackBody:
    """The state recorded by `to`, written again as a new commit."""

    to: Annotated[
        str,
        Meta(
            description="a revision, its first digits (at least 4), `@~N`, or `@deleted`",
            pattern="^([0-9a-f]{4,32}|@~[0-9]{1,6}|@deleted)$",
        ),
    ]
    variables: Annotated[
        list[Name], Meta(description="only these; all, and the settings, where there are none")
    ] = field(default_factory=list)
    message: Message = ""
    operation: OperationId = ""


@dataclass(frozen=True, slots=True)
class ResolveBody:
    """What becomes of a variable that has conflicts; one commit settles all of them."""

    variable: Annotated[str, Meta(description="its name; with `metadata` that of a setting")]
    take: Annotated[
        str,
        Meta(
            description="the id of a conflict, or its first digits (at least 4), to write again "
            "what it lost; `lost` does so where there is one; `kept` leaves everything as it is; "
            "the stamp of a side writes that one again",
            pattern="^([0-9a-f]{4,32}|[0-9a-f]{40}|kept|lost)$",
        ),
    ]
    metadata: bool = False
    message: Message = ""
    operation: OperationId = ""


def write_of(environment: str, document: Mapping[str, object]) -> WriteRequest:
    """The write that a PATCH's document means; raises InvalidRequest."""
    settings = _settings(document.get("metadata", {}))
    puts = [Put(name, text, kind=Kind.METADATA) for name, text in settings if text is not None]
    removed = [Unset(name, Kind.METADATA) for name, text in settings if text is None]
    return WriteRequest(
        environment,
        puts=(*_puts(document.get("set", {}), "set"), *puts),
        unsets=(*map(Unset, _names(document, "unset")), *removed),
        message=_text(document, "message"),
        operation=_text(document, "operation"),
    )


def replacement_of(environment: str, document: Mapping[str, object]) -> WriteRequest:
    """The write that a PUT's document means; raises InvalidRequest."""
    return WriteRequest(
        environment,
        puts=_puts(document.get("variables"), "variables"),
        replace=True,
        message=_text(document, "message"),
        operation=_text(document, "operation"),
    )


def rollback_of(environment: str, document: Mapping[str, object]) -> RollbackRequest:
    """The rollback that a document means; raises InvalidRequest."""
    to = document.get("to")
    if not isinstance(to, str):
        raise misfit("to", "a string that names a revision")
    variables = _names(document, "variables")
    if len(variables) > MAX_VARIABLES:
        raise LimitExceeded(
            f"{len(variables)} variables in one rollback; at most {MAX_VARIABLES} are allowed"
        )
    return RollbackRequest(
        environment,
        to,
        variables=variables,
        message=_text(document, "message"),
        operation=_text(document, "operation"),
    )


def resolve_of(environment: str, document: Mapping[str, object]) -> ResolveRequest:
    """What a document settles; raises InvalidRequest."""
    variable, take = document.get("variable"), document.get("take")
    metadata = document.get("metadata", False)
    if not isinstance(variable, str):
        raise misfit("variable", "a string that names one")
    if not isinstance(take, str):
        raise misfit("take", "a string that names a side")
    if not isinstance(metadata, bool):
        raise misfit("metadata", "true or false")
    return ResolveRequest(
        environment,
        variable,
        take,
        Kind.METADATA if metadata else Kind.VARIABLE,
        message=_text(document, "message"),
        operation=_text(document, "operation"),
    )


def _puts(values: object, name: str) -> tuple[Put, ...]:
    if not isinstance(values, dict):
        raise misfit(name, "an object of variables")
    return tuple(_put(variable, value) for variable, value in values.items())


def _put(name: str, value: object) -> Put:
    if isinstance(value, str):
        return Put(name, value)
    if not isinstance(value, dict):
        raise misfit(f"the value of {shown(name)}", 'a string or {"value": ..., "secret": ...}')
    if value.get("masked") is True or ("value" in value and value["value"] is None):
        raise InvalidRequest(
            f"the value of {shown(name)} is masked, and can't be sent back",
            hint="send the value itself, or PATCH what you change; ?reveal=true shows secrets",
            reason="MASKED_VALUE",
        )
    refuse_unknown(value, NewValue, f" of {shown(name)}")
    text, secret = value.get("value"), value.get("secret", False)
    if not isinstance(text, str):
        raise misfit(f"the value of {shown(name)}", "a string")
    if not isinstance(secret, bool):
        raise misfit(f"the field secret of {shown(name)}", "true or false")
    return Put(name, text, secret if "secret" in value else None)


def _settings(values: object) -> list[tuple[str, str | None]]:
    if not isinstance(values, dict):
        raise misfit("metadata", "an object of settings")
    for name, text in values.items():
        if not (text is None or isinstance(text, str)):
            raise misfit(f"the setting {shown(name)}", "a string or null")
    return list(values.items())


def _names(document: Mapping[str, object], name: str) -> tuple[str, ...]:
    names = document.get(name, [])
    if not isinstance(names, list):
        raise misfit(name, "an array of names")
    for one in names:
        if not isinstance(one, str):
            raise misfit(name, "an array of names")
    return tuple(names)


def _text(document: Mapping[str, object], name: str) -> str:
    text = document.get(name, "")
    if not isinstance(text, str):
        raise misfit(name, "a string")
    return text
