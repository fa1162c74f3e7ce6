"""Sessions with AWS, and calls to one of its services: what the backends for AWS share.

Credentials are named, never carried. A reference is one of

    ""                            as the SDK finds them: environment, profile, container, machine
    profile:NAME                  a profile of the AWS configuration, whatever that says
    role:ARN[@EXTERNAL-ID]        a role, taken on with what the SDK finds
    web-identity                  a role, by the token of the workload (of a pod on EKS, say)

Where the settings name two environment variables, those hold the access key that comes before what
the SDK finds; where they name a role, it is taken on wherever the reference is "".

The SDK blocks, so its calls are made in a pool of threads of the backend's own, and a call that was
begun is waited for, also when its caller is cancelled. It tries nothing again: the reconciler does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

from envd import __version__
from envd.backends.aws_errors import Meanings, Problem, problem_of
from envd.backends.contract import Options
from envd.backends.errors import AuthExpired, BackendError, StoreUnavailable, StoreUnsupported
from envd.threads import finish_in

CREDENTIALS_HINT: Final = "profile:NAME, role:ARN[@EXTERNAL-ID] or web-identity"
CONNECT_S: Final = 5.0
READ_S: Final = 15.0
"""Both services answer within a second; the SDK's own minute would hold a thread for too long."""

_MAX_SESSIONS: Final = 64
_ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,./-]{1,512}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """Whose credentials are used: `name` is a profile, or the ARN of a role."""

    kind: Literal["default", "profile", "role", "web-identity"]
    name: str = ""
    external_id: str = field(default="", repr=False)


def parse_reference(text: str) -> Reference:
    """Read a reference; StoreUnsupported for anything else."""
    kind, _, rest = text.partition(":")
    arn, at, external_id = rest.partition("@")
    match kind:
        case "" if not text:
            return Reference("default")
        case "web-identity" if not rest:
            return Reference("web-identity")
        case "profile" if rest:
            return Reference("profile", rest)
        case "role" if _ROLE_ARN.fullmatch(arn) and (not at or _EXTERNAL_ID.fullmatch(external_id)):
            return Reference("role", arn, external_id)
        case _:
            raise StoreUnsupported(
                "there are no such credentials for AWS", hint=f"use {CREDENTIALS_HINT}"
            )


@dataclass(frozen=True, slots=True)
class Account:
    """What one session is made of; those that are equal share one."""

    reference: Reference
    region: str = ""
    access_key_id_env: str = ""
    secret_access_key_env: str = ""
    role_arn: str = ""

    @staticmethod
    def of(options: Options) -> Account:
        """That of a backend; StoreUnsupported where it can't be."""
        settings = options.settings
        return Account(
            parse_reference(options.credentials),
            *(
                text_setting(settings, name)
                for name in ("region", "access_key_id_env", "secret_access_key_env", "role_arn")
            ),
        )

    @property
    def identity(self) -> str:
        """How people are told whose credentials these are."""
        match self.reference:
            case Reference("profile", name):
                return f"profile {name}"
            case Reference("role", name):
                return name
            case Reference("web-identity"):
                return "the workload's identity"
        return self.role_arn or "the credentials that the AWS SDK finds"


def text_setting(settings: Mapping[str, object], name: str, default: str = "") -> str:
    """A setting that is text; StoreUnsupported for another kind."""
    found = settings.get(name)
    if found is None:
        return default
    if not isinstance(found, str):
        raise StoreUnsupported(f"the setting {name} of the provider aws is a text")
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """A place of the SDK for credentials that are known already."""

    credentials: Any = field(repr=False)

    def load_credentials(self) -> Any:
        return self.credentials


class Sessions:
    """The sessions of one registry, so that a role is taken on once however many bindings use it.

    Everything here blocks, and may be called from any thread.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._sessions: OrderedDict[Account, Any] = OrderedDict()

    def client(self, service: str, account: Account, *, endpoint: str, connections: int) -> Any:
        """A client of the SDK. Raises what the SDK raises, and BackendError."""
        _keep_quiet()
        with self._lock:  # Making sessions and clients is not safe in several threads.
            session = self._session(account)
            return session.create_client(
                service,
                region_name=account.region or None,
                endpoint_url=endpoint or None,
                config=_config(connections),
            )

    def forget(self, account: Account) -> None:
        """Look for these credentials anew the next time."""
        with self._lock:
            self._sessions.pop(account, None)

    def _session(self, account: Account) -> Any:
        session = self._sessions.get(account)
        if session is None:
            session = self._sessions[account] = self._made(account)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(account)
        return session

    def _made(self, account: Account) -> Any:
        from botocore.session import Session

        reference = account.reference
        if reference.kind == "profile":
            return Session(profile=reference.name)
        session = Session()
        if reference.kind == "web-identity":
            return _with_web_identity(session)
        self._set_keys(session, account)
        role = reference.name or account.role_arn
        return _with_role(session, account, role, reference.external_id) if role else session

    def _set_keys(self, session: Any, account: Account) -> None:
        """Give a session the access key that the settings name, where they do."""
        names = (account.access_key_id_env, account.secret_access_key_env)
        if not any(names):
            return
        if not all(names):
            raise StoreUnsupported(
                "access_key_id_env and secret_access_key_env of the provider aws go together"
            )
        missing = next((name for name in names if not self._environment.get(name)), None)
        if missing is not None:
            raise StoreUnsupported(f"the environment variable {missing} holds no AWS access key")
        session.set_credentials(*(self._environment[name] for name in names))


def _config(connections: int = 1) -> Any:
    """How the SDK makes calls: soon given up, and made once."""
    from botocore.config import Config

    return Config(
        user_agent_extra=f"envd/{__version__}",
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # What the SDK says of a value that it does not like quotes the value.
        parameter_validation=False,
    )


def _with_role(session: Any, account: Account, role: str, external_id: str) -> Any:
    """A session that takes on a role with the credentials of another one, when first used."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    source = session.get_credentials()
    if source is None:
        raise NoCredentialsError
    region = account.region or session.get_config_variable("region")
    fetcher = AssumeRoleCredentialFetcher(
        partial(session.create_client, region_name=region, config=_config()),
        source,
        role,
        extra_args={
            "RoleSessionName": "envd",
            **({"ExternalId": external_id} if external_id else {}),
        },
    )
    return _with(session, DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role"))


def _with_web_identity(session: Any) -> Any:
    """A session with the role of the workload's token, and no other credentials."""
    resolver = session.get_component("credential_provider")
    found = resolver.get_provider("assume-role-with-web-identity").load()
    if found is None:
        raise StoreUnsupported(
            "this process has no web identity for AWS",
            hint="set AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, as EKS does",
        )
    return _with(session, found)


def _with(session: Any, credentials: Any) -> Any:
    """Another session with these credentials, which shares what the first one has loaded."""
    from botocore.session import Session

    made = Session()
    made.register_component("data_loader", session.get_component("data_loader"))
    made.register_component("credential_provider", _Given(credentials))
    return made


def _keep_quiet() -> None:
    """Have the SDK log nothing below INFO: at DEBUG it logs requests and answers, values and all.

    It would whenever somebody sets the root logger to DEBUG, which is no decision to log secrets.
    """
    logger = logging.getLogger("botocore")
    if logger.level < logging.INFO:
        logger.setLevel(logging.INFO)


class Calls:
    """Calls to one service with one account, at most `concurrency` at once."""

    def __init__(
        self, service: str, options: Options, sessions: Sessions, *, concurrency: int
    ) -> None:
        """Raise StoreUnsupported for options that can't be."""
        self._service = service
        self._account = Account.of(options)
        self._endpoint = options.endpoint
        self._sessions = sessions
        self._concurrency = concurrency
        self._turn = asyncio.Semaphore(concurrency)
        self._pool: ThreadPoolExecutor | None = None
        self._client: Any = None

    @property
    def identity(self) -> str:
        """Who the store takes us for, and where."""
        region = "" if self._client is None else self._client.meta.region_name
        return f"{self._account.identity} in {region}" if region else self._account.identity

    async def open(self) -> None:
        """Load the SDK and find the credentials. Raises BackendError."""
        await self.close()
        pool = self._pool = ThreadPoolExecutor(self._concurrency, f"envd-{self._service}")
        made = await finish_in(pool, self._attempt, self._make)
        if isinstance(made, Problem):
            raise made.error(f"a session with AWS for {self._account.identity}")
        self._client = made

    def _make(self) -> Any:
        return self._sessions.client(
            self._service,
            self._account,
            endpoint=self._endpoint,
            connections=self._concurrency,
        )

    async def close(self) -> None:
        """Wait for the calls under way, and let go of threads and connections."""
        pool, client = self._pool, self._client
        self._pool = self._client = None
        if pool is not None:
            await finish_in(None, pool.shutdown)
        if client is not None:
            client.close()

    async def call(
        self,
        operation: str,
        about: str,
        /,
        *,
        meanings: Meanings = MappingProxyType({}),
        **parameters: Any,
    ) -> Mapping[str, Any]:
        """Make one call, `put_parameter` for example, about an item or a place.

        Raises BackendError. `parameters` that are None are left out. `meanings` as in `problem_of`.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        async with self._turn:
            pool, client = self._pool, self._client
            if pool is None or client is None:
                raise StoreUnavailable(f"{about} is not open")
            work = partial(getattr(client, operation), **given)
            answer = await finish_in(pool, self._attempt, work, meanings)
        # Raised here, where no error of the SDK is around to become its context.
        if isinstance(answer, Problem):
            raise await self._error(answer, f"{_titled(operation)} of {about}")
        if not isinstance(answer, Mapping):
            raise StoreUnavailable(f"{_titled(operation)} of {about}: an answer without sense")
        return answer

    async def _error(self, problem: Problem, doing: str) -> BackendError:
        if issubclass(problem.kind, AuthExpired):
            await finish_in(self._pool, self._sessions.forget, self._account)
        return problem.error(doing)

    @staticmethod
    def _attempt(work: Callable[[], Any], meanings: Meanings = MappingProxyType({})) -> Any:
        """What work returns, or the problem that it met; of the error itself nothing is kept."""
        try:
            return work()
        except BackendError as error:
            return Problem(type(error), error.message, error.hint)
        except Exception as error:  # noqa: BLE001 (the SDK raises what its libraries do)
            return problem_of(error, meanings)


def _titled(operation: str) -> str:
    """The name of an operation as AWS and its policies have it: `PutParameter`."""
    return "".join(each.capitalize() for each in operation.split("_"))


def listed(answer: Mapping[str, Any], name: str, about: str) -> list[Any]:
    """A list that an answer must have. StoreUnavailable where it has none.

    The SDK makes an answer without anything of half a document, and that is not one of nothing.
    """
    found = answer.get(name)
    if not isinstance(found, list):
        raise StoreUnavailable(f"{about}: an answer without {name}")
    return found


def milliseconds(moment: Any) -> int | None:
    """A time of an answer in unix milliseconds, None where there is none."""
    stamp = getattr(moment, "timestamp", None)
    return None if stamp is None else round(stamp() * 1000)
