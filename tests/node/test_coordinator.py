from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    Unset,
    WriteRequest,
)
from envd.core.stamp import Stamp
from envd.node.views import read_session_token
from envd.storage.memory import MemoryStore
from tests.node.conftest import Node


async def test_a_write_is_one_commit_with_one_stamp(node: Node) -> None:
    puts = (Put("A", "1"), Put("B", "2", secret=True))

    answer = await node.coordinator.write(WriteRequest("web/prod", puts), "ann")

    view = node.coordinator.read(ReadRequest("web/prod", reveal=True))
    assert {name: v.value for name, v in view.variables.items()} == {"A": "1", "B": "2"}
    assert {v.stamp for v in view.variables.values()} == {answer.stamp}
    assert view.revision == answer.revision
    assert [v.node for v in view.variables.values()] == ["n1", "n1"]


async def test_secrets_are_masked_unless_revealed(node: Node) -> None:
    await node.coordinator.write(WriteRequest("e", (Put("K", "canary", secret=True),)), "ann")

    masked = node.coordinator.read(ReadRequest("e")).variables["K"]
    shown = node.coordinator.read(ReadRequest("e", reveal=True)).variables["K"]

    assert (masked.value, masked.masked, masked.secret) == (None, True, True)
    assert (shown.value, shown.masked, shown.secret) == ("canary", False, True)


async def test_what_is_secret_now_is_masked_in_the_past_too(node: Node) -> None:
    await node.put("e", K="canary")
    await node.coordinator.write(WriteRequest("e", (Put("K", "canary", secret=True),)), "ann")

    masked = node.coordinator.read(ReadRequest("e", at="@~1")).variables["K"]
    shown = node.coordinator.read(ReadRequest("e", at="@~1", reveal=True)).variables["K"]

    assert (masked.value, masked.masked, masked.secret) == (None, True, False)
    assert (shown.value, shown.masked, shown.secret) == ("canary", False, False)


async def test_secret_is_sticky_and_survives_an_unset(node: Node) -> None:
    write = node.coordinator.write
    await write(WriteRequest("e", (Put("K", "1", secret=True), Put("L", "x"))), "ann")

    await write(WriteRequest("e", (Put("K", "2"),)), "ann")
    await write(WriteRequest("e", unsets=(Unset("K"),)), "ann")
    await write(WriteRequest("e", (Put("K", "3"),)), "ann")

    assert node.coordinator.read(ReadRequest("e")).variables["K"].secret


async def test_only_who_may_reveal_makes_a_secret_plain(node: Node) -> None:
    await node.coordinator.write(WriteRequest("e", (Put("K", "1", secret=True),)), "ann")
    lower = WriteRequest("e", (Put("K", "1", secret=False),))

    with pytest.raises(Denied, match="nothing was changed"):
        await node.coordinator.write(lower, "bob", may_reveal=False)
    await node.coordinator.write(lower, "ann", may_reveal=True)

    assert not node.coordinator.read(ReadRequest("e")).variables["K"].secret


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (WriteRequest("E", (Put("A", "1"),)), InvalidRequest),
        (WriteRequest("sys/x", (Put("A", "1"),)), InvalidRequest),
        (WriteRequest("a/" * 8 + "a", (Put("A", "1"),)), LimitExceeded),
        (WriteRequest("e", (Put("1A", "1"),)), InvalidRequest),
        (WriteRequest("e", (Put("A", "x\0y"),)), InvalidRequest),
        (WriteRequest("e", (Put("A", "\ud800"),)), InvalidRequest),
        (WriteRequest("e", (Put("A", "x" * ((1 << 20) + 1)),)), LimitExceeded),
        (WriteRequest("e", (Put("A", "1"), Put("A", "2"))), InvalidRequest),
        (WriteRequest("e", (Put("A", "1"),), (Unset("A"),)), InvalidRequest),
        (WriteRequest("e"), InvalidRequest),
        (WriteRequest("e", tuple(Put(f"V{n}", "") for n in range(1025))), LimitExceeded),
        (WriteRequest("e", (Put("A", "1"),), message="x" * 5000), LimitExceeded),
        (WriteRequest("e", (Put("A", "1"),), operation="x" * 200), LimitExceeded),
        (WriteRequest("e", (Put("colour", "1", kind=Kind.METADATA),)), InvalidRequest),
        (WriteRequest("e", (Put("mode", "serial", kind=Kind.METADATA),)), Unsupported),
        (WriteRequest("e", (Put("protected", "maybe", kind=Kind.METADATA),)), InvalidRequest),
        (WriteRequest("e", (Put("A", "1"),), if_revision="xyz"), InvalidRequest),
        (WriteRequest("e", (Put("A", "1"),), if_revision="0" * 32), Conflict),
        (WriteRequest("e", (Put("A", "1"),), must_exist=True), NotFound),
        (WriteRequest("e", unsets=(Unset("A"),)), NotFound),
    ],
)
async def test_what_is_refused_changes_nothing(
    node: Node, request_: WriteRequest, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await node.coordinator.write(request_, "ann")

    assert node.store.last_lsn() == 0


async def test_an_import_may_be_larger_than_a_write_up_to_the_environment(node: Node) -> None:
    full = tuple(Put(f"V{n}", "") for n in range(4096))
    await node.coordinator.write(WriteRequest("e", full, bulk=True), "ann")

    with pytest.raises(LimitExceeded):
        await node.coordinator.write(WriteRequest("e", (Put("ONE_MORE", ""),)), "ann")

    assert len(node.coordinator.read(ReadRequest("e")).variables) == 4096


async def test_names_that_were_unset_do_not_pile_up_without_end(node: Node) -> None:
    def names(generation: int) -> tuple[Put, ...]:
        return tuple(Put(f"G{generation}_{n}", "") for n in range(4096))

    for generation in range(4):
        await node.coordinator.write(WriteRequest("e", names(generation), replace=True), "ann")

    with pytest.raises(LimitExceeded, match="set or unset"):
        await node.coordinator.write(WriteRequest("e", names(4), replace=True), "ann")
    await node.coordinator.write(WriteRequest("e", names(0), replace=True), "ann")
    await node.coordinator.delete(DeleteRequest("e"), "ann")
    await node.coordinator.write(WriteRequest("e", names(4), bulk=True), "ann")


async def test_an_environment_holds_four_mebibytes(node: Node) -> None:
    big = "x" * (1 << 20)
    for n in range(3):
        await node.coordinator.write(WriteRequest("e", (Put(f"V{n}", big),)), "ann")

    with pytest.raises(LimitExceeded):
        await node.coordinator.write(WriteRequest("e", (Put("V3", big),)), "ann")
    await node.coordinator.write(WriteRequest("e", (Put("V0", ""),)), "ann")
    await node.coordinator.write(WriteRequest("e", (Put("V3", big),)), "ann")

    assert len(node.coordinator.read(ReadRequest("e")).variables) == 4


async def test_a_stale_revision_is_refused_and_the_right_prefix_taken(node: Node) -> None:
    first = await node.put("e", A="1")
    await node.put("e", A="2")
    now = node.coordinator.read(ReadRequest("e")).revision

    with pytest.raises(Conflict) as stale:
        await node.coordinator.write(
            WriteRequest("e", (Put("A", "3"),), if_revision=first[:12]), "ann"
        )
    await node.coordinator.write(WriteRequest("e", (Put("A", "3"),), if_revision=now[:8]), "ann")

    assert stale.value.reason == "STALE_REVISION"
    assert node.coordinator.read(ReadRequest("e")).variables["A"].value == "3"


async def test_of_writers_that_saw_one_revision_exactly_one_wins(node: Node) -> None:
    seen = await node.put("e", A="0")

    results = await asyncio.gather(
        *(
            node.coordinator.write(WriteRequest("e", (Put("A", str(n)),), if_revision=seen), "ann")
            for n in range(10)
        ),
        return_exceptions=True,
    )

    assert sum(not isinstance(result, Exception) for result in results) == 1


async def test_an_operation_id_makes_a_repeat_answer_as_the_first(node: Node) -> None:
    request = WriteRequest("e", (Put("A", "1"),), operation="op-1")

    first = await node.coordinator.write(request, "ann")
    await node.put("e", A="2")
    again = await node.coordinator.write(request, "ann")

    assert (again.revision, again.stamp) == (first.revision, first.stamp)
    assert node.coordinator.read(ReadRequest("e")).variables["A"].value == "2"


async def test_a_repeat_while_the_first_is_on_its_way_waits_for_it(node: Node) -> None:
    request = WriteRequest("e", (Put("A", "1"),), operation="op-1")

    answers = await asyncio.gather(*(node.coordinator.write(request, "ann") for _ in range(5)))

    assert len({answer.stamp for answer in answers}) == 1
    assert node.store.last_lsn() == 1


async def test_a_caller_that_gives_up_does_not_undo_its_operation(node: Node) -> None:
    request = WriteRequest("e", (Put("A", "1"),), operation="op-1")
    caller = asyncio.ensure_future(node.coordinator.write(request, "ann"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)

    answer = await node.coordinator.write(request, "ann")

    assert node.store.last_lsn() == 1
    assert node.coordinator.read(ReadRequest("e")).revision == answer.revision


async def test_an_operation_id_belongs_to_one_identity_and_one_environment(node: Node) -> None:
    await node.coordinator.write(WriteRequest("e", (Put("A", "1"),), operation="op"), "ann")

    await node.coordinator.write(WriteRequest("e", (Put("A", "2"),), operation="op"), "bob")
    with pytest.raises(Conflict) as reused:
        await node.coordinator.write(WriteRequest("f", (Put("A", "1"),), operation="op"), "ann")

    assert reused.value.reason == "OPERATION_REUSED"
    assert node.coordinator.read(ReadRequest("e")).variables["A"].value == "2"


async def test_an_operation_id_stands_for_one_request(node: Node) -> None:
    write = WriteRequest("e", (Put("A", "1"),), operation="op", message="first")
    first = await node.coordinator.write(write, "ann")

    again = await node.coordinator.write(
        replace(write, message="again", if_revision=first.revision), "ann"
    )
    for other in (
        replace(write, puts=(Put("A", "2"),)),
        replace(write, puts=(Put("A", "1", secret=True),)),
        replace(write, unsets=(Unset("B"),)),
        replace(write, replace=True),
    ):
        with pytest.raises(Conflict) as reused:
            await node.coordinator.write(other, "ann")
        assert reused.value.reason == "OPERATION_REUSED"

    assert again.revision == first.revision
    assert node.store.last_lsn() == 1


async def test_of_two_requests_under_one_operation_id_at_once_the_second_is_refused(
    node: Node,
) -> None:
    results = await asyncio.gather(
        *(
            node.coordinator.write(WriteRequest("e", (Put("A", v),), operation="op"), "ann")
            for v in ("1", "2")
        ),
        return_exceptions=True,
    )

    assert [isinstance(result, Conflict) for result in results] == [False, True]


async def test_a_deleted_environment_is_told_with_the_way_back(node: Node) -> None:
    await node.put("e", A="1")
    await node.coordinator.delete(DeleteRequest("e"), "ann")

    with pytest.raises(NotFound) as gone:
        node.coordinator.read(ReadRequest("e"))

    assert "envctl undelete e" in gone.value.hint


async def test_stamps_grow_while_the_clock_goes_an_hour_back(node: Node) -> None:
    stamps = []
    for step in range(4):
        if step == 2:
            node.clock.now_ms -= 3_600_000
        await node.put("e", A=str(step))
        stamps.append(Stamp.from_hex(node.coordinator.read(ReadRequest("e")).stamp))

    assert stamps == sorted(set(stamps))


async def test_a_new_coordinator_stamps_above_all_that_was(node: Node) -> None:
    await node.put("e", A="1")
    before = Stamp.from_hex(node.coordinator.read(ReadRequest("e")).stamp)
    node.clock.now_ms -= 3_600_000

    later = Node(node.clock, node.store)
    await later.put("f", A="1")

    assert Stamp.from_hex(later.coordinator.read(ReadRequest("f")).stamp) > before


async def test_a_deleted_environment_is_gone_and_its_history_stays(node: Node) -> None:
    await node.put("e", A="1")

    await node.coordinator.delete(DeleteRequest("e", message="tidy up"), "ann")

    with pytest.raises(NotFound):
        node.coordinator.read(ReadRequest("e"))
    with pytest.raises(NotFound):
        await node.coordinator.delete(DeleteRequest("e"), "ann")
    assert node.coordinator.list(ListRequest()).environments == ()
    commits = node.coordinator.history(HistoryRequest("e")).commits
    assert [(commit.deleted, commit.message) for commit in commits] == [
        (True, "tidy up"),
        (False, ""),
    ]


async def test_undelete_brings_back_names_values_and_flags(node: Node) -> None:
    puts = (Put("A", "1"), Put("S", "s", secret=True), Put("owner", "ann", kind=Kind.METADATA))
    await node.coordinator.write(WriteRequest("e", puts), "ann")
    before = node.coordinator.read(ReadRequest("e", reveal=True))
    await node.coordinator.delete(DeleteRequest("e"), "ann")

    await node.coordinator.rollback(RollbackRequest("e", "@deleted"), "ann")

    after = node.coordinator.read(ReadRequest("e", reveal=True))
    assert after.metadata == before.metadata
    assert {n: (v.value, v.secret) for n, v in after.variables.items()} == {
        n: (v.value, v.secret) for n, v in before.variables.items()
    }


async def test_rollback_restores_an_earlier_state_as_a_new_commit(node: Node) -> None:
    first = await node.put("e", A="1", B="b")
    await node.coordinator.write(
        WriteRequest("e", (Put("A", "2", secret=True), Put("C", "c")), (Unset("B"),)), "ann"
    )

    answer = await node.coordinator.rollback(RollbackRequest("e", first[:8]), "ann")

    view = node.coordinator.read(ReadRequest("e", reveal=True))
    assert {n: (v.value, v.secret) for n, v in view.variables.items()} == {
        "A": ("1", False),
        "B": ("b", False),
    }
    assert answer.revision != first
    assert len(node.coordinator.history(HistoryRequest("e")).commits) == 3


async def test_rollback_of_one_variable_leaves_the_others(node: Node) -> None:
    await node.put("e", A="1", B="1")
    await node.put("e", A="2", B="2")

    await node.coordinator.rollback(RollbackRequest("e", "@~1", ("A",)), "ann")

    view = node.coordinator.read(ReadRequest("e"))
    assert {n: v.value for n, v in view.variables.items()} == {"A": "1", "B": "2"}


async def test_rollback_to_what_is_makes_no_commit(node: Node) -> None:
    revision = await node.put("e", A="1")

    answer = await node.coordinator.rollback(RollbackRequest("e", revision), "ann")

    assert answer.revision == revision
    assert node.store.last_lsn() == 1


@pytest.mark.parametrize(
    ("rev", "error", "reason"),
    [
        ("ffffffff", NotFound, "REVISION_NOT_FOUND"),
        ("@~9", NotFound, "REVISION_NOT_FOUND"),
        ("@deleted", NotFound, "NOT_DELETED"),
        ("yesterday", InvalidRequest, "INVALID_REVISION"),
        ("ab", InvalidRequest, "INVALID_REVISION"),
    ],
)
async def test_a_rev_that_names_nothing_is_told_so(
    node: Node, rev: str, error: type[NotFound | InvalidRequest], reason: str
) -> None:
    await node.put("e", A="1")

    with pytest.raises(error) as caught:
        node.coordinator.read(ReadRequest("e", at=rev))

    assert caught.value.reason == reason


async def test_reading_at_a_revision_shows_what_was(node: Node) -> None:
    first = await node.put("e", A="1")
    await node.put("e", A="2")

    then = node.coordinator.read(ReadRequest("e", at=first))
    back = node.coordinator.read(ReadRequest("e", at="@~1"))

    assert then.variables["A"].value == back.variables["A"].value == "1"
    assert then.revision == first


async def test_replace_unsets_what_is_not_put(node: Node) -> None:
    await node.put("e", A="1", B="2")

    await node.coordinator.write(WriteRequest("e", (Put("C", "3"),), replace=True), "ann")

    assert set(node.coordinator.read(ReadRequest("e")).variables) == {"C"}


async def test_create_makes_an_empty_environment_once(node: Node) -> None:
    create = WriteRequest("e", must_not_exist=True)

    await node.coordinator.write(create, "ann")
    with pytest.raises(Conflict):
        await node.coordinator.write(create, "ann")

    view = node.coordinator.read(ReadRequest("e"))
    assert view.variables == {}
    assert view.metadata == {"created": "2023-11-14T22:13:20.000Z"}


async def test_an_environment_without_anything_live_does_not_exist(node: Node) -> None:
    await node.put("e", A="1")

    await node.coordinator.write(WriteRequest("e", unsets=(Unset("A"),)), "ann")

    with pytest.raises(NotFound):
        node.coordinator.read(ReadRequest("e"))


async def test_history_pages_and_filters_by_variable(node: Node) -> None:
    for n in range(5):
        await node.put("e", **{"A" if n % 2 else "B": str(n)})

    first = node.coordinator.history(HistoryRequest("e", limit=3))
    rest = node.coordinator.history(HistoryRequest("e", limit=3, before=first.next))
    only_a = node.coordinator.history(HistoryRequest("e", variable="A"))

    assert len(first.commits) == 3
    assert len(rest.commits) == 2
    assert rest.next == ""
    stamps = [commit.stamp for commit in (*first.commits, *rest.commits)]
    assert stamps == sorted(stamps, reverse=True)
    assert [commit.changes[0].variable for commit in only_a.commits] == ["A", "A"]


async def test_the_history_of_a_variable_is_not_that_of_the_setting_of_its_name(
    node: Node,
) -> None:
    await node.put("e", owner="a variable")
    setting = Put("owner", "a team", kind=Kind.METADATA)
    await node.coordinator.write(WriteRequest("e", (setting,)), "ann")

    page = node.coordinator.history(HistoryRequest("e", variable="owner"))

    assert [commit.changes[0].metadata for commit in page.commits] == [False]


async def test_a_write_that_changes_nothing_is_not_answered_before_what_it_found_is_durable(
    node: Node,
) -> None:
    await node.put("e", A="1")
    await node.put("e", A="2")
    rollback = RollbackRequest("e", "@~1")

    first, second = await asyncio.gather(
        node.coordinator.rollback(rollback, "ann"), node.coordinator.rollback(rollback, "bob")
    )
    third = await node.coordinator.rollback(RollbackRequest("e", first.revision), "ann")

    assert second.revision == first.revision
    assert (read_session_token(second.token) or ()) > (read_session_token(first.token) or ())
    assert third.token == second.token


async def test_list_pages_in_order_below_whole_segments(node: Node) -> None:
    for name in ("team/b", "team/a", "team-x", "team", "other"):
        await node.put(name, A="1")

    first = node.coordinator.list(ListRequest("team", limit=2))
    rest = node.coordinator.list(ListRequest("team", after=first.next, limit=2))

    assert [item.environment for item in first.environments] == ["team", "team/a"]
    assert [item.environment for item in rest.environments] == ["team/b"]
    assert rest.next == ""


Ask = Callable[[Node], object]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda node: node.coordinator.read(ReadRequest("e", token="rubbish")), InvalidRequest),
        (
            lambda node: node.coordinator.read(ReadRequest("e", token=f"1.0.{9:016x}.1")),
            Unavailable,
        ),
        (
            lambda node: node.coordinator.read(ReadRequest("e", token=f"1.0.{7:016x}.99")),
            Unavailable,
        ),
        (lambda node: node.coordinator.history(HistoryRequest("e", before="zz")), InvalidRequest),
        (lambda node: node.coordinator.list(ListRequest(limit=-1)), InvalidRequest),
        (lambda node: node.coordinator.history(HistoryRequest("absent")), NotFound),
        (lambda node: node.coordinator.read(ReadRequest("e", ("NOPE",))), NotFound),
    ],
)
async def test_reads_that_can_not_be_answered_say_why(
    node: Node, ask: Ask, error: type[Exception]
) -> None:
    await node.put("e", A="1")

    with pytest.raises(error):
        ask(node)


async def test_a_token_of_a_write_reads_that_write(node: Node) -> None:
    answer = await node.coordinator.write(WriteRequest("e", (Put("A", "1"),)), "ann")

    view = node.coordinator.read(ReadRequest("e", token=answer.token))

    assert view.revision == answer.revision


class FullStore(MemoryStore):
    """Has no room until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    def admits(self) -> bool:
        return self.gate.is_set()

    async def admit(self) -> None:
        await self.gate.wait()


@pytest.mark.parametrize("operation", ["", "deploy-7"])
async def test_what_waited_for_room_is_refused_where_writes_are_refused_by_then(
    operation: str,
) -> None:
    store = FullStore()
    node = Node(store=store)
    request = WriteRequest("e", (Put("A", "1"),), operation=operation)
    writing = asyncio.ensure_future(node.coordinator.write(request, "ann"))
    await asyncio.sleep(0)

    node.coordinator.refuse_writes = Unavailable("the node is leaving", reason="STOPPING")
    store.gate.set()

    with pytest.raises(Unavailable, match="leaving"):
        await writing
    assert store.last_lsn() == 0
