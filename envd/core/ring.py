"""Where an environment lies: one of Q = 4096 partitions, by a hash of its name.

Consistent hashing with a fixed table (Dynamo, section 6.2, strategy 3): the partition of a
name never changes; which nodes hold a partition does.
"""

from __future__ import annotations

from hashlib import blake2b

from envd.core.names import RESERVED_SEGMENT

PARTITIONS = 4096
_PARTITION_BITS = PARTITIONS.bit_length() - 1
_HASH_BYTES = 8


def partition_of(environment: str, residency_class: str = "") -> int:
    """The top 12 bits of blake2b-64(class, NUL, environment); `class` is "" without a pin.

    The environments of the system itself are in one, which all storage nodes hold.
    """
    if environment.startswith(f"{RESERVED_SEGMENT}/"):
        return SYSTEM_PARTITION
    return _hashed(environment, residency_class)


def _hashed(environment: str, residency_class: str) -> int:
    digest = blake2b(f"{residency_class}\0{environment}".encode(), digest_size=_HASH_BYTES)
    return int.from_bytes(digest.digest()) >> (8 * _HASH_BYTES - _PARTITION_BITS)


SYSTEM_PARTITION = _hashed(f"{RESERVED_SEGMENT}/topology", "")
