"""The `digitalocean-app` backend: variables of an app of DigitalOcean's App Platform.

They are in the spec of the app (`digitalocean_spec`), of the app as a whole or of one component,
and each of them is an item. A spec is read and written as a whole: all that one `apply` has goes
into one request, and each such request makes a deployment (RESTARTS_TARGET). What is not to be
changed is sent back as it came, the encrypted values of secrets too.

What is secret can't be read back (WRITE_ONLY): its value is whatever the platform made of it, which
changes when somebody sets it anew, so it serves for a version. Other values do show, and are told.

The platform compares nothing and has no version that would show whom a write overtook, so there is
neither CAS nor POSTCHECK: the spec is read right before it is written, and who writes between the
two is overwritten. At least no two writes of this node meet: all that share `Turns` take turns.

There is no SDK to it; the calls are `http_calls`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
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
from envd.backends.digitalocean_settings import CREDENTIALS_HINT, DigitalOceanSettings
from envd.backends.digitalocean_spec import (
    ENCRYPTED,
    AppPlace,
    Spec,
    Variable,
    name_problem,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.http_calls import Answer, HttpCalls, error_of
from envd.backends.naming import Naming, shown
from envd.backends.outcomes import check_batch, priced, probed, stale, unsuccessful, value_problem
from envd.backends.turns import Turns
from envd.threads import finish_in_thread

CAPABILITIES: Final = Capability.WRITE_ONLY | Capability.RESTARTS_TARGET
LIMITS: Final = Limits(
    min_value_bytes=1,
    batch=100,
    get_batch=100,
    # A token has 5,000 calls an hour, and 250 a minute. A deployment takes minutes.
    reads_per_s=1.0,
    writes_per_s=0.1,
    burst=5,
    concurrency=2,
)
PRICES: Final = PriceSheet(
    "digitalocean", "App Platform", "2026-09-20", source="DigitalOcean App Platform Pricing"
)
_STORE: Final = "DigitalOcean"


class AppBackend:
    """The variables of one app, or of one component of it."""

    def __init__(
        self,
        options: Options,
        turns: Turns | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Raise InvalidName or StoreUnsupported for options that can't be.

        `turns` are those of all backends that may write the same app.
        """
        if options.layout != "per-variable":
            raise StoreUnsupported(
                "secrets of an app can't be read back, so they are kept one by one",
                hint="use --layout per-variable",
            )
        if options.below:
            raise InvalidName("an app, or a component of one, holds one environment")
        self._place = AppPlace.of(options.place)
        self._settings = DigitalOceanSettings.of(options)
        self._naming = Naming(options.name_template)
        self._fingerprint = options.fingerprint
        self._environ = environ
        self._turns = Turns() if turns is None else turns  # Nobody waiting: it is empty.
        self._calls = HttpCalls(self._settings.address)
        self._token = ""

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
        self._token = await finish_in_thread(self._settings.token.read, self._environ)
        await self._calls.open()

    async def close(self) -> None:
        self._token = ""
        await self._calls.close()

    async def probe(self) -> Health:
        return await probed(self._read, lambda: f"the token in {self._settings.token}")

    # Names, and what can't be.

    def encode(self, key: Key) -> str:
        native = self._naming.encode(key)
        problem = name_problem(native)
        if problem is not None:
            raise problem
        return native

    def decode(self, native: str) -> Key | None:
        return None if name_problem(native) else self._naming.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        problem = value_problem(op, LIMITS)
        if problem is None and op.verb is Verb.PUT and op.value.startswith(ENCRYPTED):
            return InvalidValue(
                f"the value of {shown(op.key)} begins with {ENCRYPTED}, so App Platform would take "
                "it for one that it has encrypted"
            )
        return problem

    # Reading.

    async def _ask(self, method: str, body: bytes = b"") -> Spec:
        """Read or replace the spec, and return what it is then."""
        if not self._token:
            self._token = await finish_in_thread(self._settings.token.read, self._environ)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        path = f"/v2/apps/{self._place.app}"
        answer = await self._calls.call(method, path, body=body, headers=headers)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._token = ""  # It is looked for anew the next time.
        if answer.status == HTTPStatus.NOT_FOUND:
            # An app that is not there is no app without variables.
            raise StoreUnsupported(f"{_STORE} has no app {self._place.app}, or not for this token")
        if not answer.is_good:
            raise error_of(answer, _STORE)
        return self._spec(answer)

    def _spec(self, answer: Answer) -> Spec:
        app = answer.table().get("app")
        spec: Any = app.get("spec") if isinstance(app, dict) else None
        if not isinstance(app, dict) or app.get("id") != self._place.app:
            raise StoreUnavailable(f"{_STORE} answered about something else than the app")
        if not isinstance(spec, dict) or not spec.get("name"):
            raise StoreUnavailable(f"{_STORE} answered without the spec of the app")
        return Spec(spec, self._place)

    async def _read(self) -> dict[Key, Variable]:
        return self._ours(await self._ask("GET"))

    def _ours(self, spec: Spec) -> dict[Key, Variable]:
        found = {self.decode(name): each for name, each in spec.variables().items()}
        return {key: each for key, each in found.items() if key is not None}

    def _version(self, variable: Variable | None) -> str:
        return "" if variable is None else self._fingerprint(variable.told)

    def _item(self, key: Key, variable: Variable) -> Item:
        return Item(
            key,
            variable.key,
            self._version(variable),
            value=variable.value if variable.is_readable else None,
            secret=variable.is_secret,
        )

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        del cursor
        found = await self._read()
        items = [self._item(key, each) for key, each in found.items() if scope.holds(key)]
        yield Page(items, complete=True)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        found = await self._read() if keys else {}
        return {key: self._answer(key, found.get(key)) for key in keys}

    def _answer(self, key: Key, variable: Variable | None) -> Item | BackendError:
        try:
            native = self.encode(key)
        except InvalidName as error:
            return error
        if variable is None:
            return ItemNotFound(f"{self._place} has no {native}")
        return self._item(key, variable)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """All that can be done goes into one deployment. A repeat is a conflict."""
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        refused = {id(each.op): unsuccessful(each.op, each.error) for each in self.check(ops)}
        rest = [op for op in ops if id(op) not in refused]
        done: dict[int, Outcome] = {}
        if rest:
            async with self._turns.of(self._place.app):
                try:
                    done = await self._change(rest)
                except BackendError as error:
                    done = {id(op): unsuccessful(op, error) for op in rest}
        return [refused.get(id(op)) or done[id(op)] for op in ops]

    async def _change(self, ops: Sequence[Op]) -> dict[int, Outcome]:
        spec = await self._ask("GET")
        outcomes: dict[int, Outcome] = {}
        for op in ops:
            outcome = self._changed(op, spec)
            if outcome is not None:
                outcomes[id(op)] = outcome
        written = [op for op in ops if id(op) not in outcomes]
        if written:
            try:
                now = await self._write(spec, written)
            except BackendError as error:
                outcomes.update({id(op): unsuccessful(op, error) for op in written})
            else:
                outcomes.update({id(op): self._done(op, now) for op in written})
        return outcomes

    def _changed(self, op: Op, spec: Spec) -> Outcome | None:
        """Make one change to the spec; the outcome where there is none to make, or may not be."""
        native = self.encode(op.key)
        variable = spec.variables().get(native)
        version = self._version(variable)
        if op.verb is Verb.DELETE and variable is None:
            return Outcome(op, Result.NOOP)
        if variable is not None and self._is_so(op, variable):
            return Outcome(op, Result.NOOP, version)
        if op.expect != version:
            return stale(op, version)
        try:
            if op.verb is Verb.PUT:
                spec.put(native, op.value, secret=op.secret, scope=self._settings.scope)
            else:
                spec.remove(native)
        except InvalidValue as error:
            return unsuccessful(op, error, version=version)
        return None

    @staticmethod
    def _is_so(op: Op, variable: Variable) -> bool:
        """Whether it is known to be what an operation would make of it; of secrets it is not."""
        is_plain = variable.is_readable and not op.secret
        return op.verb is Verb.PUT and is_plain and variable.value == op.value

    async def _write(self, spec: Spec, ops: Sequence[Op]) -> dict[str, Variable]:
        """Replace the spec; the variables then, secrets as the platform has encrypted them."""
        body = json.dumps({"spec": spec.body}).encode()
        found = (await self._ask("PUT", body)).variables()
        secrets = (found.get(self.encode(op.key)) for op in ops if op.secret)
        if any(each is not None and not each.is_encrypted for each in secrets):
            found = (await self._ask("GET")).variables()
        return found

    def _done(self, op: Op, now: Mapping[str, Variable]) -> Outcome:
        variable = now.get(self.encode(op.key))
        if (variable is None) != (op.verb is Verb.DELETE):
            error = StoreUnavailable(f"{_STORE} answered with something else than was written")
            return unsuccessful(op, error)
        return Outcome(op, Result.APPLIED, self._version(variable))

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("App Platform tells of no changes")

    def cost(self, load: Load) -> Cost:
        """Everything is read with one call, and read once more before a change."""
        reads = load.scans + -(-load.read // LIMITS.get_batch) + load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


def registration() -> Registration:
    """The registration of the backend."""
    turns = Turns()
    return Registration(
        "digitalocean-app",
        "variables of an app of DigitalOcean's App Platform",
        lambda options: AppBackend(options, turns),
        "APP-ID or APP-ID/COMPONENT",
        settings_section="digitalocean",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
