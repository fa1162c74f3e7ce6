"""What the reconciler of one node has that of another do: that one leads, and has what it takes.

The asker has found out who its caller is, and tells; who is asked trusts it for that, since both
know the cluster's secret. What is asked and answered is for the two reconcilers alone to read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from envd.core.errors import Unsupported
from envd.node.calls import Method, Patient
from envd.node.handshake import Peer
from envd.node.routing import Ask
from envd.wire import peers as wire

METHOD: Final = "sync.call"
Handle = Callable[[str, str, bytes], Awaitable[bytes]]
"""(method, name of the identity, request) -> answer; raises EnvdError."""


class PeerCalls:
    """Asks the reconcilers of other nodes; `handle`, set by who wires the node, answers theirs."""

    def __init__(self, uid: int, ask: Ask) -> None:
        self._uid = uid
        self._ask = ask
        self.handle: Handle | None = None

    async def ask(
        self, uid: int, method: str, identity: str, body: bytes, *, patience_s: float
    ) -> bytes:
        """What the reconciler of a node answers, which may be this one.

        Raises what that raises, a kind of error that peers do not know as Unavailable; Unavailable
        where no answer came, and where its reason is one of `calls.UNDECIDED` it may be done;
        Unsupported where that node has no reconciler.
        """
        if uid == self._uid:
            return await self._handled(method, identity, body)
        asked = wire.pack(wire.SyncAsked(method, identity, body))
        return await self._ask(uid, METHOD, asked, patience_s)

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves. An answer may take long, and questions to others."""
        return {METHOD: Patient(self._serve)}

    async def _serve(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.SyncAsked, body)
        return await self._handled(said.method, said.identity, said.body)

    async def _handled(self, method: str, identity: str, body: bytes) -> bytes:
        if self.handle is None:
            raise Unsupported("this node has no reconciler", reason="NO_RECONCILER")
        return await self.handle(method, identity, body)
