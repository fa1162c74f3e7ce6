"""The `file` backend: variables in dotenv, JSON and YAML files, as people write them.

An item is one variable, not the file: WHOLE_DOCUMENT would be nearer to what a disk does, but then
an edit of one line in an editor and a write of another variable by envd would be a conflict, and
all that is no variable (comments, the order, a local variable that envd has nothing to do with)
would have no place. So a write replaces one value where it stands, and all else stays byte for
byte; all operations of one apply on one file are one rename. It is not an ATOMIC_BATCH: what can't
be done of it does not keep the rest from being done, and several files are several renames.

CAS             the version of a variable is a fingerprint of its value, compared under a lock
                against others who write through envd, and the file is compared once more right
                before the rename, for editors know no locks. A value that was changed and changed
                back has the version that it had.
STAMP_ATOMIC    in a side file without values, so that it can't belong to another version
LIST_VALUES     a file is read as a whole
WATCH           by looking at the times and sizes of the files every `poll_s` seconds; it tells
                that something changed, not what
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

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
    Registration,
    Reject,
    Scope,
    plain_fingerprint,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.file_document import Document, FileLock, read_document, real_path, told
from envd.backends.file_git import GitTree
from envd.backends.file_marks import lock_path, mark_of
from envd.backends.file_place import open_place, read_settings
from envd.backends.file_writing import Writing, Written, not_committed
from envd.backends.naming import Naming, check_key, shown
from envd.backends.outcomes import check_batch, rejected, unsuccessful, value_problem
from envd.core.errors import InvalidRequest
from envd.core.names import MAX_VALUE_BYTES, MAX_VARIABLE_NAME_BYTES, check_value, check_variable
from envd.threads import finish_in_thread

CAPABILITIES: Final = (
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.LIST_VALUES | Capability.WATCH
)
LIMITS: Final = Limits(
    max_value_bytes=MAX_VALUE_BYTES,
    max_name_bytes=MAX_VARIABLE_NAME_BYTES,
    batch=1000,
    get_batch=1000,
)
PRICES: Final = PriceSheet("file", "file", "2025-01-01")

_LOCK_TRIES = 100
_LOCK_PAUSE_S = 0.02
"""Two seconds in all: a write takes some milliseconds."""


T = TypeVar("T")


class FileBackend:
    """A file, or with `options.below` a directory of them."""

    def __init__(
        self,
        options: Options,
        *,
        git: GitTree | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raise StoreUnsupported or InvalidName for options that can't be."""
        if options.layout == "document":
            raise StoreUnsupported(
                "a file of variables holds them one by one", hint="use --layout per-variable"
            )
        self._settings = read_settings(options.settings)
        self._place = open_place(options, self._settings)
        self._naming = Naming(options.name_template or "{variable}")
        self._options = options
        self._git = git if git is not None else GitTree()
        self._sleep = sleep
        # Those who write through this backend take turns; the lock on disk is for all others.
        self._turn = asyncio.Lock()

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
        """There is nothing to open: every call opens its files, and closes them."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def probe(self) -> Health:
        before = self._options.wall_ms()
        try:
            environments = await self._in_thread(self._place.environments)
            for environment in environments[:1]:
                await self._in_thread(self._read, environment)
        except BackendError as error:
            return Health(False, detail=error.message, hint=error.hint)
        taken = float(max(0, self._options.wall_ms() - before))
        return Health(True, taken, identity=f"uid {os.geteuid()}")

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Do what blocks; what the system says is raised as a BackendError."""
        return await finish_in_thread(self._told, work, *arguments)

    def _told(self, work: Callable[..., T], *arguments: object) -> T:
        with told(Path(self._options.place)):
            return work(*arguments)

    # Names.

    def encode(self, key: Key) -> str:
        """The name in the file; before it, in a directory, the environment and a colon."""
        check_key(key, document=False, below=self._options.below)
        name = self._name(key)
        return f"{key.environment}:{name}" if self._options.below else name

    def decode(self, native: str) -> Key | None:
        environment, colon, name = native.rpartition(":")
        if bool(colon) != self._options.below:
            return None
        found = self._naming.decode(name)
        key = Key(environment, found.variable) if found is not None else None
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def _name(self, key: Key) -> str:
        name = self._naming.encode(Key("", key.variable))
        problem = ""
        try:
            check_variable(name)
        except InvalidRequest as error:
            problem = error.message
        if problem:
            raise InvalidName(problem)
        return name

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
            check_value(op.key.variable, op.value)
        except InvalidName as error:
            return error
        except InvalidRequest as error:
            return value_problem(op, LIMITS) or InvalidValue(error.message)
        return value_problem(op, LIMITS)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """A page for each file; a scan after a cursor did not see everything, and never says so."""
        environments = await self._in_thread(self._place.environments)
        # An environment may be "", so a cursor begins with a colon.
        wanted = [
            each
            for each in environments
            if scope.holds(Key(each, "")) and (not cursor or each > cursor[1:])
        ]
        for at, environment in enumerate(wanted):
            document = await self._in_thread(self._read, environment)
            is_last = at + 1 == len(wanted)
            yield Page(
                self._items(environment, document),
                complete=is_last and not cursor,
                cursor="" if is_last else f":{environment}",
            )
        if not wanted:
            yield Page((), complete=not cursor)

    def _read(self, environment: str) -> Document:
        return read_document(*self._place.file(environment))

    def _items(self, environment: str, document: Document) -> list[Item]:
        found = ((self._naming.decode(name), name) for name in document.variables)
        return [
            self._item(Key(environment, key.variable), name, document)
            for key, name in found
            if key is not None
        ]

    def _item(self, key: Key, name: str, document: Document) -> Item:
        value = document.variables[name]
        version = self._version(name, value)
        mark = mark_of(document.marks, name, version)
        return Item(
            key,
            self.encode(key),
            version,
            value=value,
            managed=name in document.marks,
            stamp=mark.stamp if mark is not None else "",
            changed_ms=mark.changed_ms if mark is not None else document.changed_ms,
        )

    def _version(self, name: str, value: str) -> str:
        # With the name, so that equal values of two variables don't show.
        return self._options.fingerprint(f"{name}={value}")

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        answers: dict[Key, Item | BackendError] = {}
        documents: dict[str, Document | BackendError] = {}
        for key in keys:
            try:
                self.encode(key)  # First of all: an environment that is none is not looked for.
                if key.environment not in documents:
                    documents[key.environment] = await self._document(key.environment)
                answers[key] = self._one(key, documents[key.environment])
            except InvalidName as error:
                answers[key] = error
        return answers

    async def _document(self, environment: str) -> Document | BackendError:
        try:
            return await self._in_thread(self._read, environment)
        except BackendError as error:
            return error

    def _one(self, key: Key, document: Document | BackendError) -> Item | BackendError:
        if not isinstance(document, Document):
            return document
        name = self._name(key)
        if name not in document.variables:
            return ItemNotFound(f"there is no {shown(key)} in {document.path}")
        return self._item(key, name, document)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds everything as it is to be, and is answered with NOOP."""
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        outcomes = rejected(list(ops), self.check(ops))
        left: dict[str, dict[int, Op]] = {}
        for at, op in enumerate(ops):
            if at not in outcomes:
                left.setdefault(op.key.environment, {})[at] = op
        trees: dict[Path, list[Written]] = {}
        for environment, mine in left.items():
            written = await self._write(environment, mine, trees)
            outcomes.update(written.outcomes)
        for top, writes in trees.items():
            outcomes.update(await self._commit(top, writes))
        return [outcomes[at] for at in range(len(ops))]

    async def _write(
        self, environment: str, ops: Mapping[int, Op], trees: dict[Path, list[Written]]
    ) -> Written:
        """Write one file; note it among those that are to be committed."""
        try:
            await self._in_thread(self._place.prepare, environment)
            path, form = await self._in_thread(self._place.file, environment)
            real = await self._in_thread(real_path, path)
            top = await self._git.check(real) if self._settings.git_commit else None
            async with self._turn, self._locked(real):
                writing = Writing(self._name, self._version, self._options.wall_ms())
                written = await self._in_thread(writing.write, path, form, ops)
        except BackendError as error:
            return Written({at: unsuccessful(op, error) for at, op in ops.items()})
        if top is not None and written.path is not None:
            trees.setdefault(top, []).append(written)
        return written

    @asynccontextmanager
    async def _locked(self, path: Path) -> AsyncIterator[None]:
        """Keep others away who write this file through envd; waits for them a little."""
        lock = FileLock(lock_path(path))
        try:
            for _ in range(_LOCK_TRIES):
                if await self._in_thread(lock.acquire):
                    break
                await self._sleep(_LOCK_PAUSE_S)
            else:
                raise StoreUnavailable(f"{path}: somebody else writes the file; nothing was done")
            yield
        finally:
            lock.release()

    async def _commit(self, top: Path, writes: Sequence[Written]) -> Mapping[int, Outcome]:
        """Commit what was written in one working tree; return the outcomes that are others now."""
        paths = [each.path for each in writes if each.path is not None]
        names = sorted({name for each in writes for name in each.names})
        try:
            await self._git.commit(top, paths, names)
        except BackendError as error:
            return {
                at: outcome for each in writes for at, outcome in not_committed(each, error).items()
            }
        return {}

    # Watching, and what it costs.

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Tell that something changed, once for all that did between two looks.

        A place that can't be looked at is as one that changed: a scan tells what is wrong.
        """
        seen = cursor
        while True:
            now = await self._in_thread(self._signature, scope)
            if seen is not None and now != seen:
                yield Hint(cursor=now)
            seen = now
            await self._sleep(self._settings.poll_s)

    def _signature(self, scope: Scope) -> str:
        """Equal while no file is written, made or removed."""
        seen: list[str] = []
        try:
            for environment in self._place.environments():
                if scope.holds(Key(environment, "")):
                    path, _ = self._place.file(environment)
                    found = path.stat()
                    seen.append(f"{environment} {found.st_mtime_ns} {found.st_size} {found.st_ino}")
        except (BackendError, OSError) as error:
            seen.append(type(error).__name__)
        return plain_fingerprint("\n".join(seen))

    def cost(self, load: Load) -> Cost:
        """Files cost nothing; a scan reads each, and an apply writes each, once."""
        return Cost(load.scans + load.read, load.changed, 0.0)


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "file",
        "variables in dotenv, JSON or YAML files, whose comments and order stay",
        FileBackend,
        "/PATH/.env or /DIRECTORY",
        capabilities=CAPABILITIES,
        settings_section="file",
    )
