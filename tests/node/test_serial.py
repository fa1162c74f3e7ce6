"""Serial environments on real nodes: one order of writes, exact preconditions, majorities."""

from __future__ import annotations

import asyncio

import pytest

from chaos.sim.cluster import NodeDied
from envd.core.answers import WriteAnswer
from envd.core.chain import is_serial
from envd.core.commit import Commit, Kind
from envd.core.errors import Conflict, NotFound, OutcomeUnknown, Unavailable, Unsupported
from envd.core.paxos import Acceptor, Ballot, Proposal, Verdict
from envd.core.requests import (
    Consistency,
    DeleteRequest,
    Durability,
    HistoryRequest,
    Put,
    ReadRequest,
    RecoverRequest,
    ResolveRequest,
    Unset,
    WriteRequest,
)
from envd.core.stamp import ZERO
from envd.node.conflicts import KEPT
from envd.node.drafting import Wish
from envd.wire import records
from tests.node.machines import TESTER, Machines, simulate

ENVIRONMENT = "web/prod"
ALL = ("n1", "n2", "n3")
VOTES_S = 10.0


async def voting(machines: Machines, count: int = 3) -> None:
    """Start all machines, and wait until so many of them vote everywhere."""
    await machines.start()
    await voting_again(machines, count)


async def voting_again(machines: Machines, count: int = 3) -> None:
    def all_vote() -> bool:
        nodes = machines.cluster.nodes.values()
        known = [node.node.consent.electorate.current for node in nodes]
        return all(
            each is not None and len(each.voters) == count and not each.joining for each in known
        )

    await machines.until(all_vote, VOTES_S)


async def write(
    machines: Machines,
    name: str,
    *puts: Put,
    if_revision: str = "",
    operation: str = "",
    unset: str = "",
) -> WriteAnswer:
    unsets = (Unset(unset),) if unset else ()
    request = WriteRequest(ENVIRONMENT, puts, unsets, if_revision=if_revision, operation=operation)
    return await machines.run(name, machines.node(name).api.write(TESTER, request))


async def make_serial(machines: Machines, name: str = "n1", *, known_to: int = 0) -> WriteAnswer:
    """Make it serial, and wait until so many nodes, by default all, know of it."""
    answer = await write(machines, name, Put("mode", "serial", kind=Kind.METADATA))
    wanted = known_to or len(machines.cluster.nodes)

    def knowing() -> bool:
        states = [node.store.visible(ENVIRONMENT) for node in machines.cluster.nodes.values()]
        return sum(state is not None and is_serial(state.environment) for state in states) >= wanted

    await machines.until(knowing)
    return answer


async def make_plain(machines: Machines, name: str = "n1") -> WriteAnswer:
    return await write(machines, name, Put("mode", "lww", kind=Kind.METADATA))


def shows_stamp(machines: Machines, name: str, stamp: str) -> bool:
    state = machines.node(name).store.visible(ENVIRONMENT)
    return state is not None and state.environment.highest_stamp.hex() == stamp


def test_three_nodes_come_to_vote_by_themselves() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)

        topology = machines.node("n2").node.consent.electorate.current
        assert topology is not None
        assert len(topology.nodes) == len(topology.voters) == 3

    simulate(story)


def test_every_node_tells_who_votes_and_who_of_them_can_be_reached() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        machines.cluster.crash(machines.machine("n1"))
        api = machines.node("n2").api
        await asyncio.sleep(20)

        found = await machines.run("n2", api.cluster.topology(TESTER))

        shown = [(each.name, each.votes, each.state, each.reachable) for each in found.nodes]
        assert shown == [
            ("n1", "yes", "down", False),
            ("n2", "yes", "alive", True),
            ("n3", "yes", "alive", True),
        ]
        assert found.majority
        assert found.epoch == (await machines.run("n2", api.status(TESTER))).epoch > 0
        machines.cluster.crash(machines.machine("n3"))
        await asyncio.sleep(20)
        assert not (await machines.run("n2", api.cluster.topology(TESTER))).majority

    simulate(story)


def test_an_agent_tells_who_votes_and_never_votes_itself() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        cluster = machines.node("n3").api.cluster
        electorate = machines.node("n3").node.consent.electorate
        await machines.until(lambda: electorate.current is not None and electorate.epoch > 1, 20)

        found = await machines.run("n3", cluster.topology(TESTER))

        assert {each.name for each in found.nodes} == {"n1", "n2"}
        assert found.majority
        with pytest.raises(Conflict, match="only storage nodes vote"):
            await machines.run("n3", cluster.recover(TESTER, RecoverRequest()))

    simulate(story)


def test_an_agent_hands_serial_writes_on_and_reads_strongly() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        await make_serial(machines)

        written = await write(machines, "n3", Put("A", "1"))
        strong = ReadRequest(ENVIRONMENT, reveal=True, consistency=Consistency.STRONG)
        shown = await machines.run("n3", machines.node("n3").api.get(TESTER, strong))

        assert written.acknowledged >= 1
        assert shown.variables["A"].value == "1"

    simulate(story)


def test_a_write_is_acknowledged_by_a_majority_and_read_everywhere() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)

        answers = [await write(machines, name, Put("BY", name)) for name in ALL]

        assert all(answer.acknowledged >= 2 and not answer.detached for answer in answers)
        await machines.until(lambda: all(machines.shows(n, ENVIRONMENT, "BY", "n3") for n in ALL))
        await machines.until(machines.equal, 30.0)

    simulate(story)


def test_of_many_writes_on_one_revision_exactly_one_is_taken() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        revision = (await make_serial(machines)).revision

        outcomes = await asyncio.gather(
            *(
                write(machines, ALL[number % 3], Put("N", str(number)), if_revision=revision)
                for number in range(9)
            ),
            return_exceptions=True,
        )

        taken = [each for each in outcomes if isinstance(each, WriteAnswer)]
        assert [each.precondition for each in taken] == ["exact"]
        assert sum(isinstance(each, Conflict) for each in outcomes) == 8

    simulate(story)


def test_many_writes_at_once_on_all_nodes_do_not_wait_for_each_other() -> None:
    """Each node hands most of them to the two others, and is asked for its votes meanwhile."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        names = [f"web/e{number}" for number in range(60)]
        puts = (Put("mode", "serial", kind=Kind.METADATA), Put("A", "1"))

        answers = await asyncio.gather(
            *(
                machines.run(at, machines.node(at).api.write(TESTER, WriteRequest(name, puts)))
                for at in ALL
                for name in names
            )
        )

        assert all(answer.acknowledged >= 2 for answer in answers)

    simulate(story)


def test_a_minority_takes_no_serial_writes_and_all_plain_ones() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        machines.cluster.network.partition(["n3"], ["n1", "n2"])

        with pytest.raises((Unavailable, OutcomeUnknown)):
            await write(machines, "n3", Put("A", "1"))

        assert (await write(machines, "n1", Put("B", "2"))).acknowledged == 2
        assert (await machines.write("n3", "web/plain", A="1")).acknowledged == 1

    simulate(story)


def proposer_of(machines: Machines) -> str:
    """The machine that proposes the writes of the environment, while it can be reached."""
    uid = machines.node("n1").node.consent.proposers(ENVIRONMENT)[0]
    return machines.factory.machine_of[uid]


def test_a_write_of_which_its_proposer_gave_no_answer_is_unknown_not_undone() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        proposer = proposer_of(machines)
        asked, other = (name for name in ALL if name != proposer)

        def is_logged() -> bool:
            head = machines.node(proposer).store.head(ENVIRONMENT)
            return head is not None and "A" in head.environment.variables

        writing = asyncio.ensure_future(write(machines, asked, Put("A", "1")))
        while not is_logged():  # noqa: ASYNC110 - before the answer is on its way
            await asyncio.sleep(0.00001)
        machines.cluster.network.partition([asked], [proposer, other])

        with pytest.raises(OutcomeUnknown, match="handed to another node"):
            await writing

        machines.cluster.network.heal()
        await machines.until(lambda: machines.shows(asked, ENVIRONMENT, "A", "1"), 30.0)

    simulate(story)


def test_writes_that_wait_for_each_other_all_end_in_the_time_of_one() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        for name in ("n1", "n2"):
            machines.cluster.crash(machines.machine(name))
        began_s = machines.loop.time()

        outcomes = await asyncio.gather(
            *(write(machines, "n3", Put("A", str(number))) for number in range(5)),
            return_exceptions=True,
        )

        assert all(isinstance(each, Unavailable) for each in outcomes)
        assert machines.loop.time() - began_s < 6

    simulate(story)


def test_any_one_node_may_be_lost() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)

        for number, name in enumerate(ALL):
            other = ALL[(number + 1) % 3]
            machines.cluster.crash(machines.machine(name))
            answer = await write(machines, other, Put(f"V{number}", "x"))
            assert answer.acknowledged == 2
            await machines.start(name)

        await machines.until(machines.equal, 30.0)
        assert all(machines.shows(n, ENVIRONMENT, f"V{v}", "x") for n in ALL for v in range(3))

    simulate(story)


def test_a_refusal_is_never_older_than_the_question() -> None:
    """n3 does not have the newest state yet, and its answer is right all the same."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await write(machines, "n1", Put("A", "1"))
        network = machines.cluster.network
        network.partition(["n3"], ["n1"])
        newest = await write(machines, "n2", Put("A", "2"))

        answer = await write(machines, "n3", Put("A", "3"), if_revision=newest.revision)

        assert answer.precondition == "exact"

    simulate(story)


def test_a_repeat_under_an_operation_id_happens_once_on_whichever_node() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        first = await write(machines, "n1", Put("A", "1"), operation="op-1")
        await write(machines, "n2", Put("A", "2"))

        again = [await write(machines, n, Put("A", "1"), operation="op-1") for n in ALL]

        assert {each.stamp for each in again} == {first.stamp}
        assert machines.shows("n1", ENVIRONMENT, "A", "2")

    simulate(story)


def test_what_an_environment_holds_goes_on_when_it_becomes_serial_and_plain_again() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, A="1", B="2")
        await make_serial(machines, "n2")
        await write(machines, "n3", Put("B", "3"))
        plain = await make_plain(machines, "n1")
        await machines.until(lambda: all(shows_stamp(machines, n, plain.stamp) for n in ALL))

        answer = await machines.write("n2", ENVIRONMENT, C="4")

        assert answer.precondition == ""
        shown = {"A": "1", "B": "3", "C": "4"}
        await machines.until(
            lambda: all(machines.shows(n, ENVIRONMENT, *v) for n in ALL for v in shown.items())
        )

    simulate(story)


def test_the_history_says_why_a_change_of_the_mode_states_all_again() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, A="1", B="2")
        await make_serial(machines, "n2")
        await make_plain(machines, "n2")
        api = machines.node("n2").api

        page = await machines.run("n2", api.history(TESTER, HistoryRequest(ENVIRONMENT)))

        assert [(each.message, len(each.changes)) for each in page.commits] == [
            ("plain from here on; all is stated again", 3),
            ("serial from here on; all is stated again", 3),
            ("", 2),
        ]

    simulate(story)


def test_a_plain_write_that_did_not_know_of_the_change_is_a_conflict_on_record() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.until(machines.equal, 30.0)
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await make_serial(machines, "n1", known_to=2)
        await machines.write("n3", ENVIRONMENT, A="late", NEW="late")
        machines.cluster.network.heal()

        await machines.until(machines.equal, 30.0)

        assert all(machines.shows(name, ENVIRONMENT, "A", "1") for name in ALL)
        assert all(machines.shows(name, ENVIRONMENT, "NEW", None) for name in ALL)
        lost = {(name, lost) for _, name, _, lost in machines.conflicts("n2")}
        assert lost == {("A", "late"), ("NEW", "late")}

    simulate(story)


def test_what_was_acknowledged_before_goes_on_when_an_environment_becomes_serial() -> None:
    """The node that proposes has not heard of it yet."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.until(machines.equal, 30.0)
        proposer = proposer_of(machines)
        writer = next(name for name in ALL if name != proposer)
        machines.cluster.network.partition([proposer], [writer])
        assert (await machines.write(writer, ENVIRONMENT, A="2")).acknowledged == 2

        await make_serial(machines, proposer, known_to=2)
        machines.cluster.network.heal()
        await machines.until(machines.equal, 30.0)

        assert all(machines.shows(name, ENVIRONMENT, "A", "2") for name in ALL)
        assert machines.conflicts(proposer) == []

    simulate(story)


def test_a_deleted_serial_environment_is_plain_when_it_comes_again() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await write(machines, "n1", Put("A", "1"))
        node = machines.node("n2")
        await machines.run("n2", node.api.delete(TESTER, DeleteRequest(ENVIRONMENT)))

        await machines.until(lambda: machines.shows("n3", ENVIRONMENT, "A", None))
        answer = await machines.write("n3", ENVIRONMENT, B="2")

        assert answer.precondition == ""
        await machines.until(machines.equal, 30.0)

    simulate(story)


def test_an_unset_of_what_is_not_there_is_refused() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)

        with pytest.raises(NotFound):
            await write(machines, "n2", unset="NONE")

    simulate(story)


def chain_on(machines: Machines, name: str) -> list[Commit]:
    """The commits of the chain there, oldest first, after holding that each follows the last."""
    commits = machines.node(name).store.commits(ENVIRONMENT, None, 100)
    chain = [commit for commit in reversed(commits) if commit.follows != ZERO]
    assert [each.follows for each in chain[1:]] == [each.stamp for each in chain[:-1]]
    return chain


def test_what_was_chosen_is_not_replaced_where_its_proposer_could_not_log_it() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await write(machines, "n1", Put("A", "1"))
        proposer = machines.node("n1").node.consent.proposers(ENVIRONMENT)[0]
        name = machines.factory.machine_of[proposer]
        machines.factory.platters[name].full = True
        with pytest.raises(OutcomeUnknown):
            await write(machines, name, Put("A", "2"), operation="op-2")
        machines.factory.platters[name].full = False

        await write(machines, name, Put("B", "3"))

        chain = chain_on(machines, name)
        assert [each.operation for each in chain if each.operation == "op-2"] == ["op-2"]
        await machines.until(lambda: all(machines.shows(n, ENVIRONMENT, "A", "2") for n in ALL))

    simulate(story)


def test_a_settled_conflict_moves_the_chain_on_though_it_changes_nothing() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.until(machines.equal, 30.0)
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await make_serial(machines, "n1", known_to=2)
        await machines.write("n3", ENVIRONMENT, A="late")
        machines.cluster.network.heal()
        await machines.until(machines.equal, 30.0)
        keep = ResolveRequest(ENVIRONMENT, "A", take=KEPT)

        settled = await machines.run("n2", machines.node("n2").api.resolve(TESTER, keep))
        written = await write(machines, "n1", Put("B", "2"))
        await machines.until(lambda: shows_stamp(machines, "n1", written.stamp))

        assert [each.stamp.hex() for each in chain_on(machines, "n1")][1:] == [
            settled.stamp,
            written.stamp,
        ]
        assert machines.conflicts("n1") == []
        assert machines.shows("n1", ENVIRONMENT, "A", "1")

    simulate(story)


def _accepted(registers: dict[str, Acceptor]) -> bytes:
    proposal = registers.get(ENVIRONMENT, Acceptor()).accepted
    return proposal.value if proposal else b""


def test_what_was_chosen_survives_the_crash_of_its_proposer() -> None:
    """The acceptors hold it; whoever writes next finishes it first."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await write(machines, "n1", Put("A", "1"))
        proposer = machines.node("n1").node.consent.proposers(ENVIRONMENT)[0]
        name = machines.factory.machine_of[proposer]
        others = [each for each in ALL if each != name]
        machines.factory.set_slow(machines.machine(name), slow=True)
        writing = asyncio.ensure_future(write(machines, name, Put("A", "2"), operation="op"))
        held = [machines.factory.directories[each].registers for each in others]
        await machines.until(lambda: all(b"op" in _accepted(each) for each in held))
        machines.cluster.crash(machines.machine(name))
        with pytest.raises(NodeDied):
            await writing

        repeated = await write(machines, others[0], Put("A", "2"), operation="op")

        history = await machines.history(others[0], ENVIRONMENT)
        assert history.count(repeated.stamp) == 1
        assert machines.shows(others[0], ENVIRONMENT, "A", "2")

    simulate(story)


def test_what_a_dead_proposer_left_is_finished_though_nobody_asks() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        name = proposer_of(machines)
        others = [each for each in ALL if each != name]
        machines.factory.set_slow(machines.machine(name), slow=True)
        writing = asyncio.ensure_future(write(machines, name, Put("A", "2"), operation="op"))
        held = [machines.factory.directories[each].registers for each in others]
        await machines.until(lambda: all(b"op" in _accepted(each) for each in held))
        machines.cluster.crash(machines.machine(name))
        with pytest.raises(NodeDied):
            await writing

        await machines.until(
            lambda: all(machines.shows(n, ENVIRONMENT, "A", "2") for n in others), 30
        )

    simulate(story)


def test_a_write_without_an_operation_id_that_another_node_finished_is_answered() -> None:
    """The system's own writes have none."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        revision = (await make_serial(machines)).revision
        proposer = proposer_of(machines)
        others = [each for each in ALL if each != proposer]
        held = [machines.factory.directories[each].registers for each in others]
        for other in others:
            machines.cluster.network.cut(other, proposer)
        request = WriteRequest(ENVIRONMENT, (Put("A", "1"),), if_revision=revision)
        serial = machines.node(proposer).node.consent.serial
        writing = asyncio.ensure_future(machines.run(proposer, serial.propose(request, "envd")))
        await machines.until(lambda: all(_accepted(each) for each in held))
        finishing = machines.node(others[0]).node.consent.serial
        put = WriteRequest(ENVIRONMENT, (Put("B", "2"),))
        await machines.run(others[0], finishing.propose(put, "envd"))
        await asyncio.sleep(1.5)  # until the answers to the proposal are waited for no longer
        machines.cluster.network.heal()

        assert (await writing).precondition == "exact"

        assert [len(each.changes) for each in chain_on(machines, proposer)][1:] == [1, 1]

    simulate(story)


def test_a_voter_that_leaves_for_good_is_replaced_before() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await machines.run("n1", machines.node("n1").leave())
        machines.cluster.crash(machines.machine("n1"))
        del machines.cluster.machines["n1"]

        answer = await write(machines, "n2", Put("A", "1"))

        assert answer.acknowledged >= 1
        topology = machines.node("n2").node.consent.electorate.current
        assert topology is not None
        assert len(topology.voters) == 1

    simulate(story)


def test_a_voter_is_replaced_though_the_clock_of_the_first_one_is_wrong() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        topology = machines.node("n1").node.consent.electorate.current
        assert topology is not None
        first, second, lost = (machines.factory.machine_of[uid] for uid in topology.voters)
        machines.machine(first).clock.jump(3_600_000)
        machines.cluster.crash(machines.machine(lost))

        def is_replaced() -> bool:
            current = machines.node(second).node.consent.electorate.current
            return current is not None and topology.voters[2] not in current.quorum.members

        await machines.until(is_replaced, 120)

    simulate(story, 4)


def test_what_one_voter_chose_waits_for_a_second_copy_and_says_so_where_there_is_none() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines, 1)
        await make_serial(machines)
        name = proposer_of(machines)
        other = next(each for each in machines.cluster.nodes if each != name)

        copied = await write(machines, name, Put("A", "1"))
        machines.cluster.network.partition([name], [other])
        alone = await write(machines, name, Put("A", "2"))
        strict = WriteRequest(ENVIRONMENT, (Put("A", "3"),), durability=Durability.STRICT)
        writing = machines.run(name, machines.node(name).api.write(TESTER, strict))
        with pytest.raises((OutcomeUnknown, Unavailable), match="no other storage node"):
            await writing

        assert (copied.acknowledged, copied.detached) == (2, False)
        assert (alone.acknowledged, alone.detached) == (1, True)

    simulate(story, 2)


def test_five_nodes_come_to_have_five_voters() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines, 5)
        await make_serial(machines)
        for name in ("n1", "n2"):
            machines.cluster.crash(machines.machine(name))

        assert (await write(machines, "n3", Put("A", "1"))).acknowledged == 3

    simulate(story, 5)


def test_a_strong_read_shows_what_a_majority_chose_and_a_minority_gives_none() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        machines.cluster.network.partition(["n3"], ["n1"])
        await write(machines, "n2", Put("A", "1"))
        strong = ReadRequest(ENVIRONMENT, reveal=True, consistency=Consistency.STRONG)

        shown = await machines.run("n3", machines.node("n3").api.get(TESTER, strong))

        assert shown.variables["A"].value == "1"
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        with pytest.raises(Unavailable, match="no majority"):
            await machines.run("n3", machines.node("n3").api.get(TESTER, strong))

    simulate(story)


def test_strong_reads_are_answered_while_others_write() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        strong = ReadRequest(ENVIRONMENT, reveal=True, consistency=Consistency.STRONG)
        until_s = machines.loop.time() + 1

        async def keep_writing(name: str) -> None:
            while machines.loop.time() < until_s:
                await write(machines, name, Put("A", name))

        async def keep_reading(name: str) -> None:
            while machines.loop.time() < until_s:
                shown = await machines.run(name, machines.node(name).api.get(TESTER, strong))
                assert shown.level is Consistency.STRONG

        await asyncio.gather(*(work(name) for work in (keep_writing, keep_reading) for name in ALL))

    simulate(story)


def test_a_strong_read_of_a_plain_environment_is_refused_with_what_to_do() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", "web/plain", A="1")
        strong = ReadRequest("web/plain", consistency=Consistency.STRONG)

        with pytest.raises(Unsupported, match="plain"):
            await machines.run("n1", machines.node("n1").api.get(TESTER, strong))

    simulate(story)


def test_what_is_left_of_a_cluster_goes_on_once_it_is_recovered() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        await make_serial(machines)
        await write(machines, "n1", Put("A", "1"))
        await machines.until(machines.equal, 30.0)
        for name in ("n1", "n2"):
            machines.cluster.crash(machines.machine(name))
        await asyncio.sleep(30)

        cluster = machines.node("n3").api.cluster
        tried = await machines.run("n3", cluster.recover(TESTER, RecoverRequest(dry_run=True)))
        found = await machines.run("n3", cluster.recover(TESTER, RecoverRequest("n3")))

        assert (tried.majority, found.majority) == (False, True)
        assert found.epoch > tried.epoch + 100
        assert (await write(machines, "n3", Put("A", "2"))).acknowledged == 1
        await machines.start("n1", "n2")
        await machines.until(machines.equal, 60.0)
        assert all(machines.shows(name, ENVIRONMENT, "A", "2") for name in ALL)
        await voting_again(machines)

    simulate(story)


def test_nothing_is_recovered_by_a_node_that_has_not_met_the_others_yet() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        machines.cluster.crash(machines.machine("n3"))
        await machines.cluster.start(machines.machine("n3"))

        recovering = machines.node("n3").api.cluster.recover(TESTER, RecoverRequest("n3"))
        with pytest.raises(Conflict, match="nothing is lost"):
            await machines.run("n3", recovering)

    simulate(story)


def test_nothing_is_recovered_while_a_majority_is_there() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)

        for dry_run in (True, False):
            request = RecoverRequest(dry_run=dry_run)
            with pytest.raises(Conflict, match="nothing is lost"):
                await machines.run("n3", machines.node("n3").api.cluster.recover(TESTER, request))

    simulate(story)


def test_what_a_minority_accepted_takes_back_no_plain_write() -> None:
    """One acceptor holds the first commit of a chain; all others went on with plain writes."""

    async def story(machines: Machines) -> None:
        await voting(machines)
        await machines.write("n1", ENVIRONMENT, X="1")
        await machines.until(machines.equal, 30.0)
        consent, other = machines.node("n1").node.consent, machines.node("n3").node.consent
        head = machines.node("n1").node.coordinator.drafter.head(ENVIRONMENT)
        opening = WriteRequest(ENVIRONMENT, (Put("mode", "serial", kind=Kind.METADATA),))
        draft = machines.node("n1").node.coordinator.draft(Wish(opening, "ann", True), head)
        assert draft is not None
        proposal = Proposal(
            Ballot(1, machines.node("n1").uid),
            draft.commit.follows,
            records.encode_commit(draft.commit),
        )
        epoch = consent.electorate.epoch
        accepting = other._acceptor.accept(ENVIRONMENT, proposal, epoch, machines.node("n1").uid)
        assert (await machines.run("n3", accepting)).verdict is Verdict.YES
        await machines.write("n1", ENVIRONMENT, X="2")

        await asyncio.sleep(60)

        assert all(machines.shows(name, ENVIRONMENT, "X", "2") for name in ALL)
        assert machines.conflicts("n2") == []
        await make_serial(machines, "n3")
        assert all(machines.shows(name, ENVIRONMENT, "X", "2") for name in ALL)

    simulate(story)
