"""The `aws-secrets-manager` backend: secrets of AWS Secrets Manager.

A secret is a variable, or with layout "document" the JSON object of a whole environment, which
costs as much as one. What envd created has the tag `managed-by=envd`.

Each version of a secret has an id that its writer chooses; here that carries the stamp, and tells
attempts apart (`aws_version_id`). So it is written atomically with the value (STAMP_ATOMIC), and a
repeat is the same version. A write compares (CAS): the new version is put under a stage of its own,
and then AWSCURRENT is moved to it from the version that was expected, which the store refuses when
that is not the current one any more. It is never put without a stage, for that would be AWSCURRENT.

What is deleted keeps its name during the recovery window (SOFT_DELETE). A name that is written
again is restored first. A deletion compares nothing, but nobody can write what is deleted: so it is
looked at afterwards, and where it is not the expected version, it is restored and was a conflict.

A listing may lag behind by minutes; who is told an old version, and writes, is told by the look
before the write. Every version counts towards the hundred that a secret can have in a day, so
nothing is put before the present value was compared.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from envd.backends.aws_names import PlaceNames, absolute
from envd.backends.aws_secret import (
    CURRENT,
    LIMITS,
    PRICES,
    RULES,
    STAGE,
    TAG,
    UNREADABLE,
    Secret,
    SecretsSettings,
)
from envd.backends.aws_session import CREDENTIALS_HINT, Calls, Sessions, listed, milliseconds
from envd.backends.aws_store import AwsStore
from envd.backends.aws_version_id import fits, stamp_of, version_id
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

CAPABILITIES: Final = Capability.CAS | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE
_READS_OF_CHANGE: Final = 2
_WRITES_OF_CHANGE: Final = 2


class SecretsManagerBackend(AwsStore[PlaceNames]):
    """The secrets with one beginning, of one account and region."""

    def __init__(
        self,
        options: Options,
        sessions: Sessions | None = None,
        *,
        page_items: int = LIMITS.page_items,
    ) -> None:
        """Raise InvalidName or StoreUnsupported for options that can't be.

        `page_items` is how many are asked for in a page of a listing, at most what is usual.
        """
        self._limits = replace(LIMITS, page_items=page_items)
        self._settings = SecretsSettings.of(options.settings)
        place = absolute(options.place, self._settings.prefix)
        if not place.strip("/"):
            raise InvalidName("a place in Secrets Manager has a name", hint="for example app/prod")
        calls = Calls(
            "secretsmanager", options, sessions or Sessions(), concurrency=LIMITS.concurrency
        )
        super().__init__(PlaceNames(place, options, RULES), calls)

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def _reach(self) -> None:
        answer = await self._list(Scope("", below=True), most=1)
        listed(answer, "SecretList", self._names.place)

    def _refusal(self, op: Op) -> BackendError | None:
        problem = value_problem(op, LIMITS)
        if problem is None and op.verb is Verb.PUT and not fits(op.stamp):
            return InvalidValue(f"the stamp of {shown(op.key)} is none of envd's")
        return problem

    # Reading.

    async def _list(self, scope: Scope, *, token: str = "", most: int = 0) -> Mapping[str, Any]:
        path = self._names.path(scope)
        start = path if self._names.is_document else f"{path}/"
        return await self._calls.call(
            "list_secrets",
            self._names.place,
            Filters=[{"Key": "name", "Values": [start]}],
            MaxResults=most or self.limits.page_items,
            NextToken=token or None,
        )

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        token = cursor or ""
        while True:
            answer = await self._list(scope, token=token)
            found = listed(answer, "SecretList", self._names.place)
            items = [item for each in found if (item := self._listed(each, scope)) is not None]
            token = answer.get("NextToken") or ""
            yield Page(items, complete=not token and not cursor, cursor=token)
            if not token:
                return

    def _listed(self, entry: Mapping[str, Any], scope: Scope) -> Item | None:
        """The item of an entry of a listing; None for one that is of no use here."""
        native = str(entry.get("Name", ""))
        key = self.decode(native)
        found = Secret.of(entry, "SecretVersionsToStages")
        if key is None or not scope.holds(key) or not found.current or found.is_deleted:
            return None
        return Item(
            key,
            native,
            found.current,
            managed=found.is_ours,
            stamp=stamp_of(found.current) or "",
            changed_ms=found.changed_ms,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        answers: dict[Key, Item | BackendError] = {}
        names: dict[str, Key] = {}
        for key in keys:
            try:
                names[self.encode(key)] = key
            except InvalidName as error:
                answers[key] = error
        found = await self._read_each(names)
        for name, key in names.items():
            each = found[name]
            answers[key] = each if isinstance(each, BackendError) else await self._read(key, each)
        return {key: answers[key] for key in keys}

    async def _read_each(self, names: Iterable[str]) -> dict[str, Mapping[str, Any] | BackendError]:
        """What the store has under each of these names."""
        wanted = sorted(names)
        if not wanted:
            return {}
        about = wanted[0] if len(wanted) == 1 else self._names.place
        answer = await self._calls.call("batch_get_secret_value", about, SecretIdList=wanted)
        found: dict[str, Mapping[str, Any] | BackendError] = {
            str(each.get("Name", "")): each for each in listed(answer, "SecretValues", about)
        }
        for each in listed(answer, "Errors", about):
            name, code = str(each.get("SecretId", "")), each.get("ErrorCode")
            kind = UNREADABLE.get(str(code), StoreUnavailable)
            found[name] = kind(f"{name} can't be read: {kind.default_reason.lower()}")
        if set(wanted) - found.keys():
            raise StoreUnavailable(f"{about}: an answer that does not tell of every name")
        return found

    async def _read(self, key: Key, entry: Mapping[str, Any]) -> Item | BackendError:
        """The item of a secret that was read with its value.

        A version that envd has written is of a secret that is its own. Of another it is asked.
        """
        native = str(entry["Name"])
        version, value = entry.get("VersionId"), entry.get("SecretString")
        if not isinstance(version, str):
            return StoreUnavailable(f"{native}: an answer without a version")
        if not isinstance(value, str):
            return InvalidValue(f"{native} holds bytes, and no text")
        stamp = stamp_of(version)
        managed = stamp is not None
        if not managed:
            try:
                described = await self._described(native)
            except BackendError as error:
                return error
            managed = described is not None and described.is_ours
        return Item(
            key,
            native,
            version,
            value=value,
            managed=managed,
            stamp=stamp or "",
            changed_ms=milliseconds(entry.get("CreatedDate")),
        )

    async def _described(self, native: str) -> Secret | None:
        """A secret without its value, as it is now; None where there is none."""
        try:
            answer = await self._calls.call("describe_secret", native, SecretId=native)
        except ItemNotFound:
            return None
        if answer.get("Name") != native:
            raise StoreUnavailable(f"{native}: an answer about something else")
        return Secret.of(answer, "VersionIdsToStages")

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op, idempotency) for op in ops]

    async def _do(self, op: Op, idempotency: str) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        native = self.encode(op.key)
        try:
            async with self._turns.of(native):
                if op.verb is Verb.DELETE:
                    return await self._delete(op, native)
                version = version_id(op.stamp, native, op.expect, idempotency)
                created = None if op.expect else await self._create(op, native, version)
                return created or await self._update(op, native, version)
        except BackendError as error:
            return unsuccessful(op, error)

    async def _create(self, op: Op, native: str, version: str) -> Outcome | None:
        """Create a secret, tag and all; None where there is one, or was."""
        try:
            answer = await self._calls.call(
                "create_secret",
                native,
                meanings={"InvalidRequestException": StaleVersion},
                Name=native,
                ClientRequestToken=version,
                SecretString=op.value,
                KmsKeyId=self._settings.kms_key_id or None,
                Tags=[TAG],
            )
        except StaleVersion:
            return None
        return self._done(op, native, version, answer)

    @staticmethod
    def _done(op: Op, native: str, version: str, answer: Mapping[str, Any]) -> Outcome:
        if answer.get("Name") != native:
            raise StoreUnavailable(f"{native}: an answer about something else")
        return Outcome(op, Result.APPLIED, version)

    async def _update(self, op: Op, native: str, version: str) -> Outcome:
        seen = await self._described(native)
        if seen is None:
            return stale(op, "")
        if seen.is_deleted:
            if op.expect:
                return stale(op, "")
            return await self._revive(op, native, version, seen)
        if seen.current == version:
            return Outcome(op, Result.APPLIED, version)
        if seen.current and await self._holds(native, seen.current, op.value):
            return Outcome(op, Result.NOOP, seen.current)
        if seen.current != op.expect:
            return stale(op, seen.current)
        if not seen.is_ours and not op.any_owner:
            return self._not_owned(op, seen)
        return await self._put(op, native, version, seen)

    async def _revive(self, op: Op, native: str, version: str, seen: Secret) -> Outcome:
        """Write a name that is deleted, but still taken."""
        await self._calls.call("restore_secret", native, SecretId=native)
        return await self._put(op, native, version, seen)

    async def _holds(self, native: str, version: str, value: str) -> bool:
        """Whether the present version has this value; False also where it is not present now."""
        try:
            answer = await self._calls.call(
                "get_secret_value",
                native,
                meanings=dict.fromkeys(
                    ("InvalidRequestException", "InvalidParameterException"), ItemNotFound
                ),
                SecretId=native,
                VersionId=version,
                VersionStage=CURRENT,
            )
        except ItemNotFound:
            return False
        if answer.get("VersionId") != version:
            raise StoreUnavailable(f"{native}: an answer without a version")
        return answer.get("SecretString") == value

    async def _put(self, op: Op, native: str, version: str, seen: Secret) -> Outcome:
        """Write over the version that was seen, if it still is the present one."""
        if (
            not seen.is_ours
        ):  # Before the value is written: then it is refused with nothing written.
            await self._calls.call("tag_resource", native, SecretId=native, Tags=[TAG])
        try:
            await self._stage(op, native, version, first=not seen.current)
            if not seen.current:
                return Outcome(op, Result.APPLIED, version)
            answer = await self._calls.call(
                "update_secret_version_stage",
                native,
                meanings=dict.fromkeys(
                    ("InvalidRequestException", "InvalidParameterException"), StaleVersion
                ),
                SecretId=native,
                VersionStage=CURRENT,
                MoveToVersionId=version,
                RemoveFromVersionId=seen.current,
            )
        except (StaleVersion, ItemNotFound):
            return await self._overtaken(op, native, seen)
        return self._done(op, native, version, answer)

    async def _stage(self, op: Op, native: str, version: str, *, first: bool) -> None:
        """Put a version that is not the present one; the first of a secret always is."""
        answer = await self._calls.call(
            "put_secret_value",
            native,
            meanings={"InvalidRequestException": StaleVersion},
            SecretId=native,
            ClientRequestToken=version,
            SecretString=op.value,
            VersionStages=[CURRENT if first else STAGE],
        )
        if answer.get("VersionId") != version:
            raise StoreUnavailable(f"{native}: an answer without a version")

    async def _overtaken(self, op: Op, native: str, seen: Secret) -> Outcome:
        """The store refused to move the stage: tell what is there instead."""
        now = await self._described(native)
        if now is not None and not now.is_deleted and now.current == seen.current:
            raise StoreUnsupported(f"{native}: the store does not make a new version the current")
        gone = now is None or now.is_deleted
        return stale(op, "" if gone or now is None else now.current)

    async def _delete(self, op: Op, native: str) -> Outcome:
        seen = await self._described(native)
        if seen is None or seen.is_deleted:
            return Outcome(op, Result.NOOP)
        if op.expect != seen.current:
            return stale(op, seen.current)
        if not seen.is_ours and not op.any_owner:
            return self._not_owned(op, seen)
        try:
            await self._calls.call(
                "delete_secret",
                native,
                SecretId=native,
                RecoveryWindowInDays=self._settings.recovery_days,
            )
        except ItemNotFound:
            return Outcome(op, Result.NOOP)
        return await self._checked(op, native)

    async def _checked(self, op: Op, native: str) -> Outcome:
        """Take a deletion back that deleted more than was expected."""
        now = await self._described(native)
        if now is None or not now.is_deleted or now.current == op.expect:
            return Outcome(op, Result.APPLIED)
        await self._calls.call("restore_secret", native, SecretId=native)
        return stale(op, now.current)

    @staticmethod
    def _not_owned(op: Op, seen: Secret) -> Outcome:
        error = NotOwned(f"{shown(op.key)} was not created by envd")
        return unsuccessful(op, error, version=seen.current)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("Secrets Manager tells of no changes")

    def cost(self, load: Load) -> Cost:
        """A change is looked at, compared, put and made the current version."""
        reads = (
            scan_calls(load, self.limits.page_items)
            + math.ceil(load.read / LIMITS.get_batch)
            + _READS_OF_CHANGE * load.changed
        )
        writes = _WRITES_OF_CHANGE * load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=writes)


def registration() -> Registration:
    """The registration of the backend."""
    sessions = Sessions()
    return Registration(
        "aws-secrets-manager",
        "secrets of AWS Secrets Manager, one for a variable or one for an environment",
        lambda options: SecretsManagerBackend(options, sessions),
        "NAME or /NAME",
        extra="aws",
        library="botocore",
        settings_section="aws",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
