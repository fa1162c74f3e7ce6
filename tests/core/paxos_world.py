"""Nodes that vote on a chain over a network that loses, delays, doubles and reorders.

Each node is an acceptor and a proposer with one log, over the pure functions of `core.paxos`. A
crash takes what was not saved, of the register as of the log. `chosen` is what an observer sees who
knows of every acceptance from when it may be answered, with register and log durable; that there
are never two values for one place is checked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from envd.core.chain import bottom
from envd.core.paxos import (
    NEVER,
    Acceptor,
    Ballot,
    Held,
    Proposal,
    Quorum,
    Verdict,
    accept,
    farthest,
    prepare,
    to_finish,
)
from envd.core.stamp import Stamp

START = bottom(1)


class Sabotage(Enum):
    """A rule that the nodes break, to see that it is noticed."""

    NONE = auto()
    FORGETS_ITS_PROMISE = auto()
    FINISHES_NOTHING = auto()
    ANSWERS_BEFORE_IT_SAVED = auto()
    ACCEPTS_WHERE_ITS_LOG_DOES_NOT_STAND = auto()
    ACCEPTS_BEFORE_ITS_LOG_IS_DURABLE = auto()
    USES_A_BALLOT_TWICE = auto()


class TwoChosen(AssertionError):
    """Two values were chosen at one place."""


@dataclass(frozen=True)
class Entry:
    """A value: what it follows, and where the chain stands after it."""

    place: Stamp
    stamp: Stamp

    def encode(self) -> bytes:
        return self.place.to_bytes() + self.stamp.to_bytes()

    @staticmethod
    def decode(raw: bytes) -> Entry:
        return Entry(Stamp.from_bytes(raw[:20]), Stamp.from_bytes(raw[20:]))


@dataclass
class Waiting:
    """An answer that waits until what it says is durable."""

    send: Callable[[], None]
    log_length: int
    is_saved: bool = False


@dataclass
class Node:
    """What a node holds; `saved_` is what a crash leaves of it."""

    uid: int
    acceptor: Acceptor = field(default_factory=Acceptor)
    saved_acceptor: Acceptor = field(default_factory=Acceptor)
    log: list[Entry] = field(default_factory=list)
    saved_length: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    highest: Ballot = NEVER
    ballot: Ballot = NEVER
    held: dict[int, Held] | None = None
    proposal: Proposal | None = None
    accepted_by: set[int] = field(default_factory=set)

    @property
    def position(self) -> Stamp:
        return self.log[-1].stamp if self.log else START

    @property
    def saved_log(self) -> list[Entry]:
        return self.log[: self.saved_length]

    def gives_up(self) -> None:
        self.held, self.proposal, self.accepted_by = None, None, set()
        self.ballot = NEVER


class World:
    """The nodes and what is on its way between them."""

    def __init__(self, count: int, chance: Random, sabotage: Sabotage = Sabotage.NONE) -> None:
        self.nodes = {uid: Node(uid) for uid in range(1, count + 1)}
        self.quorum = Quorum((frozenset(self.nodes),))
        self.chance = chance
        self.sabotage = sabotage
        self.network: list[Callable[[], None]] = []
        self.chosen: dict[Stamp, Entry] = {}
        self._acceptances: dict[Proposal, set[int]] = {}
        self._drafts = 0

    # -- what may happen ---------------------------------------------------------------

    def step(self) -> None:
        """Have one thing happen."""
        node = self.nodes[self.chance.randint(1, len(self.nodes))]
        draw = self.chance.randrange(1000)
        if draw < 10:
            self.crash(node)
        elif draw < 20:
            self.bid(node)
        elif draw < 40:
            self.stream(node, self.nodes[self.chance.randint(1, len(self.nodes))])
        elif draw < 120:
            self.propose(node)
        elif draw < 320:
            self.save_register(node)
        elif draw < 480:
            self.save_log(node)
        elif self.network:
            self._deliver_one()

    def _deliver_one(self) -> None:
        at = self.chance.randrange(len(self.network))
        message = self.network[at]
        fate = self.chance.randrange(10)
        if fate != 1:  # Else it comes again.
            del self.network[at]
        if fate != 0:  # Else it is lost.
            message()

    def crash(self, node: Node) -> None:
        node.acceptor = node.saved_acceptor
        node.log = node.saved_log
        node.waiting.clear()
        node.highest = NEVER
        node.gives_up()

    def save_register(self, node: Node) -> None:
        node.saved_acceptor = node.acceptor
        for each in node.waiting:
            each.is_saved = True
        self._answer(node)

    def save_log(self, node: Node) -> None:
        node.saved_length = len(node.log)
        node.acceptor = node.acceptor.pruned(node.position)
        node.saved_acceptor = node.saved_acceptor.pruned(node.position)
        self._answer(node)

    def _answer(self, node: Node) -> None:
        ready = [w for w in node.waiting if w.is_saved and w.log_length <= node.saved_length]
        node.waiting = [each for each in node.waiting if each not in ready]
        for each in ready:
            each.send()

    def stream(self, node: Node, to: Node) -> None:
        """Ship the durable log."""
        log = list(node.saved_log)
        self.network.append(lambda: self.learn(to, log))

    def learn(self, node: Node, log: list[Entry]) -> None:
        for entry in log:
            if entry.place == node.position:
                node.log.append(entry)

    # -- the proposer ------------------------------------------------------------------

    def bid(self, node: Node) -> None:
        """Ask all for their promise."""
        node.gives_up()
        ballot = node.ballot = max(node.highest, node.acceptor.promised).above(node.uid)
        call: dict[int, Held] = {}
        node.highest, node.held = ballot, call
        for to in self.nodes.values():
            self._send(lambda to=to: self._prepare(node, to, ballot, call))  # type: ignore[misc]

    def _promised(self, node: Node, uid: int, call: dict[int, Held], held: Held) -> None:
        """An answer goes to the call that asked for it: after a crash nobody waits for it."""
        if node.held is not call:
            return
        node.held[uid] = held
        if not self.quorum.is_met(node.held):
            return
        first = farthest(node.held)
        if node.position < node.held[first].position:
            self.learn(node, self.nodes[first].saved_log)
        if node.position < node.held[first].position:
            node.gives_up()
            return
        found = to_finish(node.held.values(), node.position)
        node.held = None
        if found is not None and self.sabotage is not Sabotage.FINISHES_NOTHING:
            self._ask_to_accept(node, found.value)

    def propose(self, node: Node) -> None:
        """Propose something of its own, where it may."""
        if node.ballot == NEVER or node.held is not None:
            return
        if node.proposal is None or self.sabotage is Sabotage.USES_A_BALLOT_TWICE:
            self._drafts += 1
            entry = Entry(node.position, Stamp(1, self._drafts, node.uid))
            self._ask_to_accept(node, entry.encode())

    def _ask_to_accept(self, node: Node, value: bytes) -> None:
        proposal = node.proposal = Proposal(node.ballot, Entry.decode(value).place, value)
        node.accepted_by = set()
        for to in self.nodes.values():
            self._send(lambda to=to: self._accept(node, to, proposal))  # type: ignore[misc]

    def _accepted(self, node: Node, uid: int, proposal: Proposal) -> None:
        if node.proposal != proposal:
            return
        node.accepted_by.add(uid)
        if self.quorum.is_met(node.accepted_by):
            node.proposal = None
            self.learn(node, [Entry.decode(proposal.value)])
            if node.position != Entry.decode(proposal.value).stamp:
                node.gives_up()

    # -- the acceptor ------------------------------------------------------------------

    def _prepare(self, asker: Node, node: Node, ballot: Ballot, call: dict[int, Held]) -> None:
        verdict, kept = prepare(node.acceptor, ballot)
        if verdict is not Verdict.YES:
            return
        if self.sabotage is not Sabotage.FORGETS_ITS_PROMISE:
            node.acceptor = kept
        held = Held(node.position, node.acceptor.open_at(node.position))
        self._reply(node, 0, lambda: self._promised(asker, node.uid, call, held))

    def _accept(self, asker: Node, node: Node, proposal: Proposal) -> None:
        if node.position < proposal.place and self.chance.randrange(2):
            self.learn(node, asker.saved_log)
        here = node.position
        if self.sabotage is Sabotage.ACCEPTS_WHERE_ITS_LOG_DOES_NOT_STAND:
            here = proposal.place
        early = self.sabotage is Sabotage.ACCEPTS_BEFORE_ITS_LOG_IS_DURABLE
        if node.saved_length < len(node.log) and not early:
            return  # It waits, and the proposer for no longer than a round.
        verdict, kept = accept(node.acceptor, proposal, here)
        if verdict is Verdict.YES:
            node.acceptor = kept
            length = len(node.log)
            self._reply(node, length, lambda: self._accepted(asker, node.uid, proposal), proposal)

    def _reply(
        self,
        node: Node,
        log_length: int,
        answer: Callable[[], None],
        accepted: Proposal | None = None,
    ) -> None:
        def send() -> None:
            self._send(answer)
            if accepted is not None:
                self._note_acceptance(node, accepted)

        if self.sabotage is Sabotage.ANSWERS_BEFORE_IT_SAVED:
            send()
        else:
            node.waiting.append(Waiting(send, log_length))

    def _send(self, message: Callable[[], None]) -> None:
        self.network.append(message)

    # -- what must hold ----------------------------------------------------------------

    def _note_acceptance(self, node: Node, proposal: Proposal) -> None:
        voters = self._acceptances.setdefault(proposal, set())
        voters.add(node.uid)
        if self.quorum.is_met(voters):
            self._note_chosen(Entry.decode(proposal.value))

    def _note_chosen(self, entry: Entry) -> None:
        if self.chosen.setdefault(entry.place, entry) != entry:
            raise TwoChosen(f"at {entry.place}")

    def check(self) -> None:
        """Hold that all logs are beginnings of one chain, and hold nothing that was not chosen."""
        for node in self.nodes.values():
            for entry in node.log:
                self._note_chosen(entry)
        longest = max((node.log for node in self.nodes.values()), key=len)
        assert all(node.log == longest[: len(node.log)] for node in self.nodes.values())

    def settle(self) -> None:
        """Deliver, save and ship all that is on its way, until nothing is."""
        is_busy = True
        while is_busy:
            messages, self.network = self.network, []
            for message in messages:
                message()
            for node in self.nodes.values():
                self.save_register(node)
                self.save_log(node)
                for other in self.nodes.values():
                    self.learn(other, node.saved_log)
            for node in self.nodes.values():
                self.save_log(node)
            is_busy = bool(self.network) or any(node.waiting for node in self.nodes.values())


def run(count: int, chance: Random, steps: int, sabotage: Sabotage = Sabotage.NONE) -> World:
    """So many things happen; raises TwoChosen, or AssertionError, as soon as a law is broken."""
    world = World(count, chance, sabotage)
    for _ in range(steps):
        world.step()
        world.check()
    return world
