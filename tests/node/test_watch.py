from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from envd.core.answers import (
    Changed,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.commit import LogRecord
from envd.core.errors import InvalidRequest, Unavailable
from envd.core.requests import DeleteRequest, WatchRequest
from envd.node.views import watch_token
from envd.node.watch import Sight, WatchHub
from envd.storage.memory import MemoryStore
from tests.node.conftest import Node, StillClock


def hub_of(node: Node, **options: float) -> WatchHub:
    return WatchHub(node.store, node.identity.uid, **options)  # type: ignore[arg-type]


def events_of(hub: WatchHub, node: Node, request: WatchRequest) -> AsyncIterator[WatchEvent]:
    def view(name: str) -> EnvironmentView | None:
        return node.coordinator.state_view(name, reveal=request.reveal)

    return hub.events(request, Sight(view, may_read=lambda _: True))


async def take(events: AsyncIterator[WatchEvent], count: int) -> list[WatchEvent]:
    return [await anext(events) for _ in range(count)]


async def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(node: Node) -> None:
    await node.put("team/a", A="1")
    await node.put("other", A="1")
    events = events_of(hub_of(node), node, WatchRequest("team"))

    snapshot = await take(events, 2)
    await node.put("other", A="2")
    await node.put("team/b", B="1")
    change = await anext(events)

    assert isinstance(snapshot[0], SnapshotItem)
    assert snapshot[0].state.environment == "team/a"
    assert isinstance(snapshot[1], SnapshotEnd)
    assert isinstance(change, Changed)
    assert change.commit.environment == "team/b"
    assert change.state is None


async def test_a_change_carries_the_state_where_values_were_asked_for(node: Node) -> None:
    events = events_of(hub_of(node), node, WatchRequest(values=True))
    await take(events, 1)

    await node.put("e", A="1")
    put = await anext(events)
    await node.coordinator.delete(DeleteRequest("e"), "ann")
    gone = await anext(events)

    assert isinstance(put, Changed)
    assert put.state is not None
    assert put.state.variables["A"].value == "1"
    assert isinstance(gone, Changed)
    assert gone.commit.deleted
    assert gone.state is None


async def test_a_token_resumes_without_a_gap_after_any_event(node: Node) -> None:
    hub = hub_of(node)
    events = events_of(hub, node, WatchRequest())
    end = await anext(events)
    assert isinstance(end, SnapshotEnd)
    for n in range(3):
        await node.put("e", A=str(n))
    first = await anext(events)
    assert isinstance(first, Changed)

    resumed = events_of(hub, node, WatchRequest(token=first.token))
    following = await take(resumed, 2)

    stamps = [event.commit.stamp for event in following if isinstance(event, Changed)]
    assert len(stamps) == 2
    assert all(stamp > first.commit.stamp for stamp in stamps)


async def test_a_new_hub_resumes_from_the_log(node: Node) -> None:
    events = events_of(hub_of(node), node, WatchRequest())
    end = await anext(events)
    assert isinstance(end, SnapshotEnd)
    await node.put("e", A="1")

    resumed = events_of(hub_of(node), node, WatchRequest(token=end.token))

    assert isinstance(await anext(resumed), Changed)


async def test_a_token_from_an_end_of_the_log_that_was_lost_resets(node: Node) -> None:
    events = events_of(hub_of(node), node, WatchRequest("team"))
    await anext(events)
    await node.put("team/a", A="1")
    told = await anext(events)
    assert isinstance(told, Changed)
    again = Node(clock=StillClock(node.clock.now_ms + 5))  # the same uid, the same place in its log
    await again.put("team/a", A="2")

    lost = events_of(hub_of(again), again, WatchRequest("team", told.token))
    kept = events_of(hub_of(node), node, WatchRequest("team", told.token))
    await node.put("team/b", B="1")

    assert isinstance(await anext(lost), Reset)
    assert isinstance(await anext(kept), Changed)


@pytest.mark.parametrize(
    "token", ["rubbish", f"1.{9:016x}.0", f"1.{7:016x}.99", "1.zz.1", f"{7:016x}.0"]
)
async def test_a_token_that_can_not_be_resumed_resets(node: Node, token: str) -> None:
    await node.put("e", A="1")

    events = await take(events_of(hub_of(node), node, WatchRequest(token=token)), 3)

    assert isinstance(events[0], Reset)
    assert isinstance(events[1], SnapshotItem)
    assert isinstance(events[2], SnapshotEnd)


async def test_quiet_watches_beat_and_a_heartbeat_resumes(node: Node) -> None:
    hub = hub_of(node, heartbeat_s=0.0)
    await node.put("e", A="1")
    events = events_of(hub, node, WatchRequest("nothing/here"))

    end, beat = await take(events, 2)
    await node.put("nothing/here", A="1")
    assert isinstance(end, SnapshotEnd)
    assert isinstance(beat, Heartbeat)
    resumed = events_of(hub, node, WatchRequest("nothing/here", token=beat.token))

    assert isinstance(await anext(resumed), Changed)


async def test_a_watch_that_is_closed_leaves_nothing_behind(node: Node) -> None:
    hub = hub_of(node)
    events = hub.events(WatchRequest(), Sight(lambda _: None, may_read=lambda _: True))
    await anext(events)
    assert hub.open_watches == 1

    await events.aclose()

    assert hub.open_watches == 0


async def test_more_watches_than_the_node_takes_are_refused(node: Node) -> None:
    hub = hub_of(node, max_watches=1)
    first = events_of(hub, node, WatchRequest())
    await anext(first)

    with pytest.raises(Unavailable) as refused:
        await anext(events_of(hub, node, WatchRequest()))

    assert refused.value.reason == "OVERLOADED"


async def test_closing_the_hub_ends_its_watches(node: Node) -> None:
    hub = hub_of(node)
    events = events_of(hub, node, WatchRequest())
    await anext(events)

    hub.close()

    assert [event async for event in events] == []


class CountingStore(MemoryStore):
    """Counts how often the log is read."""

    reads = 0

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        self.reads += 1
        return super().replay(after_lsn)


async def test_a_watch_that_passes_over_many_changes_lets_others_have_their_turn() -> None:
    store = CountingStore()
    node = Node(store=store)
    for n in range(2000):
        await node.put("other", A=str(n))
    token = watch_token(node.identity.uid, 0)
    waiting = asyncio.ensure_future(
        anext(events_of(hub_of(node), node, WatchRequest("team", token=token)))
    )

    await asyncio.sleep(0)
    reads = store.reads
    await node.put("team/a", A="1")
    change = await waiting

    assert reads < 4
    assert isinstance(change, Changed)
    assert change.commit.environment == "team/a"


@pytest.mark.parametrize("resolve", [False, True])
async def test_an_exact_watch_tells_nothing_of_what_is_below(node: Node, resolve: bool) -> None:
    request = WatchRequest("team", values=True, resolve=resolve, exact=True)
    for name in ("team", "team/a"):
        await node.put(name, A="1")
    events = events_of(hub_of(node), node, request)
    begun = await take(events, 2)
    for name in ("team/a", "team-b", "team"):
        await node.put(name, A="2")

    changed = await anext(events)

    assert [type(event) for event in begun] == [SnapshotItem, SnapshotEnd]
    assert isinstance(changed, Changed)
    assert changed.commit.environment == "team"


async def test_an_exact_watch_needs_a_name(node: Node) -> None:
    with pytest.raises(InvalidRequest):
        await anext(events_of(hub_of(node), node, WatchRequest(exact=True)))


@pytest.mark.parametrize("large", [{"A": "x" * 10_000}, {f"N{n}": "" for n in range(50)}])
async def test_the_ring_holds_few_commits_where_they_are_large(
    node: Node, large: dict[str, str]
) -> None:
    hub = hub_of(node, ring_bytes=50_000)
    events = events_of(hub, node, WatchRequest())
    await anext(events)
    for n in range(30):
        await node.put(f"e{n}", **large)

    changes = await take(events, 30)

    assert 1 <= len(hub._ring) <= 10
    names = [change.commit.environment for change in changes if isinstance(change, Changed)]
    assert names == [f"e{n}" for n in range(30)]


async def test_a_watch_far_behind_the_ring_reads_on_from_the_log(
    node: Node,
) -> None:
    hub = hub_of(node, ring_commits=4)
    events = events_of(hub, node, WatchRequest())
    await anext(events)
    for n in range(40):
        await node.put("e", A=str(n))

    changes = await take(events, 40)

    stamps = [change.commit.stamp for change in changes if isinstance(change, Changed)]
    assert len(stamps) == 40
    assert stamps == sorted(stamps)
