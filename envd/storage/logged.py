"""The records of the log, as the memtable, the watchers and the peers want them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from envd.core import digest
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import EnvdError
from envd.ports import StoredState
from envd.storage.contested import contests
from envd.storage.memtable import Pending
from envd.storage.state import operation_key
from envd.wire import records
from envd.wire.records import BaseRecord


def pending_of(
    record: LogRecord | BaseRecord,
    after: StoredState,
    encoded: bytes,
    head: StoredState | None,
    *,
    made_here: bool,
) -> Pending:
    """What the memtable is to know of a record that meets `head`.

    `made_here` tells that it is a commit that was built upon just that head.
    """
    if isinstance(record, BaseRecord):
        return Pending(record, after, encoded, None, contested=True)
    before = head.environment if head else None
    contested = contests(before, record.commit, made_here=made_here)
    return Pending(record, after, encoded, _operation_of(record.commit), contested)


def pending_again(
    row: bytes, head_of: Callable[[str], StoredState | None], digest_key: bytes
) -> Pending:
    """A row of the journal that is applied again, just as it was applied before the crash."""
    record, encoded = records.decode_own_row(row)
    name = record.name if isinstance(record, BaseRecord) else record.commit.environment
    head = head_of(name)
    before = head.environment if head else Environment(name)
    if isinstance(record, BaseRecord):
        environment = before.merge(record.base)
    else:
        environment = before.apply(record.commit)
    after = StoredState(environment, digest.revision(environment, digest_key))
    return pending_of(record, after, encoded, head, made_here=False)


def _operation_of(commit: Commit) -> bytes | None:
    return operation_key(commit.author, commit.operation) if commit.operation else None


def told(record: LogRecord | BaseRecord) -> LogRecord:
    """A record as watchers are told of it."""
    return record if isinstance(record, LogRecord) else record.as_log_record()


def refused(error: EnvdError) -> asyncio.Future[int]:
    """The answer to a record that is not taken."""
    durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    durable.set_exception(error)
    return durable


def goes_to_peers(row: bytes) -> bool:
    """Tell whether a row of the log has a name in the cluster, under which peers take it."""
    name = records.record_name(row)
    return name is not None and name.origin != 0
