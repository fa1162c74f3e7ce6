"""Conditional requests (RFC 9110, section 13): entity tags are revisions.

The node checks a precondition in the moment of the commit, so what is made of the headers
here is a field of the request. A precondition that does not hold is 412.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from envd.core.answers import Identity
from envd.core.errors import Conflict, EnvdError, InvalidRequest, NotFound
from envd.core.names import check_environment
from envd.core.requests import ReadRequest
from envd.node.api import EnvironmentApi

_ENTITY_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_REVISION: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The value of If-Match or If-None-Match: `*`, or tags (RFC 9110, section 13.1)."""

    any: bool
    strong: tuple[str, ...]
    weak: tuple[str, ...]

    @classmethod
    def of(cls, request: web.Request, header: str) -> EntityTags | None:
        """The tags of a header, None where there is none; raises InvalidRequest."""
        values = request.headers.getall(header, [])
        if not values:
            return None
        joined = ", ".join(values).strip()
        if joined == "*":
            return cls(True, (), ())
        strong: list[str] = []
        weak: list[str] = []
        for part in filter(None, (part.strip() for part in joined.split(","))):
            tag = _ENTITY_TAG.fullmatch(part)
            if tag is None:
                raise InvalidRequest(
                    f"{header} is neither * nor quoted entity tags",
                    hint='send the ETag as it was answered, with its quotes: "REVISION"',
                    reason="INVALID_ETAG",
                )
            (weak if tag[1] else strong).append(tag[2])
        return cls(False, tuple(strong), tuple(weak))

    def weakly_hold(self, revision: str) -> bool:
        """Tell whether one of them is `revision`, weak ones too."""
        return self.any or revision in self.strong or revision in self.weak


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a write is made under: on a revision, on what exists, on what does not."""

    if_revision: str = ""
    must_exist: bool = False
    must_not_exist: bool = False

    def check(self, error: EnvdError) -> None:
        """Raise Conflict (412) where a write's error says that this does not hold."""
        absent = self.must_exist and error.reason == "ENVIRONMENT_NOT_FOUND"
        present = self.must_not_exist and error.reason == "ALREADY_EXISTS"
        if absent or present:
            raise _stale(error.message) from error


async def precondition(
    api: EnvironmentApi, identity: Identity, environment: str, request: web.Request
) -> Precondition:
    """What If-Match and If-None-Match ask; raises InvalidRequest, or Conflict (412)."""
    check_environment(environment)
    wanted = EntityTags.of(request, hdrs.IF_MATCH)
    only_new = EntityTags.of(request, hdrs.IF_NONE_MATCH)
    if only_new is not None and not only_new.any:
        raise InvalidRequest(
            "If-None-Match takes only * here, for an environment that is new",
            hint="use If-Match for a revision",
            reason="INVALID_ETAG",
        )
    revision = ""
    if wanted is not None and not wanted.any:
        revision = await _one_revision(api, identity, environment, wanted.strong)
    return Precondition(revision, wanted is not None, only_new is not None)


def refuse_header(request: web.Request, header: str, why: str) -> None:
    """Raise InvalidRequest where there is a header that could not be heeded."""
    if header in request.headers:
        raise InvalidRequest(f"{header}: {why}", reason="INVALID_ETAG")


async def _one_revision(
    api: EnvironmentApi, identity: Identity, environment: str, tags: tuple[str, ...]
) -> str:
    """The tag to be checked in the commit: of several the one that is current now.

    Where none is, the first stands for them: the write is refused for it, unless it is the
    repeat of one that was done.
    """
    revisions = [tag for tag in tags if _REVISION.fullmatch(tag)]
    if not revisions:
        raise _stale(f"{environment[:255]!a} is at none of these revisions")
    if len(revisions) > 1:
        try:
            now = await api.get(identity, ReadRequest(environment))
        except NotFound:
            return revisions[0]
        if now.revision in revisions:
            return now.revision
    return revisions[0]


def _stale(message: str) -> Conflict:
    return Conflict(
        message,
        hint="read it again, then decide whether your change still fits",
        reason="STALE_REVISION",
    )
