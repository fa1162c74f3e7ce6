"""The `aws-lambda` backend passes the conformance kit, over a fake of Lambda."""

from __future__ import annotations

import pytest

pytest.importorskip("botocore")

from envd.backends.aws_session import Sessions
from envd.testing.conformance import BackendConformance, Harness
from tests.backends.lambda_harness import KEYS, LambdaHarness


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(KEYS)


class TestLambda(BackendConformance):
    @pytest.fixture
    def harness(self, sessions: Sessions) -> Harness:
        return LambdaHarness(sessions)
