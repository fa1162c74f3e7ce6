"""Finishes what was proposed and left, because its proposer died or was cut off.

Whether it was chosen nobody knows until a majority is asked, and nobody has to ask. So it might
surface at any time later, with the next write or strong read; what begins a chain would then take
back all plain writes since. Each voter therefore looks for what it accepted and nobody went on
with, and asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from envd.core.errors import EnvdError
from envd.core.stamp import Stamp
from envd.node.acceptor import AcceptorService
from envd.node.serial import Serial
from envd.ports import Rng

LOOKS_S: Final = 5.0
"""As long as a proposer itself tries. Up to twice as long: so voters rarely bid at once."""
_log = logging.getLogger(__name__)


class Finisher:
    """`run` it on each storage node."""

    def __init__(
        self,
        acceptor: AcceptorService,
        serial: Serial,
        rng: Rng,
        holds: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """`holds` tells whether an environment is still for this node to decide about."""
        self._holds = holds
        self._acceptor = acceptor
        self._serial = serial
        self._rng = rng

    async def run(self) -> None:
        """Look now and then, for ever."""
        left: Mapping[str, Stamp] = {}
        while True:
            share = int.from_bytes(self._rng.token_bytes(4)) / (1 << 32)
            await asyncio.sleep(LOOKS_S * (1 + share))
            found = self._acceptor.open_places()
            try:
                for name, place in found.items():
                    if left.get(name) == place and self._holds(name):
                        await self._serial.confirm(name)
            except EnvdError as error:  # The others would fare no better now.
                _log.info("serial.left_open", extra={"detail": error.message})
            left = found
