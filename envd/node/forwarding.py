"""Writes that another node stamps: this one's clock can't be trusted, or it holds nothing.

A node whose clock is over a minute ahead of all its peers would stamp what nobody takes, so it
hands its writes to a peer as long as it reaches one; alone it writes by itself, and the answer
says detached. The peer that takes a forwarded write trusts this node for who asked: both know
the cluster's secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from envd.core.answers import WriteAnswer
from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.core.requests import DeleteRequest, ResolveRequest, RollbackRequest, WriteRequest
from envd.node.calls import UNDECIDED, Method, Patient
from envd.node.handshake import Peer
from envd.node.operations import AnyWrite
from envd.wire import api, api_conflicts
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

METHOD: Final = "write.forward"
Perform = Callable[[AnyWrite, str, bool], Awaitable[WriteAnswer]]
"""(request, author, may_reveal) -> answer, written by this very node."""


class Forwarder:
    """Hands writes to one of `targets`, the peers to try, in order; none: write it here."""

    def __init__(
        self,
        targets: Callable[[], Sequence[int]],
        ask: Callable[[int, str, bytes], Awaitable[bytes]],
        *,
        always: bool = False,
    ) -> None:
        """`always`: this node makes no write itself; without a target it refuses them."""
        self._targets = targets
        self._ask = ask
        self._always = always

    def wanted(self) -> bool:
        """Whether writes are to be forwarded now."""
        return self._always or bool(self._targets())

    async def forward(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """What the first peer that answers says; raises what it raises.

        Raises Unavailable where none can be asked, with nothing done, and OutcomeUnknown where
        one was asked and did not answer.
        """
        body = packed(request, author, may_reveal)
        problem = Unavailable(
            "no storage node can be reached, and this node makes no writes itself; "
            "nothing was done",
            hint="what it knows can still be read; see: envctl cluster members",
            reason="NO_STORAGE_NODE",
            retry_after_ms=1000,
        )
        for uid in self._targets():
            try:
                answer = await self._ask(uid, METHOD, body)
            except Unavailable as error:
                if error.reason in UNDECIDED:
                    raise OutcomeUnknown(
                        "the write was forwarded, and no answer came back",
                        hint="repeat it with the same --operation ID",
                    ) from error
                if not error.reason.startswith("PEER_"):
                    problem = error  # It answered, and said why not.
            else:
                return unpacked_answer(answer)
        raise problem

    async def ask_any(self, method: str, body: bytes) -> bytes:
        """What the first peer answers to a question that does no harm where it is asked again.

        Raises what it is refused with, Unavailable where nobody answers.
        """
        problem: EnvdError = Unavailable(
            "no storage node can be reached", reason="NO_STORAGE_NODE", retry_after_ms=1000
        )
        for uid in self._targets():
            try:
                return await self._ask(uid, method, body)
            except Unavailable as error:
                if not error.reason.startswith("PEER_"):
                    problem = error
            except Unsupported as error:
                if error.reason != "UNKNOWN_CALL":
                    raise
                problem = error
        raise problem


def packed(request: AnyWrite, author: str, may_reveal: bool) -> bytes:
    """A write as it is handed to another node."""
    return wire.pack(wire.Forwarded(*_encoded(request), author, may_reveal))


def unpacked_answer(body: bytes) -> WriteAnswer:
    """What that node answered."""
    return api.written_from(pb.WriteResponse.FromString(body))


def methods(perform: Perform, *, name: str = METHOD) -> Mapping[str, Method]:
    """What serves forwarded writes, under the name of the call."""

    async def take(_: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.Forwarded, body)
        answer = await perform(decoded(said), said.author, said.may_reveal)
        return api.written_message(answer).SerializeToString()

    return {name: Patient(take)}


def _encoded(request: AnyWrite) -> tuple[str, bytes]:
    match request:
        case WriteRequest():
            return "write", api.write_message(request).SerializeToString()
        case DeleteRequest():
            return "delete", api.delete_message(request).SerializeToString()
        case RollbackRequest():
            return "rollback", api.rollback_message(request).SerializeToString()
        case ResolveRequest():
            return "resolve", api_conflicts.resolve_message(request).SerializeToString()


def decoded(said: wire.Forwarded) -> AnyWrite:
    """The write that another node hands over."""
    match said.kind:
        case "write":
            return api.write_from(pb.WriteRequest.FromString(said.message))
        case "delete":
            return api.delete_from(pb.DeleteRequest.FromString(said.message))
        case "rollback":
            return api.rollback_from(pb.RollbackRequest.FromString(said.message))
        case "resolve":
            return api_conflicts.resolve_from(pb.ResolveRequest.FromString(said.message))
        case _:
            raise InvalidRequest("this node does not know the forwarded write")
