"""The `digitalocean-app` backend passes the conformance kit, over a fake of App Platform."""

from __future__ import annotations

import pytest

from envd.testing.conformance import BackendConformance, Harness
from tests.backends.digitalocean_harness import DigitalOceanHarness


@pytest.mark.parametrize("component", ["", "web"])
class TestApp(BackendConformance):
    @pytest.fixture
    def harness(self, component: str) -> Harness:
        return DigitalOceanHarness(component)
