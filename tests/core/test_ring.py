"""The ring: the partition of a name is part of the stored format."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of


@pytest.mark.parametrize(
    ("environment", "residency_class", "partition"),
    [
        ("a", "", 3104),
        ("team/app/prod", "", 1375),
        ("team/app/dev", "", 2135),
        ("x" * 255, "", 80),
        ("team/app/prod", "eu", 2208),
        ("team/app/prod", "us", 409),
    ],
)
def test_known_names_keep_their_partitions(
    environment: str, residency_class: str, partition: int
) -> None:
    assert partition_of(environment, residency_class) == partition


def test_a_partition_is_the_top_twelve_bits_of_the_hash_of_class_and_name() -> None:
    digest = blake2b(b"eu\0team/app/prod", digest_size=8).digest()

    assert PARTITIONS == 4096
    assert partition_of("team/app/prod", "eu") == (digest[0] << 4) + (digest[1] >> 4)


def test_the_environments_of_the_system_are_in_one_partition() -> None:
    digest = blake2b(b"\0sys/topology", digest_size=8).digest()

    assert SYSTEM_PARTITION == (digest[0] << 4) + (digest[1] >> 4) == 2393
    for name in ("sys/topology", "sys/leases/a", "sys/x/y"):
        assert partition_of(name) == partition_of(name, "eu") == SYSTEM_PARTITION
    for name in ("system/a", "sys-a/b", "a/sys/b"):
        assert partition_of(name) != SYSTEM_PARTITION


def test_other_names_may_be_beside_those_of_the_system() -> None:
    names = (f"a{number}" for number in range(100_000))

    assert any(partition_of(name) == SYSTEM_PARTITION for name in names)


def test_names_spread_evenly_over_all_partitions() -> None:
    per_partition = 16
    counts = [0] * PARTITIONS

    for number in range(per_partition * PARTITIONS):
        counts[partition_of(f"team-{number % 50}/app-{number}/prod")] += 1

    # Chi-squared of a fair spread: mean 4095, standard deviation 90; five of them are allowed.
    chi_squared = sum((count - per_partition) ** 2 / per_partition for count in counts)
    assert 4095 - 450 < chi_squared < 4095 + 450
