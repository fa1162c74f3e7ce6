"""What a data directory took under a former uid is logged again, under the one it has now.

Its node may be the only one that has it, and nobody will be told of it under the former uid: others
may know other things under its numbers, and they have priority. So the vectors of that uid are
dropped too; repair brings the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from envd.core.commit import LogRecord
from envd.core.errors import NotFound
from envd.node.intake import take_error
from envd.ports import Logged, Store, StoredState
from envd.wire import records

_ROWS_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


async def log_again(store: Store, uid: int, former_uids: Iterable[int]) -> None:
    """Log again, for the node `uid`, what the log has of former ones; durable once it returns.

    Raises what the store does; then it is to be done again from the beginning.
    """
    for former in former_uids:
        position, logged = store.oldest_lsn() - 1, 0
        last = store.last_lsn()
        while position < last:
            page = await _rows(store, position)
            pending: list[Logged] = []
            for lsn, row in page:
                position = lsn
                partition, origin, _, encoded = records.open_log_row(row)
                if origin == former and lsn <= last:
                    again = await _log_again(store, partition, uid, encoded)
                    if again is not None:
                        pending.append(again)
                        logged += 1
            for each in pending:
                await each
            if not page:
                break
        store.forget_origin(former)
        await store.flush()
        await store.sync()
        _log.warning("node.logged_again", extra={"former": f"{former:016x}", "commits": logged})


async def _rows(store: Store, position: int) -> list[tuple[int, bytes]]:
    try:
        return await store.rows(position, _ROWS_BYTES)
    except NotFound:
        return []


async def _log_again(store: Store, partition: int, uid: int, encoded: bytes) -> Logged | None:
    """None for a commit of a partition that this node let go of, or that all others have.

    They have what is at or below the floor, and nothing there may be logged any more.
    """
    if not store.admits():
        await store.admit()
    commit = records.decode_commit(encoded)
    if commit.stamp.hlc <= store.floor():
        return None
    state = store.head(commit.environment)
    if state is None:
        return None
    after = StoredState(state.environment.apply(commit), state.revision)
    seq = store.last_seq(partition, uid) + 1
    logged = store.append(LogRecord(partition, uid, seq, commit), after, encoded)
    logged.add_done_callback(take_error)
    return logged
