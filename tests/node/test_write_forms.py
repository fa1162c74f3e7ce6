"""The same writes in columns, in rows and in a tiny model: the same answers, bytes and states."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core import digest
from envd.core.answers import WriteAnswer
from envd.core.commit import Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import EnvdError
from envd.core.requests import (
    DeleteRequest,
    Put,
    PutColumns,
    RollbackRequest,
    Unset,
    WriteRequest,
)
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from envd.wire import records
from envd.wire.records import StoredEnvironment
from tests.node.conftest import DIGEST_KEY, Node

NAME = "team/app"
STALE = "00" * 16


class NotingStore(MemoryStore):
    """Notes what is published, with its bytes at that time."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[Commit, bytes, StoredState, bytes]] = []

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes = b""
    ) -> asyncio.Future[int]:
        commit = record.commit
        self.published.append((commit, records.encode_commit(commit), after, blob_of(after)))
        return super().append(record, after, encoded)


class ReadBackStore(NotingStore):
    """Gives every state as it is read back from its bytes."""

    def visible(self, environment: str) -> StoredState | None:
        return read_back(super().visible(environment))

    def head(self, environment: str) -> StoredState | None:
        return read_back(super().head(environment))


def blob_of(state: StoredState) -> bytes:
    return records.encode_environment(StoredEnvironment(state))


def read_back(state: StoredState | None) -> StoredState | None:
    return state and records.decode_environment(blob_of(state)).state


@dataclass
class Model:
    """What the environment holds by the rules alone: (value, secret) by name."""

    live: dict[Kind, dict[str, tuple[str, bool]]] = field(
        default_factory=lambda: {kind: {} for kind in Kind}
    )
    secret: set[tuple[Kind, str]] = field(default_factory=set)

    def write(self, request: WriteRequest) -> None:
        for put in request.puts:
            key = (put.kind, put.name)
            secret = key in self.secret if put.secret is None else put.secret
            (self.secret.add if secret else self.secret.discard)(key)
            self.live[put.kind][put.name] = (put.value, secret)
        for unset in request.unsets:
            del self.live[unset.kind][unset.name]
        if request.replace:
            kept = {put.name for put in request.puts if put.kind is Kind.VARIABLE}
            variables = self.live[Kind.VARIABLE]
            self.live[Kind.VARIABLE] = {n: v for n, v in variables.items() if n in kept}
        if request.must_not_exist:
            self.live[Kind.METADATA]["created"] = ("", False)


def naive_revision(environment: Environment) -> bytes:
    """The revision as its definition has it."""
    fields: list[str] = []
    for kind in Kind:
        for name in sorted(environment.entries(kind)):
            entry = environment.entries(kind)[name]
            if entry.value is not None:
                flag = "1" if entry.secret else ""
                fields += (str(int(kind)), name, entry.stamp.hex(), flag, entry.value)
    raw = "\0".join(fields).encode()
    return blake2b(raw, digest_size=16, key=DIGEST_KEY, person=b"envd revision").digest()


variables = st.sampled_from("ABCD")
values = st.sampled_from(("", "1", "ü", "\U00010000" * 30))
puts = st.lists(
    st.builds(Put, variables, values, st.sampled_from((None, None, True, False))),
    max_size=5,
)
settings_put = st.builds(
    Put,
    st.sampled_from(("owner", "description")),
    values,
    kind=st.just(Kind.METADATA),
)
bad_puts = st.sampled_from((Put("1A", "x"), Put("A", "\0"), Put("B", "\ud800"), Put("", "x")))
unsets = st.lists(
    st.one_of(
        st.builds(Unset, variables), st.just(Unset("owner", Kind.METADATA)), st.just(Unset("no!"))
    ),
    max_size=2,
)
rarely = st.sampled_from((False, False, False, True))
often = st.sampled_from((True, True, True, False))


@st.composite
def writes(draw: st.DrawFn) -> WriteRequest:
    listed = draw(puts)
    if draw(often):
        listed = list({put.name: put for put in listed}.values())
    if draw(rarely) and draw(rarely):
        listed.append(draw(bad_puts))
    metadata = tuple(draw(st.lists(settings_put, max_size=1))) if draw(rarely) else ()
    return WriteRequest(
        NAME,
        (*listed, *metadata),
        tuple(draw(unsets)) if draw(rarely) else (),
        replace=draw(rarely),
        bulk=draw(rarely),
        if_revision=draw(st.sampled_from(("", "", "now", STALE))),
        must_exist=draw(rarely),
        must_not_exist=draw(rarely),
        operation=draw(st.sampled_from(("", "", "one", "two"))),
    )


steps = st.one_of(
    st.tuples(writes(), st.booleans()),
    st.tuples(writes(), st.booleans()),
    st.tuples(writes(), st.booleans()),
    st.tuples(st.just(DeleteRequest(NAME)), st.just(True)),
    st.tuples(st.just(RollbackRequest(NAME, "@~1")), st.booleans()),
)
Request = WriteRequest | DeleteRequest | RollbackRequest
Outcome = WriteAnswer | tuple[str, str, str]


def in_columns(request: WriteRequest) -> WriteRequest:
    """As the wire has it: columns where there are variables alone."""
    if any(put.kind is Kind.METADATA for put in request.puts):
        return request
    flags = {at: put.secret for at, put in enumerate(request.puts) if put.secret is not None}
    names = [put.name for put in request.puts]
    return replace(request, puts=PutColumns(names, [put.value for put in request.puts], flags))


async def outcome(node: Node, request: Request, may_reveal: bool) -> Outcome:
    try:
        match request:
            case WriteRequest():
                return await node.coordinator.write(request, "ann", may_reveal=may_reveal)
            case DeleteRequest():
                return await node.coordinator.delete(request, "ann")
            case RollbackRequest():
                return await node.coordinator.rollback(request, "ann", may_reveal=may_reveal)
    except EnvdError as error:
        return type(error).__name__, error.reason, error.message


@settings(max_examples=300)
@given(st.lists(steps, max_size=12))
def test_columns_rows_and_the_model_agree_after_any_script(
    script: Sequence[tuple[Request, bool]],
) -> None:
    asyncio.run(_compare(script))


async def _compare(script: Sequence[tuple[Request, bool]]) -> None:
    stores = (NotingStore(), NotingStore(), ReadBackStore())
    nodes = [Node(store=store) for store in stores]
    model = Model()
    for asked, may_reveal in script:
        request, head = asked, stores[0].head(NAME)
        if isinstance(request, WriteRequest) and request.if_revision == "now":
            request = replace(request, if_revision=head.revision.hex() if head else "")
        commits = len(stores[0].published)
        columns = in_columns(request) if isinstance(request, WriteRequest) else request

        told = [
            await outcome(nodes[0], request, may_reveal),
            await outcome(nodes[1], columns, may_reveal),
            await outcome(nodes[2], columns, may_reveal),
        ]

        assert told == [told[0]] * 3
        if len(stores[0].published) > commits:
            _follow(model, request, stores[0])
        _agree(model, stores)
    for store in stores:
        for commit, raw, state, blob in store.published:
            assert (records.encode_commit(commit), blob_of(state)) == (raw, blob)


def _follow(model: Model, request: Request, store: MemoryStore) -> None:
    """The model does writes by itself; the past it takes over."""
    match request:
        case WriteRequest():
            model.write(request)
        case DeleteRequest():
            model.__init__()  # type: ignore[misc]
        case RollbackRequest():
            now = store.head(NAME)
            assert now is not None
            for kind in Kind:
                model.live[kind] = _held(now.environment, kind)
                for name, entry in now.environment.entries(kind).items():
                    change = model.secret.add if entry.secret else model.secret.discard
                    change((kind, name))


def _held(environment: Environment, kind: Kind) -> dict[str, tuple[str, bool]]:
    """What is live; the time of creation is left out, which no model knows."""
    return {
        name: ("" if name == "created" else entry.value or "", entry.secret)
        for name, entry in environment.live(kind)
    }


def _agree(model: Model, stores: Sequence[NotingStore]) -> None:
    heads = [store.head(NAME) for store in stores]
    assert heads == [heads[0]] * 3
    assert [raw for _, raw, _, _ in stores[1].published] == [
        raw for _, raw, _, _ in stores[0].published
    ]
    for head in filter(None, heads):
        environment = head.environment
        assert head.revision == naive_revision(environment)
        assert environment.summary == replace(environment).summary
        assert {kind: _held(environment, kind) for kind in Kind} == model.live
    full = {digest.state_digest(h.environment, h.revision, 0, DIGEST_KEY) for h in heads if h}
    assert len(full) <= 1
