"""The `aws-lambda` backend: the variables of a function of AWS Lambda, all together.

A function has one map of variables, which is read and replaced whole (WHOLE_DOCUMENT), at most 4 KB
of it. A change has Lambda start new instances of the function (RESTARTS_TARGET). It is one of
$LATEST: versions that were published, and aliases to them, stay what they are.

Lambda compares: a write names the revision of the function that was looked at, and is refused when
that is not the present one any more (CAS). But a revision ends with anything about the function, a
deployment of code or the end of an update; so `version` is the hash of the variables, a write
looks whether that is the expected one, and only then names the revision. Where it is refused
although the variables are as they were, it is to be tried later (Throttled), as it is while an
update is under way.

Whose the variables are, and the stamp, is in a tag of the function (`aws_function`), which is
written before them by a call of its own (STAMP_SIDE). Names that AWS reserves are left as they are,
and are not shown. A function is neither made nor deleted; to delete the document is to have none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from envd.backends.aws_function import (
    LIMITS,
    MAX_BYTES,
    PRICES,
    TAG,
    Function,
    FunctionName,
    Mark,
    parsed,
    size_of,
    version_of,
)
from envd.backends.aws_session import CREDENTIALS_HINT, Calls, Sessions
from envd.backends.aws_store import AwsStore
from envd.backends.contract import (
    Capability,
    Cost,
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
    Throttled,
    ValueTooLarge,
)
from envd.backends.outcomes import check_batch, priced, stale, unsuccessful, value_problem

CAPABILITIES: Final = (
    Capability.CAS
    | Capability.STAMP_SIDE
    | Capability.LIST_VALUES
    | Capability.WHOLE_DOCUMENT
    | Capability.RESTARTS_TARGET
)
_CALLS_OF_READ: Final = 2
_WRITES_OF_CHANGE: Final = 2
_MEANINGS: Final = {
    # A function that is not there is no function without variables.
    "ResourceNotFoundException": StoreUnsupported,
    "ResourceConflictException": Throttled,
    "PreconditionFailedException": StaleVersion,
    "InvalidParameterValueException": InvalidValue,
}


class LambdaBackend(AwsStore[FunctionName]):
    """The variables of one function."""

    def __init__(self, options: Options, sessions: Sessions | None = None) -> None:
        """Raise InvalidName or StoreUnsupported for options that can't be."""
        if options.layout != "document":
            raise StoreUnsupported(
                "a function has all its variables together", hint="use --layout document"
            )
        if options.below or options.name_template:
            raise InvalidName("a function holds one environment, under its own name")
        names = FunctionName(options.place)
        calls = Calls("lambda", options, sessions or Sessions(), concurrency=LIMITS.concurrency)
        super().__init__(names, calls)
        self._fingerprint = options.fingerprint

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return LIMITS

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def _reach(self) -> None:
        await self._function()

    def _refusal(self, op: Op) -> BackendError | None:
        problem = value_problem(op, LIMITS)
        if problem is None and op.verb is Verb.PUT:
            found = parsed(op.value)
            return found if isinstance(found, InvalidValue) else None
        return problem

    # Reading.

    async def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        name = self._names.function
        return await self._calls.call(operation, name, meanings=_MEANINGS, **parameters)

    async def _function(self) -> Function:
        name = self._names.function
        answer = await self._call("get_function_configuration", FunctionName=name)
        return Function.of(answer, name, self._fingerprint)

    async def _tags(self, function: Function) -> Mapping[str, Any]:
        answer = await self._call("list_tags", Resource=function.arn)
        tags = answer.get("Tags")
        if not isinstance(tags, Mapping):
            raise StoreUnavailable(f"{self._names.function}: an answer without tags")
        return tags

    async def _item(self) -> Item | None:
        function = await self._function()
        tags = await self._tags(function)
        return function.item(self._names.function, tags) if function.version else None

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        del cursor
        if scope.environment:
            yield Page([], complete=True)
            return
        item = await self._item()
        yield Page([] if item is None else [item], complete=True)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        return {key: await self._get(key) for key in keys}

    async def _get(self, key: Key) -> Item | BackendError:
        try:
            self.encode(key)
        except InvalidName as error:
            return error
        item = await self._item()
        return item or ItemNotFound(f"{self._names.function} has no variables")

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
        wanted = parsed(op.value) if op.verb is Verb.PUT else {}
        assert not isinstance(wanted, InvalidValue), "it was looked at"
        try:
            async with self._turns.of(self._names.function):
                return await self._replace(op, wanted)
        except BackendError as error:
            return unsuccessful(op, error)

    async def _replace(self, op: Op, wanted: dict[str, str]) -> Outcome:
        seen = await self._function()
        tags = await self._tags(seen)
        if dict(seen.variables) == wanted:
            return Outcome(op, Result.NOOP, seen.version)
        if op.verb is Verb.DELETE and not seen.version:
            return Outcome(op, Result.NOOP)
        if op.expect != seen.version:
            return stale(op, seen.version)
        if seen.version and not op.any_owner and not Mark.of(tags).owns(seen.version):
            foreign = NotOwned(f"the variables of {self._names.function} are not envd's")
            return unsuccessful(op, foreign, version=seen.version)
        whole = {**seen.reserved, **wanted}
        if size_of(whole) > MAX_BYTES:
            too_large = ValueTooLarge(f"all variables of a function have at most {MAX_BYTES} bytes")
            return unsuccessful(op, too_large, version=seen.version)
        if seen.is_updating:
            raise self._busy()
        return await self._write(op, seen, wanted, whole)

    async def _write(
        self, op: Op, seen: Function, wanted: dict[str, str], whole: dict[str, str]
    ) -> Outcome:
        version = version_of(wanted, self._fingerprint)
        is_put = op.verb is Verb.PUT
        mark = Mark("put", version or "none", op.stamp) if is_put else Mark("delete", seen.version)
        await self._call("tag_resource", Resource=seen.arn, Tags={TAG: mark.text})
        try:
            answer = await self._call(
                "update_function_configuration",
                FunctionName=self._names.function,
                Environment={"Variables": whole},
                RevisionId=seen.revision,
            )
        except StaleVersion:
            now = await self._function()
            if now.version == seen.version:
                raise self._busy() from None
            return stale(op, now.version)
        made = Function.of(answer, self._names.function, self._fingerprint)
        if made.version != version:
            raise StoreUnavailable(f"{self._names.function}: an answer about something else")
        return Outcome(op, Result.APPLIED, version)

    def _busy(self) -> Throttled:
        return Throttled(f"another update of {self._names.function} is under way")

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("Lambda tells of no changes")

    def cost(self, load: Load) -> Cost:
        """A function is read with its tags, also before a change, of which the tag comes first."""
        reads = _CALLS_OF_READ * (load.scans + load.read + load.changed)
        writes = _WRITES_OF_CHANGE * load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=writes)


def registration() -> Registration:
    """The registration of the backend."""
    sessions = Sessions()
    return Registration(
        "aws-lambda",
        "the variables of a function of AWS Lambda, with --layout document",
        lambda options: LambdaBackend(options, sessions),
        "FUNCTION",
        extra="aws",
        library="botocore",
        settings_section="aws",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
