"""The `azure-key-vault` backend: secrets of an Azure Key Vault.

A place is a vault, or a path in one: `acme-prod`, `acme-prod/web/prod`. A secret is a variable, or
with layout "document" the JSON object of a whole environment; `azure_names` tells how it is named,
and `azure_secret` what its tags say.

POSTCHECK       the store compares nothing. A secret is read before it is written, and its versions
                are listed before that and after the write: one that came in between was overtaken
STAMP_ATOMIC    in a tag, which is set with the value
SOFT_DELETE     what is deleted keeps its name, and is brought back first where it is written again
no LIST_VALUES  a listing has names, 25 a page, and values are read by name

The store deletes and recovers in the background, for some seconds, and takes no write meanwhile.
Nothing is waited for here: a write is answered with Throttled and a time, and the same write then
finds the secret. What was recovered for a write is remembered until it is written, for to that
write the name is free, as it was when it was asked for. Nothing is ever purged.

A deletion compares nothing either: it is looked at before, and the answer tells what was deleted.
If that is a newer version it was overtaken, and can be recovered by people.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from envd.backends.azure_names import SecretNames
from envd.backends.azure_secret import MAX_TAGS, Secret, newer, read_secret, written
from envd.backends.azure_session import AzureCalls, Credentials, told_error
from envd.backends.azure_settings import (
    CREDENTIALS_HINT,
    KEY_VAULT_SUFFIX,
    AzureSettings,
    text_setting,
)
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
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    SoftDeleted,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)
from envd.backends.http_calls import Answer
from envd.backends.naming import shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    probed,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)
from envd.backends.turns import Turns

CAPABILITIES: Final = Capability.POSTCHECK | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE
LIMITS: Final = Limits(
    max_value_bytes=25_600,
    max_name_bytes=127,
    page_items=25,
    batch=25,
    get_batch=25,
    reads_per_s=40.0,
    writes_per_s=5.0,
    burst=20,
    concurrency=4,
)
"""A tenth, or less, of what a vault takes in ten seconds: 4,000 reads and 300 writes."""
PRICES: Final = PriceSheet(
    "azure",
    "Key Vault",
    "2026-11-30",
    reads_10k=0.03,
    writes_10k=0.03,
    source="Microsoft Q&A, How to correctly estimate Azure Key Vault cost",
)
API_VERSION: Final = "7.4"
"""It is served everywhere, national clouds and Azure Stack included, and has all that is used."""
SETTLING_S: Final = 10.0
"""How long a deletion or a recovery may take; mostly it is less."""

_READS_OF_CHANGE: Final = 3
_MAX_REVIVED: Final = 1000
_VAULT: Final = re.compile(r"(?=.{3,24}\Z)[A-Za-z](?:-?[0-9A-Za-z])+")
_SETTLING: Final = ("ObjectIsBeingDeleted", "ObjectIsBeingRecovered")
_DELETED: Final = "ObjectIsDeletedButRecoverable"
_DISABLED: Final = "SecretDisabled"


class KeyVaultBackend:
    """The secrets of one path in one vault."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials` are those of the settings, if nothing else is given. Raises InvalidName or
        StoreUnsupported for options that can't be."""
        settings = options.settings
        vault, path = _place(options.place, text_setting(settings, "key_vault_name"))
        suffix = text_setting(settings, "key_vault_suffix", KEY_VAULT_SUFFIX)
        url = options.endpoint.rstrip("/") or f"https://{vault}.{suffix}"
        version = text_setting(settings, "key_vault_api_version", API_VERSION)

        def make(credential: Any, arguments: Mapping[str, Any]) -> Any:
            from azure.keyvault.secrets.aio import SecretClient

            return SecretClient(
                url,
                credential,
                api_version=version,
                # Elsewhere the domain of the token has nothing to do with the address.
                verify_challenge_resource=not options.endpoint,
                **arguments,
            )

        self._names = SecretNames(path, options)
        self._vault = vault
        self._calls = AzureCalls(
            f"the Key Vault {vault}",
            AzureSettings.of(options),
            make,
            concurrency=LIMITS.concurrency,
            environ=environ,
            credentials=credentials,
        )
        self._turns = Turns()
        self._revived: dict[str, Secret] = {}

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
        """List the beginning of the vault."""
        return await probed(
            lambda: self._page(f"/secrets?maxresults={LIMITS.page_items}"),
            lambda: self._calls.identity,
        )

    # Names.

    def encode(self, key: Key) -> str:
        return self._names.encode(key)

    def decode(self, native: str) -> Key | None:
        return self._names.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        return value_problem(op, LIMITS)

    # Reading.

    async def _page(self, path: str) -> tuple[list[Secret], str]:
        """Some secrets, or versions of one, and the path of the next page, "" for the last."""
        answer = await self._calls.call("GET", path)
        if not answer.is_good:
            raise self._calls.error_of(answer)
        found = answer.table()
        entries, link = found.get("value"), found.get("nextLink")
        if not isinstance(entries, list) or not isinstance(link, str | None):
            raise StoreUnavailable("the Key Vault's answer makes no sense: it has no list")
        # Of a link only what is behind the host counts, so no token goes to another one.
        parts = urlsplit(link or "")
        return [
            read_secret(each) for each in entries
        ], f"{parts.path}?{parts.query}" if link else ""

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        path = cursor or f"/secrets?maxresults={LIMITS.page_items}"
        if not path.startswith("/secrets?"):
            raise StoreUnsupported("a listing can't go on there: that is none of its cursors")
        while path:
            found, path = await self._page(path)
            items = [item for each in found if (item := self._listed(each, scope)) is not None]
            yield Page(items, complete=not path and not cursor, cursor=path)

    def _listed(self, secret: Secret, scope: Scope) -> Item | None:
        """The item of an entry; None outside of the scope, and for what is a certificate's."""
        key = self.decode(secret.native)
        if key is None or not scope.holds(key) or secret.is_of_certificate:
            return None
        return secret.item(key)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        found: dict[Key, Item | BackendError] = {}
        failed: list[BackendError] = []
        waiting = iter(keys)

        async def work() -> None:
            for key in waiting:
                if failed:
                    return
                try:
                    found[key] = await self._item(key)
                except BackendError as error:
                    found[key] = error
                    if not error.is_refusal:
                        failed.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(keys), LIMITS.concurrency)):
                group.create_task(work())
        if failed:
            raise failed[0]
        return {key: found[key] for key in keys}

    async def _item(self, key: Key) -> Item:
        secret = await self._look(self.encode(key))
        if secret is None:
            raise ItemNotFound(f"there is no {shown(key)} here")
        if secret.is_of_certificate:
            raise InvalidValue(f"{shown(key)} is the name of a certificate, and no variable")
        return secret.item(key)

    async def _look(self, native: str, number: str = "") -> Secret | None:
        """A secret with its value, None where there is none: the present version, or another."""
        answer = await self._calls.call("GET", f"/secrets/{native}/{number}".rstrip("/"))
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if told_error(answer)[1] == _DISABLED:
            raise Forbidden(
                f"{native} is disabled in the Key Vault, so it can't be read",
                hint="enable it, or delete it, in the vault",
            )
        secret = self._secret(answer, native)
        if secret.value is None:
            raise StoreUnavailable(f"{native}: an answer without a value")
        return secret

    def _secret(self, answer: Answer, native: str) -> Secret:
        if not answer.is_good:
            raise self._calls.error_of(answer)
        secret = read_secret(answer.table())
        if secret.native != native or not secret.number:
            raise StoreUnavailable(f"{native}: an answer about something else")
        return secret

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """One after the other. A repeat is told by the name of the write, and answered as the
        first; what finds the secret as it is to be is a NOOP.

        After an operation that met a vault that does not answer, the others are not tried.
        """
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        outcomes: list[Outcome] = []
        failed: BackendError | None = None
        for op in ops:
            problem = self._problem(op) or failed
            outcome = unsuccessful(op, problem) if problem else await self._do(op, idempotency)
            if isinstance(outcome.error, StoreUnavailable):
                failed = outcome.error
            outcomes.append(outcome)
        return outcomes

    async def _do(self, op: Op, idempotency: str) -> Outcome:
        native = self.encode(op.key)
        try:
            async with self._turns.of(native):
                older = await self._older(op, native)
                seen = await self._look(native)
                if op.verb is Verb.PUT and seen and seen.is_written_by(op, idempotency):
                    return await self._repeated(op, seen)
                done = self._without_writing(op, native, seen)
                if done is not None:
                    return done
                if op.verb is Verb.DELETE and seen is not None:
                    return await self._delete(op, seen)
                return await self._put(op, native, seen, idempotency, older)
        except BackendError as error:
            return unsuccessful(op, error)

    def _without_writing(self, op: Op, native: str, seen: Secret | None) -> Outcome | None:
        """What is known of an operation once the secret is read."""
        if seen is None:
            if op.verb is Verb.DELETE:
                return Outcome(op, Result.NOOP)
            return stale(op, "") if op.expect else None
        if seen.is_of_certificate:
            error = NotOwned(f"{shown(op.key)} is the name of a certificate, so it is others'")
            return unsuccessful(op, error, version=seen.version)
        if op.verb is Verb.PUT and seen.is_so(op):
            return Outcome(op, Result.NOOP, seen.version)
        revived = self._revived.get(native)
        is_revived = not op.expect and revived is not None and revived.number == seen.number
        if op.expect != seen.version and not (op.verb is Verb.PUT and is_revived):
            return stale(op, seen.version)
        if not seen.is_ours and not op.any_owner and not is_revived:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=seen.version)
        return None

    async def _older(self, op: Op, native: str) -> frozenset[str]:
        """The versions that are there before the present one is read, so none came after it.

        Times alone don't tell: what envd overtook is of the same second as envd's own write, and
        would be told of, and in a document written back, once more at the write after that.
        """
        if op.verb is not Verb.PUT or not op.expect:
            return frozenset()
        try:
            return frozenset(each.number for each in await self._versions(native))
        except ItemNotFound:
            return frozenset()

    async def _put(
        self,
        op: Op,
        native: str,
        seen: Secret | None,
        idempotency: str,
        older: frozenset[str],
    ) -> Outcome:
        original = op.key.variable if self._names.is_escaped(native) else ""
        seen = seen or self._revived.get(native)  # It can't be read until it is recovered.

        async def write() -> Answer:
            body = written(op, native, seen, idempotency, original=original)
            if len(body["tags"]) > MAX_TAGS:
                raise InvalidValue(f"{native} has so many tags that envd's own find no room")
            return await self._calls.call("PUT", f"/secrets/{native}", body=body)

        answer = await write()
        if seen is None and told_error(answer)[1] == _DELETED:
            seen = await self._revive(native)
            answer = await write()
        self._refuse(answer, native)
        ours = self._secret(answer, native)
        self._revived.pop(native, None)
        came = [each for each in await self._versions(native) if each.number not in older]
        return await self._checked(op, seen, ours, came)

    def _refuse(self, answer: Answer, native: str) -> None:
        """Raise what an answer to a write means that is not as elsewhere."""
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise InvalidValue(f"the Key Vault does not take the value or the tags of {native}")
        if answer.status != HTTPStatus.CONFLICT:
            return
        if told_error(answer)[1] == _DELETED:
            raise SoftDeleted(
                f"{native} was deleted again, and keeps its name", hint="recover or purge it"
            )
        # Whatever else is under way with a secret is over soon, as these two are.
        raise Throttled(
            f"{native} is just being deleted or recovered in the Key Vault",
            retry_after_s=SETTLING_S,
        )

    async def _revive(self, native: str) -> Secret:
        """Have a deleted secret recovered; Throttled while the store is still busy with it."""
        answer = await self._calls.call("POST", f"/deletedsecrets/{native}/recover")
        self._refuse(answer, native)
        revived = self._secret(answer, native)
        if len(self._revived) >= _MAX_REVIVED:
            self._revived.pop(next(iter(self._revived)))
        self._revived[native] = revived
        return revived

    async def _repeated(self, op: Op, ours: Secret) -> Outcome:
        """What became of a put that is written, and whose look at the others came to nothing."""
        versions = await self._versions(ours.native)
        over = next((each for each in versions if each.number == ours.mark.over), None)
        if over is None and ours.mark.over:
            return Outcome(op, Result.NOOP, ours.version)
        return await self._checked(op, over, ours, versions)

    async def _checked(
        self, op: Op, seen: Secret | None, ours: Secret, versions: list[Secret]
    ) -> Outcome:
        """What became of a put, by the versions that there are afterwards."""
        done = Outcome(op, Result.APPLIED, ours.version)
        others = newer(versions, seen, ours)
        if not others:
            return done
        now = await self._look(ours.native)
        if now is None or now.number != ours.number:
            # The present one came after ours, which is for its writer to tell.
            others = [each for each in others if now is not None and each.number != now.number]
            done = Outcome(op, Result.APPLIED)
        if not others:
            return done
        between = None
        with suppress(BackendError):  # It is written: what it replaced is told where it can be.
            between = await self._look(ours.native, others[-1].number)
        item = None if between is None else between.item(op.key)
        return Outcome(op, Result.APPLIED, done.version, overtaken=True, between=item)

    async def _versions(self, native: str) -> list[Secret]:
        found: list[Secret] = []
        path = f"/secrets/{native}/versions?maxresults={LIMITS.page_items}"
        while path:
            page, path = await self._page(path)
            found += page
        return found

    async def _delete(self, op: Op, seen: Secret) -> Outcome:
        answer = await self._calls.call("DELETE", f"/secrets/{seen.native}")
        if answer.status == HTTPStatus.NOT_FOUND:
            return Outcome(op, Result.NOOP)
        self._refuse(answer, seen.native)
        deleted = self._secret(answer, seen.native)
        return Outcome(op, Result.APPLIED, overtaken=deleted.number != seen.number)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("a Key Vault is asked for changes, again and again")

    def cost(self, load: Load) -> Cost:
        """A change is looked at before, twice, and after; of a secret with more than 25 versions
        two of these take more calls, which a load does not tell."""
        reads = scan_calls(load, LIMITS.page_items) + load.read + _READS_OF_CHANGE * load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


def _place(place: str, usual: str) -> tuple[str, str]:
    """The vault and the path in it; a place that begins with `/` is in the vault of the settings.

    >>> _place("acme-prod/web/prod", "")
    ('acme-prod', 'web/prod')
    """
    vault, _, path = place.partition("/")
    vault = vault or usual
    if not _VAULT.fullmatch(vault):
        raise InvalidName(
            "the place names no Key Vault",
            hint="write VAULT or VAULT/PATH, or /PATH with cloud.providers.azure.key_vault_name",
        )
    return vault, path.rstrip("/")


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "azure-key-vault",
        "secrets of an Azure Key Vault",
        KeyVaultBackend,
        "VAULT[/PATH]",
        extra="azure",
        library="azure.keyvault.secrets",
        settings_section="azure",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
