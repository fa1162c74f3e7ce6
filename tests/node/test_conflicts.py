"""Conflicts as a node lists them, and the commits that settle them."""

from __future__ import annotations

import re

import pytest

from envd.core.answers import ConflictView
from envd.core.commit import Kind
from envd.core.errors import Conflict, Denied, InvalidRequest, NotFound
from envd.core.history import Side
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    Put,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    Seen,
    Unset,
    WriteRequest,
)
from envd.core.stamp import Stamp
from envd.node import conflicts as module
from tests.conflicting import OTHER_UID, write_unseen
from tests.node.conftest import DIGEST_KEY, Node

CANARY = "canary-3e91"


async def unseen(
    node: Node, name: str, value: str | None, environment: str = "web", **how: object
) -> Stamp:
    return await write_unseen(node.store, DIGEST_KEY, environment, name, value, **how)  # type: ignore[arg-type]


def listed(node: Node, **asked: object) -> tuple[ConflictView, ...]:
    return node.coordinator.conflicts(ConflictsRequest(**asked)).conflicts  # type: ignore[arg-type]


def value(node: Node, name: str) -> str | None:
    view = node.coordinator.read(ReadRequest("web", reveal=True))
    return view.variables[name].value if name in view.variables else None


async def resolve(node: Node, variable: str, take: str, **more: object) -> str:
    request = ResolveRequest("web", variable, take, **more)  # type: ignore[arg-type]
    return (await node.coordinator.resolve(request, "ann")).revision


async def test_both_sides_are_told_with_who_when_and_where(node: Node) -> None:
    await node.put("web", PORT="8080")
    stamp = await unseen(node, "PORT", "9090")

    (found,) = listed(node, environment="web")

    assert re.fullmatch(r"[0-9a-f]{32}", found.id)
    assert (found.environment, found.variable, found.metadata) == ("web", "PORT", False)
    assert (found.kept.value, found.kept.actor, found.kept.node) == ("8080", "tester", "n1")
    assert (found.lost.value, found.lost.actor, found.lost.node) == ("9090", "bob", "n2")
    assert (found.lost.stamp, found.lost.region) == (stamp.hex(), "us")
    assert found.lost.time == "2023-11-14T22:13:19.000Z"
    assert not found.kept.masked


async def test_what_was_written_with_knowledge_is_no_conflict(node: Node) -> None:
    await node.put("web", PORT="8080")
    await node.put("web", PORT="9090")

    assert listed(node, environment="web") == ()


@pytest.mark.parametrize("side", ["kept", "lost", "now"])
async def test_both_values_are_masked_where_one_is_secret_or_the_variable_is_now(
    node: Node, side: str
) -> None:
    secret = {"kept": (True, False), "lost": (False, True), "now": (False, False)}[side]
    put = Put("KEY", CANARY, secret[0])
    await node.coordinator.write(WriteRequest("web", (put,)), "ann")
    await unseen(node, "KEY", f"{CANARY}2", secret=secret[1])
    if side == "now":
        await node.coordinator.write(WriteRequest("web", (Put("KEY", "x", True),)), "ann")

    (hidden,) = listed(node, environment="web")
    (shown,) = listed(node, environment="web", reveal=True)

    assert hidden.kept.value is hidden.lost.value is None
    assert hidden.kept.masked
    assert hidden.lost.masked
    assert (shown.kept.value, shown.lost.value) == (CANARY, f"{CANARY}2")
    assert not shown.kept.masked


async def test_an_unset_is_told_from_a_masked_value(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", None)

    (found,) = listed(node, environment="web")

    assert (found.lost.kind, found.lost.value, found.lost.masked) == ("unset", None, False)
    assert (found.kept.kind, found.kept.value) == ("set", "1")


@pytest.mark.parametrize("digits", [32, 8, 4])
async def test_to_take_an_id_writes_what_was_lost_in_one_commit(node: Node, digits: int) -> None:
    await node.put("web", PORT="8080", OTHER="x")
    await unseen(node, "PORT", "9090")
    (found,) = listed(node, environment="web")

    await resolve(node, "PORT", found.id[:digits], message="nine is right")

    newest = node.store.commits("web", None, 1)[0]
    assert value(node, "PORT") == "9090"
    assert value(node, "OTHER") == "x"
    assert listed(node, environment="web") == ()
    assert newest.resolves == (found.id,)
    assert (newest.author, newest.message) == ("ann", "nine is right")


async def test_kept_leaves_the_state_and_settles(node: Node) -> None:
    before = await node.put("web", PORT="8080")
    await unseen(node, "PORT", "9090")

    after = await resolve(node, "PORT", "kept")

    assert after == before
    assert value(node, "PORT") == "8080"
    assert listed(node, environment="web") == ()


async def test_kept_leaves_what_was_set_since(node: Node) -> None:
    await node.put("web", PORT="8080")
    await unseen(node, "PORT", "9090")
    await node.put("web", PORT="7070")

    await resolve(node, "PORT", "kept")

    assert value(node, "PORT") == "7070"
    assert listed(node, environment="web") == ()


async def test_the_stamp_of_a_side_takes_that_side(node: Node) -> None:
    await node.put("web", PORT="8080")
    await unseen(node, "PORT", "9090")
    await node.put("web", PORT="7070")
    (found,) = listed(node, environment="web")

    await resolve(node, "PORT", found.kept.stamp)

    assert value(node, "PORT") == "8080"
    assert listed(node, environment="web") == ()


async def test_a_lost_unset_is_taken_too(node: Node) -> None:
    await node.put("web", A="1", B="2")
    await unseen(node, "A", None)

    await resolve(node, "A", "lost")

    assert value(node, "A") is None
    assert listed(node, environment="web") == ()


async def test_one_commit_settles_every_conflict_of_a_name_and_of_no_other(node: Node) -> None:
    await node.put("web", A="1", B="1")
    await unseen(node, "A", "2", later_ms=-2000)
    await unseen(node, "B", "2", later_ms=-2000)
    await unseen(node, "A", "3", later_ms=1000)
    found = {
        each.lost.value: each.id for each in listed(node, environment="web") if each.variable == "A"
    }

    with pytest.raises(Conflict, match="2 conflicts"):
        await resolve(node, "A", "lost")
    await resolve(node, "A", found["2"])

    assert set(found) == {"1", "2"}
    assert value(node, "A") == "2"
    assert [each.variable for each in listed(node, environment="web")] == ["B"]
    assert node.store.commits("web", None, 1)[0].resolves == tuple(sorted(found.values()))


async def test_a_repeat_under_its_operation_id_answers_as_the_first(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", "2")

    first = await resolve(node, "A", "lost", operation="op")
    again = await resolve(node, "A", "lost", operation="op")

    assert first == again
    assert [len(commit.resolves) for commit in node.store.commits("web", None, 9)] == [1, 0, 0]
    with pytest.raises(Conflict, match="another write"):
        await resolve(node, "A", "kept", operation="op")


async def test_settings_have_conflicts_and_the_time_of_creation_has_none(node: Node) -> None:
    create = WriteRequest("web", (Put("owner", "ann", kind=Kind.METADATA),), must_not_exist=True)
    await node.coordinator.write(create, "ann")
    await unseen(node, "owner", "bob", kind=Kind.METADATA)
    await unseen(node, "created", "2020-01-01T00:00:00Z", kind=Kind.METADATA)

    (found,) = listed(node, environment="web")
    with pytest.raises(NotFound):
        await resolve(node, "owner", "lost")
    await resolve(node, "owner", "lost", kind=Kind.METADATA)

    assert (found.variable, found.metadata, found.lost.value) == ("owner", True, "bob")
    assert node.coordinator.read(ReadRequest("web")).metadata["owner"] == "bob"
    assert listed(node, environment="web") == ()


async def test_a_secret_is_not_made_plain_without_the_right_to_reveal(node: Node) -> None:
    await node.coordinator.write(WriteRequest("web", (Put("KEY", CANARY, True),)), "ann")
    await unseen(node, "KEY", "plain")
    request = ResolveRequest("web", "KEY", "lost")

    with pytest.raises(Denied):
        await node.coordinator.resolve(request, "ann", may_reveal=False)
    assert len(listed(node, environment="web")) == 1
    await node.coordinator.resolve(request, "ann", may_reveal=True)

    assert not node.coordinator.read(ReadRequest("web")).variables["KEY"].secret


async def test_a_write_lost_to_a_deletion_can_be_taken(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "B", "2", later_ms=-1)
    await node.coordinator.delete(DeleteRequest("web"), "ann")
    await unseen(node, "C", "3", later_ms=-1)

    (found,) = listed(node, environment="web")
    await resolve(node, "C", found.id)

    assert (found.variable, found.kept.kind, found.lost.value) == ("C", "unset", "3")
    assert value(node, "C") == "3"


async def test_a_rollback_after_a_settlement_does_not_bring_the_conflict_back(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", "2")
    await resolve(node, "A", "lost")

    await node.coordinator.rollback(RollbackRequest("web", "@~1"), "ann")

    assert value(node, "A") == "1"
    assert listed(node, environment="web") == ()


@pytest.mark.parametrize("take", ["", "x", "KEPT", "abc", "f" * 33, "f" * 41, "é" * 8])
async def test_what_names_no_side_is_refused(node: Node, take: str) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", "2")

    with pytest.raises(InvalidRequest):
        await resolve(node, "A", take)


@pytest.mark.parametrize(
    ("variable", "take"), [("B", "kept"), ("A", "ffffffff"), ("A", "f" * 32), ("A", "f" * 40)]
)
async def test_what_is_no_conflict_of_the_variable_is_not_found(
    node: Node, variable: str, take: str
) -> None:
    await node.put("web", A="1", B="1")
    await unseen(node, "A", "2")

    with pytest.raises(NotFound):
        await resolve(node, variable, take)


async def test_a_stale_revision_settles_nothing(node: Node) -> None:
    stale = await node.put("web", A="1")
    await node.put("web", B="1")
    await unseen(node, "A", "2", later_ms=-2000)

    with pytest.raises(Conflict):
        await resolve(node, "A", "lost", if_revision=stale)

    assert value(node, "A") == "1"


async def test_unset_and_settle_do_not_mix_up_names(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", "2")
    await node.coordinator.write(WriteRequest("web", unsets=(Unset("A"),)), "ann")

    await resolve(node, "A", "lost")

    assert value(node, "A") == "2"


# -- pages -----------------------------------------------------------------------------


async def several(node: Node) -> list[tuple[str, str]]:
    """Conflicts in three environments; their places in order."""
    places = [("web", "A"), ("web", "B"), ("web/prod", "C"), ("web2", "D"), ("web2", "E")]
    for environment in ("web2", "web/prod", "web"):
        names = [name for where, name in places if where == environment]
        await node.put(environment, **dict.fromkeys(names, "1"))
        for name in reversed(names):
            await unseen(node, name, "2", environment)
    return places


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 0])
@pytest.mark.parametrize("prefix", ["", "web"])
async def test_pages_hold_each_conflict_once_and_in_order(
    node: Node, limit: int, prefix: str
) -> None:
    places = [place for place in await several(node) if not prefix or place[0] != "web2"]
    seen: list[tuple[str, str]] = []
    after = ""
    while True:
        page = node.coordinator.conflicts(ConflictsRequest("", prefix, after, limit))
        assert not limit or len(page.conflicts) <= limit
        seen += [(each.environment, each.variable) for each in page.conflicts]
        after = page.next
        if not after:
            break

    assert seen == places


async def test_pages_of_one_environment_hold_each_conflict_once(node: Node) -> None:
    await several(node)

    first = node.coordinator.conflicts(ConflictsRequest("web2", limit=1))
    second = node.coordinator.conflicts(ConflictsRequest("web2", after=first.next, limit=1))

    assert [each.variable for each in (*first.conflicts, *second.conflicts)] == ["D", "E"]
    assert second.next == ""


async def test_a_page_ends_early_where_values_are_large(node: Node) -> None:
    large = "x" * (module.MAX_PAGE_CHARACTERS // 2)
    await node.put("web", A="1", B="1", C="1")
    for name in "ABC":
        await unseen(node, name, large)

    first = node.coordinator.conflicts(ConflictsRequest("web"))
    second = node.coordinator.conflicts(ConflictsRequest("web", after=first.next))

    assert [each.variable for each in first.conflicts] == ["A"]
    assert [each.variable for each in second.conflicts] == ["B"]


async def test_a_page_goes_on_where_the_last_conflict_was_settled_meanwhile(node: Node) -> None:
    await several(node)
    first = node.coordinator.conflicts(ConflictsRequest("web", limit=1))
    await resolve(node, "A", "kept")

    second = node.coordinator.conflicts(ConflictsRequest("web", after=first.next))

    assert [each.variable for each in second.conflicts] == ["B"]


@pytest.mark.parametrize(
    "after", ["#", "web#x", "web#" + "f" * 31, "#" + "f" * 32, "/#" + "f" * 32]
)
async def test_what_is_no_page_token_is_refused(node: Node, after: str) -> None:
    await several(node)

    with pytest.raises(InvalidRequest):
        node.coordinator.conflicts(ConflictsRequest(after=after))


async def test_of_what_was_never_there_nothing_is_listed(node: Node) -> None:
    with pytest.raises(NotFound):
        listed(node, environment="web/none")
    with pytest.raises(InvalidRequest):
        listed(node, limit=-1)
    assert listed(node, prefix="web/none") == ()


async def test_a_node_that_is_not_known_by_name_is_told_by_its_uid(node: Node) -> None:
    await node.put("web", A="1")
    await unseen(node, "A", "2")
    (record,) = node.store.conflicts("", "", 9)
    side = module._side(Side(record.lost.stamp, "2", False), node.identity, masked=False)

    assert side.node == f"{OTHER_UID:016x}"
    assert side.actor == ""


async def test_what_a_writer_had_not_seen_goes_on_record_and_is_replaced(node: Node) -> None:
    await node.put("web", A="1", B="1")
    known = node.coordinator.read(ReadRequest("web")).variables["A"].stamp
    await node.put("web", A="2", B="2")
    seen = (Seen("A", known), Seen("C", ""))
    puts = (Put("A", "3"), Put("B", "3"), Put("C", "3"))

    await node.coordinator.write(WriteRequest("web", puts, seen=seen), "a store")

    (found,) = listed(node, environment="web", reveal=True)
    assert (found.variable, found.kept.value, found.lost.value) == ("A", "3", "2")
    assert value(node, "A") == "3"
    await resolve(node, "A", "lost")
    assert value(node, "A") == "2"


async def test_an_unset_of_what_was_not_seen_goes_on_record(node: Node) -> None:
    await node.put("web", A="1", B="1")

    unset = WriteRequest("web", unsets=(Unset("A"),), seen=(Seen("A", ""),))
    await node.coordinator.write(unset, "a store")

    (found,) = listed(node, environment="web", reveal=True)
    assert (found.kept.kind, found.lost.value) == ("unset", "1")


@pytest.mark.parametrize("stamp", ["12", "zz" * 20, "AB" * 20])
async def test_what_was_seen_must_be_a_stamp(node: Node, stamp: str) -> None:
    request = WriteRequest("web", (Put("A", "1"),), seen=(Seen("A", stamp),))

    with pytest.raises(InvalidRequest, match="no stamp"):
        await node.coordinator.write(request, "a store")
