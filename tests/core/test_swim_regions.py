"""Regions: who speaks for one, and that the others hold their tongues but hear all."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.members import Member, MemberState
from envd.core.swim.config import LAN, WAN, push_pull_interval_ms
from envd.core.swim.events import (
    Changed,
    Effect,
    Leave,
    Merge,
    PushPull,
    Received,
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
    Message,
    Nack,
    News,
    Packet,
    Ping,
    PingRequest,
    Row,
)
from envd.core.swim.regions import Regions
from envd.core.swim.table import MemberTable
from tests.core.swim_world import World

CLUSTER = "home"
ALIVE, SUSPECT, DOWN, LEFT, GONE = MemberState


def member(
    uid: int, region: str = "east", state: MemberState = ALIVE, role: str = "storage"
) -> Member:
    return Member(
        uid,
        1,
        0,
        state,
        f"n{uid}",
        f"{region}{uid}:1",
        f"{region}{uid}:2",
        region=region,
        role=role,
        boot_id=uid.to_bytes(16),
    )


EAST = [member(uid) for uid in range(1, 6)]
WEST = [member(uid, "west") for uid in range(11, 16)]


def machine(me: Member, *known: Member) -> Swim:
    swim = Swim(me, CLUSTER, Random(1))
    swim.know(known)
    swim.handle(Tick(), 0)
    return swim


def said(by: Member, message: Message | None = None, *news: News) -> Received:
    sender = Sender(by.uid, by.generation, by.boot_id)
    return Received(sender, by.gossip, Packet(CLUSTER, message or Gossip(), news))


def suspicion(of: Member, by: int) -> Claim:
    return Claim(of.uid, of.generation, of.incarnation, SUSPECT, by)


def passed(swim: Swim, end_ms: int, silent: str = "") -> list[Effect]:
    """Let time pass; whoever is asked answers at once, but those of the region `silent`."""
    effects: list[Effect] = []
    while (due_ms := swim.due_ms) is not None and due_ms <= end_ms:
        for effect in swim.handle(Tick(), due_ms):
            effects.append(effect)
            if isinstance(effect, Send) and (answer := answered(swim, effect, silent)):
                swim.handle(answer, due_ms)
    return effects


def unanswered(swim: Swim, end_ms: int) -> list[Effect]:
    """Let time pass, and nobody answer."""
    effects: list[Effect] = []
    while (due_ms := swim.due_ms) is not None and due_ms <= end_ms:
        effects += swim.handle(Tick(), due_ms)
    return effects


def answered(swim: Swim, sent: Send, silent: str) -> Received | None:
    (asked,) = [each for each in swim.members if each.gossip == sent.address]
    match sent.packet.message:
        case Ping(seq) if asked.region != silent:
            return said(asked, Ack(seq))
        case PingRequest(seq) if asked.region != silent:
            return said(asked, Nack(seq))
        case _:
            return None


def went_to(effects: list[Effect], region: str) -> list[Effect]:
    return [
        effect
        for effect in effects
        if (isinstance(effect, Send) and effect.address.startswith(region))
        or (isinstance(effect, PushPull) and effect.peer.startswith(region))
        or (isinstance(effect, StreamPing) and effect.member.region == region)
    ]


def asked(effects: list[Effect]) -> list[int]:
    return [
        effect.packet.message.target
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.packet.message, Ping)
    ]


# -- who speaks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "gateways"),
    [
        ("a", [1]),
        ("aaaaa", [1, 2, 3]),
        ("daaaa", [2, 3, 4]),
        ("lgaaa", [3, 4, 5]),
        ("saaaa", [1, 2, 3, 4]),
        ("ssaaa", [1, 2, 3, 4, 5]),
        ("aaasa", [1, 2, 3]),
        ("sssss", [1, 2, 3, 4, 5]),
        ("ddddd", []),
    ],
)
def test_the_first_three_that_are_not_suspected_speak_and_the_suspects_before_them(
    states: str, gateways: list[int]
) -> None:
    named = {"a": ALIVE, "s": SUSPECT, "d": DOWN, "l": LEFT, "g": GONE}
    members = [member(uid, state=named[state]) for uid, state in enumerate(states, 1)]

    assert [each.uid for each in regions_of(members).gateways("east")] == gateways


def test_agents_speak_only_for_a_region_without_storage() -> None:
    agents = [member(uid, role="agent") for uid in (1, 2)]
    storage = member(3)

    assert regions_of([*agents, storage]).gateways("east") == [storage]
    assert regions_of(agents).gateways("east") == agents
    assert not regions_of([*agents, storage]).speaks(agents[0])
    assert regions_of(agents).speaks(agents[0])


def regions_of(members: list[Member]) -> Regions:
    regions = Regions({each.uid: each for each in members})
    for each in members:
        regions.update(None, each)
    return regions


some_members = st.builds(
    lambda uid, generation, state, region: replace(
        member(uid, region, state), generation=generation
    ),
    st.integers(2, 9),
    st.integers(1, 3),
    st.sampled_from(MemberState),
    st.sampled_from(("east", "west")),
)


@given(st.lists(some_members, max_size=30))
def test_who_speaks_follows_from_the_table_however_it_came_about(heard: list[Member]) -> None:
    table, chance = MemberTable(member(1), 100), Random(1)
    for each in heard:
        table.put(each, 0, chance)
        if each.state is GONE:
            table.forget(1, 0, 10)

    fresh = regions_of(list(table))
    for region in ("east", "west"):
        assert table.regions.gateways(region) == fresh.gateways(region)
        assert table.regions.reachable_count(region) == fresh.reachable_count(region)
    assert {each.uid for each in table.far} == {each.uid for each in table if each.region == "west"}


# -- who holds his tongue ------------------------------------------------------------------


def test_who_is_no_gateway_sends_nothing_to_another_region_of_its_own_accord() -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    swim.handle(said(EAST[0], None, suspicion(WEST[0], 1), suspicion(EAST[4], 1)), 10)

    effects = passed(swim, 600_000)

    assert len(asked(effects)) > 500
    assert went_to(effects, "west") == []


def test_who_is_no_gateway_looks_for_members_of_its_own_region_only_when_all_are_down() -> None:
    down = [replace(each, state=DOWN) for each in [EAST[4], *WEST]]
    swim = machine(EAST[3], *EAST[:3])
    swim.handle(Merge(Exchange(CLUSTER, 1, tuple(Row(each) for each in down))), 10)

    effects = passed(swim, 600_000)

    assert asked(effects).count(EAST[4].uid) > 500
    assert went_to(effects, "west") == []


def test_who_is_no_gateway_answers_another_region() -> None:
    swim = machine(EAST[3], *EAST, *WEST)

    effects = swim.handle(said(WEST[0], Ping(7, EAST[3].uid)), 10)

    assert effects == [Send(WEST[0].gossip, Packet(CLUSTER, Ack(7)))]


def test_an_answer_refutes_what_another_region_believes() -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    accused = said(WEST[0], Ping(7, EAST[3].uid), suspicion(EAST[3], WEST[0].uid))

    (answer,) = went_to(swim.handle(accused, 10), "west")

    assert isinstance(answer, Send)
    assert answer.packet.news == (Claim(EAST[3].uid, 1, 1, ALIVE),)


def test_a_gateway_asks_gateways_of_other_regions_and_who_is_suspect_there() -> None:
    swim = machine(EAST[0], *EAST, *WEST)
    swim.handle(said(WEST[0], None, suspicion(WEST[4], 11)), 10)

    effects = went_to(passed(swim, 25_000), "west")

    pings = asked(effects)
    assert set(pings) == {11, 12, 13, 15}
    assert len(pings) == pytest.approx(25_000 / WAN.probe_interval_ms, abs=1)
    assert any(isinstance(effect, PushPull) for effect in effects)


def test_news_crosses_by_gateways_to_gateways() -> None:
    swim = machine(EAST[0], *EAST, *WEST)

    swim.handle(said(EAST[1], None, suspicion(EAST[4], 2)), 10)
    effects = went_to(passed(swim, 4_000), "west")

    told = {
        effect.address
        for effect in effects
        if isinstance(effect, Send) and suspicion(EAST[4], 2) in effect.packet.news
    }
    assert told == {each.gossip for each in WEST[:3]}


def test_a_round_of_the_others_lasts_no_longer_than_the_least_suspicion() -> None:
    silent = [member(uid, "west", SUSPECT) for uid in range(11, 41)]
    swim = machine(EAST[0], *EAST, *silent)

    effects = passed(swim, WAN.suspicion_mult * WAN.probe_interval_ms, "west")

    pings = [uid for uid in asked(effects) if uid >= 11]
    assert set(pings) == {each.uid for each in silent}
    assert len(pings) == 30


def test_helpers_are_gateways_of_other_regions_than_the_target() -> None:
    swim = machine(EAST[0], *EAST, *WEST, member(21, "south"))

    effects = passed(swim, 30_000, "west")

    helpers = {
        (effect.packet.message.address[:4], effect.address.partition(":")[0])
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.packet.message, PingRequest)
    }
    assert helpers == {("west", "east2"), ("west", "east3"), ("west", "south21")}
    assert swim.health == 0


def test_a_channel_is_tried_for_as_long_as_the_probe_lasts() -> None:
    swim = machine(EAST[0], *EAST[:2], *WEST)

    tried = [one for one in unanswered(swim, 10_000) if isinstance(one, StreamPing)]

    assert {(one.member.region, one.within_ms) for one in tried} == {
        ("east", LAN.probe_interval_ms),
        ("west", WAN.probe_interval_ms),
    }


def test_a_new_gateway_exchanges_all_with_another_region_soon() -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    swim.handle(said(EAST[1], None, suspicion(EAST[0], 2)), 10)

    effects = passed(swim, 10 + WAN.probe_interval_ms)

    assert [one for one in went_to(effects, "west") if isinstance(one, PushPull)]


def test_who_is_a_gateway_no_more_is_silent_again() -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    swim.handle(said(EAST[1], None, suspicion(EAST[0], 2)), 10)
    while_gateway = passed(swim, 20_000)
    refuted = Claim(EAST[0].uid, 1, 1, ALIVE)

    swim.handle(said(EAST[1], None, suspicion(EAST[4], 2)), 20_001)
    swim.handle(said(EAST[0], None, refuted), 20_001)
    afterwards = passed(swim, 600_000)

    assert went_to(while_gateway, "west")
    assert went_to(afterwards, "west") == []


def test_exchanges_are_stretched_by_all_who_are_told_of_in_them() -> None:
    swim = machine(EAST[0], EAST[1], *(member(uid, "west") for uid in range(11, 50)))

    peers = [one.peer for one in passed(swim, 3_600_000) if isinstance(one, PushPull)]

    west = sum(peer.startswith("west") for peer in peers)
    assert len(peers) - west == 3_600_000 // push_pull_interval_ms(LAN, 41)
    assert west == 3_600_000 // push_pull_interval_ms(WAN, 41)


def test_a_helper_takes_the_time_that_its_distance_from_the_target_needs() -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    swim.handle(said(EAST[0], PingRequest(1, EAST[1].uid, EAST[1].gossip)), 1)
    swim.handle(said(EAST[0], PingRequest(2, WEST[1].uid, WEST[1].gossip)), 1)

    nacks = {}
    while (due_ms := swim.due_ms) is not None and due_ms <= 5_000:
        for effect in swim.handle(Tick(), due_ms):
            if isinstance(effect, Send) and isinstance(effect.packet.message, Nack):
                nacks[effect.packet.message.seq] = due_ms

    assert nacks == {1: 401, 2: 1_601}


# -- how long suspicions last --------------------------------------------------------------


@pytest.mark.parametrize(
    ("suspect", "accusers", "least_ms"),
    [(EAST[4], (1, 2, 3), 4_000), (WEST[4], (1, 2, 3), 30_000), (WEST[4], (11, 12, 13), 30_000)],
)
def test_a_suspect_of_another_region_has_the_time_that_the_distance_needs(
    suspect: Member, accusers: tuple[int, ...], least_ms: int
) -> None:
    swim = machine(EAST[3], *EAST, *WEST)
    for by in accusers:
        swim.handle(said(EAST[0], None, suspicion(suspect, by)), 10)

    before = passed(swim, 9 + least_ms)
    after = passed(swim, 10 + least_ms)

    down = Changed(replace(suspect, state=DOWN), replace(suspect, state=SUSPECT))
    assert down not in before
    assert down in after


def test_in_a_region_of_two_one_accuser_is_not_enough() -> None:
    swim = machine(EAST[0], EAST[1], *WEST[:2])

    swim.handle(said(WEST[0], None, suspicion(EAST[1], EAST[0].uid)), 10)
    alone = passed(swim, 9_000)
    for by in WEST[:2]:
        swim.handle(said(WEST[0], None, suspicion(EAST[1], by.uid)), 9_000)
    confirmed = passed(swim, 9_000)

    down = Changed(replace(EAST[1], state=DOWN), replace(EAST[1], state=SUSPECT))
    assert down not in alone
    assert down in confirmed


# -- leaving -------------------------------------------------------------------------------


def test_the_only_one_of_its_region_has_left_when_other_regions_were_told() -> None:
    swim = machine(EAST[0], *WEST)

    swim.handle(Leave(), 10)
    effects = passed(swim, 400)
    at_once = swim.left
    effects += passed(swim, 3_000)

    left = Claim(EAST[0].uid, 1, 0, LEFT)
    told = [one for one in effects if isinstance(one, Send) and left in one.packet.news]
    assert not at_once
    assert swim.left
    assert {one.address for one in told} == {each.gossip for each in WEST[:3]}


def test_who_is_no_gateway_leaves_it_to_the_gateways_to_tell_other_regions() -> None:
    swim = machine(EAST[3], *EAST, *WEST)

    swim.handle(Leave(), 10)
    effects = passed(swim, 3_000)

    assert swim.left
    assert went_to(effects, "west") == []


# -- whole clusters ------------------------------------------------------------------------


def test_one_region_of_any_name_is_as_no_region() -> None:
    def story(*regions: str) -> list[str]:
        world = World()
        for command in (*regions, "nodes a b c d e", "trace on", "advance 9s", "kill b"):
            world.run(command)
        return [world.run(command) for command in ("advance 40s", "restart b", "advance 40s")]

    assert story("region east a b c d e") == story()


def test_a_member_may_come_back_in_another_region() -> None:
    world = World()
    for command in ("region east a b", "region west c d", "nodes a b c d", "advance 5s"):
        world.run(command)

    for command in ("kill b", "advance 60s", "region west b", "restart b", "advance 10s"):
        world.run(command)

    for node in world.nodes.values():
        assert [each.region for each in node.swim.members] == ["east", "west", "west", "west"]
        assert all(each.state is ALIVE for each in node.swim.members)


PLACES = "abcdefgh"
mishaps = st.one_of(
    st.sampled_from([f"kill {place}" for place in PLACES]),
    st.sampled_from([f"restart {place}" for place in PLACES]),
    st.sets(st.sampled_from(PLACES), min_size=1, max_size=7).map(
        lambda side: f"cut {' '.join(sorted(side))} | {' '.join(sorted(set(PLACES) - side))}"
    ),
    st.permutations(PLACES).map(lambda some: f"oneway {some[0]} > {some[1]}"),
    st.permutations(PLACES).map(lambda some: f"nodatagrams {some[0]} {some[1]}"),
    st.just("heal"),
)


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(("east", "west", "south")), min_size=8, max_size=8),
    st.lists(st.tuples(mishaps, st.sampled_from((1, 10, 90))), max_size=6),
)
def test_whatever_happened_all_that_run_find_each_other_after_it(
    regions: list[str], story: list[tuple[str, int]]
) -> None:
    world = World()
    for place, region in zip(PLACES, regions, strict=True):
        world.run(f"region {region} {place}")
    for command in ("far 80ms", f"nodes {' '.join(PLACES)}", "advance 5s"):
        world.run(command)
    for mishap, seconds in story:
        if not (mishap.startswith("restart") and world.nodes[mishap.split()[1]].running):
            world.run(mishap)
        world.run(f"advance {seconds}s")

    world.run("heal")
    world.run("advance 240s")

    running = {place for place in PLACES if world.nodes[place].running}
    for place in sorted(running):
        seen = {each.name for each in world.nodes[place].swim.members if each.state is ALIVE}
        down = {each.name for each in world.nodes[place].swim.members if each.state is DOWN}
        assert seen == running
        assert down == set(PLACES) - running


def test_an_announcement_of_a_newcomer_crosses_whole() -> None:
    swim = machine(EAST[0], *EAST[1:3], *WEST)
    newcomer = member(9)

    swim.handle(said(EAST[1], None, Announcement(newcomer)), 10)
    effects = went_to(passed(swim, 2_000), "west")

    told = [one for one in effects if isinstance(one, Send) and one.packet.news]
    assert told
    assert all(one.packet.news == (Announcement(newcomer),) for one in told)
