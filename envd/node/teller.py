"""A node that tells another one's watches what happens in some partitions.

Where a partition goes over to other holders, its next teller is asked too while the last one goes
on, and what it says is held back. Once the fingerprints of the partition are equal on both, the
last one has told all that the next one took in before it was asked: so the next one takes over
without a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from envd.core import shares
from envd.core.answers import CommitView
from envd.core.ring import partition_of

MOST_HELD: Final = 10_000


class Teller:
    """One node, which may be this one, as a teller of what is `wanted` of it; that it does tell
    is `fed`. It is to follow upon others in what is `pending`, and is asked for it if `ready`."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.wanted = 0
        self.fed = 0
        self.pending = 0
        self.ready = 0
        self.token = ""
        self.failed_s: float | None = None
        self.doubted_s: float | None = None
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._held: list[CommitView] = []
        self._roots: dict[int, bytes] = {}

    @property
    def asked(self) -> int:
        """The partitions to ask it for."""
        return self.wanted | self.pending

    def assign(self, wanted: int, pending: int) -> None:
        """Want this from now on, and no more."""
        if (wanted, pending) == (self.wanted, self.pending):
            return
        if wanted & ~self.fed or (wanted | pending) != self.asked:
            self.changed.set()
        self.wanted, self.pending = wanted, pending
        self.fed &= wanted
        self.ready &= pending
        self._held = [each for each in self._held if _is_in(self.ready, each)]

    def answers_for(self, answered: int, asked: int) -> int:
        """It answers for these of the partitions that it was asked for; return what is new."""
        self.wanted &= answered | ~asked
        self.pending &= answered | ~asked
        self.fed &= answered | ~asked
        self.ready |= answered & self.pending
        self.ready &= self.pending
        gained = answered & self.wanted & ~self.fed
        self.fed |= gained
        return gained

    def forget(self) -> None:
        """What it told has no connection to what it tells from now on."""
        self.fed = self.ready = 0
        self._held.clear()
        self._roots.clear()

    def hears(self, commit: CommitView) -> bool:
        """Whether a commit is to be told; one that is pending is held back."""
        partition = partition_of(commit.environment)
        if shares.holds(self.fed, partition):
            self._roots.pop(partition, None)
            return True
        if shares.holds(self.ready, partition):
            self._held.append(commit)
            if len(self._held) > MOST_HELD:
                self.ready = 0  # It begins anew.
                self._held.clear()
        return False

    def shows(self, roots: Mapping[int, bytes]) -> None:
        """The fingerprints that follow from all that it told."""
        self._roots = dict(roots)

    def agrees(self, last: Teller) -> Iterator[int]:
        """The partitions in which it has what the `last` teller has told."""
        for partition, root in self._roots.items():
            if shares.holds(self.ready & last.fed, partition):
                known = last._roots.get(partition)
                if known == root:
                    yield partition

    def follows_upon(self, last: Teller, partitions: int) -> list[CommitView]:
        """Take over; return what was held back."""
        last.fed &= ~partitions
        last.wanted &= ~partitions
        self.pending &= ~partitions
        self.ready &= ~partitions
        self.wanted |= partitions
        self.fed |= partitions
        told = [each for each in self._held if _is_in(partitions, each)]
        self._held = [each for each in self._held if not _is_in(partitions, each)]
        return told


def _is_in(partitions: int, commit: CommitView) -> bool:
    return shares.holds(partitions, partition_of(commit.environment))
