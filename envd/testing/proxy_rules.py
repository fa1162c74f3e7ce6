"""What the proxy does, and to which requests: rules.

A rule is a match and an action. Rules are tried in their order; all that match count a request, and
the first that has its turn acts. See `envd.testing.proxy`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Predicate = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for: all that it says must hold.

    `path` is a regular expression for the whole path, without the query; `query` is searched in it.
    `operation` is what the proxy's operation header is, for APIs that have one path for all;
    `headers` are regular expressions for whole values; `body` looks at the body.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    operation: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upstream, or a rule, answers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer this, and leave the upstream alone."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection, and leave the upstream alone."""


@dataclass(frozen=True, slots=True)
class DropReply:
    """Have the upstream do it, and reset the connection instead of telling."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Have the upstream do it `times` times, one after the other, and tell the last answer."""

    times: int = 2


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change what the upstream answered."""

    change: Callable[[Reply], Reply]


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """Change the body of a request on its way."""

    change: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Before:
    """Do something first, such as what somebody else does right before this write."""

    do: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the caller waiting until the proxy is released, or the caller gives up.

    With `done` the upstream does it first.
    """

    done: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """Answer `then` where what `size` makes of the body (its length) is over `most`.

    A `size` that reads the value out of a document makes it the limit of a value.
    """

    most: int
    then: Respond
    size: Callable[[bytes], int] = len


@dataclass(frozen=True, slots=True)
class Quota:
    """A bucket with `calls` tokens, one for each request; `then` is the answer when it is empty.

    `Proxy.refill` puts tokens in, never more than it holds.
    """

    calls: int
    then: Respond


Action = (
    Respond | Reset | DropReply | Replay | Rewrite | RewriteRequest | Before | Hold | Limit | Quota
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some requests: `after` of them pass first, then `times` are met (0: all).

    A limit or a quota counts those that it stops.
    """

    match: Match
    action: Action
    after: int = 0
    times: int = 0

    def __post_init__(self) -> None:
        if self.after < 0 or self.times < 0:
            raise ValueError("a rule counts from 0 up")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, whole; the names of its headers are in lower case."""

    method: str
    path: str
    query: str
    operation: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def fits(self, match: Match) -> bool:
        """Whether all that a match says holds."""
        headers = match.headers.items()
        return (
            match.method in ("", self.method)
            and match.operation in ("", self.operation)
            and (not match.path or re.fullmatch(match.path, self.path) is not None)
            and (not match.query or re.search(match.query, self.query) is not None)
            and all(
                re.fullmatch(each, self.headers.get(name.lower(), "")) for name, each in headers
            )
            and (match.body is None or match.body(self.body))
        )

    def _header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


class Armed:
    """A rule in a proxy: how far its counting is, and what its bucket holds."""

    __slots__ = ("met", "rule", "seen", "tokens")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.met = 0
        self.tokens = rule.action.calls if isinstance(rule.action, Quota) else 0

    def is_due(self, request: Request) -> bool:
        """Count a request; whether it is this rule's turn."""
        is_spent = 0 < self.rule.times <= self.met
        if is_spent or not request.fits(self.rule.match):
            return False
        self.seen += 1
        return self.seen > self.rule.after and self._stops(request)

    def _stops(self, request: Request) -> bool:
        match self.rule.action:
            case Limit(most=most, size=size):
                return size(request.body) > most
            case Quota():
                had_one = self.tokens > 0
                self.tokens -= had_one
                return not had_one
            case _:
                return True

    def refill(self, tokens: int) -> None:
        """Put tokens into the bucket of a quota, as many as it holds."""
        if isinstance(self.rule.action, Quota):
            self.tokens = min(self.rule.action.calls, self.tokens + tokens)
