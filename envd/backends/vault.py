"""The `vault` backend: HashiCorp Vault and OpenBao, key-value secrets of version 2.

An item is a secret for each variable, at PLACE/VARIABLE, or one for each environment with the
variables in it. A binding of one environment with layout "document" has the secret PLACE itself;
with a prefix bound, that of the prefix itself is PLACE/_.

CAS             `cas`, with a read before it; a delete too (see `vault_writing`)
STAMP_ATOMIC    in the data, under `_envd`
SOFT_DELETE     what is deleted can be undeleted, and its name can be written again
LIST_VALUES     Vault lists names alone. The stamp lies in the data, so a scan reads each secret,
                and so has its value: a call for each, and one for each folder
no WATCH        Vault tells of changes in its Enterprise edition only

A version is the number that Vault gives and the time at which it was made, since a secret that is
removed with its metadata begins at 1 again. What is deleted and still listed costs a call as well.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
    SoftDeleted,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.naming import ROOT, Naming, shown
from envd.backends.outcomes import check_batch, priced, rejected, unsuccessful, value_problem
from envd.backends.vault_client import VaultClient, error_of
from envd.backends.vault_secret import DocumentShape, Secret, Shape, VariableShape
from envd.backends.vault_session import VaultSession
from envd.backends.vault_settings import CREDENTIALS_HINT, path_of, read_settings
from envd.backends.vault_writing import READS_PER_CHANGE, WRITES_PER_PUT, VaultSecrets

CAPABILITIES: Final = (
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.SOFT_DELETE | Capability.LIST_VALUES
)
LIMITS: Final = Limits(
    max_value_bytes=512 << 10,
    max_name_bytes=512,
    page_items=40,
    batch=40,
    get_batch=40,
    concurrency=4,
)
"""Half of the 1 MiB that an entry of Vault's storage takes, for escapes. Consul, as a storage,
takes 512 KiB and names of 512 bytes. How fast a Vault may be asked its operators say (quotas)."""
PRICES: Final = PriceSheet(
    "self-hosted",
    "Vault",
    "2026-11-30",
    source="no fee: what the machines cost that it runs on is not counted",
)
MAX_FOLDERS: Final = 10_000
MAX_NAMES: Final = 200_000
"""A place that has more is not listed to its end: something else lives there."""


class VaultBackend:
    """One place in one key-value store of a Vault."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`environ` has the credentials, `clock` is a steady one (s). Raises StoreUnsupported or
        InvalidName for options that can't be."""
        self._settings = read_settings(options)
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        self._is_one = options.layout == "document" and not options.below
        self._walks = options.below or "/" in options.name_template
        self._shape: Shape = DocumentShape() if options.layout == "document" else VariableShape()
        self._environ = environ
        self._clock = clock
        self._client: VaultClient | None = None
        self._session: VaultSession | None = None
        if self._is_one:
            path_of(self._path(self.encode(Key("", ""))), "the place")

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
        """Log in, and see whether the mount is a key-value store of version 2.

        In one of version 1 a scan would find nothing, and writes go to other paths.
        """
        await self.close()
        address = (
            self._settings.address
            or self._environ.get("VAULT_ADDR", "")
            or self._environ.get("BAO_ADDR", "")
        )
        if not address:
            raise StoreUnsupported(
                "nobody has said where Vault is", hint="set cloud.providers.vault.address"
            )
        client = VaultClient(self._settings, address.rstrip("/"), concurrency=LIMITS.concurrency)
        session = VaultSession(client, self._settings, self._environ, self._clock)
        self._client, self._session = client, session
        await session.begin()
        await self._check_mount(session)

    async def _check_mount(self, session: VaultSession) -> None:
        mount = self._settings.mount

        def ask(vault: Any) -> Any:
            return vault.adapter.get(f"/v1/sys/internal/ui/mounts/{mount}")

        answer = await session.ask(ask)
        if not answer.is_good:
            raise error_of(answer)
        options = answer.data.get("options")
        version = options.get("version") if isinstance(options, dict) else None
        if answer.data.get("type") != "kv" or version != "2":
            raise StoreUnsupported(
                f"what is mounted at {mount} is no key-value store of version 2",
                hint="set cloud.providers.vault.mount, or: vault kv enable-versioning",
            )

    async def close(self) -> None:
        client, self._client, self._session = self._client, None, None
        if client is not None:
            client.close()

    async def probe(self) -> Health:
        """List the place, or read it where it is one secret."""
        began_s = self._clock()
        identity = self._session.identity if self._session is not None else ""
        try:
            if self._is_one:
                await self._secrets.read(self._path(ROOT))
            else:
                await self._secrets.names(self._path(""))
        except BackendError as error:
            return Health(False, identity=identity, detail=error.message, hint=error.hint)
        return Health(True, (self._clock() - began_s) * 1000, identity)

    @property
    def _secrets(self) -> VaultSecrets:
        if self._session is None:
            raise StoreUnavailable("the backend is not open")
        return VaultSecrets(self._session, self._settings.mount, self._shape)

    # Names.

    def encode(self, key: Key) -> str:
        """The path below the place; in a document without a prefix, ROOT for the place itself."""
        native = self._naming.encode(key)
        path_of(native, f"the name of {shown(key)}")
        size = len(native.encode())
        if native.startswith("/") or native.endswith("/") or size > LIMITS.max_name_bytes:
            raise InvalidName(
                f"the name of {shown(key)} begins or ends with a slash, or is longer than "
                f"{LIMITS.max_name_bytes} bytes"
            )
        return native

    def decode(self, native: str) -> Key | None:
        key = self._naming.decode(native)
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def _path(self, native: str) -> str:
        """The path in the mount."""
        if self._is_one and native == ROOT:
            return self._settings.place
        return "/".join(each for each in (self._settings.place, native) if each)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        if op.verb is Verb.DELETE:
            return None
        return value_problem(op, LIMITS) or self._shape.problem(op)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """All names first, then their secrets by the page. There are no cursors."""
        secrets = self._secrets
        keys = [Key("", "")] if self._is_one else await self._keys(secrets)
        wanted = [key for key in keys if scope.holds(key)]
        for start in range(0, max(1, len(wanted)), LIMITS.page_items):
            page = wanted[start : start + LIMITS.page_items]
            is_last = start + LIMITS.page_items >= len(wanted)
            found = await self._read(secrets, page, hardy=False)
            items = [
                self._item(key, secret)
                for key, secret in found.items()
                if isinstance(secret, Secret) and secret.number
            ]
            yield Page(items, complete=is_last and not cursor)

    async def _keys(self, secrets: VaultSecrets) -> list[Key]:
        """The keys that have names at the place, folder by folder."""
        folders = [""]
        keys: list[Key] = []
        for folder in folders:  # It grows meanwhile.
            names = await secrets.names(self._path(folder.rstrip("/")))
            if self._walks:
                folders += [f"{folder}{each}" for each in names if each.endswith("/")]
            leaves = (self.decode(f"{folder}{each}") for each in names if not each.endswith("/"))
            keys += [key for key in leaves if key is not None]
            if len(folders) > MAX_FOLDERS or len(keys) > MAX_NAMES:
                raise StoreUnavailable(
                    f"the place has over {MAX_FOLDERS:,} folders or {MAX_NAMES:,} names, so it was "
                    "not listed to its end",
                    hint="bind a place that holds nothing else",
                )
        return keys

    async def _read(
        self, secrets: VaultSecrets, keys: Sequence[Key], *, hardy: bool
    ) -> dict[Key, Secret | BackendError]:
        """Read these, several at once. An error that the next call would meet as well is raised;
        with `hardy` one of a single name is its answer."""
        found: dict[Key, Secret | BackendError] = {}
        waiting = iter(keys)
        failed: list[BackendError] = []

        async def work() -> None:
            for key in waiting:
                if failed:
                    return
                try:
                    found[key] = await secrets.read(self._path(self.encode(key)))
                except BackendError as error:
                    if not hardy or not error.is_refusal:
                        failed.append(error)
                    found[key] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(keys), LIMITS.concurrency)):
                group.create_task(work())
        if failed:
            raise failed[0]
        return {key: found[key] for key in keys}

    def _item(self, key: Key, secret: Secret) -> Item:
        return Item(
            key,
            self.encode(key),
            secret.version,
            value=self._shape.value(secret),
            secret=self._shape.secrecy(secret),
            managed=None if secret.is_deleted else secret.mark is not None,
            stamp=secret.stamp,
            changed_ms=secret.made_ms,
            deleted=secret.is_deleted,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        found = await self._read(self._secrets, keys, hardy=True)
        return {key: self._answer(key, each) for key, each in found.items()}

    def _answer(self, key: Key, found: Secret | BackendError) -> Item | BackendError:
        if isinstance(found, BackendError):
            return found
        if not found.number:
            return ItemNotFound(f"there is no {shown(key)} here")
        if found.is_deleted:
            return SoftDeleted(f"{shown(key)} is deleted, and can be undeleted")
        if self._shape.value(found) is None:
            return InvalidValue(f"{shown(key)} is a secret that holds no variable")
        return self._item(key, found)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """One after the other. A repeat finds everything as it is to be, and is a NOOP.

        After an operation that met a Vault that does not answer, the others are not tried.
        """
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
            secrets = self._secrets
        except BackendError as error:
            return [unsuccessful(op, error) for op in ops]
        refused = rejected(list(ops), self.check(ops))
        outcomes: list[Outcome] = []
        failed: BackendError | None = None
        for at, op in enumerate(ops):
            outcome = refused.get(at)
            if outcome is None and failed is not None:
                outcome = unsuccessful(op, failed)
            elif outcome is None:
                outcome = await secrets.do(op, self._path(self.encode(op.key)))
                if outcome.result is Result.FAILED and not _is_refusal(outcome.error):
                    failed = outcome.error
            outcomes.append(outcome)
        return outcomes

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Raises StoreUnsupported: open editions of Vault tell of no changes."""
        if Capability.WATCH not in CAPABILITIES:
            raise StoreUnsupported("vault tells of no changes; it is looked at again and again")
        yield Hint()

    def cost(self, load: Load) -> Cost:
        """A scan reads each secret after one list; with a prefix there is one more for each folder
        below, which a load does not tell. A put is a read and a write; a delete has one more."""
        per_scan = 1 if self._is_one else 1 + load.items
        reads = load.scans * per_scan + load.read + load.changed * READS_PER_CHANGE
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed * WRITES_PER_PUT)


def _is_refusal(error: BackendError | None) -> bool:
    return error is not None and error.is_refusal


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "vault",
        "HashiCorp Vault and OpenBao: key-value secrets of version 2",
        VaultBackend,
        "PATH or /PATH",
        extra="vault",
        library="hvac",
        settings_section="vault",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
