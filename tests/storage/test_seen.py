from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Corrupt
from envd.storage.seen import KEPT_MS, KEY_BYTES, SeenKeys, learn

keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


def key_of(number: int) -> bytes:
    return blake2b(number.to_bytes(8), digest_size=KEY_BYTES).digest()


@given(st.lists(st.tuples(keys, st.integers(0, KEPT_MS)), max_size=30))
def test_no_key_of_the_last_day_is_forgotten(added: list[tuple[bytes, int]]) -> None:
    seen, now_ms = SeenKeys(0, bits=256), 0
    seen.complete()
    times: dict[bytes, int] = {}

    for key, pause_ms in added:
        now_ms += pause_ms
        seen.add(key, now_ms)
        times[key] = now_ms

    assert all(seen.may_hold(key) for key, at in times.items() if now_ms - at <= KEPT_MS)


def test_before_the_past_is_known_every_key_may_have_been_seen() -> None:
    seen = SeenKeys(0, bits=256)
    assert seen.may_hold(key_of(1))

    seen.complete()

    assert not seen.may_hold(key_of(1))


def test_few_new_keys_are_taken_for_known_ones() -> None:
    seen = SeenKeys(0, bits=1 << 14)
    seen.complete()
    for number in range(1_000):
        seen.add(key_of(number), 0)

    wrong = sum(seen.may_hold(key_of(number)) for number in range(1_000, 11_000))

    assert wrong < 500  # 4 places of 16,384 with 1,000 keys: (1 - e^(-4000/16384))^4 = 0.2 %


def test_keys_leave_after_two_days() -> None:
    seen = SeenKeys(0, bits=1 << 14)
    seen.complete()
    seen.add(key_of(1), 0)

    seen.add(key_of(2), KEPT_MS)
    seen.add(key_of(3), 2 * KEPT_MS)

    assert [seen.may_hold(key_of(number)) for number in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("bits", [0, 4, 100])
def test_the_number_of_bits_is_a_power_of_two(bits: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        SeenKeys(0, bits=bits)


async def test_the_keys_of_before_are_learnt_page_by_page() -> None:
    known = sorted(key_of(number) for number in range(2_500))
    seen = SeenKeys(0)

    def after(key: bytes, limit: int) -> Sequence[bytes]:
        return [each for each in known if each > key][:limit]

    await learn(seen, after, 0)

    assert all(map(seen.may_hold, known))
    assert not seen.may_hold(key_of(9_999))


async def test_where_the_keys_of_before_can_not_be_read_every_key_may_be_known() -> None:
    seen = SeenKeys(0)

    def unreadable(key: bytes, limit: int) -> Sequence[bytes]:
        raise Corrupt("damaged")

    await learn(seen, unreadable, 0)

    assert seen.may_hold(key_of(1))
