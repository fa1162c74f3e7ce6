"""The `memory` backend as stores of other kinds, for the conformance kit and for trying the kit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from envd.backends.contract import Backend, Capability, Limits, Options
from envd.backends.memory import CAPABILITIES, LIMITS, Manners, MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.testing.conformance import ALL_ABILITIES, Ability, Calls, ScriptedHarness
from envd.testing.harness import Layout


@dataclass(frozen=True)
class Profile:
    """What kind of store memory is. `lacks` has what is missing besides capabilities, and why."""

    name: str
    capabilities: Capability = CAPABILITIES
    limits: Limits = LIMITS
    manners: Manners = field(default_factory=Manners)
    layout: Layout = "per-variable"
    foreign: tuple[str, ...] = ("no variable", "//")
    lacks: Mapping[str, str] = field(default_factory=dict)


class MemoryHarness(ScriptedHarness):
    """A store of this process; what stays after a restart is the store, not the backend."""

    hint_patience_s = 2.0

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile
        self.name = profile.name
        self.layout = profile.layout
        self.missing = profile.lacks
        self.foreign = profile.foreign
        self.abilities = ALL_ABILITIES
        for name in profile.lacks:
            if name in Ability.__members__:
                self.abilities &= ~Ability[name]
        self.store = MemoryStore(self.place)

    def backend(self, options: Options) -> Backend:
        return MemoryBackend(
            options,
            store=self.store,
            capabilities=self.profile.capabilities,
            limits=self.profile.limits,
            manners=self.profile.manners,
        )

    async def contents(self) -> Mapping[str, str | None]:
        return self.store.values()

    async def others_put(self, native: str, value: str) -> None:
        self.store.edit(native, value)

    async def others_delete(self, native: str) -> None:
        self.store.remove(native)

    async def others_put_meanwhile(self, native: str, value: str) -> None:
        self.store.meanwhile(native, value)

    def calls(self) -> Calls:
        return Calls(self.store.calls.reads, self.store.calls.writes)


MEMORY = Profile("memory")

SSM_LIKE = Profile(
    "memory as aws-ssm",
    Capability.POSTCHECK | Capability.STAMP_SIDE | Capability.LIST_VALUES,
    Limits(
        max_value_bytes=4096,
        min_value_bytes=1,
        max_name_bytes=1011,
        page_items=10,
        batch=1,
        get_batch=10,
    ),
    Manners(name_pattern=r"[A-Za-z0-9_./-]+"),
)

SECRETS_MANAGER_LIKE = Profile(
    "memory as aws-secrets-manager",
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE,
    Limits(max_value_bytes=65_536, max_name_bytes=512, page_items=100, batch=1, get_batch=20),
)

KEY_VAULT_LIKE = Profile(
    "memory as azure-key-vault",
    Capability.POSTCHECK | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE,
    Limits(max_value_bytes=25_600, max_name_bytes=127, page_items=25, batch=1, get_batch=1),
    Manners(folds_case=True, looks_first=False),
)

VAULT_LIKE = Profile(
    "memory as vault",
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE | Capability.WHOLE_DOCUMENT,
    Limits(max_value_bytes=1 << 19, batch=1, get_batch=1),
    layout="document",
    foreign=("No Environment",),
    lacks={"CURSORS": "a listing is one answer"},
)

ETCD_LIKE = Profile(
    "memory as etcd",
    Capability.CAS
    | Capability.STAMP_SIDE
    | Capability.LIST_VALUES
    | Capability.WATCH
    | Capability.ATOMIC_BATCH,
    Limits(max_value_bytes=1 << 20, page_items=50, batch=64, get_batch=64),
    Manners(knows_owner=False, knows_secret=False, knows_time=False),
    lacks={"OWNERSHIP": "a key has no tags"},
)

WHOLE_MAP_LIKE = Profile(
    "memory as aws-lambda",
    Capability.CAS | Capability.WHOLE_DOCUMENT | Capability.RESTARTS_TARGET,
    Limits(max_value_bytes=4096, batch=1, get_batch=1),
    Manners(knows_owner=False, knows_secret=False),
    layout="document",
    foreign=(),
    lacks={
        "BELOW": "a function has one map",
        "CURSORS": "there is one item",
        "FOREIGN_NAMES": "the map has one name",
        "OWNERSHIP": "the tag of a function is not that of its map",
        "TEMPLATES": "the map has no name to make",
    },
)

WRITE_ONLY_LIKE = Profile(
    "memory as a write-only target",
    Capability.POSTCHECK
    | Capability.WHOLE_DOCUMENT
    | Capability.WRITE_ONLY
    | Capability.RESTARTS_TARGET,
    Limits(max_value_bytes=32_768, batch=1, get_batch=1),
    Manners(knows_owner=False, knows_secret=False, looks_first=False),
    layout="document",
    foreign=(),
    lacks=WHOLE_MAP_LIKE.lacks,
)

CHANGES_ONLY_LIKE = Profile(
    "memory as a store that hides deletions",
    Capability.CAS | Capability.WATCH | Capability.WATCH_NO_DELETES | Capability.LIST_VALUES,
    Limits(page_items=3, batch=0, get_batch=0, max_items=40),
    Manners(empty_pages=True),
    lacks={"COUNTS": "its empty pages can't be predicted"},
)

PROFILES = (
    MEMORY,
    SSM_LIKE,
    SECRETS_MANAGER_LIKE,
    KEY_VAULT_LIKE,
    VAULT_LIKE,
    ETCD_LIKE,
    WHOLE_MAP_LIKE,
    WRITE_ONLY_LIKE,
    CHANGES_ONLY_LIKE,
)
