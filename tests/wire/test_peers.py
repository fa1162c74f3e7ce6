"""Frames between nodes: pinned bytes, neighbours of another version, rubbish."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Corrupt
from envd.wire import peers
from envd.wire.peers import Frame

Golden = Callable[[str, bytes], bytes]
VECTORS = [(7, [1, 4095], [9, 1 << 40]), ((1 << 64) - 1, [0], [1])]
FRAMES: dict[str, Frame] = {
    "hello": peers.Hello(1, 1, "prod", "c1d2", 7, 3, b"b" * 16, b"n" * 32, "log"),
    "hello-back": peers.HelloBack(1, "c1d2", 8, 4, b"c" * 16, b"m" * 32),
    "proof": peers.Proof(b"p" * 32),
    "refusal": peers.Refusal("OTHER_CLUSTER", "this node belongs to another cluster"),
    "resume": peers.Resume(100, 90, VECTORS),
    "batch": peers.Batch(5, 104, [b"first row", b"second row"]),
    "ack": peers.Ack(5),
    "beat": peers.Beat(17, 1_700_000_000_000, 104, 99),
    "beat-back": peers.BeatBack(17, 1_700_000_000_001, VECTORS),
    "lost": peers.Lost(5000),
    "call": peers.Call(3, "repair.groups", b"body"),
    "reply": peers.Reply(3, b"body"),
    "fault": peers.Fault(3, "NotFound", "GONE", "it is not there", "look elsewhere"),
}
BODIES: dict[str, msgspec.Struct] = {
    "point": peers.Point(12, VECTORS),
    "tree": peers.TreeAnswer(b"r" * 16, b"v" * 16, b"\x01\x00"),
    "part": peers.Part(b"", ["a/b"], [b"d" * 16]),
    "listed": peers.Listed(["a/b"], [b"d" * 16]),
    "wanted": peers.Wanted("a/b", b"s" * 40, b"d" * 16),
    "missing": peers.Missing("a/b", [b"commit"], b"base", True),
    "discover": peers.Discover("prod", 7, [(7, 3), (8, 3)]),
    "discovered": peers.Discovered("prod", 8, "c1d2", "127.0.0.1:7420", []),
    "forwarded": peers.Forwarded("write", b"message", "admin", True),
    "forwarded-read": peers.ForwardedRead(b"message"),
    "join-request": peers.JoinRequest("n2"),
    "ticket": peers.Ticket("c1d2", b"k" * 32),
}


def test_every_kind_of_frame_is_pinned() -> None:
    assert {type(frame) for frame in FRAMES.values()} == set(Frame.__subclasses__())


@pytest.mark.parametrize("name", FRAMES)
def test_frames_keep_their_bytes(name: str, golden: Golden) -> None:
    encoded = peers.encode(FRAMES[name])

    assert golden(f"peer-{name}", encoded) == encoded
    assert peers.decode(encoded) == FRAMES[name]


@pytest.mark.parametrize("name", BODIES)
def test_bodies_keep_their_bytes(name: str, golden: Golden) -> None:
    body = BODIES[name]
    packed = peers.pack(body)

    assert golden(f"peer-body-{name}", packed) == packed
    assert peers.unpack(type(body), packed) == body


@pytest.mark.parametrize("name", FRAMES)
def test_fields_that_a_newer_version_adds_are_passed_over(name: str) -> None:
    encoded = peers.encode(FRAMES[name])
    fields = msgspec.msgpack.decode(encoded[1:])
    newer = encoded[:1] + msgspec.msgpack.encode([*fields, "new", {"more": 1}])

    assert peers.decode(newer) == FRAMES[name]


@pytest.mark.parametrize(
    ("frame", "fields"),
    [(peers.BeatBack(17, 5), 2), (peers.Fault(3, "NotFound", "GONE", "it is not there"), 4)],
)
def test_fields_that_were_added_later_may_be_missing(frame: Frame, fields: int) -> None:
    encoded = peers.encode(frame)
    older = encoded[:1] + msgspec.msgpack.encode(msgspec.msgpack.decode(encoded[1:])[:fields])

    assert peers.decode(older) == frame


def test_a_kind_of_a_newer_version_is_told_from_rubbish() -> None:
    assert peers.decode(b"\xfa\x90") is None
    with pytest.raises(Corrupt):
        peers.decode(b"")


@given(st.binary(max_size=200))
def test_rubbish_is_an_error_and_nothing_else(rubbish: bytes) -> None:
    try:
        frame = peers.decode(rubbish)
    except Corrupt:
        return

    assert frame is None or peers.decode(peers.encode(frame)) == frame


@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=200))
def test_a_rubbish_body_is_an_error_and_nothing_else(name: str, rubbish: bytes) -> None:
    kind = type(BODIES[name])
    try:
        body = peers.unpack(kind, rubbish)
    except Corrupt:
        return

    assert isinstance(body, kind)


def test_no_error_quotes_what_could_not_be_read() -> None:
    canary = b"\x12" + msgspec.msgpack.encode(["canary-value"])

    with pytest.raises(Corrupt) as caught:
        peers.decode(canary)

    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None
