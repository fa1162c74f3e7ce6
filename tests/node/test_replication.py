"""What several nodes make of writes, cuts, crashes and lost disks, in virtual time."""

from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from chaos.sim.nodes import Settings
from envd.core.answers import Changed
from envd.core.errors import Unavailable
from envd.core.members import MemberState
from envd.core.requests import Durability, WatchRequest
from tests.node.machines import TESTER, Machines, simulate

ALL = ("n1", "n2", "n3")


def test_a_write_on_one_node_is_seen_on_every_other_within_a_second() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        answer = await machines.write("n1", "web/prod", PORT="8080")

        assert (answer.acknowledged, answer.detached) == (2, False)
        await machines.until(
            lambda: all(machines.shows(name, "web/prod", "PORT", "8080") for name in ALL)
        )
        revisions = {machines.node(name).store.visible("web/prod").revision for name in ALL}  # type: ignore[union-attr]
        assert revisions == {bytes.fromhex(answer.revision)}

    simulate(story)


def test_both_sides_of_a_cut_take_writes_and_agree_after_it() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", PORT="1", HOST="a", GONE="x")
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(5)

        alone = await machines.write("n1", "web/prod", PORT="2")
        others = await machines.write("n2", "web/prod", PORT="3", unset="GONE")
        machines.cluster.network.heal()

        assert (alone.acknowledged, alone.detached) == (1, True)
        assert (others.acknowledged, others.detached) == (2, False)
        await machines.until(machines.equal, 3.0)
        assert {await machines.value(name, "web/prod", "PORT") for name in ALL} == {"3"}
        assert {await machines.value(name, "web/prod", "GONE") for name in ALL} == {None}
        histories = [await machines.history(name, "web/prod") for name in ALL]
        assert histories[0] == histories[1] == histories[2]
        assert len(histories[0]) == 3
        expected = [("web/prod", "PORT", "3", "2")]
        assert [machines.conflicts(name) for name in ALL] == [expected] * 3

    simulate(story)


def test_a_delete_on_one_side_and_a_write_on_the_other_are_one_conflict_everywhere() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", PORT="1")
        await machines.until(machines.equal)
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(5)

        await machines.write("n1", "web/prod", PORT="2")
        await asyncio.sleep(0.1)
        await machines.delete("n2", "web/prod")
        machines.cluster.network.heal()
        await machines.until(machines.equal, 5.0)

        assert [machines.conflicts(name) for name in ALL] == [[("web/prod", "PORT", None, "2")]] * 3
        assert all(not machines.node(name).store.environments("", "", 10) for name in ALL)

    simulate(story)


def test_what_a_node_can_not_ship_itself_is_relayed_by_another() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n3"])
        await asyncio.sleep(8)

        answer = await machines.write("n1", "web/prod", PORT="1")

        assert not answer.detached
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"), 3.0)

    simulate(story)


def test_the_commits_of_a_node_that_died_reach_those_it_had_not_reached() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n3"])
        await machines.write("n1", "web/prod", PORT="1")
        machines.cluster.crash(machines.machine("n1"))

        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"), 3.0)
        assert machines.equal()

    simulate(story)


def test_a_node_that_was_killed_comes_back_and_gets_what_it_missed() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", PORT="1")
        machines.cluster.crash(machines.machine("n2"))
        await machines.write("n3", "web/prod", PORT="2")

        await machines.cluster.start(machines.machine("n2"))

        await machines.until(lambda: len(machines.cluster.nodes) == 3 and machines.equal(), 5.0)
        assert await machines.value("n2", "web/prod", "PORT") == "2"

    simulate(story)


def test_a_new_node_gets_everything_also_what_the_logs_no_longer_hold() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        for number in range(60):
            await machines.write("n1", f"team/app-{number % 20}", PORT=str(number))

        await machines.start("n3")

        await machines.until(machines.equal, 5.0)
        repaired = machines.node("n3").node.repairer.figures
        assert repaired.pulls["catch_up"] >= 1
        assert await machines.value("n3", "team/app-7", "PORT") == "47"
        assert await machines.history("n3", "team/app-7") == await machines.history(
            "n1", "team/app-7"
        )

    simulate(story, settings=Settings(kept=10))


def test_a_disk_that_went_back_in_time_makes_a_new_node_that_loses_nothing() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        saving = asyncio.ensure_future(machines.factory.keep_saving())
        await machines.write("n1", "web/prod", PORT="1")
        await asyncio.sleep(6)
        saving.cancel()
        await machines.write("n1", "web/prod", PORT="2")
        await machines.until(machines.equal)
        machines.cluster.crash(machines.machine("n1"))
        machines.factory.go_back(machines.machine("n1"))
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await machines.cluster.start(machines.machine("n1"))
        detached = await machines.write("n1", "web/other", AFTER="the restore")

        machines.cluster.network.heal()

        assert detached.detached
        await machines.until(lambda: len(machines.cluster.nodes) == 3 and machines.equal(), 20.0)
        assert machines.renewed == ["n1"]
        assert {await machines.value(name, "web/prod", "PORT") for name in ALL} == {"2"}
        assert {await machines.value(name, "web/other", "AFTER") for name in ALL} == {"the restore"}

        # Its earlier identity has the same address: it is struck, and not dialed time after time.
        dials = machines.trace.counts["dial"]
        await asyncio.sleep(60)
        assert machines.trace.counts["dial"] - dials < 60  # by all
        for name in ALL:
            members = machines.node(name).node.membership.members()
            assert {each.state for each in members} <= {MemberState.ALIVE, MemberState.GONE}

    simulate(story)


def test_the_holder_of_a_copied_directory_is_not_struck_when_it_is_down() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2", "n3")
        uid = machines.node("n2").uid
        factory = machines.factory
        factory.directories["n4"] = deepcopy(factory.directories["n2"])
        factory.platters["n4"] = deepcopy(factory.platters["n2"])
        machines.cluster.add("n4")
        await machines.cluster.start(machines.machine("n4"))
        await machines.until(lambda: machines.renewed == ["n2"], 20.0)
        await machines.until(lambda: len(machines.cluster.nodes) == 4, 20.0)
        assert machines.node("n4").uid == uid  # The copy has the later generation.

        def is_known(name: str) -> bool:
            known = machines.node(name).node.membership.member(uid)
            return known is not None and known.name == "n4" and known.reachable

        await machines.until(lambda: is_known("n1") and is_known("n2"), 20.0)
        machines.cluster.crash(machines.machine("n4"))
        await asyncio.sleep(60)

        for name in ("n1", "n2"):
            known = machines.node(name).node.membership.member(uid)
            assert known is not None
            assert known.state is MemberState.DOWN

    simulate(story)


def test_an_address_where_another_node_answers_is_seldom_dialed() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        earlier = machines.node("n3").uid
        machines.cluster.crash(machines.machine("n3"))
        machines.cluster.wipe(machines.machine("n3"))
        await machines.cluster.start(machines.machine("n3"))
        await asyncio.sleep(30)
        known = machines.node("n1").node.membership.member(earlier)
        assert known is not None
        assert known.state is MemberState.DOWN  # An empty disk can't tell what it was.

        dials = machines.trace.counts["dial"]
        await asyncio.sleep(60)
        assert machines.trace.counts["dial"] - dials < 90  # by all

    simulate(story)


def test_strict_writes_are_refused_alone_and_answered_by_two() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        both = await machines.write("n1", "web/prod", durability=Durability.STRICT, PORT="1")
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(5)

        with pytest.raises(Unavailable, match="nothing was done"):
            await machines.write("n1", "web/prod", durability=Durability.STRICT, PORT="2")

        assert both.acknowledged == 2
        assert await machines.value("n1", "web/prod", "PORT") == "1"

    simulate(story)


def test_an_operation_repeated_on_another_node_is_the_first_one() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        first = await machines.write("n1", "web/prod", operation="deploy-7", PORT="1")
        await machines.until(machines.equal)

        again = await machines.write("n2", "web/prod", operation="deploy-7", PORT="1")

        assert (again.revision, again.stamp) == (first.revision, first.stamp)
        assert len(await machines.history("n3", "web/prod")) == 1

    simulate(story)


def test_a_watch_on_one_node_is_told_of_a_write_on_another() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        told: list[str] = []

        async def watch() -> None:
            events = machines.node("n3").api.watch(TESTER, WatchRequest("web"))
            async for event in events:
                if isinstance(event, Changed):
                    told.append(event.commit.environment)
                    return

        watching = asyncio.ensure_future(machines.run("n3", watch()))
        await asyncio.sleep(0.1)
        await machines.write("n1", "web/prod", PORT="1")

        await watching
        assert told == ["web/prod"]

    simulate(story)


def test_a_node_far_ahead_of_all_others_has_a_peer_stamp_its_writes() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(2)  # Until they agree on who votes.
        machines.machine("n1").clock.jump(300_000)
        await asyncio.sleep(3)

        answer = await machines.write("n1", "web/prod", PORT="1")

        assert not answer.detached
        await machines.until(machines.equal)
        stamp_ms = int(answer.stamp[8:20], 16)
        assert abs(stamp_ms - machines.machine("n2").clock.wall_ms()) < 10_000

    simulate(story)


def test_a_node_whose_clock_was_far_ahead_has_a_peer_stamp_until_time_caught_up() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        machines.machine("n1").clock.jump(300_000)
        await asyncio.sleep(3)
        await machines.write("n1", "web/early", PORT="1")
        machines.machine("n1").clock.mend()
        machines.cluster.network.heal()
        answering = machines.node("n1").node.replication.answering
        await machines.until(lambda: len(answering()) == 2, 20.0)
        await asyncio.sleep(1)

        written = await machines.write("n1", "web/prod", PORT="2")

        assert not written.detached
        uid = f"{machines.node('n1').node.membership.me.uid:016x}"
        assert not written.stamp.endswith(uid)
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "2"))
        await asyncio.sleep(300)
        later = await machines.write("n1", "web/later", PORT="3")
        assert later.stamp.endswith(uid)

    simulate(story)


def test_a_peer_that_refuses_our_log_for_its_stamps_is_known_to_be_behind_them() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        machines.machine("n1").clock.jump(120_000)
        await asyncio.sleep(3)
        await machines.write("n1", "web/early", PORT="1")
        machines.machine("n1").clock.mend()
        links = [peer.link for peer in machines.node("n1").node.replication._peers.values()]

        machines.cluster.network.heal()

        await machines.until(lambda: any(link.finds_us_early for link in links), 20.0)
        await asyncio.sleep(150)
        assert not any(link.finds_us_early for link in links)
        assert len(links) == 2

    simulate(story)


def test_a_commit_from_the_future_waits_until_its_time_has_come() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        machines.machine("n1").clock.jump(120_000)
        await asyncio.sleep(5)
        await machines.write("n1", "web/prod", PORT="1")
        machines.cluster.network.heal()
        await asyncio.sleep(20)

        early = [machines.shows(name, "web/prod", "PORT", "1") for name in ("n2", "n3")]
        machines.machine("n1").clock.mend()

        assert early == [False, False]
        await machines.until(machines.equal, 60.0)
        assert machines.shows("n2", "web/prod", "PORT", "1")

    simulate(story)


def test_two_nodes_that_refuse_each_other_do_not_dial_without_end() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2"])
        for name in ("n1", "n2"):
            machines.machine(name).clock.jump(300_000)
        await asyncio.sleep(5)
        for name in ("n1", "n2"):
            await machines.write(name, "web/prod", WRITER=name)
            machines.machine(name).clock.mend()
        machines.cluster.network.heal()
        await asyncio.sleep(5)

        dials = machines.trace.counts["dial"]
        await asyncio.sleep(30)

        assert 10 < machines.trace.counts["dial"] - dials < 30 * 2 * 5  # five a second each
        assert not machines.equal()  # They do refuse each other.

    simulate(story, count=2)


def test_an_agent_has_a_copy_hands_writes_on_and_refuses_them_alone() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.write("n1", "web/prod", PORT="1")

        await machines.start_agent("n3")
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"))
        answer = await machines.write("n3", "web/prod", PORT="2")
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "2"))
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await asyncio.sleep(10)

        assert (answer.acknowledged, answer.detached) == (2, False)
        with pytest.raises(Unavailable, match="no storage node") as refused:
            await machines.write("n3", "web/prod", PORT="3")
        assert refused.value.reason == "NO_STORAGE_NODE"
        assert await machines.value("n3", "web/prod", "PORT") == "2"

    simulate(story)


def test_an_agent_goes_over_to_another_node_when_its_own_dies() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        fed_by = machines.node("n3").node.replication.fed_by()
        assert fed_by is not None
        machines.cluster.crash(machines.machine(fed_by.name))
        left = "n2" if fed_by.name == "n1" else "n1"

        await machines.write(left, "web/prod", PORT="1")

        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"), 10.0)

    simulate(story)


def test_no_write_waits_for_an_agent() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1")
        await machines.start_agent("n3")

        answer = await machines.write("n1", "web/prod", PORT="1")

        assert (answer.acknowledged, answer.detached) == (1, False)
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"))

    simulate(story)


def test_a_node_that_starts_alone_knows_that_it_is_not() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        for name in ALL:
            machines.cluster.crash(machines.machine(name))

        await machines.cluster.start(machines.machine("n2"))
        answer = await machines.write("n2", "web/prod", PORT="1")

        assert (answer.acknowledged, answer.detached) == (1, True)

    simulate(story)


def test_a_repeat_waits_for_a_second_copy_as_the_first_one_did() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(5)
        first = await machines.write("n1", "web/prod", operation="deploy-7", PORT="1")
        alone = await machines.write("n1", "web/prod", operation="deploy-7", PORT="1")
        machines.cluster.network.heal()
        await machines.until(machines.equal, 3.0)

        again = await machines.write("n1", "web/prod", operation="deploy-7", PORT="1")

        assert first.stamp == alone.stamp == again.stamp
        assert [each.detached for each in (first, alone, again)] == [True, True, False]
        assert again.acknowledged >= 2

    simulate(story)


def test_a_relay_passes_over_nothing_between_many_records_of_its_own() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.crash(machines.machine("n3"))
        for number in range(24):
            await machines.write("n1", f"own/app-{number}", BIG="x" * 60_000)
        await machines.write("n2", "web/prod", PORT="1")
        await machines.until(lambda: machines.shows("n1", "web/prod", "PORT", "1"), 5.0)
        machines.cluster.crash(machines.machine("n2"))
        machines.cluster.crash(machines.machine("n1"))

        await machines.cluster.start(machines.machine("n1"))
        await machines.cluster.start(machines.machine("n3"))

        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"), 10.0)

    simulate(story)


def test_what_a_node_has_by_repair_alone_reaches_who_lacks_it_on_a_busy_partition_too() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.crash(machines.machine("n4"))
        machines.cluster.crash(machines.machine("n2"))
        await machines.write("n1", "web/prod", PORT="1")
        await machines.until(lambda: machines.shows("n3", "web/prod", "PORT", "1"), 5.0)
        machines.cluster.wipe(machines.machine("n2"))
        machines.cluster.crash(machines.machine("n1"))
        for number in range(60):
            await machines.write("n3", f"fill/app-{number}", A="1")
        await machines.cluster.start(machines.machine("n2"))
        await machines.until(lambda: machines.shows("n2", "web/prod", "PORT", "1"), 60.0)
        machines.cluster.crash(machines.machine("n3"))
        await machines.cluster.start(machines.machine("n4"))

        for number in range(60):
            await machines.write("n2", "web/prod", OTHER=str(number))
            await asyncio.sleep(0.5)

        assert machines.shows("n4", "web/prod", "PORT", "1")

    simulate(story, 4, Settings(kept=20))


def test_a_joiner_that_is_cut_off_at_once_knows_that_it_is_not_alone() -> None:
    async def story(machines: Machines) -> None:
        await machines.cluster.start(machines.machine("n1"))
        await machines.cluster.start(machines.machine("n2"))
        machines.cluster.network.partition(["n1"], ["n2"])

        answer = await machines.write("n2", "web/prod", PORT="1")

        assert (answer.acknowledged, answer.detached) == (1, True)

    simulate(story, 2)
