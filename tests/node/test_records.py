"""The reconciler's documents: on every node, written by nodes alone, and shown to nobody."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from envd.core.answers import Changed, SnapshotItem, WriteAnswer
from envd.core.commit import Kind
from envd.core.errors import InvalidRequest, LimitExceeded, NotFound, Unavailable
from envd.core.history import SYNC, Retention
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    WatchRequest,
    WriteRequest,
)
from envd.node.api import EnvironmentApi
from envd.node.operations import AnyWrite
from envd.node.records import METHOD, SyncRecords
from envd.sync.ports import Records
from envd.wire import peers as wire
from tests.node.following import Watch, watching
from tests.node.machines import TESTER, Machines, simulate
from tests.node.placed import count_calls, placed
from tests.node.syncing import Names, names, read, syncing, update

DOCUMENT = "bindings/web"
ENVIRONMENT = f"{SYNC}/{DOCUMENT}"


def records(machines: Machines, name: str) -> SyncRecords:
    return syncing(machines, name).records


def commits(machines: Machines, name: str) -> int:
    return len(machines.node(name).store.commits(ENVIRONMENT, None, 100))


def test_a_document_comes_to_every_node_whatever_partitions_it_holds() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines)
        port: Records = records(machines, "n4")

        await machines.run("n4", port.update(DOCUMENT, {"A": "1", "B": "2"}))
        await machines.run("n4", port.update(DOCUMENT, {"A": "3"}, ["B"]))

        for name in ("n1", "n2", "n3", "n4"):
            await machines.until(partial(machines.shows, name, ENVIRONMENT, "A", "3"))
            assert await read(machines, name, DOCUMENT) == {"A": "3"}
            assert await names(machines, name) == [DOCUMENT]
        assert machines.node("n4").store.commits(ENVIRONMENT, None, 1)[0].author == "envd"

    simulate(story, 4)


def test_a_document_that_is_not_there_is_empty_and_not_listed() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await update(machines, "n1", "a/b", A="1")
        await update(machines, "n1", "a/b-2", A="1")
        await update(machines, "n1", "gone", A="1")
        await machines.run("n1", records(machines, "n1").update("gone", {}, ["A"]))

        assert await read(machines, "n1", "none") == {}
        assert await read(machines, "n1", "gone") == {}
        assert await names(machines, "n1") == ["a/b", "a/b-2"]
        assert await names(machines, "n1", "a") == ["a/b", "a/b-2"]
        assert await names(machines, "n1", "a/b") == ["a/b"]

    simulate(story, 1)


def test_what_changes_nothing_makes_no_commit() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await update(machines, "n1", DOCUMENT, A="1", B="2")

        await update(machines, "n1", DOCUMENT, A="1")
        await machines.run("n1", records(machines, "n1").update(DOCUMENT, {}, ["C", "D"]))
        await machines.run("n1", records(machines, "n1").update(DOCUMENT, {"B": "3"}, ["C"]))

        assert commits(machines, "n1") == 2
        newest = machines.node("n1").store.commits(ENVIRONMENT, None, 1)[0]
        assert [(change.name, change.value) for change in newest.changes] == [("B", "3")]

    simulate(story, 2)


def test_equal_changes_at_once_make_one_commit_and_both_are_durable() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        async def both() -> None:
            port = records(machines, "n1")
            first = asyncio.ensure_future(port.update(DOCUMENT, {"A": "1"}))
            second = asyncio.ensure_future(port.update(DOCUMENT, {"A": "1"}))
            await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
            assert machines.shows("n1", ENVIRONMENT, "A", "1")
            await asyncio.gather(first, second)

        await machines.run("n1", both())

        assert commits(machines, "n1") == 1

    simulate(story, 2)


def test_more_than_fit_one_commit_are_several() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        puts = {f"K{number}": "1" for number in range(1025)}

        await update(machines, "n1", DOCUMENT, **puts)

        assert commits(machines, "n1") == 2
        assert await read(machines, "n1", DOCUMENT) == puts

    simulate(story, 1)


@pytest.mark.parametrize(
    ("name", "puts", "kind"),
    [
        ("Upper", {"A": "1"}, InvalidRequest),
        ("", {"A": "1"}, InvalidRequest),
        ("../web", {"A": "1"}, InvalidRequest),
        ("a/b/c/d/e/f/g", {"A": "1"}, LimitExceeded),
        ("web", {"no key": "1"}, InvalidRequest),
        ("web", {"A": "\0"}, InvalidRequest),
    ],
)
def test_what_no_environment_could_hold_is_refused(
    name: str, puts: dict[str, str], kind: type[Exception]
) -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        with pytest.raises(kind):
            await update(machines, "n1", name, **puts)

    simulate(story, 1)


def test_only_the_newest_commits_of_a_document_are_kept() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()

        for number in range(40):
            await update(machines, "n1", DOCUMENT, A=str(number))
        await machines.node("n1").store.flush()

        assert commits(machines, "n1") == Retention().of(ENVIRONMENT).commits < 40

    simulate(story, 1)


def test_writes_that_did_not_know_of_each_other_are_no_conflict() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2"])
        await update(machines, "n1", DOCUMENT, A="1")
        await update(machines, "n2", DOCUMENT, A="2")

        machines.cluster.network.heal()
        await machines.until(machines.equal, 30.0)

        assert await read(machines, "n1", DOCUMENT) == await read(machines, "n2", DOCUMENT)
        for name in ("n1", "n2"):
            assert machines.node(name).store.conflicts("sys", "", 10) == []

    simulate(story, 2)


# -- nobody sees them ------------------------------------------------------------------------


@pytest.mark.parametrize("partitioned", [False, True])
def test_documents_are_in_nothing_that_callers_are_shown(partitioned: bool) -> None:
    async def story(machines: Machines, watch: Watch) -> None:
        await (placed(machines) if partitioned else machines.start())
        name = "n4" if partitioned else "n2"
        watched = watch(name, WatchRequest(values=True, reveal=True))
        await watched.whole()
        count = machines.node(name).store.environment_count()
        await machines.write("n1", "web", A="1")

        await update(machines, "n1", DOCUMENT, A="1")
        await update(machines, "n1", DOCUMENT, A="2")
        await machines.write("n1", "web", A="2")
        await watched.until("web", A="2")
        await machines.until(lambda: machines.shows(name, ENVIRONMENT, "A", "2"))

        async def seen() -> list[str]:
            api = machines.node(name).api
            listed = await api.list(TESTER, ListRequest())
            exported = [each async for each in api.export(TESTER, "", reveal=True)]
            conflicts = await api.conflicts(TESTER, ConflictsRequest())
            assert conflicts.conflicts == ()
            return [
                *(each.environment for each in listed.environments),
                *(getattr(each, "environment", "") for each in exported),
            ]

        assert await machines.run(name, seen()) == ["web", "web"]
        changed = {each.commit.environment for each in watched.of(Changed)}
        assert changed | {each.state.environment for each in watched.of(SnapshotItem)} == {"web"}
        assert machines.node(name).store.environment_count() - count == int(not partitioned)

    watching(story)


WRITES: list[AnyWrite] = [
    WriteRequest(ENVIRONMENT, (Put("A", "2"),)),
    DeleteRequest(ENVIRONMENT),
    RollbackRequest(ENVIRONMENT, "@~1"),
    ResolveRequest(ENVIRONMENT, "A", "kept"),
    WriteRequest(SYNC, (Put("A", "2"),)),
]


async def made(api: EnvironmentApi, request: AnyWrite) -> WriteAnswer:
    match request:
        case WriteRequest():
            return await api.write(TESTER, request)
        case DeleteRequest():
            return await api.delete(TESTER, request)
        case RollbackRequest():
            return await api.rollback(TESTER, request)
        case ResolveRequest():
            return await api.resolve(TESTER, request)


@pytest.mark.parametrize("request_", WRITES)
def test_callers_can_not_write_them_through_any_node(request_: AnyWrite) -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        await update(machines, "n1", DOCUMENT, A="1")

        for name in ("n1", "n2", "n3"):
            api = machines.node(name).api
            with pytest.raises(InvalidRequest, match="keeps for itself"):
                await machines.run(name, made(api, request_))

        assert await read(machines, "n1", DOCUMENT) == {"A": "1"}

    simulate(story, 3)


def test_callers_can_not_read_them_by_any_name() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await update(machines, "n1", DOCUMENT, A="1")
        api = machines.node("n1").api
        watch = api.watch(TESTER, WatchRequest(SYNC))
        exact = api.watch(TESTER, WatchRequest(ENVIRONMENT, exact=True))
        export = api.export(TESTER, SYNC, reveal=True)

        for asked in (
            api.get(TESTER, ReadRequest(ENVIRONMENT)),
            api.list(TESTER, ListRequest(SYNC)),
            api.list(TESTER, ListRequest("sys")),
            api.history(TESTER, HistoryRequest(ENVIRONMENT)),
            api.conflicts(TESTER, ConflictsRequest(ENVIRONMENT)),
            api.conflicts(TESTER, ConflictsRequest(prefix=SYNC)),
            anext(watch),
            anext(exact),
            anext(export),
        ):
            with pytest.raises(InvalidRequest, match="keeps for itself"):
                await machines.run("n1", asked)

    simulate(story, 1)


def test_no_environment_can_extend_them() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await update(machines, "n1", DOCUMENT, A="1")
        extends = WriteRequest("web", (Put("extends", ENVIRONMENT, kind=Kind.METADATA),))

        with pytest.raises((InvalidRequest, NotFound)):
            await machines.run("n1", machines.node("n1").api.write(TESTER, extends))

    simulate(story, 1)


# -- nodes that stamp nothing ------------------------------------------------------------------


def test_an_agent_has_a_storage_node_make_the_change() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.start_agent("n3")
        asked = count_calls(machines, "n3")

        await update(machines, "n3", DOCUMENT, A="1")

        assert METHOD in [method for _, method in asked]
        commit = machines.node("n1").store.commits(ENVIRONMENT, None, 1)[0]
        assert commit.node != "n3"
        await machines.until(lambda: machines.shows("n3", ENVIRONMENT, "A", "1"))
        assert await read(machines, "n3", DOCUMENT) == {"A": "1"}

    simulate(story, 3)


def test_a_node_whose_clock_is_wrong_has_another_one_make_the_change() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.machine("n3").clock.jump(600_000)
        n3 = machines.node("n3").node
        await machines.until(lambda: n3.coordinator.hands_over, 30.0)

        await update(machines, "n3", DOCUMENT, A="1")

        commit = machines.node("n1").store.commits(ENVIRONMENT, None, 1)[0]
        assert commit.node in ("n1", "n2")

    simulate(story)


def test_where_no_storage_node_can_be_reached_nothing_is_written() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1")
        await machines.start_agent("n2")
        machines.cluster.crash(machines.machine("n1"))
        await asyncio.sleep(5)

        with pytest.raises(Unavailable):
            await update(machines, "n2", DOCUMENT, A="1")

        assert machines.node("n2").store.visible(ENVIRONMENT) is None

    simulate(story, 2)


def test_a_peer_can_change_nothing_but_documents() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        n1, uid = machines.node("n1").node, machines.node("n2").uid
        body = wire.pack(wire.NotesAsked("../topology", {"A": "1"}))

        with pytest.raises(InvalidRequest):
            await machines.run("n1", n1.replication.ask(uid, METHOD, body))

    simulate(story, 2)


# -- changes -----------------------------------------------------------------------------------


def test_changes_of_documents_are_told_on_every_node_and_none_of_anything_else() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        every, some = Names(machines, "n2", own=True), Names(machines, "n2", "bindings", own=True)
        await asyncio.sleep(1)
        await update(machines, "n1", "status/web", A="1")
        await machines.write("n1", "web", A="1")
        await update(machines, "n1", DOCUMENT, A="1")

        await machines.until(lambda: DOCUMENT in some.told)
        for each in (every, some):
            await each.end()

        assert every.told == ["status/web", DOCUMENT]
        assert some.told == [DOCUMENT]

    simulate(story, 2)
