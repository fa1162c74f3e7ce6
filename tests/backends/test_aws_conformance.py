"""Both backends for AWS pass the conformance kit."""

from __future__ import annotations

import pytest

pytest.importorskip("moto")

from envd.backends.aws_session import Sessions
from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends import aws_emulator
from tests.backends.aws_harness import SecretsHarness, SsmHarness


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(aws_emulator.ENVIRONMENT)


class TestParameterStore(BackendConformance):
    @pytest.fixture
    def harness(self, aws: str, sessions: Sessions) -> Harness:
        return SsmHarness(aws, sessions)


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestSecretsManager(BackendConformance):
    @pytest.fixture
    def harness(self, aws: str, sessions: Sessions, layout: Layout) -> Harness:
        return SecretsHarness(aws, sessions, layout)
