"""`envctl cluster topology` and `recover`, and what the other commands tell of the voters."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from envd.core.answers import ClusterFigures, PlaceView
from envd.core.errors import OutcomeUnknown, Unavailable, Unsupported
from envd.core.members import MemberState
from envd.core.ring import partition_of
from tests.cli.bench import Envctl
from tests.clustering import FakeCluster


@pytest.fixture
def cluster(envctl: Envctl) -> FakeCluster:
    """Three nodes that vote; n1 is asked."""
    made = FakeCluster()
    envctl.node.belong_to(made)
    envctl.node.status_now = replace(envctl.node.status_now, node="n1", node_uid=f"{7:016x}")
    return made


def lose(cluster: FakeCluster, *uids: int) -> None:
    for uid in uids:
        cluster.become(uid, MemberState.DOWN)


def voters_check(envctl: Envctl) -> tuple[str, str, str]:
    document = json.loads(envctl("doctor -o json").out)
    found = {each["name"]: each for each in document["checks"]}["voters"]
    return (found["status"], found["detail"], found["mend"])


def test_who_votes_is_a_table_and_a_sentence(envctl: Envctl, cluster: FakeCluster) -> None:
    del cluster.voters[9]

    lines = envctl.ok("cluster topology").lines

    rows = [re.split(r"\s{2,}", line) for line in lines[:-1]]
    assert rows == [
        ["NAME", "UID", "PLACE", "STATE", "VOTES"],
        ["n1", "00000000", "eu/a", "alive", "yes"],
        ["n2", "00000000", "eu/a", "alive", "yes"],
        ["n3", "00000000", "eu/a", "alive", "no"],
    ]
    assert lines[-1] == ("epoch 7: 2 of 2 voters can be reached; serial environments take writes")


def test_who_is_to_vote_next_is_told(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.voters = {7: "yes", 8: "next", 9: "next"}

    lines = envctl.ok("cluster topology").lines

    assert lines[-1] == (
        "epoch 7: 1 of 1 voter can be reached; serial environments take writes; 2 are to vote next"
    )


def test_a_lost_majority_is_told_with_what_to_do(envctl: Envctl, cluster: FakeCluster) -> None:
    lose(cluster, 8, 9)

    lines = envctl.ok("cluster topology").lines

    assert lines[-2:] == [
        "epoch 7: 1 of 3 voters can be reached; serial environments take no writes",
        "bring n2, n3 back; what is lost for good: envctl cluster recover",
    ]


def test_a_node_that_knows_of_no_topology_says_so(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.known = []

    lines = envctl.ok("cluster topology").lines

    assert lines == [
        "this node knows of no topology yet, so serial environments take no writes; "
        "look again in a moment"
    ]


def test_the_topology_as_a_document_has_the_shape_of_rest(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    lose(cluster, 8)

    document = envctl.json("cluster topology")

    assert (document["epoch"], document["majority"]) == (7, True)
    assert document["nodes"][1] == {
        "name": "n2",
        "uid": "0000000000000008",
        "region": "eu",
        "zone": "a",
        "state": "down",
        "votes": "yes",
        "reachable": False,
        "leaving": False,
        "partitions": 0,
    }
    assert (document["copies"], document["moving"], document["place"]) == ({}, {}, None)


def test_recover_tells_what_may_be_lost_and_asks(envctl: Envctl, cluster: FakeCluster) -> None:
    lose(cluster, 8, 9)

    refused = envctl("cluster recover", typed="n\n")
    before = cluster.epoch
    shown = envctl.ok("cluster recover", typed="y\n")

    assert (refused.code, before) == (1, 7)
    assert "n1 (00000000) is to vote alone" in refused.err
    assert "n2, n3 acknowledged and that are not here may be lost" in refused.err
    assert "Plain environments lose nothing. Go on?" in refused.err
    assert shown.lines == [
        "n1 (00000000) votes alone now, in epoch 1007; others join by themselves"
    ]
    assert cluster.asked == [("recover", None)]


def test_a_dry_run_of_recover_says_who_would_vote_no_more(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    lose(cluster, 8, 9)

    shown = envctl.ok("cluster recover --dry-run")

    assert shown.lines == ["n1 (00000000) would vote alone; n2, n3 would vote no more"]
    assert cluster.asked == []


def test_recover_for_programs_takes_yes_and_gives_the_topology(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    lose(cluster, 8, 9)

    alone = envctl("cluster recover")
    document = envctl.json("cluster recover --yes")

    assert (alone.code, cluster.asked) == (2, [("recover", None)])
    assert (document["epoch"], document["majority"]) == (1007, True)


def test_without_the_right_nothing_is_recovered(envctl: Envctl, cluster: FakeCluster) -> None:
    lose(cluster, 8, 9)
    envctl.node.rights.denied.add("cluster")

    assert envctl("cluster recover --yes").code == 6
    assert cluster.asked == []


def test_status_shows_the_voters_and_a_lost_majority(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.now = ClusterFigures(7, 3)
    sound = envctl.ok("cluster status")
    lose(cluster, 8, 9)

    lost = envctl.ok("cluster status")

    assert "  voters        3 of 3 voters can be reached, epoch 7" in sound.lines
    assert sound.lines[-1].startswith("All is well")
    assert "serial environments take no writes; see envctl cluster topology." in lost.lines


def test_doctor_judges_the_voters(envctl: Envctl, cluster: FakeCluster) -> None:
    sound = voters_check(envctl)
    lose(cluster, 8)
    one_away = voters_check(envctl)
    lose(cluster, 9)
    lost = voters_check(envctl)

    assert sound == ("ok", "3 of 3 voters can be reached", "")
    assert one_away[:2] == ("warn", "2 of 3 voters can be reached, not n2")
    assert lost[:2] == (
        "fail",
        "1 of 3 voters can be reached: serial environments take no writes",
    )
    assert lost[2] == "start n2, n3; what is lost for good: envctl cluster recover"


def test_a_node_of_before_there_were_voters_is_told_of_without_them(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    def refuse(call: str, request: object) -> None:
        if call == "topology":
            raise Unsupported("no such call")

    envctl.node.before = refuse

    assert "voters" not in envctl.ok("cluster status").out
    names = {each["name"] for each in json.loads(envctl("doctor -o json").out)["checks"]}
    assert {"members", "streams"} <= names
    assert "voters" not in names


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("no majority", reason="NO_QUORUM"), 5),
        (Unavailable("nobody knows", reason="NO_TOPOLOGY"), 5),
        (OutcomeUnknown("it was proposed"), 8),
    ],
)
def test_what_no_majority_agreed_to_has_its_exit_codes(
    envctl: Envctl, error: Exception, code: int
) -> None:
    def refuse(call: str, request: object) -> None:
        raise error

    envctl.node.before = refuse

    assert envctl("set web/prod A=1").code == code


def test_where_an_environment_is_held_is_told_whether_it_exists_or_not(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    lines = envctl.ok("cluster where web/prod").lines

    assert [line.split()[0] for line in lines[:-1]] == ["NAME", "n1", "n2", "n3"]
    assert re.fullmatch(
        r"web/prod is in partition \d+, which every storage node holds; "
        r"were it serial, n[123] would propose its writes",
        lines[-1],
    )


def test_where_names_no_proposer_that_can_not_be_reached(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    lose(cluster, 8, 9)

    document = json.loads(envctl.ok("cluster where web/prod -o json").out)

    assert document["proposer"] == f"{7:016x}"
    assert [each["state"] for each in document["replicas"]] == ["alive", "down", "down"]


def test_where_wants_a_name_that_is_one(envctl: Envctl, cluster: FakeCluster) -> None:
    assert envctl("cluster where Nope").code == 2
    assert envctl("cluster where").code == 2


# -- more nodes than copies --------------------------------------------------------------------


MOVING: dict[str, Any] = {
    "copies": {"": 2},
    "moving": {"write_both": 1, "use_new": 500},
    "waiting": 1200,
    "left_seconds": 750,
}


def copies_check(envctl: Envctl) -> tuple[str, str]:
    document = json.loads(envctl("doctor -o json").out)
    found = {each["name"]: each for each in document["checks"]}["copies"]
    return (found["status"], found["detail"])


def test_what_moves_is_told_with_how_long_it_takes(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.spread = {**MOVING, "under_replicated": 3}

    lines = envctl.ok("cluster topology").lines

    assert lines[0].endswith("PARTITIONS")
    assert lines[-3:] == [
        "each partition is to have 2 copies",
        "3 have fewer now",
        "501 partitions move (1 write_both, 500 use_new), 1,200 are to follow; "
        "about 12 min left at this pace",
    ]


# -- what is forgotten -------------------------------------------------------------------------


def floor_check(envctl: Envctl) -> tuple[str, str]:
    document = json.loads(envctl("doctor -o json").out)
    found = {each["name"]: each for each in document["checks"]}["floor"]
    return (found["status"], found["detail"])


def test_how_long_ago_is_forgotten_is_told(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.spread = {"floor_ms": envctl.wall_ms - 4_320_000}

    said = "what was deleted over 72 min ago is forgotten"
    assert envctl.ok("cluster topology").lines[-1] == said
    assert floor_check(envctl) == ("ok", said)


def test_the_doctor_names_for_whom_deletions_are_kept(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.spread = {"floor_ms": envctl.wall_ms - 2 * 86_400_000}
    lose(cluster, 9)

    assert floor_check(envctl) == (
        "warn",
        "what was deleted over 48.0 h ago is forgotten, later deletions are kept for n3",
    )


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ({"": 1}, "1 copy"),
        ({"": 0}, "a copy on every node"),
        ({"us": 1, "eu": 2}, "2 copies in eu, 1 in us"),
    ],
)
def test_how_many_copies_there_are_to_be_is_said_in_words(
    envctl: Envctl, cluster: FakeCluster, copies: dict[str, int], words: str
) -> None:
    cluster.spread = {"copies": copies}

    assert envctl.ok("cluster topology").lines[-1] == f"each partition is to have {words}"
    assert copies_check(envctl) == ("ok", f"{words} of each partition")


def test_the_doctor_names_partitions_with_too_few_copies(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    cluster.spread = {**MOVING, "under_replicated": 3}

    assert copies_check(envctl) == ("warn", "3 partitions with less than 2 copies")


def test_where_names_the_holders_and_the_stage_of_a_move(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    uids = [f"{uid:016x}" for uid in (7, 8, 9)]
    place = PlaceView(partition_of("web/prod"), tuple(uids[:2]), tuple(uids), "streaming")
    cluster.spread = {"copies": {"": 2}, "place": place}

    lines = envctl.ok("cluster where web/prod").lines
    document = json.loads(envctl.ok("cluster where web/prod -o json").out)

    assert [line.split()[0] for line in lines[1:3]] == ["n1", "n2"]
    assert "is read from these and moves (stage streaming); its writes go to n3 too" in lines[-1]
    assert (document["stage"], document["writers"]) == ("streaming", uids)
    assert [each["name"] for each in document["replicas"]] == ["n1", "n2"]


def test_leave_asks_again_and_tells_how_far_it_is(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.drains = ["9 of 12 partitions are still here", "2 of 12 partitions are still here"]

    shown = envctl.ok("cluster leave --yes")

    assert cluster.asked == [("leave", None)] * 3
    assert "9 of 12" in shown.err + shown.out
    assert "has left, and stops" in shown.err + shown.out
