"""What the machine does with what no well-behaved neighbour would say, and its bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.core.members import Member, MemberState
from envd.core.swim.config import LAN, SwimConfig
from envd.core.swim.events import (
    Changed,
    DuplicateIdentity,
    Effect,
    Event,
    Leave,
    Merge,
    PushPull,
    Received,
    Remove,
    Renew,
    Renewed,
    RenewReason,
    Seeds,
    Send,
    Sender,
    StreamPing,
    Tick,
)
from envd.core.swim.machine import Swim
from envd.core.swim.messages import (
    Ack,
    Announcement,
    Claim,
    Exchange,
    Gossip,
    Hello,
    Here,
    Nack,
    News,
    Packet,
    Ping,
    PingRequest,
    Row,
)
from envd.core.swim.relays import MAX_RELAYS
from envd.wire.gossip import encode_packet

CLUSTER = "home"
ALIVE, SUSPECT, DOWN, LEFT, GONE = MemberState


def member(uid: int, **changes: object) -> Member:
    made = Member(
        uid,
        2,
        0,
        ALIVE,
        f"n{uid}",
        f"g{uid}:1",
        f"p{uid}:1",
        boot_id=uid.to_bytes(16),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


ME, OTHER, THIRD = member(1), member(2), member(3)


def machine(*known: Member, config: SwimConfig = LAN) -> Swim:
    swim = Swim(ME, CLUSTER, Random(1), config)
    swim.know(known)
    swim.handle(Tick(), 0)
    return swim


def sender(of: Member) -> Sender:
    return Sender(of.uid, of.generation, of.boot_id)


def said(by: Member, message: object = None, *news: News, cluster: str = CLUSTER) -> Received:
    packet = Packet(cluster, message or Gossip(), news)  # type: ignore[arg-type]
    return Received(sender(by), by.gossip, packet)


def claim(
    of: Member,
    state: MemberState,
    *,
    generation: int | None = None,
    incarnation: int | None = None,
    by: int = 9,
) -> Claim:
    return Claim(
        of.uid,
        of.generation if generation is None else generation,
        of.incarnation if incarnation is None else incarnation,
        state,
        by,
    )


def sends(effects: list[Effect]) -> list[tuple[str, object]]:
    return [
        (effect.address, effect.packet.message) for effect in effects if isinstance(effect, Send)
    ]


def passed(swim: Swim, end_ms: int) -> list[Effect]:
    """Let time pass without any answer from anybody."""
    effects: list[Effect] = []
    while (due_ms := swim.due_ms) is not None and due_ms <= end_ms:
        effects += swim.handle(Tick(), due_ms)
    return effects


def in_peace(swim: Swim, end_ms: int) -> None:
    """Let time pass; whoever is pinged answers at once."""
    while (due_ms := swim.due_ms) is not None and due_ms <= end_ms:
        for _, message in sends(swim.handle(Tick(), due_ms)):
            if isinstance(message, Ping):
                target = swim.member(message.target) or ME
                swim.handle(said(target, Ack(message.seq)), due_ms)


# -- who may speak -------------------------------------------------------------------------

STRANGER = member(8)
SUSPICION = claim(OTHER, SUSPECT)


@pytest.mark.parametrize(
    "event",
    [
        said(STRANGER, None, SUSPICION, Announcement(STRANGER)),
        said(THIRD, None, SUSPICION, cluster="another"),
        said(replace(THIRD, generation=1), None, SUSPICION),
        said(replace(THIRD, boot_id=bytes(16)), None, SUSPICION),
        said(member(4), None, SUSPICION),
        said(ME, None, SUSPICION),
        said(STRANGER, Here(1, STRANGER)),
        Merge(Exchange("another", 3, (Row(STRANGER),))),
    ],
    ids=["stranger", "cluster", "past", "clone", "left", "self", "here", "exchange"],
)
def test_what_does_not_come_from_a_member_changes_nothing(event: Event) -> None:
    swim = machine(OTHER, THIRD, member(4, state=LEFT))
    before = swim.members

    effects = swim.handle(event, 10)

    assert swim.members == before
    assert not [effect for effect in effects if isinstance(effect, Changed)]


def test_a_stranger_of_this_cluster_is_answered_and_asked_where_its_channels_are() -> None:
    swim = machine(OTHER)

    effects = swim.handle(said(STRANGER, Ping(5, ME.uid)), 10)
    (_, hello), answer = sends(effects)
    assert isinstance(hello, Hello)
    found = swim.handle(said(STRANGER, Here(hello.seq, STRANGER)), 20)
    unasked = swim.handle(said(STRANGER, Here(hello.seq + 1, STRANGER)), 20)

    assert answer == (STRANGER.gossip, Ack(5))
    assert found == [PushPull(STRANGER.peer)]
    assert unasked == []


def test_a_ping_for_somebody_else_is_not_answered() -> None:
    assert sends(machine(OTHER).handle(said(OTHER, Ping(5, THIRD.uid)), 10)) == []


@pytest.mark.parametrize(("cluster", "answered"), [("", True), (CLUSTER, True), ("x", False)])
def test_anybody_may_ask_who_is_here_but_another_cluster(cluster: str, answered: bool) -> None:
    effects = machine().handle(said(STRANGER, Hello(5), cluster=cluster), 10)

    assert sends(effects) == ([(STRANGER.gossip, Here(5, ME))] if answered else [])


@pytest.mark.parametrize("boot_id", [b"\xff" * 16, b"\0" * 16])
def test_who_asks_under_this_nodes_uid_is_a_double(boot_id: bytes) -> None:
    swim = machine()
    double = replace(ME, boot_id=boot_id)

    effects = swim.handle(said(double, Hello(5)), 10)

    assert effects == [DuplicateIdentity(ME.generation, boot_id, yields=True)]
    assert swim.over


def test_who_remembers_this_start_without_its_boot_id_knows_of_no_double() -> None:
    swim = machine()
    remembered = replace(ME, boot_id=b"")

    effects = swim.handle(Merge(Exchange(CLUSTER, 8, (Row(remembered), Row(OTHER)))), 10)

    assert not any(isinstance(effect, DuplicateIdentity) for effect in effects)
    assert not swim.over


def test_an_exchange_brings_a_stranger_in() -> None:
    swim = machine()

    effects = swim.handle(Merge(Exchange(CLUSTER, 8, (Row(STRANGER), Row(OTHER)))), 10)

    assert effects == [Changed(STRANGER, None), Changed(OTHER, None)]
    assert swim.members == [ME, OTHER, STRANGER]


def test_what_an_exchange_says_to_be_down_is_asked_first() -> None:
    swim = machine(OTHER)
    down = replace(OTHER, state=DOWN)

    swim.handle(Merge(Exchange(CLUSTER, 3, (Row(down, 5_000),))), 10)

    assert swim.member(OTHER.uid) == replace(OTHER, state=SUSPECT)


def test_hearsay_in_an_exchange_confirms_no_suspicion() -> None:
    swim = machine(OTHER, THIRD, member(4), member(5))
    suspect = replace(OTHER, state=SUSPECT)
    swim.handle(said(THIRD, None, claim(OTHER, SUSPECT)), 10)

    for speaker in (3, 4, 5):
        swim.handle(Merge(Exchange(CLUSTER, speaker, (Row(suspect),))), 20)
    early = passed(swim, 4_100)

    assert Changed(replace(OTHER, state=DOWN), suspect) not in early


def test_who_is_confirmed_late_is_down_at_once_and_this_node_does_not_think_that_it_slept() -> None:
    swim = machine(OTHER, THIRD, member(4), member(5))
    swim.handle(said(THIRD, None, claim(OTHER, SUSPECT, by=3)), 10)
    in_peace(swim, 9_000)

    for by in (4, 5):
        swim.handle(said(member(by), None, claim(OTHER, SUSPECT, by=by)), 9_000)
    effects = swim.handle(Tick(), 9_000)

    down = replace(OTHER, state=DOWN)
    assert Changed(down, replace(OTHER, state=SUSPECT)) in effects
    assert swim.health == 0


def test_the_age_of_an_older_start_does_not_make_the_present_one_older() -> None:
    down = replace(OTHER, state=DOWN)
    swim = machine(THIRD)
    swim.handle(Merge(Exchange(CLUSTER, 3, (Row(down, 1_000),))), 10)

    swim.handle(Merge(Exchange(CLUSTER, 3, (Row(replace(down, generation=1), 99_000),))), 10)
    swim.handle(Merge(Exchange(CLUSTER, 3, (Row(down, 5_000),))), 10)

    (aged,) = [row for row in swim.exchange(10).rows if row.member == down]
    assert aged.age_ms == 5_000


def test_news_of_an_unknown_start_leads_to_an_exchange_at_most_once_a_second() -> None:
    swim = machine(OTHER, THIRD)
    news = said(OTHER, None, claim(THIRD, ALIVE, generation=3))

    exchanges = [swim.handle(news, now_ms) for now_ms in (10, 20, 1_009, 1_010)]

    assert exchanges == [[PushPull(OTHER.peer)], [], [], [PushPull(OTHER.peer)]]


# -- this node -----------------------------------------------------------------------------


def test_a_suspicion_is_refuted_with_a_higher_incarnation() -> None:
    swim = machine(OTHER)

    swim.handle(said(OTHER, None, claim(ME, SUSPECT, incarnation=6)), 10)

    assert (swim.me.incarnation, swim.health) == (7, 1)
    assert swim.queued == 1


@pytest.mark.parametrize(
    ("state", "reason"), [(DOWN, RenewReason.DECLARED_DOWN), (GONE, RenewReason.REMOVED)]
)
def test_who_is_declared_down_or_gone_renews_its_generation_once(
    state: MemberState, reason: RenewReason
) -> None:
    swim = machine(OTHER)

    first = swim.handle(said(OTHER, None, claim(ME, state)), 10)
    again = swim.handle(said(OTHER, None, claim(ME, state)), 20)
    renewed = swim.handle(Renewed(3, b"b" * 16), 30)

    fresh = replace(ME, generation=3, boot_id=b"b" * 16)
    later = swim.handle(said(OTHER, None, claim(ME, state, generation=3)), 40)
    assert (first, again, later) == ([Renew(2, reason)], [], [Renew(3, reason)])
    assert renewed == [Changed(fresh, ME)]
    assert swim.me == fresh


def test_a_generation_that_is_not_higher_is_not_taken() -> None:
    swim = machine(OTHER)

    swim.handle(Renewed(2, b"b" * 16), 10)

    assert swim.me == ME


def test_stale_news_of_this_node_is_answered_with_the_whole_truth() -> None:
    swim = machine(OTHER)

    swim.handle(said(OTHER, None, claim(ME, DOWN, generation=1)), 10)
    told = [effect.packet.news for effect in passed(swim, 300) if isinstance(effect, Send)]

    assert (Announcement(ME),) in told
    assert swim.me == ME


def test_a_pinged_suspect_is_told_so() -> None:
    swim = machine(replace(OTHER, state=SUSPECT))

    effects = [effect for effect in passed(swim, 1_000) if isinstance(effect, Send)]

    assert effects[0].address == OTHER.gossip
    assert isinstance(effects[0].packet.message, Ping)
    assert effects[0].packet.news[0] == Claim(OTHER.uid, 2, 0, SUSPECT, ME.uid)


# -- probing -------------------------------------------------------------------------------


def until_ping(swim: Swim) -> tuple[Ping, int]:
    while True:
        due_ms = swim.due_ms
        assert due_ms is not None
        for _, message in sends(swim.handle(Tick(), due_ms)):
            if isinstance(message, Ping):
                return message, due_ms


def test_helpers_that_say_no_answer_show_that_this_node_is_well() -> None:
    swim = machine(OTHER, THIRD, member(4), member(5))
    ping, at_ms = until_ping(swim)
    effects = passed(swim, at_ms + 500)
    helpers = [
        (to, message.seq) for to, message in sends(effects) if isinstance(message, PingRequest)
    ]

    for address, seq in helpers:
        swim.handle(said(member(int(address[1])), Nack(seq)), at_ms + 900)
    passed(swim, at_ms + 1_000)

    target = swim.member(ping.target)
    assert [effect for effect in effects if isinstance(effect, StreamPing)]
    assert len(helpers) == 3
    assert target is not None
    assert target.state is SUSPECT
    assert swim.health == 0


def test_silent_helpers_show_that_this_node_may_be_unwell() -> None:
    swim = machine(OTHER, THIRD, member(4), member(5))
    _, at_ms = until_ping(swim)

    passed(swim, at_ms + 1_000)

    assert swim.health == 3


def test_a_helper_says_no_answer_before_the_probe_ends_and_passes_a_late_one_on() -> None:
    swim = machine(OTHER, THIRD)
    asked = swim.handle(said(OTHER, PingRequest(77, THIRD.uid, THIRD.gossip)), 1)
    ((_, ping),) = sends(asked)
    assert isinstance(ping, Ping)

    early = [one for one in sends(passed(swim, 401)) if isinstance(one[1], Nack)]
    late = sends(swim.handle(said(THIRD, Ack(ping.seq)), 700))

    assert early == [(OTHER.gossip, Nack(77))]
    assert late == [(OTHER.gossip, Ack(77))]


def test_an_answer_of_somebody_else_does_not_count() -> None:
    swim = machine(OTHER, THIRD)
    ping, at_ms = until_ping(swim)
    liar = THIRD if ping.target == OTHER.uid else OTHER

    swim.handle(said(liar, Ack(ping.seq)), at_ms + 10)
    passed(swim, at_ms + 1_000)

    target = swim.member(ping.target)
    assert target is not None
    assert target.state is SUSPECT


def test_a_node_that_stood_still_accuses_nobody() -> None:
    swim = machine(OTHER, THIRD)
    ping, at_ms = until_ping(swim)

    swim.handle(Tick(), at_ms + 60_000)
    swim.handle(said(swim.member(ping.target) or ME, Ack(ping.seq)), at_ms + 60_000)

    assert swim.members == [ME, OTHER, THIRD]
    due_ms = swim.due_ms
    assert due_ms is not None
    assert due_ms >= at_ms + 60_000


def test_what_a_node_hears_as_it_wakes_is_not_put_off_by_its_sleep() -> None:
    swim = machine(OTHER, THIRD, member(4), member(5))
    in_peace(swim, 5_000)
    for by in (3, 4, 5):
        swim.handle(said(member(by), None, claim(OTHER, SUSPECT, by=by)), 3_600_000)

    swim.handle(Tick(), 3_600_000)
    in_peace(swim, 3_604_000)

    assert swim.member(OTHER.uid) == replace(OTHER, state=DOWN)


def test_a_node_that_is_always_late_still_probes() -> None:
    swim = machine(OTHER)
    pings, now_ms = 0, 0
    for _ in range(20):
        now_ms += 2_000
        pings += len(sends(swim.handle(Tick(), now_ms)))

    assert pings >= 2


# -- seeds ---------------------------------------------------------------------------------


def test_seeds_are_asked_for_ever_but_less_and_less_often() -> None:
    swim = machine()
    swim.handle(Seeds(("s:1", "s:2")), 0)

    rounds = []
    while (due_ms := swim.due_ms) is not None and due_ms < 3_600_000:
        if sends(swim.handle(Tick(), due_ms)):
            rounds.append(due_ms)

    pauses = [later - sooner for sooner, later in pairwise(rounds)]
    assert rounds[0] == 0
    assert pauses[0] <= 750
    assert max(pauses) <= 22_500
    assert len([pause for pause in pauses[10:] if pause < 7_500]) == 0


def test_seeds_that_are_known_are_not_asked_again() -> None:
    swim = machine(OTHER)
    swim.handle(Seeds((OTHER.gossip,)), 0)

    asked = [message for _, message in sends(passed(swim, 200)) if isinstance(message, Hello)]

    assert asked == []


# -- bounds --------------------------------------------------------------------------------


def test_probes_for_others_are_bounded() -> None:
    swim = machine(OTHER)

    relayed = sum(
        bool(sends(swim.handle(said(OTHER, PingRequest(seq, 9, "x:1")), 1)))
        for seq in range(MAX_RELAYS + 100)
    )
    passed(swim, 2_000)
    again = sends(swim.handle(said(OTHER, PingRequest(1, 9, "x:1")), 2_000))

    assert relayed == MAX_RELAYS
    assert len(again) == 1


def test_the_table_is_bounded() -> None:
    swim = machine(config=replace(LAN, max_members=10))
    rows = tuple(Row(member(uid)) for uid in range(2, 100))

    effects = swim.handle(Merge(Exchange(CLUSTER, 2, rows)), 10)

    assert len(swim.members) == 10
    assert len(effects) == 9


def test_every_datagram_fits() -> None:
    swim = machine(*(member(uid) for uid in range(2, 40)))
    rows = tuple(Row(member(uid, name="x" * 20)) for uid in range(40, 200))
    swim.handle(Merge(Exchange(CLUSTER, 2, rows)), 10)
    claims = (claim(member(uid), SUSPECT) for uid in range(2, 40))
    swim.handle(said(OTHER, None, *claims), 10)

    effects = passed(swim, 5_000)

    sizes = [len(encode_packet(one.packet)) for one in effects if isinstance(one, Send)]
    assert max(sizes) > 1_000
    assert max(sizes) <= LAN.payload_bytes


def test_who_does_not_fit_a_datagram_can_not_take_part() -> None:
    with pytest.raises(InvalidRequest):
        Swim(member(1, name="x" * 1_200), CLUSTER, Random(1))


# -- anything at all -----------------------------------------------------------------------

some_members = st.builds(
    lambda uid, generation, incarnation, state, boot: Member(
        uid, generation, incarnation, state, "n", "g:1", "p:1", boot_id=bytes([boot])
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(MemberState),
    st.integers(0, 1),
)
some_news = st.one_of(
    st.builds(Announcement, some_members, st.integers(0, 4)),
    st.builds(
        Claim,
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 3),
        st.sampled_from(MemberState),
        st.integers(0, 4),
    ),
)
some_messages = st.one_of(
    st.just(Gossip()),
    st.builds(Ping, st.integers(0, 3), st.integers(1, 4)),
    st.builds(Ack, st.integers(0, 3)),
    st.builds(Nack, st.integers(0, 3)),
    st.builds(PingRequest, st.integers(0, 3), st.integers(1, 4), st.just("g:1")),
    st.builds(Hello, st.integers(0, 3)),
    st.builds(Here, st.integers(0, 3), some_members),
)
some_events = st.one_of(
    st.just(Tick()),
    st.just(Leave()),
    st.builds(Remove, st.integers(1, 4)),
    st.builds(Renewed, st.integers(1, 4), st.just(b"\1")),
    st.builds(
        lambda by, message, news: said(by, message, *news),
        some_members,
        some_messages,
        st.lists(some_news, max_size=3),
    ),
    st.builds(
        lambda rows: Merge(Exchange(CLUSTER, 2, tuple(Row(one, 5) for one in rows))),
        st.lists(some_members, max_size=4),
    ),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(some_events, st.integers(0, 3_000)), max_size=30))
def test_whatever_comes_this_node_lives_until_it_leaves_and_the_story_told_is_whole(
    events: list[tuple[Event, int]],
) -> None:
    swim = Swim(replace(ME, generation=1, boot_id=b"\0"), CLUSTER, Random(1))
    heard: dict[int, Member] = {}
    now_ms, leaving = 0, False
    for event, after_ms in events:
        now_ms += after_ms
        before = swim.me
        effects = swim.handle(event, now_ms)
        leaving = leaving or isinstance(event, Leave)

        for effect in effects:
            if isinstance(effect, Changed):
                previous = heard.get(effect.member.uid)
                assert effect.previous is None or effect.member.supersedes(effect.previous)
                assert previous is None or effect.member.supersedes(previous)
                heard[effect.member.uid] = effect.member
        assert swim.over or swim.me.state is (LEFT if leaving else ALIVE)
        assert swim.me == before or swim.me.supersedes(before)
        assert swim.queued <= len(swim.members)
    for one in swim.members:
        known = heard.get(one.uid)
        assert one.uid == ME.uid or (known is not None and known.state is one.state)
