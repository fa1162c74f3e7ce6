"""Watches that resolve layers: a change of a base is a change of what extends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.answers import (
    Changed,
    EnvironmentView,
    Heartbeat,
    Identity,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    Status,
    WatchEvent,
)
from envd.core.commit import Kind
from envd.core.errors import Denied, EnvdError
from envd.core.requests import DeleteRequest, Put, ReadRequest, Unset, WatchRequest, WriteRequest
from envd.node.api import EnvironmentApi
from envd.node.watch import WatchHub
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from tests.node.conftest import Node

ANN = Identity("ann", "test")


class Rights:
    """Everybody may do everything, but nobody may do the `denied` to an environment."""

    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if not self.allows(identity, verb, environment):
            raise Denied(f"{identity.name} may not {verb} {environment}", reason="RIGHT_MISSING")

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        return (verb, environment) not in self.denied


class Watched:
    """A node with its hub and API, started again at will."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.node = Node(store=store or MemoryStore())
        self.rights = Rights()
        self.start()

    def start(self, **options: Any) -> None:
        """A new hub over the same store, as after a restart."""
        self.hub = WatchHub(self.node.store, self.node.identity.uid, **options)
        self.api = EnvironmentApi(self.node.coordinator, self.hub, self.rights, _no_status)

    def watch(self, prefix: str, token: str = "", *, values: bool = True) -> AsyncIterator[Any]:
        return self.api.watch(ANN, WatchRequest(prefix, token, values, resolve=True))

    def plain_watch(self, request: WatchRequest) -> AsyncIterator[Any]:
        return self.api.watch(ANN, request)

    async def extend(self, environment: str, bases: str) -> None:
        put = Put("extends", bases, kind=Kind.METADATA)
        await self.node.coordinator.write(WriteRequest(environment, (put,)), "ann")

    async def delete(self, environment: str) -> None:
        await self.node.coordinator.delete(DeleteRequest(environment), "ann")

    async def layered(self) -> None:
        """`prod` extends `team/base`, which extends `base`."""
        await self.node.put("base", A="base", B="base")
        await self.node.put("team/base", B="team")
        await self.extend("team/base", "base")
        await self.node.put("prod", C="prod")
        await self.extend("prod", "team/base")


def _no_status(identity: Identity) -> Status:
    raise AssertionError("nobody asks")


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    return [await anext(events) for _ in range(count)]


def values(state: EnvironmentView | None) -> dict[str, str | None] | None:
    return None if state is None else {n: v.value for n, v in state.variables.items()}


# -- what is told --------------------------------------------------------------------------


async def test_the_snapshot_has_the_variables_of_all_layers(watched: Watched) -> None:
    await watched.layered()

    item, end = await take(watched.watch("prod"), 2)

    assert values(item.state) == {"A": "base", "B": "team", "C": "prod"}
    assert list(item.state.bases) == ["base", "team/base"]
    assert isinstance(end, SnapshotEnd)


async def test_a_change_of_a_base_is_a_change_of_what_extends_it(watched: Watched) -> None:
    await watched.layered()
    events = watched.watch("prod")
    item, _ = await take(events, 2)

    await watched.node.put("team/base", B="new")
    direct = await anext(events)
    await watched.node.put("base", A="newer")
    transitive = await anext(events)

    assert (direct.commit.environment, direct.through) == ("prod", "team/base")
    assert direct.commit.id.startswith("team/base@")
    assert direct.commit.revision == item.state.revision
    assert [change.variable for change in direct.commit.changes] == ["B"]
    assert values(direct.state) == {"A": "base", "B": "new", "C": "prod"}
    assert (transitive.commit.environment, transitive.through) == ("prod", "base")
    assert values(transitive.state) == {"A": "newer", "B": "new", "C": "prod"}


async def test_without_resolve_a_base_says_nothing_to_what_extends_it(watched: Watched) -> None:
    await watched.layered()
    events = watched.plain_watch(WatchRequest("prod", values=True))
    await take(events, 2)

    await watched.node.put("base", A="new")
    await watched.node.put("prod", C="new")
    own = await anext(events)

    assert (own.commit.environment, own.through) == ("prod", "")
    assert values(own.state) == {"C": "new"}
    assert watched.hub.known_layers == 0


async def test_a_watch_of_everything_tells_the_base_first_and_then_each_extender(
    watched: Watched,
) -> None:
    await watched.layered()
    events = watched.watch("", values=False)
    await take(events, 4)

    await watched.node.put("base", A="new")
    told = await take(events, 3)

    assert [(event.commit.environment, event.through) for event in told] == [
        ("base", ""),
        ("prod", "base"),
        ("team/base", "base"),
    ]
    assert {event.state for event in told} == {None}


async def test_bases_set_and_dropped_while_watched_are_followed_and_let_go(
    watched: Watched,
) -> None:
    await watched.node.put("base", A="base")
    await watched.node.put("deep", D="deep")
    await watched.node.put("prod", C="prod")
    events = watched.watch("prod")
    await take(events, 2)

    await watched.extend("prod", "base")
    await watched.extend("base", "deep")
    await watched.node.put("deep", D="2")
    joined = await take(events, 3)
    await watched.node.coordinator.write(
        WriteRequest("prod", unsets=(Unset("extends", Kind.METADATA),)), "ann"
    )
    await watched.node.put("deep", D="3")
    await watched.node.put("prod", C="4")
    left = await take(events, 2)

    assert [(event.through, values(event.state)) for event in joined][-1] == (
        "deep",
        {"A": "base", "C": "prod", "D": "2"},
    )
    assert [event.through for event in left] == ["", ""]
    assert values(left[1].state) == {"C": "4"}


async def test_a_base_that_is_deleted_is_told_and_so_is_its_return(watched: Watched) -> None:
    await watched.layered()
    events = watched.watch("prod")
    await take(events, 2)

    await watched.delete("team/base")
    gone = await anext(events)
    item, _ = await take(watched.watch("prod"), 2)
    await watched.node.put("team/base", B="back")
    back = await anext(events)

    assert (gone.through, gone.commit.deleted) == ("team/base", False)
    assert "team/base" in gone.state.unresolved
    assert values(gone.state) == {"C": "prod"}
    assert item.state == gone.state
    assert (back.through, back.state.unresolved) == ("team/base", "")
    assert values(back.state) == {"B": "back", "C": "prod"}


async def test_an_extender_that_is_deleted_is_gone_and_told_of_no_more(watched: Watched) -> None:
    await watched.layered()
    events = watched.watch("prod")
    await take(events, 2)

    await watched.delete("prod")
    gone = await anext(events)
    await watched.node.put("base", A="new")
    await watched.node.put("prod", C="again")
    again = await anext(events)

    assert gone.commit.deleted
    assert gone.state is None
    assert again.through == ""
    assert values(again.state) == {"C": "again"}


async def test_layers_that_became_too_deep_are_told(watched: Watched) -> None:
    for n in range(9):
        await watched.node.put(f"e{n}", A="1")
    for n in range(8):
        await watched.extend(f"e{n}", f"e{n + 1}")
    await watched.node.put("below", B="1")
    events = watched.watch("e0")
    await take(events, 2)

    await watched.extend("e8", "below")
    deeper = await anext(events)

    assert deeper.through == "e8"
    assert "layers deep" in deeper.state.unresolved


# -- rights --------------------------------------------------------------------------------


async def test_a_base_that_may_not_be_read_neither_shows_values_nor_tells_changes(
    watched: Watched,
) -> None:
    await watched.layered()
    watched.rights.denied.add(("read", "base"))
    events = watched.watch("prod")
    item, _ = await take(events, 2)

    await watched.node.put("base", A="hidden")
    await watched.node.put("team/base", B="hidden too, for it extends base")
    await watched.node.put("prod", C="own")
    own = await anext(events)

    assert values(item.state) == {"C": "prod"}
    assert "may not read base" in item.state.unresolved
    assert own.through == ""
    assert values(own.state) == {"C": "own"}


async def test_whether_a_base_is_there_or_what_it_extends_is_only_for_who_may_read_it(
    watched: Watched,
) -> None:
    await watched.layered()
    watched.rights.denied |= {("read", "team/base"), ("read", "base")}
    told = []

    for change in ("nothing", "its base is gone", "it is gone"):
        if change != "nothing":
            await watched.delete("base" if change == "its base is gone" else "team/base")
        with pytest.raises(Denied) as refused:
            await watched.api.get(ANN, ReadRequest("prod", resolve=True))
        item, _ = await take(watched.watch("prod"), 2)
        told.append((refused.value.message, item.state.unresolved))

    assert told == [("ann may not read team/base",) * 2] * 3


async def test_secrets_of_a_base_take_the_right_to_reveal_there(watched: Watched) -> None:
    await watched.layered()
    watched.rights.denied.add(("reveal", "base"))

    revealed = watched.plain_watch(WatchRequest("prod", reveal=True, resolve=True))
    masked, _ = await take(watched.watch("prod"), 2)
    refused, _ = await take(revealed, 2)

    assert values(masked.state) == {"A": "base", "B": "team", "C": "prod"}
    assert values(refused.state) == {"C": "prod"}
    assert "may not reveal base" in refused.state.unresolved


# -- tokens --------------------------------------------------------------------------------


async def test_a_watch_that_breaks_off_among_the_extenders_is_told_of_all_of_them_again(
    watched: Watched,
) -> None:
    await watched.node.put("base", A="1")
    for name in ("web/a", "web/b", "web/c"):
        await watched.extend(name, "base")
    events = watched.watch("web")
    await take(events, 4)
    await watched.node.put("base", A="2")
    await watched.node.put("web/a", B="1")
    first, second, third, own = await take(events, 4)

    again = await take(watched.watch("web", second.token), 4)
    behind = await anext(watched.watch("web", third.token))

    assert first.token == second.token != third.token
    assert again == [first, second, third, own]
    assert behind == own


async def test_the_own_change_of_a_base_does_not_pass_over_its_extenders(
    watched: Watched,
) -> None:
    await watched.layered()
    events = watched.watch("")
    await take(events, 4)
    await watched.node.put("base", A="2")
    own = await anext(events)

    told = await take(watched.watch("", own.token), 3)

    assert (own.commit.environment, own.through) == ("base", "")
    assert [event.commit.environment for event in told] == ["base", "prod", "team/base"]


async def test_a_token_resumes_over_a_restart_and_a_relation_that_changed_meanwhile(
    watched: Watched,
) -> None:
    await watched.layered()
    _, end = await take(watched.watch("prod"), 2)
    await watched.node.put("base", A="2")
    await watched.node.put("other", O="1")
    await watched.extend("prod", "other")
    watched.start()

    resumed = watched.watch("prod", end.token)
    early, own = await take(resumed, 2)
    await watched.node.put("other", O="2")
    after = await anext(resumed)

    # The layers are those of now, so the commit to what was no base yet is told too.
    assert [early.through, own.through, after.through] == ["other", "", "other"]
    assert values(early.state) == values(own.state) == {"C": "prod", "O": "1"}


async def test_a_resumed_watch_beats_while_it_learns_the_layers_below_a_large_prefix() -> None:
    watched = Watched(ManyEnvironments(25_000))
    token = await anext(watched.watch("none"))

    events = watched.watch("", token.token)
    beats = await take(events, 2)
    await watched.node.put("e00000", A="1")
    changed = await anext(events)

    assert beats == [Heartbeat(token.token)] * 2
    assert isinstance(changed, Changed)


class ManyEnvironments(MemoryStore):
    """Lists environments that need not be there to be listed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._names = [f"e{number:05}" for number in range(count)]

    def environments(
        self, prefix: str, after: str, limit: int, partitions: Collection[int] | None = None
    ) -> list[Any]:
        from envd.core.answers import ListedEnvironment

        found = [name for name in self._names if name > after and name.startswith(prefix)]
        return [ListedEnvironment(name, "", 0) for name in found[:limit]]


async def test_the_last_that_is_told_carries_the_token_though_a_later_one_is_hidden(
    watched: Watched,
) -> None:
    await watched.node.put("base", A="1")
    await watched.node.put("hidden", A="1")
    await watched.extend("web/a", "base")
    await watched.extend("web/b", "base, hidden")
    watched.rights.denied.add(("read", "hidden"))
    events = watched.watch("web", values=False)
    await take(events, 3)
    await watched.node.put("base", A="2")
    told = await anext(events)
    await watched.node.put("web/a", B="1")
    own = await anext(events)

    behind = await anext(watched.watch("web", told.token, values=False))

    assert (told.commit.environment, told.through) == ("web/a", "base")
    assert behind == own


# -- what it costs -------------------------------------------------------------------------


class CountingStore(MemoryStore):
    """Notes which environments are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()

    def visible(self, environment: str) -> StoredState | None:
        self.read.add(environment)
        return super().visible(environment)


async def test_a_watch_of_one_environment_reads_only_its_layers() -> None:
    store = CountingStore()
    watched = Watched(store)
    await watched.layered()
    for n in range(20):
        await watched.node.put(f"other/{n}", A="1")
    _, end = await take(watched.watch("prod"), 2)
    store.read.clear()
    watched.start()

    events = watched.watch("prod", end.token)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    read = set(store.read)
    await watched.node.put("prod", C="2")
    await waiting

    assert read == {"prod", "team/base", "base"}


async def test_what_is_kept_goes_with_the_last_watch(watched: Watched) -> None:
    await watched.layered()
    first, second = watched.watch("prod"), watched.watch("")
    await take(first, 2)
    await take(second, 4)
    assert watched.hub.known_layers == 2

    await first.aclose()  # type: ignore[attr-defined]
    assert watched.hub.known_layers == 2
    await second.aclose()  # type: ignore[attr-defined]

    assert watched.hub.known_layers == 0
    assert watched.hub.open_watches == 0


async def test_a_base_wakes_few_watches_of_many_and_many_extenders_of_one(
    watched: Watched,
) -> None:
    await watched.node.put("base", A="1")
    for n in range(5):
        await watched.extend(f"web/{n}", "base")
    whole = watched.watch("web", values=False)
    await take(whole, 6)
    idle = [asyncio.ensure_future(take(watched.watch(f"idle/{n}"), 2)) for n in range(8)]
    one = watched.watch("web/3", values=False)
    await take(one, 2)

    await watched.node.put("base", A="2")

    assert [event.commit.environment for event in await take(whole, 5)] == [
        f"web/{n}" for n in range(5)
    ]
    assert (await anext(one)).commit.environment == "web/3"
    assert not any(task.done() for task in idle)
    watched.hub.close()
    await asyncio.gather(*idle, return_exceptions=True)


# -- the law -------------------------------------------------------------------------------

NAMES = ("a", "a/x", "b", "c", "d")


class Follower:
    """A client that keeps what it is told, breaks off now and then, and asks again."""

    def __init__(self, watched: Watched, prefix: str) -> None:
        self._watched = watched
        self._prefix = prefix
        self._events = watched.watch(prefix)
        self._token = ""
        self.held: dict[str, dict[str, str | None]] = {}

    async def catch_up(self) -> None:
        """Take what there is, until the first heartbeat after the last change."""
        beats = 0
        while beats < 2:
            event: WatchEvent = await anext(self._events)
            beats = beats + 1 if isinstance(event, Heartbeat) else 0
            self._take(event)

    async def take_some(self, count: int) -> None:
        for _ in range(count):
            self._take(await anext(self._events))

    def connect_again(self) -> None:
        if not self._token:
            self.held.clear()  # a snapshot follows, as after a reset
        self._events = self._watched.watch(self._prefix, self._token)

    def _take(self, event: WatchEvent) -> None:
        match event:
            case Reset():
                self.held.clear()
            case SnapshotItem(state):
                self.held[state.environment] = _held(state)
            case Changed(commit, token, None):
                self.held.pop(commit.environment, None)
                self._token = token
            case Changed(commit, token, state):
                assert state is not None
                assert commit.environment == state.environment
                self.held[commit.environment] = _held(state)
                self._token = token
            case Heartbeat(token) | SnapshotEnd(token):
                self._token = token


def _held(state: EnvironmentView) -> dict[str, str | None]:
    return {"": state.unresolved} if state.unresolved else dict(values(state) or {})


def truth(watched: Watched, prefix: str) -> dict[str, dict[str, str | None]]:
    """What a reader finds now."""
    found: dict[str, dict[str, str | None]] = {}
    for listed in watched.node.store.environments(prefix, "", 100):
        name = listed.environment
        try:
            view = watched.node.coordinator.read(ReadRequest(name, resolve=True))
        except EnvdError as error:
            found[name] = {"": error.message}
        else:
            found[name] = dict(values(view) or {})
    return found


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from("AB")),
    st.tuples(st.just("extend"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("again"), st.just(""), st.just("")),
    st.tuples(st.just("some"), st.just(""), st.just("")),
    st.tuples(st.just("restart"), st.just(""), st.just("")),
)


@settings(max_examples=120)
@given(prefix=st.sampled_from(["", "a", "a/x", "b"]), script=st.lists(steps, max_size=25))
def test_a_follower_holds_in_the_end_what_a_reader_finds(
    prefix: str, script: list[tuple[str, str, str]]
) -> None:
    asyncio.run(_follow(prefix, script))


async def _follow(prefix: str, script: list[tuple[str, str, str]]) -> None:
    watched = Watched()
    watched.start(heartbeat_s=0.0)
    follower = Follower(watched, prefix)
    for number, (step, name, what) in enumerate(script):
        try:
            await _step(watched, follower, step, name, what, str(number))
        except EnvdError:
            continue  # refused: a circle, or nothing there

    await follower.catch_up()

    assert follower.held == truth(watched, prefix)


async def _step(
    watched: Watched, follower: Follower, step: str, name: str, what: str, value: str
) -> None:
    match step:
        case "put":
            await watched.node.put(name, **{what: value})
        case "extend":
            await watched.extend(name, what)
        case "delete":
            await watched.delete(name)
        case "some":
            await follower.take_some(2)
        case "restart":
            watched.hub.close()
            watched.start(heartbeat_s=0.0)
            follower.connect_again()
        case _:
            follower.connect_again()
