"""Membership at work: drives the machine of `core.swim` over the ports.

The machine says what is to be done; this sends datagrams, runs exchanges and stream pings in
tasks of its own, and never lets the machine wait for any of them. Time is that of the event loop.
What it promises: listeners hear of each change once and in order; a seed is asked for ever; a
datagram that can't be opened or read is counted and changes nothing; tasks and their time are
bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Final, assert_never

from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from envd.core.members import Member, MemberState
from envd.core.swim.config import LAN, WAN, SwimConfig
from envd.core.swim.events import (
    Changed,
    DuplicateIdentity,
    Effect,
    Event,
    Forgotten,
    HeardFrom,
    Leave,
    Merge,
    PushPull,
    Received,
    Remove,
    Renew,
    Renewed,
    Seeds,
    Send,
    Sender,
    StreamAnswered,
    StreamPing,
    Tick,
)
from envd.core.swim.machine import Swim
from envd.core.swim.messages import Exchange
from envd.ports import Datagrams, DatagramSealer, Rng
from envd.wire import gossip

MAX_TASKS: Final = 16
EXCHANGE_S: Final = 10.0
LEAVE_S: Final = 3.0
RENEW_RETRY_S: Final = 1.0
_CHANCE_BYTES: Final = 7
_CHANCE_BITS: Final = 53
_log = logging.getLogger(__name__)

Listener = Callable[[Member, Member | None], None]


class _Drawn:
    """Chance for the machine, from the node's own randomness."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng

    def random(self) -> float:
        bits = (
            int.from_bytes(self._rng.token_bytes(_CHANCE_BYTES)) >> 8 * _CHANCE_BYTES - _CHANCE_BITS
        )
        return bits / (1 << _CHANCE_BITS)


class Membership:
    """The members of the cluster as this node sees them, kept up to date by `run`.

    `me` is this start of this node: ALIVE, with the boot id under which `sealer` seals.
    `push_pull(peer address, payload)` gives the payload to `receive_push_pull` of the node there
    and returns its answer; `stream_ping(peer address, uid)` tells whether the node `uid` answers
    there. `renew(generation)` makes a higher generation durable, lets `sealer` seal under it, and
    returns it with its boot id. `on_duplicate(why)` is called, at most once, when this node must
    go on under a new uid: it then says nothing any more.
    Raises InvalidRequest where the names and addresses of `me` are too long.
    """

    def __init__(
        self,
        me: Member,
        cluster_id: str,
        *,
        datagrams: Datagrams,
        sealer: DatagramSealer,
        rng: Rng,
        push_pull: Callable[[str, bytes], Awaitable[bytes]],
        stream_ping: Callable[[str, int], Awaitable[bool]],
        renew: Callable[[int], Awaitable[tuple[int, bytes]]],
        on_duplicate: Callable[[str], None],
        config: SwimConfig = LAN,
        wan: SwimConfig = WAN,
        known: Iterable[Member] = (),
    ) -> None:
        """`known` are members of before this start: they are looked for, and told of nobody."""
        self._swim = Swim(me, cluster_id, _Drawn(rng), config, wan)
        self._swim.know(known)
        self._datagrams = datagrams
        self._sealer = sealer
        self._ask_push_pull = push_pull
        self._ask_stream = stream_ping
        self._renew_generation = renew
        self._on_duplicate = on_duplicate
        self._listeners: list[Listener] = []
        self._group: asyncio.TaskGroup | None = None
        self._running = 0
        self._exchanging: set[str] = set()
        self._wanted: Renew | None = None
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._refused: Counter[str] = Counter()

    # -- who is there ------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This node, in its present generation."""
        return self._swim.me

    def members(self) -> list[Member]:
        """All known members in order of their uids: this node, and those down or gone lately."""
        return self._swim.members

    def member(self, uid: int) -> Member | None:
        """What is known of one; None for a stranger, or one forgotten."""
        return self._swim.member(uid)

    def alive_storage(self) -> list[Member]:
        """The storage nodes, this one too, that are not down or gone; suspects may answer yet."""
        return [
            member for member in self._swim.members if member.role == "storage" and member.reachable
        ]

    @property
    def health(self) -> int:
        """How unwell this node believes itself to be: 0 to 7."""
        return self._swim.health

    @property
    def refused(self) -> Mapping[str, int]:
        """How many datagrams were dropped, by reason."""
        return self._refused

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(member, previous)` at each change of state, and for each new start.

        `previous` is None for a new member. This node's own changes are told too. A listener must
        not raise; it may call anything here.
        """
        self._listeners.append(listener)

    # -- what others want --------------------------------------------------------------------

    async def run(self) -> None:
        """Take part, until cancelled."""
        self._datagrams.on_datagram(self._receive)
        try:
            async with asyncio.TaskGroup() as self._group:
                if self._wanted is not None:
                    self._start_renewing(self._wanted)
                while True:
                    self._feed(Tick())
                    await self._until_due()
        finally:
            self._group = None

    async def join(self, addresses: Iterable[str]) -> None:
        """Ask at these datagram addresses for the cluster, for ever, from `run`; returns at once.

        They replace those given before; the same ones again change nothing.
        """
        self._feed(Seeds(tuple(addresses)))

    async def exchange(self, peer_address: str) -> None:
        """Exchange all that is known with the node at this channel address, now.

        Raises Unavailable where none answers, InvalidRequest for another cluster, Corrupt.
        """
        payload = gossip.encode_exchange(self._swim.exchange(self._now_ms()))
        try:
            async with asyncio.timeout(EXCHANGE_S):
                answer = await self._ask_push_pull(peer_address, payload)
        except TimeoutError:
            raise Unavailable("the peer did not answer in time") from None
        self._feed(Merge(self._checked(answer)))

    def receive_push_pull(self, payload: bytes) -> bytes:
        """Take in a peer's side of an exchange, and return this node's.

        Raises Corrupt, Unsupported, and InvalidRequest for another cluster.
        """
        self._feed(Merge(self._checked(payload)))
        return gossip.encode_exchange(self._swim.exchange(self._now_ms()))

    def heard_from(self, uid: int) -> None:
        """A channel of this node works: if it is held for down, find out at once."""
        self._feed(HeardFrom(uid))

    def remove(self, uid: int) -> None:
        """Declare a member gone for good; raises NotFound, and InvalidRequest for this node.

        One that lives comes back with a higher generation.
        """
        if self._swim.member(uid) is None:
            raise NotFound("there is no such member", reason="MEMBER_NOT_FOUND")
        if uid == self.me.uid:
            raise InvalidRequest("a node can't remove itself; it leaves")
        self._feed(Remove(uid))

    async def leave(self, *, for_good: bool = False) -> None:
        """Tell the others that this node is gone; returns when it told enough of them, or 3 s.

        It goes on answering until `run` is cancelled.
        """
        self._feed(Leave(for_good))
        if self._group is None:
            return
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._left.wait()
        except TimeoutError:
            _log.warning("membership.left_untold")

    def _checked(self, payload: bytes) -> Exchange:
        exchange = gossip.decode_exchange(payload)
        if exchange.cluster != self._swim.cluster:
            raise InvalidRequest(
                "the peer belongs to another cluster; nothing was exchanged",
                reason="OTHER_CLUSTER",
            )
        return exchange

    # -- driving the machine -----------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    async def _until_due(self) -> None:
        """Sleep until the machine is due, which an event may make sooner."""
        self._wake.clear()
        due_ms = self._swim.due_ms
        if due_ms is None:
            await self._wake.wait()
            return
        try:
            # Half a millisecond late, so that rounding can't make it early.
            async with asyncio.timeout_at((due_ms + 0.5) / 1000):
                await self._wake.wait()
        except TimeoutError:
            return

    def _feed(self, event: Event) -> None:
        before_ms = self._swim.due_ms
        for effect in self._swim.handle(event, self._now_ms()):
            self._perform(effect)
        after_ms = self._swim.due_ms
        if after_ms is not None and (before_ms is None or after_ms < before_ms):
            self._wake.set()
        if self._swim.left:
            self._left.set()

    def _receive(self, address: str, datagram: bytes) -> None:
        try:
            opened = self._sealer.open(datagram)
            packet = gossip.decode_packet(opened.payload)
        except Unauthenticated:
            self._refused["unauthenticated"] += 1
            return
        except EnvdError as error:
            self._refused[error.reason.lower()] += 1
            return
        sender = Sender(opened.uid, opened.generation, opened.boot_id)
        self._feed(Received(sender, address, packet))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(address, packet):
                self._datagrams.send(address, self._sealer.seal(gossip.encode_packet(packet)))
            case Changed(member, previous):
                for listener in self._listeners:
                    listener(member, previous)
            case PushPull(peer):
                if peer and peer not in self._exchanging:
                    self._start(self._exchange_with(peer))
            case StreamPing():
                self._start(self._ping_stream(effect))
            case Renew():
                self._start_renewing(effect)
            case DuplicateIdentity():
                self._met_double(effect)
            case Forgotten(member):
                _log.info("member.forgotten", extra=_shown(member))
            case _:
                assert_never(effect)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        if self._group is None or self._running >= MAX_TASKS:
            work.close()
            return
        self._running += 1
        self._group.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - membership must outlive what one task met
            _log.critical("membership.fault", extra={"error": type(error).__name__}, exc_info=True)
        finally:
            self._running -= 1

    async def _exchange_with(self, peer: str) -> None:
        self._exchanging.add(peer)
        try:
            await self.exchange(peer)
        except EnvdError as error:
            extra = {"peer": peer, "reason": error.reason, "detail": error.message}
            _log.debug("membership.exchange_failed", extra=extra)
        finally:
            self._exchanging.discard(peer)

    async def _ping_stream(self, wanted: StreamPing) -> None:
        member = wanted.member
        try:
            async with asyncio.timeout(wanted.within_ms / 1000):
                alive = await self._ask_stream(member.peer, member.uid)
        except (EnvdError, TimeoutError):
            alive = False
        if alive:
            _log.warning("member.datagrams_lost", extra=_shown(member))
        self._feed(StreamAnswered(wanted.seq, alive))

    def _start_renewing(self, wanted: Renew) -> None:
        """Outside of `run`, and whatever else is under way, this is never dropped."""
        self._wanted = wanted
        if self._group is not None:
            self._group.create_task(self._renew(wanted))

    async def _renew(self, wanted: Renew) -> None:
        extra = {"generation": wanted.generation, "reason": wanted.reason.value}
        _log.warning("membership.rejoining", extra=extra)
        while True:
            try:
                generation, boot_id = await self._renew_generation(wanted.generation)
                break
            except EnvdError as error:
                extra_failed = {"reason": error.reason, "detail": error.message}
                _log.error("membership.not_renewed", extra=extra_failed)
                await asyncio.sleep(RENEW_RETRY_S)
        self._wanted = None
        self._feed(Renewed(generation, boot_id))

    def _met_double(self, double: DuplicateIdentity) -> None:
        extra = {"generation": double.generation, "yields": double.yields}
        _log.error("membership.duplicate_identity", extra=extra)
        if double.yields:
            self._on_duplicate(
                f"its uid is in use elsewhere, or was, in generation {double.generation}; "
                f"this is generation {self.me.generation}"
            )


def _shown(member: Member) -> dict[str, object]:
    state = MemberState(member.state).name.lower()
    return {"member": member.name, "uid": f"{member.uid:016x}", "state": state}
