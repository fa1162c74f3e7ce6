"""Writes that lost elsewhere, put on record: conflicts on every node, settled as any other."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from envd.core.answers import ConflictView
from envd.core.commit import Commit, Kind
from envd.core.errors import Corrupt, EnvdError, InvalidRequest, LimitExceeded, Unavailable
from envd.core.requests import ConflictsRequest, HistoryRequest, Put, ResolveRequest, WriteRequest
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.node.recording import METHOD, commits_of
from envd.node.routing import NO_HOLDER, NOT_HOLDER
from envd.sync.ports import Lost
from envd.wire import peers as wire
from envd.wire import records
from tests.node.machines import TESTER, Machines, simulate
from tests.node.placed import count_calls, follow, placed, table
from tests.node.syncing import AUTHOR, lost, open_conflicts, put_on_record
from tests.node.test_serial import voting

ENVIRONMENT = "web/prod"
CANARY = "canary-77d0"
ALL = ("n1", "n2", "n3")


async def conflicts(machines: Machines, name: str) -> list[ConflictView]:
    request = ConflictsRequest(ENVIRONMENT, reveal=True)
    page = await machines.run(name, machines.node(name).api.conflicts(TESTER, request))
    return list(page.conflicts)


async def resolve(machines: Machines, name: str, variable: str, take: str) -> None:
    request = ResolveRequest(ENVIRONMENT, variable, take)
    await machines.run(name, machines.node(name).api.resolve(TESTER, request))


def settled(machines: Machines, name: str) -> bool:
    return not machines.node(name).store.conflicts(ENVIRONMENT, "", 1)


def salvaging(machines: Machines, name: str) -> list[Commit]:
    found = machines.node(name).store.commits(ENVIRONMENT, None, 100)
    return [commit for commit in found if commit.salvages is not None]


async def recorded(machines: Machines, count: int, *names: str) -> None:
    """Wait until these nodes have so many commits that salvage something."""
    await machines.until(
        lambda: all(len(salvaging(machines, name)) == count for name in names), 5.0
    )


def test_what_lost_is_a_conflict_on_every_node_and_changes_nothing() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        revision = (await machines.write("n1", ENVIRONMENT, A="here", B="b")).revision

        ids = await put_on_record(machines, "n1", ENVIRONMENT, lost("A", "there"))

        await recorded(machines, 1, *ALL)
        for name in ALL:
            (found,) = await conflicts(machines, name)
            assert [found.id] == ids
            assert await open_conflicts(machines, name, ENVIRONMENT) == set(ids)
            assert (found.variable, found.kept.value, found.lost.value) == ("A", "here", "there")
            assert (found.lost.actor, found.lost.stamp) == (AUTHOR, lost("A", "").stamp.hex())
            state = machines.node(name).store.visible(ENVIRONMENT)
            assert state is not None
            assert state.revision.hex() == revision
        (commit,) = salvaging(machines, "n2")
        assert (commit.author, commit.message) == ("envd", f"what {AUTHOR} had; see the conflicts")

    simulate(story)


@pytest.mark.parametrize(("take", "value"), [("lost", "there"), ("kept", "here")])
def test_a_user_settles_it_from_any_node(take: str, value: str) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here")
        await put_on_record(machines, "n1", ENVIRONMENT, lost("A", "there"))
        await recorded(machines, 1, "n2")

        await resolve(machines, "n2", "A", take)

        for name in ALL:
            await machines.until(partial(settled, machines, name))
            assert machines.shows(name, ENVIRONMENT, "A", value)
            assert await open_conflicts(machines, name, ENVIRONMENT) == frozenset()

    simulate(story)


def test_again_from_any_node_there_is_no_second_record_even_once_it_is_settled() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here", B="here")
        writes = (lost("A", "there"), lost("B", "there"))
        first = await put_on_record(machines, "n1", ENVIRONMENT, *writes)
        await recorded(machines, 1, *ALL)

        again = [await put_on_record(machines, name, ENVIRONMENT, *writes) for name in ALL]
        await resolve(machines, "n3", "A", "kept")
        await machines.until(lambda: len(machines.conflicts("n1")) == 1)
        left = await put_on_record(machines, "n1", ENVIRONMENT, *writes)

        assert again == [first] * 3
        assert left == ["", *first[1:]]
        assert len(salvaging(machines, "n1")) == 1

    simulate(story)


def test_several_at_once_make_one_record() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here")

        found = await asyncio.gather(
            *(put_on_record(machines, "n1", ENVIRONMENT, lost("A", "there")) for _ in range(5))
        )

        assert len(salvaging(machines, "n1")) == 1
        assert len({tuple(ids) for ids in found}) == 1

    simulate(story)


def test_two_nodes_at_once_make_one_conflict() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "here"))
        machines.cluster.network.partition(["n1"], ["n2"])
        for name in ("n1", "n2"):
            await put_on_record(machines, name, ENVIRONMENT, lost("A", "there"))

        machines.cluster.network.heal()
        await machines.until(machines.equal, 30.0)

        for name in ("n1", "n2"):
            assert len(await conflicts(machines, name)) == 1
        await resolve(machines, "n1", "A", "lost")
        assert await conflicts(machines, "n1") == []

    simulate(story, 2)


def test_of_what_stands_there_seen_or_equal_nothing_is_lost() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        first = await machines.write("n1", ENVIRONMENT, A="old", B="b")
        await machines.write("n1", ENVIRONMENT, A="new")
        seen = Lost("A", "old", False, Stamp.from_hex(first.stamp), "tester", 1)

        ids = await put_on_record(
            machines, "n1", ENVIRONMENT, seen, lost("B", "b"), lost("C", None)
        )

        assert ids == ["", "", ""]
        assert salvaging(machines, "n1") == []

    simulate(story, 1)


def test_an_unset_and_a_write_of_what_is_not_there_are_lost_too() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here")

        await put_on_record(machines, "n1", ENVIRONMENT, lost("A", None), lost("B", "there"))

        found = {each.variable: each for each in await conflicts(machines, "n1")}
        assert (found["A"].kept.value, found["A"].lost.kind) == ("here", "unset")
        assert (found["B"].kept.kind, found["B"].lost.value) == ("unset", "there")
        await resolve(machines, "n1", "A", "lost")
        await resolve(machines, "n1", "B", "lost")
        assert machines.shows("n1", ENVIRONMENT, "A", None)
        assert machines.shows("n1", ENVIRONMENT, "B", "there")

    simulate(story, 1)


def test_one_commit_salvages_what_has_one_stamp_and_one_author() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here", B="here", C="here")

        await put_on_record(
            machines,
            "n1",
            ENVIRONMENT,
            lost("A", "there"),
            lost("B", "there"),
            lost("C", "there", 2),
            lost("C", "elsewhere", 2, author="vault:kv"),
        )

        names = [
            (commit.salvages.author, [change.name for change in commit.salvages.changes])
            for commit in reversed(salvaging(machines, "n1"))
            if commit.salvages is not None
        ]
        assert names == [(AUTHOR, ["A", "B"]), (AUTHOR, ["C"]), ("vault:kv", ["C"])]

    simulate(story, 1)


def test_a_write_that_is_a_conflict_already_is_not_one_twice() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2"])
        answers = [await machines.write(name, ENVIRONMENT, A=name) for name in ("n1", "n2")]
        machines.cluster.network.heal()
        await machines.until(lambda: len(machines.conflicts("n1")) == 1, 30.0)
        stamp = min(Stamp.from_hex(answer.stamp) for answer in answers)
        (known,) = machines.conflicts("n1")

        ids = await put_on_record(
            machines, "n1", ENVIRONMENT, Lost("A", known[3], False, stamp, "tester", 1)
        )

        assert ids == [each.id for each in await conflicts(machines, "n1")]
        assert len(ids) == 1
        assert salvaging(machines, "n1") == []

    simulate(story, 2)


def test_values_are_masked_and_in_no_history_or_error(caplog: pytest.LogCaptureFixture) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", ENVIRONMENT, A="here")
        await put_on_record(machines, "n1", ENVIRONMENT, lost("A", CANARY, secret=True))
        api = machines.node("n1").api

        page = await machines.run("n1", api.conflicts(TESTER, ConflictsRequest(ENVIRONMENT)))
        past = await machines.run("n1", api.history(TESTER, HistoryRequest(ENVIRONMENT)))
        with pytest.raises(InvalidRequest) as refused:
            await put_on_record(machines, "n1", ENVIRONMENT, lost("A", f"{CANARY}\0"))

        assert page.conflicts[0].lost.masked
        assert CANARY not in f"{page}{past}{refused.value}{lost('A', CANARY)}{caplog.text}"

    simulate(story, 1)


def test_what_no_environment_could_hold_is_refused() -> None:
    many = [lost(f"K{number}", "1") for number in range(4097)]
    large = [lost(f"K{number}", "x" * (1 << 20)) for number in range(4)]

    for writes, kind in (
        (many, LimitExceeded),
        (large, LimitExceeded),
        ([lost("no name", "1")], InvalidRequest),
    ):
        with pytest.raises(kind):
            commits_of(ENVIRONMENT, writes)


@pytest.mark.parametrize("name", ["sys/sync/web", "Web", ""])
def test_only_of_environments_of_users(name: str) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        with pytest.raises(InvalidRequest):
            await put_on_record(machines, "n1", name, lost("A", "there"))

    simulate(story, 1)


def test_nothing_lost_asks_for_nothing() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        assert await put_on_record(machines, "n1", ENVIRONMENT) == []
        assert await open_conflicts(machines, "n1", ENVIRONMENT) == frozenset()

    simulate(story, 1)


# -- serial environments -----------------------------------------------------------------------


def test_of_a_serial_environment_too_and_its_chain_goes_on() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        puts = (Put("mode", "serial", kind=Kind.METADATA), Put("A", "here"))
        request = WriteRequest(ENVIRONMENT, puts)
        await machines.run("n1", machines.node("n1").api.write(TESTER, request))
        await machines.until(lambda: machines.shows("n3", ENVIRONMENT, "A", "here"))

        ids = await put_on_record(machines, "n3", ENVIRONMENT, lost("A", "there"))
        await recorded(machines, 1, *ALL)
        await machines.write("n1", ENVIRONMENT, B="later")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "B", "later"))
        again = await put_on_record(machines, "n2", ENVIRONMENT, lost("A", "there"))
        await resolve(machines, "n2", "A", "lost")

        assert again == ids
        for name in ALL:
            await machines.until(partial(machines.shows, name, ENVIRONMENT, "A", "there"))
            await machines.until(partial(settled, machines, name))
        await machines.until(machines.equal, 30.0)

    simulate(story)


# -- nodes that do not hold it -----------------------------------------------------------------


def test_a_node_that_holds_nothing_of_it_has_a_holder_do_it() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="here")

        ids = await put_on_record(machines, "n4", ENVIRONMENT, lost("A", "there"))
        again = await put_on_record(machines, "n4", ENVIRONMENT, lost("A", "there"))

        assert len(ids) == 1
        assert again == ids
        assert await open_conflicts(machines, "n4", ENVIRONMENT) == set(ids)
        assert machines.node("n4").store.visible(ENVIRONMENT) is None
        await recorded(machines, 1, "n1", "n2")
        await resolve(machines, "n4", "A", "lost")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "there"))
        await machines.until(lambda: machines.conflicts("n1") == [])
        assert await open_conflicts(machines, "n4", ENVIRONMENT) == frozenset()

    simulate(story, 4)


def test_of_many_open_conflicts_elsewhere_all_are_told() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        writes = [lost(f"K{number}", "x" * 1024) for number in range(1100)]
        ids = await put_on_record(machines, "n1", ENVIRONMENT, *writes)

        found = await open_conflicts(machines, "n4", ENVIRONMENT)

        assert len(ids) == 1100
        assert found == set(ids)

    simulate(story, 4)


def test_one_that_does_not_exist_has_none_elsewhere_either() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})

        assert await open_conflicts(machines, "n4", ENVIRONMENT) == frozenset()

    simulate(story, 4)


def test_where_no_holder_can_be_reached_nothing_is_put_on_record() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        machines.cluster.network.partition(["n4"], ["n1", "n2", "n3"])
        await asyncio.sleep(5)

        with pytest.raises(Unavailable) as refused:
            await put_on_record(machines, "n4", ENVIRONMENT, lost("A", "there"))

        assert refused.value.reason == NO_HOLDER
        assert machines.node("n4").store.visible(ENVIRONMENT) is None

    simulate(story, 4)


def test_a_node_that_holds_it_no_longer_refuses_and_the_next_one_is_asked() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="here")
        elsewhere = table(machines, {ENVIRONMENT: ("n2", "n3")})
        follow(machines, elsewhere, "n1")
        asked = count_calls(machines, "n4")

        ids = await put_on_record(machines, "n4", ENVIRONMENT, lost("A", "there"))

        assert [uid for uid, method in asked if method == METHOD] == [
            machines.node("n1").uid,
            machines.node("n2").uid,
        ]
        assert len(ids) == 1

    simulate(story, 4)


def test_an_agent_has_a_storage_node_do_it() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        await machines.write("n1", ENVIRONMENT, A="here")

        ids = await put_on_record(machines, "n3", ENVIRONMENT, lost("A", "there"))

        await recorded(machines, 1, "n3")
        assert await open_conflicts(machines, "n3", ENVIRONMENT) == set(ids)
        assert salvaging(machines, "n3")[0].node != "n3"

    simulate(story, 3)


def test_a_peer_is_refused_that_asks_for_what_does_not_fit() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2"), "other": ("n3",)})
        (late,) = commits_of("other", [lost("A", "there")])
        row = records.encode_commit(late)

        async def refused(environment: str, name: str) -> EnvdError:
            body = wire.pack(wire.LostAsked(environment, [row]))
            uid = machines.node(name).uid
            ask = machines.node("n4").node.replication.ask
            with pytest.raises(EnvdError) as error:
                await machines.run("n4", ask(uid, METHOD, body))
            return error.value

        assert isinstance(await refused(ENVIRONMENT, "n1"), Corrupt)
        assert isinstance(await refused("sys/topology", "n1"), InvalidRequest)
        assert (await refused("other", "n1")).reason == NOT_HOLDER

    simulate(story, 4)


def test_the_time_of_a_lost_write_is_that_of_the_store() -> None:
    (late,) = commits_of(ENVIRONMENT, [lost("A", "there", 7)])

    assert (late.stamp.time_ms, late.time_ms, late.stamp.hlc) == (7, 7, 7 << COUNTER_BITS)
