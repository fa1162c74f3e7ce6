"""What the operations of an apply do to one file; it blocks, and runs in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from envd.backends.contract import Key, Op, Outcome, Result, Verb
from envd.backends.errors import BackendError, InvalidValue, NotOwned
from envd.backends.file_document import Document, Form, read_document, replace_document
from envd.backends.file_marks import Mark, Marks, marked
from envd.backends.naming import shown
from envd.backends.outcomes import stale, unsuccessful
from envd.core.errors import InvalidRequest
from envd.formats.rewrite import rewrite


@dataclass(frozen=True, slots=True)
class Written:
    """What came of operations, by their places.

    `path` is the file where it was written, None where it was not; `names` are what changed in it.
    """

    outcomes: Mapping[int, Outcome]
    path: Path | None = None
    names: Sequence[str] = ()


@dataclass(slots=True)
class _Draft:
    """A file as it is to be. `changes` are told by name, None for what goes."""

    variables: dict[str, str] = field(repr=False)
    marks: dict[str, tuple[Mark, ...]]
    changes: dict[str, str | None] = field(default_factory=dict, repr=False)


class Writing:
    """One apply: how names and versions are made, and when it is (unix ms)."""

    def __init__(
        self, name: Callable[[Key], str], version: Callable[[str, str], str], now_ms: int
    ) -> None:
        self._name = name
        self._version = version
        self._now_ms = now_ms

    def write(self, path: Path, form: Form, ops: Mapping[int, Op]) -> Written:
        """Do the operations that can be done, by one rename; raises where the file can't be read.

        Raises StaleVersion, with nothing done, where somebody else writes the file just now.
        """
        document = read_document(path, form)
        here = document.variables
        draft = _Draft(
            dict(here), {name: marks for name, marks in document.marks.items() if name in here}
        )
        outcomes = {at: self._outcome(op, draft) for at, op in ops.items()}
        raw, refused = _rewritten(document.raw or b"", draft.changes, path, form)
        for at, outcome in outcomes.items():
            error = refused.get(self._name(outcome.op.key))
            if error is not None and outcome.result is Result.APPLIED:
                outcomes[at] = unsuccessful(
                    outcome.op, InvalidValue(error.message, hint=error.hint)
                )
        names = sorted(draft.changes.keys() - refused.keys())
        if not names:
            return Written(outcomes)
        replace_document(document, raw, _kept(draft, refused, document))
        return Written(outcomes, document.path, names)

    def _outcome(self, op: Op, draft: _Draft) -> Outcome:
        """Decide on one operation, and do it to the draft."""
        name = self._name(op.key)
        value = draft.variables.get(name)
        current = self._version(name, value) if value is not None else ""
        wanted = op.value if op.verb is Verb.PUT else None
        if value == wanted:
            return Outcome(op, Result.NOOP, current)
        if op.expect != current:
            return stale(op, current)
        if value is not None and name not in draft.marks and not op.any_owner:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=current)
        draft.changes[name] = wanted
        if wanted is None:
            del draft.variables[name]
            draft.marks.pop(name, None)
            return Outcome(op, Result.APPLIED)
        version = self._version(name, wanted)
        draft.variables[name] = wanted
        mark = Mark(version, op.stamp, self._now_ms)
        draft.marks[name] = marked(draft.marks.get(name, ()), current, mark)
        return Outcome(op, Result.APPLIED, version)


def _rewritten(
    raw: bytes, changes: Mapping[str, str | None], path: Path, form: Form
) -> tuple[bytes, dict[str, InvalidRequest]]:
    """The file with these changes, but those that it can't have, which are told with the reason."""
    refusal: InvalidRequest | None = None
    if not changes:
        return raw, {}
    try:
        new = rewrite(raw, changes, format=form.format, dialect=form.dialect, source=str(path))
    except InvalidRequest as error:
        refusal = error
    if refusal is None:
        return new, {}
    names = list(changes)
    if len(names) == 1:
        return raw, {names[0]: refusal}
    half = len(names) // 2
    raw, first = _rewritten(raw, {name: changes[name] for name in names[:half]}, path, form)
    raw, second = _rewritten(raw, {name: changes[name] for name in names[half:]}, path, form)
    return raw, {**first, **second}


def _kept(draft: _Draft, refused: Mapping[str, InvalidRequest], document: Document) -> Marks:
    """The marks to write: of what was refused those that it had."""
    kept = {name: marks for name, marks in draft.marks.items() if name not in refused}
    for name in refused:
        if name in document.marks:
            kept[name] = document.marks[name]
    return kept


def not_committed(written: Written, error: BackendError) -> Mapping[int, Outcome]:
    """The outcomes of operations that are in the file, and not in git."""
    return {
        at: replace(outcome, result=Result.FAILED, error=error)
        for at, outcome in written.outcomes.items()
        if outcome.result is Result.APPLIED
    }
