"""Could a record have made a conflict, changed one or ended one? Asked as it is appended.

Conflicts are a function of a whole history, and to compute it reads that history. Nearly all
commits were made by who had seen what they replace; these can't be part of a conflict, and it
takes a comparison of stamps to know that. The others mark their environment as contested, and
the next flush computes its conflicts anew.
"""

from __future__ import annotations

from envd.core.commit import ChangeColumns, Commit, Kind
from envd.core.environment import Environment
from envd.core.stamp import ZERO


def contests(before: Environment | None, commit: Commit, *, made_here: bool) -> bool:
    """Tell whether `commit` may take part in a conflict, settles one or has one on record.

    `before` is the state that it met; with `made_here` it was built upon just that.
    """
    if commit.resolves or commit.salvages is not None:
        return True
    if before is None:
        return False
    if commit.stamp <= before.highest_stamp:
        return True
    if made_here and type(commit.changes) is ChangeColumns:
        return False  # Of what was built upon just this state, only single changes can be unseen.
    for kind, name, _, _, overwrites in commit.changes:
        if overwrites < before.overwritten_by(kind, name):
            return True
    if made_here:
        return False
    return commit.floor > ZERO and not _lists_all(before, commit)


def _lists_all(before: Environment, commit: Commit) -> bool:
    """Tell whether a commit names all that it drops."""
    listed = {(change.kind, change.name) for change in commit.changes}
    return all((kind, name) in listed for kind in Kind for name, _ in before.live(kind))
