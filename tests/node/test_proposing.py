"""A proposer finishes what it finds, and proposes one value at a place under one ballot."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from envd.core.commit import Commit
from envd.core.errors import Unavailable
from envd.core.paxos import Ballot, Proposal, Quorum
from envd.core.requests import Put, WriteRequest
from envd.core.topology import TOPOLOGY
from envd.node.handshake import Peer
from envd.node.proposing import NoQuorum, Proposer, Seats
from envd.node.serial import HANDED_S, Serial
from envd.wire import records
from tests.node.channels import CountingRng
from tests.node.conftest import DIGEST_KEY
from tests.node.voters import (
    FIRST,
    NAME,
    OPENING,
    SECOND,
    Voter,
    after,
    opening,
    proposed,
    turns,
    virtually,
)


def seats_of(*uids: int, epoch: int = 1) -> Seats:
    return Seats(Quorum((frozenset(uids),)), epoch)


ALL = seats_of(1, 2, 3)


@dataclass
class Council:
    """Three acceptors; node 1 proposes. Those in `cut` do not answer it."""

    seats: Seats = ALL
    cut: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.voters = {uid: Voter(uid) for uid in (1, 2, 3)}
        first = self.voters[1]
        self.proposer = Proposer(
            1,
            first.coordinator,
            first.service,
            DIGEST_KEY,
            ask=self.ask,
            pull=self.pull,
            seats=lambda _: self.seats,
        )

    async def ask(self, uid: int, method: str, body: bytes) -> bytes:
        if uid in self.cut:
            raise Unavailable("cut off")
        return await self.voters[uid].service.methods()[method](peer(1), body)

    async def pull(self, name: str, uid: int) -> None:
        rows = self.voters[uid].store.commit_rows(name)
        await self.voters[1].log(*(records.decode_commit(row) for _, row in rows))

    async def log(self, *commits: Commit, to: tuple[int, ...] = (1, 2, 3)) -> None:
        for uid in to:
            await self.voters[uid].log(*commits)

    async def lead(self) -> Ballot:
        await self.proposer.lead(NAME, self.seats)
        ballot = self.proposer.ballot(NAME, self.seats)
        assert ballot is not None
        return ballot

    async def accept(self, uid: int, proposal: Proposal, name: str = NAME) -> None:
        await self.voters[uid].service.accept(name, proposal, 1, proposal.ballot.node_uid)


def peer(uid: int) -> Peer:
    return Peer(uid, 1, b"b" * 16, "c1", "call", 1, b"")


@virtually
async def test_a_lead_lasts_until_something_is_proposed_and_again_once_it_is_logged() -> None:
    council = Council()
    ballot = await council.lead()

    await council.proposer.choose(NAME, ALL, Proposal(ballot, OPENING.follows, _raw(OPENING)))
    spent = council.proposer.ballot(NAME, ALL)
    await council.proposer.log(OPENING, _raw(OPENING))
    council.proposer.keep_lead(NAME, ballot, ALL)

    assert spent is None
    assert council.proposer.ballot(NAME, ALL) == ballot
    assert council.proposer.ballot(NAME, seats_of(1, 2)) is None


@virtually
async def test_after_an_interrupted_proposal_another_ballot_is_asked_for() -> None:
    """Whether the first value was chosen nobody knows, so it is finished and not replaced."""
    council = Council()
    await council.log(OPENING)
    ballot = await council.lead()
    council.voters[3].registers.slow = True
    council.voters[1].registers.slow = True
    proposal = Proposal(ballot, FIRST.follows, _raw(FIRST))

    choosing = asyncio.ensure_future(council.proposer.choose(NAME, ALL, proposal))
    await turns()
    choosing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await choosing
    for voter in council.voters.values():
        voter.registers.slow = False
        voter.registers.finish()
    lost = council.proposer.ballot(NAME, ALL)
    again = await council.lead()

    assert lost is None
    assert again > ballot
    assert council.voters[1].holds(FIRST)


@virtually
async def test_what_a_majority_may_have_chosen_is_finished_before_anything_else() -> None:
    council = Council()
    await council.log(OPENING)
    await council.accept(2, proposed(FIRST))
    other = after(OPENING, "other", uid=2)
    await council.accept(3, proposed(other, 2))
    council.cut = {2}

    with pytest.raises(NoQuorum):  # It was outbid, and knows by whom now.
        await council.lead()
    await council.lead()

    assert council.voters[1].holds(other)
    assert not council.voters[1].holds(FIRST)


@virtually
async def test_what_was_left_is_finished_while_its_time_is_sealed_and_nothing_new_is_chosen() -> (
    None
):
    council = Council()
    await council.log(OPENING)
    await council.accept(2, proposed(FIRST))
    for voter in council.voters.values():
        voter.sealed_to = SECOND.stamp.hlc

    with suppress(NoQuorum):  # It was outbid, and knows by whom now.
        await council.lead()
    council.cut = {3}
    ballot = await council.lead()

    assert council.voters[1].holds(FIRST)
    with pytest.raises(NoQuorum):
        await council.proposer.choose(NAME, ALL, proposed(SECOND, ballot.counter))


@virtually
async def test_a_proposer_catches_up_with_the_farthest_before_it_leads() -> None:
    council = Council()
    await council.log(OPENING)
    await council.log(FIRST, SECOND, to=(3,))
    council.cut = {2}

    await council.lead()

    assert council.voters[1].holds(SECOND)


@virtually
async def test_a_look_tells_whether_anything_is_left_to_finish() -> None:
    council = Council()
    await council.log(OPENING)
    before = await council.proposer.look(NAME, ALL)
    await council.accept(2, proposed(FIRST))
    council.cut = {3}

    after_it = await council.proposer.look(NAME, ALL)

    assert (before, after_it) == (True, False)
    assert not council.voters[1].holds(FIRST)


@virtually
async def test_without_a_majority_nothing_is_promised_and_nothing_chosen() -> None:
    council = Council(cut={2, 3})

    with pytest.raises(NoQuorum) as promise:
        await council.proposer.lead(NAME, ALL)
    with pytest.raises(NoQuorum) as choice:
        await council.proposer.choose(NAME, ALL, proposed(OPENING, 9))

    assert set(promise.value.errors) == set(choice.value.errors) == {2, 3}
    assert council.proposer.ballot(NAME, ALL) is None


@virtually
async def test_nothing_is_finished_by_voters_who_were_replaced_meanwhile() -> None:
    """Node 1 alone voted for the first topology, three vote for what follows the second one.

    That node 1 accepted a third one says nothing: two others may have chosen another.
    """
    council = Council(seats=seats_of(1, epoch=0))
    first = opening(name=TOPOLOGY)
    second, third = after(first, "2"), after(after(first, "2"), "3")
    await council.log(first, second)
    await council.accept(1, proposed(third), TOPOLOGY)
    before, council.seats = council.seats, seats_of(1, 2, 3, epoch=0)

    with pytest.raises(NoQuorum):
        await council.proposer.lead(TOPOLOGY, before)

    assert not council.voters[1].holds(third)
    await council.proposer.lead(TOPOLOGY, council.seats)
    accepted = [voter.registers.get(TOPOLOGY).accepted for voter in council.voters.values()]
    assert council.voters[1].holds(third)
    assert sum(each is not None and each.value == _raw(third) for each in accepted[1:]) >= 1


@virtually
async def test_a_write_of_a_chain_that_ended_is_answered_once_the_log_has_it() -> None:
    """However long that takes: it is on its way, and must not be told to be undone."""
    alone = seats_of(1)
    council = Council(seats=alone)
    voter = council.voters[1]
    serial = Serial(
        1,
        voter.store,
        voter.coordinator,
        voter.service,
        council.proposer,
        CountingRng(),
        ask=council.ask,
        seats=lambda _: alone,
        preferred=lambda _: (1,),
        reached=lambda: (1,),
        digest_key=DIGEST_KEY,
        clock_is_wrong=lambda: False,
    )
    voter.store.slow = True
    request = WriteRequest(NAME, (Put("X", "1"),))

    writing = asyncio.ensure_future(serial.write_here(request, "someone", True))
    await asyncio.sleep(2 * HANDED_S)
    still_waits = not writing.done()
    voter.store.finish()

    assert still_waits
    assert (await writing).environment == NAME


def _raw(commit: Commit) -> bytes:
    return records.encode_commit(commit)
