"""Watches through nodes that do not hold what is watched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envd.core.answers import (
    Changed,
    Heartbeat,
    Identity,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    Status,
)
from envd.core.commit import Kind
from envd.core.errors import Unavailable
from envd.core.requests import Put, WatchRequest, WriteRequest
from envd.core.ring import partition_of
from envd.node.api import EnvironmentApi
from envd.node.routing import NO_HOLDER
from envd.node.watch import WatchHub
from envd.security.access import AllowAll
from tests.node.following import Watch, watching
from tests.node.machines import TESTER, Machines
from tests.node.placed import BESIDE_THE_SYSTEM, count_calls, follow, placed, table

ENVIRONMENT = "web/prod"
NAMES = [f"web/{number:02}" for number in range(12)]
SPREAD = {name: (f"n{1 + at % 3}",) for at, name in enumerate(NAMES)}
EXACT = WatchRequest(ENVIRONMENT, values=True, exact=True)
BELOW = WatchRequest("web", values=True)
FAILS_S = 30.0


def test_any_node_follows_an_environment_that_others_hold() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch("n4", EXACT)

        await followed.until(ENVIRONMENT, A="1")
        await machines.write("n1", ENVIRONMENT, A="2")
        await followed.until(ENVIRONMENT, A="2")
        await machines.write("n2", ENVIRONMENT, A="3")
        await followed.until(ENVIRONMENT, A="3")
        await machines.delete("n1", ENVIRONMENT)
        await followed.until(ENVIRONMENT)

        assert [type(event) for event in followed.events] == [
            SnapshotItem,
            SnapshotEnd,
            *3 * [Changed],
        ]

    watching(story)


def test_what_lies_in_the_partition_of_the_system_is_followed_below_a_prefix_too() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, SPREAD)
        followed = watch("n4", WatchRequest("many", values=True))
        await followed.whole()

        await machines.write("n1", BESIDE_THE_SYSTEM, A="1")
        await followed.until(BESIDE_THE_SYSTEM, A="1")
        later = watch("n4", WatchRequest("", values=True))
        await later.until(BESIDE_THE_SYSTEM, A="1")

        assert not followed.of(SnapshotEnd)[0].partial

    watching(story)


def test_a_base_in_the_partition_of_the_system_is_followed_with_what_extends_it() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, SPREAD)
        await machines.write("n1", BESIDE_THE_SYSTEM, A="1")
        put = Put("extends", BESIDE_THE_SYSTEM, kind=Kind.METADATA)
        request = WriteRequest(NAMES[0], (put, Put("B", "1")))
        await machines.run("n1", machines.node("n1").api.write(TESTER, request))
        followed = watch("n4", WatchRequest(NAMES[0], values=True, resolve=True, exact=True))
        await followed.until(NAMES[0], A="1", B="1")

        await machines.write("n1", BESIDE_THE_SYSTEM, A="2")

        await followed.until(NAMES[0], A="2", B="1")

    watching(story)


def test_every_change_is_told_in_order() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        followed = watch("n4", EXACT)
        await followed.whole()

        revisions = [
            (await machines.write("n1", ENVIRONMENT, A=f"{number}")).revision
            for number in range(50)
        ]
        await followed.until(ENVIRONMENT, A="49")

        assert [each.commit.revision for each in followed.of(Changed)] == revisions

    watching(story)


def test_a_prefix_is_followed_over_all_nodes() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, SPREAD)
        for name in NAMES:
            await machines.write("n1", name, A=name)
        watches = [watch(name, BELOW) for name in ("n1", "n4")]
        for followed in watches:
            await followed.whole()

        for name in NAMES:
            await machines.write("n2", name, B=name)
        await machines.write("n2", "other", B="b")

        for followed in watches:
            for name in NAMES:
                await followed.until(name, A=name, B=name)
            assert followed.states.keys() == set(NAMES)
            assert len(followed.of(Changed)) == len(NAMES)

    watching(story)


def test_a_token_resumes_on_the_node_that_gave_it_and_on_no_other() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1")
        first = watch("n4", EXACT)
        await first.whole()
        await first.end()
        await machines.write("n1", ENVIRONMENT, A="2")

        again = WatchRequest(ENVIRONMENT, first.token, values=True, exact=True)
        resumed = watch("n4", again)
        elsewhere = watch("n3", again)
        near = watch("n1", again)
        for followed in (resumed, elsewhere, near):
            await followed.until(ENVIRONMENT, A="2")

        assert [type(event) for event in resumed.events] == [Changed]
        for followed in (elsewhere, near):
            kinds = [type(event) for event in followed.events]
            assert kinds == [Reset, SnapshotItem, SnapshotEnd]

    watching(story)


def test_a_token_is_no_good_once_its_partitions_were_followed_by_nobody() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n1", ENVIRONMENT, A="1")
        first = watch("n4", EXACT)
        await first.whole()
        await first.end()
        feeds = machines.node("n4").node.feeds
        assert feeds is not None
        await machines.until(lambda: not feeds.fed, 120.0)
        await machines.write("n1", ENVIRONMENT, A="2")

        resumed = watch("n4", WatchRequest(ENVIRONMENT, first.token, values=True, exact=True))
        await resumed.until(ENVIRONMENT, A="2")

        assert isinstance(resumed.events[0], Reset)

    watching(story)


def test_another_holder_takes_over_from_one_that_dies() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1")
        watches = [watch("n4", request) for request in (EXACT, BELOW)]
        for followed in watches:
            await followed.whole()
        dead = teller(machines, "n4", ENVIRONMENT)
        other = "n2" if dead == "n1" else "n1"

        machines.cluster.crash(machines.machine(dead))
        await machines.write(other, ENVIRONMENT, A="2")

        for followed in watches:
            await followed.until(ENVIRONMENT, FAILS_S, A="2")
            assert followed.of(Reset)
        await machines.write(other, ENVIRONMENT, A="3")
        for followed in watches:
            await followed.until(ENVIRONMENT, A="3")

    watching(story)


def test_a_holder_that_comes_back_soon_goes_on_where_it_stopped() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        before = table(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch("n4", EXACT)
        await followed.whole()

        await machines.cluster.stop(machines.machine("n1"))
        await machines.cluster.start(machines.machine("n1"))
        follow(machines, before)
        await machines.write("n1", ENVIRONMENT, A="2")
        await followed.until(ENVIRONMENT, A="2")

        assert not followed.of(Reset)

    watching(story)


def test_what_nobody_answers_for_makes_a_watch_partial_until_it_is_back() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, SPREAD)
        before = table(machines, SPREAD)
        for name in NAMES:
            await machines.write("n1", name, A=name)
        followed = watch("n4", BELOW)
        await followed.whole()

        machines.cluster.crash(machines.machine("n3"))
        await machines.until(lambda: any(e.partial for e in followed.of(Heartbeat)), FAILS_S)
        await machines.write("n1", NAMES[0], A="2")
        await followed.until(NAMES[0], A="2")
        late = watch("n4", BELOW)
        await late.whole(FAILS_S)

        assert "n3" in next(e.partial_reason for e in followed.of(Heartbeat) if e.partial)
        assert late.of(SnapshotEnd)[0].partial
        assert NAMES[2] not in late.states
        with pytest.raises(Unavailable) as refused:
            await watch("n4", WatchRequest(NAMES[2], exact=True)).refused(FAILS_S)
        assert refused.value.reason == NO_HOLDER

        await machines.cluster.start(machines.machine("n3"))
        follow(machines, before)
        await machines.write("n3", NAMES[2], A="3")
        for each in (followed, late):
            await each.until(NAMES[2], FAILS_S, A="3")
            assert not each.of(SnapshotEnd)[-1].partial
            assert isinstance(each.of(Reset)[-1], Reset)

    watching(story)


def test_a_watch_goes_on_where_its_node_lets_go_of_the_partition() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch("n1", EXACT)
        await followed.whole()
        partition = partition_of(ENVIRONMENT)
        moving = table(machines, {ENVIRONMENT: ("n1",)}).begin(
            {partition: (machines.node("n2").uid,)}, epoch=9
        )
        follow(machines, moving)
        await copied(machines, "n1", "n2")

        for _ in range(3):
            moving = moving.advance([partition])
            follow(machines, moving)
        store = machines.node("n1").store
        assert await store.drop(partition, store.last_lsn(), machines.node("n1").uid)
        await machines.write("n2", ENVIRONMENT, A="2")
        await followed.until(ENVIRONMENT, A="2")

        shown = [each.state for each in followed.of(Changed)]
        assert None not in shown
        assert len(followed.of(Reset)) == 1
        assert store.visible(ENVIRONMENT) is None

    watching(story)


@pytest.mark.parametrize("gains", ["n2", "n4"])
@pytest.mark.parametrize("node", ["n4", "n1", "n3"])
def test_a_move_to_other_holders_is_no_gap(node: str, gains: str) -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        rows = {**SPREAD, ENVIRONMENT: ("n1",)}
        await placed(machines, rows)
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch(node, BELOW)
        await followed.whole()
        partition = partition_of(ENVIRONMENT)
        moving = table(machines, rows).begin({partition: (machines.node(gains).uid,)}, epoch=9)
        follow(machines, moving)
        await machines.write("n3", ENVIRONMENT, B="1")
        await copied(machines, "n1", gains)

        for _ in range(2):  # READ_NEW
            moving = moving.advance([partition])
        follow(machines, moving)
        await machines.write("n3", ENVIRONMENT, B="2")
        await followed.until(ENVIRONMENT, A="1", B="2")
        await machines.until(lambda: teller(machines, node, ENVIRONMENT) == gains)
        for _ in range(2):
            moving = moving.advance([partition])
            follow(machines, moving)
        await machines.write("n3", ENVIRONMENT, B="3")
        await followed.until(ENVIRONMENT, A="1", B="3")

        assert not followed.of(Reset)
        assert len(followed.of(Changed)) >= 3

    watching(story)


def test_a_move_that_leaves_no_time_to_hand_over_is_told_by_a_snapshot() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch("n4", EXACT)
        await followed.whole()
        follow(machines, table(machines, {ENVIRONMENT: ("n2",)}))

        await machines.write("n2", ENVIRONMENT, A="2")
        await followed.until(ENVIRONMENT, A="2")

        assert len(followed.of(Reset)) == 1

    watching(story)


def test_watches_of_one_environment_share_a_feed_and_reads() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n1", ENVIRONMENT, A="1")
        watches = [watch("n4", EXACT) for _ in range(50)]
        for followed in watches:
            await followed.whole()
        asked = count_calls(machines, "n4")
        await machines.write("n1", ENVIRONMENT, A="2")
        for followed in watches:
            await followed.until(ENVIRONMENT, A="2")

        methods = [method for _, method in asked]
        assert methods.count("watch.state") <= 2
        assert methods.count("watch.page") <= 3

    watching(story)


def test_a_watch_of_what_its_node_holds_asks_nobody() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1")
        followed = watch("n1", EXACT)
        await followed.whole()
        feeds = machines.node("n1").node.feeds

        assert feeds is not None
        assert not feeds.fed
        assert followed.token.startswith("1.")

    watching(story)


def test_a_node_takes_no_more_watches_than_its_limit_whoever_holds_what_they_watch() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        one = machines.node("n4")
        hub = WatchHub(one.store, one.uid, max_watches=1)
        gathering, watches = one.node.gathering, one.node.watches(hub)
        one.api = EnvironmentApi(
            one.node.coordinator, hub, AllowAll(), _status, None, gathering, watches
        )
        await watch("n4", EXACT).whole()

        with pytest.raises(Unavailable) as refused:
            await watch("n4", EXACT).refused()

        assert refused.value.reason == "OVERLOADED"

    watching(story)


def _status(_: Identity) -> Status:
    raise AssertionError("nobody asks")


# -- layers --------------------------------------------------------------------------------


async def extend(machines: Machines, name: str, environment: str, bases: str) -> None:
    put = Put("extends", bases, kind=Kind.METADATA)
    request = WriteRequest(environment, (put,))
    await machines.run(name, machines.node(name).api.write(TESTER, request))


LAYERED = {"prod": ("n1",), "team/base": ("n2",), "base": ("n3",), "other": ("n3",)}


async def layered(machines: Machines) -> None:
    await placed(machines, LAYERED)
    await machines.write("n1", "base", A="base", B="base")
    await machines.write("n1", "other", A="other")
    await machines.write("n1", "team/base", B="team")
    await extend(machines, "n1", "team/base", "base")
    await machines.write("n1", "prod", C="prod")
    await extend(machines, "n1", "prod", "team/base")


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("node", ["n1", "n4"])
def test_a_change_of_a_base_on_another_node_is_a_change_of_what_extends_it(
    node: str, exact: bool
) -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await layered(machines)
        request = WatchRequest("prod", values=True, resolve=True, exact=exact)
        followed = watch(node, request)
        await followed.until("prod", A="base", B="team", C="prod")

        await machines.write("n4", "base", A="new")
        await followed.until("prod", A="new", B="team", C="prod")
        await extend(machines, "n4", "team/base", "other")
        await followed.until("prod", A="other", B="team", C="prod")
        await machines.write("n4", "other", A="2")
        await followed.until("prod", A="2", B="team", C="prod")

        through = [each.through for each in followed.of(Changed)]
        assert through == ["base", "team/base", "other"]
        assert not followed.of(Reset)

    watching(story)


def test_a_resolved_watch_wants_no_more_partitions_than_its_layers_are_in() -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await layered(machines)
        followed = watch("n4", WatchRequest("prod", values=True, resolve=True, exact=True))
        await followed.whole()
        feeds = machines.node("n4").node.feeds

        assert feeds is not None
        assert feeds.fed.bit_count() == 3

    watching(story)


@pytest.mark.parametrize("exact", [True, False])
def test_a_resolved_watch_resumes_with_what_changed_in_a_base(exact: bool) -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await layered(machines)
        request = WatchRequest("prod", values=True, resolve=True, exact=exact)
        first = watch("n4", request)
        await first.whole()
        await first.end()
        await machines.write("n1", "base", A="new")

        resumed = watch("n4", replace(request, token=first.token))
        await resumed.until("prod", A="new", B="team", C="prod")

        assert [type(event) for event in resumed.events] == [Changed]

    watching(story)


async def copied(machines: Machines, name: str, to: str) -> None:
    """Bring to another node what one has of ENVIRONMENT, as a move does."""
    source, target = machines.node(name), machines.node(to).node
    partition = partition_of(ENVIRONMENT)

    async def ask(method: str, body: bytes) -> bytes:
        return await target.replication.ask(source.uid, method, body)

    await machines.run(to, target.repairer.pull(source.uid, ask, [partition]))
    await machines.until(lambda: machines.shows(to, ENVIRONMENT, "A", "1"))


def teller(machines: Machines, node: str, environment: str) -> str:
    """The name of the node that tells another one of an environment."""
    feeds = machines.node(node).node.feeds
    assert feeds is not None
    uids = {machines.node(each).uid: each for each in machines.cluster.nodes}
    partition = partition_of(environment)
    (found,) = [uid for uid, share in feeds.shares(1 << partition).items() if share]
    return uids[found]
