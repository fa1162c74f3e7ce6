"""Clients that write, and keep every acknowledgement and every failure.

A writer makes one write after the other: mostly sets, else unsets, deletions and rollbacks, on a
few environments that all writers share. What the state of an environment does not admit (nothing
to unset, nothing to roll back to) is no failure: the node answered, and said so.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import envd
from envd.core.answers import WriteAnswer

PREFIX: Final = "chaos/"
LIBRARY: Final = "library"
SERIAL: Final = "library, serial"
READER: Final = "reader"
_NAMES: Final = 8
_NOT_ADMITTED: Final = (envd.NotFound, envd.Conflict)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that a client was told is done; times are those of the event loop."""

    writer: str
    kind: str
    environment: str
    stamp: str
    copies: int
    detached: bool
    began_s: float
    ended_s: float
    token: str = ""

    @property
    def origin(self) -> str:
        """The uid of the node that took it."""
        return self.stamp[-16:]


@dataclass(frozen=True, slots=True)
class Failed:
    """A write, or a read, that ended with an error."""

    writer: str
    kind: str
    reason: str
    message: str
    ended_s: float

    @property
    def is_open(self) -> bool:
        """Whether it may have happened, and is of a kind that a client can't just send again.

        A set can be: it makes the same of every state. Of what it is not so for, a client can
        only say that it does not know, where the node dies that had taken it.
        """
        return self.kind != "set" and self.reason.startswith("OutcomeUnknown/")


@dataclass
class Records:
    """What the callers of a scenario were told.

    `answered` counts reads by who made them; `stale` names those that did not show a write that
    they followed.
    """

    acknowledged: list[Acknowledged] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    not_admitted: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)

    def reasons(self) -> Counter[tuple[str, str]]:
        """How many calls failed, by caller and reason."""
        return Counter((each.writer, f"{each.kind}: {each.reason}") for each in self.failed)


def environments(count: int) -> list[str]:
    """The names that all writers share."""
    return [f"{PREFIX}app{number:02d}/prod" for number in range(count)]


def acknowledged(
    writer: str, kind: str, answer: WriteAnswer, began_s: float, ended_s: float
) -> Acknowledged:
    """What to keep of an answer."""
    return Acknowledged(
        writer,
        kind,
        answer.environment,
        answer.stamp,
        answer.acknowledged,
        answer.detached,
        began_s,
        ended_s,
        answer.token,
    )


class Caller(ABC):
    """Makes one call after the other, over one client, until told to finish.

    `pause_s` is about the time between an answer and the next call.
    """

    def __init__(
        self,
        name: str,
        client: envd.Client,
        records: Records,
        chance: random.Random,
        *,
        pause_s: float,
    ) -> None:
        self.name = name
        self._client = client
        self._records = records
        self._chance = chance
        self._pause_s = pause_s
        self._over = False

    def finish(self) -> None:
        """Begin no further call."""
        self._over = True

    async def run(self) -> None:
        """Call until told to finish."""
        while not self._over:
            await self._one()
            await asyncio.sleep(self._pause_s * (0.5 + self._chance.random()))

    @abstractmethod
    async def _one(self) -> None:
        """Make one call, and keep what was told."""


class Writer(Caller):
    """Writes to these environments in all the ways there are."""

    def __init__(
        self,
        name: str,
        client: envd.Client,
        records: Records,
        chance: random.Random,
        names: Sequence[str],
        *,
        pause_s: float,
        value_bytes: int = 24,
    ) -> None:
        super().__init__(name, client, records, chance, pause_s=pause_s)
        self._environments = names
        self._value_bytes = value_bytes
        self._count = 0

    async def _one(self) -> None:
        kind, call = self._draw()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            answer = await call()
        except _NOT_ADMITTED:
            self._records.not_admitted[kind] += 1
        except envd.EnvdError as error:
            self._records.failed.append(
                Failed(self.name, kind, _reason(error), error.message, loop.time())
            )
        else:
            self._records.acknowledged.append(
                acknowledged(self.name, kind, answer, began_s, loop.time())
            )

    def _draw(self) -> tuple[str, Callable[[], Awaitable[WriteAnswer]]]:
        draw, client = self._chance.random(), self._client
        name = self._chance.choice(self._environments)
        if draw < 0.75:
            values = {each: self._value() for each in self._keys(self._chance.randint(1, 3))}
            return "set", lambda: client.set(name, values)
        if draw < 0.88:
            (key,) = self._keys(1)
            return "unset", lambda: client.unset(name, key)
        if draw < 0.94:
            back = f"@~{self._chance.randint(1, 3)}"
            return "rollback", lambda: client.rollback(name, back)
        return "delete", lambda: client.delete(name)

    def _keys(self, count: int) -> list[str]:
        return self._chance.sample([f"KEY_{number}" for number in range(_NAMES)], count)

    def _value(self) -> str:
        self._count += 1
        return f"{self.name} {self._count} ".ljust(self._value_bytes, "x")


class SerialWriter(Caller):
    """Sets variables of a serial environment of its own, one after the other; makes it first."""

    def __init__(
        self, name: str, client: envd.Client, records: Records, environment: str, *, pause_s: float
    ) -> None:
        super().__init__(name, client, records, random.Random(name), pause_s=pause_s)
        self._environment = environment
        self._count = 0
        self._made = False

    async def _one(self) -> None:
        self._count += 1
        loop = asyncio.get_running_loop()
        try:
            if not self._made:
                await self._client.set(self._environment, {"COUNT": "0"})
                await self._client.settings(self._environment, {"mode": "serial"})
                self._made = True
            began_s = loop.time()
            answer = await self._client.set(self._environment, {"COUNT": str(self._count)})
        except envd.EnvdError as error:
            failed = Failed(self.name, "set", _reason(error), error.message, loop.time())
            self._records.failed.append(failed)
        else:
            self._records.acknowledged.append(
                acknowledged(self.name, "set", answer, began_s, loop.time())
            )


class Reader(Caller):
    """Reads what was written just now, with the token of that write, or some environment without.

    A read with a token must show that write, or a later one.
    """

    def __init__(
        self,
        name: str,
        client: envd.Client,
        records: Records,
        chance: random.Random,
        names: Sequence[str],
        *,
        pause_s: float,
    ) -> None:
        super().__init__(name, client, records, chance, pause_s=pause_s)
        self._environments = names

    async def _one(self) -> None:
        known = self._records.acknowledged[-8:]
        follows = self._chance.choice(known) if known and self._chance.random() < 0.5 else None
        name = follows.environment if follows else self._chance.choice(self._environments)
        token = follows.token if follows else ""
        loop = asyncio.get_running_loop()
        try:
            view = await self._client.get(name, token=token)
        except envd.NotFound:  # It was deleted, or never written.
            self._records.answered[self.name] += 1
        except envd.EnvdError as error:
            kind = "session read" if token else "read"
            failed = Failed(self.name, kind, _reason(error), error.message, loop.time())
            self._records.failed.append(failed)
        else:
            self._records.answered[self.name] += 1
            if follows and view.stamp < follows.stamp:
                self._records.stale.append(f"{name} at {view.stamp}, written {follows.stamp}")


def _reason(error: envd.EnvdError) -> str:
    """Its public kind and its reason."""
    kind = envd.OutcomeUnknown if isinstance(error, envd.OutcomeUnknown) else type(error)
    cause = error.__cause__
    why = f" after {cause.reason}: {cause.message}" if isinstance(cause, envd.EnvdError) else ""
    return f"{kind.__name__}/{error.reason}{why}"


class Load:
    """The callers of a scenario: so many on each node, and some that know all nodes."""

    def __init__(self, seed: int, names: Sequence[str]) -> None:
        self._seed = seed
        self._names = names
        self._callers: list[Caller] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.records = Records()

    def begin(
        self, name: str, client: envd.Client, *, pause_s: float, value_bytes: int = 24
    ) -> None:
        """Have one more writer write from now on."""
        self._start(
            Writer(
                name,
                client,
                self.records,
                self._chance(name),
                self._names,
                pause_s=pause_s,
                value_bytes=value_bytes,
            )
        )

    def begin_serial(
        self, name: str, client: envd.Client, environment: str, *, pause_s: float
    ) -> None:
        """Have somebody write to this serial environment from now on."""
        self._start(SerialWriter(name, client, self.records, environment, pause_s=pause_s))

    def begin_reading(self, name: str, client: envd.Client, *, pause_s: float) -> None:
        """Have one more reader read from now on."""
        chance = self._chance(name)
        self._start(Reader(name, client, self.records, chance, self._names, pause_s=pause_s))

    def _chance(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name} {len(self._callers)}")

    def _start(self, caller: Caller) -> None:
        self._callers.append(caller)
        self._tasks.append(asyncio.create_task(caller.run()))

    async def finish(self) -> None:
        """Let every caller finish what it is at."""
        for caller in self._callers:
            caller.finish()
        if self._tasks:
            done, _ = await asyncio.wait(self._tasks)
            for task in done:
                task.result()

    def stop(self) -> None:
        """End every caller at once; for the end of a scenario that failed."""
        for task in self._tasks:
            task.cancel()
