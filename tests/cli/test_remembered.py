"""Members of a cluster are remembered, and tried where none of the named nodes answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envd.cli import endpoint, remembered
from envd.cli.endpoint import Endpoint
from envd.client.rpc import GrpcConnection
from envd.core.errors import Denied, Unavailable
from envd.core.members import MemberState
from tests.cli.bench import Envctl
from tests.clustering import FakeCluster

NAMED = "127.0.0.1:7420"
OTHERS = ["127.0.0.1:7430", "127.0.0.1:7440"]


@pytest.fixture
def cluster(envctl: Envctl) -> FakeCluster:
    made = FakeCluster()
    envctl.node.belong_to(made)
    return made


def kept(envctl: Envctl) -> Any:
    file = envctl.home / ".local/state/envctl/members.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_members_are_kept_after_a_command(envctl: Envctl, cluster: FakeCluster) -> None:
    envctl.ok(f"list --server {NAMED}")

    assert kept(envctl) == {NAMED: {"members": OTHERS, "wall_ms": envctl.wall_ms}}
    file = envctl.home / ".local/state/envctl/members.json"
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_has_left_is_not_kept(envctl: Envctl, cluster: FakeCluster) -> None:
    cluster.become(9, MemberState.LEFT)

    envctl.ok(f"list --server {NAMED}")

    assert kept(envctl)[NAMED]["members"] == OTHERS[:1]


def test_they_are_asked_for_again_after_a_while_only(envctl: Envctl, cluster: FakeCluster) -> None:
    envctl.ok(f"list --server {NAMED}")
    cluster.known = cluster.known[:2]
    envctl.wall_ms += remembered.REFRESH_MS - 1
    envctl.ok(f"list --server {NAMED}")
    early = kept(envctl)[NAMED]["members"]
    envctl.wall_ms += 1
    envctl.ok(f"list --server {NAMED}")

    assert early == OTHERS
    assert kept(envctl)[NAMED]["members"] == OTHERS[1:]


def test_each_set_of_named_nodes_has_its_own(envctl: Envctl, cluster: FakeCluster) -> None:
    envctl.ok("list --server b:1,a:1")
    envctl.ok("list", environ={"ENVD_ADDR": "a:1,b:1"})
    envctl.ok("list --server c:1")

    assert set(kept(envctl)) == {"a:1,b:1", "c:1"}


@pytest.mark.parametrize("line", ["list", "list --server unix:/x", "list --server unix:/x,a:1"])
def test_nothing_is_kept_of_a_node_of_this_machine(
    envctl: Envctl, cluster: FakeCluster, line: str
) -> None:
    envctl.ok(line)

    assert kept(envctl) is None


def test_nothing_is_kept_where_no_node_was_asked(envctl: Envctl) -> None:
    envctl.ok(f"context --server {NAMED}")

    assert kept(envctl) is None


def test_members_that_can_not_be_had_are_no_trouble(envctl: Envctl) -> None:
    def refuse(call: str, request: object) -> None:
        if call == "members":
            raise Denied("not for you")

    envctl.node.before = refuse

    result = envctl.ok(f"list --server {NAMED}")

    assert "not for you" not in result.err
    assert not (envctl.home / ".local/state/envctl/members.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"127.0.0.1:7420": 7}', "\udcff", "[" * 9999])
def test_a_damaged_file_is_as_none(envctl: Envctl, cluster: FakeCluster, text: str) -> None:
    file = envctl.home / ".local/state/envctl/members.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    envctl.ok(f"list --server {NAMED}")

    assert kept(envctl)[NAMED]["members"] == OTHERS


def test_a_place_that_can_not_be_written_is_no_trouble(
    envctl: Envctl, cluster: FakeCluster
) -> None:
    (envctl.home / ".local").write_text("in the way")

    envctl.ok(f"list --server {NAMED}")


def test_there_is_a_bound_on_what_is_kept(envctl: Envctl, cluster: FakeCluster) -> None:
    for number in range(remembered.MAX_CLUSTERS + 2):
        envctl.wall_ms += 1
        envctl.ok(f"list --server h{number}:1")

    assert len(kept(envctl)) == remembered.MAX_CLUSTERS
    assert "h0:1" not in kept(envctl)


# -- where nobody answers --------------------------------------------------------------


@contextmanager
def listening() -> Iterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield f"127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture
def closed_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def memory(tmp_path: Path, named: str, *members: object) -> str:
    file = tmp_path / "members.json"
    file.write_text(json.dumps({named: {"members": list(members), "wall_ms": 1}}))
    return str(file)


def test_a_remembered_member_is_tried_where_the_named_one_is_gone(
    tmp_path: Path, closed_address: str
) -> None:
    with listening() as other:
        where = Endpoint((closed_address,), memory=memory(tmp_path, closed_address, other))
        connection = endpoint.connect(where)
        connection.close()

    assert isinstance(connection, GrpcConnection)
    assert connection.address == other


def test_a_named_node_that_answers_comes_first(tmp_path: Path) -> None:
    with listening() as named, listening() as other:
        connection = endpoint.connect(Endpoint((named,), memory=memory(tmp_path, named, other)))
        connection.close()

    assert connection.address == named


@pytest.mark.parametrize("member", ["nowhere", 7, "unix:/x", "h:0", None])
def test_what_is_remembered_wrongly_is_passed_over(
    tmp_path: Path, closed_address: str, member: object
) -> None:
    where = Endpoint((closed_address,), memory=memory(tmp_path, closed_address, member))

    with pytest.raises(Unavailable, match=f"no envd answers at {closed_address} "):
        endpoint.connect(where)


def test_where_nobody_at_all_answers_each_is_named(tmp_path: Path, closed_address: str) -> None:
    where = Endpoint((closed_address,), memory=memory(tmp_path, closed_address, "127.0.0.1:1"))

    with pytest.raises(Unavailable, match=r"nor at 127\.0\.0\.1:1 "):
        endpoint.connect(where)
    with pytest.raises(Unavailable):
        endpoint.connect(where._replace(memory=""))
