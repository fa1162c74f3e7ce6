"""Leases on real nodes: one holder at a time, tokens that grow, and a next one that takes over."""

from __future__ import annotations

import asyncio

import pytest

from envd.core.errors import OutcomeUnknown, Unavailable
from envd.node.leases import Lease, Leases
from tests.node.machines import Machines, simulate
from tests.node.test_serial import voting

NAME = "sync.web"
TTL_S = 3.0


def leases(machines: Machines, name: str) -> Leases:
    return machines.node(name).node.consent.leases


async def acquire(machines: Machines, name: str) -> Lease | None:
    return await machines.run(name, leases(machines, name).acquire(NAME, TTL_S))


async def acquired(machines: Machines, name: str) -> Lease:
    """Ask until the lease is there."""
    while (lease := await acquire(machines, name)) is None:  # noqa: ASYNC110 - as users do
        await asyncio.sleep(0.1)
    return lease


def test_of_several_that_ask_one_has_the_lease() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)

        found = await asyncio.gather(*(acquire(machines, n) for n in ("n1", "n2", "n3")))

        assert [lease.token for lease in found if lease is not None] == [1]

    simulate(story)


def test_the_next_holder_waits_until_the_last_one_is_surely_over_and_has_a_higher_token() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        first = await acquired(machines, "n1")
        machines.cluster.crash(machines.machine("n1"))

        second = await acquired(machines, "n2")

        assert machines.loop.time() >= first.until_s
        assert second.token == first.token + 1

    simulate(story)


def test_a_lease_that_is_renewed_is_nobody_elses() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        lease: Lease | None = await acquired(machines, "n1")

        for _ in range(10):
            await asyncio.sleep(TTL_S / 3)
            assert lease is not None
            lease = await machines.run("n1", leases(machines, "n1").renew(lease))
            assert await acquire(machines, "n2") is None

        assert lease is not None
        assert lease.token == 1

    simulate(story)


def test_a_lease_that_was_let_go_can_be_had_at_once() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        lease = await acquired(machines, "n1")

        await machines.run("n1", leases(machines, "n1").release(lease))

        again = await acquire(machines, "n2")
        assert again is not None
        assert again.token == 2

    simulate(story)


def test_a_lost_lease_is_not_renewed() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        lease = await acquired(machines, "n1")
        await acquired(machines, "n2")

        assert await machines.run("n1", leases(machines, "n1").renew(lease)) is None

    simulate(story)


def test_a_minority_gives_no_lease() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        machines.cluster.network.partition(["n1"], ["n2", "n3"])

        with pytest.raises((Unavailable, OutcomeUnknown)):
            await acquire(machines, "n1")

    simulate(story)


def test_who_is_cut_off_stops_its_work_before_the_next_one_begins() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        at_work: list[str] = []
        began: list[tuple[str, int]] = []

        def holding(name: str) -> None:
            async def work(lease: Lease) -> None:
                at_work.append(name)
                began.append((name, lease.token))
                assert len(at_work) == 1, "two hold one lease"
                try:
                    await asyncio.Event().wait()
                finally:
                    at_work.remove(name)

            boot = machines.machine(name).boot
            assert boot is not None
            boot.process.spawn(leases(machines, name).hold(NAME, TTL_S, work), "holding")

        for name in ("n1", "n2", "n3"):
            holding(name)
        await machines.until(lambda: bool(at_work), 10.0)
        first = at_work[0]
        others = [name for name in ("n1", "n2", "n3") if name != first]
        machines.cluster.network.partition([first], others)

        await machines.until(lambda: bool(at_work) and at_work[0] != first, 30.0)

        assert [token for _, token in began] == [1, 2]

    simulate(story)
