"""What a store must offer to be kept in step with envd: the contract of every backend.

A backend knows one *place* in one store: a path, a vault, a file. It translates between keys and
the store's own names, reads, writes under an expected version, and says what its store can do; it
decides nothing. What to write, when, how often and how fast is the reconciler's (`envd.sync`): a
backend neither retries, nor waits, nor caches, and gives every call its one chance.

Everything here is immutable and has no value in its `repr`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from envd.backends.errors import BackendError

API_VERSION: Final = 1
"""Of this contract. A registration says which one it was written for, and others are not used."""

MAX_STAMP_CHARACTERS: Final = 64
"""So much of a stamp's text a store with STAMP_ATOMIC or STAMP_SIDE must keep."""


class Capability(Flag):
    """What a store can really do. The reconciler asks for these, never for a type."""

    CAS = auto()
    """It refuses by itself a write whose expected version is stale."""
    POSTCHECK = auto()
    """It does not; but after a write its versions show whether somebody else wrote in between."""
    ATOMIC_BATCH = auto()
    """All operations of one `apply` are done, or none."""
    STAMP_ATOMIC = auto()
    """It keeps a stamp that is written together with the value."""
    STAMP_SIDE = auto()
    """It keeps a stamp, written by a call of its own: it may be that of an older value."""
    SOFT_DELETE = auto()
    """What is deleted holds its name for a while, and may be brought back."""
    WATCH = auto()
    """It tells of changes; a scan must still find everything."""
    WATCH_NO_DELETES = auto()
    """... but not of deletions."""
    LIST_VALUES = auto()
    """A scan brings the values, so no second read is needed."""
    WHOLE_DOCUMENT = auto()
    """An item of it is a map of variables; with `layout` "per-variable" it can't be used."""
    WRITE_ONLY = auto()
    """Values can't be read back."""
    RESTARTS_TARGET = auto()
    """Each write restarts something that runs, so people are asked first."""


NONE: Final = Capability(0)


class Key(NamedTuple):
    """A variable, or with `variable` "" the document of a whole environment.

    `environment` is relative to what is bound: "" for the bound environment itself, else
    segments joined by `/`.
    """

    environment: str
    variable: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a place is looked at: one environment, or with `below` it and all below it."""

    environment: str = ""
    below: bool = False

    def holds(self, key: Key) -> bool:
        """Whether a key belongs to this scope; prefixes match whole segments."""
        if key.environment == self.environment:
            return True
        start = f"{self.environment}/" if self.environment else ""
        return self.below and key.environment.startswith(start)


@dataclass(frozen=True, slots=True)
class Item:
    """What a store has under one name.

    `version` is the store's own, and changes with every write; of equal versions the values are
    equal. `value` is None where it was not read; that of a document is a JSON object of text.
    `secret` is None where the store does not tell. `managed` tells whether the store has it as
    created by envd, None where it can't. `stamp` is what the last write by envd left, "" without:
    of an edit by others it is that of the version before, or "". `changed_ms` is when it was
    written by the store's clock (unix ms), None where it does not tell. `deleted`: softly, so the
    name is taken and there is no value.
    """

    key: Key
    native: str
    version: str
    value: str | None = field(default=None, repr=False)
    secret: bool | None = None
    managed: bool | None = None
    stamp: str = ""
    changed_ms: int | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a scan's items.

    Only the last page of a scan that saw everything is `complete`. `cursor` continues after it
    for as long as the store keeps it; "" where it can't be.
    """

    items: Sequence[Item]
    complete: bool = False
    cursor: str = ""


class Verb(Enum):
    """What an operation does."""

    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Op:
    """One write. `expect` is the version that it replaces, "" for none: the name must be free.

    `value`, `secret` and `stamp` (at most MAX_STAMP_CHARACTERS of ASCII) are for a put. A name that
    a softly deleted item holds is free: the backend brings it back, or clears it, first.
    `any_owner` allows to delete, or take over, what the store does not have as created by envd.
    """

    verb: Verb
    key: Key
    expect: str
    value: str = field(default="", repr=False)
    secret: bool = True
    stamp: str = ""
    any_owner: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """Why an operation can't be done at all, found without a call."""

    op: Op
    error: BackendError


class Result(Enum):
    """What became of an operation."""

    APPLIED = "applied"
    NOOP = "noop"
    """It was so already: the value was equal, or there was nothing to delete."""
    CONFLICT = "conflict"
    """The item was not at the expected version; nothing was written."""
    REJECTED = "rejected"
    """Refused: the same operation will be refused again."""
    FAILED = "failed"
    """No answer, or not now: it may be done, or not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation; `version` is that of the item now, where it is known.

    `overtaken` (POSTCHECK): somebody wrote between the expected version and this write, which
    replaced it; `between` is what they wrote, where it can still be read.
    """

    op: Op
    result: Result
    version: str = ""
    error: BackendError | None = None
    overtaken: bool = False
    between: Item | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """Something changed: one key, or with None nobody knows what. `cursor` resumes the watch."""

    key: Key | None = None
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store takes, and how fast. Sizes in bytes of UTF-8, rates in calls a second.

    `batch` operations fit one `apply`, `get_batch` keys one `get_many`. 0 means no limit.
    `concurrency` is how many calls may be under way at once.
    """

    max_value_bytes: int = 0
    min_value_bytes: int = 0
    max_name_bytes: int = 0
    max_items: int = 0
    page_items: int = 0
    batch: int = 1
    get_batch: int = 1
    reads_per_s: float = 0.0
    writes_per_s: float = 0.0
    burst: int = 1
    writes_per_item_per_s: float = 0.0
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """What a store costs in US dollars, as published on the day `as_of` (ISO 8601).

    `item_month` is for one item kept for a month, `reads_10k` and `writes_10k` for so many
    calls; the first `free_items`, and `free_calls` a month, cost nothing. `place_month` is for the
    place itself, whatever is in it.
    """

    provider: str
    service: str
    as_of: str
    region: str = ""
    item_month: float = 0.0
    reads_10k: float = 0.0
    writes_10k: float = 0.0
    free_items: int = 0
    free_calls: int = 0
    source: str = ""
    place_month: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a month asks of a place: `items` kept, of `bytes` in all, so many scanned and changed.

    `scans` counts full scans, `changed` items written, each in an `apply` of its own, `read` items
    read by name, as many at once as fit: also those whose values a scan does not bring.
    """

    items: int
    bytes: int = 0
    scans: int = 0
    changed: int = 0
    read: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls and US dollars of a month."""

    reads: int
    writes: int
    dollars: float


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe found: the round trip in ms, who the store takes us for, and what is wrong."""

    ok: bool
    round_trip_ms: float = 0.0
    identity: str = ""
    detail: str = ""
    hint: str = ""


def plain_fingerprint(text: str) -> str:
    """32 hexadecimal digits, equal for equal texts. Who guesses a text can tell by them."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Options:
    """What a backend is opened on.

    `place` is what follows the store's name in a target: `/payments/prod` of
    `aws-ssm:/payments/prod`. `below`: a prefix is bound, so there are environments below it.
    `name_template` ("" for the backend's own) makes names of `{environment}` and `{variable}`.
    `credentials` refers to some (`profile:prod`, `role:arn:...`), "" for the provider's own way; it
    never holds any. `settings` are those of the provider's section. `endpoint` is where the store
    is instead of its usual address. `wall_ms` is the clock, for what the store does not time.
    `fingerprint` makes versions of values for a store that has none: the reconciler's is keyed, so
    that a version tells nobody whether they guessed the value.
    """

    place: str
    layout: Literal["per-variable", "document"] = "per-variable"
    below: bool = False
    name_template: str = ""
    credentials: str = ""
    settings: Mapping[str, object] = field(default_factory=dict, repr=False)
    endpoint: str = ""
    wall_ms: Callable[[], int] = lambda: 0
    fingerprint: Callable[[str], str] = plain_fingerprint


@runtime_checkable
class Backend(Protocol):
    """One place in one store. Calls may run at the same time, up to `limits.concurrency`.

    A call raises BackendError and nothing else, and is safe to cancel.
    """

    @property
    def capabilities(self) -> Capability: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def prices(self) -> PriceSheet: ...

    async def open(self) -> None:
        """Load the SDK and find the credentials; no call to the store needs to be made."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; nothing of it runs afterwards."""
        ...

    async def probe(self) -> Health:
        """Make one cheap call that shows whether the place can be read; never raises."""
        ...

    def encode(self, key: Key) -> str:
        """The store's name of a key. Injective; raises InvalidName where there is none."""
        ...

    def decode(self, native: str) -> Key | None:
        """The inverse of `encode`; None for a name that is not of this place's making."""
        ...

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        """Which of these operations the store will never take, without any call."""
        ...

    def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """All items in scope, page by page, from the beginning or after a cursor.

        Raises in the middle where it can't go on; it never just ends early.
        """
        ...

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        """Items by key, values included, at most `limits.get_batch`: one answer for each.

        One that is absent is an ItemNotFound.
        """
        ...

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """Do these, at most `limits.batch`; one outcome for each, in their order. Never raises.

        `idempotency` names this attempt and its repeats: where the store can tell a repeat, that
        is answered as the first.
        """
        ...

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Follow the place (WATCH). Hints may be lost, doubled, and in any order."""
        ...

    def cost(self, load: Load) -> Cost:
        """Calls and money that this load takes in a month."""
        ...


@dataclass(frozen=True, slots=True)
class Registration:
    """What an entry point of the group `envd.backends` leads to, or a function that makes one.

    The function is called once for each registry: what its backends share is theirs.
    `make` builds a backend that is not opened yet and imports no SDK; it raises StoreUnsupported
    or InvalidName for options that can't be. `extra` is the extra of the distribution that brings
    the SDK, "" without any; `library` is the module whose absence means that it is missing.
    `place_hint` shows what a place looks like. `settings_section` names the provider's section.
    `capabilities` are those of a backend without any settings, to be shown before one is made.
    """

    name: str
    summary: str
    make: Callable[[Options], Backend]
    place_hint: str
    api_version: int = API_VERSION
    extra: str = ""
    library: str = ""
    settings_section: str = ""
    credentials_hint: str = ""
    capabilities: Capability = NONE
