"""Seeds: addresses, names with many addresses, service records; failures are never fatal."""

from __future__ import annotations

import logging
import socket

import pytest

from envd.net.seeds import MAX_ADDRESSES, Seeds, look_up
from envd.settings.units import Address


class Dns:
    """Knows these hosts and services; all others do not exist."""

    def __init__(self, hosts: dict[str, list[str]], services: dict[str, list[tuple[str, int]]]):
        self._hosts = hosts
        self._services = services

    async def host(self, host: str, port: int) -> list[str]:
        if host not in self._hosts:
            raise socket.gaierror(-2, "Name or service not known")
        return [f"{ip}:{port}" for ip in self._hosts[host]]

    async def service(self, name: str) -> list[tuple[str, int]]:
        if name not in self._services:
            raise OSError("NXDOMAIN")
        return self._services[name]


DNS = Dns(
    {"a.example": ["10.0.0.1", "10.0.0.2"], "b.example": ["[fd00::1]"], "both": ["10.0.0.2"]},
    {
        "_envd-gossip._udp.example": [("a.example", 1), ("gone.example", 2), ("b.example", 3)],
        "_empty._udp.example": [],
    },
)


def seeds(*texts: str, dns: Dns = DNS) -> Seeds:
    return Seeds([*map(Address.parse, texts)], look_up=dns.host, look_up_service=dns.service)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], []),
        (["10.9.9.9:7421", "[fd00::9]:7421"], ["10.9.9.9:7421", "[fd00::9]:7421"]),
        (["a.example:5"], ["10.0.0.1:5", "10.0.0.2:5"]),
        (["both:5", "a.example:5"], ["10.0.0.2:5", "10.0.0.1:5"]),
        (["gone.example:5", "b.example:5"], ["[fd00::1]:5"]),
        (["_envd-gossip._udp.example:9"], ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:3"]),
        (["_empty._udp.example:9"], []),
        (["_gone._udp.example:9", "10.9.9.9:1"], ["10.9.9.9:1"]),
    ],
)
async def test_seeds_become_addresses_and_what_fails_is_left_out(
    texts: list[str], found: list[str]
) -> None:
    assert await seeds(*texts).resolve() == found


async def test_a_seed_that_fails_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    some = seeds("gone.example:5", "_gone._udp.example:9")

    for _ in range(5):
        assert await some.resolve() == []

    told = [record for record in caplog.records if "seed.unresolved" in record.getMessage()]
    assert len(told) == 2


async def test_a_name_with_very_many_addresses_gives_some() -> None:
    many = [f"10.0.{number // 256}.{number % 256}" for number in range(1000)]

    found = await seeds("many:1", dns=Dns({"many": many}, {})).resolve()

    assert found == [f"{ip}:1" for ip in many[:MAX_ADDRESSES]]


async def test_the_systems_resolver_knows_this_machine() -> None:
    assert "127.0.0.1:7421" in await look_up("localhost", 7421)
    with pytest.raises(OSError, match=r".+"):
        await look_up("no-such-host.invalid", 7421)
