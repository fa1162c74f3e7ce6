"""What the stores of Google Cloud have in common as backends: things with labels, and versions.

Secrets and parameters are alike: one has a label that says who made it, and versions that hold the
values. A version is never changed; a write adds one. To list tells of no versions, so a scan takes
a call for each thing besides, which finds its newest version; a value is read by the name of its
version, and only where that is another.

One whose newest version is disabled, or destroyed, is listed without a value, and reading it is an
InvalidValue: nobody knows what it should be. One without any version is not there yet.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from envd.backends.contract import (
    Health,
    Item,
    Key,
    Limits,
    Op,
    Outcome,
    Page,
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
from envd.backends.gcp_names import PlaceNames
from envd.backends.gcp_session import Calls, labelled, last_part
from envd.backends.naming import shown
from envd.backends.outcomes import check_batch, probed, stale, unsuccessful, value_problem
from envd.backends.turns import Turns

_T = TypeVar("_T")
_R = TypeVar("_R")

LABEL: Final = ("managed-by", "envd")


@dataclass(frozen=True, slots=True)
class Version:
    """One version, by the last part of its name; `made_us` is when it was made (unix us).

    `state` is "" for one that can be read. `following` is the number of the next one, where the
    store leaves it to us to name them.
    """

    name: str
    made_us: int
    state: str = ""
    following: int = 1

    @property
    def made_ms(self) -> int:
        return self.made_us // 1000

    @property
    def text(self) -> str:
        """What the contract calls a version. What is made anew begins at 1 again, so the time is in
        it; and one that was disabled has no value any more that could be read."""
        return f"{self.name}-{self.made_ms}" + (f"-{self.state}" if self.state else "")


@dataclass(frozen=True, slots=True)
class Marks:
    """What a secret or a parameter says of itself; `etag` is "" where there are none."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""

    @property
    def is_ours(self) -> bool:
        return self.labels.get(LABEL[0]) == LABEL[1]

    @property
    def owned(self) -> Mapping[str, str]:
        """The labels with ours."""
        return {**self.labels, LABEL[0]: LABEL[1]}


@dataclass(frozen=True, slots=True)
class Seen:
    """One as it was found: its newest version, None without any, and its value if that was read."""

    marks: Marks
    newest: Version | None
    value: str | None = field(default=None, repr=False)

    @property
    def version(self) -> str:
        return "" if self.newest is None else self.newest.text


class VersionedStore(ABC):
    """One place in a store of Google Cloud, which writes each item in turn."""

    def __init__(self, names: PlaceNames, calls: Calls, limits: Limits) -> None:
        self._names = names
        self._calls = calls
        self._limits = limits
        self._turns = Turns()

    @property
    def limits(self) -> Limits:
        return self._limits

    async def open(self) -> None:
        await self._calls.open()

    async def close(self) -> None:
        await self._calls.close()

    async def probe(self) -> Health:
        """List a little of the project."""
        return await probed(lambda: self._listed("", most=1), lambda: self._calls.identity)

    def encode(self, key: Key) -> str:
        return self._names.encode(key)

    def decode(self, native: str) -> Key | None:
        return self._names.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        return value_problem(op, self.limits)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """A call for each page of the API, and one for each item in scope."""
        token, size = cursor or "", self.limits.page_items
        while True:
            found, token = await self._listed(token)
            wanted = [each for each in found if self._is_in(each, scope)]
            for start in range(0, max(1, len(wanted)), size):
                items = await self._items(wanted[start : start + size])
                is_last = start + size >= len(wanted)
                # A call's middle has no token of its own, so a scan can't go on from there.
                yield Page(
                    items,
                    complete=is_last and not token and not cursor,
                    cursor=token if is_last else "",
                )
            if not token:
                return

    def _is_in(self, answer: Any, scope: Scope) -> bool:
        key = self.decode(last_part(answer.name))
        return key is not None and scope.holds(key)

    async def _items(self, answers: Sequence[Any]) -> list[Item]:
        """The items of a listing, several at once, without their values."""

        async def item(answer: Any) -> Item | None:
            native = last_part(answer.name)
            try:
                marks, newest = self._marks(answer, native), await self._newest(native)
            except ItemNotFound:  # It was deleted since.
                return None
            return self._item(native, Seen(marks, newest)) if newest is not None else None

        return [each for each in await self._several(item, answers) if each is not None]

    async def _several(self, work: Callable[[_T], Awaitable[_R]], things: Sequence[_T]) -> list[_R]:
        """Do this to each, several at once; after the first error none is begun any more."""
        done: dict[int, _R] = {}
        failed: list[BackendError] = []
        waiting = iter(enumerate(things))

        async def worker() -> None:
            for at, thing in waiting:
                if failed:
                    return
                try:
                    done[at] = await work(thing)
                except BackendError as error:
                    failed.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(things), self.limits.concurrency)):
                group.create_task(worker())
        if failed:
            raise failed[0]
        return [done[at] for at in range(len(things))]

    def _item(self, native: str, seen: Seen) -> Item:
        key = self.decode(native)
        if key is None or seen.newest is None:
            raise StoreUnavailable(f"{native}: an answer without sense")
        return Item(
            key,
            native,
            seen.version,
            value=seen.value,
            managed=seen.marks.is_ours,
            stamp=self._stamp(seen.marks, seen.newest),
            changed_ms=seen.newest.made_ms,
        )

    async def _look(self, native: str, *, valued: bool) -> Seen | None:
        """It as it is now, None where there is none."""
        try:
            marks, newest = self._marks(await self._get(native), native), await self._newest(native)
            if not valued or newest is None or newest.state:
                return Seen(marks, newest)
            return Seen(marks, newest, await self._value(native, newest.name))
        except ItemNotFound:
            return None

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        """Three calls for each. What is refused for one key is the answer for that one."""
        check_batch(len(keys), self.limits.get_batch, what="keys")
        return dict(zip(keys, await self._several(self._answer, keys), strict=True))

    async def _answer(self, key: Key) -> Item | BackendError:
        try:
            native = self.encode(key)
            seen = await self._look(native, valued=True)
            if seen is None or seen.newest is None:
                return ItemNotFound(f"there is no {native}")
            if seen.value is None:
                return InvalidValue(
                    f"the newest version of {native}, {seen.newest.name}, is {seen.newest.state}",
                    hint="enable it, or write another",
                )
            return self._item(native, seen)
        except BackendError as error:
            if not error.is_refusal:
                raise
            return error

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds the item as it is to be, and is answered with NOOP."""
        try:
            check_batch(len(ops), self.limits.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op) for op in ops]

    async def _do(self, op: Op) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        native = self.encode(op.key)
        try:
            async with self._turns.of(native):
                if op.verb is Verb.DELETE:
                    return await self._delete(op, native)
                return await self._put(op, native)
        except BackendError as error:
            return unsuccessful(op, error)

    async def _put(self, op: Op, native: str) -> Outcome:
        created = None if op.expect else await self._create(native)
        if created is not None:
            return await self._add(op, native, Seen(created, None))
        seen = await self._seen(native)
        if seen is None:
            return stale(op, "")
        is_so = seen.value == op.value
        if not is_so and op.expect != seen.version:
            return stale(op, seen.version)
        if not seen.marks.is_ours and op.any_owner:
            # Before the value is written: where that is refused, nothing was.
            seen = replace(seen, marks=await self._own(native, seen.marks))
        if is_so:
            return Outcome(op, Result.NOOP, seen.version)
        if not seen.marks.is_ours:
            return _not_owned(op, seen)
        return await self._add(op, native, seen)

    async def _seen(self, native: str) -> Seen | None:
        """It as it is; of one that holds no text it is enough to know that it is another."""
        try:
            return await self._look(native, valued=True)
        except InvalidValue:
            return await self._look(native, valued=False)

    async def _delete(self, op: Op, native: str) -> Outcome:
        seen = await self._look(native, valued=False)
        if seen is None or seen.newest is None:
            return Outcome(op, Result.NOOP)
        if op.expect != seen.version:
            return stale(op, seen.version)
        if not op.any_owner and not seen.marks.is_ours:
            return _not_owned(op, seen)
        try:
            await self._remove(native, seen)
        except ItemNotFound:
            return Outcome(op, Result.NOOP)
        return Outcome(op, Result.APPLIED)

    # What each store does in its own way.

    @abstractmethod
    async def _listed(self, token: str, *, most: int = 0) -> tuple[list[Any], str]:
        """A page of all that the project has, and the token of the next one."""

    @abstractmethod
    async def _get(self, native: str) -> Any:
        """What one says of itself; raises ItemNotFound."""

    @abstractmethod
    async def _newest(self, native: str) -> Version | None:
        """The newest version, whatever its state; None where there is none yet."""

    @abstractmethod
    async def _value(self, native: str, version: str) -> str:
        """The value of a version. Raises InvalidValue for one that has no text."""

    @abstractmethod
    async def _create(self, native: str) -> Marks | None:
        """Create one without a version; None where there is one already."""

    @abstractmethod
    async def _own(self, native: str, marks: Marks) -> Marks:
        """Label one as ours."""

    @abstractmethod
    async def _add(self, op: Op, native: str, seen: Seen) -> Outcome:
        """Add a version after the one that was seen."""

    @abstractmethod
    async def _remove(self, native: str, seen: Seen) -> None:
        """Delete one with all of its versions."""

    def _stamp(self, marks: Marks, version: Version) -> str:
        """The stamp of a version, "" where there is none."""
        return ""

    def _marks(self, answer: Any, native: str) -> Marks:
        """What an answer says of one; StoreUnavailable for an answer that is none."""
        if not getattr(answer, "name", ""):
            raise StoreUnavailable(f"{native}: an answer without sense")
        return Marks(labelled(answer.labels))


def decoded(data: object, about: str) -> str:
    """The text of some bytes; InvalidValue for those that are none."""
    try:
        if isinstance(data, bytes):
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise InvalidValue(f"{about} holds bytes that are no text")


def _not_owned(op: Op, seen: Seen) -> Outcome:
    error = NotOwned(f"{shown(op.key)} was not created by envd")
    return unsuccessful(op, error, version=seen.version)
