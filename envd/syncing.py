"""The wiring of a node's reconciler: its bindings, stores and prices come from the settings."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from envd.core.digest import value_print
from envd.core.errors import EnvdError, SettingsError
from envd.core.syncing import BindingView
from envd.datadir import DataDirectory
from envd.settings import Settings
from envd.settings.model import Binding, Providers
from envd.system import SystemClock
from envd.telemetry.sync import SyncFigures

if TYPE_CHECKING:
    from envd.node.node import Node
    from envd.ports import Authorizer
    from envd.sync.keeping import Keeper
    from envd.sync.prices import PriceBook
    from envd.sync.service import Reconciler

_RESOLUTION = 1 << 53


class SyncClock(SystemClock):
    """The machine's clocks and chance, as the reconciler wants them."""

    def monotonic_s(self) -> float:
        return self.monotonic_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random(self) -> float:
        return secrets.randbelow(_RESOLUTION) / _RESOLUTION


class NodeSync:
    """The reconciler of one node: `api` for its servers; `run` keeps bindings in step."""

    def __init__(self, api: Reconciler, keeper: Keeper, seeded: tuple[BindingView, ...]) -> None:
        self.api = api
        self._keeper = keeper
        self._seeded = seeded
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to lead what there is to lead."""
        from envd.node.guarding import guarded

        work = partial(self._keeper.run, self._seeded)
        self._running = asyncio.create_task(guarded("sync", work), name="sync")

    def figures(self) -> SyncFigures:
        """What it did, and how the bindings do that it leads."""
        totals = self.api.totals
        states = {name: runner.status() for name, runner in self.api.runners().items()}
        return SyncFigures(
            dict(totals.operations),
            totals.errors,
            dict(totals.requests),
            dict(totals.dollars),
            {name: status.state == "in step" for name, status in states.items()},
            {name: status.drift for name, status in states.items()},
            {name: status.lag_s for name, status in states.items()},
        )

    async def stop(self) -> None:
        """Let go of all that it leads, so that another node takes over at once."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(EnvdError):
                await asyncio.wait((running,))


def node_sync(
    settings: Settings, node: Node, directory: DataDirectory, authorizer: Authorizer
) -> NodeSync | None:
    """The reconciler of a node; None where the settings want none. Raises SettingsError."""
    if not settings.cloud.enabled:
        return None
    from envd.backends.registry import Registry
    from envd.sync import pricing
    from envd.sync.keeping import Keeper
    from envd.sync.picture import Looking
    from envd.sync.service import Reconciler
    from envd.sync.stores import Stores

    parts, clock = node.syncing, SyncClock()
    fingerprint = partial(value_print, digest_key=directory.digest_key)
    providers = provider_settings(settings.cloud.providers)
    stores = Stores(Registry(), providers, clock.wall_ms, fingerprint)
    prices = _prices(settings.cloud.price_file)
    keeper = Keeper(
        Looking(parts.environments, parts.records, fingerprint),
        parts.leading,
        clock,
        stores.open,
        node=settings.node.name,
        region=settings.node.region,
        estimate=lambda usage: pricing.estimate(usage, prices),
    )
    api = Reconciler(
        keeper,
        parts.leading,
        parts.peers,
        stores,
        authorizer,
        prices,
        uid=directory.record.node_uid,
    )
    parts.peers.handle = api.answer
    return NodeSync(api, keeper, tuple(map(binding_view, settings.bindings)))


def provider_settings(providers: Providers) -> dict[str, Mapping[str, object]]:
    """The settings of each provider's section, without those that are not set."""
    return {
        name: {
            key: value
            for key, value in msgspec.structs.asdict(section).items()
            if value is not None
        }
        for name, section in msgspec.structs.asdict(providers).items()
    }


def _prices(file: Path | None) -> PriceBook:
    from envd.sync.prices import PriceBook, read_overrides

    book = PriceBook()
    if file is None:
        return book
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"cloud.price_file: {file} can't be read") from None
    try:
        table = read_overrides(text, "json" if file.suffix == ".json" else "toml")
        return book.overridden(table)
    except EnvdError as error:
        raise SettingsError(f"cloud.price_file: {error.message}", hint=error.hint) from None


def binding_view(binding: Binding) -> BindingView:
    """A binding of the settings file, as one that is kept: its origin is the file."""
    return BindingView(
        name=binding.name,
        environment=binding.environment,
        prefix=binding.prefix,
        targets=binding.targets,
        route=binding.route,
        direction=binding.direction,
        conflict_policy=binding.conflict_policy,
        delete_policy=binding.delete_policy,
        layout=binding.layout,
        name_template=binding.name_template or "",
        credentials=binding.credentials or "",
        interval_seconds=binding.interval_seconds,
        windows=binding.windows,
        priority=binding.priority,
        suspended=binding.suspended,
        budget_dollars=binding.budget_dollars,
        budget_stops=binding.budget_stops,
        origin="file",
    )
