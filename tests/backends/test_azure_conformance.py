"""The backends for Azure pass the conformance kit, over fakes of its services."""

from __future__ import annotations

import pytest

pytest.importorskip("azure.keyvault.secrets", reason="pip install 'envd-cluster[azure]'")

from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.azure_harness import AppConfigurationHarness, FunctionsHarness, KeyVaultHarness


@pytest.mark.parametrize("layout", ["per-variable", "document"])
class TestKeyVault(BackendConformance):
    @pytest.fixture
    def harness(self, layout: Layout) -> Harness:
        return KeyVaultHarness(layout)


@pytest.mark.parametrize("label", ["prod", ""])
class TestAppConfiguration(BackendConformance):
    @pytest.fixture
    def harness(self, label: str) -> Harness:
        return AppConfigurationHarness(label)


class TestFunctions(BackendConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return FunctionsHarness()
