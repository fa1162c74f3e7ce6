"""Leases: one node at a time does what must be done by one, and the next takes over.

A lease is a serial environment of its own, `sys/leases/NAME`, that says who holds it. Its fencing
token grows with each holder, so who is told a token refuses what comes with a lower one: a holder
that was asleep can do no harm with what it still believes (Kleppmann 2016, "How to do distributed
locking"). Nobody's wall clock counts: who waits for a lease takes it once it has seen nothing of
its holder for the lease's time, by its own clock (as leader election in Kubernetes does), and the
holder stops a margin before, counted from before it asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from envd.core.chain import MODE, SERIAL
from envd.core.commit import Kind
from envd.core.errors import Conflict, Corrupt, EnvdError
from envd.core.history import LEASES
from envd.core.names import check_environment
from envd.core.requests import Put, WriteRequest
from envd.node.serial import Serial

AUTHOR: Final = "envd"
_VARIABLE: Final = "LEASE"
_MARGIN: Final = 0.1
"""This share of its time a holder stops before the lease ends: clocks run at different speeds."""
_RENEWALS: Final = 3
"""So often it is renewed in its time."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that this node holds, until `until_s` of the event loop's time."""

    name: str
    token: int
    ttl_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class _Said:
    """What the environment of a lease says; `holder` is "" for nobody."""

    holder: str = ""
    token: int = 0
    ttl_s: float = 0.0


class Leases:
    """The leases of one node. `holder` names this start of it, and no other."""

    def __init__(self, holder: str, serial: Serial) -> None:
        self._holder = holder
        self._serial = serial
        self._loop = asyncio.get_running_loop()
        self._seen: dict[str, tuple[bytes, float]] = {}

    async def acquire(self, name: str, ttl_s: float) -> Lease | None:
        """Take a lease if nobody holds it; None where somebody does, or may.

        Ask again and again: whether a holder is gone shows only with time. Raises Unavailable
        where no majority can be reached, OutcomeUnknown where it may be held now.
        """
        environment = _environment(name)
        await self._serial.confirm(environment)
        revision, said = self._read(environment)
        if said.holder not in ("", self._holder) and not self._is_over(name, revision, said):
            return None
        token = said.token + (said.holder != self._holder)
        return await self._write(name, revision, _Said(self._holder, token, ttl_s))

    async def renew(self, lease: Lease) -> Lease | None:
        """Hold it for its whole time from now on; None where it is lost. Raises as `acquire`."""
        environment = _environment(lease.name)
        await self._serial.confirm(environment)
        revision, said = self._read(environment)
        if (said.holder, said.token) != (self._holder, lease.token):
            return None
        return await self._write(lease.name, revision, replace(said, ttl_s=lease.ttl_s))

    async def release(self, lease: Lease) -> None:
        """Let the next one have it at once; where that can't be told, it has to wait."""
        environment = _environment(lease.name)
        with suppress(EnvdError):
            revision, said = self._read(environment)
            if (said.holder, said.token) == (self._holder, lease.token):
                await self._write(lease.name, revision, replace(said, holder=""))

    async def hold(self, name: str, ttl_s: float, work: Callable[[Lease], Awaitable[None]]) -> None:
        """Do `work` whenever this node holds the lease, for ever.

        It is cancelled once the lease is lost, and before another can have it; when it ends by
        itself, the lease is let go, and asked for again after its time.
        """
        while True:
            lease = None
            with suppress(EnvdError):
                lease = await self.acquire(name, ttl_s)
            if lease is not None:
                _log.info("lease.held", extra={"lease": name, "token": lease.token})
                await self._while_held(lease, work)
                _log.info("lease.ended", extra={"lease": name, "token": lease.token})
            await asyncio.sleep(ttl_s / _RENEWALS)

    async def _while_held(self, lease: Lease, work: Callable[[Lease], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work(lease))
        try:
            while not working.done():
                pause = min(lease.ttl_s / _RENEWALS, max(0.0, lease.until_s - self._loop.time()))
                await asyncio.wait((working,), timeout=pause)
                if working.done() or self._loop.time() >= lease.until_s:
                    break
                lease = await self._renewed(lease) or replace(lease, until_s=0.0)
        finally:
            working.cancel()
            await asyncio.wait((working,))
            await self.release(lease)
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error

    async def _renewed(self, lease: Lease) -> Lease | None:
        """The lease for its time from now on; as it was where nobody can be asked now."""
        try:
            async with asyncio.timeout_at(lease.until_s):
                return await self.renew(lease)
        except (EnvdError, TimeoutError):
            return lease

    def holder(self, name: str) -> int:
        """Who holds a lease, as far as this node knows: a uid, 0 for nobody."""
        _, said = self._read(_environment(name))
        try:
            return int(said.holder.partition(".")[0] or "0", 16)
        except ValueError:
            raise Corrupt("the holder of a lease is no node") from None

    # -- what is said ------------------------------------------------------------------

    def _read(self, environment: str) -> tuple[bytes, _Said]:
        head = self._serial.coordinator.drafter.head(environment)
        entry = head.environment.variables.get(_VARIABLE)
        if entry is None or entry.value is None:
            return head.revision, _Said()
        return head.revision, _decoded(entry.value)

    def _is_over(self, name: str, revision: bytes, said: _Said) -> bool:
        """Whether nothing was seen of a lease's holder for the lease's time."""
        now = self._loop.time()
        seen, since_s = self._seen.get(name, (b"", now))
        if seen != revision:
            self._seen[name] = (revision, now)
            return False
        return now - since_s >= said.ttl_s

    async def _write(self, name: str, revision: bytes, said: _Said) -> Lease | None:
        began_s = self._loop.time()
        value = json.dumps({"holder": said.holder, "token": said.token, "ttl_s": said.ttl_s})
        puts = (Put(MODE, SERIAL, kind=Kind.METADATA), Put(_VARIABLE, value))
        request = WriteRequest(_environment(name), puts, if_revision=revision.hex())
        try:
            await self._serial.propose(request, AUTHOR)
        except Conflict:
            return None
        return Lease(name, said.token, said.ttl_s, began_s + said.ttl_s * (1 - _MARGIN))


def check_lease(name: str) -> str:
    """Return `name` if a lease can have it, else raise InvalidRequest or LimitExceeded."""
    _environment(name)
    return name


def _environment(name: str) -> str:
    return check_environment(f"{LEASES}/{name}", system=True)


def _decoded(text: str) -> _Said:
    try:
        fields: dict[str, Any] = json.loads(text)
        return _Said(str(fields["holder"]), int(fields["token"]), float(fields["ttl_s"]))
    except (ValueError, TypeError, KeyError):
        raise Corrupt("a lease does not decode") from None
