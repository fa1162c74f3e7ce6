"""The bytes of membership: round trips, golden bytes, room for later versions, and rubbish."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Corrupt, Unsupported
from envd.core.members import Member, MemberState
from envd.core.swim.messages import (
    Ack,
    Announcement,
    Claim,
    Exchange,
    Gossip,
    Hello,
    Here,
    Message,
    Nack,
    News,
    Packet,
    Ping,
    PingRequest,
    Row,
    room_for_news,
)
from envd.wire import gossip
from tests.fuzz.mutations import damaged

Golden = Callable[[str, bytes], bytes]
U64 = (1 << 64) - 1
CLUSTER = "0123456789abcdef0123456789abcdef"
MEMBER = Member(
    uid=U64,
    generation=(1 << 32) - 1,
    incarnation=300,
    state=MemberState.SUSPECT,
    name="node-1",
    gossip="10.0.0.1:7421",
    peer="10.0.0.1:7420",
    http="10.0.0.1:7422",
    region="eu-west",
    zone="a",
    role="storage",
    boot_id=bytes(range(16)),
    versions=(1, 2),
    release="1.2.3",
)
NEWS: tuple[News, ...] = (
    Claim(U64, 7, 1 << 40, MemberState.DOWN, 0xA1),
    Claim(1, 1, 0, MemberState.ALIVE),
    Announcement(MEMBER, 0xB2),
)
PACKETS = {
    "gossip": Packet(CLUSTER, Gossip(), NEWS),
    "ping": Packet(CLUSTER, Ping(0xFFFF_FFFF, U64), NEWS[:1]),
    "ack": Packet(CLUSTER, Ack(1)),
    "nack": Packet(CLUSTER, Nack(2)),
    "ping-request": Packet(CLUSTER, PingRequest(3, 0xA1, "[::1]:7421")),
    "hello": Packet("", Hello(4)),
    "here": Packet(CLUSTER, Here(5, MEMBER)),
}
EXCHANGE = Exchange(CLUSTER, 0xA1, (Row(MEMBER), Row(MEMBER, 86_400_000)))


@pytest.mark.parametrize("name", PACKETS)
def test_datagrams_have_these_bytes(name: str, golden: Golden) -> None:
    raw = gossip.encode_packet(PACKETS[name])

    assert golden(f"gossip-{name}", raw) == raw
    assert gossip.decode_packet(raw) == PACKETS[name]


def test_exchanges_have_these_bytes(golden: Golden) -> None:
    raw = gossip.encode_exchange(EXCHANGE)

    assert golden("gossip-exchange", raw) == raw
    assert gossip.decode_exchange(raw) == EXCHANGE


# -- any value -----------------------------------------------------------------------------

uids = st.integers(0, U64)
generations = st.integers(0, (1 << 32) - 1)
incarnations = st.integers(0, 1 << 53)
states = st.sampled_from(MemberState)
seqs = st.integers(0, (1 << 32) - 1)
words = st.text(max_size=40)
members = st.builds(
    Member,
    uids,
    generations,
    incarnations,
    states,
    *[words] * 4,
    *[words] * 3,
    st.binary(max_size=16),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    words,
)
news = st.one_of(
    st.builds(Claim, uids, generations, incarnations, states, uids),
    st.builds(Announcement, members, uids),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.just(Gossip()),
    st.builds(Ping, seqs, uids),
    st.builds(Ack, seqs),
    st.builds(Nack, seqs),
    st.builds(PingRequest, seqs, uids, words),
    st.builds(Hello, seqs),
    st.builds(Here, seqs, members),
)
packets = st.builds(Packet, words, messages, st.lists(news, max_size=4).map(tuple))


@given(packets)
def test_any_packet_comes_back(packet: Packet) -> None:
    assert gossip.decode_packet(gossip.encode_packet(packet)) == packet


@given(st.builds(Exchange, words, uids, st.lists(st.builds(Row, members), max_size=4).map(tuple)))
def test_any_exchange_comes_back(exchange: Exchange) -> None:
    assert gossip.decode_exchange(gossip.encode_exchange(exchange)) == exchange


@given(packets.filter(lambda packet: not isinstance(packet.message, Here)))
def test_sizes_that_the_core_reckons_with_are_never_too_small(packet: Packet) -> None:
    room = room_for_news(10_000, packet.cluster, packet.message)
    reckoned = 10_000 - room + sum(item.size_bytes for item in packet.news)

    assert len(gossip.encode_packet(packet)) <= reckoned + _wide(packet.message)


def _wide(message: Message) -> int:
    """Addresses are reckoned with as the ASCII that they are; hypothesis writes others."""
    if not isinstance(message, PingRequest):
        return 0
    return len(message.address.encode()) - len(message.address)


# -- other versions ------------------------------------------------------------------------


def packed(*fields: object) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(fields)


def test_a_message_of_an_unknown_kind_is_passed_over_and_its_news_is_not() -> None:
    claim = Claim(1, 2, 3, MemberState.ALIVE, 0)
    raw = packed(CLUSTER, 77, {"some": "thing"}, [[0, [1, 2, 3, 0, 0]], [99, "new"]])

    assert gossip.decode_packet(raw) == Packet(CLUSTER, Gossip(), (claim,))


def test_a_state_that_is_not_known_yet_is_passed_over() -> None:
    row = [*range(4), "n", "g:1", "p:1", "", "r", "z", "storage", b"", 1, 1, ""]
    row[3] = 9
    packet = gossip.decode_packet(packed("", 6, [1, row], [[0, [1, 2, 3, 9, 0]], [1, [0, row]]]))
    exchange = gossip.decode_exchange(packed("", 1, [[row, 0]]))

    assert packet == Packet("", Gossip(), ())
    assert exchange == Exchange("", 1, ())


def test_fields_added_by_a_later_version_are_passed_over() -> None:
    claim = [1, 2, 3, 0, 0, "later"]
    raw = packed("", 1, [5, 6, "later"], [[0, claim, "later"]], "later")

    assert gossip.decode_packet(raw) == Packet(
        "", Ping(5, 6), (Claim(1, 2, 3, MemberState.ALIVE, 0),)
    )


@pytest.mark.parametrize("decode", [gossip.decode_packet, gossip.decode_exchange])
def test_a_newer_version_is_refused_with_what_to_do(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(Unsupported) as caught:
        decode(b"\x02whatever")

    assert caught.value.reason == "VERSION_SKEW"
    assert "upgrade" in caught.value.hint


# -- rubbish -------------------------------------------------------------------------------


def survives(decode: Callable[[bytes], object], raw: bytes) -> None:
    try:
        decode(raw)
    except (Corrupt, Unsupported):
        return


@given(st.binary(max_size=200))
def test_rubbish_is_an_error_and_no_crash(raw: bytes) -> None:
    for decode in (gossip.decode_packet, gossip.decode_exchange):
        survives(decode, raw)
        survives(decode, b"\x01" + raw)


@given(st.sampled_from(sorted(PACKETS)).flatmap(lambda name: damaged(_encoded(name))))
def test_a_damaged_datagram_is_an_error_and_no_crash(raw: bytes) -> None:
    survives(gossip.decode_packet, raw)


@given(damaged(gossip.encode_exchange(EXCHANGE)))
def test_a_damaged_exchange_is_an_error_and_no_crash(raw: bytes) -> None:
    survives(gossip.decode_exchange, raw)


def _encoded(name: str) -> bytes:
    return gossip.encode_packet(PACKETS[name])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01" + b"\x91" * 60_000,
        b"\x01\xdd\xff\xff\xff\xff",
        packed("x" * 65, 0, [], []),
        packed("", 0, [], [[9, 0]] * (gossip.MAX_NEWS + 1)),
        packed("", 1, [-1, 5], []),
        packed("", 1, [1 << 32, 5], []),
        packed("", 0, [], [[0, [1, 1 << 32, 0, 0, 0]]]),
        packed("", 0, [], [[0, [1, 1, (1 << 53) + 1, 0, 0]]]),
        b"\x01" + bytes(gossip.MAX_PACKET_BYTES),
    ],
    ids=range(12),
)
def test_what_is_out_of_bounds_is_refused(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        gossip.decode_packet(raw)


def test_an_exchange_is_bounded() -> None:
    with pytest.raises(Corrupt):
        gossip.decode_exchange(b"\x01" + bytes(gossip.MAX_EXCHANGE_BYTES))
