"""What is in a Secret or a ConfigMap: the variables of an environment, and what envd notes.

The variables are the texts in `data` whose keys are names of variables. All else in an object is
others' and stays: other keys, labels, annotations. What envd notes is in one annotation: the stamp,
and a fingerprint of the variables that it was written with. Where that is another one somebody
edited the object since, and the stamp is not that of this value.

Secrets of other types than Opaque belong to whoever makes such, and are left alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from envd.backends.contract import Op
from envd.backends.documents import document, is_variable
from envd.backends.errors import BackendError, InvalidName, NotOwned, StoreUnavailable
from envd.backends.kubernetes_settings import Sort
from envd.backends.naming import shown

NOTE: Final = "envd.dev/sync"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MAX_KEY: Final = 253
"""Of a key in `data`, in characters."""
OPAQUE: Final = "Opaque"


@dataclass(frozen=True, slots=True)
class Found:
    """An object as the API server has it; `raw` is None where there is none."""

    sort: Sort
    raw: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.raw is not None and not (self.name and self.uid and self.resource_version):
            raise StoreUnavailable("Kubernetes answered an object without a name or a version")

    @property
    def _about(self) -> Mapping[str, Any]:
        return _table((self.raw or {}).get("metadata"))

    @property
    def name(self) -> str:
        return str(self._about.get("name") or "")

    @property
    def uid(self) -> str:
        return str(self._about.get("uid") or "")

    @property
    def resource_version(self) -> str:
        return str(self._about.get("resourceVersion") or "")

    @property
    def version(self) -> str:
        """With the object's own id: one that is made anew is another. A cluster that is restored
        may still give numbers of one object twice."""
        return f"{self.resource_version}@{self.uid}" if self.raw is not None else ""

    @property
    def is_opaque(self) -> bool:
        """Whether it is of the type that envd makes."""
        return (self.raw or {}).get("type") in (OPAQUE, "", None)

    @property
    def is_going(self) -> bool:
        """Whether it was deleted, and only waits for what its finalizers stand for."""
        return bool(self._about.get("deletionTimestamp"))

    @property
    def is_immutable(self) -> bool:
        return (self.raw or {}).get("immutable") is True

    @property
    def is_ours(self) -> bool:
        """Whether envd created it, or took it over."""
        return NOTE in _table(self._about.get("annotations"))

    @property
    def variables(self) -> dict[str, str]:
        """The texts under names of variables."""
        texts = {name: self._text(each) for name, each in self._data.items() if is_variable(name)}
        return {name: each for name, each in texts.items() if each is not None}

    @property
    def _data(self) -> Mapping[str, Any]:
        return _table((self.raw or {}).get("data"))

    def _text(self, found: object) -> str | None:
        """A value as text; None for one of others that is none."""
        if not isinstance(found, str) or self.sort is Sort.CONFIG_MAP:
            return found if isinstance(found, str) else None
        try:
            return base64.b64decode(found, validate=True).decode()
        except ValueError:  # Also of what is no UTF-8.
            return None

    @property
    def left(self) -> dict[str, Any]:
        """What is in `data` besides the variables."""
        ours = self.variables.keys()
        return {name: each for name, each in self._data.items() if name not in ours}

    @property
    def has_others(self) -> bool:
        """Whether anything is left when the variables are gone."""
        return bool(self.left) or bool(_table((self.raw or {}).get("binaryData")))

    def value(self) -> str:
        """The variables as a document."""
        return json.dumps(self.variables, ensure_ascii=False)

    def stamp(self, fingerprint: Callable[[str], str]) -> str:
        """The stamp of this very value, "" without one."""
        try:
            note = json.loads(_table(self._about.get("annotations")).get(NOTE, ""))
        except (TypeError, ValueError, RecursionError):
            return ""
        stamp = note.get("stamp") if isinstance(note, dict) else None
        if not isinstance(stamp, str) or note.get("of") != _print(self.variables, fingerprint):
            return ""
        return stamp

    def written(self, op: Op, name: str, fingerprint: Callable[[str], str]) -> dict[str, Any]:
        """The object that a put makes of this one."""
        variables = document(op.value) or {}
        note = {"stamp": op.stamp, "of": _print(variables, fingerprint)}
        made = deepcopy(dict(self.raw)) if self.raw is not None else self._new(name)
        annotations = _table(made["metadata"].get("annotations"))
        made["metadata"]["annotations"] = {**annotations, NOTE: json.dumps(note)}
        made["data"] = {**self.left, **{key: self._kept(each) for key, each in variables.items()}}
        return made

    def _new(self, name: str) -> dict[str, Any]:
        about = {"name": name, "labels": {MANAGED_BY: "envd"}}
        made: dict[str, Any] = {"apiVersion": "v1", "kind": self.sort.kind, "metadata": about}
        return {**made, "type": OPAQUE} if self.sort is Sort.SECRET else made

    def _kept(self, text: str) -> str:
        if self.sort is Sort.CONFIG_MAP:
            return text
        return base64.b64encode(text.encode()).decode()

    def emptied(self) -> dict[str, Any]:
        """The object with what others have in it, and nothing of envd's."""
        made = deepcopy(dict(self.raw or {}))
        about = made["metadata"]
        annotations = _table(about.get("annotations"))
        about["annotations"] = {name: each for name, each in annotations.items() if name != NOTE}
        labels = _table(about.get("labels"))
        ours = MANAGED_BY if labels.get(MANAGED_BY) == "envd" else ""
        about["labels"] = {name: each for name, each in labels.items() if name != ours}
        made["data"] = self.left
        return made

    def intrusion(self, op: Op) -> BackendError | None:
        """Why a put would change what nobody may, or replace what others have there."""
        if self.raw is None:
            return None
        if not self.is_opaque:
            return NotOwned(f"{shown(op.key)} is a Secret of another type than {OPAQUE}")
        if self.is_immutable:
            return NotOwned(f"{shown(op.key)} is immutable, so its values stay as they are")
        others = self.left.keys() | _table(self.raw.get("binaryData")).keys()
        taken = others & (document(op.value) or {}).keys()
        if not taken:
            return None
        return NotOwned(f"{min(taken)} of {shown(op.key)} is no text, so it is others'")


def key_problem(op: Op) -> BackendError | None:
    """Why a document has a variable that no object can, None where it has none."""
    if all(len(name) <= MAX_KEY for name in document(op.value) or {}):
        return None
    return InvalidName(
        f"a name in the document of {shown(op.key)} is longer than {MAX_KEY} characters"
    )


def _print(variables: Mapping[str, str], fingerprint: Callable[[str], str]) -> str:
    return fingerprint(json.dumps(dict(sorted(variables.items()))))


def _table(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}
