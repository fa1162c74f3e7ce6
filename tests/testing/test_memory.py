"""The `memory` backend passes the conformance kit, whatever kind of store it is."""

from __future__ import annotations

import pytest

from envd.testing.conformance import BackendConformance, Harness
from tests.testing.memory_harness import PROFILES, MemoryHarness, Profile


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
class TestMemory(BackendConformance):
    """Each case with each profile."""

    @pytest.fixture
    def harness(self, profile: Profile) -> Harness:
        return MemoryHarness(profile)
