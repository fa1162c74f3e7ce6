"""The backend: one table, one connection, one thread.

SQLite blocks, so all calls are made in a thread of their own, one after the other; a call whose
caller was cancelled still ends there, and a transaction is done whole or not at all. `close` waits
for it.

CAS           the look and the write are one transaction
STAMP_ATOMIC  the stamp is in the row of the value
LIST_VALUES   a row has everything

A row gets a new id with each write by envd. Others may edit values in place, so a version is the id
together with a fingerprint of the value. There are no repeats to recognise: a repeated write finds
its own value, and is a NOOP.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from envd.backends.contract import (
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Options,
    Outcome,
    Page,
    PriceSheet,
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.naming import Naming, shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    rejected,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

CAPABILITIES: Final = Capability.CAS | Capability.STAMP_ATOMIC | Capability.LIST_VALUES
LIMITS: Final = Limits(
    max_value_bytes=1 << 20, max_name_bytes=1024, page_items=100, batch=100, get_batch=100
)
PRICES: Final = PriceSheet("sqlite", "sqlite", "2025-01-01")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS variables (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    value TEXT NOT NULL,
    secret INTEGER,
    managed INTEGER NOT NULL DEFAULT 0,
    stamp TEXT NOT NULL DEFAULT '',
    changed_ms INTEGER
)
"""
_COLUMNS: Final = "id, name, value, secret, managed, stamp, changed_ms"

_T = TypeVar("_T")


class _Row(NamedTuple):
    id: int
    name: str
    value: str
    secret: int | None
    managed: int
    stamp: str
    changed_ms: int | None


class SqliteBackend:
    """One database; the place is its path."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return LIMITS

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, "envd-sqlite")
        self._database = await self._in_thread(self._connect)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._options.place, isolation_level=None, check_same_thread=False
        )
        database.execute(_SCHEMA)
        return database

    async def close(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        if self._database is not None:
            self._database.close()
        self._thread = self._database = None

    async def probe(self) -> Health:
        try:
            await self._in_thread(self._select, "WHERE 0")
        except BackendError as error:
            return Health(False, detail=error.message, hint=error.hint)
        return Health(True, identity="whoever may read the file")

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do what blocks; what SQLite says is told without what it was asked."""
        if self._thread is None:
            raise StoreUnavailable(f"{self._options.place} is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: work(*arguments)
            )
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", type(error).__name__)
            raise StoreUnavailable(f"{self._options.place}: {code}") from None

    # Names.

    def encode(self, key: Key) -> str:
        native = self._naming.encode(key)
        if len(native.encode()) > LIMITS.max_name_bytes:
            raise InvalidName(f"the name of {shown(key)} is longer than a row takes")
        return native

    def decode(self, native: str) -> Key | None:
        return self._naming.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        if "\0" in op.value:
            return InvalidValue(f"the value of {shown(op.key)} holds a NUL character")
        return value_problem(op, LIMITS)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        after = cursor or ""
        size = LIMITS.page_items
        while True:
            where = f"WHERE name > ? ORDER BY name LIMIT {size + 1}"
            rows = await self._in_thread(self._select, where, after)
            items = [item for row in rows[:size] if (item := self._item(row)) is not None]
            inside = [item for item in items if scope.holds(item.key)]
            if len(rows) <= size:
                yield Page(inside, complete=not cursor)
                return
            after = rows[size - 1].name
            yield Page(inside, cursor=after)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        return await self._in_thread(lambda: {key: self._one(key) for key in keys})

    def _one(self, key: Key) -> Item | BackendError:
        try:
            row = self._row(self.encode(key))
        except InvalidName as error:
            return error
        item = self._item(row) if row is not None else None
        return item or ItemNotFound(f"there is no {shown(key)} in {self._options.place}")

    def _select(self, where: str, *parameters: object) -> list[_Row]:
        assert self._database is not None
        found = self._database.execute(
            f"SELECT {_COLUMNS} FROM variables {where}",
            parameters,
        )
        return [_Row(*row) for row in found]

    def _row(self, name: str) -> _Row | None:
        rows = self._select("WHERE name = ?", name)
        return rows[0] if rows else None

    def _item(self, row: _Row) -> Item | None:
        key = self.decode(row.name)
        if key is None:
            return None
        return Item(
            key,
            row.name,
            self._version(row),
            value=row.value,
            secret=None if row.secret is None else bool(row.secret),
            managed=bool(row.managed),
            stamp=row.stamp,
            changed_ms=row.changed_ms,
        )

    def _version(self, row: _Row) -> str:
        return f"{row.id}-{self._options.fingerprint(row.value)}"

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
            return await self._in_thread(self._transaction, ops)
        except BackendError as error:
            return [unsuccessful(op, error) for op in ops]

    def _transaction(self, ops: Sequence[Op]) -> list[Outcome]:
        """All that can be done of a batch, in one transaction."""
        assert self._database is not None
        refused = rejected(list(ops), self.check(ops))
        self._database.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [refused[at] if at in refused else self._do(op) for at, op in enumerate(ops)]
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        return outcomes

    def _do(self, op: Op) -> Outcome:
        native = self.encode(op.key)
        row = self._row(native)
        version = self._version(row) if row is not None else ""
        if self._is_so(op, row):
            return Outcome(op, Result.NOOP, version)
        if op.expect != version:
            return stale(op, version)
        if row is not None and not row.managed and not op.any_owner:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=version)
        return self._write(op, native)

    def _is_so(self, op: Op, row: _Row | None) -> bool:
        if row is None or op.verb is Verb.DELETE:
            return row is None and op.verb is Verb.DELETE
        return row.value == op.value and row.secret in (None, int(op.secret))

    def _write(self, op: Op, native: str) -> Outcome:
        assert self._database is not None
        if op.verb is Verb.DELETE:
            self._database.execute("DELETE FROM variables WHERE name = ?", (native,))
            return Outcome(op, Result.APPLIED)
        self._database.execute(
            "INSERT OR REPLACE INTO variables (name, value, secret, managed, stamp, changed_ms)"
            " VALUES (?, ?, ?, 1, ?, ?)",
            (native, op.value, op.secret, op.stamp, self._options.wall_ms()),
        )
        row = self._row(native)
        assert row is not None
        return Outcome(op, Result.APPLIED, self._version(row))

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("SQLite tells of no changes")

    def cost(self, load: Load) -> Cost:
        reads = scan_calls(load, LIMITS.page_items) + -(-load.read // LIMITS.get_batch)
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)
