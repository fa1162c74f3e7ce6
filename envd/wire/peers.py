"""What storage nodes say to each other over a channel: one kind byte, then a msgpack array.

Two versions that differ by one must talk: a frame of an unknown kind is passed over, fields
are only ever added at the end with a default, and both sides name the versions that they speak
before anything else. The bytes are pinned in tests/golden.

Log records travel in the bytes in which they are stored (`records`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from envd.core import shares
from envd.core.errors import Corrupt

LOWEST_VERSION: Final = 1
HIGHEST_VERSION: Final = 1
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
BodyT = TypeVar("BodyT")


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """The parent of all frames."""


# -- the handshake -------------------------------------------------------------------------


class Hello(Frame, array_like=True, frozen=True):
    """The dialer's first frame: who it is and what the channel is for.

    `cluster_id` is "" for one that wants to join. `purpose` is one of PURPOSES.
    """

    lowest: int
    highest: int
    cluster_name: str
    cluster_id: str
    uid: int
    generation: int
    boot_id: bytes
    nonce: bytes
    purpose: str


class HelloBack(Frame, array_like=True, frozen=True):
    """The acceptor's answer; `version` is what is spoken from here."""

    version: int
    cluster_id: str
    uid: int
    generation: int
    boot_id: bytes
    nonce: bytes


class Proof(Frame, array_like=True, frozen=True):
    """Either side's proof over both."""

    proof: bytes


class Refusal(Frame, array_like=True, frozen=True):
    """Why this channel ends; may come at any time."""

    reason: str
    message: str


# -- a log channel: the dialer ships its log -------------------------------------------------


class Resume(Frame, array_like=True, frozen=True):
    """Acceptor: what it holds of the dialer's log, and the vectors of all origins.

    `vectors` has one item (origin, partitions, seqs) for each origin.
    """

    own_lsn: int
    relay_lsn: int
    vectors: Sequence[tuple[int, Sequence[int], Sequence[int]]]


class ResumeShare(Frame, array_like=True, frozen=True):
    """The same of an agent that is fed by several nodes: what it wants of this one, a bitmap."""

    own_lsn: int
    relay_lsn: int
    vectors: Sequence[tuple[int, Sequence[int], Sequence[int]]]
    partitions: bytes


class Batch(Frame, array_like=True, frozen=True):
    """Dialer: records in the order of its log.

    Batches are numbered from 1 on each channel. With `through_lsn` all of the dialer's own
    records up to that lsn are said; 0 where it relays others' records. `floor` (hlc) is the one
    that the dialer is at.
    """

    number: int
    through_lsn: int
    rows: Sequence[bytes]
    floor: int = 0


class Ack(Frame, array_like=True, frozen=True):
    """Acceptor: everything up to this batch is durable."""

    number: int


class Beat(Frame, array_like=True, frozen=True):
    """Dialer, at every heartbeat: its clock, and cursors that the acceptor may remember.

    `own_lsn` and `relay_lsn` claim what `Cursor` does; 0 claims nothing.
    """

    number: int
    wall_ms: int
    own_lsn: int
    relay_lsn: int


class BeatBack(Frame, array_like=True, frozen=True):
    """Acceptor: the same number, its clock, and the vectors that changed since the last one."""

    number: int
    wall_ms: int
    vectors: Sequence[tuple[int, Sequence[int], Sequence[int]]] = ()


class Lost(Frame, array_like=True, frozen=True):
    """Dialer: the log after the cursor is gone; the acceptor must repair, then resume anew."""

    oldest_lsn: int


# -- a call channel: the dialer asks, the acceptor answers -----------------------------------


class Call(Frame, array_like=True, frozen=True):
    """One question; `body` is a msgpack value whose shape the method tells."""

    number: int
    method: str
    body: bytes


class Reply(Frame, array_like=True, frozen=True):
    """The answer to the call of that number."""

    number: int
    body: bytes


class Fault(Frame, array_like=True, frozen=True):
    """The call of that number failed; `kind` is the class of the error, see `api_errors`."""

    number: int
    kind: str
    reason: str
    message: str
    hint: str = ""


PURPOSES: Final = ("log", "call", "join", "feed")
_KINDS: Final[dict[int, type[Frame]]] = {
    1: Hello,
    2: HelloBack,
    3: Proof,
    4: Refusal,
    16: Resume,
    17: Batch,
    18: Ack,
    19: Beat,
    20: BeatBack,
    21: Lost,
    22: ResumeShare,
    32: Call,
    33: Reply,
    34: Fault,
}
_BYTE_OF: Final = {kind: bytes([number]) for number, kind in _KINDS.items()}
_encoder = msgspec.msgpack.Encoder()
_decoders: Final[dict[int, msgspec.msgpack.Decoder[Any]]] = {
    number: msgspec.msgpack.Decoder(kind) for number, kind in _KINDS.items()
}


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return _BYTE_OF[type(frame)] + _encoder.encode(frame)


def decode(raw: bytes) -> Frame | None:
    """The inverse of `encode`; None for a kind that this version does not know.

    Raises Corrupt for anything that no version sends.
    """
    decoder = _decoders.get(raw[0]) if raw else None
    if decoder is None:
        if raw:
            return None
        raise Corrupt("a peer sent an empty frame")
    try:
        frame: Frame = decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not chained: the cause may quote what the frame holds.
        raise Corrupt("a peer sent a frame that does not decode") from None
    return frame


# -- the bodies of calls ---------------------------------------------------------------------


class Point(msgspec.Struct, array_like=True, frozen=True):
    """Where a log stands at one moment: its last lsn and the vectors of all origins."""

    lsn: int
    vectors: Sequence[tuple[int, Sequence[int], Sequence[int]]]


class TreeAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Sums of the children of a node of the tree of roots, with the hash of each one's vectors.

    8 bytes a child in `sums`, the low half of each, and in `vectors`; `settled` has 0 for a child
    of which nothing can be told now, else 1.
    """

    sums: bytes
    vectors: bytes
    settled: bytes


class Part(msgspec.Struct, array_like=True, frozen=True):
    """A partition: its environments with their digests, or where they are many, bucket `sums`."""

    sums: bytes
    names: Sequence[str] = ()
    digests: Sequence[bytes] = ()


class Listed(msgspec.Struct, array_like=True, frozen=True):
    """Environments of a bucket with their digests."""

    names: Sequence[str]
    digests: Sequence[bytes]


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """What the asker holds of one environment: the stamps of its commits, and its base's digest."""

    environment: str
    stamps: bytes
    base_digest: bytes


class Missing(msgspec.Struct, array_like=True, frozen=True):
    """What the asker lacks of that environment: stored commits, and the base where it differs.

    `more`: there are more commits than fit; asked again, they come. `floor` (hlc) is the one that
    the answering node is at.
    """

    environment: str
    commits: Sequence[bytes]
    base: bytes = b""
    more: bool = False
    floor: int = 0


class Discover(msgspec.Struct, array_like=True, frozen=True):
    """A datagram of a node without a cluster to one that may have one.

    `empty` are (uid, expect) of the nodes without a cluster that it knows of, itself first;
    `expect` is how many are to found one, 0 for never.
    """

    cluster_name: str
    uid: int
    empty: Sequence[tuple[int, int]]


class Discovered(msgspec.Struct, array_like=True, frozen=True):
    """The answer: `cluster_id` and where to dial, or "" and the empty nodes that it knows of."""

    cluster_name: str
    uid: int
    cluster_id: str
    peer: str
    empty: Sequence[tuple[int, int]] = ()


class Forwarded(msgspec.Struct, array_like=True, frozen=True):
    """A write for another node to make: its `kind`, the public request, and for whom."""

    kind: str
    message: bytes
    author: str
    may_reveal: bool


class Prepare(msgspec.Struct, array_like=True, frozen=True):
    """A proposer asks for a promise: the environment, its ballot, the epoch it counts in.

    Also the question for how things stand, with no ballot; epoch 0 is that of the topology itself.
    """

    environment: str
    epoch: int
    ballot: tuple[int, int] = (0, 0)


class Promise(msgspec.Struct, array_like=True, frozen=True):
    """An acceptor's answer: a `paxos.Verdict`, its highest promise and the position of its log.

    `place`, `ballot` and `value` tell what it accepted that its log does not hold, empty for none.
    """

    verdict: str
    promised: tuple[int, int]
    position: bytes
    place: bytes = b""
    ballot: tuple[int, int] = (0, 0)
    value: bytes = b""


class Accept(msgspec.Struct, array_like=True, frozen=True):
    """A proposer asks an acceptor to accept a commit in its stored bytes.

    `again`: another acceptor accepted it before.
    """

    environment: str
    epoch: int
    ballot: tuple[int, int]
    value: bytes
    again: bool = False


class Accepted(msgspec.Struct, array_like=True, frozen=True):
    """The answer: a `paxos.Verdict`, the acceptor's highest promise, the position of its log."""

    verdict: str
    promised: tuple[int, int]
    position: bytes


class AskOpen(msgspec.Struct, array_like=True, frozen=True):
    """A node that takes over asks what is open, after a name, once who is asked counts in `epoch`.

    Only in these partitions (a bitmap), where they are named.
    """

    epoch: int
    after: str = ""
    partitions: bytes = b""


class Open(msgspec.Struct, array_like=True, frozen=True):
    """Something that an acceptor accepted and that its log does not hold."""

    environment: str
    promised: tuple[int, int]
    ballot: tuple[int, int]
    place: bytes
    value: bytes


class PartitionProgress(msgspec.Struct, array_like=True, frozen=True):
    """How far a node is with the moves of partitions: the epoch that it knows, and two bitmaps.

    Those that it pulled for their present moves, and those of which it has something although it
    does not hold them.
    """

    epoch: int
    pulled: bytes
    kept: bytes


class FloorProgress(msgspec.Struct, array_like=True, frozen=True):
    """How far a node is with raising the floor, see `core.sealing.Sealed`."""

    floor: int
    sealed: int
    gathered: int


class TakePartitions(msgspec.Struct, array_like=True, frozen=True):
    """Who does not hold these (a bitmap) in its `epoch` asks one that does to pull them from it.

    The answer is the bitmap of those that are pulled.
    """

    epoch: int
    partitions: bytes


class Offer(msgspec.Struct, array_like=True, frozen=True):
    """What a node that returns has of a partition, for one that holds it and is at the `floor`.

    Stored commits, and bases. `after` are (origin, seq) of records that must have come there: they
    tell what of it others put on record.
    """

    partition: int
    floor: int
    commits: Sequence[bytes]
    bases: Sequence[bytes] = ()
    after: Sequence[tuple[int, int]] = ()


class OfferTaken(msgspec.Struct, array_like=True, frozen=True):
    """The answer, once all is durable: how many commits came too late.

    Where some did, what they wrote is on record by the `recorded` record of who answers (its seq).
    """

    late: int
    recorded: int = 0


class ForwardedRead(msgspec.Struct, array_like=True, frozen=True):
    """A read for another node to answer from its own copy: the public request, with its token.

    The asker has checked the rights of whoever reads.
    """

    message: bytes


class ListAsked(msgspec.Struct, array_like=True, frozen=True):
    """A question for environments below a prefix, after a name, of these partitions alone."""

    prefix: str
    after: str
    limit: int
    partitions: bytes


class ListShare(msgspec.Struct, array_like=True, frozen=True):
    """The answer: environments in order of name, of the `partitions` that the node has all of.

    It is whole up to the name `through`, or to the end where that is "".
    """

    names: Sequence[str]
    revisions: Sequence[bytes]
    variables: Sequence[int]
    partitions: bytes
    through: str = ""


class ConflictsAsked(msgspec.Struct, array_like=True, frozen=True):
    """A question for conflicts of these partitions alone: the public request."""

    message: bytes
    partitions: bytes


class ConflictsShare(msgspec.Struct, array_like=True, frozen=True):
    """The public answer, of the `partitions` that the node has all of."""

    message: bytes
    partitions: bytes


class ExportAsked(msgspec.Struct, array_like=True, frozen=True):
    """A question for whole environments. The asker has checked the rights of whoever reads."""

    names: Sequence[str]
    reveal: bool


class ExportShare(msgspec.Struct, array_like=True, frozen=True):
    """The public answer for the first `covered` of them, without those that do not exist."""

    message: bytes
    covered: int


class WatchAsked(msgspec.Struct, array_like=True, frozen=True):
    """A question for the commits to these partitions after a watch token of the node that is asked.

    Where there are none yet, it waits so long for one. Without a token nothing is told but one.
    Of `roots`, which are some of the partitions or none (empty), the fingerprints are asked too.
    """

    partitions: bytes
    token: str = ""
    wait_ms: int = 0
    roots: bytes = b""


class WatchShare(msgspec.Struct, array_like=True, frozen=True):
    """The answer: public commits in the order in which the node took them in, of the `partitions`
    that it answers for; `token` goes on behind them.

    Where it can't go on after the token that was asked with, `reset` says why, and there are none.
    `roots` are fingerprints, by partition, of the state that follows from all told up to `token`;
    those that can't be said now are left out.
    """

    partitions: bytes
    token: str
    commits: Sequence[bytes] = ()
    reset: str = ""
    roots: Mapping[int, bytes] = {}


class LostAsked(msgspec.Struct, array_like=True, frozen=True):
    """Stored commits to one environment that were never applied, to be put on record as lost."""

    environment: str
    commits: Sequence[bytes]


class LostShare(msgspec.Struct, array_like=True, frozen=True):
    """The answer, once it is durable: the ids of those of their conflicts that are open."""

    ids: Sequence[str]


class NotesAsked(msgspec.Struct, array_like=True, frozen=True):
    """Changes to one of the reconciler's documents, for another node to make."""

    name: str
    puts: Mapping[str, str]
    unsets: Sequence[str] = ()


class SyncAsked(msgspec.Struct, array_like=True, frozen=True):
    """Something for the reconciler of another node to do: what, for whom, and the request.

    The asker has checked who that is.
    """

    method: str
    identity: str
    body: bytes


class JoinRequest(msgspec.Struct, array_like=True, frozen=True):
    """What a node without a cluster says of itself."""

    name: str


class Ticket(msgspec.Struct, array_like=True, frozen=True):
    """What a node needs to belong to the cluster."""

    cluster_id: str
    digest_key: bytes


def pack(body: object) -> bytes:
    """The msgpack of a body."""
    return _encoder.encode(body)


def unpack(kind: type[BodyT], raw: bytes) -> BodyT:
    """The inverse of `pack`; raises Corrupt."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("a peer sent a body that does not decode") from None


def mask_in(bitmap: bytes) -> int:
    """The set of partitions (`core.shares`) that a bitmap in a body names; raises Corrupt."""
    try:
        return shares.unpack_mask(bitmap)
    except ValueError:
        raise Corrupt("a peer named partitions in a form that is none") from None


def partitions_of(bitmap: bytes) -> frozenset[int]:
    """The partitions that a bitmap in a body names; raises Corrupt."""
    return shares.members(mask_in(bitmap))
