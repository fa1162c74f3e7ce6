"""Requests on a node that does not hold what they are about: another one answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.chain import is_serial
from envd.core.commit import Commit, Kind
from envd.core.errors import (
    Conflict,
    EnvdError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    ConflictsRequest,
    Consistency,
    DeleteRequest,
    Durability,
    HistoryRequest,
    Put,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    Unset,
    WriteRequest,
)
from envd.core.ring import partition_of
from envd.node.routing import NO_HOLDER, NOT_HOLDER, SIGN_S, SILENT_S
from envd.node.session_reads import STALE
from envd.node.views import session_token
from tests.node.machines import TESTER, Machines, simulate
from tests.node.placed import HOLDERS, follow, placed, table

ENVIRONMENT = "web/prod"
TELLS_S = 5.0
"""By then phi has told that a peer is silent."""


async def get(machines: Machines, name: str, request: ReadRequest) -> EnvironmentView:
    return await machines.run(name, machines.node(name).api.get(TESTER, request))


async def write(machines: Machines, name: str, request: WriteRequest) -> WriteAnswer:
    return await machines.run(name, machines.node(name).api.write(TESTER, request))


def newest(machines: Machines, name: str) -> Commit:
    return machines.node(name).store.commits(ENVIRONMENT, None, 1)[0]


async def left_behind(machines: Machines, name: str) -> WriteAnswer:
    """Set A to 1: this node has that from a time when it held everything, and keeps it for now."""
    made = machines.node(name).node.holdings.table
    assert made is not None
    for each in machines.cluster.nodes.values():
        each.node.holdings.follow(None)
    answer = await machines.write("n1", ENVIRONMENT, A="1")
    await machines.until(lambda: machines.shows(name, ENVIRONMENT, "A", "1"))
    follow(machines, replace(made, waiting=1))
    return answer


def cut_off(machines: Machines, name: str, others: Sequence[str] = HOLDERS) -> None:
    machines.cluster.network.partition([name], others)


# -- reads ---------------------------------------------------------------------------------


def test_a_node_has_a_holder_read_what_it_does_not_hold() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1", B="2")

        view = await get(machines, "n4", ReadRequest(ENVIRONMENT, ("A",)))

        assert list(view.variables) == ["A"]
        assert view.variables["A"].node == "n1"  # So n1 tells of its own stamp, and nobody else.

    simulate(story, 4)


def test_what_was_read_elsewhere_is_never_older_than_what_the_node_happens_to_have() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await left_behind(machines, "n4")
        machines.cluster.network.partition(["n4"], ["n1"])
        await machines.write("n1", ENVIRONMENT, A="2")

        assert await machines.value("n4", ENVIRONMENT, "A") == "2"  # n2 answers.

    simulate(story, 4)


def test_what_a_holder_refuses_a_read_with_is_told_as_it_is() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})

        with pytest.raises(NotFound) as absent:
            await get(machines, "n4", ReadRequest(ENVIRONMENT))
        with pytest.raises(InvalidRequest):
            await get(machines, "n4", ReadRequest("no name"))
        await machines.write("n1", ENVIRONMENT, A="1")
        with pytest.raises(Unsupported) as strong:
            await get(machines, "n4", ReadRequest(ENVIRONMENT, consistency=Consistency.STRONG))

        assert absent.value.reason == "ENVIRONMENT_NOT_FOUND"
        assert strong.value.reason == "NOT_SERIAL"

    simulate(story, 4)


def test_the_past_is_told_by_a_holder() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        first = await machines.write("n1", ENVIRONMENT, A="1")
        second = await machines.write("n1", ENVIRONMENT, A="2")
        api = machines.node("n4").api

        page = await machines.run("n4", api.history(TESTER, HistoryRequest(ENVIRONMENT, limit=1)))
        then = await get(machines, "n4", ReadRequest(ENVIRONMENT, at="@~1"))

        assert [commit.stamp for commit in page.commits] == [second.stamp] == [page.next]
        assert then.revision == first.revision
        before = HistoryRequest(ENVIRONMENT, before=page.next)
        page = await machines.run("n4", api.history(TESTER, before))
        assert [commit.stamp for commit in page.commits] == [first.stamp]
        with pytest.raises(InvalidRequest):
            await machines.run("n4", api.history(TESTER, HistoryRequest(ENVIRONMENT, before="x")))

    simulate(story, 4)


def test_a_session_token_of_a_holder_is_good_on_every_node() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n1", ENVIRONMENT, A="1")
        machines.cluster.network.partition(["n2"], ["n1", "n3"])
        answer = await machines.write("n2", ENVIRONMENT, A="2")

        view = await get(machines, "n4", ReadRequest(ENVIRONMENT, token=answer.token))

        assert view.variables["A"].value == "2"  # n1 does not have it.
        local = await get(machines, "n2", ReadRequest(ENVIRONMENT, token=answer.token))
        assert local.revision == view.revision
        unknown = session_token(0xFFF, 1, 1)
        assert (await get(machines, "n4", ReadRequest(ENVIRONMENT, token=unknown))).variables

    simulate(story, 4)


def test_a_read_with_a_token_that_no_holder_knows_is_refused() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        answer = await machines.write("n1", ENVIRONMENT, A="1")
        version, partition, origin, _ = answer.token.split(".")
        later = f"{version}.{partition}.{origin}.ffff"

        for name in ("n1", "n4"):
            with pytest.raises(Unavailable) as refused:
                await get(machines, name, ReadRequest(ENVIRONMENT, token=later))
            assert refused.value.reason == STALE

    simulate(story, 4)


def test_a_strong_read_is_made_by_a_holder() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await write(
            machines, "n1", WriteRequest(ENVIRONMENT, (Put("mode", "serial", kind=Kind.METADATA),))
        )
        await machines.write("n2", ENVIRONMENT, A="1")

        view = await get(machines, "n4", ReadRequest(ENVIRONMENT, consistency=Consistency.STRONG))

        assert view.variables["A"].value == "1"
        assert view.level is Consistency.STRONG

    simulate(story, 4)


def test_a_read_is_refused_while_no_holder_can_be_reached() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await left_behind(machines, "n4")
        cut_off(machines, "n4")
        await asyncio.sleep(TELLS_S)
        api = machines.node("n4").api
        began = machines.loop.time()

        for asked in (
            lambda: get(machines, "n4", ReadRequest(ENVIRONMENT)),
            lambda: machines.run("n4", api.history(TESTER, HistoryRequest(ENVIRONMENT))),
            lambda: machines.run("n4", api.conflicts(TESTER, ConflictsRequest(ENVIRONMENT))),
        ):
            with pytest.raises(Unavailable) as refused:
                await asked()
            assert refused.value.reason == NO_HOLDER
            assert "n1, n2, n3" in refused.value.hint
            assert refused.value.retry_after_ms

        assert machines.loop.time() - began < SIGN_S + SILENT_S
        machines.cluster.network.heal()
        await asyncio.sleep(TELLS_S)
        assert await machines.value("n4", ENVIRONMENT, "A") == "1"

    simulate(story, 4)


def test_the_next_holder_is_asked_where_one_dies() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "1"))
        machines.cluster.crash(machines.machine("n1"))

        assert await machines.value("n4", ENVIRONMENT, "A") == "1"

    simulate(story, 4)


def test_a_node_that_is_no_holder_in_its_own_view_is_passed_over() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        await machines.write("n2", ENVIRONMENT, A="1")
        follow(machines, table(machines, {ENVIRONMENT: ("n2",)}), "n1")

        assert (await get(machines, "n4", ReadRequest(ENVIRONMENT))).variables["A"].node == "n2"
        await machines.write("n4", ENVIRONMENT, A="2")
        assert newest(machines, "n2").node == "n2"

        follow(machines, table(machines, {ENVIRONMENT: ("n3",)}), "n1", "n2")
        with pytest.raises(Unavailable) as refused:
            await get(machines, "n4", ReadRequest(ENVIRONMENT))
        assert refused.value.reason == NOT_HOLDER

        asked = asyncio.ensure_future(get(machines, "n4", ReadRequest(ENVIRONMENT)))
        await asyncio.sleep(0.15)
        follow(machines, table(machines, {ENVIRONMENT: ("n1",)}), "n1")
        assert (await asked).variables["A"].value == "2"

    simulate(story, 4)


def test_a_node_that_is_gaining_a_partition_asks_those_that_have_all_of_it() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        before = table(machines, {ENVIRONMENT: ("n1",)})
        partition = partition_of(ENVIRONMENT)
        moving = before.begin({partition: (machines.node("n4").uid,)}, epoch=9)
        follow(machines, moving)
        await machines.write("n4", ENVIRONMENT, A="1")

        assert newest(machines, "n1").node == "n1"
        assert (await get(machines, "n4", ReadRequest(ENVIRONMENT))).variables["A"].node == "n1"

        there = moving.advance([partition]).advance([partition])  # READ_NEW
        follow(machines, there)
        await machines.write("n4", ENVIRONMENT, A="2")
        assert (await get(machines, "n1", ReadRequest(ENVIRONMENT))).variables["A"].node == "n4"

    simulate(story, 4)


# -- writes --------------------------------------------------------------------------------


def test_a_write_is_made_by_a_holder() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await machines.write("n1", ENVIRONMENT, A="1")

        answer = await machines.write("n4", ENVIRONMENT, A="2")

        made = newest(machines, "n1")
        assert (made.stamp.hex(), made.revision.hex()) == (answer.stamp, answer.revision)
        assert made.node in HOLDERS
        assert made.author == TESTER.name
        assert not made.blind
        assert (answer.acknowledged, answer.detached) == (2, False)
        view = await get(machines, "n4", ReadRequest(ENVIRONMENT, token=answer.token))
        assert view.variables["A"].value == "2"

    simulate(story, 4)


def test_every_kind_of_write_is_made_by_a_holder() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        api = machines.node("n4").api
        first = await machines.write("n4", ENVIRONMENT, A="1")
        await machines.write("n4", ENVIRONMENT, A="2")
        back = RollbackRequest(ENVIRONMENT, first.revision)
        await machines.run("n4", api.rollback(TESTER, back))
        assert await machines.value("n4", ENVIRONMENT, "A") == "1"
        await machines.delete("n4", ENVIRONMENT)
        with pytest.raises(NotFound):
            await machines.value("n4", ENVIRONMENT, "A")
        with pytest.raises(NotFound):
            await machines.delete("n4", ENVIRONMENT)
        resolving = ResolveRequest(ENVIRONMENT, "A", "kept")
        with pytest.raises(NotFound) as none:
            await machines.run("n4", api.resolve(TESTER, resolving))
        assert none.value.reason == "CONFLICT_NOT_FOUND"

    simulate(story, 4)


def test_preconditions_are_checked_by_the_holder_and_told_as_they_are() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        first = await machines.write("n4", ENVIRONMENT, A="1")
        change = WriteRequest(ENVIRONMENT, (Put("A", "2"),), if_revision=first.revision)

        answer = await write(machines, "n4", change)

        assert answer.precondition == "local"
        with pytest.raises(Conflict) as stale:
            await write(machines, "n4", change)
        assert stale.value.reason == "STALE_REVISION"
        with pytest.raises(NotFound):
            await write(machines, "n4", WriteRequest(ENVIRONMENT, (), (Unset("NONE"),)))

    simulate(story, 4)


def test_a_serial_environment_is_written_through_a_node_that_does_not_hold_it() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        mode = Put("mode", "serial", kind=Kind.METADATA)
        await write(machines, "n4", WriteRequest(ENVIRONMENT, (mode,)))

        answer = await machines.write("n4", ENVIRONMENT, A="1")

        state = machines.node("n1").store.visible(ENVIRONMENT)
        assert state is not None
        assert is_serial(state.environment)
        exact = WriteRequest(ENVIRONMENT, (Put("A", "2"),), if_revision=answer.revision)
        assert (await write(machines, "n4", exact)).precondition == "exact"
        with pytest.raises(Conflict):
            await write(machines, "n4", exact)

    simulate(story, 4)


def test_a_repeat_with_the_operation_id_happens_once_whichever_node_is_asked() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        first = await machines.write("n4", ENVIRONMENT, A="1", operation="op-1")

        again = await machines.write("n4", ENVIRONMENT, A="1", operation="op-1")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "1"))
        there = await machines.write("n2", ENVIRONMENT, A="1", operation="op-1")

        assert first.stamp == again.stamp == there.stamp
        with pytest.raises(Conflict):
            await machines.write("n4", ENVIRONMENT, A="2", operation="op-1")

    simulate(story, 4)


def test_writes_begun_one_after_the_other_are_made_in_this_order() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        api = machines.node("n4").api

        async def pipelined() -> list[WriteAnswer]:
            begun = [
                await api.begin_write(TESTER, WriteRequest(name, (Put("A", str(number)),)))
                for number in range(20)
                for name in (ENVIRONMENT, f"web/{number}")
            ]
            return [await each for each in begun]

        answers = await machines.run("n4", pipelined())

        stamps = [each.stamp for each in answers if each.environment == ENVIRONMENT]
        assert stamps == sorted(stamps)
        assert await machines.value("n4", ENVIRONMENT, "A") == "19"

    simulate(story, 4)


def test_a_write_goes_to_the_next_holder_where_one_dies() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        machines.cluster.crash(machines.machine("n1"))

        answer = await machines.write("n4", ENVIRONMENT, A="1")

        assert answer.revision
        assert newest(machines, "n2").node == "n2"

    simulate(story, 4)


def test_a_write_whose_holder_falls_silent_is_made_by_the_next_one_under_the_same_id() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await machines.write("n4", ENVIRONMENT, A="0")
        machines.cluster.network.cut("n1", "n4")  # The question gets there, the answer does not.

        answer = await machines.write("n4", ENVIRONMENT, A="1")

        await machines.until(lambda: newest(machines, "n2").stamp == newest(machines, "n1").stamp)
        commits = machines.node("n1").store.commits(ENVIRONMENT, None, 9)
        made = [commit for commit in commits if commit.changes[0].value == "1"]
        assert [commit.stamp.hex() for commit in made] == [answer.stamp]

    simulate(story, 4)


def test_a_write_that_was_handed_over_and_not_answered_is_of_unknown_outcome() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        await machines.write("n4", ENVIRONMENT, A="0")
        machines.cluster.network.cut("n1", "n4")

        with pytest.raises(OutcomeUnknown) as unknown:
            await machines.write("n4", ENVIRONMENT, A="1")

        assert machines.shows("n1", ENVIRONMENT, "A", "1")  # It was made.
        machines.cluster.network.heal()
        await asyncio.sleep(TELLS_S)
        _, _, rest = unknown.value.hint.partition("--operation ")
        operation = rest.split(",")[0]
        again = await machines.write("n4", ENVIRONMENT, A="1", operation=operation)
        assert newest(machines, "n1").stamp.hex() == again.stamp

    simulate(story, 4)


def test_a_refusal_after_an_unanswered_try_does_not_say_that_nothing_was_done() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        first = await machines.write("n1", ENVIRONMENT, A="0")
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "0"))
        network = machines.cluster.network
        network.cut("n1", "n4")
        network.partition(["n1"], ["n2", "n3"])
        await machines.write("n2", ENVIRONMENT, durability=Durability.LOCAL, A="other")

        with pytest.raises(OutcomeUnknown):
            await write(
                machines,
                "n4",
                WriteRequest(ENVIRONMENT, (Put("A", "1"),), if_revision=first.revision),
            )

        assert machines.shows("n1", ENVIRONMENT, "A", "1")

    simulate(story, 4)


def test_a_write_goes_on_where_its_caller_goes_away() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        api = machines.node("n4").api
        first, second = (WriteRequest(ENVIRONMENT, (Put("A", value),)) for value in "12")

        async def impatient() -> WriteAnswer:
            gone = asyncio.ensure_future(api.write(TESTER, first))
            await asyncio.sleep(0)
            gone.cancel()
            return await api.write(TESTER, second)

        answer = await machines.run("n4", impatient())

        made = machines.node("n1").store.commits(ENVIRONMENT, None, 9)
        assert [commit.changes[0].value for commit in made] == ["2", "1"]
        assert made[0].stamp.hex() == answer.stamp

    simulate(story, 4)


# -- blind writes --------------------------------------------------------------------------


def test_a_node_that_is_cut_off_from_all_holders_still_takes_writes() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, holders=("n1", "n2"))
        await machines.write("n1", ENVIRONMENT, A="1", B="1")
        cut_off(machines, "n4", ("n1", "n2"))
        await asyncio.sleep(TELLS_S)

        answer = await machines.write("n4", ENVIRONMENT, A="2", unset="B")
        again = await machines.write("n4", ENVIRONMENT, A="3", operation="op-1")
        repeat = await machines.write("n4", ENVIRONMENT, A="3", operation="op-1")

        assert answer.revision == again.revision == repeat.revision == ""
        assert repeat.stamp == again.stamp
        assert answer.token
        with pytest.raises(Unavailable) as refused:
            await machines.value("n4", ENVIRONMENT, "A")
        assert refused.value.reason == NO_HOLDER
        made = newest(machines, "n4")
        assert made.blind
        assert made.node == "n4"
        assert made.revision == b""
        machines.cluster.network.heal()
        await machines.until(lambda: machines.shows("n1", ENVIRONMENT, "A", "3"), TELLS_S)
        await asyncio.sleep(TELLS_S)
        view = await get(machines, "n4", ReadRequest(ENVIRONMENT, token=again.token))
        assert view.variables["A"].masked
        assert "B" not in view.variables
        page = await machines.run(
            "n4", machines.node("n4").api.history(TESTER, HistoryRequest(ENVIRONMENT))
        )
        assert [bool(commit.revision) for commit in page.commits] == [False, False, True]

    simulate(story, 4)


def test_a_blind_write_that_nobody_else_has_is_detached() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        cut_off(machines, "n4")
        await asyncio.sleep(TELLS_S)

        answer = await machines.write("n4", ENVIRONMENT, A="2")

        assert (answer.acknowledged, answer.detached) == (1, True)
        with pytest.raises(Unavailable) as refused:
            await machines.write("n4", ENVIRONMENT, durability=Durability.STRICT, A="2")
        assert refused.value.reason == "NO_SECOND_COPY"

    simulate(story, 4)


def test_a_blind_write_in_conflict_with_one_it_could_not_see_is_on_record() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        cut_off(machines, "n4")
        await asyncio.sleep(TELLS_S)
        await machines.write("n1", ENVIRONMENT, A="seen by nobody there")
        await asyncio.sleep(1)
        await machines.write("n4", ENVIRONMENT, A="blind")
        machines.cluster.network.heal()
        await machines.until(lambda: machines.shows("n2", ENVIRONMENT, "A", "blind"), TELLS_S)
        await asyncio.sleep(TELLS_S)
        api = machines.node("n4").api

        page = await machines.run("n4", api.conflicts(TESTER, ConflictsRequest(ENVIRONMENT)))

        assert [each.variable for each in page.conflicts] == ["A"]
        assert page.conflicts[0].kept.node == "n4"
        assert page.conflicts[0].kept.masked
        resolving = ResolveRequest(ENVIRONMENT, "A", page.conflicts[0].id)
        await machines.run("n4", api.resolve(TESTER, resolving))
        await machines.until(
            lambda: machines.shows("n1", ENVIRONMENT, "A", "seen by nobody there"), TELLS_S
        )

    simulate(story, 4)


def test_what_needs_a_look_at_the_environment_is_not_done_blind() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        first = await left_behind(machines, "n4")
        cut_off(machines, "n4")
        await asyncio.sleep(TELLS_S)
        api, put = machines.node("n4").api, (Put("A", "2"),)
        mode = Put("mode", "serial", kind=Kind.METADATA)

        refused: list[EnvdError] = []
        for asked in (
            api.write(TESTER, WriteRequest(ENVIRONMENT, put, if_revision=first.revision)),
            api.write(TESTER, WriteRequest(ENVIRONMENT, put, must_exist=True)),
            api.write(TESTER, WriteRequest(ENVIRONMENT, put, must_not_exist=True)),
            api.write(TESTER, WriteRequest(ENVIRONMENT, put, replace=True)),
            api.write(TESTER, WriteRequest(ENVIRONMENT, (mode,))),
            api.write(TESTER, WriteRequest(ENVIRONMENT, (Put("A", "2", secret=False),))),
            api.delete(TESTER, DeleteRequest(ENVIRONMENT)),
            api.rollback(TESTER, RollbackRequest(ENVIRONMENT, first.revision)),
            api.resolve(TESTER, ResolveRequest(ENVIRONMENT, "A", "kept")),
        ):
            with pytest.raises(Unavailable) as error:
                await machines.run("n4", asked)
            refused.append(error.value)

        assert {error.reason for error in refused} == {NO_HOLDER}
        assert all("nothing was done" in error.message and error.hint for error in refused)
        assert newest(machines, "n4").stamp.hex() == first.stamp

    simulate(story, 4)


def test_a_write_is_not_made_blind_where_a_holder_answers_that_it_can_not() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1",)})
        refusal = Unavailable("the disk is full; nothing was written", reason="DISK_FULL")
        machines.node("n1").node.coordinator.refuse_writes = refusal

        with pytest.raises(Unavailable) as refused:
            await machines.write("n4", ENVIRONMENT, A="1")

        assert refused.value.reason == "DISK_FULL"
        assert machines.node("n4").store.visible(ENVIRONMENT) is None

    simulate(story, 4)


def test_a_node_that_has_met_nobody_yet_looks_for_holders_before_it_writes_blind() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        await machines.write("n1", ENVIRONMENT, A="1")
        made = table(machines)
        machines.cluster.crash(machines.machine("n4"))
        await machines.cluster.start(machines.machine("n4"))
        follow(machines, made, "n4")

        answer = await machines.write("n4", ENVIRONMENT, A="2")

        assert answer.revision
        assert not newest(machines, "n1").blind

    simulate(story, 4)


# -- what stays as it was ------------------------------------------------------------------


def test_what_a_node_holds_it_answers_itself() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        cut_off(machines, "n1", ("n2", "n3", "n4"))
        await asyncio.sleep(TELLS_S)

        answer = await machines.write("n1", ENVIRONMENT, A="1")

        assert answer.revision
        assert answer.detached
        assert await machines.value("n1", ENVIRONMENT, "A") == "1"
        assert not newest(machines, "n1").blind

    simulate(story, 4)
