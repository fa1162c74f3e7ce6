"""The harness of the `aws-lambda` backend: one function of the fake, behind the proxy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from envd.backends.aws_lambda import LambdaBackend
from envd.backends.aws_session import Sessions
from envd.backends.contract import Backend, Options
from envd.testing.conformance import ALL_ABILITIES, Ability
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Layout
from envd.testing.proxy import DropReply, Match, Noted, Proxy, Reply, Reset, Respond, Rewrite, Rule
from envd.testing.proxy_rules import Action
from envd.testing.wire import WireHarness
from tests.backends.fake_lambda import FakeFunction, FakeLambda, fake_lambda

FUNCTION: Final = "conformance"
KEYS: Final = {"KEY_ID": "testing", "SECRET_KEY": "testing"}
SETTINGS: Final = {
    "region": "eu-central-1",
    "access_key_id_env": "KEY_ID",
    "secret_access_key_env": "SECRET_KEY",
}
_CONFIGURATION: Final = ".*/configuration"
_IS_WRITE: Final = Match(body=bool)
"""Nothing that reads has a body."""


def _refusal(status: int, kind: str, **headers: str) -> Respond:
    body = json.dumps({"Type": "User", "Message": "a text that may quote a value"}).encode()
    named = {"Content-Type": "application/json", "x-amzn-ErrorType": kind, **headers}
    return Respond(status, named, body)


class LambdaHarness(WireHarness):
    """`place` is a function that others have made, without any variables."""

    name = "aws-lambda (fake)"
    place = FUNCTION
    layout: Layout = "document"
    abilities = ALL_ABILITIES & ~(
        Ability.BELOW | Ability.FOREIGN_NAMES | Ability.TEMPLATES | Ability.CURSORS
    )
    missing = {  # noqa: RUF012
        "BELOW": "a function is one environment",
        "FOREIGN_NAMES": "there is nothing but the function",
        "TEMPLATES": "a function has a name of its own",
        "CURSORS": "there is one page",
        "POSTCHECK": "the store compares versions itself",
        "EMPTY_PAGE": "there is one page",
    }
    wire_faults = frozenset(
        {
            Kind.THROTTLED,
            Kind.AUTH_EXPIRED,
            Kind.FORBIDDEN,
            Kind.UNAVAILABLE,
            Kind.RESET,
            Kind.LOST_REPLY,
            Kind.MALFORMED,
        }
    )

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self.sessions = sessions
        self._server = AsyncExitStack()
        self.fake = FakeLambda()

    async def begin(self) -> None:
        self.fake = await self._server.enter_async_context(fake_lambda())
        self.fake.functions[FUNCTION] = FakeFunction()
        self.proxy = Proxy(self.fake.url)
        await super().begin()

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()

    def backend(self, options: Options) -> Backend:
        settings = {**SETTINGS, **options.settings}
        return LambdaBackend(
            replace(options, endpoint=self.proxy.url, settings=settings), self.sessions
        )

    # What others do.

    async def contents(self) -> Mapping[str, str | None]:
        variables = self.fake.functions[FUNCTION].variables
        return {FUNCTION: json.dumps(variables, ensure_ascii=False)} if variables else {}

    async def others_put(self, native: str, value: str) -> None:
        self.fake.edit(native, json.loads(value))

    async def others_delete(self, native: str) -> None:
        self.fake.edit(native, {})

    def write_of(self, native: str) -> Match:
        return Match(method="PUT", path=_CONFIGURATION)

    # What goes wrong, and what it costs.

    def rules(self, fault: Fault) -> Sequence[Rule]:
        action = self._action(fault)
        if fault.call is not Call.APPLY:
            match = Match(method="GET", path=_CONFIGURATION)
            return [Rule(match, action, fault.after, fault.times)]
        # Of two requests the one that does it, where it is about the reply.
        is_reply = fault.kind in (Kind.LOST_REPLY, Kind.MALFORMED)
        is_write = Match(method="PUT", path=_CONFIGURATION) if is_reply else _IS_WRITE
        return [Rule(is_write, action, fault.after, fault.times)]

    def _action(self, fault: Fault) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:g}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return _refusal(429, "TooManyRequestsException", **wait)
            case Kind.AUTH_EXPIRED:
                return _refusal(403, "ExpiredTokenException")
            case Kind.FORBIDDEN:
                return _refusal(403, "AccessDeniedException")
            case Kind.UNAVAILABLE:
                return _refusal(500, "ServiceException")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(
                    lambda reply: Reply(200, reply.headers, reply.body[: len(reply.body) // 2])
                )

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"
