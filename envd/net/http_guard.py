"""Who may speak to the HTTP server: the Host and Origin of a request, and its bearer token.

A page in a browser on this machine may send requests to the loopback. Where the browser
resolved a foreign name to it (DNS rebinding), the Host is that name: refused. Where the page
is simply another site's, the Origin says so: refused, before any credential is looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from envd.core.answers import Identity
from envd.core.errors import Denied, InvalidRequest, Unauthenticated
from envd.net.access import Access, bearer_token

IDENTITY: Final = web.RequestKey("identity", Identity)
_HTTP_SCHEMES: Final = frozenset({"http", "https"})


def same_host_only(allowed_hosts: Iterable[str], open_paths: frozenset[str]) -> Middleware:
    """A middleware that refuses a foreign Host (421) and a foreign Origin (403).

    Always allowed are the loopback's names and addresses, and the address at which the
    connection came in; `open_paths` are for probes, which may use any.
    """
    allowed = frozenset(_plain(host) for host in allowed_hosts)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in open_paths:
            host = _host_asked_for(request)
            name = _host_of(f"//{host}")
            if not (name in allowed or _is_loopback(name) or name == _own_address(request)):
                raise InvalidRequest(
                    "this server does not go by the name in the Host header",
                    hint="use its address, or start envd with --advertise NAME",
                    reason="FOREIGN_HOST",
                )
            _check_origin(request, host)
        return await handler(request)

    return check


def authenticated(access: Access, open_paths: frozenset[str]) -> Middleware:
    """A middleware that sets `request[IDENTITY]`, or refuses (401)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in open_paths:
            given = request.headers.getall(hdrs.AUTHORIZATION, [])
            if len(given) > 1:
                raise Unauthenticated("there are two authorizations", reason="TOKEN_INVALID")
            token = bearer_token(given[0]) if given else ""
            request[IDENTITY] = access.by_token(token)
        return await handler(request)

    return check


def resource_of(request: web.Request) -> str:
    """The pattern of the path, "?" for none that is known; the path itself is the client's text."""
    resource = request.match_info.route.resource
    return "?" if resource is None else resource.canonical


def _host_asked_for(request: web.Request) -> str:
    """The Host header, or what a request line with a whole URL names, which beats it."""
    hosts = request.headers.getall(hdrs.HOST, [])
    if len(hosts) != 1:
        raise InvalidRequest("a request has exactly one Host header", reason="FOREIGN_HOST")
    whole_url = request.host != hosts[0]
    return request.url.authority if whole_url else hosts[0]


def _check_origin(request: web.Request, host: str) -> None:
    """Refuse an Origin other than this server's own; programs send none."""
    for origin in request.headers.getall(hdrs.ORIGIN, []):
        scheme, _, rest = origin.partition("://")
        if scheme.lower() not in _HTTP_SCHEMES or rest.lower() != host.lower():
            raise Denied("requests of other sites are refused", reason="FOREIGN_ORIGIN")


def _host_of(url: str) -> str:
    """The host of `//HOST:PORT` in plain form, "" where there is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for one that is none
        return "" if parts.path or "@" in parts.netloc else _plain(parts.hostname or "")
    except ValueError:
        return ""


def _plain(host: str) -> str:
    """Lower case, no brackets, no final dot; an address in its shortest form."""
    text = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _own_address(request: web.Request) -> str | None:
    """The address of ours at which the connection came in."""
    place = request.transport.get_extra_info("sockname") if request.transport else None
    return _plain(str(place[0])) if isinstance(place, tuple) else None
