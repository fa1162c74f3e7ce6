"""Do the rows of a backup fit each other? Asked while one is written, read and restored.

For every environment its revision, the sum over its commits and the digest of both are computed
again under the cluster's digest key and compared with what its record says. So a backup that was
written is known to hold what the node held, and a restore ends with equal revisions or not at
all. Nothing is kept but the environment at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from envd.core import digest
from envd.core.environment import Environment
from envd.core.errors import Corrupt
from envd.core.names import is_system
from envd.core.stamp import STAMP_BYTES, Stamp
from envd.storage.backup_format import Figures
from envd.storage.backup_rows import NodeRow, Row, RowKind, decode_node
from envd.storage.rows import environment_key
from envd.wire import records
from envd.wire.records import StoredEnvironment

_KEY_BYTES = {RowKind.NODE: 0, RowKind.VECTOR: 10, RowKind.OPERATION: 16, RowKind.COMMIT: 20}
_ROW_OVERHEAD_BYTES = 7


@dataclass(slots=True)
class _Open:
    """The environment whose commits are coming."""

    name: bytes
    stored: StoredEnvironment = field(repr=False)
    last_stamp: bytes = b""
    history_sum: int = 0
    history_count: int = 0
    has_base: bool = False


class RowCheck:
    """Takes the rows in order; `figures` and `highest_hlc` are those of what came so far."""

    def __init__(self) -> None:
        self.node: NodeRow | None = None
        self.highest_hlc = 0
        self._open: _Open | None = None
        self._last_kind = 0
        self._last_place = b""
        self._environments = self._variables = self._commits = self._rows = self._bytes = 0

    @property
    def figures(self) -> Figures:
        """What frame F says of these rows."""
        return Figures(
            environments=self._environments,
            variables=self._variables,
            commits=self._commits,
            rows=self._rows,
            row_bytes=self._bytes,
        )

    @property
    def stored(self) -> StoredEnvironment:
        """What the last environment's row holds."""
        assert self._open is not None
        return self._open.stored

    def see(self, row: Row) -> None:
        """Check the next row; raises Corrupt."""
        kind, key, value = row
        self._rows += 1
        self._bytes += _ROW_OVERHEAD_BYTES + len(key) + len(value)
        if len(key) != _KEY_BYTES.get(kind, len(key)) or (kind is RowKind.NODE) != (
            self.node is None
        ):
            raise Corrupt("its rows do not fit each other")
        if kind is RowKind.COMMIT:
            self._commit(key, value)
            return
        if kind is RowKind.BASE:
            self._base(key, value)
            return
        self._close()
        place = self._place(kind, key)
        if (kind, place) <= (self._last_kind, self._last_place):
            raise Corrupt("its rows are out of order")
        self._last_kind, self._last_place = kind, place
        if kind is RowKind.ENVIRONMENT:
            self._environment(key, value)
        elif kind is RowKind.NODE:
            self.node = decode_node(value)
        elif kind is RowKind.OPERATION:
            records.decode_operation(value)
        elif kind is RowKind.CONFLICT:
            records.decode_conflict(value)
        elif len(value) != 8:
            raise Corrupt("one of its vectors has a wrong length")

    def _place(self, kind: RowKind, key: bytes) -> bytes:
        """By this the rows of a kind are in order, and each stands once."""
        if kind is not RowKind.ENVIRONMENT:
            return key
        try:
            return environment_key(key.decode())
        except UnicodeDecodeError:
            raise Corrupt("an environment's name is no text") from None

    def end(self, figures: Figures) -> None:
        """Check that nothing is missing; raises Corrupt."""
        self._close()
        if self.node is None or self.figures != figures:
            raise Corrupt("it holds another number of rows than it says")

    def _environment(self, key: bytes, value: bytes) -> None:
        stored = records.decode_environment(value)
        environment = stored.state.environment
        assert self.node is not None
        if _named(environment) != key:
            raise Corrupt("an environment stands under another name")
        if digest.revision(environment, self.node.digest_key) != stored.state.revision:
            raise Corrupt(f"its environment {environment.name} is not what its revision says")
        self._open = _Open(key, stored)
        if not is_system(environment.name):  # Neither listed nor counted.
            self._environments += environment.exists
            self._variables += environment.live_count()
        self._rise(environment.highest_stamp)

    def _base(self, key: bytes, value: bytes) -> None:
        known = self._open
        base = records.decode_environment(value).state.environment
        if known is None or known.has_base or known.last_stamp or key != known.name:
            raise Corrupt("its rows are out of order")
        if _named(base) != key:
            raise Corrupt("a base stands under another name")
        known.has_base = True
        self._rise(base.highest_stamp)

    def _commit(self, key: bytes, value: bytes) -> None:
        known = self._open
        if known is None or key <= known.last_stamp:
            raise Corrupt("its rows are out of order")
        assert self.node is not None
        known.last_stamp = key
        share = digest.commit_hash(value, self.node.digest_key)
        known.history_sum = digest.history_sum([share], known.history_sum)
        known.history_count += 1
        self._commits += 1
        self._rise(Stamp.from_bytes(key))

    def _close(self) -> None:
        """All of an environment has been seen: does its history fit?"""
        known, self._open = self._open, None
        if known is None:
            return
        assert self.node is not None
        stored = known.stored
        environment, revision = stored.state.environment, stored.state.revision
        expected = (stored.history_sum, stored.history_count)
        full = digest.state_digest(environment, revision, known.history_sum, self.node.digest_key)
        if (known.history_sum, known.history_count) != expected or full != stored.digest:
            raise Corrupt(f"the history of its environment {environment.name} is not whole")

    def _rise(self, stamp: Stamp) -> None:
        self.highest_hlc = max(self.highest_hlc, stamp.hlc)


def _named(environment: Environment) -> bytes:
    return environment.name.encode("utf-8", "surrogatepass")


assert _KEY_BYTES[RowKind.COMMIT] == STAMP_BYTES
