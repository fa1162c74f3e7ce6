"""A server over real gRPC for tests: it answers the calls of one API, and fails as it is told.

It has threads of its own, all there before it answers, does one call at a time, and notes each.
What a fault does happens below the SDK and the backend: a status comes over the wire, a reply is
taken away after the work is done, an answer is bytes that are no message. Nothing is drawn by lot
and nothing waits for a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

SECRET_TEXT = "a text that may quote a value"
"""What every refusal says, which nobody should ever see."""


class Refused(Exception):
    """A status that a handler answers."""

    def __init__(self, code: grpc.StatusCode, message: str = SECRET_TEXT) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Refuse:
    """Answer with a status, and do nothing."""

    code: grpc.StatusCode
    retry_after_s: float = 0.0
    reason: str = ""
    message: str = SECRET_TEXT


@dataclass(frozen=True)
class LoseReply:
    """Do it, and have the connection break before the answer is out."""


@dataclass(frozen=True)
class Garble:
    """Do it, and answer bytes that are no message."""


@dataclass(frozen=True)
class Answer:
    """Answer with this, and do nothing."""

    message: Any


@dataclass(frozen=True)
class Before:
    """Do something first, and then what was asked."""

    do: Callable[[], None]


Action = Refuse | LoseReply | Garble | Answer | Before


@dataclass
class Rule:
    """What happens to calls of these methods: `after` of them pass, the next `times` are met (0:
    all). `about` looks at the request, where it is given."""

    methods: frozenset[str]
    action: Action
    after: int = 0
    times: int = 1
    about: Callable[[Any], bool] | None = None
    seen: int = 0
    met: int = 0

    def meets(self, method: str, request: Any) -> bool:
        if method not in self.methods or 0 < self.times <= self.met:
            return False
        if self.about is not None and not self.about(request):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        self.met += 1
        return True


@dataclass(frozen=True)
class Method:
    """How a method of the API is answered; `request` is the message that it takes."""

    handler: Callable[[Any], Any]
    request: Any


@dataclass
class FakeGrpc:
    """A server on a port of the loopback."""

    service: str
    methods: Mapping[str, Method]
    calls: list[tuple[str, Any]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    endpoint: str = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer calls meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(str).result()
            server = grpc.server(pool)
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._behavior(name, method),
                    request_deserializer=method.request.deserialize,
                    response_serializer=_serialized,
                )
                for name, method in self.methods.items()
            }
            generic = grpc.method_handlers_generic_handler(self.service, handlers)
            server.add_generic_rpc_handlers((generic,))
            self.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            try:
                yield
            finally:
                server.stop(None).wait()

    def forget(self) -> None:
        """Forget calls and rules."""
        self.calls.clear()
        self.rules.clear()

    def add(self, *rules: Rule) -> None:
        self.rules += rules

    def on(
        self, methods: str | Sequence[str], action: Action, *, after: int = 0, times: int = 1
    ) -> None:
        names = [methods] if isinstance(methods, str) else methods
        self.add(Rule(frozenset(names), action, after, times))

    def remove(self, rule: Rule) -> None:
        """Take a rule away; ValueError where it is not there."""
        self.rules[:] = self._without(rule)

    def _without(self, rule: Rule) -> list[Rule]:
        left = [each for each in self.rules if each is not rule]
        if len(left) == len(self.rules):
            raise ValueError("there is no such rule")
        return left

    def count(self, *methods: str) -> int:
        return sum(name in methods for name, _ in self.calls)

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def _behavior(self, name: str, method: Method) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            self.calls.append((name, request))
            action = next((each.action for each in self.rules if each.meets(name, request)), None)
            match action:
                case Refuse():
                    _abort(context, action)
                case Answer(message):
                    return message
                case Before(do):
                    do()
            try:
                message = method.handler(request)
            except Refused as refused:
                _abort(context, Refuse(refused.code, message=refused.message))
            match action:
                case LoseReply():
                    _abort(context, Refuse(grpc.StatusCode.UNAVAILABLE))
                case Garble():
                    return b"\xff\xff\xff\xff"
            return message

        return answer


def _serialized(message: Any) -> bytes:
    if isinstance(message, bytes):
        return message
    if isinstance(message, Message):
        return message.SerializeToString()
    serialized: bytes = type(message).serialize(message)
    return serialized


def _abort(context: Any, refuse: Refuse) -> NoReturn:
    status = Status(code=refuse.code.value[0], message=refuse.message)
    if refuse.retry_after_s:
        seconds = int(refuse.retry_after_s)
        nanos = int((refuse.retry_after_s - seconds) * 1e9)
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos)))
    if refuse.reason:
        status.details.add().Pack(ErrorInfo(reason=refuse.reason, domain="googleapis.com"))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(refuse.code, refuse.message)
    raise AssertionError("abort raises")
