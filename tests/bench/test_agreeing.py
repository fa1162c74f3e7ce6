"""Nodes agree where they list the same, answer the same and end with the same roots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.agreeing import differing, differing_roots, listed, roots
from envd.core import digest
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import ZERO, Stamp
from envd.datadir import open_data_directory
from envd.ports import StoredState
from envd.storage.store import DurableStore
from envd.system import SystemClock, SystemRng
from envd.wire._pb import environment_pb2 as pb

NAME = "huge/e1"


class Node:
    """Holds values by environment, each of one variable; a page of its lists has two."""

    def __init__(self, held: Mapping[str, str]) -> None:
        self._held = held

    async def call(self, path: str, message: bytes) -> bytes:
        if path.endswith("/List"):
            return self._listed(pb.ListRequest.FromString(message)).SerializeToString()
        names = pb.BatchGetRequest.FromString(message).environments
        results = [self._result(name) for name in names]
        return pb.BatchGetResponse(results=results).SerializeToString()

    def _result(self, name: str) -> pb.BatchGetResponse.Result:
        if name not in self._held:
            return pb.BatchGetResponse.Result(error=pb.Error(reason="NO_ENVIRONMENT"))
        variables = [pb.Variable(name="A", value=self._held[name])]
        found = pb.Environment(environment=name, revision="same", variables=variables)
        return pb.BatchGetResponse.Result(found=pb.GetResponse(environment=found))

    def _listed(self, request: pb.ListRequest) -> pb.ListResponse:
        names = sorted(name for name in self._held if name > request.after)
        page = [
            pb.ListResponse.Item(environment=name, revision=self._held[name], variables=1)
            for name in names[:2]
        ]
        return pb.ListResponse(environments=page, next=names[1] if len(names) > 2 else "")


async def test_a_list_is_read_to_its_end_and_tells_of_revisions() -> None:
    held = {f"huge/e{n}": f"r{n}" for n in range(5)}

    one = await listed(Node(held), "huge")
    same = await listed(Node(dict(held)), "huge")
    other = await listed(Node({**held, "huge/e4": "another"}), "huge")

    assert one == same
    assert one[:2] == other[:2] == (5, 5)
    assert one != other


async def test_another_value_under_the_same_revision_differs_and_so_does_a_lack() -> None:
    held = {f"huge/e{n}": str(n) for n in range(250)}
    lacking = {name: text for name, text in held.items() if name != "huge/e7"}
    nodes = [Node(held), Node({**held, "huge/e201": "wrong"}), Node(lacking)]

    assert await differing(nodes, list(held)) == 2
    assert await differing(nodes[:1] * 3, list(held)) == 0


async def test_what_no_node_answers_counts_as_differing() -> None:
    assert await differing([Node({}), Node({})], [NAME]) == 1


async def test_roots_are_read_from_the_directory_of_a_node_that_has_ended(tmp_path: Path) -> None:
    opened = open_data_directory(
        tmp_path, key_file=tmp_path / "local.key", admin_token="", insecure=True, rng=SystemRng()
    )
    uid = opened.record.node_uid
    store = await DurableStore.open(tmp_path, opened.sealer, opened.digest_key, uid, SystemClock())
    change = Change(Kind.VARIABLE, "A", "1", False, ZERO)
    commit = Commit(NAME, Stamp(0, 1 << 16, uid), (change,))
    after = Environment(NAME).apply(commit)
    state = StoredState(after, digest.revision(after, opened.digest_key))
    assert store.head(NAME) is None
    await store.append(LogRecord(partition_of(NAME), uid, 1, commit), state)
    await store.flush()
    expected = store.roots().partitions
    await store.close()
    opened.close()

    found = roots(tmp_path)

    assert found == expected
    assert found[partition_of(NAME)] != 0


def test_partitions_differ_but_not_those_of_envds_own_environments() -> None:
    one, other = [0] * PARTITIONS, [0] * PARTITIONS
    other[partition_of(NAME)] = 1
    other[partition_of("sys/topology")] = 1

    assert differing_roots([one, one, one]) == 0
    assert differing_roots([one, one, other]) == 1
