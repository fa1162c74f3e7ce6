"""The application settings of an app in Azure: one map of text, and whose is what in it.

Azure replaces the whole map with each write. What is in it is

* Azure's own: names such as `FUNCTIONS_WORKER_RUNTIME` and `WEBSITE_*`, and values that are
  references, which Azure resolves. They are shown to nobody, and each write keeps them as they are:
  a document that has one of their names is refused.
* the document: everything else.
* one setting of envd's, `ENVD_MANAGED`: which names envd wrote, the stamp of the last write, and a
  fingerprint of the document that it belongs to. Who edits a variable leaves it, and the stamp
  counts no more. Where it is missing, the document is others'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from envd.backends.contract import Op
from envd.backends.documents import document
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    NameCollision,
    StoreUnavailable,
)
from envd.backends.naming import shown

MARK: Final = "ENVD_MANAGED"

_RESERVED: Final = re.compile(
    r"""(?:APPINSIGHTS_|APPLICATIONINSIGHTS_|APPSETTING_|APPSERVICE|AZUREFUNCTIONS|AZUREWEBJOBS
    |CONTAINER_|DEPLOYMENT_STORAGE_CONNECTION_STRING\Z|DIAGNOSTICS_AZURE|DOCKER_|ENABLE_ORYX
    |FUNCTION_APP_EDIT_MODE\Z|FUNCTIONS_|IDENTITY_|LANGUAGEWORKERS__|MSDEPLOY_|ORYX_
    |[A-Z]+_PROVIDER_AUTHENTICATION_SECRET\Z|PORT\Z|PYTHON_ENABLE_|PYTHON_ISOLATE_|REGION_NAME\Z|SCALE_|SCM_
    |WEBJOBS_|WEBSITE_|WEBSITES_|XDT_MICROSOFT|ENVD_MANAGED\Z)""",
    re.IGNORECASE | re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\s*@Microsoft\.(?:KeyVault|AppConfiguration)\(", re.IGNORECASE)

Fingerprint = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class AppSettings:
    """The map as it is now."""

    whole: Mapping[str, str] = field(repr=False)

    @staticmethod
    def of(found: object) -> AppSettings:
        """Those in an answer; StoreUnavailable where there are none."""
        properties = found.get("properties") if isinstance(found, dict) else None
        if not isinstance(properties, dict):
            raise StoreUnavailable("the answer makes no sense: it has no settings")
        return AppSettings(
            {str(name): "" if each is None else str(each) for name, each in properties.items()}
        )

    @property
    def variables(self) -> dict[str, str]:
        """The document."""
        return {name: each for name, each in self.whole.items() if not is_azures(name, each)}

    @property
    def text(self) -> str:
        return written(self.variables)

    @property
    def is_ours(self) -> bool:
        return MARK in self.whole

    @property
    def is_there(self) -> bool:
        """Whether there is a document at all."""
        return self.is_ours or bool(self.variables)

    @property
    def owned(self) -> frozenset[str]:
        """The names that envd wrote, and that are still there."""
        names = self._mark().get("names")
        return frozenset(map(str, names) if isinstance(names, list) else ()) & self.whole.keys()

    def stamp(self, fingerprint: Fingerprint) -> str:
        """The stamp of this document, "" where it is that of another one."""
        mark = self._mark()
        stamp = mark.get("stamp")
        is_of_this = mark.get("of") == fingerprint(self.text)
        return stamp if isinstance(stamp, str) and is_of_this else ""

    def version(self, fingerprint: Fingerprint) -> str:
        """It changes with every write of envd, and with every edit of a variable."""
        return fingerprint(f"{self.whole.get(MARK, '')}\0{self.text}") if self.is_there else ""

    def with_document(
        self, op: Op, variables: Mapping[str, str], fingerprint: Fingerprint, write: str
    ) -> dict[str, str]:
        """The map that has this document, and what is Azure's. What others set and a write leaves
        as it is stays others'."""
        now = self.variables
        changed = {name for name, each in variables.items() if now.get(name) != each}
        mark = {
            "names": sorted(changed | (self.owned & variables.keys())),
            "of": fingerprint(written(variables)),
            "stamp": op.stamp,
            "write": write,
        }
        return {**self._azures(), **variables, MARK: json.dumps(mark, separators=(",", ":"))}

    def without_ours(self) -> dict[str, str]:
        """The map without anything of envd's."""
        ours = self.owned | {MARK}
        return {name: each for name, each in self.whole.items() if name not in ours}

    def taken(self, variables: Mapping[str, str]) -> str:
        """One of these names that is Azure's, or that of a reference, "" where none is."""
        kept = {name.upper() for name in self._azures()}
        return next((name for name in sorted(variables) if name.upper() in kept), "")

    def _azures(self) -> dict[str, str]:
        return {
            name: each
            for name, each in self.whole.items()
            if is_azures(name, each) and name != MARK
        }

    def _mark(self) -> Mapping[str, object]:
        try:
            found = json.loads(self.whole.get(MARK, "{}"))
        except (ValueError, RecursionError):
            found = {}
        return found if isinstance(found, dict) else {}


def is_azures(name: str, value: str) -> bool:
    """Whether a setting is no variable: reserved, a reference, no text, or of a name none has."""
    return (
        _RESERVED.match(name) is not None
        or _NAME.fullmatch(name) is None
        or _REFERENCE.match(value) is not None
        or not _is_text(value)
    )


def written(variables: Mapping[str, str]) -> str:
    """A document as it is told; equal ones are written alike."""
    return json.dumps(dict(sorted(variables.items())), ensure_ascii=False)


def _is_text(value: str) -> bool:
    """Whether it is UTF-8: JSON may spell half a pair of surrogates, which is no character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def document_problem(op: Op) -> BackendError | None:
    """Why a document can't be the settings of an app, None where it can."""
    variables = document(op.value)
    if variables is None:
        return InvalidValue(f"the value of {shown(op.key)} is no JSON object of text")
    seen: dict[str, str] = {}
    for name, value in variables.items():
        if not _NAME.fullmatch(name):
            return InvalidName(
                f"{name!a} is no name of an application setting",
                hint="an app takes letters, digits and _",
            )
        if _RESERVED.match(name):
            return InvalidName(f"{name} is Azure's own, or the app's host's, and is left to them")
        if not _is_text(value):
            return InvalidValue(f"the value of {name} is not valid UTF-8")
        if _REFERENCE.match(value):
            return InvalidValue(f"the value of {name} would be a reference, which Azure resolves")
        other = seen.setdefault(name.upper(), name)
        if other != name:
            return NameCollision(f"{other} and {name} are one application setting")
    return None
