"""The `gcp-cloud-run` backend: the environment of a container of a Cloud Run service.

The service is one document, of all variables that have their text with them (`gcp_service`).

CAS                the whole service goes back as it was read, under its etag
LIST_VALUES        there is nothing to read besides the service
WHOLE_DOCUMENT     it is written in one piece
RESTARTS_TARGET    a change makes a new revision, and Cloud Run starts new instances of it

A change is asked for, and Cloud Run then rolls it out; that is not waited for. A revision that does
not start gets no traffic, and the service has the variables all the same: whether it is well is to
be seen in Cloud Run.

A service that is not there is an error, and no empty place. So is one without the named container.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from envd.backends.contract import (
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Options,
    Outcome,
    Page,
    PriceSheet,
    Registration,
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.gcp_credentials import CREDENTIALS_HINT
from envd.backends.gcp_service import (
    Found,
    ServicePlace,
    changed,
    document_of,
    found_of,
    problem_of_variables,
    variables_of,
    version_of,
)
from envd.backends.gcp_session import Api, Calls
from envd.backends.naming import check_key
from envd.backends.outcomes import check_batch, priced, probed, stale, unsuccessful, value_problem

CAPABILITIES: Final = (
    Capability.CAS | Capability.LIST_VALUES | Capability.WHOLE_DOCUMENT | Capability.RESTARTS_TARGET
)
LIMITS: Final = Limits(
    max_items=1,
    batch=1,
    get_batch=1,
    # A region has 3,000 reads and 180 writes a minute, all applications of a project together.
    reads_per_s=2.0,
    writes_per_s=0.5,
    burst=2,
    # A revision a minute at most, however often something changes.
    writes_per_item_per_s=1 / 60,
    concurrency=2,
)
PRICES: Final = PriceSheet(
    "gcp",
    "Cloud Run",
    "2026-11-30",
    source="no fee for calls: what new instances cost that a change starts is not counted",
)
_ENVIRONMENT: Final = Key("", "")
_ABSENT: Final = {"NOT_FOUND": StoreUnsupported}
_REFUSED: Final = {
    "ABORTED": StaleVersion,
    "NOT_FOUND": StoreUnsupported,
    "INVALID_ARGUMENT": InvalidValue,
}


class CloudRunBackend:
    """The variables of one container of one service."""

    def __init__(self, options: Options) -> None:
        """Raise StoreUnsupported or InvalidName for options that can't be."""
        if options.layout != "document":
            raise StoreUnsupported(
                "a service is a whole environment, and a change of it a new revision",
                hint="use --layout document",
            )
        if options.below:
            raise StoreUnsupported(
                "a service holds one environment", hint="bind each environment to its service"
            )
        if options.name_template:
            raise InvalidName("there is one name here, that of the service")
        self._place = ServicePlace.of(options.place, options.settings)
        api = Api("Cloud Run", "run.googleapis.com", _client)
        self._calls = Calls(api, options, concurrency=LIMITS.concurrency)

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return LIMITS

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def open(self) -> None:
        await self._calls.open()

    async def close(self) -> None:
        await self._calls.close()

    async def probe(self) -> Health:
        """Read the service."""
        return await probed(self._found, lambda: self._calls.identity)

    def encode(self, key: Key) -> str:
        """The service, with the container where one is named."""
        check_key(key, document=True, below=False)
        return self._place.native

    def decode(self, native: str) -> Key | None:
        return _ENVIRONMENT if native == self._place.native else None

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
            problem = value_problem(op, LIMITS)
            if problem is not None or op.verb is Verb.DELETE:
                return problem
            return problem_of_variables(variables_of(op.value))
        except (InvalidName, InvalidValue) as error:
            return error

    # Reading.

    async def _found(self) -> Found:
        answer = await self._calls.call(
            "get_service", self._place.native, meanings=_ABSENT, name=self._place.name
        )
        return found_of(answer, self._place)

    def _item(self, found: Found) -> Item:
        return Item(
            _ENVIRONMENT,
            self._place.native,
            found.version,
            value=document_of(found.variables),
            managed=found.is_marked,
            changed_ms=found.changed_ms,
        )

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """One page, of one document or none."""
        found = await self._found()
        is_in = found.is_there and scope.holds(_ENVIRONMENT)
        yield Page([self._item(found)] if is_in else [], complete=not cursor)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        answers: dict[Key, Item | BackendError] = {}
        for key in keys:
            try:
                self.encode(key)
                found = await self._found()
            except InvalidName as error:
                answers[key] = error
                continue
            absent = ItemNotFound(f"{self._place.native} has no variables")
            answers[key] = self._item(found) if found.is_there else absent
        return answers

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds the variables as they are to be, and is answered with NOOP."""
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op) for op in ops]

    async def _do(self, op: Op) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        try:
            found = await self._found()
            is_put = op.verb is Verb.PUT
            after = variables_of(op.value) if is_put else {}
            if found.variables == after:
                return Outcome(op, Result.NOOP, found.version if found.is_there else "")
            refused = self._refusal(op, found, after)
            if refused is not None:
                return refused
            try:
                version = await self._write(found, after, marked=is_put)
                return Outcome(op, Result.APPLIED, version if after else "")
            except (StaleVersion, StoreUnsupported) as error:
                problem = error
            return await self._not_written(op, found, problem)
        except BackendError as error:
            return unsuccessful(op, error)

    def _refusal(self, op: Op, found: Found, after: dict[str, str]) -> Outcome | None:
        """Why nothing is written over what was found, None where it is."""
        version = found.version if found.is_there else ""
        if op.expect != version:
            return stale(op, version)
        taken = sorted(found.others & after.keys())
        if taken:
            error = NotOwned(
                f"{taken[0]} of {self._place.native} refers to a secret, and stays as it is",
                hint="take the reference out of the service, or the variable out of envd",
            )
            return unsuccessful(op, error, version=version)
        if found.is_there and not found.is_marked and not op.any_owner:
            error = NotOwned(f"the variables of {self._place.native} were not created by envd")
            return unsuccessful(op, error, version=version)
        return None

    async def _not_written(self, op: Op, found: Found, problem: BackendError) -> Outcome:
        """What a refusal meant, which one look at the service tells: that somebody was faster, or
        that there can be no such revision, whoever asks for it."""
        now = await self._found()
        version = now.version if now.is_there else ""
        if now.service.etag != found.service.etag:
            return stale(op, version)
        return unsuccessful(op, problem, version=version)

    async def _write(self, found: Found, after: dict[str, str], *, marked: bool) -> str:
        """Ask for a change; the version of the service then, "" where the answer does not tell."""
        operation = await self._calls.call(
            "update_service",
            self._place.native,
            meanings=_REFUSED,
            service=changed(found, self._place, after, marked=marked),
        )
        raw = getattr(operation, "operation", None)
        if raw is None or not raw.name:
            raise StoreUnavailable(f"{self._place.native}: an answer without sense")
        if raw.HasField("error"):
            await operation.exception()  # Looked at, or the loop would log what it says.
            raise StoreUnavailable(f"{self._place.native}: the change was begun, and failed")
        told = operation.metadata
        is_next = getattr(told, "uid", "") == found.uid and told.generation > found.generation
        return version_of(found.uid, int(told.generation)) if is_next else ""

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("Cloud Run tells of no changes")

    def cost(self, load: Load) -> Cost:
        """A call for each scan and read, and two for a change. They are free."""
        reads = load.scans + load.read + load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


def _client() -> Any:
    from google.cloud.run_v2 import ServicesAsyncClient

    return ServicesAsyncClient


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "gcp-cloud-run",
        "the environment of a service of Google Cloud Run",
        CloudRunBackend,
        "LOCATION/SERVICE or PROJECT/LOCATION/SERVICE",
        extra="gcp",
        library="google.cloud.run_v2",
        settings_section="gcp",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
