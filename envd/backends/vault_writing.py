"""Puts and deletes in Vault, under the version that was read.

A put is one read and one write with `cas`. Vault compares `cas` with the number of the latest
version, which a deletion does not change: it is 0 for a name that never was, and after a deletion
that of the version which is deleted.

Vault deletes without comparing. So a delete is a compare-and-set as well: it writes a
*gravestone*, a version with no value, over the version that it read, and then softly deletes both.
Whoever writes before that wins, and whoever writes after it under the old version loses. Between
the two calls, and should the second not be made any more, the gravestone says what is so. The name
stays free: the next put goes over it. Nothing is destroyed, so a person gets the value back with

    vault kv undelete -mount=secret -versions=7 envd/web/prod/NAME
    vault kv rollback -mount=secret -version=7 envd/web/prod/NAME
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from envd.backends.contract import Op, Outcome, Result, Verb
from envd.backends.errors import BackendError, NotOwned
from envd.backends.naming import shown
from envd.backends.outcomes import stale, unsuccessful
from envd.backends.vault_client import error_of
from envd.backends.vault_secret import Secret, Shape, gravestone, read_secret, read_written
from envd.backends.vault_session import VaultSession

READS_PER_CHANGE: Final = 1
WRITES_PER_PUT: Final = 1


class VaultSecrets:
    """The secrets of one mount, by their paths in it."""

    def __init__(self, session: VaultSession, mount: str, shape: Shape) -> None:
        self._session = session
        self._mount = mount
        self._shape = shape

    async def read(self, path: str) -> Secret:
        """The secret as it is now."""

        def ask(vault: Any) -> Any:
            return vault.secrets.kv.v2.read_secret_version(
                path, mount_point=self._mount, raise_on_deleted_version=True
            )

        return read_secret(await self._session.ask(ask))

    async def names(self, folder: str) -> list[str]:
        """What is in a folder, in order; names that end with `/` are folders in it."""

        def ask(vault: Any) -> Any:
            return vault.secrets.kv.v2.list_secrets(folder, mount_point=self._mount)

        answer = await self._session.ask(ask)
        if answer.is_absent:
            return []
        keys = answer.data.get("keys")
        if not answer.is_good or not isinstance(keys, list):
            raise error_of(answer)
        return sorted(map(str, keys))

    async def do(self, op: Op, path: str) -> Outcome:
        """Do one operation; it does not raise."""
        try:
            secret = await self.read(path)
            done = self._without_writing(op, secret)
            if done is not None:
                return done
            if op.verb is Verb.PUT:
                written = await self._write(path, secret, self._shape.written(op, secret))
                return Outcome(op, Result.APPLIED, written.version)
            return await self._delete(op, path, secret)
        except BackendError as error:
            return unsuccessful(op, error)

    def _without_writing(self, op: Op, secret: Secret) -> Outcome | None:
        """What is known of an operation once the secret is read."""
        is_there = secret.data is not None
        if op.verb is Verb.DELETE and not is_there:
            return Outcome(op, Result.NOOP, secret.version)
        if op.verb is Verb.PUT and is_there and self._shape.is_so(op, secret):
            return Outcome(op, Result.NOOP, secret.version)
        problem = self._shape.intrusion(op, secret)
        if problem is not None:
            return unsuccessful(op, problem, version=secret.version)
        if op.expect != secret.version and not (op.expect == "" and not is_there):
            return stale(op, secret.version if is_there else "")
        if is_there and secret.mark is None and not op.any_owner:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=secret.version)
        return None

    async def _write(self, path: str, over: Secret, data: Mapping[str, object]) -> Secret:
        """Write the version after `over`; raises StaleVersion where there is another one."""

        def ask(vault: Any) -> Any:
            return vault.secrets.kv.v2.create_or_update_secret(
                path, secret=data, cas=over.number, mount_point=self._mount
            )

        answer = await self._session.ask(ask)
        if not answer.is_good:
            raise error_of(answer)
        return read_written(answer, data)

    async def _delete(self, op: Op, path: str, secret: Secret) -> Outcome:
        left = self._shape.left(secret)
        if left:
            kept = await self._write(path, secret, left)
            return Outcome(op, Result.APPLIED, kept.version)
        grave = await self._write(path, secret, gravestone(secret))
        versions = [secret.number, grave.number]

        def ask(vault: Any) -> Any:
            return vault.secrets.kv.v2.delete_secret_versions(
                path, versions, mount_point=self._mount
            )

        try:
            answer = await self._session.ask(ask)
            problem = None if answer.is_good else error_of(answer)
        except BackendError as error:
            problem = error
        if problem is not None:
            # It is deleted to everybody but who asks for its old versions.
            return Outcome(op, Result.FAILED, grave.version, problem)
        return Outcome(op, Result.APPLIED)
