"""Calls to one API of Google Cloud, through its asynchronous client over gRPC.

Each call is made once: the client is told to try nothing again, and how long to wait for an answer.
A channel is in the loop that opened it; a token is got and renewed by the SDK, in gRPC's threads.

At DEBUG the SDK logs whole requests and answers, values and all. So its loggers are kept at INFO.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from envd import __version__
from envd.backends.contract import Options
from envd.backends.errors import BackendError, StoreUnavailable
from envd.backends.gcp_channel import host_of, is_plain, plain_channel
from envd.backends.gcp_credentials import Account
from envd.backends.gcp_errors import Meanings, Problem, problem_of
from envd.threads import finish_in_thread

ANSWER_S: Final = 12.0
"""These APIs answer within a second; less than the 15 s that a probe may take."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API: the class of its client is loaded by `load`, and the usual host is `host`."""

    name: str
    host: str
    load: Callable[[], Any]


class Calls:
    """Calls to one API with one account, at most `concurrency` at once."""

    def __init__(self, api: Api, options: Options, *, concurrency: int) -> None:
        """Raise StoreUnsupported for options that can't be."""
        self._api = api
        self._account = Account.of(options)
        self._endpoint = options.endpoint
        if options.endpoint:
            host_of(options.endpoint)
        self._turn = asyncio.Semaphore(concurrency)
        self._client: Any = None

    @property
    def identity(self) -> str:
        """Who Google takes us for."""
        if is_plain(self._endpoint):
            return "nobody: the endpoint is on this machine"
        return self._account.identity

    async def open(self) -> None:
        """Load the SDK and find the credentials. Raises BackendError."""
        await self.close()
        _keep_quiet(("google",))
        made = await finish_in_thread(self._attempt, self._prepared)
        if isinstance(made, Problem):
            raise made.error(f"a session with Google Cloud for {self.identity}")
        # The channel belongs to the running loop, so it is made here and not in the thread.
        client = self._attempt(lambda: self._made(*made))
        if isinstance(client, Problem):
            raise client.error(f"a client of {self._api.name}")
        _keep_quiet((type(client).__module__, type(client.transport).__module__))
        self._client = client

    def _prepared(self) -> tuple[Any, Any]:
        """In a thread: the client's class, whose import takes a while, and the credentials."""
        kind = self._api.load()
        return kind, None if is_plain(self._endpoint) else self._account.load()

    def _made(self, kind: Any, credentials: Any) -> Any:
        from google.api_core.gapic_v1.client_info import ClientInfo

        told = ClientInfo(user_agent=f"envd/{__version__}")  # type: ignore[no-untyped-call]
        host = host_of(self._endpoint) if self._endpoint else self._api.host
        if is_plain(self._endpoint):
            transport = kind.get_transport_class("grpc_asyncio")
            return kind(
                transport=transport(channel=plain_channel(host), client_info=told), client_info=told
            )
        return kind(
            credentials=credentials,
            transport="grpc_asyncio",
            client_options={"api_endpoint": host},
            client_info=told,
        )

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()

    async def call(
        self,
        method: str,
        about: str,
        /,
        *,
        meanings: Meanings = MappingProxyType({}),
        **request: Any,
    ) -> Any:
        """Make one call, `get_secret` for example, about an item or a place; return the answer.

        Raises BackendError. `meanings` as in `problem_of`.
        """
        async with self._turn:
            client = self._client
            if client is None:
                raise StoreUnavailable(f"{about} is not open")
            try:
                answer = await getattr(client, method)(
                    request=request, retry=None, timeout=ANSWER_S
                )
            except BackendError:
                raise
            except Exception as error:  # noqa: BLE001 (the SDK raises what its libraries do)
                answer = problem_of(error, meanings)
        # Raised here, where no error of the SDK is around to become its context.
        if isinstance(answer, Problem):
            raise answer.error(f"{_titled(method)} of {about}")
        return answer

    @staticmethod
    def _attempt(work: Callable[[], Any]) -> Any:
        """What work returns, or the problem that it met; of the SDK's errors nothing is kept."""
        try:
            return work()
        except BackendError:
            raise
        except Exception as error:  # noqa: BLE001 (the SDK raises what its libraries do)
            return problem_of(error)


def _titled(method: str) -> str:
    """The name of a method as Google and its logs have it: `GetSecret`."""
    return "".join(each.capitalize() for each in method.split("_"))


def _keep_quiet(names: Iterable[str]) -> None:
    for name in names:
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)


def listed(answer: Any, name: str, about: str) -> tuple[list[Any], str]:
    """What a page of a listing has, and the token of the next one, "" at the end.

    Raises StoreUnavailable for an answer that was none: of such the SDK makes a page of nothing.
    So it does for one that tells of locations which did not answer.
    """
    try:
        if not list(getattr(answer, "unreachable", ())):
            return list(getattr(answer, name)), str(answer.next_page_token)
    except (AttributeError, TypeError):
        pass
    raise StoreUnavailable(f"{about}: an answer without sense, or not a whole one")


def last_part(name: object) -> str:
    """The last part of the name of a resource: `projects/p/secrets/NAME` is NAME."""
    return str(name).rpartition("/")[2]


def microseconds(moment: Any) -> int | None:
    """A time of an answer in unix microseconds, None where there is none."""
    stamp = getattr(moment, "timestamp", None)
    if not callable(stamp):
        return None
    found = stamp()
    return round(found * 1_000_000) if isinstance(found, int | float) else None


def labelled(found: Any) -> Mapping[str, str]:
    """Labels or annotations of an answer."""
    return {str(name): str(value) for name, value in dict(found).items()}
