"""What stands before MiniStack and has it do as AWS does, where it does not.

* CreateSecret gives the first version an id of its own, whatever ClientRequestToken says. Here the
  secret is created empty, and its value is put under that token.
* ListSecrets finds a name by any part of it, not by its beginning; DescribeParameters has what is
  further down than one level, too. Here both are filtered once more.
* Both listings go on by counting, so they skip something when an item before is deleted meanwhile,
  and take a token that is none for the beginning. Here a token has the name that it goes on after.

Sizes, forbidden texts and throttling are the rules of the proxy before this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from tests.backends.fake_vault import serving

_AFTER: Final = "after:"
_PAGE: Final = 50


class StrictMiniStack:
    """Serves on a free port of the loopback from `__aenter__` until `__aexit__`."""

    def __init__(self, upstream: str, region: str) -> None:
        self._upstream = upstream
        self._region = region
        self._open = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = await self._open.enter_async_context(aiohttp.ClientSession())
        self.url = await self._open.enter_async_context(serving(self._serve))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def reset(self) -> None:
        """Forget everything."""
        assert self._session is not None
        async with self._session.post(f"{self._upstream}/_ministack/reset") as reply:
            assert reply.status == 200, f"the reset was answered with {reply.status}"

    async def ask(self, target: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What MiniStack itself answers to `secretsmanager.ListSecrets`, say; it must be good."""
        status, found = await self._ask(target, body)
        assert status == 200, f"{target} was answered with {status}: {found.get('__type')}"
        return found

    async def all_of(self, target: str, name: str, body: Mapping[str, Any]) -> list[Any]:
        """All that a listing has under `name`, in the order of names."""
        found: list[Any] = []
        token: dict[str, str] = {}
        while True:
            answer = await self.ask(target, {**body, "MaxResults": _PAGE, **token})
            found += answer[name]
            if not answer.get("NextToken"):
                return sorted(found, key=lambda each: str(each["Name"]))
            token = {"NextToken": answer["NextToken"]}

    async def _ask(self, target: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        assert self._session is not None
        service = "ssm" if target.startswith("AmazonSSM.") else "secretsmanager"
        headers = {
            "X-Amz-Target": target,
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/"
            f"{self._region}/{service}/aws4_request, SignedHeaders=host, Signature=none",
        }
        data = json.dumps(body)
        async with self._session.post(self._upstream, data=data, headers=headers) as reply:
            answer: dict[str, Any] = json.loads(await reply.read())
            return reply.status, answer

    async def _serve(self, request: web.Request) -> web.Response:
        target = request.headers["X-Amz-Target"]
        body = json.loads(await request.read())
        match target.rpartition(".")[2]:
            case "CreateSecret":
                status, answer = await self._create(body)
            case "ListSecrets":
                status, answer = await self._list(target, "SecretList", body)
            case "DescribeParameters":
                status, answer = await self._list(target, "Parameters", body)
            case _:
                status, answer = await self._ask(target, body)
        return web.json_response(answer, status=status, content_type="application/x-amz-json-1.1")

    async def _create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        value = {"SecretString": body.pop("SecretString")}
        token = {"ClientRequestToken": body.pop("ClientRequestToken")}
        status, created = await self._ask("secretsmanager.CreateSecret", body)
        if status != 200:
            return status, created
        put = {"SecretId": body["Name"], **token, **value}
        answer = await self.ask("secretsmanager.PutSecretValue", put)
        return status, {**created, "VersionId": answer["VersionId"]}

    async def _list(
        self, target: str, name: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        token, size = body.pop("NextToken", ""), body.pop("MaxResults")
        if token and not token.startswith(_AFTER):
            return 400, {"__type": "InvalidNextToken", "message": "The token is not valid."}
        found = await self.all_of(target, name, body)
        after = token.removeprefix(_AFTER)
        rest = [each for each in found if each["Name"] > after and _is_meant(each["Name"], body)]
        more = {"NextToken": f"{_AFTER}{rest[size - 1]['Name']}"} if len(rest) > size else {}
        return 200, {name: rest[:size], **more}


def _is_meant(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a listing with these filters has this name."""
    for each in body.get("Filters", ()):
        if each["Key"] == "name" and not name.lower().startswith(each["Values"][0].lower()):
            return False
    for each in body.get("ParameterFilters", ()):
        path = each["Values"][0].rstrip("/")
        if each.get("Option") == "OneLevel" and name.rpartition("/")[0] != path:
            return False
    return True
