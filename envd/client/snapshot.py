"""The sealed copy of an environment that a program starts from while no node answers.

One file for each environment of each context (the servers it came from), in
`$XDG_CACHE_HOME/envd/snapshots/` (default `~/.cache`), mode 0600 in a directory of mode 0700,
written atomically. It holds the state as the client saw it (resolved, with the flags and
sources of its variables) and when it was saved. It is good for seven days from then on.

The state is sealed with AES-256-GCM under a random key of that file, and the key is wrapped
by one that HKDF-SHA256 (RFC 5869) derives from the token: who has the file and not the
token reads nothing. Tokens of envd are at least 192 bits of chance, so no slow derivation is
needed. `renew` wraps the same key again for a new token. Without a token a key file of mode
0600 beside the snapshots stands for it.

    offset  bytes
         0      8  "ENVDSNAP"
         8      1  version, 1
         9      1  what wraps the key: 0 the key file, 1 a token
        10     16  salt of the derivation
        26      8  check of the credential: tells another one from a damaged file
        34     12  nonce of the key
        46     48  the key, wrapped
        94     12  nonce of the state
       106      n  the state, sealed: JSON {"saved_at_ms": N, "state": {...}}

The context and the environment are bound to both seals, so a file that was moved or renamed
does not open. All here is blocking file work; call it in a thread where that matters.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from envd.core.answers import EnvironmentView
from envd.core.errors import SnapshotError
from envd.files import write_private
from envd.wire import plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_AGE_MS: Final = 7 * 24 * 3600 * 1000
"""After so long a snapshot is refused: what was revoked meanwhile must come to an end."""

_MAGIC: Final = b"ENVDSNAP"
_VERSION: Final = 1
_BY_KEY_FILE, _BY_TOKEN = 0, 1
_SALT, _CHECK, _NONCE, _KEY, _TAG = 16, 8, 12, 32, 16
_HEADER_BYTES: Final = 106
_MAX_BYTES: Final = 256 << 20
_MAX_AHEAD_MS: Final = 3600 * 1000
_KEY_FILE: Final = "key"
_REFRESH: Final = "it is written again as soon as a node answers"
RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state and when it was saved, in milliseconds since 1970."""

    state: EnvironmentView
    saved_at_ms: int

    def age_s(self, now_ms: int) -> float:
        """How old it is, in seconds."""
        return max(0, now_ms - self.saved_at_ms) / 1000


def directory(environ: Mapping[str, str]) -> Path:
    """Where snapshots of this user lie; raises SnapshotError where there is no home."""
    cache = Path(environ.get("XDG_CACHE_HOME", "").strip())
    if not cache.is_absolute():  # XDG: a relative path is to be ignored
        home = environ.get("HOME", "").strip()
        if not home:
            raise SnapshotError(
                "there is no place for snapshots: neither XDG_CACHE_HOME nor HOME is set",
                reason="SNAPSHOT_NO_PLACE",
            )
        cache = Path(home, ".cache")
    return cache / "envd" / "snapshots"


def context_of(addresses: Sequence[str], *, resolve: bool = True, reveal: bool = True) -> str:
    """The name under which what these servers tell is kept, whatever their order.

    What is not resolved or not revealed is kept apart.
    """
    marks = ("" if resolve else "#own") + ("" if reveal else "#masked")
    return ",".join(sorted(addresses)) + marks


def save(
    folder: Path,
    context: str,
    state: EnvironmentView,
    *,
    token: str = "",
    now_ms: int,
    random_bytes: RandomBytes = os.urandom,
) -> Path:
    """Write the snapshot of one environment; return its file. Raises OSError.

    `now_ms` is wall time in milliseconds. An old snapshot of it is replaced.
    """
    _make(folder)
    place = _place(context, state.environment)
    credential = _credential(folder, token, random_bytes)
    key = random_bytes(_KEY)
    body = json.dumps(
        {"saved_at_ms": now_ms, "state": plain.to_plain(state)},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    header = _wrapped(credential, key, place, random_bytes)
    nonce = random_bytes(_NONCE)
    sealed = _cipher(key).encrypt(nonce, body, _aad("state", place))
    path = folder / _file_name(place)
    write_private(path, header + nonce + sealed)
    return path


def load(folder: Path, context: str, environment: str, *, token: str = "", now_ms: int) -> Snapshot:
    """Read the snapshot of one environment.

    Raises SnapshotError, whose reason says why: SNAPSHOT_MISSING, SNAPSHOT_EXPIRED,
    SNAPSHOT_CREDENTIAL (it was sealed for another token), SNAPSHOT_VERSION (another version
    of envd wrote it) or SNAPSHOT_DAMAGED (it is not what was written).
    """
    place = _place(context, environment)
    raw = _read(folder / _file_name(place), environment)
    key = _unwrapped(raw, _credential(folder, token, None), place, environment)
    nonce = raw[_HEADER_BYTES - _NONCE : _HEADER_BYTES]
    body = _opened(key, nonce, raw[_HEADER_BYTES:], _aad("state", place), environment)
    document = json.loads(body)
    saved_at_ms = int(document["saved_at_ms"])
    if now_ms - saved_at_ms > MAX_AGE_MS or saved_at_ms - now_ms > _MAX_AHEAD_MS:
        ahead = saved_at_ms > now_ms
        raise SnapshotError(
            f"the snapshot of {environment} is "
            + ("from the future" if ahead else "older than seven days"),
            hint="see to this machine's clock" if ahead else _REFRESH,
            reason="SNAPSHOT_EXPIRED",
        )
    return Snapshot(plain.environment_view(document["state"]), saved_at_ms)


def forget(folder: Path, context: str, environment: str) -> None:
    """Remove the snapshot of one environment, if there is one. Raises OSError."""
    (folder / _file_name(_place(context, environment))).unlink(missing_ok=True)


def renew(
    folder: Path, *, old: str, new: str, random_bytes: RandomBytes = os.urandom
) -> Sequence[Path]:
    """Wrap the keys of all snapshots of the token `old` for the token `new`; "" is the key file.

    Returns the files that were; others, and damaged ones, stay as they are. Raises OSError.
    """
    renewed: list[Path] = []
    if not folder.is_dir():
        return renewed
    before = _credential(folder, old, None)
    after = _credential(folder, new, random_bytes)
    for path in sorted(folder.glob("*.snapshot")):
        with suppress(SnapshotError, ValueError):  # ValueError: not a name of ours
            place = bytes.fromhex(path.stem)
            raw = _read(path, path.stem)
            key = _unwrapped(raw, before, place, path.stem)
            header = _wrapped(after, key, place, random_bytes)
            write_private(path, header + raw[len(header) :])
            renewed.append(path)
    return renewed


# -- the credential ----------------------------------------------------------------


class _Credential(NamedTuple):
    kind: int
    secret: bytes

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"_Credential(kind={self.kind})"

    def derived(self, salt: bytes) -> tuple[bytes, bytes]:
        """The key that wraps, and the check of the credential."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = b"envd snapshot 1 " + bytes([self.kind])
        both = HKDF(SHA256(), _KEY + _CHECK, salt, info).derive(self.secret)
        return both[:_KEY], both[_KEY:]


def _credential(folder: Path, token: str, random_bytes: RandomBytes | None) -> _Credential:
    """The token, else the key file, which is made where `random_bytes` is given."""
    if token:
        return _Credential(_BY_TOKEN, token.encode())
    path = folder / _KEY_FILE
    if random_bytes is not None:
        with suppress(FileExistsError):
            write_private(path, random_bytes(_KEY), replace=False)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            secret = file.read(_KEY + 1)
    except FileNotFoundError:
        return _Credential(_BY_KEY_FILE, b"")
    except OSError as error:
        raise SnapshotError(
            f"the key file {path} can't be read: {error.strerror}",
            hint="see to that file",
            reason="SNAPSHOT_KEY_FILE",
        ) from error
    is_others = status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077
    if is_others or len(secret) != _KEY:
        raise SnapshotError(
            f"the key file {path} is open to others, or theirs, or is none",
            hint=f"remove the directory {folder}; {_REFRESH}",
            reason="SNAPSHOT_KEY_FILE",
        )
    return _Credential(_BY_KEY_FILE, secret)


def _wrapped(credential: _Credential, key: bytes, place: bytes, random_bytes: RandomBytes) -> bytes:
    """The file up to the nonce of the state."""
    salt = random_bytes(_SALT)
    wrapping, check = credential.derived(salt)
    nonce = random_bytes(_NONCE)
    wrapped = _cipher(wrapping).encrypt(nonce, key, _aad("key", place))
    return b"".join((_MAGIC, bytes([_VERSION, credential.kind]), salt, check, nonce, wrapped))


def _unwrapped(raw: bytes, credential: _Credential, place: bytes, environment: str) -> bytes:
    """The key of the state of a file."""
    at = len(_MAGIC) + 2
    salt, at = raw[at : at + _SALT], at + _SALT
    check, at = raw[at : at + _CHECK], at + _CHECK
    wrapping, expected = credential.derived(salt)
    if raw[len(_MAGIC) + 1] != credential.kind or check != expected:
        raise SnapshotError(
            f"the snapshot of {environment} was sealed for another token than this one",
            hint=f"use the token that it was made with; {_REFRESH}",
            reason="SNAPSHOT_CREDENTIAL",
        )
    nonce, at = raw[at : at + _NONCE], at + _NONCE
    return _opened(wrapping, nonce, raw[at : at + _KEY + _TAG], _aad("key", place), environment)


# -- files and seals ---------------------------------------------------------------


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def _read(path: Path, environment: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise SnapshotError(
            f"there is no snapshot of {environment}",
            hint="one is written as soon as a node has answered once",
            reason="SNAPSHOT_MISSING",
        ) from None
    except OSError as error:
        raise SnapshotError(
            f"the snapshot of {environment} can't be read: {error.strerror}",
            hint=f"see to the file {path}",
            reason="SNAPSHOT_UNREADABLE",
        ) from error
    if raw.startswith(_MAGIC) and len(raw) > len(_MAGIC) and raw[len(_MAGIC)] != _VERSION:
        raise SnapshotError(
            f"the snapshot of {environment} is of another version of envd",
            hint=_REFRESH,
            reason="SNAPSHOT_VERSION",
        )
    if not raw.startswith(_MAGIC) or not _HEADER_BYTES < len(raw) <= _MAX_BYTES:
        raise _damaged(environment)
    return raw


def _opened(key: bytes, nonce: bytes, sealed: bytes, aad: bytes, environment: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return _cipher(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise _damaged(environment) from None


def _damaged(environment: str) -> SnapshotError:
    return SnapshotError(
        f"the snapshot of {environment} is damaged: it is not what was written",
        hint=_REFRESH,
        reason="SNAPSHOT_DAMAGED",
    )


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _place(context: str, environment: str) -> bytes:
    """What a file is of, in 16 bytes."""
    return blake2b(f"{context}\0{environment}".encode(), digest_size=16).digest()


def _file_name(place: bytes) -> str:
    return f"{place.hex()}.snapshot"


def _aad(what: str, place: bytes) -> bytes:
    return f"envd snapshot {_VERSION} {what}\0".encode() + place
