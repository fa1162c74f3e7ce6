"""`envctl cluster`: who is there, how it does, who comes and goes."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace

import pytest

from envd.core.answers import ClusterFigures, SeedView
from envd.core.errors import OutcomeUnknown
from envd.core.members import MemberState
from tests.cli.bench import Envctl
from tests.clustering import FakeCluster, peer


@pytest.fixture
def cluster(envctl: Envctl) -> FakeCluster:
    made = FakeCluster()
    envctl.node.belong_to(made)
    return made


def test_members_are_a_table_in_order_of_name(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)

    rows = [re.split(r"\s{2,}", line) for line in envctl.ok("cluster members").lines]

    assert rows[0] == ["NAME", "UID", "ADDRESS", "PLACE", "ROLE", "STATE", "STARTS"]
    assert rows[1] == ["n1 *", "00000000", "127.0.0.1:7420", "eu/a", "storage", "alive", "3"]
    assert [(row[0], row[5]) for row in rows[2:]] == [("n2", "down"), ("n3", "alive")]


def test_members_fit_a_terminal_of_80_columns(envctl: Envctl, cluster: FakeCluster) -> None:
    lines = envctl.ok("cluster members").lines

    assert max(map(len, lines)) <= 80


def test_who_is_down_is_red_on_a_terminal(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)
    cluster.become(9, MemberState.SUSPECT)

    lines = envctl.ok("cluster members", terminal=True).lines

    assert lines[1].startswith("n1 *")
    assert lines[2].startswith("\x1b[31mn2")
    assert lines[3].startswith("\x1b[33mn3")


def test_members_as_a_document_have_the_shape_of_rest(envctl: Envctl, cluster: FakeCluster) -> None:
    document = envctl.json("cluster members")

    assert [each["name"] for each in document["members"]] == ["n1", "n2", "n3"]
    assert document["members"][1] == {
        "name": "n2",
        "uid": "0000000000000008",
        "address": "127.0.0.1:7430",
        "region": "eu",
        "zone": "a",
        "role": "storage",
        "state": "alive",
        "generation": 3,
        "gossip": "127.0.0.1:7431",
        "http": "127.0.0.1:7432",
        "release": "0.1.0",
        "answering": False,
    }
    assert document["peers"][0]["clock_offset_ms"] == 4


def test_status_says_in_words_that_all_is_well(envctl: Envctl, cluster: FakeCluster) -> None:
    shown = envctl.ok("cluster status")

    assert shown.lines[0] == "cluster default, as node-1 sees it"
    assert "  members       3 alive" in shown.lines
    assert shown.lines[-1] == "All is well: 3 nodes, and each holds everything."


def test_status_of_a_node_alone(envctl: Envctl) -> None:
    shown = envctl.ok("cluster status")

    assert shown.lines[-1] == "All is well: this node is the only one, and nothing waits."


def test_status_says_in_words_what_is_not_well(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)
    cluster.links = [peer(8, "n2", connected=False), peer(9, "n3", connected=False, problem="no")]
    cluster.now = ClusterFigures(0, 2, 4096, 7, 20, 300, 1, 5)

    shown = envctl.ok("cluster status").out

    assert "  members       2 alive, 1 down\n" in shown
    assert "  handoff       20 to send, the oldest 300 ms old\n" in shown
    assert "n2 does not answer; writes go on, and it gets them once it is back.\n" in shown
    assert "nothing goes to n3, though it is up (no); see envctl doctor.\n" in shown
    assert "nothing goes to n2" not in shown
    assert "7 partitions are short of copies.\n" in shown
    assert "5 commits are safe on this node alone, until another one answers.\n" in shown
    assert "1 record of the future waits; see envctl doctor.\n" in shown
    assert "All is well" not in shown


def test_status_as_a_document_has_the_figures_of_rest(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.now = ClusterFigures(4, 3, 4096, 1, 20, 300, 2, 5)

    document = envctl.json("cluster status")

    assert document.items() >= {
        *{("epoch", 4), ("members", 3), ("partitions", 4096), ("under_replicated", 1)},
        *{("handoff", 20), ("lag_ms", 300), ("quarantined", 2), ("detached", 5)},
    }


def test_join_takes_addresses_with_commas_and_shows_who_is_there(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    shown = envctl.ok("cluster join 10.0.0.1:7421,10.0.0.2:7421 10.0.0.3:7421")

    addresses = ("10.0.0.1:7421", "10.0.0.2:7421", "10.0.0.3:7421")
    assert cluster.asked == [("join", addresses)]
    assert shown.lines[0] == "joined; the cluster has 3 members that are alive"
    assert len(shown.lines) == 5


def test_leave_asks_first_and_names_the_node(envctl: Envctl, cluster: FakeCluster) -> None:
    envctl.node.status_now = replace(envctl.node.status_now, node_uid=f"{7:016x}")

    refused = envctl("cluster leave", typed="n\n")
    shown = envctl.ok("cluster leave", typed="y\n")

    assert refused.code == 1
    assert "node-1 (00000000) leaves the cluster default for good, and stops. Go on?" in refused.err
    assert cluster.asked == [("leave", None)]
    assert shown.lines == [
        "node-1 (00000000) has left, and stops; the others hold all that it had acknowledged"
    ]


def test_another_node_does_not_leave_instead(envctl: Envctl, cluster: FakeCluster) -> None:
    result = envctl("cluster leave n2 --yes")

    assert result.code == 4
    assert "hint: ask that one: envctl --server 127.0.0.1:7430" in result.err
    assert cluster.asked == []


def test_remove_takes_what_is_down_and_asks(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)

    alone = envctl("cluster remove n2")
    document = envctl.json("cluster remove n2 --yes")

    assert alone.code == 2
    assert [each["name"] for each in document["members"]] == ["n1", "n3"]


def test_a_dry_run_checks_and_does_nothing(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)

    gone = envctl.ok("cluster remove n2 --dry-run")
    alive = envctl("cluster remove n3 --dry-run")
    leaver = envctl.ok("cluster leave n1 --dry-run")

    assert gone.lines == ["n2 would be removed"]
    assert (alive.code, "only what is down is removed" in alive.err) == (4, True)
    assert leaver.lines == ["n1 would hand over what others lack, leave default, and stop"]
    assert cluster.asked == []
    assert len(cluster.members()) == 3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("cluster", 2),
        ("cluster topology all", 2),
        ("cluster recover all", 2),
        ("cluster recover --dry-run", 4),
        ("cluster recover --yes", 4),
        ("cluster fork", 2),
        ("cluster members all", 2),
        ("cluster status all", 2),
        ("cluster join", 2),
        ("cluster join nowhere", 2),
        ("cluster remove", 2),
        ("cluster remove a b", 2),
        ("cluster remove n4 --yes", 3),
        ("cluster remove n2 --yes", 4),
        ("cluster leave a b", 2),
    ],
)
def test_what_can_not_be_done_is_refused(
    envctl: Envctl, cluster: FakeCluster, line: str, code: int
) -> None:
    envctl.node.status_now = replace(envctl.node.status_now, node_uid=f"{7:016x}")

    result = envctl(line)

    assert result.code == code
    assert result.err.startswith("error: ")
    assert "\nhint: " in result.err
    assert cluster.asked == []


def test_without_the_right_nothing_is_managed(envctl: Envctl, cluster: FakeCluster) -> None:
    envctl.node.rights.denied.add("cluster")

    assert envctl("cluster join h:1").code == 6
    assert envctl("cluster members").code == 0


def test_no_member_that_answers_is_unavailable(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.unreachable = True

    assert envctl("cluster join h:1").code == 5


# -- doctor ----------------------------------------------------------------------------


def checks(envctl: Envctl) -> dict[str, tuple[str, str]]:
    document = json.loads(envctl("doctor -o json").out)
    for check in document["checks"]:
        assert bool(check["mend"]) == (check["status"] != "ok")
    return {each["name"]: (each["status"], each["detail"]) for each in document["checks"]}


def test_doctor_finds_nothing_wrong_with_a_sound_cluster(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    cluster.told_seeds = [SeedView("127.0.0.1:7431", True)]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port: int = listening.getsockname()[1]
        for at, each in enumerate(cluster.known):
            cluster.known[at] = replace(each, peer=f"127.0.0.1:{port}")
        found = checks(envctl)

    names = ("members", "seeds", "ports", "streams", "clocks", "handoff")
    assert {name: found[name][0] for name in names} == dict.fromkeys(names, "ok")
    assert not {"detached", "quarantine"} & found.keys()
    assert found["clocks"][1] == "the clock of n2 is 4 ms ahead of this node's"


def test_doctor_tells_what_is_wrong_with_a_cluster(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)
    cluster.told_seeds = [SeedView("h:1", False, "no such host")]
    cluster.links = [
        peer(8, "n2", connected=False),
        peer(9, "n3", connected=False, problem="another secret", clock_offset_ms=-6000),
    ]
    cluster.now = ClusterFigures(0, 2, 4096, 0, 20, 90_000, 1, 5)

    found = checks(envctl)

    assert found["members"] == ("warn", "2 alive; n2 down")
    assert found["seeds"] == ("fail", "no answer from h:1 (no such host)")
    assert found["ports"][0] == "warn"
    assert "n3 at 127.0.0.1:7440 (Connection refused)" in found["ports"][1]
    assert found["streams"] == ("fail", "no commits go to n3 (another secret)")
    assert found["clocks"] == ("fail", "the clock of n3 is 6 s behind this node's")
    assert found["handoff"][0] == found["detached"][0] == "warn"
    assert found["quarantine"][0] == "fail"


@pytest.mark.parametrize(
    ("offset_ms", "status"), [(249, "ok"), (-250, "warn"), (4999, "warn"), (5000, "fail")]
)
def test_clocks_that_are_apart_are_judged(
    envctl: Envctl, cluster: FakeCluster, offset_ms: int, status: str
) -> None:
    cluster.links = [peer(8, "n2", clock_offset_ms=offset_ms), peer(9, "n3")]

    assert checks(envctl)["clocks"][0] == status


@pytest.mark.parametrize(
    ("offset_ms", "said"), [(-119_800, "120 s ahead of"), (6000, "6 s behind")]
)
def test_a_clock_that_is_apart_from_all_others_is_this_nodes_own(
    envctl: Envctl, cluster: FakeCluster, offset_ms: int, said: str
) -> None:
    cluster.links = [peer(uid, f"n{uid}", clock_offset_ms=offset_ms) for uid in (8, 9)]

    shown = envctl.ok("cluster status").lines[-1]

    assert checks(envctl)["clocks"] == ("fail", f"this node's clock is {said} all others")
    assert shown == f"this node's clock is {said} all others; see envctl doctor."


def test_one_of_several_seeds_is_a_warning(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.told_seeds = [SeedView("h:1", False), SeedView("h:2", True)]

    assert checks(envctl)["seeds"] == ("warn", "no answer from h:1")


def test_doctor_goes_on_where_members_can_not_be_had(envctl: Envctl) -> None:
    def refuse(call: str, request: object) -> None:
        if call == "members":
            raise OutcomeUnknown("no idea")

    envctl.node.before = refuse

    assert checks(envctl)["members"] == ("fail", "no idea")
