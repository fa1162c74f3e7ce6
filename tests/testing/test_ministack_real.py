"""Both backends for AWS pass the conformance kit over a real process that plays AWS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("moto")

from envd.backends.aws_session import Sessions
from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends import aws_emulator
from tests.testing.ministack import NoMiniStack, ministack
from tests.testing.ministack_harness import MiniStackSecrets, MiniStackSsm

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with ministack() as url:
            yield url
    except NoMiniStack as error:
        pytest.skip(f"aws (ministack): no SERVER: {error}")


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(aws_emulator.ENVIRONMENT)


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestParameterStore(BackendConformance):
    @pytest.fixture
    def harness(self, server: str, sessions: Sessions, layout: Layout) -> Harness:
        return MiniStackSsm(server, sessions, layout)


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestSecretsManager(BackendConformance):
    @pytest.fixture
    def harness(self, server: str, sessions: Sessions, layout: Layout) -> Harness:
        return MiniStackSecrets(server, sessions, layout)
