"""The backends for Google Cloud pass the conformance kit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("google.cloud.secretmanager_v1")

from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.gcp_harness import (
    CloudRunHarness,
    ParameterManagerHarness,
    SecretManagerHarness,
)

if TYPE_CHECKING:
    from tests.backends.fake_cloud_run import FakeCloudRun
    from tests.backends.fake_parameter_manager import FakeParameterManager
    from tests.backends.fake_secret_manager import FakeSecretManager


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestSecretManager(BackendConformance):
    @pytest.fixture
    def harness(self, secret_manager: FakeSecretManager, layout: Layout) -> Harness:
        return SecretManagerHarness(secret_manager, layout)


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestParameterManager(BackendConformance):
    @pytest.fixture
    def harness(self, parameter_manager: FakeParameterManager, layout: Layout) -> Harness:
        return ParameterManagerHarness(parameter_manager, layout)


class TestCloudRun(BackendConformance):
    @pytest.fixture
    def harness(self, cloud_run: FakeCloudRun) -> Harness:
        return CloudRunHarness(cloud_run)
