"""What the stores of AWS have in common as backends: names, the calls, and the probe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from envd.backends.aws_session import Calls
from envd.backends.contract import Health, Key, Op, Reject
from envd.backends.errors import BackendError, InvalidName
from envd.backends.outcomes import probed
from envd.backends.turns import Turns


class Names(Protocol):
    """How the items of one place are called, as `Backend` has it."""

    def encode(self, key: Key) -> str: ...

    def decode(self, native: str) -> Key | None: ...


N = TypeVar("N", bound=Names)


class AwsStore(ABC, Generic[N]):
    """One place in a store of AWS, which writes each item in turn."""

    def __init__(self, names: N, calls: Calls) -> None:
        self._names = names
        self._calls = calls
        self._turns = Turns()

    async def open(self) -> None:
        await self._calls.open()

    async def close(self) -> None:
        await self._calls.close()

    async def probe(self) -> Health:
        return await probed(self._reach, lambda: self._calls.identity)

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
        return self._refusal(op)

    @abstractmethod
    async def _reach(self) -> None:
        """Make one cheap call that shows whether the place can be listed."""

    @abstractmethod
    def _refusal(self, op: Op) -> BackendError | None:
        """Why the store never takes an operation whose name is legal; None where it may."""
