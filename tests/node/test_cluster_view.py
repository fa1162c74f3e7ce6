"""Who may ask what of the cluster, and what can't be meant."""

from __future__ import annotations

import pytest

from envd.core.answers import ClusterFigures, Identity, Status
from envd.core.errors import Conflict, Denied, InvalidRequest, NotFound, Unavailable, Unsupported
from envd.core.members import MemberState
from envd.core.requests import JoinRequest, LeaveRequest, RecoverRequest, RemoveRequest
from envd.node.cluster_view import ClusterApi, SoleNode, sole_member
from tests.clustering import FakeCluster, member

ADMIN = Identity("admin", "token")


def allow(identity: Identity, verb: str, environment: str) -> None:
    if identity is not ADMIN:
        raise Denied(f"{identity.name} may not {verb}")


def api_of(cluster: FakeCluster) -> ClusterApi:
    return ClusterApi(cluster, allow)


def sole() -> ClusterApi:
    return ClusterApi(SoleNode(sole_member(7, "n1", "eu")), allow)


async def test_members_come_in_order_of_name_with_all_that_is_known() -> None:
    found = await api_of(FakeCluster()).members(Identity("anyone", "token"))

    first = found.members[0]
    assert [each.name for each in found.members] == ["n1", "n2", "n3"]
    assert [each.answering for each in found.members] == [True, False, False]
    assert (first.uid, first.address, first.gossip) == (
        f"{7:016x}",
        "127.0.0.1:7420",
        "127.0.0.1:7421",
    )
    assert (first.state, first.role, first.generation, first.release) == (
        *("alive", "storage", 3, "0.1.0"),
    )
    assert [each.name for each in found.peers] == ["n2", "n3"]


def test_a_status_has_the_figures_of_the_cluster() -> None:
    figures = ClusterFigures(4, 3, 4096, 1, 20, 300, 2, 5)
    status = Status("n", "a1", "c", "0.1", 3, 4, 5, 6, True, "/data", "admin", "token")

    told = api_of(FakeCluster(now=figures)).status(status)

    assert (told.epoch, told.members, told.under_replicated, told.handoff) == (4, 3, 1, 20)
    assert (told.lag_ms, told.quarantined, told.detached, told.node) == (300, 2, 5, "n")


async def test_a_node_without_a_cluster_is_its_own_member() -> None:
    found = await sole().members(ADMIN)

    (only,) = found.members
    assert (only.name, only.uid, only.state, only.answering) == ("n1", f"{7:016x}", "alive", True)
    assert (found.peers, found.seeds) == ((), ())
    with pytest.raises(Unsupported):
        await sole().join(ADMIN, JoinRequest(("10.0.0.1:7421",)))
    with pytest.raises(Conflict):
        await sole().leave(ADMIN, LeaveRequest("n1"))


async def test_a_node_without_a_cluster_votes_alone_and_lost_nobody() -> None:
    found = await sole().topology(ADMIN)

    assert [(each.name, each.votes, each.reachable) for each in found.nodes] == [
        ("n1", "yes", True)
    ]
    assert found.majority
    with pytest.raises(Conflict, match="nothing is lost"):
        await sole().recover(ADMIN, RecoverRequest())


async def test_join_asks_the_node_and_tells_who_is_there() -> None:
    cluster = FakeCluster()

    found = await api_of(cluster).join(ADMIN, JoinRequest(("10.0.0.1:7421", "[::1]:7421", "h:1")))

    assert cluster.asked == [("join", ("10.0.0.1:7421", "[::1]:7421", "h:1"))]
    assert len(found.members) == 3
    cluster.unreachable = True
    with pytest.raises(Unavailable):
        await api_of(cluster).join(ADMIN, JoinRequest(("10.0.0.1:7421",)))


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        ("",),
        ("host",),
        ("host:0",),
        ("host:65536",),
        ("a b:1",),
        ("u@h:1",),
        ("h:1",) * 65,
        ("::1:7421",),
    ],
)
async def test_what_is_no_address_is_not_joined(addresses: tuple[str, ...]) -> None:
    cluster = FakeCluster()

    with pytest.raises(InvalidRequest):
        await api_of(cluster).join(ADMIN, JoinRequest(addresses))

    assert cluster.asked == []


@pytest.mark.parametrize("named", ["n1", f"{7:016x}", "0000000000000007"])
async def test_a_node_leaves_when_it_is_named(named: str) -> None:
    cluster = FakeCluster()

    found = await api_of(cluster).leave(ADMIN, LeaveRequest(named))

    assert cluster.asked == [("leave", None)]
    assert found.members[0].state == "left"


async def test_a_node_does_not_leave_for_another_or_as_the_last() -> None:
    cluster = FakeCluster()

    with pytest.raises(Conflict, match="another node than n2") as caught:
        await api_of(cluster).leave(ADMIN, LeaveRequest("n2"))
    cluster.become(8, MemberState.DOWN)
    cluster.become(9, MemberState.LEFT)
    with pytest.raises(Conflict, match="only member"):
        await api_of(cluster).leave(ADMIN, LeaveRequest("n1"))

    assert "--server 127.0.0.1:7430 cluster leave" in caught.value.hint
    assert cluster.asked == []


async def test_a_member_that_is_down_is_removed() -> None:
    cluster = FakeCluster()
    cluster.become(8, MemberState.DOWN)

    found = await api_of(cluster).remove(ADMIN, RemoveRequest("n2"))

    assert cluster.asked == [("remove", 8)]
    assert [each.name for each in found.members] == ["n1", "n3"]


@pytest.mark.parametrize("state", [MemberState.ALIVE, MemberState.SUSPECT])
async def test_a_member_that_may_be_up_is_not_removed(state: MemberState) -> None:
    cluster = FakeCluster()
    cluster.become(8, state)

    with pytest.raises(Conflict, match="only what is down is removed"):
        await api_of(cluster).remove(ADMIN, RemoveRequest("n2"))

    assert cluster.asked == []


async def test_of_several_with_one_name_the_only_one_that_is_down_is_removed() -> None:
    replaced = member(0xABCD << 48, "n2", MemberState.DOWN)
    gone = member(0xABCE << 48, "n2", MemberState.LEFT)
    cluster = FakeCluster()
    cluster.known += [gone, replaced]

    await api_of(cluster).remove(ADMIN, RemoveRequest("n2"))

    assert cluster.asked == [("remove", replaced.uid)]


async def test_of_several_with_one_name_the_uid_says_which() -> None:
    twin = member(0xABCD << 48, "n2", MemberState.DOWN)
    cluster = FakeCluster()
    cluster.become(8, MemberState.DOWN)
    cluster.known.append(twin)

    with pytest.raises(Conflict, match="2 members are called") as caught:
        await api_of(cluster).remove(ADMIN, RemoveRequest("n2"))
    await api_of(cluster).remove(ADMIN, RemoveRequest("abcd"))

    assert "abcd000000000000 (down)" in caught.value.hint
    assert cluster.asked == [("remove", twin.uid)]


@pytest.mark.parametrize("named", ["", "n", "n4", "abc", "ffff"])
async def test_a_member_that_there_is_not_is_not_found(named: str) -> None:
    with pytest.raises(NotFound):
        await api_of(FakeCluster()).remove(ADMIN, RemoveRequest(named))


async def test_only_who_may_manages_the_cluster() -> None:
    cluster, stranger = FakeCluster(), Identity("reader", "token")
    api = api_of(cluster)

    for call in (
        api.join(stranger, JoinRequest(("h:1",))),
        api.leave(stranger, LeaveRequest("n1")),
        api.remove(stranger, RemoveRequest("n2")),
        api.recover(stranger, RecoverRequest()),
    ):
        with pytest.raises(Denied):
            await call

    assert cluster.asked == []


async def test_a_node_recovers_by_itself_and_never_for_another() -> None:
    cluster = FakeCluster()
    cluster.voters = {8: "yes"}
    cluster.become(8, MemberState.DOWN)

    with pytest.raises(Conflict, match="another node than n2") as caught:
        await api_of(cluster).recover(ADMIN, RecoverRequest("n2"))
    tried = await api_of(cluster).recover(ADMIN, RecoverRequest(dry_run=True))
    found = await api_of(cluster).recover(ADMIN, RecoverRequest("n1"))

    assert "--server 127.0.0.1:7430 cluster recover" in caught.value.hint
    assert (tried.epoch, tried.majority) == (7, False)
    assert [(each.name, each.votes) for each in found.nodes] == [
        *(("n1", "yes"), ("n2", "no"), ("n3", "no")),
    ]
    assert cluster.asked == [("recover", None)]
