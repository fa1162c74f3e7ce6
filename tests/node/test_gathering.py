"""Layers, lists, conflicts and exports over environments that different nodes hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    ExportedEnvironment,
    ExportGap,
    Identity,
    ListPage,
)
from envd.core.commit import Kind
from envd.core.errors import Conflict, Denied, LimitExceeded, NotFound, Unavailable
from envd.core.requests import (
    ConflictsRequest,
    Consistency,
    ListRequest,
    Put,
    ReadRequest,
    WriteRequest,
)
from envd.core.ring import SYSTEM_PARTITION, partition_of
from envd.node.api import EnvironmentApi
from envd.node.routing import NO_HOLDER
from envd.node.watch import WatchHub
from envd.security.access import AllowAll
from tests.node.machines import TESTER, Machines, simulate
from tests.node.placed import BESIDE_THE_SYSTEM, count_calls, placed

NAMES = [f"web/{number:02}" for number in range(40)]
SPREAD = {name: (f"n{1 + at % 3}",) for at, name in enumerate(NAMES)}
"""Each of three nodes holds a third of them, and no other does; n4 holds nothing."""
TELLS_S = 5.0


async def written(machines: Machines, names: Sequence[str] = NAMES) -> None:
    for name in names:
        await machines.write(SPREAD[name][0], name, A=name)


async def extends(machines: Machines, name: str, environment: str, bases: str) -> None:
    put = Put("extends", bases, kind=Kind.METADATA)
    request = WriteRequest(environment, (put, Put("OWN", environment)))
    await machines.run(name, machines.node(name).api.write(TESTER, request))


async def resolved(
    machines: Machines, name: str, environment: str, **options: Consistency | str
) -> EnvironmentView:
    request = replace(ReadRequest(environment, resolve=True), **options)  # type: ignore[arg-type]
    return await machines.run(name, machines.node(name).api.get(TESTER, request))


async def listed(machines: Machines, name: str, request: ListRequest) -> ListPage:
    return await machines.run(name, machines.node(name).api.list(TESTER, request))


async def exported(
    machines: Machines, name: str, *, resolve: bool = False
) -> list[ExportedEnvironment | ExportGap]:
    async def everything() -> list[ExportedEnvironment | ExportGap]:
        items = machines.node(name).api.export(TESTER, "", reveal=True, resolve=resolve)
        return [item async for item in items]

    return await machines.run(name, everything())


class Hidden(AllowAll):
    """Nobody may read what is below `hidden`."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if environment.startswith("hidden"):
            raise Denied(f"{identity.name} may not {verb}")


# -- layers --------------------------------------------------------------------------------


def test_each_layer_is_read_from_a_node_that_holds_it() -> None:
    async def story(machines: Machines) -> None:
        top, middle, low, side = "web/top", "web/middle", "web/low", "web/side"
        rows = {top: ("n1",), middle: ("n2",), low: ("n3",), side: ("n1",)}
        await placed(machines, rows)
        await machines.write("n3", low, A="low", B="low", C="low")
        await machines.write("n1", side, B="side")
        await extends(machines, "n2", middle, low)
        await machines.write("n2", middle, C="middle")
        await extends(machines, "n4", top, f"{middle},{side}")

        for name in ("n1", "n2", "n4"):
            view = await resolved(machines, name, top)

            assert list(view.bases) == [low, middle, side]
            assert {key: each.source for key, each in view.variables.items()} == {
                "A": low,
                "B": side,
                "C": middle,
                "OWN": top,
            }
            assert view.variables["A"].value == "low"
            assert view.variables["A"].node == "n3"

    simulate(story, 4)


def test_layers_that_can_not_be_resolved_are_refused_when_read_and_when_written() -> None:
    async def story(machines: Machines) -> None:
        names = [f"web/l{depth}" for depth in range(11)]
        rows = {name: (f"n{1 + at % 3}",) for at, name in enumerate(names)}
        await placed(machines, rows)
        await machines.write("n1", names[0], A="1")
        for at, name in enumerate(names[1:9], 1):
            await extends(machines, "n4", name, names[at - 1])

        with pytest.raises(LimitExceeded):
            await extends(machines, "n4", names[9], names[8])
        with pytest.raises(Conflict) as circle:
            await extends(machines, "n4", names[0], names[8])
        with pytest.raises(NotFound):
            await extends(machines, "n1", names[0], "web/none")

        assert circle.value.reason == "EXTENDS_CIRCLE"
        assert len((await resolved(machines, "n4", names[8])).bases) == 8
        await machines.delete("n4", names[3])
        with pytest.raises(NotFound, match=names[3]):
            await resolved(machines, "n4", names[8])

    simulate(story, 4)


def test_layers_of_nodes_that_do_not_answer_are_not_left_out() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {"web/top": ("n1",), "web/low": ("n2",)})
        await machines.write("n2", "web/low", A="1")
        await extends(machines, "n1", "web/top", "web/low")
        machines.cluster.network.partition(["n2"], ["n1", "n3", "n4"])
        await asyncio.sleep(TELLS_S)

        for name in ("n1", "n4"):
            with pytest.raises(Unavailable) as refused:
                await resolved(machines, name, "web/top")
            assert refused.value.reason == NO_HOLDER
            assert "web/low" in refused.value.message

    simulate(story, 4)


def test_nothing_is_told_of_a_layer_that_the_caller_may_not_read() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {"web/top": ("n1",), "hidden/low": ("n2",)})
        await machines.write("n2", "hidden/low", A="1")
        await extends(machines, "n1", "web/top", "hidden/low")
        node = machines.node("n4")
        hub = WatchHub(node.store, node.uid)
        coordinator = node.node.coordinator
        api = EnvironmentApi(
            coordinator,
            hub,
            Hidden(),
            lambda _: pytest.fail("no status"),
            None,
            node.node.gathering,
        )
        asked = count_calls(machines, "n4")

        with pytest.raises(Denied):
            await machines.run("n4", api.get(TESTER, ReadRequest("web/top", resolve=True)))

        assert asked == [(machines.node("n1").uid, "holder.read")]

    simulate(story, 4)


def test_a_session_token_holds_for_the_layer_that_it_is_about() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {"web/top": ("n1",), "web/low": ("n2", "n3")})
        await machines.write("n2", "web/low", A="1")
        await extends(machines, "n1", "web/top", "web/low")
        machines.cluster.network.partition(["n2"], ["n3", "n1"])
        answer = await machines.write("n3", "web/low", A="2")

        view = await resolved(machines, "n4", "web/top", token=answer.token)

        assert view.variables["A"].value == "2"

    simulate(story, 4)


# -- lists ---------------------------------------------------------------------------------


def test_a_list_has_what_all_nodes_hold_in_order() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        await written(machines)

        for name in ("n1", "n4"):
            page = await listed(machines, name, ListRequest())
            assert [each.environment for each in page.environments] == NAMES
            assert (page.next, page.partial, page.partial_reason) == ("", False, "")
            assert {each.variables for each in page.environments} == {1}

    simulate(story, 4)


@pytest.mark.parametrize("name", ["n1", "n4"])
def test_an_environment_in_the_partition_of_the_system_is_in_every_answer(name: str) -> None:
    async def story(machines: Machines) -> None:
        assert partition_of(BESIDE_THE_SYSTEM) == SYSTEM_PARTITION
        await placed(machines, SPREAD)
        machines.cluster.network.partition(["n1"], ["n2", "n3", "n4"])
        for writer in ("n1", "n2"):
            await machines.write(writer, BESIDE_THE_SYSTEM, A=writer)
        machines.cluster.network.heal()
        await machines.until(lambda: len(machines.conflicts(name)) == 1, 30.0)
        await asyncio.sleep(TELLS_S)
        api = machines.node(name).api

        page = await listed(machines, name, ListRequest())
        below = await listed(machines, name, ListRequest("many"))
        found = await exported(machines, name)
        conflicts = await machines.run(name, api.conflicts(TESTER, ConflictsRequest()))

        for one in (page, below):
            assert [each.environment for each in one.environments] == [BESIDE_THE_SYSTEM]
            assert not one.partial
        assert [getattr(each, "environment", "") for each in found] == [BESIDE_THE_SYSTEM]
        assert [each.environment for each in conflicts.conflicts] == [BESIDE_THE_SYSTEM]

    simulate(story, 4)


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_the_pages_of_a_list_skip_nothing(limit: int) -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        await written(machines)
        found: list[str] = []
        request = ListRequest("web", limit=limit)

        while True:
            page = await listed(machines, "n4", request)
            found += [each.environment for each in page.environments]
            assert len(page.environments) <= limit
            if not page.next:
                break
            request = replace(request, after=page.next)

        assert found == NAMES

    simulate(story, 4)


def test_as_few_peers_as_possible_are_asked_for_a_list() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, dict.fromkeys(NAMES[:10], ("n1", "n2")), holders=("n2", "n3"))
        asked = count_calls(machines, "n4")

        await listed(machines, "n4", ListRequest())

        assert asked == [(machines.node("n2").uid, "list.page")]

    simulate(story, 4)


def test_another_node_lists_what_the_first_one_did_not_answer() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        for name in NAMES:
            await machines.write("n1", name, A="1")
        await machines.until(lambda: all(machines.shows("n3", name, "A", "1") for name in NAMES))
        machines.cluster.crash(machines.machine("n1"))
        machines.cluster.crash(machines.machine("n2"))

        page = await listed(machines, "n4", ListRequest())

        assert [each.environment for each in page.environments] == NAMES
        assert not page.partial

    simulate(story, 4)


def test_a_list_says_where_nobody_answers_for_some_of_it() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD, holders=("n1", "n3"))
        await written(machines)
        machines.cluster.network.partition(["n2"], ["n1", "n3", "n4"])

        page = await listed(machines, "n4", ListRequest())

        there = [name for name in NAMES if SPREAD[name] != ("n2",)]
        assert [each.environment for each in page.environments] == there
        assert page.partial
        lost = len({partition_of(name) for name in NAMES if name not in there})
        assert page.partial_reason.startswith(f"{lost} of 4096 partitions are missing")
        assert "(n2)" in page.partial_reason
        assert (await listed(machines, "n2", ListRequest("web", limit=1))).next

    simulate(story, 4)


# -- conflicts -----------------------------------------------------------------------------


async def in_conflict(machines: Machines, names: Sequence[str]) -> None:
    """Two writes of each that have not seen each other."""
    machines.cluster.network.partition(["n1"], ["n2", "n3", "n4"])
    for each in machines.cluster.nodes.values():  # By the nodes themselves: each holds it all.
        each.node.holdings.follow(None)
    for name in names:
        for writer in ("n1", "n2"):
            request = WriteRequest(name, (Put("A", writer), Put("B", writer)))
            await machines.run(writer, machines.node(writer).api.write(TESTER, request))
    machines.cluster.network.heal()
    await machines.until(machines.equal, 30)


def test_conflicts_below_a_prefix_come_from_whoever_holds_the_environments() -> None:
    async def story(machines: Machines) -> None:
        names = NAMES[:6]
        await placed(machines, SPREAD)
        made = machines.node("n4").node.holdings.table
        await in_conflict(machines, names)
        for node in machines.cluster.nodes.values():
            node.node.holdings.follow(made)
        api = machines.node("n4").api
        wanted = [(name, key) for name in names for key in "AB"]

        for limit in (0, 1, 5):
            found: list[tuple[str, str]] = []
            request = ConflictsRequest(prefix="web", limit=limit)
            while True:
                page: ConflictPage = await machines.run("n4", api.conflicts(TESTER, request))
                found += [(each.environment, each.variable) for each in page.conflicts]
                assert not page.partial
                if not page.next:
                    break
                request = replace(request, after=page.next)
            assert found == wanted
        single = await machines.run("n4", api.conflicts(TESTER, ConflictsRequest(names[0])))
        assert [each.variable for each in single.conflicts] == ["A", "B"]

        machines.cluster.network.partition(["n2"], ["n1", "n3", "n4"])
        page = await machines.run("n4", api.conflicts(TESTER, ConflictsRequest()))
        assert {each.environment for each in page.conflicts} == {
            name for name in names if SPREAD[name] != ("n2",)
        }
        assert page.partial
        assert page.partial_reason

    simulate(story, 4)


# -- exports -------------------------------------------------------------------------------


def test_an_export_has_what_all_nodes_hold_in_order() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD)
        await written(machines)
        asked = count_calls(machines, "n4")

        for name in ("n1", "n4"):
            found = await exported(machines, name)
            assert [each.environment for each in _whole(found)] == NAMES
            assert [list(each.values) for each in _whole(found)] == [[name] for name in NAMES]

        assert sorted(method for _, method in asked) == ["export.page"] * 3 + ["list.page"] * 3

    simulate(story, 4)


def test_an_export_with_layers_has_them_from_whoever_holds_them() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {"web/low": ("n1",), "web/top": ("n2",)})
        await machines.write("n1", "web/low", A="1")
        await extends(machines, "n2", "web/top", "web/low")

        found = _whole(await exported(machines, "n4", resolve=True))

        assert [(each.environment, list(each.names)) for each in found] == [
            ("web/low", ["A"]),
            ("web/top", ["A", "OWN"]),
        ]
        await machines.delete("n1", "web/low")
        (top,) = _whole(await exported(machines, "n4", resolve=True))
        assert "web/low" in top.unresolved
        assert list(top.names) == ["OWN"]

    simulate(story, 4)


def test_an_export_that_is_not_whole_ends_by_saying_so() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, SPREAD, holders=("n1", "n3"))
        await written(machines)
        machines.cluster.network.partition(["n2"], ["n1", "n3", "n4"])

        *found, gap = await exported(machines, "n4")

        assert [each.environment for each in _whole(found)] == [
            name for name in NAMES if SPREAD[name] != ("n2",)
        ]
        assert isinstance(gap, ExportGap)
        assert "(n2)" in gap.reason

    simulate(story, 4)


def _whole(items: Sequence[ExportedEnvironment | ExportGap]) -> list[ExportedEnvironment]:
    found = [item for item in items if isinstance(item, ExportedEnvironment)]
    assert len(found) == len(items)
    return found
