"""Both stores of AWS for the conformance kit: moto behind the proxy, which is as strict as AWS."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from envd.backends.aws_secrets_manager import SecretsManagerBackend
from envd.backends.aws_session import Sessions
from envd.backends.aws_ssm import SsmBackend
from envd.backends.contract import Backend, Options
from envd.testing.conformance import ALL_ABILITIES
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Layout
from envd.testing.proxy import (
    Before,
    DropReply,
    Limit,
    Match,
    Noted,
    Reply,
    Reset,
    Respond,
    Rewrite,
    Rule,
)
from envd.testing.wire import WireHarness
from tests.backends import aws_emulator

_JSON: Final = {"Content-Type": "application/x-amz-json-1.1"}
_WIRE: Final = frozenset(
    {
        Kind.THROTTLED,
        Kind.AUTH_EXPIRED,
        Kind.FORBIDDEN,
        Kind.UNAVAILABLE,
        Kind.RESET,
        Kind.LOST_REPLY,
        Kind.MALFORMED,
        Kind.EMPTY_PAGE,
    }
)
_PAGE: Final = 10
"""Items a page: with as many as AWS has, most of the time would go into filling them."""
_READING: Final = ("Get", "List", "Describe", "BatchGet")


def refusal(code: str, status: int = 400, *, retry_after_s: float = 0.0) -> Respond:
    """An error as AWS answers it, with a text that nobody should ever see."""
    headers = {**_JSON, **({"Retry-After": f"{retry_after_s:g}"} if retry_after_s else {})}
    body = {"__type": code, "message": "a text that may quote a value"}
    return Respond(status, headers, json.dumps(body).encode())


class AwsHarness(WireHarness):
    """A subclass says which operation is which call of the contract."""

    operation_header = "X-Amz-Target"
    abilities = ALL_ABILITIES
    wire_faults = _WIRE
    faults_at = "wire"
    service: str
    scanning: str
    getting: str
    writing: Sequence[str]
    deciding: Sequence[str]
    page_of: str

    def __init__(self, upstream: str, sessions: Sessions) -> None:
        self.upstream = upstream
        super().__init__()
        self.sessions = sessions
        self.missing = {}

    async def empty(self) -> None:
        """Have nothing in the store."""
        aws_emulator.empty()

    async def begin(self) -> None:
        await self.empty()
        await super().begin()
        self.proxy.add(*self.limits())

    def limits(self) -> Sequence[Rule]:
        """What AWS refuses, and moto does not."""
        raise NotImplementedError

    def options(self, options: Options) -> Options:
        settings = {**aws_emulator.SETTINGS, **options.settings}
        return replace(options, endpoint=self.proxy.url, settings=settings)

    def match(self, operation: str, body: Callable[[bytes], bool] | None = None) -> Match:
        return Match(operation=f"{self.service}.{operation}", body=body)

    def is_write(self, noted: Noted) -> bool:
        return not noted.operation.rpartition(".")[2].startswith(_READING)

    def is_scan(self, body: bytes) -> bool:
        """Whether a request that lists is that of a scan."""
        return True

    def rules(self, fault: Fault) -> Sequence[Rule]:
        return [
            Rule(match, self._action(fault), after=fault.after, times=fault.times)
            for match in self._matches(fault)
        ]

    def _matches(self, fault: Fault) -> Sequence[Match]:
        match fault.call:
            case Call.SCAN | Call.PROBE:
                return [self.match(self.scanning, self.is_scan)]
            case Call.GET:
                return [self.match(self.getting)]
            case Call.APPLY if fault.kind is Kind.LOST_REPLY:
                # The reply to the request that does it, where it takes several.
                return [self._one_of(self.deciding)]
            case Call.APPLY:
                return [self._one_of(self.writing)]
            case _:
                raise NotImplementedError(f"no faults of {fault.call}")

    def _one_of(self, operations: Sequence[str]) -> Match:
        return Match(headers={"x-amz-target": rf"{self.service}\.({'|'.join(operations)})"})

    def _action(self, fault: Fault) -> Any:
        match fault.kind:
            case Kind.THROTTLED:
                return refusal("ThrottlingException", retry_after_s=fault.retry_after_s)
            case Kind.AUTH_EXPIRED:
                return refusal("ExpiredTokenException")
            case Kind.FORBIDDEN:
                return refusal("AccessDeniedException")
            case Kind.UNAVAILABLE:
                return refusal("InternalServerError", 500)
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case Kind.MALFORMED:
                return Rewrite(lambda reply: Reply(200, _JSON, reply.body[: len(reply.body) // 2]))
            case Kind.EMPTY_PAGE:
                empty = {self.page_of: [], "NextToken": "after:"}
                return Respond(200, _JSON, json.dumps(empty).encode())
            case _:
                raise NotImplementedError(f"no fault {fault.kind}")

    def meanwhile(self, operation: str, do: Callable[[], Awaitable[None]]) -> None:
        """Do something right before the next request for an operation."""
        self.proxy.add(Rule(self.match(operation), Before(do), times=1))


class SsmHarness(AwsHarness):
    """The Parameter Store."""

    name = "aws-ssm"
    place = "/conformance"
    service = "AmazonSSM"
    scanning = "DescribeParameters"
    getting = "GetParameters"
    writing = ("PutParameter", "DeleteParameter")
    deciding = writing
    page_of = "Parameters"
    foreign = ("/conformance/two/levels", "/conformance2/NAME_000")

    def __init__(self, upstream: str, sessions: Sessions, layout: Layout = "per-variable") -> None:
        super().__init__(upstream, sessions)
        self.layout = layout
        if layout == "document":
            self.name = "aws-ssm (document)"
            self.place = "/conformance/app"
            self.foreign = ("/conformance/app2", "/conformance/app/No")

    def backend(self, options: Options) -> Backend:
        return SsmBackend(self.options(options), self.sessions, page_items=_PAGE)

    def is_scan(self, body: bytes) -> bool:
        return bool(json.loads(body)["ParameterFilters"][0].get("Option") != "Equals")

    def limits(self) -> Sequence[Rule]:
        put = self.match("PutParameter")

        def reference(body: bytes) -> bool:
            value = json.loads(body)["Value"]
            return "{{" in value and "}}" in value[value.index("{{") :]

        return [
            Rule(put, Limit(4096, refusal("ValidationException"), size=_value_bytes("Value"))),
            Rule(self.match("PutParameter", reference), refusal("ValidationException")),
        ]

    async def contents(self) -> Mapping[str, str | None]:
        store = aws_emulator.parameters()
        kept = store._parameters
        return {name: kept[name][-1].decrypt(kept[name][-1].value) for name in list(kept)}

    async def others_put(self, native: str, value: str) -> None:
        # As `aws ssm put-parameter --overwrite` does it: tags and description stay.
        aws_emulator.parameters().put_parameter(
            name=native,
            description=None,
            value=value,
            parameter_type="String",
            allowed_pattern=None,
            keyid=None,
            overwrite=True,
            tags=[],
            data_type="text",
            tier="Standard",
            policies=None,
        )

    async def others_delete(self, native: str) -> None:
        aws_emulator.parameters().delete_parameter(native)

    def write_of(self, native: str) -> Match:
        return self.match("PutParameter", lambda body: json.loads(body)["Name"] == native)


class SecretsHarness(AwsHarness):
    """Secrets Manager, in one of its layouts."""

    place = "/conformance/app"
    service = "secretsmanager"
    scanning = "ListSecrets"
    getting = "BatchGetSecretValue"
    writing = ("CreateSecret", "PutSecretValue", "UpdateSecretVersionStage", "DeleteSecret")
    deciding = ("CreateSecret", "UpdateSecretVersionStage", "DeleteSecret")
    page_of = "SecretList"

    def __init__(self, upstream: str, sessions: Sessions, layout: Layout) -> None:
        super().__init__(upstream, sessions)
        self.layout = layout
        self.name = f"aws-secrets-manager ({layout})"
        if layout == "document":
            self.foreign = ("conformance/app2", "conformance/app/No")
        else:
            self.foreign = ("conformance/app2/NAME_000", "conformance/app/two/levels")

    def backend(self, options: Options) -> Backend:
        return SecretsManagerBackend(self.options(options), self.sessions, page_items=_PAGE)

    def limits(self) -> Sequence[Rule]:
        refused = refusal("ValidationException")
        return [
            Rule(self.match(each), Limit(65_536, refused, size=_value_bytes("SecretString")))
            for each in ("CreateSecret", "PutSecretValue")
        ]

    async def contents(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for name, secret in list(aws_emulator.secrets().secrets.items()):
            if not secret.is_deleted():
                found[name] = secret.versions[secret.default_version_id].get("secret_string")
        return found

    async def others_put(self, native: str, value: str) -> None:
        # As `aws secretsmanager put-secret-value` does it: tags stay.
        store = aws_emulator.secrets()
        if native in store.secrets:
            store.put_secret_value(
                secret_id=native,
                secret_string=value,
                secret_binary=None,
                client_request_token=None,
                version_stages=["AWSCURRENT"],
            )
            return
        store.create_secret(
            name=native,
            secret_string=value,
            secret_binary=None,
            description=None,
            tags=[],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )

    async def others_delete(self, native: str) -> None:
        aws_emulator.secrets().delete_secret(
            secret_id=native, recovery_window_in_days=None, force_delete_without_recovery=True
        )

    def write_of(self, native: str) -> Match:
        return self.match(
            "UpdateSecretVersionStage", lambda body: json.loads(body)["SecretId"] == native
        )


def _value_bytes(name: str) -> Callable[[bytes], int]:
    """The size of the value in a request."""
    return lambda body: len(json.loads(body)[name].encode())
