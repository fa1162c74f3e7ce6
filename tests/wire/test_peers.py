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
    "resume-share": peers.ResumeShare(100, 90, VECTORS, b"\x01" + bytes(511)),
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
    "missing": peers.Missing("a/b", [b"commit"], b"base", True, 1 << 40),
    "floor-progress": peers.FloorProgress(1 << 40, 7, 8),
    "discover": peers.Discover("prod", 7, [(7, 3), (8, 3)]),
    "discovered": peers.Discovered("prod", 8, "c1d2", "127.0.0.1:7420", []),
    "forwarded": peers.Forwarded("write", b"message", "admin", True),
    "prepare": peers.Prepare("a/b", 3, (5, 7)),
    "promise": peers.Promise("yes", (5, 7), b"p" * 20, b"q" * 20, (4, 8), b"commit"),
    "accept": peers.Accept("a/b", 3, (5, 7), b"commit"),
    "accepted": peers.Accepted("outbid", (6, (1 << 64) - 1), b"p" * 20),
    "open": peers.Open("a/b", (5, 7), (4, 8), b"q" * 20, b"commit"),
    "offer": peers.Offer(7, 1 << 40, [b"commit"], [b"base"], [(9, 12)]),
    "offer-taken": peers.OfferTaken(3, 12),
    "forwarded-read": peers.ForwardedRead(b"message"),
    "list-asked": peers.ListAsked("web", "web/prod", 100, b"\x01" + bytes(511)),
    "list-share": peers.ListShare(["web/prod"], [b"r" * 16], [3], bytes(512), "web/prod"),
    "conflicts-asked": peers.ConflictsAsked(b"message", bytes(512)),
    "conflicts-share": peers.ConflictsShare(b"message", bytes(512)),
    "export-asked": peers.ExportAsked(["web/prod"], True),
    "export-share": peers.ExportShare(b"message", 1),
    "watch-asked": peers.WatchAsked(b"\x01" + bytes(511), "1.00.7", 5000, bytes(512)),
    "watch-share": peers.WatchShare(bytes(512), "1.00.8", [b"commit"], "too late", {7: b"r" * 16}),
    "lost-asked": peers.LostAsked("web/prod", [b"commit"]),
    "lost-share": peers.LostShare(["a1" * 16]),
    "notes-asked": peers.NotesAsked("bindings/web", {"A": "1"}, ["B"]),
    "sync-asked": peers.SyncAsked("plan", "ann", b"{}"),
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


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (peers.Prepare("a/b", 3), 2),
        (peers.Promise("yes", (5, 7), b"p" * 20), 3),
        (peers.Missing("a/b", [b"commit"], b"base", True), 4),
        (peers.Offer(7, 1 << 40, [b"commit"]), 3),
        (peers.OfferTaken(0), 1),
    ],
)
def test_fields_of_a_body_that_say_nothing_may_be_missing(
    body: msgspec.Struct, fields: int
) -> None:
    shorter = msgspec.msgpack.encode(msgspec.msgpack.decode(peers.pack(body))[:fields])

    assert peers.unpack(type(body), shorter) == body


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_a_newer_version_is_read_as_far_as_it_is_known(name: str) -> None:
    body = BODIES[name]
    newer = msgspec.msgpack.encode([*msgspec.msgpack.decode(peers.pack(body)), "new", {"more": 1}])

    assert peers.unpack(type(body), newer) == body


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_was_cut_off_is_refused(name: str) -> None:
    packed = peers.pack(BODIES[name])

    for end in range(len(packed)):
        with pytest.raises(Corrupt):
            peers.unpack(type(BODIES[name]), packed[:end])


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
