"""Sealed gossip: authentic, opened once, and cheap to refuse."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envd.core.errors import Unauthenticated
from envd.ports import Opened
from envd.security.cluster_secret import SharedSecret
from envd.security.datagrams import (
    MAX_GENERATION,
    OVERHEAD_BYTES,
    WINDOW,
    SealedDatagrams,
)
from tests.security.test_sealing import CountingRng

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
NAME, UID, ME = "default", 0xA11CE, 0xB0B


class SeededRng:
    """Bytes that look random, another stream for each seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)


def node(
    uid: int = UID,
    generation: int = 1,
    *,
    keys: tuple[bytes, ...] = (OLD,),
    name: str = NAME,
    seed: int = 0,
    boots: int = 1000,
) -> SealedDatagrams:
    rng = SeededRng(seed or uid << 32 | generation)
    return SealedDatagrams(SharedSecret(keys), name, uid, generation, rng, boots=boots)


def takes(me: SealedDatagrams, datagram: bytes) -> bool:
    try:
        me.open(datagram)
    except Unauthenticated:
        return False
    return True


@pytest.fixture
def me() -> SealedDatagrams:
    return node(ME)


@given(st.binary(max_size=1400), st.integers(0, 2**64 - 1), st.integers(0, MAX_GENERATION))
def test_what_a_member_seals_opens_with_who_it_was(
    payload: bytes, uid: int, generation: int
) -> None:
    peer, me = node(uid, generation, seed=1), node(ME, seed=2)

    datagram = peer.seal(payload)

    assert len(datagram) == len(payload) + OVERHEAD_BYTES
    assert me.open(datagram) == Opened(uid, generation, peer.boot_id, payload)


def test_a_datagram_is_made_as_it_was_always_made(golden: Callable[[str, bytes], bytes]) -> None:
    peer = SealedDatagrams(SharedSecret((OLD,)), NAME, UID, 7, CountingRng())
    peer.seal(b"first")

    datagram = peer.seal(b"second")

    assert datagram == golden("datagram", datagram)
    assert node(ME).open(golden("datagram", datagram)).payload == b"second"


def test_nothing_of_the_payload_shows(me: SealedDatagrams) -> None:
    peer = node()

    one, two = peer.seal(b"payload" * 10), peer.seal(b"payload" * 10)

    assert b"payload" not in one
    assert one[OVERHEAD_BYTES - 16 :] != two[OVERHEAD_BYTES - 16 :]
    assert "payload" not in repr(me.open(one))


# -- what is refused -------------------------------------------------------------------


@given(st.data())
def test_no_flipped_bit_opens(data: st.DataObject) -> None:
    me, datagram = node(ME), node().seal(b"payload")
    place = data.draw(st.integers(0, 8 * len(datagram) - 1))
    flipped = bytearray(datagram)
    flipped[place // 8] ^= 1 << place % 8

    assert not takes(me, bytes(flipped))
    assert takes(me, datagram)


@given(st.binary(max_size=200))
def test_rubbish_is_refused(rubbish: bytes) -> None:
    me, datagram = node(ME), node().seal(b"payload")

    assert not takes(me, rubbish)
    assert not takes(me, datagram[: OVERHEAD_BYTES - 16] + rubbish)
    assert not takes(me, datagram + rubbish + b"x")


def test_a_datagram_cut_short_anywhere_is_refused(me: SealedDatagrams) -> None:
    datagram = node().seal(b"payload")

    assert not any(takes(me, datagram[:length]) for length in range(len(datagram)))


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param(node(name="other"), id="another-cluster-name"),
        pytest.param(node(keys=(OTHER,)), id="another-secret"),
        pytest.param(node(name="default2"), id="a-longer-name"),
    ],
)
def test_another_cluster_is_refused(me: SealedDatagrams, stranger: SealedDatagrams) -> None:
    assert not takes(me, stranger.seal(b"payload"))


def test_what_strangers_send_is_not_remembered() -> None:
    me, peer = node(ME, boots=2), node()
    known = peer.seal(b"")
    me.open(known)

    for number in range(10):
        datagram = bytearray(node(number + 1, seed=number + 1).seal(b""))
        datagram[-1] ^= 1
        assert not takes(me, bytes(datagram))

    assert takes(me, peer.seal(b""))


def test_a_node_refuses_what_comes_back_to_it(me: SealedDatagrams) -> None:
    before = me.seal(b"mine")
    me.become(ME, 2)

    assert not takes(me, before)
    assert not takes(me, me.seal(b"mine"))


def test_a_node_that_becomes_another_speaks_as_that_one_with_a_new_boot() -> None:
    peer, me = node(), node(ME)
    before = me.open(peer.seal(b""))

    peer.become(UID + 1, 5)
    after = me.open(peer.seal(b""))

    assert (after.uid, after.generation) == (UID + 1, 5)
    assert after.boot_id != before.boot_id


@pytest.mark.parametrize("generation", [-1, MAX_GENERATION + 1])
def test_a_generation_that_does_not_fit_is_refused(generation: int) -> None:
    with pytest.raises(ValueError, match="generation"):
        node(UID, generation, seed=1)


# -- replays ---------------------------------------------------------------------------


def test_a_repeat_is_refused(me: SealedDatagrams) -> None:
    datagram = node().seal(b"payload")

    assert [takes(me, datagram) for _ in range(3)] == [True, False, False]


@given(st.permutations(range(40)), st.integers(0, 39))
def test_each_is_opened_once_in_whatever_order_they_come(order: list[int], twice: int) -> None:
    me, peer = node(ME), node()
    datagrams = [peer.seal(b"%d" % number) for number in range(40)]

    opened = [me.open(datagrams[number]).payload for number in order]

    assert opened == [b"%d" % number for number in order]
    assert not takes(me, datagrams[twice])


_PEER = node()
DATAGRAMS = [_PEER.seal(b"") for _ in range(3 * WINDOW + 1)]


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
@example([1500, 1501 - WINDOW, 1500 - WINDOW])
@example([0, WINDOW, 1, 0])
def test_the_window_takes_exactly_what_is_new_and_not_too_old(order: list[int]) -> None:
    me = node(ME)
    opened: set[int] = set()

    for number in order:
        expected = number not in opened and number > max(opened, default=0) - WINDOW
        assert takes(me, DATAGRAMS[number]) is expected
        if expected:
            opened.add(number)


def test_boots_and_generations_of_one_node_have_windows_of_their_own(me: SealedDatagrams) -> None:
    boots = [node(UID, 1, seed=1), node(UID, 1, seed=2), node(UID, 2, seed=3)]
    datagrams = [boot.seal(b"") for boot in boots]

    opened = [me.open(datagram) for datagram in datagrams]

    assert len({one.boot_id for one in opened}) == 3
    assert not any(takes(me, datagram) for datagram in datagrams)


def test_what_is_recorded_of_a_forgotten_boot_never_opens_again() -> None:
    me = node(ME, boots=3)
    quiet = node(UID, 4)
    opened, recorded = quiet.seal(b"1"), quiet.seal(b"2")
    assert takes(me, opened)

    for uid in range(1, 4):
        assert takes(me, node(uid).seal(b""))

    assert not takes(me, opened)
    assert not takes(me, recorded)
    assert takes(me, node(UID, 5).seal(b"back with a higher generation"))


def test_who_was_heard_lately_is_not_forgotten() -> None:
    me, busy = node(ME, boots=3), node(UID)

    for uid in range(1, 10):
        assert takes(me, busy.seal(b""))
        assert takes(me, node(uid).seal(b""))

    assert takes(me, busy.seal(b""))


# -- exchanging the secret -------------------------------------------------------------


def test_a_secret_is_exchanged_without_a_gap() -> None:
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]

    for before, after in pairwise(steps):
        one, two = node(1, keys=before), node(2, keys=after)
        assert takes(one, two.seal(b""))
        assert takes(two, one.seal(b""))


def test_a_key_that_was_dropped_opens_nothing_more() -> None:
    assert not takes(node(ME, keys=(NEW,)), node(keys=(OLD,)).seal(b""))
