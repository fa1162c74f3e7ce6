"""Reads with the token of a write that the node that is asked may not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from envd.core.answers import EnvironmentView, Identity
from envd.core.commit import Kind
from envd.core.errors import Denied, EnvdError, InvalidRequest, NotFound, Unavailable, Unsupported
from envd.core.layers import EXTENDS
from envd.core.requests import DeleteRequest, Put, ReadRequest, RollbackRequest, WriteRequest
from envd.node import session_reads
from envd.node.api import EnvironmentApi
from envd.node.coordinator import Coordinator
from envd.node.handshake import Peer
from envd.node.session_reads import ASKING_S, MAX_OPEN, WAIT_S, SessionReads, point_of
from envd.node.vectors import VectorFeed
from envd.node.views import NodeIdentity, session_token
from envd.node.watch import WatchHub
from envd.security.access import AllowAll
from envd.storage.memory import MemoryStore
from tests.node.conftest import DIGEST_KEY, Node, StillClock
from tests.node.machines import TESTER, Machines, simulate
from tests.node.virtual_loop import run_virtually

ASKER = Peer(7, 1, b"b" * 16, "c1", "call", 1, b"")
NOWHERE = session_token(0, 99, 1)


class Near:
    """A node whose peers answer as `peers` say: a node, an error, or None for one that hangs."""

    def __init__(self, *peers: Node | EnvdError | None) -> None:
        self.node = Node()
        self.asked: list[int] = []
        self._peers = peers
        self.feed = VectorFeed(self.node.store)
        self.node.coordinator.session_reads = SessionReads(self.feed, self._holders, self._ask)

    def api(self, authorizer: AllowAll | None = None) -> EnvironmentApi:
        hub = WatchHub(self.node.store, 7)
        return EnvironmentApi(
            self.node.coordinator, hub, authorizer or AllowAll(), lambda _: pytest.fail("no status")
        )

    async def read(
        self, environment: str, token: str, *, reveal: bool = False, resolve: bool = False
    ) -> EnvironmentView:
        request = ReadRequest(environment, reveal=reveal, token=token, resolve=resolve)
        return await self.api().get(TESTER, request)

    def _holders(self, *_: int) -> Sequence[int]:
        return range(len(self._peers))

    async def _ask(self, uid: int, method: str, body: bytes) -> bytes:
        self.asked.append(uid)
        peer = self._peers[uid]
        if peer is None:
            await asyncio.Event().wait()
        if isinstance(peer, EnvdError):
            raise peer
        assert peer is not None
        return await session_reads.methods(peer.coordinator.read)[method](ASKER, body)

    async def take(self, far: Node) -> None:
        """Take in all that the other node has, as its log would bring it."""
        for _, record in far.store.replay(0):
            after = far.store.visible(record.commit.environment)
            assert after is not None
            await self.node.store.append(record, after)


class Hidden(AllowAll):
    """Nobody may read what is below `hidden`."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if environment.startswith("hidden"):
            raise Denied(f"{identity.name} may not {verb}")


def other_node() -> Node:
    return Node(identity=NodeIdentity(8, "n2", "there"))


async def written(node: Node, environment: str, *puts: Put) -> str:
    """The token of a write."""
    answer = await node.coordinator.write(WriteRequest(environment, puts), "ann")
    return answer.token


def told(story: Callable[[], Awaitable[None]]) -> float:
    """Tell a story in virtual time; return how long it took."""

    async def timed() -> float:
        await story()
        return asyncio.get_running_loop().time()

    return run_virtually(timed())


# -- waiting -------------------------------------------------------------------------------


def test_a_read_waits_for_a_write_that_is_on_its_way() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far)
        token = await written(far, "web/prod", Put("A", "1"))
        reading = asyncio.ensure_future(near.read("web/prod", token))
        await asyncio.sleep(WAIT_S / 2)

        await near.take(far)

        assert (await reading).variables["A"].value == "1"
        assert near.asked == []

    assert told(story) < WAIT_S


def test_a_read_through_layers_waits_before_it_looks_for_them() -> None:
    async def story() -> None:
        far = other_node()
        near = Near()
        await written(far, "base", Put("A", "1"))
        token = await written(far, "web/prod", Put(EXTENDS, "base", kind=Kind.METADATA))
        reading = asyncio.ensure_future(near.read("web/prod", token, resolve=True))
        await asyncio.sleep(WAIT_S / 2)

        await near.take(far)

        assert (await reading).variables["A"].source == "base"

    told(story)


def test_a_read_goes_on_as_soon_as_repair_brought_what_it_waits_for() -> None:
    async def story() -> None:
        near = Near()
        waiting = asyncio.ensure_future(near.node.coordinator.reaches(session_token(5, 9, 3)))
        await asyncio.sleep(WAIT_S / 2)

        near.node.store.advance({(5, 9): 4}, {})
        near.feed.advanced({(5, 9): 4})

        assert await waiting

    assert told(story) < WAIT_S


def test_no_other_record_ends_the_wait() -> None:
    async def story() -> None:
        near = Near()
        waiting = asyncio.ensure_future(near.node.coordinator.reaches(session_token(5, 9, 3)))
        await asyncio.sleep(0)

        near.feed.advanced({(5, 9): 2, (5, 8): 3, (4, 9): 3})

        assert not await waiting

    assert told(story) == pytest.approx(WAIT_S)


async def test_a_write_that_is_not_durable_yet_has_not_been_reached(node: Node) -> None:
    writing = await node.coordinator.begin_write(WriteRequest("e", (Put("A", "1"),)), "ann")
    assert writing.answer is not None
    request = ReadRequest("e", token=writing.answer.token)

    with pytest.raises(Unavailable, match="session token"):
        node.coordinator.read(request)

    await writing
    assert node.coordinator.read(request).variables["A"].value == "1"


async def test_what_an_earlier_self_wrote_is_named_as_it_was_logged_again() -> None:
    earlier, store = other_node(), MemoryStore()
    request = WriteRequest("web/prod", (Put("A", "1"),), operation="deploy-7")
    first = await earlier.coordinator.write(request, "ann")
    (_, record), after = next(earlier.store.replay(0)), earlier.store.visible("web/prod")
    assert after is not None
    await store.append(replace(record, origin=7), after)
    now = Coordinator(
        store, StillClock(), NodeIdentity(7, "n1", ""), DIGEST_KEY, own_uids=frozenset({8})
    )

    again = await now.write(request, "ann")

    assert again.stamp == first.stamp
    assert again.token == session_token(record.partition, 7, record.seq)


# -- asking --------------------------------------------------------------------------------


def test_what_does_not_come_is_read_from_a_peer_that_has_it() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far)
        await near.node.put("web/prod", A="old")
        token = await written(far, "web/prod", Put("A", "new"))

        view = await near.read("web/prod", token)

        assert view == far.coordinator.read(ReadRequest("web/prod"))

    assert told(story) == pytest.approx(WAIT_S)


def test_peers_that_can_not_answer_are_passed_over() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(
            Unsupported("this node does not know the call", reason="UNKNOWN_CALL"),
            Unavailable("the channel ended", reason="PEER_GONE"),
            Node(),
            None,
            far,
            far,
        )
        token = await written(far, "web/prod", Put("A", "1"))

        view = await near.read("web/prod", token)

        assert view.variables["A"].value == "1"
        assert near.asked == [0, 1, 2, 3, 4]

    told(story)


@pytest.mark.parametrize(
    "peers",
    [(), (Node, Node), (None, None, None), (Unavailable("it is gone", reason="PEER_GONE"),)],
    ids=["no peer", "none that has it", "none that answers", "none that is there"],
)
def test_where_nobody_has_it_the_read_is_refused_in_time(
    peers: Sequence[type[Node] | EnvdError | None],
) -> None:
    async def story() -> None:
        near = Near(*(peer() if isinstance(peer, type) else peer for peer in peers))
        await near.node.put("web/prod", A="old")

        with pytest.raises(Unavailable, match="can't prove") as refused:
            await near.read("web/prod", NOWHERE)

        assert refused.value.reason == "STALE"
        assert "the node that answered the write" in refused.value.hint

    assert told(story) <= WAIT_S + ASKING_S + 0.001


def test_a_peer_that_is_asked_asks_nobody_else() -> None:
    async def story() -> None:
        far = other_node()
        between = Near(far)
        near = Near(between.node)
        token = await written(far, "web/prod", Put("A", "1"))

        with pytest.raises(Unavailable):
            await near.read("web/prod", token)

        assert (near.asked, between.asked) == ([0], [])

    told(story)


def test_what_a_peer_says_of_the_request_is_said_to_the_caller() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far, far)
        await near.node.put("web/prod", A="old")
        await far.put("web/prod", A="old")
        deleted = await far.coordinator.delete(DeleteRequest("web/prod"), "ann")

        with pytest.raises(NotFound, match="web/prod any more"):
            await near.read("web/prod", deleted.token)

        assert near.asked == [0]

    told(story)


def test_secrets_are_masked_by_a_peer_too_unless_they_are_to_be_shown() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far)
        token = await written(far, "web/prod", Put("KEY", "canary", secret=True))

        masked = await near.read("web/prod", token)
        shown = await near.read("web/prod", token, reveal=True)

        assert [view.variables["KEY"].value for view in (masked, shown)] == [None, "canary"]

    told(story)


def test_a_read_without_a_token_is_of_what_is_there() -> None:
    async def story() -> None:
        near = Near(other_node())

        with pytest.raises(NotFound):
            await near.read("web/prod", "")

        assert near.asked == []

    assert told(story) == 0


@pytest.mark.parametrize("environment", ["web/prod", "NO NAME"])
def test_what_is_no_token_is_refused_at_once(environment: str) -> None:
    async def story() -> None:
        near = Near(other_node())

        with pytest.raises(InvalidRequest):
            await near.read(environment, "rubbish")

        assert near.asked == []

    assert told(story) == 0


def test_what_is_no_environment_is_never_sent() -> None:
    async def story() -> None:
        near = Near(other_node())

        with pytest.raises(InvalidRequest):
            await near.read("NO NAME", NOWHERE)

        assert near.asked == []

    told(story)


def test_only_so_many_reads_wait_at_once() -> None:
    async def story() -> None:
        near = Near()
        coordinator = near.node.coordinator
        waiting = [asyncio.ensure_future(coordinator.reaches(NOWHERE)) for _ in range(MAX_OPEN)]
        await asyncio.sleep(0)

        with pytest.raises(Unavailable, match="can't prove"):
            await coordinator.reaches(NOWHERE)

        assert not any(await asyncio.gather(*waiting))
        assert not await coordinator.reaches(NOWHERE)

    told(story)


# -- rights --------------------------------------------------------------------------------


def test_layers_that_only_the_peer_knows_of_take_a_right_too() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far)
        await written(far, "hidden/base", Put("A", "1"))
        token = await written(far, "web/prod", Put(EXTENDS, "hidden/base", kind=Kind.METADATA))
        request = ReadRequest("web/prod", token=token, resolve=True)

        seen = await near.api().get(TESTER, request)
        with pytest.raises(Denied):
            await near.api(Hidden()).get(TESTER, request)

        assert seen.variables["A"].source == "hidden/base"

    told(story)


def test_nobody_learns_from_a_peer_that_a_layer_is_missing() -> None:
    async def story() -> None:
        far = other_node()
        near = Near(far)
        await written(far, "hidden/base", Put("A", "1"))
        await written(far, "web/prod", Put(EXTENDS, "hidden/base", kind=Kind.METADATA))
        token = (await far.coordinator.delete(DeleteRequest("hidden/base"), "ann")).token
        request = ReadRequest("web/prod", token=token, resolve=True)

        with pytest.raises(Unavailable) as refused:
            await near.api(Hidden()).get(TESTER, request)

        assert "hidden" not in refused.value.message + refused.value.hint

    told(story)


def test_who_may_not_read_is_refused_before_anything_is_asked() -> None:
    async def story() -> None:
        near = Near(other_node())

        with pytest.raises(Denied):
            await near.api(Hidden()).get(TESTER, ReadRequest("hidden/one", token=NOWHERE))

        assert near.asked == []

    assert told(story) == 0


# -- clusters ------------------------------------------------------------------------------


async def seen(machines: Machines, name: str, token: str) -> str | None:
    """PORT of web/prod, read on a node with a token."""
    request = ReadRequest("web/prod", reveal=True, token=token)
    view = await machines.run(name, machines.node(name).api.get(TESTER, request))
    return view.variables["PORT"].value


def test_a_write_is_read_on_every_node_at_once_with_its_token() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        for number in range(20):
            answer = await machines.write("n1", "web/prod", PORT=str(number))
            there = [await seen(machines, name, answer.token) for name in ("n1", "n2", "n3")]

            assert there == [str(number)] * 3

    simulate(story)


@pytest.mark.parametrize("repeats", [True, False], ids=["a repeat", "a rollback of nothing"])
def test_what_another_node_finds_done_is_seen_with_the_token_that_it_gives(repeats: bool) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n3"])
        first = await machines.write("n1", "web/prod", operation="deploy-7", PORT="1")
        await machines.until(lambda: machines.shows("n2", "web/prod", "PORT", "1"))

        if repeats:
            again = await machines.write("n2", "web/prod", operation="deploy-7", PORT="1")
        else:
            back = RollbackRequest("web/prod", first.revision)
            again = await machines.run("n2", machines.node("n2").api.rollback(TESTER, back))

        assert again.stamp == first.stamp
        assert await seen(machines, "n3", again.token) == "1"

    simulate(story)


def test_a_node_that_a_write_has_not_reached_asks_the_one_that_said_it_has_it() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n3"])
        answer = await machines.write("n1", "web/prod", PORT="1")
        await asyncio.sleep(0.3)
        asked_s = machines.loop.time()

        found = await seen(machines, "n3", answer.token)

        assert found == "1"
        assert machines.loop.time() - asked_s < 0.2
        assert machines.shows("n3", "web/prod", "PORT", None)

    simulate(story)


def test_of_a_write_that_nobody_told_of_its_origin_is_asked_first() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        asker = machines.node("n1")
        uids = [machines.node(name).uid for name in ("n2", "n3")]

        first = [asker.node.replication.holders(5, uid, 99)[0] for uid in uids]

        assert first == uids

    simulate(story)


def test_of_those_that_hold_a_write_one_that_fell_silent_is_asked_last() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        answer = await machines.write("n1", "web/prod", PORT="1")
        await machines.until(machines.equal)
        await asyncio.sleep(0.5)
        partition, origin, seq = point_of(answer.token)

        machines.cluster.crash(machines.machine("n1"))
        await asyncio.sleep(0.1)

        asker = machines.node("n3").node.replication
        assert asker.holders(partition, origin, seq) == [machines.node("n2").uid, origin]

    simulate(story)


def test_a_node_that_is_cut_off_refuses_until_it_is_back() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        answer = await machines.write("n1", "web/prod", PORT="1")

        with pytest.raises(Unavailable, match="can't prove"):
            await seen(machines, "n3", answer.token)

        machines.cluster.network.heal()
        await machines.until(machines.equal, 5.0)
        assert await seen(machines, "n3", answer.token) == "1"

    simulate(story)


def test_an_agent_that_is_not_fed_asks_a_storage_node() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        fed_by = machines.node("n3").node.replication.fed_by()
        assert fed_by is not None
        other = "n2" if fed_by.name == "n1" else "n1"
        machines.cluster.network.partition(["n3"], [fed_by.name])
        answer = await machines.write(other, "web/prod", PORT="1")

        found = await seen(machines, "n3", answer.token)

        assert found == "1"
        assert machines.shows("n3", "web/prod", "PORT", None)

    simulate(story)
