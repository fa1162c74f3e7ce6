"""Which commit a REV names, and the state it recorded.

REV is a revision (32 hex digits), a unique prefix of one (at least 4), `@~N` for N commits
before the newest, or `@deleted` for what the last deletion removed. Several commits can record
equal revisions only where the visible state is equal, so the newest of them stands for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envd.core import digest
from envd.core.commit import Commit
from envd.core.errors import Conflict, InvalidRequest, NotFound
from envd.core.history import state_at
from envd.core.stamp import Stamp
from envd.ports import Store, StoredState

MIN_PREFIX = 4
BEFORE_DELETION = "@deleted"
_PAGE = 256
_HEX = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},{2 * digest.REVISION_BYTES}}}")
_BACK = re.compile(r"@?~([0-9]{0,9})")


def newest_first(store: Store, environment: str, before: Stamp | None = None) -> Iterator[Commit]:
    """The retained commits of an environment below `before`, newest first, read in pages."""
    while page := store.commits(environment, before, _PAGE):
        yield from page
        before = page[-1].stamp


def recorded_state(store: Store, environment: str, rev: str, digest_key: bytes) -> StoredState:
    """The state that REV names; raises NotFound, InvalidRequest, or Conflict (ambiguous)."""
    stamp = _stamp_of(store, environment, rev)
    state = state_at(store.base(environment), newest_first(store, environment), stamp)
    return StoredState(state, digest.revision(state, digest_key))


def matches(revision: bytes, rev: str) -> bool:
    """Tell whether `rev`, in full or a prefix of at least 8 digits, is this revision."""
    wanted = rev.lower()
    if not re.fullmatch(rf"[0-9a-f]{{8,{2 * digest.REVISION_BYTES}}}", wanted):
        raise InvalidRequest(
            f"{rev[:40]!a} is no revision",
            hint="give at least the first 8 of its hexadecimal digits",
            reason="INVALID_REVISION",
        )
    return revision.hex().startswith(wanted)


def _stamp_of(store: Store, environment: str, rev: str) -> Stamp:
    if rev == BEFORE_DELETION:
        return _before_deletion(store, environment)
    if back := _BACK.fullmatch(rev):
        return _steps_back(store, environment, int(back[1] or 1))
    wanted = rev.lower()
    if not _HEX.fullmatch(wanted):
        raise InvalidRequest(
            f"{rev[:40]!a} names no revision",
            hint=f"use a revision, its first digits (at least {MIN_PREFIX}), or @~N",
            reason="INVALID_REVISION",
        )
    return _by_prefix(store, environment, wanted)


def _before_deletion(store: Store, environment: str) -> Stamp:
    commits = newest_first(store, environment)
    for commit in commits:
        if commit.deletes:
            earlier = next(commits, None)
            return earlier.stamp if earlier else store.base(environment).highest_stamp
    raise NotFound(
        f"{environment} was not deleted within its history",
        hint=f"envctl history {environment}",
        reason="NOT_DELETED",
    )


def _steps_back(store: Store, environment: str, steps: int) -> Stamp:
    for back, commit in enumerate(newest_first(store, environment)):
        if back == steps:
            return commit.stamp
    raise NotFound(
        f"the history of {environment} does not reach {steps} commit{'s' * (steps != 1)} back",
        hint=f"envctl history {environment}",
        reason="REVISION_NOT_FOUND",
    )


def _by_prefix(store: Store, environment: str, wanted: str) -> Stamp:
    found: dict[str, Stamp] = {}
    for commit in newest_first(store, environment):
        shown = commit.revision.hex()
        if shown.startswith(wanted):
            found.setdefault(shown, commit.stamp)
    if not found:
        raise NotFound(
            f"no commit of {environment} recorded revision {wanted}",
            hint=f"envctl history {environment}",
            reason="REVISION_NOT_FOUND",
        )
    if len(found) > 1:
        raise Conflict(
            f"{wanted} begins {len(found)} revisions of {environment}",
            hint="give more digits: " + ", ".join(sorted(found)[:5]),
            reason="AMBIGUOUS_REVISION",
        )
    return next(iter(found.values()))
