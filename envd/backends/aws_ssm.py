"""The `aws-ssm` backend: parameters of the AWS Systems Manager Parameter Store.

Below a path each variable is a parameter: a SecureString where it is secret, else a String. What
envd created has the tag `managed-by=envd`, which is what a write asks for; what it wrote says so in
its description, together with the stamp:

    managed by envd; stamp 0000...2a.91b3 of version 7

The description is written in the call that writes the value. Who edits the value alone leaves it as
it is, so a stamp counts only for the version that it names (STAMP_ATOMIC).

The store compares nothing. A new parameter is created without leave to overwrite, so it never
replaces another's. For one that is there its version is looked at, it is overwritten, and the
version that this made must be the next one (POSTCHECK). Else others wrote in between: what they
wrote is read from the history, and the stamp, which names the version that it should have become,
counts no more. A deletion can't be checked so, and is looked at before only.

A number of versions begins anew with each new parameter of a name, so `version` is that number
together with the time of the write.

Listing has 50 parameters a call, without their values: to decrypt costs money at KMS, so values are
read by name, ten at a time, and only those that the reconciler wants to see.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from envd.backends.aws_names import PlaceNames, absolute
from envd.backends.aws_parameter import (
    ADVANCED,
    ADVANCED_PRICES,
    REFERENCE,
    RULES,
    SECURE,
    STANDARD,
    STANDARD_PRICES,
    TAG,
    Parameter,
    SsmSettings,
    mark_of,
    marked,
    name_of,
    parameter,
)
from envd.backends.aws_session import CREDENTIALS_HINT, Calls, Sessions, listed
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
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.naming import shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

CAPABILITIES: Final = Capability.POSTCHECK | Capability.STAMP_ATOMIC
_READS_OF_CHANGE: Final = 3
_READS_OF_GET: Final = 2


class SsmBackend(AwsStore[PlaceNames]):
    """One path of the Parameter Store of one account and region."""

    def __init__(
        self,
        options: Options,
        sessions: Sessions | None = None,
        *,
        page_items: int = STANDARD.page_items,
    ) -> None:
        """Raise InvalidName or StoreUnsupported for options that can't be.

        `page_items` is how many are asked for in a page of a listing, at most what is usual.
        """
        self._settings = SsmSettings.of(options.settings)
        tier = ADVANCED if self._settings.advanced else STANDARD
        self._limits = replace(tier, page_items=page_items)
        place = "/" + absolute(options.place, self._settings.prefix)
        calls = Calls("ssm", options, sessions or Sessions(), concurrency=tier.concurrency)
        super().__init__(PlaceNames(place, options, RULES), calls)
        self._shown_place = self._names.place or "/"

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def prices(self) -> PriceSheet:
        return ADVANCED_PRICES if self._settings.advanced else STANDARD_PRICES

    async def _reach(self) -> None:
        answer = await self._describe([self._filter(Scope("", below=True))], most=1)
        listed(answer, "Parameters", self._shown_place)

    def _refusal(self, op: Op) -> BackendError | None:
        problem = value_problem(op, self.limits)
        if problem is None and op.verb is Verb.PUT and REFERENCE.search(op.value):
            return InvalidValue(
                f"the value of {shown(op.key)} holds {{{{ and }}}}, which this store refuses"
            )
        return problem

    # Reading.

    def _filter(self, scope: Scope) -> Mapping[str, object]:
        if self._names.is_document:
            # The document of the place itself has the name of the path, so it is not below it.
            return {"Key": "Name", "Option": "BeginsWith", "Values": [self._names.path(scope)]}
        option = "OneLevel" if self._names.is_flat(scope) else "Recursive"
        return {"Key": "Path", "Option": option, "Values": [self._names.path(scope) or "/"]}

    async def _describe(
        self, filters: Sequence[Mapping[str, object]], *, token: str = "", most: int = 0
    ) -> Mapping[str, Any]:
        return await self._calls.call(
            "describe_parameters",
            self._shown_place,
            ParameterFilters=list(filters),
            MaxResults=most or self.limits.page_items,
            NextToken=token or None,
        )

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        token = cursor or ""
        while True:
            answer = await self._describe([self._filter(scope)], token=token)
            found = listed(answer, "Parameters", self._shown_place)
            items = [item for each in found if (item := self._described(each, scope)) is not None]
            token = answer.get("NextToken") or ""
            yield Page(items, complete=not token and not cursor, cursor=token)
            if not token:
                return

    def _described(self, entry: Mapping[str, Any], scope: Scope) -> Item | None:
        """The item of an entry of a listing, without a value; None outside of the scope."""
        key = self.decode(name_of(entry))
        if key is None or not scope.holds(key):
            return None
        return self._item(key, name_of(entry), parameter(entry), str(entry.get("Description", "")))

    @staticmethod
    def _item(key: Key, native: str, found: Parameter, description: str) -> Item:
        stamp, managed = mark_of(description, found.number)
        return Item(
            key,
            native,
            found.version,
            secret=found.is_secret,
            managed=managed,
            stamp=stamp,
            changed_ms=found.changed_ms,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), self.limits.get_batch, what="keys")
        answers: dict[Key, Item | BackendError] = {}
        names: dict[str, Key] = {}
        for key in keys:
            try:
                names[self.encode(key)] = key
            except InvalidName as error:
                answers[key] = error
        found = await self._read_each(names)
        there = [name for name, each in found.items() if isinstance(each, Parameter)]
        descriptions = await self._descriptions(there)
        for name, key in names.items():
            each = found[name]
            if isinstance(each, Parameter):
                item = self._item(key, name, each, descriptions.get(name, ""))
                answers[key] = replace(item, value=each.value)
            else:
                answers[key] = each
        return {key: answers[key] for key in keys}

    async def _read_each(self, names: Iterable[str]) -> dict[str, Parameter | BackendError]:
        """Parameters with their values. One that can't be decrypted does not hide the others."""
        wanted = sorted(names)
        if not wanted:
            return {}
        try:
            found = await self._read(wanted)
        except Forbidden as error:
            if len(wanted) == 1:
                return {wanted[0]: error}
            alone = [await self._read_each([name]) for name in wanted]
            return {name: each for one in alone for name, each in one.items()}
        missing = {name: ItemNotFound(f"there is no {name}") for name in wanted}
        return {**missing, **found}

    async def _read(self, names: Sequence[str], *, decrypt: bool = True) -> dict[str, Parameter]:
        """Those of these parameters that there are."""
        about = names[0] if len(names) == 1 else self._shown_place
        answer = await self._calls.call(
            "get_parameters", about, Names=list(names), WithDecryption=decrypt
        )
        there = {
            name_of(each): parameter(each, valued=True)
            for each in listed(answer, "Parameters", about)
        }
        absent = set(map(str, listed(answer, "InvalidParameters", about)))
        if set(names) - there.keys() != absent:
            raise StoreUnavailable(f"{about}: an answer that does not tell of every name")
        return there

    async def _descriptions(self, names: Sequence[str]) -> dict[str, str]:
        """What parameters say of themselves, "" for those that a listing does not have yet."""
        described: dict[str, str] = {}
        token = ""
        while names:
            named = {"Key": "Name", "Option": "Equals", "Values": list(names)}
            answer = await self._describe([named], token=token)
            for each in listed(answer, "Parameters", self._shown_place):
                described[name_of(each)] = str(each.get("Description", ""))
            token = answer.get("NextToken") or ""
            if not token:
                break
        return described

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds the parameter as it is to be, and is answered with NOOP."""
        try:
            check_batch(len(ops), self.limits.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op) for op in ops]

    async def _do(self, op: Op) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        native = self.encode(op.key)
        try:
            async with self._turns.of(native):
                if op.verb is Verb.DELETE:
                    return await self._delete(op, native)
                created = None if op.expect else await self._create(op, native)
                return created or await self._update(op, native)
        except BackendError as error:
            return unsuccessful(op, error)

    async def _look(self, native: str, *, decrypt: bool) -> Parameter | None:
        return (await self._read([native], decrypt=decrypt)).get(native)

    async def _create(self, op: Op, native: str) -> Outcome | None:
        """Create a parameter, tag and all; None where there is one already."""
        try:
            number = await self._write(
                op, native, 1, "String", Tags=[TAG], Tier=self._tier(), Overwrite=False
            )
        except StaleVersion:
            return None
        return Outcome(op, Result.APPLIED, await self._version(native, number))

    async def _update(self, op: Op, native: str) -> Outcome:
        seen = await self._look(native, decrypt=True)
        if seen is None:
            return stale(op, "")
        if not seen.is_so(op) and op.expect != seen.version:
            return stale(op, seen.version)
        tagged = await self._is_tagged(native)
        if not tagged and not op.any_owner:
            if seen.is_so(op):
                return Outcome(op, Result.NOOP, seen.version)
            return self._not_owned(op, seen)
        if not tagged:  # Before the value is written: then it is refused with nothing written.
            await self._tag(native)
        if seen.is_so(op):
            return Outcome(op, Result.NOOP, seen.version)
        return await self._overwrite(op, native, seen)

    async def _overwrite(self, op: Op, native: str, seen: Parameter) -> Outcome:
        expected = seen.number + 1
        # An advanced parameter can't become a standard one, so that is asked for nowhere.
        tier = "Advanced" if self._settings.advanced else None
        number = await self._write(op, native, expected, seen.kind, Tier=tier, Overwrite=True)
        if number == 1:  # Somebody deleted it in between, and its tags with it.
            await self._tag(native)
        outcome = Outcome(op, Result.APPLIED, await self._version(native, number))
        if number == expected:
            return outcome
        between = None
        if number > expected:
            with suppress(BackendError):  # It is written: what it replaced is told where it can be.
                between = await self._between(op.key, native, number - 1)
        return replace(outcome, overtaken=True, between=between)

    async def _write(self, op: Op, native: str, expected: int, kind: str, **manner: object) -> int:
        """Write a parameter, and return the number of the version that this made."""
        if op.secret:
            kind = SECURE
        elif kind == SECURE:
            kind = "String"
        answer = await self._calls.call(
            "put_parameter",
            native,
            meanings={"ValidationException": InvalidValue},
            Name=native,
            Value=op.value,
            Type=kind,
            Description=marked(op.stamp, expected),
            KeyId=(self._settings.kms_key_id or None) if kind == SECURE else None,
            **manner,
        )
        number = answer.get("Version")
        if not isinstance(number, int):
            raise StoreUnavailable(f"{native}: an answer without a version")
        return number

    def _tier(self) -> str:
        return "Advanced" if self._settings.advanced else "Standard"

    async def _version(self, native: str, number: int) -> str:
        """The version that was just written, "" where it is not the present one or not known."""
        try:
            now = await self._look(native, decrypt=False)
        except BackendError:
            return ""
        return now.version if now is not None and now.number == number else ""

    async def _between(self, key: Key, native: str, number: int) -> Item | None:
        """What another wrote as this version, from the history; None where that has it no more."""
        token: str | None = None
        while True:
            answer = await self._calls.call(
                "get_parameter_history",
                native,
                Name=native,
                WithDecryption=True,
                MaxResults=50,
                NextToken=token,
            )
            for each in listed(answer, "Parameters", native):
                if each.get("Version") == number:
                    found = parameter(each, valued=True)
                    item = self._item(key, native, found, str(each.get("Description", "")))
                    return replace(item, value=found.value)
            token = answer.get("NextToken") or None
            if token is None:
                return None

    async def _delete(self, op: Op, native: str) -> Outcome:
        seen = await self._look(native, decrypt=False)
        if seen is None:
            return Outcome(op, Result.NOOP)
        if op.expect != seen.version:
            return stale(op, seen.version)
        if not op.any_owner and not await self._is_tagged(native):
            return self._not_owned(op, seen)
        try:
            await self._calls.call("delete_parameter", native, Name=native)
        except ItemNotFound:
            return Outcome(op, Result.NOOP)
        return Outcome(op, Result.APPLIED)

    @staticmethod
    def _not_owned(op: Op, seen: Parameter) -> Outcome:
        error = NotOwned(f"{shown(op.key)} was not created by envd")
        return unsuccessful(op, error, version=seen.version)

    async def _is_tagged(self, native: str) -> bool:
        answer = await self._calls.call(
            "list_tags_for_resource", native, ResourceType="Parameter", ResourceId=native
        )
        return TAG in listed(answer, "TagList", native)

    async def _tag(self, native: str) -> None:
        await self._calls.call(
            "add_tags_to_resource",
            native,
            ResourceType="Parameter",
            ResourceId=native,
            Tags=[TAG],
        )

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("the Parameter Store tells of no changes")

    def cost(self, load: Load) -> Cost:
        """A value is read with what it says of itself; a change is looked at before and after."""
        reads = (
            scan_calls(load, self.limits.page_items)
            + _READS_OF_GET * math.ceil(load.read / self.limits.get_batch)
            + _READS_OF_CHANGE * load.changed
        )
        return priced(self.prices, items=load.items, reads=reads, writes=load.changed)


def registration() -> Registration:
    """The registration of the backend."""
    sessions = Sessions()
    return Registration(
        "aws-ssm",
        "parameters of the AWS Systems Manager Parameter Store",
        lambda options: SsmBackend(options, sessions),
        "/PATH",
        extra="aws",
        library="botocore",
        settings_section="aws",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
