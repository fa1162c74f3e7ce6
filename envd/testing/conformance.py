"""The suite that every backend passes, in this tree or in a plugin's.

    class TestMine(BackendConformance):
        @pytest.fixture
        def harness(self) -> Harness:
            return MyHarness()

Each case is one test, in thirteen groups. One that a backend can't have is skipped, and its reason
names what is missing and why; no case can be left out, replaced, or expected to fail.
`envd.testing.report` tells all of it at the end of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from envd.testing.groups.batches import BatchCases
from envd.testing.groups.cost import CostCases
from envd.testing.groups.deletes import DeleteCases
from envd.testing.groups.faults import FaultCases
from envd.testing.groups.hygiene import HygieneCases
from envd.testing.groups.idempotency import IdempotencyCases
from envd.testing.groups.listing import ListingCases
from envd.testing.groups.names import NameCases
from envd.testing.groups.sizes import SizeCases
from envd.testing.groups.stamps import StampCases
from envd.testing.groups.values import ValueCases
from envd.testing.groups.versions import VersionCases
from envd.testing.groups.watch import WatchCases
from envd.testing.harness import (
    ALL_ABILITIES,
    NO_ABILITIES,
    Ability,
    Calls,
    Harness,
    Need,
    ScriptedHarness,
)
from envd.testing.trial import CASE_MARK, Case

__all__ = [
    "ALL_ABILITIES",
    "CASES",
    "NO_ABILITIES",
    "Ability",
    "BackendConformance",
    "Calls",
    "Harness",
    "Need",
    "ScriptedHarness",
]

GROUPS: Final = (
    ValueCases,
    SizeCases,
    NameCases,
    ListingCases,
    VersionCases,
    StampCases,
    IdempotencyCases,
    BatchCases,
    DeleteCases,
    FaultCases,
    WatchCases,
    HygieneCases,
    CostCases,
)


def _cases() -> Mapping[str, Case]:
    """All cases by the name of their test, in the order of the groups."""
    return MappingProxyType(
        {
            name: getattr(test, CASE_MARK)
            for group in GROUPS
            for name, test in vars(group).items()
            if hasattr(test, CASE_MARK)
        }
    )


CASES: Final = _cases()


class BackendConformance(
    ValueCases,
    SizeCases,
    NameCases,
    ListingCases,
    VersionCases,
    StampCases,
    IdempotencyCases,
    BatchCases,
    DeleteCases,
    FaultCases,
    WatchCases,
    HygieneCases,
    CostCases,
):
    """Subclass this, and give it a fixture `harness`; see the module."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        replaced = sorted(CASES.keys() & vars(cls).keys())
        if replaced:
            raise TypeError(f"{cls.__name__} replaces cases of the kit: {', '.join(replaced)}")
