"""Which bindings there are, and a runner for each that this node leads.

Each binding has a lease of its own, so that the nodes that can reach a store share the work, and a
node takes over what another led. A node that can't open any of a binding's stores, for want of the
SDK or of credentials, does not stand for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from envd.backends.contract import PriceSheet
from envd.core.errors import EnvdError, InvalidRequest, NotFound
from envd.core.syncing import BindingStatus, BindingView, SyncStatus
from envd.sync import binding, windows
from envd.sync.picture import Looking
from envd.sync.ports import Clock, Held, Leading
from envd.sync.pricing import Estimate, Usage
from envd.sync.runner import OpenBackend, Runner, Spent
from envd.wire import plain_sync
from envd.wire.plain import to_plain

LEASE_S: Final = 15.0
AGAIN_S: Final = 60.0
"""So often a node that could not open a store looks whether it can by now."""
STATUS: Final = "STATUS"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Totals:
    """What this node did to keep bindings in step, since it began."""

    operations: dict[tuple[str, str], int] = field(default_factory=dict)
    """By what was done ("create", ...) and its result."""
    errors: int = 0
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    """Calls to stores, by backend and what became of them."""
    dollars: dict[str, float] = field(default_factory=dict)
    """What those calls cost, by backend."""

    def called(self, backend: str, prices: PriceSheet, write: bool, calls: int, code: str) -> None:
        """Count calls to a store."""
        self.requests[backend, code] = self.requests.get((backend, code), 0) + calls
        price = prices.writes_10k if write else prices.reads_10k
        self.dollars[backend] = self.dollars.get(backend, 0.0) + calls * price / 10_000

    def note(self, spent: Spent) -> None:
        self.errors += spent.errors
        for each in spent.operations:
            key = (each.action, each.result or "none")
            self.operations[key] = self.operations.get(key, 0) + 1


class Keeper:
    """The bindings of a cluster as one node sees them, and those that it leads."""

    def __init__(
        self,
        looking: Looking,
        leading: Leading,
        clock: Clock,
        open_backend: OpenBackend,
        *,
        node: str,
        region: str,
        estimate: Callable[[Usage], Estimate],
    ) -> None:
        self._looking = looking
        self._leading = leading
        self._clock = clock
        self._open_backend = open_backend
        self._node = node
        self._region = region
        self._estimate = estimate
        self._standing: dict[str, tuple[BindingView, asyncio.Task[None]]] = {}
        self._runners: dict[str, Runner] = {}
        self._problems: dict[str, str] = {}
        self.totals = Totals()

    async def run(self, seeded: Sequence[BindingView] = ()) -> None:
        """Lead what there is to lead, for ever; `seeded` are those of this node's settings."""
        waiting = list(seeded)
        try:
            while True:
                with suppress(EnvdError):
                    await self._seed(waiting)
                    waiting = []
                    await self._stand()
                    async for _ in self._looking.records.changes(binding.RECORD):
                        await self._stand()
                await self._clock.sleep(1.0)
        finally:
            await self._let_go(list(self._standing))

    async def all(self) -> list[BindingView]:
        """The bindings, by priority and name."""
        return binding.decoded_all(await self._looking.records.read(binding.RECORD))

    async def named(self, names: Sequence[str]) -> list[BindingView]:
        """These bindings, all where none is named; raises NotFound for one that is not there."""
        known = {each.name: each for each in await self.all()}
        for name in names:
            if name not in known:
                raise NotFound(
                    f"there is no binding {name[:64]!a}",
                    hint="see: envctl sync status",
                    reason="BINDING_NOT_FOUND",
                )
        return [known[name] for name in names] if names else list(known.values())

    async def keep(self, made: BindingView) -> BindingView:
        """Keep a binding, new or in place of the one of its name; raises InvalidRequest."""
        made = binding.checked(made)
        for window in made.windows:
            windows.parse(window)
        text = binding.encoded(made)
        await self._looking.records.update(binding.RECORD, {binding.record_key(made.name): text})
        return binding.with_revision(made)

    async def forget(self, name: str) -> None:
        """Remove a binding, its anchors and its status."""
        records = self._looking.records
        await records.update(binding.RECORD, {}, [binding.record_key(name)])
        below = (f"anchors/{name}", f"status/{name}")
        for prefix in below:
            for record in await records.names(prefix):
                await records.update(record, {}, list(await records.read(record)))

    def runner(self, name: str) -> Runner | None:
        """The runner of a binding that this node leads."""
        return self._runners.get(name)

    def runners(self) -> Mapping[str, Runner]:
        """All of them, by binding."""
        return self._runners

    def passing(self, wanted: BindingView) -> Runner:
        """A runner for one look at a binding, whoever leads it; close it afterwards."""
        return self._made(wanted, told=False)

    async def status(self, wanted: BindingView) -> BindingStatus:
        """How a binding does: as its runner here knows, or as its leader last told."""
        runner = self._runners.get(wanted.name)
        if runner is not None:
            return runner.status()
        said = await self._looking.records.read(f"status/{wanted.name}")
        leader, _ = await self._leading.leader(wanted.name)
        try:
            (status,) = plain_sync.sync_status(json.loads(said[STATUS])).bindings
        except (KeyError, ValueError, TypeError):
            status = BindingStatus(wanted.name, "behind")
        if leader:
            return replace(status, leader=leader)
        problem = self._problems.get(wanted.name, "no node leads it now")
        hint = "a node leads it that has cloud.enabled = true and the credentials"
        return replace(status, state="no leader", leader="", detail=problem, hint=hint)

    # -- standing for bindings -------------------------------------------------------------

    async def _seed(self, seeded: Sequence[BindingView]) -> None:
        """Keep what the settings say, but where somebody made another binding of that name.

        One that can't be does not keep the others from being.
        """
        known = {each.name: each for each in await self.all()} if seeded else {}
        for each in seeded:
            now = known.get(each.name)
            if now is not None and now.origin != each.origin:
                _log.warning("sync.binding_not_seeded", extra={"binding": each.name})
                continue
            wanted = each if now is None else replace(each, paused_by=now.paused_by)
            if now is not None and binding.encoded(wanted) == binding.encoded(now):
                continue
            try:
                binding.check_place(wanted, list(known.values()))
                known[each.name] = await self.keep(wanted)
            except InvalidRequest as error:
                extra = {"binding": each.name, "detail": error.message}
                _log.error("sync.binding_illegal", extra=extra)

    async def _stand(self) -> None:
        """Stand for each binding as it is now, and for none that is gone."""
        kept = await self._looking.records.read(binding.RECORD)
        wanted = {each.name: each for each in binding.decoded_all(kept)}
        for name in binding.unreadable(kept):
            _log.error("sync.binding_unreadable", extra={"binding": name})
        changed = [name for name, (was, _) in self._standing.items() if wanted.get(name) != was]
        await self._let_go(changed)
        for name, each in wanted.items():
            if name not in self._standing:
                task = asyncio.create_task(self._stand_for(each), name=f"binding {name}")
                self._standing[name] = (each, task)

    async def _let_go(self, names: Sequence[str]) -> None:
        tasks = [self._standing.pop(name)[1] for name in names]
        for name in names:
            self._problems.pop(name, None)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _stand_for(self, wanted: BindingView) -> None:
        while True:
            try:
                await self._try_to_open(wanted)
                self._problems.pop(wanted.name, None)
                await self._leading.lead(
                    wanted.name, LEASE_S, lambda held: self._lead(wanted, held)
                )
            except EnvdError as error:
                self._problems[wanted.name] = error.message
                extra = {"binding": wanted.name, "reason": error.reason, "detail": error.message}
                _log.warning("sync.not_led", extra=extra)
            except Exception:  # noqa: BLE001 - the outermost guard of a binding
                _log.critical("sync.fault", extra={"binding": wanted.name}, exc_info=True)
            await self._clock.sleep(AGAIN_S * (0.5 + self._clock.random()))

    async def _try_to_open(self, wanted: BindingView) -> None:
        """Raise the error of the last of its targets where none can be opened."""
        problem: EnvdError | None = None
        for target in wanted.targets:
            try:
                backend = await self._open_backend(wanted, target)
            except EnvdError as error:
                problem = error
            else:
                await backend.close()
                return
        assert problem is not None, "a binding has targets"
        raise problem

    async def _lead(self, wanted: BindingView, held: Held) -> None:
        runner = self._made(wanted, told=True)
        self._runners[wanted.name] = runner
        try:
            await runner.lead(held)
        finally:
            del self._runners[wanted.name]

    def _made(self, wanted: BindingView, *, told: bool) -> Runner:
        async def tell(status: BindingStatus) -> None:
            text = json.dumps(to_plain(SyncStatus((status,))), separators=(",", ":"))
            await self._looking.records.update(f"status/{wanted.name}", {STATUS: text})

        return Runner(
            wanted,
            self._looking,
            self._clock,
            self._open_backend,
            region=self._region,
            node=self._node,
            tell=tell if told else None,
            note=self.totals.note,
            called=self.totals.called,
            estimate=self._estimate,
        )
