"""Writes of another node that come in late: what makes conflicts."""

from __future__ import annotations

from envd.core import digest
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.ports import Store, StoredState

OTHER_UID = 0xB2


async def write_unseen(
    store: Store,
    digest_key: bytes,
    environment: str,
    name: str,
    value: str | None,
    *,
    later_ms: int = -1000,
    secret: bool = False,
    kind: Kind = Kind.VARIABLE,
) -> Stamp:
    """Take in what bob wrote on the node n2, which had seen nothing of the environment.

    It is later (or earlier) by `later_ms` than the newest write here. Returns its stamp.
    """
    head = store.head(environment)
    assert head is not None
    newest = head.environment.highest_stamp
    partition = partition_of(environment)
    seq = store.last_seq(partition, OTHER_UID) + 1
    # No two commits have one stamp, so each is a little above the one before.
    stamp = Stamp(newest.era, newest.hlc + later_ms * (1 << 16) + seq, OTHER_UID)
    commit = Commit(
        environment,
        stamp,
        (Change(kind, name, value, secret, ZERO),),
        author="bob",
        time_ms=stamp.time_ms,
        node="n2",
        region="us",
    )
    after = head.environment.apply(commit)
    record = LogRecord(partition, OTHER_UID, seq, commit)
    await store.append(record, StoredState(after, digest.revision(after, digest_key)))
    return stamp
