"""What a plan is made of: both sides of a binding at one time, and its anchors.

A deletion in the store is believed only of a complete listing, and then of a second read of each
name by itself: what the second read finds counts, and what it can't tell stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from envd.backends.contract import Capability, Item, Key
from envd.backends.errors import BackendError, ItemNotFound, SoftDeleted
from envd.core.errors import InvalidRequest
from envd.core.syncing import BindingView
from envd.sync import anchors, binding
from envd.sync.anchors import ABSENT, Anchor
from envd.sync.layouts import Known, Place
from envd.sync.merge import Left, Sides, needs_value
from envd.sync.ports import Environments, Fingerprint, Local, LocalState, Records

ENVIRONMENT: Final = "ENVIRONMENT"
TARGET: Final = "TARGET"
DOCUMENT: Final = "DOCUMENT"
"""What the record besides the anchors tells: whose they are, and the version of the document."""
_MARK_DIGITS: Final = 16
_GONE: Final = (ItemNotFound, SoftDeleted)


@dataclass(frozen=True, slots=True)
class Written:
    """A value of a variable; places can be shared, so the environment belongs to it."""

    environment: str
    variable: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound environment: as it is here, its anchors, and what is open."""

    environment: str
    relative: str
    record: str
    state: LocalState
    anchors: Mapping[str, Anchor]
    document: str = ""
    open_conflicts: frozenset[str] = frozenset()
    is_new: bool = False
    """Its anchors were not kept yet."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The variables that may differ, and how many are in step."""

    differing: Sequence[tuple[Bound, Key, Sides]]
    in_step: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Both sides. `unsure` are keys whose absence in the store could not be confirmed.

    `unread` are items whose values were wanted and could not be read, with the reason. `illegal`
    are relative environments in the store that no environment can be called, `unreadable` those
    whose document can't be read. `left` tells what was left as it was the last time.
    """

    binding: BindingView
    target: str
    bound: Mapping[str, Bound]
    items: Mapping[Key, Item]
    documents: Mapping[str, str]
    capabilities: Capability
    fingerprint: Fingerprint
    unsure: frozenset[Key] = frozenset()
    unread: Mapping[Key, BackendError] = field(default_factory=dict)
    illegal: frozenset[str] = frozenset()
    unreadable: Mapping[str, BackendError] = field(default_factory=dict)
    left: Mapping[Key, Left] = field(default_factory=dict)

    def known(self, key: Key, sides: Sides) -> Left | None:
        """What was decided of an item whose value was not read, as it was before."""
        left = self.left.get(key)
        if left is None or not left.holds(sides) or not needs_value(self.binding, sides):
            return None
        return left

    def compared(self) -> Compared:
        """Every variable that is known on any side, in order: those that may differ, and how many.

        Most are as they were when they were last equal, and nothing more is asked of those.
        """
        differing: list[tuple[Bound, Key, Sides]] = []
        in_step = 0
        for bound, key in self._known():
            here = bound.state.variables.get(key.variable)
            there = self.items.get(key)
            anchor = bound.anchors.get(key.variable)
            if anchor is not None and here is not None and there is not None:
                same = anchor.version == there.version and anchor.stamp == here.stamp.hex()
                if same and not anchor.conflict and anchor.intent is None:
                    in_step += 1
                    continue
            differing.append((bound, key, self._sides(bound, key, here, there, anchor)))
        return Compared(differing, in_step)

    def _known(self) -> Iterator[tuple[Bound, Key]]:
        there: dict[str, set[str]] = {}
        for key in self.items:
            there.setdefault(key.environment, set()).add(key.variable)
        for bound in sorted(self.bound.values(), key=lambda each: each.environment):
            here = bound.state.variables
            names = here.keys() | bound.anchors.keys() | there.get(bound.relative, set())
            for name in sorted(names):
                yield bound, Key(bound.relative, name)

    def _sides(
        self,
        bound: Bound,
        key: Key,
        here: Local | None,
        there: Item | None,
        anchor: Anchor | None,
    ) -> Sides:
        waited = anchor is not None and bool(anchor.conflict)
        settled = waited and anchor is not None and anchor.conflict not in bound.open_conflicts
        if there is not None:
            there = self._with_own_stamp(bound.environment, there)
        hidden = Capability.WRITE_ONLY in self.capabilities
        behind = _is_behind(bound, key, anchor)
        return Sides(here, there, anchor, settled, key in self.unsure, hidden, behind)

    def _with_own_stamp(self, environment: str, item: Item) -> Item:
        """An item with the stamp that envd gave this very value of the variable, "" for any other.

        Who edits a value may leave the stamp of the one before it.
        """
        stamp = ""
        if Capability.STAMP_ATOMIC in self.capabilities and item.value is not None:
            named = Written(environment, item.key.variable, item.value)
            stamp = own_stamp(self.fingerprint, named, item.stamp)
        return replace(item, stamp=stamp)


def _is_behind(bound: Bound, key: Key, anchor: Anchor | None) -> bool:
    """Whether another node noted a write as in step that has not come to this one.

    Commits of several nodes come in any order: a new leader may have the anchor first.
    """
    written = None if anchor is None else anchor.written
    return written is not None and not bound.state.has_seen(key.variable, written)


def store_stamp(fingerprint: Fingerprint, written: Written, stamp: str) -> str:
    """A stamp as it is left in a store: with a mark of what it was given to, and of whose it is."""
    return f"{stamp}.{_mark(fingerprint, written)}"


def own_stamp(fingerprint: Fingerprint, found: Written, text: str) -> str:
    """The inverse of `store_stamp`; "" for the stamp of anything else."""
    stamp, _, mark = text.partition(".")
    try:
        return stamp if mark and mark == _mark(fingerprint, found) else ""
    except UnicodeEncodeError:
        return ""  # No value of ours.


def _mark(fingerprint: Fingerprint, written: Written) -> str:
    named = f"{written.environment}\0{written.variable}\0{written.value}"
    return fingerprint(named)[:_MARK_DIGITS]


@dataclass(frozen=True, slots=True)
class Looking:
    """What a picture is taken with."""

    environments: Environments
    records: Records
    fingerprint: Fingerprint


async def take(
    looking: Looking,
    bound: BindingView,
    target: str,
    place: Place,
    left: Mapping[Key, Left] = MappingProxyType({}),
) -> Picture:
    """Look at both sides of a binding at one of its targets.

    `left` is what was left as it was the last time: while it is the same, it is not read again.
    Raises BackendError where the store can't be listed completely, EnvdError where an environment
    or a record can't be read. Nothing is changed.
    """
    environments = await _kept(looking, bound, target)
    seen = await place.look({each.relative: _known(each) for each in environments.values()})
    illegal = set()
    known = {each.relative for each in environments.values()}
    for relative in sorted({key.environment for key in seen.items} - known):
        try:
            name = binding.absolute(bound, Key(relative, ""))
        except InvalidRequest:
            illegal.add(relative)
        else:
            environments[name] = await _bound(looking, bound, target, name)
    items = dict(seen.items)
    readable = [each for each in environments.values() if each.relative not in seen.unreadable]
    unsure = await _confirmed(readable, items, place, left)
    picture = Picture(
        bound,
        target,
        environments,
        items,
        seen.documents,
        place.capabilities,
        looking.fingerprint,
        frozenset(unsure),
        _unread(environments.values(), seen.unreadable),
        illegal=frozenset(illegal),
        unreadable=seen.unreadable,
        left=left,
    )
    compared = picture.compared()
    wanted = [
        key
        for _, key, sides in compared.differing
        if needs_value(bound, sides) and picture.known(key, sides) is None
    ]
    return await with_values(picture, place, wanted)


def _unread(
    environments: Iterable[Bound], unreadable: Mapping[str, BackendError]
) -> dict[Key, BackendError]:
    """Why each variable of an unreadable document can't be read."""
    return {
        Key(bound.relative, name): unreadable[bound.relative]
        for bound in environments
        if bound.relative in unreadable
        for name in bound.state.variables.keys() | bound.anchors.keys()
    }


async def with_values(picture: Picture, place: Place, wanted: Sequence[Key]) -> Picture:
    """The picture with the values of these items, or why they can't be read.

    An item that was changed or deleted since it was listed is as it is now.
    """
    if not wanted:
        return picture
    items = dict(picture.items)
    unread = dict(picture.unread)
    unsure = set(picture.unsure)
    for key, answer in (await place.read(wanted)).items():
        if isinstance(answer, Item):
            items[key] = answer
        elif isinstance(answer, _GONE):
            unsure.add(key)  # It was listed: whether it is gone shows the next time.
        else:
            unread[key] = answer
    return replace(picture, items=items, unread=unread, unsure=frozenset(unsure))


async def _kept(looking: Looking, bound: BindingView, target: str) -> dict[str, Bound]:
    """All environments that are here, or have anchors, by name."""
    names = {
        name
        for name in await looking.environments.names(binding.root(bound))
        if binding.binds(bound, name)
    }
    if bound.environment is not None:
        names.add(bound.environment)
    for record in await looking.records.names(anchors.records_of(bound.name)):
        if record.endswith("/about"):
            about = await looking.records.read(record)
            name = about.get(ENVIRONMENT, "")
            whose = anchors.about_name(anchors.record_name(bound, target, name))
            if whose == record and binding.binds(bound, name):
                names.add(name)
    return {name: await _bound(looking, bound, target, name) for name in sorted(names)}


async def _bound(looking: Looking, bound: BindingView, target: str, name: str) -> Bound:
    record = anchors.record_name(bound, target, name)
    about = await looking.records.read(anchors.about_name(record))
    kept = anchors.decoded_all(await looking.records.read(record)) if about else {}
    waiting = any(anchor.conflict for anchor in kept.values())
    return Bound(
        name,
        binding.relative(bound, name),
        record,
        await looking.environments.read(name),
        kept,
        about.get(DOCUMENT, ""),
        await looking.environments.open_conflicts(name) if waiting else frozenset(),
        is_new=not about,
    )


def _known(bound: Bound) -> Known:
    versions = {name: anchor.version for name, anchor in bound.anchors.items()}
    return Known(bound.document, versions)


async def _confirmed(
    environments: Iterable[Bound], items: dict[Key, Item], place: Place, left: Mapping[Key, Left]
) -> set[Key]:
    """Read what is anchored and was not listed by name, and add to `items` what is there.

    Returns the keys of which the store does not tell. What was confirmed to be gone, and left so,
    needs no second look.
    """
    missing = [
        Key(bound.relative, name)
        for bound in environments
        for name, anchor in bound.anchors.items()
        if anchor.version != ABSENT
        and Key(bound.relative, name) not in items
        and not _is_left_gone(bound, name, left.get(Key(bound.relative, name)))
    ]
    unsure: set[Key] = set()
    for key, answer in (await place.read(missing)).items() if missing else ():
        if isinstance(answer, Item):
            items[key] = answer
        elif not isinstance(answer, _GONE):
            unsure.add(key)
    return unsure


def _is_left_gone(bound: Bound, name: str, left: Left | None) -> bool:
    """Whether it was gone before, and what is here and was in step is as it was then."""
    if left is None or left.version != ABSENT or left.anchor != bound.anchors[name]:
        return False
    here = bound.state.variables.get(name)
    return left.stamp == (ABSENT if here is None else here.stamp.hex())


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a binding has in the store it uses, as of the last run."""

    items: int = 0
    environments: int = 0
    value_bytes: int = 0
    document_bytes: int = 0
    secrets: bool = True


def sizes(pictured: Picture, *, documents: bool) -> Sizes:
    """What a picture has: items are documents where there are some."""
    states = [bound.state.variables.values() for bound in pictured.bound.values()]
    lengths = [[len(local.value.encode()) for local in state] for state in states]
    return Sizes(
        len(pictured.documents) if documents else len(pictured.items),
        sum(map(bool, states)),
        max((size for each in lengths for size in each), default=0),
        max(map(sum, lengths), default=0),
        any(local.secret for state in states for local in state),
    )
