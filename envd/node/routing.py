"""Requests about an environment that another node holds: that one is asked.

Any storage node takes any request. Where it does not hold the partition (`holdings`), or does not
have all of it yet, it asks one that does, after it has checked the caller's rights: those first
that can be expected to answer; the others only once they gave a sign of life to a question that
does nothing, so that nobody has to wonder what became of a write. Who is asked answers from its
own copy and asks nobody else; if it is no holder in its own view of the topology, the next one
is tried (`held`). What a request itself is refused with passes unchanged.

A write goes to one holder after the other under one operation id, its caller's or one of its own.
What was handed over and not answered may have been made, so then nothing but another holder's
answer says what became of it. Writes to one environment are handed over one by one, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

from envd.core import shares
from envd.core.answers import ConflictPage, EnvironmentView, HistoryPage, WriteAnswer
from envd.core.errors import (
    Corrupt,
    EnvdError,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.core.members import Member
from envd.core.names import check_environment
from envd.core.requests import ConflictsRequest, Consistency, HistoryRequest, ReadRequest
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.node.calls import UNDECIDED, NotAsked
from envd.node.forwarding import packed, unpacked_answer
from envd.node.holdings import Holdings
from envd.node.operations import AnyWrite
from envd.node.peer import PeerLink
from envd.node.session_reads import STALE, point_of
from envd.node.writing import Writing
from envd.ports import Rng
from envd.wire import api, api_conflicts
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

HERE: Final = "holder.here"
READ: Final = "holder.read"
HISTORY: Final = "holder.history"
CONFLICTS: Final = "holder.conflicts"
WRITE: Final = "holder.write"
NOT_HOLDER: Final = "NOT_HOLDER"
NO_HOLDER: Final = "NO_HOLDER"
READS_S: Final = 2.0
"""How long one holder is waited for; a strong read may take it `serial.DECIDES_S`."""
READS_STRONGLY_S: Final = 6.0
WRITES_S: Final = 3.0
"""Longer than a write waits for a second copy (`acknowledging`)."""
SIGN_S: Final = 1.0
"""As long as a dial takes at most (`peering`)."""
SILENT_S: Final = 1.0
"""So long a peer that gave no sign is not asked for one again."""
TURNS: Final = 5
PAUSE_S: Final = 0.1
"""The views of two nodes differ for as long as the topology takes from one to the other."""
_AT_ONCE: Final = 256
"""Half of what a peer has room for (`calls`)."""
_UNIT_BYTES: Final = 128 << 10
_OWN_OPERATION: Final = "~"
_NOT_ABLE: Final = frozenset({"UNKNOWN_CALL", "VERSION_SKEW"})
Ask = Callable[[int, str, bytes, float], Awaitable[bytes]]
"""(uid, method, body, seconds) -> answer; raises as `CallClient.call`."""


class Peers(Protocol):
    """The other storage nodes, as `Replication` knows them."""

    def links(self) -> Iterable[tuple[Member, PeerLink]]: ...

    def answering(self) -> Sequence[int]: ...

    async def ask(self, uid: int, method: str, body: bytes, timeout_s: float, /) -> bytes: ...


class NoHolder(Unavailable):
    """None of the nodes that hold an environment can be reached; nothing was done."""

    default_reason = NO_HOLDER

    def __init__(self, name: str, names: Iterable[str] = ()) -> None:
        those = ", ".join(names)
        super().__init__(
            f"no node that holds {name} can be reached; nothing was done",
            hint=f"try again; those that hold it: {those}" if those else "try again",
            retry_after_ms=1000,
        )


class Routing:
    """Asks holders for one environment; `whole`: each node holds everything, and nobody is asked.

    In a cluster with a partition table, `reads` and `writes` tell what this node does itself.
    """

    def __init__(self, uid: int, holdings: Holdings, peers: Callable[[], Peers], rng: Rng) -> None:
        self._uid = uid
        self._holdings = holdings
        self._peers = peers
        self._rng = rng
        self._silent: dict[int, float] = {}
        self._rooms: dict[int, _Room] = {}
        self._handing: dict[asyncio.Task[WriteAnswer], None] = {}
        self._last: dict[str, asyncio.Task[WriteAnswer]] = {}
        self._readable: dict[int, int] | None = None
        self._writable: dict[int, int] | None = None
        self._followable: int | None = None
        holdings.subscribe(self._table_changed)

    async def close(self) -> None:
        """End what is on its way; what was handed over may be made all the same."""
        for task in list(self._handing):
            task.cancel()
        if self._handing:
            await asyncio.wait(self._handing)

    # -- who holds what --------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether every storage node holds everything."""
        return self._holdings.whole

    def reads(self, name: str) -> bool:
        """Whether this node has all of an environment's partition; raises InvalidRequest."""
        return self._holdings.readable(partition_of(check_environment(name)))

    def writes(self, name: str) -> bool:
        """Whether this node makes the writes to an environment; raises InvalidRequest."""
        partition = partition_of(check_environment(name))
        return self._holdings.mine(partition) and not self._holdings.gaining(partition)

    def readable(self) -> dict[int, int]:
        """The set of partitions (`core.shares`) that each node may be read for; not to be changed.

        That of the system's own, which all have, is in this node's alone: no other is asked for it.
        """
        if self._readable is None:
            found = {self._uid: 0, **self._by_uid(self._holdings.readers)}
            found[self._uid] |= 1 << SYSTEM_PARTITION
            self._readable = dict(sorted(found.items()))
        return self._readable

    def writable(self) -> dict[int, int]:
        """The same of those that get its writes."""
        if self._writable is None:
            self._writable = self._by_uid(self._holdings.writers)
        return self._writable

    def _by_uid(self, of: Callable[[int], Sequence[int] | None]) -> dict[int, int]:
        found: dict[int, bytearray] = {}
        for partition in range(PARTITIONS):
            for uid in of(partition) or ():
                mask = found.setdefault(uid, bytearray(shares.MASK_BYTES))
                mask[partition >> 3] |= 1 << (partition & 7)
        return {uid: shares.unpack_mask(bytes(found[uid])) for uid in sorted(found)}

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever others hold what this node asks for, or may."""
        self._holdings.subscribe(changed)

    def reads_all(self) -> bool:
        """Whether this node has all of every partition."""
        return self.whole or self.readable().get(self._uid, 0) == shares.EVERY

    def _table_changed(self) -> None:
        self._readable = None
        self._writable = None
        self._followable = None

    def followable(self) -> int:
        """The set of partitions of which this node has all, and gets every write.

        Those on their way to others are in it for as long as writes come here too.
        """
        if self._holdings.whole:
            return shares.EVERY
        if self._followable is None:
            complete = self._holdings.complete
            found = shares.mask_of(filter(complete, range(PARTITIONS)))
            self._followable = found | self.readable().get(self._uid, 0)
        return self._followable

    def named(self, uids: Iterable[int]) -> list[str]:
        """The names of nodes, in order."""
        names = {member.uid: member.name for member, _ in self._peers().links()}
        return sorted(names.get(uid, f"{uid:016x}") for uid in uids)

    def no_holder(self, name: str) -> NoHolder:
        """What is told where no holder of an environment can be reached."""
        return NoHolder(name, self.named(self.holders(name)))

    def holders(self, name: str) -> list[int]:
        """Who may have all of it: readers first, for others may see the topology as it was."""
        partition = partition_of(name)
        readers = self._holdings.readers(partition) or ()
        writers = self._holdings.writers(partition) or ()
        return [uid for uid in dict.fromkeys((*readers, *writers)) if uid != self._uid]

    # -- asking ----------------------------------------------------------------------------

    async def expected(self, uids: Collection[int]) -> list[int]:
        """Those of these peers that can be expected to answer."""
        able = set(self._peers().answering())
        return [uid for uid in uids if uid in able]

    async def awake(self, uids: Collection[int]) -> list[int]:
        """Those that are not expected to answer, and give a sign of life all the same."""
        able = set(self._peers().answering())
        known = {member.uid for member, _ in self._peers().links()}
        others = [uid for uid in uids if uid in known and uid not in able]
        signs = await asyncio.gather(*map(self._gives_sign, others))
        return [uid for uid, sign in zip(others, signs, strict=True) if sign]

    async def _gives_sign(self, uid: int) -> bool:
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent.get(uid, 0.0):
            return False
        try:
            await self._peers().ask(uid, HERE, b"", SIGN_S)
        except (Unavailable, Unauthenticated) as error:
            if not _is_silence(error):
                return True
            self._silent[uid] = loop.time() + SILENT_S
            return False
        except EnvdError:
            pass  # It does not know the question: it is there.
        return True

    async def ask(self, uid: int, method: str, body: bytes, patience_s: float) -> bytes:
        """Ask a peer once there is room for the question there; raises as `CallClient.call`."""
        async with self._rooms.setdefault(uid, _Room()).taken(len(body)):
            return await self._peers().ask(uid, method, body, patience_s)

    async def _first(
        self, name: str, attempt: Callable[[int], Awaitable[bytes]], said_so: Collection[int] = ()
    ) -> bytes:
        """What the first holder answers, those that `said_so` before the others.

        `attempt` raises NotAsked or Unavailable where the next one is to be tried. Raises what is
        the request's own, what the last one that answered said, and NoHolder where none did.
        """
        refusal: EnvdError | None = None
        for turn in range(TURNS):
            if turn:
                await asyncio.sleep(PAUSE_S)
            holders = sorted(self.holders(name), key=lambda uid: uid not in said_so)
            for able in (self.expected, self.awake):
                for uid in await able(holders):
                    try:
                        return await attempt(uid)
                    except (Unavailable, Corrupt, Unauthenticated) as error:
                        if not _is_silence(error):
                            refusal = _of_both(refusal, error)
                    except Unsupported as error:
                        if error.reason not in _NOT_ABLE:
                            raise
                        refusal = _of_both(refusal, error)
            if refusal is None or refusal.reason != NOT_HOLDER:
                break
        if refusal is None:
            raise self.no_holder(name)
        raise _told(refusal, name)

    async def ask_holder(self, name: str, method: str, body: bytes, patience_s: float) -> bytes:
        """What the first holder of an environment answers that does.

        Of a question that does no harm where several are asked it. Raises what it is refused with,
        NoHolder where none can be reached.
        """
        return await self._first(name, lambda uid: self.ask(uid, method, body, patience_s))

    # -- reads -----------------------------------------------------------------------------

    async def read(self, request: ReadRequest) -> EnvironmentView:
        """What a holder answers to a read of one environment, without its layers.

        Raises as the holder does; Unavailable (STALE) where none has the write that its token
        stands for.
        """
        said_so: set[int] = set()
        if request.token:
            point = point_of(request.token)
            links = self._peers().links()
            said_so = {link.uid for _, link in links if link.vectors.holds(*point)}
        body = wire.pack(wire.ForwardedRead(api.read_message(request).SerializeToString()))
        strong = request.consistency is Consistency.STRONG
        patience_s = READS_STRONGLY_S if strong else READS_S
        name = request.environment
        raw = await self._first(
            name, lambda uid: self.ask(uid, READ, body, patience_s), said_so=said_so
        )
        return api.get_from(pb.GetResponse.FromString(raw))

    async def history(self, request: HistoryRequest) -> HistoryPage:
        """A holder's page of commits; raises as the holder does."""
        body = wire.pack(wire.ForwardedRead(api.history_message(request).SerializeToString()))
        raw = await self.ask_holder(request.environment, HISTORY, body, READS_S)
        return api.history_page_from(pb.HistoryResponse.FromString(raw))

    async def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        """A holder's page of the conflicts of one environment; raises as the holder does."""
        message = api_conflicts.conflicts_message(request).SerializeToString()
        body = wire.pack(wire.ForwardedRead(message))
        raw = await self.ask_holder(request.environment, CONFLICTS, body, READS_S)
        return api_conflicts.conflict_page_from(pb.ConflictsResponse.FromString(raw))

    # -- writes ----------------------------------------------------------------------------

    def is_handing(self, name: str) -> bool:
        """Whether a write to an environment is on its way to a holder: the next one follows it."""
        return name in self._last

    def hand_over(
        self,
        request: AnyWrite,
        author: str,
        may_reveal: bool,
        here: Callable[[], Awaitable[Writing]],
    ) -> Writing:
        """Have a holder make a write, after those to its environment that were begun before.

        Where none can be reached and nothing was done, `here` is to see what this node can do.
        """
        name = request.environment
        before = self._last.get(name)

        async def handed() -> WriteAnswer:
            if before is not None:
                await asyncio.wait((before,))
            try:
                return await self._hand_over(request, author, may_reveal)
            except NoHolder:
                return await (await here())

        def done(task: asyncio.Task[WriteAnswer]) -> None:
            del self._handing[task]
            if self._last.get(name) is task:
                del self._last[name]

        task = asyncio.get_running_loop().create_task(handed(), name="write-handed")
        self._handing[task] = None
        self._last[name] = task
        task.add_done_callback(done)
        return Writing(None, task)

    async def _hand_over(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """Raises what a holder refuses it with, OutcomeUnknown where it may have been made."""
        operation = request.operation or f"{_OWN_OPERATION}{self._rng.token_bytes(8).hex()}"
        body = packed(replace(request, operation=operation), author, may_reveal)
        undecided = False

        async def attempt(uid: int) -> bytes:
            nonlocal undecided
            try:
                return await self.ask(uid, WRITE, body, WRITES_S)
            except NotAsked:
                raise
            except Unavailable as error:
                undecided = undecided or error.reason in UNDECIDED
                raise

        try:
            return unpacked_answer(await self._first(request.environment, attempt))
        except OutcomeUnknown:
            raise
        except EnvdError as error:
            if not undecided:
                raise
            raise OutcomeUnknown(
                "the write was handed to a node that holds the environment, and nobody knows what "
                "became of it",
                hint=f"repeat it with --operation {operation}, or look: "
                f"envctl history {request.environment}",
            ) from error


class _Room:
    """What is on its way to one peer: not more than it takes at once."""

    def __init__(self) -> None:
        self._units = asyncio.Semaphore(_AT_ONCE)
        self._entering = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Room for a question of so many bytes; waits until there is."""
        wanted = min(1 + size // _UNIT_BYTES, _AT_ONCE)
        held = 0
        try:
            async with self._entering:
                while held < wanted:
                    await self._units.acquire()
                    held += 1
            yield
        finally:
            for _ in range(held):
                self._units.release()


def not_holder(name: str) -> Unavailable:
    """What a node answers that is asked for what it does not hold, as it knows."""
    return Unavailable(f"this node does not hold {name}; nothing was done", reason=NOT_HOLDER)


def _of_both(known: EnvdError | None, error: EnvdError) -> EnvdError:
    """The refusal to tell of: the first one that says more than that the node is no holder."""
    return error if known is None or known.reason == NOT_HOLDER else known


def _is_silence(error: EnvdError) -> bool:
    """Whether the peer did not answer, as far as this node knows."""
    return isinstance(error, NotAsked | Unauthenticated) or error.reason in UNDECIDED


def _told(refusal: EnvdError, name: str) -> EnvdError:
    """A refusal of the last holder as a caller is told of it."""
    if refusal.reason == NOT_HOLDER:
        return Unavailable(
            f"the nodes do not agree yet which of them hold {name}; nothing was done",
            hint="try again in a moment",
            reason=NOT_HOLDER,
            retry_after_ms=1000,
        )
    if refusal.reason in _NOT_ABLE:
        return Unavailable(
            f"the nodes that hold {name} are of a version that can't be asked for it",
            hint="bring all nodes to one version: envctl cluster members",
            reason="VERSION_SKEW",
        )
    if refusal.reason == STALE:
        return Unavailable(
            "no node that can be reached proves that it has seen what the session token stands for",
            hint="try again, or read without the token",
            reason=STALE,
            retry_after_ms=1000,
        )
    return refusal
