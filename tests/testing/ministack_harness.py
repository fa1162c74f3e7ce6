"""Both stores of AWS for the conformance kit, over MiniStack instead of moto."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from envd.backends.aws_session import Sessions
from envd.testing.harness import Layout
from envd.testing.proxy import Proxy
from tests.backends import aws_emulator
from tests.backends.aws_harness import AwsHarness, SecretsHarness, SsmHarness
from tests.testing.ministack_strict import StrictMiniStack

_READ_AT_ONCE: Final = 10


class _OverMiniStack(AwsHarness):
    """What both have in common: `strict` stands between the proxy and the server."""

    strict: StrictMiniStack

    async def empty(self) -> None:
        self.strict = StrictMiniStack(self.upstream, aws_emulator.REGION)
        await self.strict.__aenter__()
        await self.strict.reset()
        self.proxy = Proxy(self.strict.url, operation_header=self.operation_header)

    async def end(self) -> None:
        await super().end()
        await self.strict.__aexit__()

    async def ask(self, operation: str, **body: Any) -> dict[str, Any]:
        """Ask MiniStack as somebody else."""
        return await self.strict.ask(f"{self.service}.{operation}", body)


class MiniStackSsm(_OverMiniStack, SsmHarness):
    """The Parameter Store."""

    def __init__(self, upstream: str, sessions: Sessions, layout: Layout) -> None:
        super().__init__(upstream, sessions, layout)
        self.name = f"aws-ssm ({layout}, ministack)"

    async def contents(self) -> Mapping[str, str | None]:
        names = [each["Name"] for each in await self.strict.all_of(*self._listing)]
        found: dict[str, str | None] = {}
        for start in range(0, len(names), _READ_AT_ONCE):
            some = names[start : start + _READ_AT_ONCE]
            answer = await self.ask("GetParameters", Names=some, WithDecryption=True)
            found.update({each["Name"]: each["Value"] for each in answer["Parameters"]})
        return found

    @property
    def _listing(self) -> tuple[str, str, dict[str, Any]]:
        return "AmazonSSM.DescribeParameters", "Parameters", {}

    async def others_put(self, native: str, value: str) -> None:
        await self.ask("PutParameter", Name=native, Value=value, Type="String", Overwrite=True)

    async def others_delete(self, native: str) -> None:
        await self.ask("DeleteParameter", Name=native)


class MiniStackSecrets(_OverMiniStack, SecretsHarness):
    """Secrets Manager."""

    def __init__(self, upstream: str, sessions: Sessions, layout: Layout) -> None:
        super().__init__(upstream, sessions, layout)
        self.name = f"aws-secrets-manager ({layout}, ministack)"

    async def contents(self) -> Mapping[str, str | None]:
        listed = await self.strict.all_of("secretsmanager.ListSecrets", "SecretList", {})
        found: dict[str, str | None] = {}
        for name in [each["Name"] for each in listed]:
            answer = await self.ask("GetSecretValue", SecretId=name)
            found[name] = answer.get("SecretString")
        return found

    async def others_put(self, native: str, value: str) -> None:
        about = await self.ask("BatchGetSecretValue", SecretIdList=[native])
        if about["SecretValues"]:
            await self.ask("PutSecretValue", SecretId=native, SecretString=value)
        else:
            await self.ask("CreateSecret", Name=native, SecretString=value)

    async def others_delete(self, native: str) -> None:
        await self.ask("DeleteSecret", SecretId=native, ForceDeleteWithoutRecovery=True)
