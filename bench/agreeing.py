"""Whether nodes hold the same: by what each answers, and by the roots of their states.

A revision is a hash of all that an environment shows, so two lists with the same names and
revisions are of the same environments. Roots cover histories and tombstones too; they are read from
the data directories of nodes that have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from bench.light import Caller
from bench.node import SERVICE
from envd.core.history import Retention
from envd.core.ring import PARTITIONS, partition_of
from envd.security.sealing import LocalSealer, read_key_file, read_keyring
from envd.storage.check import STATE_NAME
from envd.storage.state import StateDb
from envd.system import SystemRng
from envd.wire._pb import environment_pb2 as pb

_PAGE: Final = 1_000
_BATCH: Final = 100
_MAP_BYTES: Final = 256 << 30
_OWN: Final = ("sys/topology",)
"""Environments of envd's own that nodes write while others have ended already."""


class Listed(NamedTuple):
    """What one node lists: environments, their variables, and a hash of names and revisions."""

    environments: int
    variables: int
    hashed: bytes


async def listed(light: Caller, prefix: str) -> Listed:
    """All that a node has below a prefix."""
    environments = variables = 0
    hashed = blake2b(digest_size=16)
    after = ""
    while True:
        request = pb.ListRequest(prefix=prefix, after=after, limit=_PAGE)
        raw = await light.call(SERVICE + "List", request.SerializeToString())
        page = pb.ListResponse.FromString(raw)
        environments += len(page.environments)
        for item in page.environments:
            variables += item.variables
            hashed.update(f"{item.environment} {item.revision} {item.variables}\n".encode())
        after = page.next
        if not after:
            return Listed(environments, variables, hashed.digest())


async def differing(lights: Sequence[Caller], names: Sequence[str]) -> int:
    """How many of these environments the nodes do not answer alike: revision and every value."""
    found = 0
    for at in range(0, len(names), _BATCH):
        request = pb.BatchGetRequest(environments=names[at : at + _BATCH]).SerializeToString()
        calls = (light.call(SERVICE + "BatchGet", request) for light in lights)
        answers = [pb.BatchGetResponse.FromString(raw) for raw in await asyncio.gather(*calls)]
        for results in zip(*(answer.results for answer in answers), strict=True):
            shown = {_shown(result) for result in results}
            found += len(shown) > 1 or "" in shown
    return found


def _shown(result: pb.BatchGetResponse.Result) -> str:
    """What an answer shows, whichever node gave it; "" for an error."""
    if not result.HasField("found"):
        return ""
    shown = result.found.environment
    values = [f"{each.name}={each.value}" for each in shown.variables]
    return "\n".join((shown.revision, *values))


def roots(data: Path) -> Sequence[int]:
    """The roots of the state in the data directory of a node that has ended."""
    key_file = data / "local.key"
    keyring = read_keyring(data / "keyring", read_key_file(key_file), key_file)
    sealer = LocalSealer(keyring.storage_keys, SystemRng())
    state = StateDb(
        data / STATE_NAME,
        sealer,
        keyring.digest_key,
        map_size_bytes=_MAP_BYTES,
        retention=Retention(),
    )
    try:
        return state.roots()
    finally:
        state.close()


def differing_roots(states: Sequence[Sequence[int]]) -> int:
    """In how many partitions they differ, but those of envd's own environments."""
    own = set(map(partition_of, _OWN))
    return sum(
        len({state[at] for state in states}) > 1 for at in range(PARTITIONS) if at not in own
    )
