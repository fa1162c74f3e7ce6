"""A harness for a backend whose store is behind a `Proxy`: faults happen on the wire.

What a throttled call, an expired token or a half document looks like is the API's; a subclass says
it as rules of the proxy. Faults that the wire does not have (lost hints, say) stay those of
`FaultyBackend`, and the report tells which was which.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from envd.testing.faulty import Fault, Kind
from envd.testing.harness import Calls, ScriptedHarness
from envd.testing.proxy import Noted, Proxy
from envd.testing.proxy_rules import Before, Match, Rule


class WireHarness(ScriptedHarness):
    """A subclass sets `upstream` and `wire_faults`, and has `rules` and `is_write`."""

    upstream: str = ""
    operation_header: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.proxy = Proxy(self.upstream, operation_header=self.operation_header)

    async def begin(self) -> None:
        await self.proxy.__aenter__()

    async def end(self) -> None:
        await self.proxy.__aexit__(None, None, None)

    def rules(self, fault: Fault) -> Sequence[Rule]:
        """What the proxy does for a fault of `wire_faults`."""
        raise NotImplementedError(f"{type(self).__name__} has no rules")

    def is_write(self, noted: Noted) -> bool:
        """Whether a request may write."""
        raise NotImplementedError(f"{type(self).__name__} does not tell reads from writes")

    def write_of(self, native: str) -> Match:
        """The request that decides a write of this item by the backend (MEANWHILE)."""
        raise NotImplementedError(f"{type(self).__name__} does not tell one write from another")

    async def others_put_meanwhile(self, native: str, value: str) -> None:
        async def put() -> None:
            await self.others_put(native, value)

        self.before_write(native, put)

    def before_write(self, native: str, do: Callable[[], Awaitable[None]]) -> Rule:
        """Do something right before the next write of this item; the rule of the proxy."""
        rule = Rule(self.write_of(native), Before(do), times=1)
        self.proxy.add(rule)
        return rule

    async def inject(self, *faults: Fault) -> None:
        for fault in faults:
            if fault.kind in self.wire_faults:
                self.proxy.add(*self.rules(fault))
            else:
                await super().inject(fault)

    async def hung(self) -> None:
        if Kind.HANG in self.wire_faults:
            await self.proxy.hung()
        else:
            await super().hung()

    async def release(self) -> None:
        self.proxy.release()
        await super().release()

    def calls(self) -> Calls:
        writes = sum(self.is_write(each) for each in self.proxy.requests)
        return Calls(len(self.proxy.requests) - writes, writes)
