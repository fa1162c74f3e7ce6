"""Environments, leases and questions as the reconciler of a node has them."""

from __future__ import annotations

import asyncio

import pytest

from envd.core.errors import Conflict, EnvdError, InvalidRequest, Unavailable, Unsupported
from envd.core.requests import Put, Unset, WriteRequest
from envd.core.stamp import Stamp
from envd.node.calls import UNDECIDED
from envd.node.routing import NO_HOLDER
from envd.node.watch import WatchHub
from envd.sync.ports import Environments, Held, Leading, LocalState
from tests.node.machines import Machines, simulate
from tests.node.placed import follow, placed, table
from tests.node.syncing import Names, syncing
from tests.node.test_serial import voting

ENVIRONMENT = "web/prod"
CANARY = "canary-1f0c"
SPREAD = {f"web/{number:02}": (f"n{1 + number % 3}",) for number in range(12)}


def environments(machines: Machines, name: str) -> Environments:
    return syncing(machines, name).environments


async def state(machines: Machines, name: str, environment: str = ENVIRONMENT) -> LocalState:
    return await machines.run(name, environments(machines, name).read(environment))


async def names(machines: Machines, name: str, prefix: str = "") -> list[str]:
    return list(await machines.run(name, environments(machines, name).names(prefix)))


# -- states ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n1", "n4"])
def test_a_state_has_stamps_values_and_flags_wherever_it_is_read(name: str) -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        puts = (Put("A", "1"), Put("KEY", CANARY, secret=True))
        port = environments(machines, name)
        first = await machines.run(name, port.write(WriteRequest(ENVIRONMENT, puts), "sync"))
        second = await machines.write("n1", ENVIRONMENT, A="2")

        found = await state(machines, name)

        assert found.revision == second.revision
        assert {key: (one.value, one.secret) for key, one in found.variables.items()} == {
            "A": ("2", False),
            "KEY": (CANARY, True),
        }
        assert found.variables["A"].stamp == Stamp.from_hex(second.stamp)
        assert found.variables["KEY"].stamp == Stamp.from_hex(first.stamp)
        assert CANARY not in repr(found)
        commits = machines.node("n1").store.commits(ENVIRONMENT, None, 9)
        assert [commit.author for commit in commits] == ["tester", "sync"]

    simulate(story, 4)


@pytest.mark.parametrize("name", ["n1", "n4"])
def test_what_does_not_exist_is_empty(name: str) -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        never = await state(machines, name)
        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.delete("n1", ENVIRONMENT)

        assert await state(machines, name) == never == LocalState(ENVIRONMENT, "", {})

    simulate(story, 4)


def test_a_holder_tells_removed_variables_from_those_that_did_not_come_to_it_yet() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        set_ = Stamp.from_hex((await machines.write("n1", ENVIRONMENT, A="1", B="1")).stamp)
        request = WriteRequest(ENVIRONMENT, unsets=(Unset("A"),))
        await machines.run("n1", environments(machines, "n1").write(request, "sync"))
        unset = await state(machines, "n1")
        deleted = Stamp.from_hex((await machines.delete("n1", ENVIRONMENT)).stamp)
        gone = await state(machines, "n1")

        assert (unset.has_seen("A", set_), unset.has_seen("C", set_)) == (True, False)
        assert (gone.has_seen("B", set_), gone.has_seen("B", deleted)) == (True, True)

    simulate(story, 1)


def test_a_write_may_have_as_many_operations_as_an_environment_has_variables() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        puts = tuple(Put(f"K{number}", "1") for number in range(2000))
        port = environments(machines, "n1")

        await machines.run("n1", port.write(WriteRequest(ENVIRONMENT, puts), "sync"))

        assert len((await state(machines, "n1")).variables) == 2000

    simulate(story, 1)


def test_a_write_upon_a_state_that_moved_on_is_refused() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        stale = (await machines.write("n1", ENVIRONMENT, A="1")).revision
        await machines.write("n1", ENVIRONMENT, A="2")
        request = WriteRequest(ENVIRONMENT, (Put("A", "3"),), if_revision=stale)

        with pytest.raises(Conflict):
            await machines.run("n4", environments(machines, "n4").write(request, "sync"))

    simulate(story, 4)


def test_without_a_holder_nothing_is_read_and_nothing_written_blind() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        machines.cluster.network.partition(["n4"], ["n1", "n2", "n3"])
        await asyncio.sleep(5)
        port = environments(machines, "n4")
        request = WriteRequest(ENVIRONMENT, (Put("A", "1"),))

        for asked in (port.read(ENVIRONMENT), port.write(request, "sync"), port.names("web")):
            with pytest.raises(Unavailable) as refused:
                await machines.run("n4", asked)
            assert refused.value.reason == NO_HOLDER

        assert machines.node("n4").store.visible(ENVIRONMENT) is None

    simulate(story, 4)


@pytest.mark.parametrize("name", ["sys/sync/web", "sys/topology", "Web"])
def test_the_systems_own_are_no_environments(name: str) -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        request = WriteRequest(name, (Put("A", "1"),))

        for node in ("n1", "n4"):
            port = environments(machines, node)
            for asked in (port.read(name), port.write(request, "sync"), port.names(name)):
                with pytest.raises(InvalidRequest):
                    await machines.run(node, asked)

    simulate(story, 4)


def test_names_are_those_of_all_nodes_and_of_more_than_one_page() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        for name in SPREAD:
            await machines.write("n1", name, A="1")
        for number in range(1010):
            await machines.write("n1", f"many/{number:04}", A="1")
        await asyncio.sleep(1)  # Each holder has all of it by then.

        assert await names(machines, "n4", "web") == list(SPREAD)
        assert await names(machines, "n1", "web/03") == ["web/03"]
        assert len(await names(machines, "n4")) == 1010 + len(SPREAD)
        assert len(await names(machines, "n2", "many")) == 1010

    simulate(story, 4)


# -- changes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("partitioned", [False, True])
def test_changes_are_told_by_name_wherever_they_are_made(partitioned: bool) -> None:
    async def story(machines: Machines) -> None:
        await (placed(machines, SPREAD) if partitioned else machines.start())
        await machines.write("n1", "web/00", A="before")
        node = "n4" if partitioned else "n2"
        await asyncio.sleep(1)
        followed = Names(machines, node, "web")
        await asyncio.sleep(2)

        for name in SPREAD:
            await machines.write("n1", name, A="1")
        await machines.write("n1", "website", A="1")
        await machines.delete("n1", "web/05")
        await machines.until(lambda: followed.told.count("web/05") == 2, 5.0)
        await followed.end()

        assert followed.told == [*SPREAD, "web/05"]

    simulate(story, 4)


def test_after_a_node_that_told_has_died_it_says_so_and_goes_on() -> None:
    async def story(machines: Machines) -> None:
        rows = dict.fromkeys(SPREAD, ("n1", "n2"))
        await placed(machines, rows, ("n1", "n2"))
        followed = Names(machines, "n4", "web")
        await asyncio.sleep(2)
        await machines.write("n2", "web/00", A="1")
        await machines.until(lambda: followed.told == ["web/00"], 5.0)

        machines.cluster.crash(machines.machine("n1"))
        await machines.until(lambda: "" in followed.told, 60.0)
        await machines.write("n2", "web/01", A="1")
        await machines.until(lambda: "web/01" in followed.told, 10.0)
        await followed.end()

        assert set(followed.told) == {"web/00", "web/01", ""}

    simulate(story, 4)


def test_when_partitions_come_to_be_changes_are_told_on() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        for each in machines.cluster.nodes.values():
            each.node.holdings.follow(None)
        followed = Names(machines, "n4", "web")
        await asyncio.sleep(1)
        await machines.write("n1", "web/00", A="1")
        await machines.until(lambda: followed.told == ["web/00"])

        follow(machines, table(machines, SPREAD))
        await machines.until(lambda: "" in followed.told, 5.0)
        await asyncio.sleep(2)
        await machines.write("n1", "web/01", A="1")
        await machines.until(lambda: "web/01" in followed.told, 5.0)
        await followed.end()

    simulate(story, 4)


def test_an_agent_is_told_of_all() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        followed = Names(machines, "n3")
        await asyncio.sleep(1)

        await machines.write("n1", ENVIRONMENT, A="1")
        await machines.until(lambda: followed.told == [ENVIRONMENT], 5.0)
        await followed.end()

        assert (await state(machines, "n3")).variables["A"].value == "1"
        assert await names(machines, "n3") == [ENVIRONMENT]

    simulate(story, 3)


def test_once_nobody_takes_them_no_watch_is_left() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        n4 = machines.node("n4")
        hub = WatchHub(n4.store, n4.uid)
        n4.node.watches(hub)
        followed = Names(machines, "n4", "web")
        await asyncio.sleep(2)
        before = hub.open_watches

        await followed.end()

        assert (before, hub.open_watches) == (1, 0)

    simulate(story, 4)


# -- leading -----------------------------------------------------------------------------------

TTL_S = 3.0


class Led:
    """Who led when, of all machines that try."""

    def __init__(self, machines: Machines, *names: str) -> None:
        self.now: dict[str, Held] = {}
        self.tokens: list[int] = []
        self._machines = machines
        self._tasks = [
            asyncio.ensure_future(machines.run(name, self._lead(name))) for name in names
        ]

    async def _lead(self, name: str) -> None:
        leading: Leading = syncing(self._machines, name).leading

        async def work(held: Held) -> None:
            assert not self.now
            self.now[name] = held
            self.tokens.append(held.token)
            try:
                await asyncio.Event().wait()
            finally:
                del self.now[name]

        await leading.lead("web", TTL_S, work)

    async def leader(self) -> str:
        """Wait until one leads."""
        await self._machines.until(lambda: bool(self.now), 60.0)
        return next(iter(self.now))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def told(machines: Machines, name: str) -> tuple[str, int]:
    return await machines.run(name, syncing(machines, name).leading.leader("web"))


def test_one_leads_every_node_knows_and_when_it_dies_another_one_does() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        assert await told(machines, "n1") == ("", 0)
        led = Led(machines, "n1", "n2", "n3")
        first = await led.leader()
        await asyncio.sleep(1)
        for name in ("n1", "n2", "n3"):
            assert await told(machines, name) == (first, machines.node(first).uid)
        assert led.now[first] == Held("web", 1)

        machines.cluster.crash(machines.machine(first))
        led.now.clear()
        second = await led.leader()
        await asyncio.sleep(1)

        assert second != first
        assert led.tokens == [1, 2]
        assert (await told(machines, second))[0] == second
        await led.end()

    simulate(story)


def test_a_leader_in_a_minority_stops_before_another_one_begins() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        led = Led(machines, "n1", "n2", "n3")
        first = await led.leader()
        others = [name for name in ("n1", "n2", "n3") if name != first]
        machines.cluster.network.partition([first], others)

        await machines.until(lambda: first not in led.now, 10.0)
        second = await led.leader()
        await asyncio.sleep(20)

        assert second in others
        assert list(led.now) == [second]
        assert await told(machines, first) == ("", 0)
        await led.end()

    simulate(story)


def test_where_there_is_no_majority_nobody_leads() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        machines.cluster.network.partition(["n2"], ["n3"])
        led = Led(machines, "n1", "n2", "n3")

        await asyncio.sleep(60)

        assert led.tokens == []
        await led.end()

    simulate(story)


def test_an_agent_never_leads() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        led = Led(machines, "n3")

        await asyncio.sleep(30)

        assert led.tokens == []
        await led.end()

    simulate(story, 3)


@pytest.mark.parametrize("name", ["", "a/", "Web", "web prod", "x" * 250])
def test_what_can_not_be_the_name_of_a_lease_is_refused(name: str) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        leading = syncing(machines, "n1").leading

        async def work(_: Held) -> None:
            raise AssertionError

        for asked in (leading.lead(name, TTL_S, work), leading.leader(name)):
            with pytest.raises(InvalidRequest):
                await machines.run("n1", asked)

    simulate(story, 1)


# -- questions to the reconciler of another node -------------------------------------------------


async def echo(method: str, identity: str, body: bytes) -> bytes:
    if method == "refuse":
        raise Conflict("the plan is another one by now", hint="plan again", reason="PLAN_MOVED")
    return f"{method} for {identity}: ".encode() + body


async def ask(machines: Machines, name: str, of: str, method: str) -> bytes:
    asked = syncing(machines, name).peers.ask(
        machines.node(of).uid, method, "ann", b"{}", patience_s=600
    )
    return await machines.run(name, asked)


@pytest.mark.parametrize("of", ["n1", "n2"])
def test_a_node_answers_for_its_reconciler(of: str) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        syncing(machines, of).peers.handle = echo

        assert await ask(machines, "n1", of, "plan") == b"plan for ann: {}"
        with pytest.raises(Conflict) as refused:
            await ask(machines, "n1", of, "refuse")
        assert (refused.value.reason, refused.value.hint) == ("PLAN_MOVED", "plan again")

    simulate(story, 2)


def test_a_node_without_a_reconciler_says_so() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        with pytest.raises(Unsupported) as refused:
            await ask(machines, "n1", "n2", "plan")

        assert refused.value.reason == "NO_RECONCILER"

    simulate(story, 2)


def test_what_takes_long_is_waited_for_and_holds_back_no_other_question() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        done = asyncio.Event()

        async def handle(method: str, _: str, __: bytes) -> bytes:
            if method == "apply":
                await done.wait()
            return method.encode()

        syncing(machines, "n2").peers.handle = handle
        slow = [asyncio.ensure_future(ask(machines, "n1", "n2", "apply")) for _ in range(20)]
        await asyncio.sleep(60)

        assert await ask(machines, "n1", "n2", "status") == b"status"
        assert not any(task.done() for task in slow)
        done.set()
        assert await asyncio.gather(*slow) == [b"apply"] * 20

    simulate(story, 2)


def test_of_a_node_that_dies_over_it_nobody_knows_what_it_did() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        begun = asyncio.Event()

        async def handle(_: str, __: str, ___: bytes) -> bytes:
            begun.set()
            await asyncio.Event().wait()
            return b""

        syncing(machines, "n2").peers.handle = handle
        asked = asyncio.ensure_future(ask(machines, "n1", "n2", "apply"))
        await begun.wait()

        machines.cluster.crash(machines.machine("n2"))
        with pytest.raises(Unavailable) as failed:
            await asked

        assert failed.value.reason in UNDECIDED

    simulate(story, 2)


def test_an_error_that_peers_do_not_know_comes_as_unavailable_with_its_reason() -> None:
    class Odd(EnvdError):
        default_reason = "ODD"

    async def handle(_: str, __: str, ___: bytes) -> bytes:
        raise Odd("the store is odd", hint="look at it")

    async def story(machines: Machines) -> None:
        await machines.start()
        syncing(machines, "n2").peers.handle = handle

        with pytest.raises(Unavailable) as failed:
            await ask(machines, "n1", "n2", "check")

        assert (failed.value.reason, failed.value.message) == ("ODD", "the store is odd")

    simulate(story, 2)
