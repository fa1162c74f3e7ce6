"""How variables lie in a store: one item each, or all of an environment in one document.

Both look the same from above: items by key, writes under an expected version. In a document the
version of a variable is the keyed hash of its value, and a write reads the document, changes its
variables only, and replaces it under the document's own version; what others have in it stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from envd.backends.contract import (
    Backend,
    Capability,
    Item,
    Key,
    Limits,
    Op,
    Outcome,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidValue,
    ItemNotFound,
    SoftDeleted,
    StaleVersion,
    StoreUnavailable,
)
from envd.core.syncing import BindingView
from envd.sync.binding import scope
from envd.sync.ports import Fingerprint

MAX_ITEMS: Final = 200_000
"""A place that has more is not listed to its end: something else lives there."""


def _to_nobody(_: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a document: its version, and the versions of the variables in it."""

    version: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a complete listing found, and the versions of documents by relative environment.

    `unreadable` are environments whose document is there and can't be read: nothing is known of
    what is in it, and the others are none the worse for it.
    """

    items: dict[Key, Item]
    documents: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, BackendError] = field(default_factory=dict)


class Place(Protocol):
    """One place in a store as the reconciler sees it."""

    @property
    def limits(self) -> Limits: ...

    @property
    def capabilities(self) -> Capability: ...

    @property
    def has_documents(self) -> bool:
        """Whether an item holds many variables."""
        ...

    async def look(self, known: Mapping[str, Known]) -> Seen:
        """List everything; raises where that was not complete."""
        ...

    async def read(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        """Items with their values, as many as wanted."""
        ...

    async def apply(
        self,
        ops: Sequence[Op],
        idempotency: str,
        tell: Callable[[int], None] = ...,
        lose: Callable[[Item], None] = ...,
    ) -> list[Outcome]:
        """Do these, as many as wanted; one outcome for each, in their order.

        `tell` hears of how many there is an outcome, each time there are more; `lose` of variables
        of no operation that others wrote, and that are in the store no more because of these.
        """
        ...

    def name(self, key: Key) -> str:
        """The store's name; raises BackendError where there is none."""
        ...

    def problems(self, ops: Sequence[Op]) -> dict[Key, BackendError]:
        """Which of these the store will never take."""
        ...


def place_of(binding: BindingView, backend: Backend, fingerprint: Fingerprint) -> Place:
    """The place that a binding's layout makes of a backend."""
    if binding.layout == "document":
        return Documents(backend, scope(binding), fingerprint)
    return Singly(backend, scope(binding))


async def _listed(backend: Backend, wanted: Scope) -> list[Item]:
    """Every item in scope; raises StoreUnavailable for a listing that is not complete."""
    found: list[Item] = []
    complete = False
    async for page in backend.scan(wanted):
        found.extend(page.items)
        complete = page.complete
        if len(found) > MAX_ITEMS:
            raise StoreUnavailable(
                f"the place has over {MAX_ITEMS:,} items, so it was not listed to its end",
                hint="bind a place that holds nothing else",
            )
    if not complete:
        raise StoreUnavailable("the store's listing ended before it was complete")
    return found


class Singly:
    """One item a variable."""

    def __init__(self, backend: Backend, wanted: Scope) -> None:
        self._backend = backend
        self._scope = wanted

    @property
    def limits(self) -> Limits:
        return self._backend.limits

    @property
    def capabilities(self) -> Capability:
        return self._backend.capabilities

    @property
    def has_documents(self) -> bool:
        return False

    async def look(self, known: Mapping[str, Known]) -> Seen:
        del known
        items = await _listed(self._backend, self._scope)
        return Seen({item.key: item for item in items if item.key.variable and not item.deleted})

    async def read(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        size = max(1, self.limits.get_batch)
        found: dict[Key, Item | BackendError] = {}
        for at in range(0, len(keys), size):
            found.update(await self._backend.get_many(keys[at : at + size]))
        return {key: _unless_deleted(item) for key, item in found.items()}

    async def apply(
        self,
        ops: Sequence[Op],
        idempotency: str,
        tell: Callable[[int], None] = _to_nobody,
        lose: Callable[[Item], None] = _to_nobody,
    ) -> list[Outcome]:
        del lose  # An item is a variable, so what is overtaken is one that is written.
        size = max(1, self.limits.batch)
        outcomes: list[Outcome] = []
        for at in range(0, len(ops), size):
            part = ops[at : at + size]
            outcomes += await self._backend.apply(part, idempotency=f"{idempotency}-{at}")
            tell(len(outcomes))
        return outcomes

    def name(self, key: Key) -> str:
        return self._backend.encode(key)

    def problems(self, ops: Sequence[Op]) -> dict[Key, BackendError]:
        return {reject.op.key: reject.error for reject in self._backend.check(ops)}


def _unless_deleted(item: Item | BackendError) -> Item | BackendError:
    if isinstance(item, Item) and item.deleted:
        return ItemNotFound(f"{item.native} is deleted")
    return item


class Documents:
    """One document an environment: a JSON object of text by the names of variables."""

    def __init__(self, backend: Backend, wanted: Scope, fingerprint: Fingerprint) -> None:
        self._backend = backend
        self._scope = wanted
        self._fingerprint = fingerprint

    @property
    def limits(self) -> Limits:
        return self._backend.limits

    @property
    def capabilities(self) -> Capability:
        return self._backend.capabilities & ~Capability.STAMP_ATOMIC & ~Capability.STAMP_SIDE

    @property
    def has_documents(self) -> bool:
        return True

    async def look(self, known: Mapping[str, Known]) -> Seen:
        listed = await _listed(self._backend, self._scope)
        documents = {
            item.key.environment: item
            for item in listed
            if not item.key.variable and not item.deleted
        }
        seen = Seen({})
        changed = []
        for environment, document in documents.items():
            before = known.get(environment)
            if document.value is None and before and before.version == document.version:
                seen.items.update(_as_known(document, before))
                seen.documents[environment] = document.version
            elif document.value is None and Capability.WRITE_ONLY not in self.capabilities:
                changed.append(document.key)
            else:
                self._take(seen, environment, document)
        for key, answer in (await self._answers(changed)).items():
            self._take(seen, key.environment, answer)
        return seen

    def _take(self, seen: Seen, environment: str, answer: Item | BackendError) -> None:
        """Add what one document has; raises what is no matter of this document alone."""
        if isinstance(answer, ItemNotFound | SoftDeleted):
            return  # It was listed a moment ago: a second look tells whether it is gone.
        if isinstance(answer, Item):
            try:
                seen.items.update(self._variables(answer))
            except InvalidValue as error:
                seen.unreadable[environment] = error
            else:
                seen.documents[environment] = answer.version
            return
        if not answer.is_refusal:
            raise answer
        seen.unreadable[environment] = answer

    async def read(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        seen = Seen({})
        wanted = sorted({Key(key.environment, "") for key in keys})
        for document, answer in (await self._answers(wanted)).items():
            self._take(seen, document.environment, answer)
        return {
            key: seen.unreadable[key.environment]
            if key.environment in seen.unreadable
            else seen.items.get(key, _absent(key))
            for key in keys
        }

    async def apply(
        self,
        ops: Sequence[Op],
        idempotency: str,
        tell: Callable[[int], None] = _to_nobody,
        lose: Callable[[Item], None] = _to_nobody,
    ) -> list[Outcome]:
        outcomes: dict[Key, Outcome] = {}
        for environment in dict.fromkeys(op.key.environment for op in ops):
            mine = [op for op in ops if op.key.environment == environment]
            for outcome in await self._replace(environment, mine, idempotency, lose):
                outcomes[outcome.op.key] = outcome
            tell(len(outcomes))
        return [outcomes[op.key] for op in ops]

    def name(self, key: Key) -> str:
        return self._backend.encode(Key(key.environment, ""))

    def problems(self, ops: Sequence[Op]) -> dict[Key, BackendError]:
        """Of one variable nothing is known: what is written of a document is checked together."""
        found: dict[Key, BackendError] = {}
        for environment in dict.fromkeys(op.key.environment for op in ops):
            mine = [op for op in ops if op.key.environment == environment]
            document = _text({op.key.variable: op.value for op in mine if op.verb is Verb.PUT})
            put = Op(Verb.PUT, Key(environment, ""), "", document)
            for reject in self._backend.check([put]):
                found.update({op.key: reject.error for op in mine})
        return found

    async def _documents(self, keys: Sequence[Key]) -> dict[str, Item]:
        """Documents with their values, by environment, without those that are not there."""
        found: dict[str, Item] = {}
        for key, item in (await self._answers(keys)).items():
            if isinstance(item, Item):
                found[key.environment] = item
            elif not isinstance(item, ItemNotFound | SoftDeleted):
                raise item
        return found

    async def _answers(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        size = max(1, self.limits.get_batch)
        found: dict[Key, Item | BackendError] = {}
        for at in range(0, len(keys), size):
            found.update(await self._backend.get_many(keys[at : at + size]))
        return {key: _unless_deleted(item) for key, item in found.items()}

    def _variables(self, document: Item) -> dict[Key, Item]:
        return {
            Key(document.key.environment, name): replace(
                document,
                key=Key(document.key.environment, name),
                version=self._fingerprint(value),
                value=value,
                stamp="",
            )
            for name, value in parsed(document).items()
        }

    async def _replace(
        self,
        environment: str,
        ops: Sequence[Op],
        idempotency: str,
        lose: Callable[[Item], None],
    ) -> list[Outcome]:
        """Change some variables of a document, all at once or none."""
        try:
            before = (await self._documents([Key(environment, "")])).get(environment)
            held = {} if before is None else parsed(before)
        except BackendError as error:
            result = Result.REJECTED if error.is_refusal else Result.FAILED
            return [Outcome(op, result, error=error) for op in ops]
        after = dict(held)
        outcomes: dict[Key, Outcome] = {}
        for op in ops:
            outcome = self._changed(op, held, after)
            if outcome is not None:
                outcomes[op.key] = outcome
        rest = [op for op in ops if op.key not in outcomes]
        if rest:
            written = await self._written(environment, before, after, idempotency)
            overtaken = written.between if written.overtaken else None
            if overtaken is not None:
                written = await self._again(environment, rest, overtaken, written, idempotency)
                if written.result not in (Result.APPLIED, Result.NOOP):
                    self._tell_of_others(overtaken, held, rest, lose)
            for op in rest:
                outcomes[op.key] = self._share_of(op, written, overtaken)
        return [outcomes[op.key] for op in ops]

    async def _again(
        self, environment: str, ops: Sequence[Op], between: Item, written: Outcome, idempotency: str
    ) -> Outcome:
        """Write what others wrote in between back into a document, besides what these change.

        A store without compare-and-set replaced it unseen. Who writes once more in the moments
        until then is overtaken for good: the outcome says so, and only the store's history has it.
        """
        after = parsed(between)
        for op in ops:
            if op.verb is Verb.PUT:
                after[op.key.variable] = op.value
            else:
                after.pop(op.key.variable, None)
        if written.op.verb is Verb.PUT and _text(after) == written.op.value:
            return written
        now = replace(between, version=written.version)
        return await self._written(environment, now, after, f"{idempotency}-again")

    def _tell_of_others(
        self,
        between: Item,
        held: Mapping[str, str],
        ops: Sequence[Op],
        lose: Callable[[Item], None],
    ) -> None:
        """Tell of what others wrote in between, besides what these operations are about."""
        mine = {op.key for op in ops}
        for key, item in self._variables(between).items():
            if key not in mine and item.value != held.get(key.variable):
                lose(item)

    def _changed(self, op: Op, held: Mapping[str, str], after: dict[str, str]) -> Outcome | None:
        """Make one change to `after`; the outcome where there is nothing to change, or may not."""
        name = op.key.variable
        now = "" if name not in held else self._fingerprint(held[name])
        wanted = self._fingerprint(op.value) if op.verb is Verb.PUT else ""
        if now == wanted:
            return Outcome(op, Result.NOOP, now)
        if now != op.expect:
            error = StaleVersion(f"{name} was changed in the document meanwhile")
            return Outcome(op, Result.CONFLICT, now, error)
        if op.verb is Verb.PUT:
            after[name] = op.value
        else:
            del after[name]
        return None

    async def _written(
        self, environment: str, before: Item | None, after: Mapping[str, str], idempotency: str
    ) -> Outcome:
        """Write a document, or delete one that is empty and is known to be of envd's making."""
        expect = "" if before is None else before.version
        key = Key(environment, "")
        if after or before is None or not before.managed:
            op = Op(Verb.PUT, key, expect, _text(after), any_owner=True)
        else:
            op = Op(Verb.DELETE, key, expect)
        for rejected in self._backend.check([op]):
            return Outcome(op, Result.REJECTED, error=rejected.error)
        named = f"{idempotency}-{self._fingerprint(environment)[:8]}"
        (outcome,) = await self._backend.apply([op], idempotency=named)
        return outcome

    def _share_of(self, op: Op, document: Outcome, overtaken: Item | None) -> Outcome:
        """What the outcome for a document is for one of its variables."""
        done = document.result in (Result.APPLIED, Result.NOOP)
        version = self._fingerprint(op.value) if done and op.verb is Verb.PUT else ""
        between = None if overtaken is None else self._variables(overtaken).get(op.key)
        if between is not None and between.version in (op.expect, version):
            between = None
        is_lost = document.overtaken and document.between is not overtaken
        unseen = between is not None or is_lost
        return Outcome(op, document.result, version, document.error, unseen, between)


def parsed(document: Item) -> dict[str, str]:
    """The variables of a document. Raises InvalidValue, without its text, for anything else."""
    if document.value is None:
        return {}
    plain = _plain(document.value)
    if plain is None:
        raise InvalidValue(
            f"{document.native} is no JSON object of text, so it can't be a document of variables",
            hint="use the layout per-variable, or another place",
        )
    return plain


def _plain(text: str) -> dict[str, str] | None:
    """The object that a text is, None where it is anything else, or holds what is no text."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict):
        return None
    for name, value in plain.items():
        if not isinstance(value, str) or not _is_text(name + value):
            return None
    return plain


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: an escaped half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(variables: Mapping[str, str]) -> str:
    return json.dumps(variables, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _as_known(document: Item, before: Known) -> dict[Key, Item]:
    """The variables of a document that has not changed, without their values."""
    environment = document.key.environment
    return {
        Key(environment, name): replace(
            document, key=Key(environment, name), version=version, stamp=""
        )
        for name, version in before.variables.items()
        if version
    }


def _absent(key: Key) -> ItemNotFound:
    return ItemNotFound(f"{key.variable} is not in the document")
