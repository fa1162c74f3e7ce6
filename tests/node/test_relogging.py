"""What a directory took under a former uid is logged again under another one."""

from __future__ import annotations

from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.node.relogging import log_again
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from envd.wire import records

FORMER, NOW, OTHER = 7, 8, 9


async def put(store: MemoryStore, origin: int, seq: int, hlc: int) -> None:
    """One record of an origin, as its stream brings it."""
    change = Change(Kind.VARIABLE, f"V{hlc}", "1", False, ZERO)
    commit = Commit("web", Stamp(0, hlc, origin), (change,), time_ms=hlc)
    known = store.head("web")
    before = known.environment if known is not None else Environment("web")
    state = StoredState(before.apply(commit), b"")
    await store.append(LogRecord(partition_of("web"), origin, seq, commit), state)


async def logged(store: MemoryStore) -> list[tuple[int, int, int]]:
    """(origin, seq, hlc) of all records."""
    rows = [records.open_log_row(row) for _, row in await store.rows(0, 1 << 20)]
    return [
        (origin, seq, records.decode_commit(encoded).stamp.hlc) for _, origin, seq, encoded in rows
    ]


async def test_what_it_took_itself_is_logged_again_but_not_below_the_floor() -> None:
    store = MemoryStore(node_uid=NOW)
    for seq, hlc in enumerate((10, 20, 30), 1):
        await put(store, FORMER, seq, hlc)
    await put(store, OTHER, 1, 40)
    await store.raise_floor(20)

    await log_again(store, NOW, (FORMER,))

    assert (await logged(store))[4:] == [(NOW, 1, 30)]
    assert store.last_seq(partition_of("web"), FORMER) == 0
    assert store.last_seq(partition_of("web"), OTHER) == 1
