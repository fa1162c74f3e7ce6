"""An acceptor answers for its own epoch, where its log stands, and once that is durable."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from envd.core.commit import Change, Commit, Kind
from envd.core.errors import Corrupt, Unavailable
from envd.core.paxos import NEVER, Acceptor, Ballot, Held, Proposal, Verdict
from envd.core.ring import partition_of
from envd.core.shares import to_bitmap
from envd.core.stamp import ZERO, Stamp
from envd.core.topology import TOPOLOGY
from envd.node.acceptor import read_accepted, read_promise
from envd.node.intake import MAX_AHEAD_MS
from envd.wire import peers as wire
from envd.wire import records
from tests.node.voters import (
    FIRST,
    NAME,
    OPENING,
    PEER,
    PLACE,
    SECOND,
    Voter,
    after,
    opening,
    proposed,
    turns,
    virtually,
)

LOW, HIGH = Ballot(1, 9), Ballot(2, 8)


# -- epochs ------------------------------------------------------------------------------------


@virtually
async def test_a_proposer_of_an_older_epoch_gets_nothing() -> None:
    voter = Voter(epoch=2)

    for asked in (
        voter.service.prepare(NAME, LOW, 1, 9),
        voter.service.accept(NAME, proposed(OPENING), 1, 9),
        voter.service.look(NAME, 1, 9),
    ):
        with pytest.raises(Unavailable) as refused:
            await asked
        assert refused.value.reason == "STALE_EPOCH"

    assert voter.registers.get(NAME) == Acceptor()
    assert voter.pulled == []


@virtually
async def test_a_newer_epoch_is_learned_from_who_asks() -> None:
    voter = Voter(epoch=1)

    async def learn() -> None:
        voter.epoch = 3

    voter.on_pull = learn

    answer = await voter.service.prepare(NAME, LOW, 3, 9)

    assert answer.verdict is Verdict.YES
    assert voter.pulled == [(TOPOLOGY, 9)]


@virtually
async def test_a_newer_epoch_that_can_not_be_learned_is_refused() -> None:
    voter = Voter(epoch=1)

    with pytest.raises(Unavailable) as refused:
        await voter.service.prepare(NAME, LOW, 3, 9)

    assert refused.value.reason == "STALE_EPOCH"
    assert voter.registers.get(NAME) == Acceptor()


@virtually
async def test_the_topology_itself_is_of_no_epoch() -> None:
    voter = Voter(epoch=7)
    first = opening(name=TOPOLOGY)

    promised = await voter.service.prepare(TOPOLOGY, LOW, 0, 9)
    answer = await voter.service.accept(TOPOLOGY, proposed(first), 0, 9)

    assert (promised.verdict, answer.verdict) == (Verdict.YES, Verdict.YES)


@virtually
async def test_nothing_is_accepted_for_an_epoch_that_ended_while_the_log_caught_up() -> None:
    """Who votes next has asked what is open here meanwhile, and would never hear of it."""
    voter = Voter(epoch=1)
    await voter.log(OPENING)

    async def learn_and_catch_up() -> None:
        voter.epoch = 2
        await voter.log(FIRST)

    voter.on_pull = learn_and_catch_up

    with pytest.raises(Unavailable) as refused:
        await voter.service.accept(NAME, proposed(SECOND), 1, 9)

    assert refused.value.reason == "STALE_EPOCH"
    assert voter.holds(FIRST)
    assert voter.service.open() == []


# -- promises ----------------------------------------------------------------------------------


@virtually
async def test_a_promise_is_answered_once_it_is_durable() -> None:
    voter = Voter()
    voter.registers.slow = True

    asked = asyncio.ensure_future(voter.service.prepare(NAME, LOW, 1, 9))
    await turns()
    early = asked.done()
    voter.registers.finish()
    answer = await asked

    assert not early
    assert answer == (Verdict.YES, LOW, Held(PLACE))
    assert voter.registers.durable[NAME].promised == LOW


@virtually
async def test_who_was_outbid_learns_by_whom_and_what_is_open() -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST, 2, 8), 1, 8)

    answer = await voter.service.prepare(NAME, LOW, 1, 9)

    assert answer == (Verdict.OUTBID, HIGH, Held(OPENING.stamp, proposed(FIRST, 2, 8)))
    assert voter.service.promised(NAME) == HIGH


@virtually
async def test_a_look_promises_nothing() -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    answer = await voter.service.look(NAME, 1, 8)

    assert answer == (Verdict.YES, LOW, Held(OPENING.stamp, proposed(FIRST)))
    assert voter.registers.get(NAME).promised == LOW


@virtually
async def test_what_the_log_holds_by_now_is_not_open_any_more() -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)
    await voter.log(FIRST)

    answer = await voter.service.look(NAME, 1, 8)

    assert answer.held == Held(FIRST.stamp)
    assert voter.registers.get(NAME) == Acceptor(LOW)


# -- accepting ---------------------------------------------------------------------------------


@virtually
async def test_a_proposal_is_accepted_where_the_log_stands() -> None:
    voter = Voter()
    await voter.log(OPENING)

    answer = await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    assert answer == (Verdict.YES, LOW, OPENING.stamp)
    assert voter.registers.durable[NAME].accepted == proposed(FIRST)
    assert not voter.holds(FIRST)


@virtually
async def test_who_lacks_what_is_followed_logs_what_it_accepted_itself() -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    answer = await voter.service.accept(NAME, proposed(SECOND), 1, 9)

    assert answer == (Verdict.YES, LOW, FIRST.stamp)
    assert voter.holds(FIRST)
    assert voter.pulled == []


@virtually
async def test_what_it_accepted_itself_is_not_logged_where_another_was_chosen() -> None:
    voter = Voter()
    other = after(OPENING, "other", uid=2)
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(other), 1, 9)
    voter.on_pull = lambda: voter.log(FIRST)

    answer = await voter.service.accept(NAME, proposed(SECOND, 2, 8), 1, 8)

    assert answer.verdict is Verdict.YES
    assert voter.pulled == [(NAME, 8)]
    assert not voter.holds(other)


@virtually
async def test_who_lacks_what_is_followed_waits_for_the_stream_then_pulls() -> None:
    streamed, pulling = Voter(), Voter()
    for voter in (streamed, pulling):
        await voter.log(OPENING)
    pulling.on_pull = lambda: pulling.log(FIRST)

    asked = asyncio.ensure_future(streamed.service.accept(NAME, proposed(SECOND), 1, 9))
    await turns()
    await streamed.log(FIRST)
    answers = [await asked, await pulling.service.accept(NAME, proposed(SECOND), 1, 9)]

    assert [answer.verdict for answer in answers] == [Verdict.YES, Verdict.YES]
    assert streamed.pulled == []
    assert pulling.pulled == [(NAME, 9)]


@virtually
async def test_who_can_not_catch_up_says_where_it_stands() -> None:
    voter = Voter()
    await voter.log(OPENING)

    answer = await voter.service.accept(NAME, proposed(SECOND), 1, 9)

    assert answer == (Verdict.BEHIND, NEVER, OPENING.stamp)
    assert voter.accepted is None


@virtually
async def test_who_is_further_says_so() -> None:
    voter = Voter()
    await voter.log(OPENING, FIRST)

    answer = await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    assert answer == (Verdict.PAST, NEVER, FIRST.stamp)


@virtually
async def test_an_outbid_proposal_is_refused_at_once_whatever_is_missing() -> None:
    voter = Voter()
    await voter.service.prepare(NAME, HIGH, 1, 8)
    began = asyncio.get_running_loop().time()

    answer = await voter.service.accept(NAME, proposed(SECOND), 1, 9)

    assert answer.verdict is Verdict.OUTBID
    assert voter.pulled == []
    assert asyncio.get_running_loop().time() == began


@virtually
async def test_a_promise_given_while_the_log_catches_up_holds() -> None:
    voter = Voter()
    await voter.log(OPENING)

    asked = asyncio.ensure_future(voter.service.accept(NAME, proposed(SECOND), 1, 9))
    await turns()
    promised = await voter.service.prepare(NAME, HIGH, 1, 8)
    await voter.log(FIRST)
    answer = await asked

    assert promised.verdict is Verdict.YES
    assert answer.verdict is Verdict.OUTBID
    assert voter.accepted is None


@virtually
async def test_of_two_proposals_at_once_the_later_promise_shows_the_earlier_one() -> None:
    """The save of the first is on its way when the second asks."""
    voter = Voter()
    await voter.log(OPENING)
    voter.registers.slow = True

    first = asyncio.ensure_future(voter.service.accept(NAME, proposed(FIRST), 1, 9))
    second = asyncio.ensure_future(voter.service.prepare(NAME, HIGH, 1, 8))
    await turns()
    voter.registers.finish()
    accepted, promised = await first, await second

    assert accepted.verdict is Verdict.YES
    assert promised == (Verdict.YES, HIGH, Held(OPENING.stamp, proposed(FIRST)))
    assert voter.registers.durable[NAME] == Acceptor(HIGH, proposed(FIRST))


# -- what an answer waits for ------------------------------------------------------------------


@virtually
async def test_what_was_accepted_is_replaced_once_the_log_holds_it_durably() -> None:
    """A crash may keep the register, and lose of the log what is on its way."""
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)
    await voter.begin(FIRST)

    asked = asyncio.ensure_future(voter.service.accept(NAME, proposed(SECOND), 1, 9))
    await turns()
    kept = voter.registers.durable[NAME].accepted
    voter.store.finish()
    answer = await asked

    assert kept == proposed(FIRST)
    assert answer.verdict is Verdict.YES
    assert voter.registers.durable[NAME].accepted == proposed(SECOND)


@virtually
async def test_a_promise_given_while_the_log_syncs_holds() -> None:
    voter = Voter()
    await voter.begin(OPENING)

    asked = asyncio.ensure_future(voter.service.accept(NAME, proposed(FIRST), 1, 9))
    await turns()
    await voter.service.prepare(NAME, HIGH, 1, 8)
    voter.store.finish()

    assert (await asked).verdict is Verdict.OUTBID
    assert voter.accepted is None


@virtually
async def test_a_durable_log_alone_is_not_enough() -> None:
    voter = Voter()
    await voter.log(OPENING)
    voter.registers.slow = True

    asked = asyncio.ensure_future(voter.service.accept(NAME, proposed(FIRST), 1, 9))
    await turns()
    early = asked.done()
    voter.registers.finish()

    assert not early
    assert (await asked).verdict is Verdict.YES


@virtually
async def test_a_log_that_takes_nothing_lets_nothing_be_accepted() -> None:
    voter = Voter()
    await voter.begin(OPENING)

    with pytest.raises(Unavailable) as refused:
        await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    assert refused.value.reason == "NOT_LOGGED"


# -- what is refused whoever asks --------------------------------------------------------------


@virtually
async def test_a_commit_of_a_clock_that_is_far_ahead_is_refused() -> None:
    voter = Voter()
    voter.clock.now_ms -= MAX_AHEAD_MS + 10

    with pytest.raises(Unavailable) as refused:
        await voter.service.accept(NAME, proposed(OPENING), 1, 9)

    assert refused.value.reason == "CLOCK_SKEW"
    assert voter.accepted is None


@pytest.mark.parametrize(
    "commit",
    [
        pytest.param(replace(OPENING, environment="web/other"), id="another-environment"),
        pytest.param(replace(FIRST, changes=()), id="changes-nothing"),
        pytest.param(replace(FIRST, stamp=FIRST.follows), id="leads-nowhere"),
        pytest.param(replace(FIRST, stamp=Stamp(1, 5, 1)), id="leads-back"),
    ],
)
@virtually
async def test_a_commit_that_can_not_be_meant_is_refused(commit: Commit) -> None:
    voter = Voter()
    await voter.log(OPENING)

    with pytest.raises(Corrupt):
        await voter.service.accept(NAME, proposed(commit), 1, 9)

    assert voter.accepted is None


@virtually
async def test_a_commit_under_another_place_than_its_own_is_refused() -> None:
    voter = Voter()
    moved = Proposal(LOW, PLACE, proposed(FIRST).value)

    with pytest.raises(Corrupt):
        await voter.service.accept(NAME, moved, 1, 9)


# -- a sealed time -----------------------------------------------------------------------------


@virtually
async def test_nothing_new_of_a_time_that_is_sealed_is_accepted() -> None:
    voter = Voter(sealed_to=FIRST.stamp.hlc)
    await voter.log(OPENING)

    with pytest.raises(Unavailable) as refused:
        await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    assert refused.value.reason == "SEALED"
    assert voter.accepted is None
    voter.sealed_to -= 1
    assert (await voter.service.accept(NAME, proposed(FIRST), 1, 9)).verdict is Verdict.YES


@virtually
async def test_what_another_one_accepted_before_can_be_finished_while_a_time_is_sealed() -> None:
    """Else nobody could, and it would be open for ever, and the round with it."""
    voter = Voter(sealed_to=FIRST.stamp.hlc)
    await voter.log(OPENING)
    again = wire.pack(wire.Accept(NAME, 1, LOW, proposed(FIRST).value, again=True))

    answer = read_accepted(await voter.service.methods()["serial.accept"](PEER, again))

    assert answer.verdict is Verdict.YES
    assert voter.service.open_below(FIRST.stamp.hlc)
    assert not voter.service.open_below(FIRST.stamp.hlc - 1)


@virtually
async def test_once_all_is_finished_not_even_that_is_accepted() -> None:
    voter = Voter(sealed_to=FIRST.stamp.hlc, closed_to=FIRST.stamp.hlc)
    await voter.log(OPENING)

    with pytest.raises(Unavailable, match="sealed"):
        await voter.service.accept(NAME, proposed(FIRST), 1, 9, again=True)

    assert voter.accepted is None


# -- over a channel ----------------------------------------------------------------------------


@virtually
async def test_the_answers_over_a_channel_are_those_given_here() -> None:
    voter, same = Voter(), Voter()
    methods = voter.service.methods()
    for each in (voter, same):
        await each.log(OPENING)
    prepare = wire.pack(wire.Prepare(NAME, 1, LOW))
    accept = wire.pack(wire.Accept(NAME, 1, LOW, proposed(FIRST).value))

    promised = read_promise(await methods["serial.prepare"](PEER, prepare))
    accepted = read_accepted(await methods["serial.accept"](PEER, accept))
    looked = read_promise(await methods["serial.look"](PEER, wire.pack(wire.Prepare(NAME, 1))))

    assert promised == await same.service.prepare(NAME, LOW, 1, 9)
    assert accepted == await same.service.accept(NAME, proposed(FIRST), 1, 9)
    assert looked == await same.service.look(NAME, 1, 9)
    assert looked.held.accepted == proposed(FIRST)


@pytest.mark.parametrize("method", ["prepare", "accept", "look", "open"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        wire.pack("text"),
        wire.pack(wire.Prepare("not a name", 1, (1, 1))),
        wire.pack(wire.Accept("not a name", 1, (1, 1), b"x")),
    ],
)
@virtually
async def test_rubbish_is_refused_as_such(method: str, body: bytes) -> None:
    voter = Voter()

    with pytest.raises(Corrupt):
        await voter.service.methods()[f"serial.{method}"](PEER, body)


@pytest.mark.parametrize("value", [b"", b"\x01\x90", b"\x00rubbish"])
@virtually
async def test_a_proposal_that_does_not_decode_is_refused(value: bytes) -> None:
    voter = Voter()
    body = wire.pack(wire.Accept(NAME, 1, (1, 1), value))

    with pytest.raises(Corrupt):
        await voter.service.methods()["serial.accept"](PEER, body)

    assert voter.accepted is None


@pytest.mark.parametrize(
    "body",
    [
        wire.Promise("perhaps", (1, 1), ZERO.to_bytes()),
        wire.Promise("yes", (1, 1), b"short"),
        wire.Promise("yes", (1, 1), ZERO.to_bytes(), b"short"),
    ],
)
def test_a_promise_that_is_none_is_refused(body: wire.Promise) -> None:
    with pytest.raises(Corrupt):
        read_promise(wire.pack(body))


@pytest.mark.parametrize(
    "body",
    [
        wire.Accepted("perhaps", (1, 1), ZERO.to_bytes()),
        wire.Accepted("yes", (1, 1), b"short"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: wire.Accepted) -> None:
    with pytest.raises(Corrupt):
        read_accepted(wire.pack(body))


# -- going over to other voters ----------------------------------------------------------------


async def opened(voter: Voter, epoch: int, after: str = "") -> list[wire.Open]:
    body = await voter.service.methods()["serial.open"](PEER, wire.pack((epoch, after)))
    return wire.unpack(list[wire.Open], body)


@virtually
async def test_what_is_open_is_told_and_nothing_else() -> None:
    voter = Voter()
    plain = opening(name="web/logged")
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)
    await voter.service.accept("web/logged", proposed(plain), 1, 9)
    await voter.service.accept(TOPOLOGY, proposed(opening(name=TOPOLOGY)), 0, 9)
    await voter.service.prepare("web/promised", HIGH, 1, 8)
    await voter.log(plain)

    found = await opened(voter, 1)

    at = OPENING.stamp.to_bytes()
    assert found == [wire.Open(NAME, LOW, LOW, at, records.encode_commit(FIRST))]


@virtually
async def test_of_what_is_open_some_partitions_may_be_asked_for_alone() -> None:
    voter = Voter()
    for name in (NAME, "web/test"):
        await voter.service.accept(name, proposed(opening(name=name)), 1, 9)
    open_call = voter.service.methods()["serial.open"]

    bitmap = to_bitmap({partition_of("web/test")})
    body = await open_call(PEER, wire.pack((1, "", bitmap)))

    assert [each.environment for each in wire.unpack(list[wire.Open], body)] == ["web/test"]
    with pytest.raises(Corrupt):
        await open_call(PEER, wire.pack((1, "", b"short")))


@virtually
async def test_what_is_open_is_told_in_pages_that_a_channel_carries() -> None:
    voter = Voter()
    names = [f"web/e{number}" for number in range(4)]
    for name in names:
        put = Change(Kind.VARIABLE, "X", "x" * (2 << 20), False, ZERO)
        large = replace(opening(name=name), changes=(*opening().changes, put))
        await voter.service.accept(name, proposed(large), 1, 9)

    found = first = await opened(voter, 1)
    while page := await opened(voter, 1, found[-1].environment):
        found = [*found, *page]

    assert [each.environment for each in found] == names
    assert sum(len(each.value) for each in first) <= 4 << 20


@virtually
async def test_what_the_log_does_not_hold_durably_is_open_still() -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)
    await voter.begin(FIRST)

    found = await opened(voter, 1)

    assert [each.value for each in found] == [records.encode_commit(FIRST)]


@virtually
async def test_what_is_open_is_told_from_the_asked_epoch_on() -> None:
    behind, learning, ahead = Voter(epoch=1), Voter(epoch=1), Voter(epoch=4)

    async def learn() -> None:
        learning.epoch = 2

    learning.on_pull = learn

    with pytest.raises(Unavailable) as refused:
        await opened(behind, 2)

    assert refused.value.reason == "STALE_EPOCH"
    assert await opened(learning, 2) == await opened(ahead, 2) == []
    assert learning.pulled == [(TOPOLOGY, PEER.uid)]


def told(commit: Commit, counter: int, uid: int = 9) -> wire.Open:
    proposal = proposed(commit, counter, uid)
    at = proposal.place.to_bytes()
    return wire.Open(NAME, proposal.ballot, proposal.ballot, at, proposal.value)


@virtually
async def test_what_another_accepted_is_kept_with_its_promise() -> None:
    voter = Voter()
    await voter.service.prepare(NAME, LOW, 1, 9)

    await voter.service.adopt(told(OPENING, 5))

    assert voter.registers.durable[NAME] == Acceptor(Ballot(5, 9), proposed(OPENING, 5))


@virtually
async def test_a_promise_is_never_taken_back_by_what_another_accepted() -> None:
    voter = Voter()
    await voter.service.prepare(NAME, Ballot(7, 8), 1, 8)

    await voter.service.adopt(told(OPENING, 5))

    assert voter.registers.durable[NAME] == Acceptor(Ballot(7, 8), proposed(OPENING, 5))


@pytest.mark.parametrize(
    ("mine", "theirs", "kept"),
    [
        pytest.param((FIRST, 2), (after(OPENING, "b", 2), 3), "theirs", id="higher-ballot"),
        pytest.param((FIRST, 3), (after(OPENING, "b", 2), 2), "mine", id="lower-ballot"),
        pytest.param((FIRST, 2), (OPENING, 3), "mine", id="earlier-place"),
    ],
)
@virtually
async def test_of_two_accepted_values_that_of_the_higher_ballot_is_kept(
    mine: tuple[Commit, int], theirs: tuple[Commit, int], kept: str
) -> None:
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(*mine), 1, 9)

    await voter.service.adopt(told(*theirs))

    assert voter.accepted == proposed(*(mine if kept == "mine" else theirs))


@virtually
async def test_nothing_is_adopted_before_the_log_holds_durably_what_it_follows() -> None:
    """Else what this node accepted itself, at the place where it stands, would be forgotten."""
    voter = Voter()
    await voter.log(OPENING)
    await voter.service.accept(NAME, proposed(FIRST), 1, 9)

    with pytest.raises(Unavailable):
        await voter.service.adopt(told(SECOND, 2))
    await voter.begin(FIRST)
    with pytest.raises(Unavailable):
        await voter.service.adopt(told(SECOND, 2))
    kept = voter.accepted
    voter.store.finish()
    await voter.service.adopt(told(SECOND, 2))

    assert kept == proposed(FIRST)
    assert voter.accepted == proposed(SECOND, 2)


@virtually
async def test_nothing_is_adopted_that_would_not_be_accepted() -> None:
    voter = Voter()
    skewed = Voter()
    skewed.clock.now_ms -= MAX_AHEAD_MS + 10
    moved = wire.Open(NAME, LOW, LOW, PLACE.to_bytes(), proposed(FIRST).value)

    for bad in (moved, told(replace(FIRST, changes=()), 1)):
        with pytest.raises(Corrupt):
            await voter.service.adopt(bad)
    with pytest.raises(Unavailable):
        await skewed.service.adopt(told(OPENING, 1))

    assert voter.accepted is None
    assert skewed.accepted is None
