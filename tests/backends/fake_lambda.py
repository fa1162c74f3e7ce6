"""A fake of AWS Lambda: what its API is documented to do with the configuration of functions.

It is no Lambda: it runs nothing, checks no signature, and a function is updating for as long as a
test says so. moto knows no revisions of functions, so it can't stand in for this.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web

from tests.backends.fake_vault import serving

ARN: Final = "arn:aws:lambda:eu-central-1:123456789012:function:"
_FUNCTIONS: Final = "/2015-03-31/functions/"
_TAGS: Final = "/2017-03-31/tags/"
_SET_BY_LAMBDA: Final = re.compile(
    "_HANDLER|_X_AMZN_TRACE_ID|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR|AWS_REGION|AWS_DEFAULT_REGION"
    "|AWS_EXECUTION_ENV|AWS_LAMBDA_(FUNCTION|LOG|RUNTIME|INITIALIZATION)_.*|AWS_ACCESS_KEY(_ID)?"
    "|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN"
)
_TAG_VALUE: Final = re.compile(r"[\w .:/=+@-]{0,256}")
_MOST_BYTES: Final = 4096
_MOST_TAGS: Final = 50


@dataclass
class FakeFunction:
    """One function. `environment` stands for the answer's where it can't be decrypted."""

    variables: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    state: str = "Active"
    update: str = "Successful"
    error: str = ""
    number: int = 1

    @property
    def revision(self) -> str:
        return f"00000000-0000-0000-0000-{self.number:012}"


@dataclass
class FakeLambda:
    """Functions by name, and what was asked."""

    url: str = ""
    functions: dict[str, FakeFunction] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    """Operations that no policy allows, such as "GET tags"."""

    def edit(self, name: str, variables: dict[str, str]) -> None:
        """Replace the variables as somebody else."""
        function = self.functions[name]
        function.variables = dict(variables)
        function.number += 1

    def deploy(self, name: str) -> None:
        """Have somebody deploy code, which leaves the variables as they are."""
        self.functions[name].number += 1

    # The API.

    async def serve(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read() or b"{}")
        if request.path.startswith(_TAGS):
            kind, name = "tags", unquote(request.path.removeprefix(_TAGS)).removeprefix(ARN)
        else:
            rest = request.path.removeprefix(_FUNCTIONS)
            name, _, kind = rest.partition("/")
            name = unquote(name).removeprefix(ARN)
        asked = f"{request.method} {kind}"
        self.asked.append(asked)
        if asked in self.forbidden:
            return refused(403, "AccessDeniedException")
        function = self.functions.get(name)
        if function is None:
            return refused(404, "ResourceNotFoundException")
        match asked:
            case "GET configuration":
                return web.json_response(_configuration(name, function))
            case "PUT configuration":
                return self._update(name, function, body)
            case "GET tags":
                return web.json_response({"Tags": function.tags})
            case "POST tags":
                return _tag(function, body["Tags"])
        return refused(404, "UnknownOperationException")

    def _update(self, name: str, function: FakeFunction, body: dict[str, Any]) -> web.Response:
        variables = body["Environment"]["Variables"]
        if body.get("RevisionId") not in (None, function.revision):
            return refused(412, "PreconditionFailedException")
        if "InProgress" in (function.update, function.state) or function.state == "Pending":
            return refused(409, "ResourceConflictException")
        measured = json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode()
        legal = all(re.fullmatch(r"[a-zA-Z]([a-zA-Z0-9_])+", each) for each in variables)
        if any(_SET_BY_LAMBDA.fullmatch(each) for each in variables) or not legal:
            return refused(400, "InvalidParameterValueException")
        if len(measured) > _MOST_BYTES:
            return refused(400, "InvalidParameterValueException")
        self.edit(name, variables)
        return web.json_response(_configuration(name, function))


def _configuration(name: str, function: FakeFunction) -> dict[str, Any]:
    found: dict[str, Any] = {
        "FunctionName": name,
        "FunctionArn": f"{ARN}{name}",
        "Version": "$LATEST",
        "RevisionId": function.revision,
        "State": function.state,
        "LastUpdateStatus": function.update,
    }
    if function.error:
        found["Environment"] = {
            "Error": {"ErrorCode": function.error, "Message": "a text that nobody should see"}
        }
    elif function.variables:
        found["Environment"] = {"Variables": function.variables}
    return found


def _tag(function: FakeFunction, tags: dict[str, str]) -> web.Response:
    if function.update == "InProgress":
        return refused(409, "ResourceConflictException")
    together = {**function.tags, **tags}
    if len(together) > _MOST_TAGS or not all(map(_TAG_VALUE.fullmatch, tags.values())):
        return refused(400, "InvalidParameterValueException")
    function.tags = together
    return web.Response(status=204)


def refused(status: int, kind: str, **headers: str) -> web.Response:
    """An error as Lambda answers it, with a text that nobody should ever see."""
    body = {"Type": "User", "Message": "a text that may quote a value"}
    return web.json_response(body, status=status, headers={"x-amzn-ErrorType": kind, **headers})


@asynccontextmanager
async def fake_lambda() -> AsyncIterator[FakeLambda]:
    """A fake on a free port of the loopback, for as long as the block."""
    fake = FakeLambda()
    async with serving(fake.serve) as url:
        fake.url = url
        yield fake
