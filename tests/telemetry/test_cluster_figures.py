"""What real nodes tell of each other in figures, in virtual time."""

from __future__ import annotations

import pytest

from envd.net.gossip_socket import Traffic
from envd.node.coordinator import Coordinator
from envd.reporting import COORDINATOR_SPANS, cluster_figures
from envd.telemetry.cluster import ClusterFigures, PeerFigures
from tests.node.machines import Machines, simulate

DOWN_S = 60.0
SETTLED_S = 20.0


def seen_by(machines: Machines, name: str) -> ClusterFigures:
    return cluster_figures(machines.node(name).node, Traffic(5, 4, 1), machines.loop.time())


def peers_of(figures: ClusterFigures) -> dict[str, PeerFigures]:
    return {peer.name: peer for peer in figures.peers}


def all_is_sent(machines: Machines, name: str) -> bool:
    return all(peer.handoff == 0 for peer in seen_by(machines, name).peers)


def all_vote(machines: Machines, name: str) -> bool:
    """Whether it knows that all vote, so that alone it changes nothing of that."""
    topology = machines.node(name).node.consent.electorate.current
    return topology is not None and len(topology.voters) == len(machines.cluster.nodes)


def test_in_a_whole_cluster_every_peer_is_connected_and_has_everything() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", A="1")
        await machines.until(lambda: all_is_sent(machines, "n1"))

        figures = seen_by(machines, "n1")

        assert figures.members == {"alive": 3, "suspect": 0, "down": 0, "left": 0}
        assert peers_of(figures).keys() == {"n2", "n3"}
        for peer in figures.peers:
            assert (peer.up, peer.connected, peer.lag_s) == (True, True, 0)
            assert 0 <= peer.phi < 8
            assert peer.clock_offset_s is not None
        assert figures.unreplicated == 0
        assert (figures.detached, figures.quarantined, figures.health) == (0, 0, 0)
        assert figures.datagrams == {"sent": 5, "received": 4, "dropped": 1}
        assert figures.repair.pulls.keys() == {"catch_up", "compare", "floor", "read", "vote"}

    simulate(story)


def test_what_a_peer_behind_a_cut_lacks_is_told_and_what_nobody_else_has() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.until(lambda: all_vote(machines, "n1"), SETTLED_S)
        await machines.write("n1", "web/prod", A="1")
        await machines.until(lambda: all_is_sent(machines, "n1"))
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await machines.until(
            lambda: not any(peer.up for peer in seen_by(machines, "n1").peers), DOWN_S
        )

        for number in range(4):
            await machines.write("n1", "web/prod", A=f"alone {number}")

        figures = seen_by(machines, "n1")
        assert figures.members == {"alive": 1, "suspect": 0, "down": 2, "left": 0}
        assert figures.unreplicated == 4
        assert figures.detached == 4
        for peer in figures.peers:
            assert (peer.up, peer.connected, peer.handoff) == (False, False, 4)
            assert peer.lag_s is not None
            assert peer.lag_s > 0
            assert peer.phi > 8

    simulate(story)


def test_what_a_peer_has_is_unknown_until_it_tells_after_a_restart() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", A="1")
        for name in ("n2", "n3"):
            machines.cluster.crash(machines.machine(name), silently=True)
        machines.cluster.crash(machines.machine("n1"))
        await machines.cluster.start(machines.machine("n1"))
        await machines.until(lambda: len(seen_by(machines, "n1").peers) == 2, DOWN_S)

        figures = seen_by(machines, "n1")

        assert [(peer.handoff, peer.lag_s) for peer in figures.peers] == [(None, None)] * 2
        assert figures.unreplicated is None

    simulate(story)


def test_peers_with_one_name_are_told_apart_by_their_uids() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        uid = machines.node("n2").uid
        machines.cluster.crash(machines.machine("n2"))
        machines.cluster.wipe(machines.machine("n2"))

        await machines.start("n2")

        again = machines.node("n2").uid
        names = peers_of(seen_by(machines, "n1")).keys()
        assert names == {f"n2-{uid:016x}", f"n2-{again:016x}", "n3"}

    simulate(story)


def test_a_node_alone_has_nothing_to_hand_over() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web/prod", A="1")

        figures = seen_by(machines, "n1")

        assert figures.members == {"alive": 1, "suspect": 0, "down": 0, "left": 0}
        assert (figures.peers, figures.unreplicated, figures.detached) == ((), 0, 0)

    simulate(story, count=1)


@pytest.mark.parametrize("name", COORDINATOR_SPANS)
def test_every_span_of_the_coordinator_is_of_something_it_does(name: str) -> None:
    assert callable(getattr(Coordinator, name))
