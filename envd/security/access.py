"""Who is let in on this machine: the holder of the admin token, and the daemon's own user.

The start that creates a node writes the token to `<data-dir>/admin.token` (0600); the Unix
socket knows its peer from the kernel (SO_PEERCRED). With `--insecure` everybody is let in.
"""

from __future__ import annotations

import base64
import hmac
import stat
from hashlib import sha256
from pathlib import Path

from envd.core.answers import Identity
from envd.core.errors import KeyFileError, Unauthenticated
from envd.files import write_private
from envd.ports import Rng

TOKEN_PREFIX = "envd_admin_"  # noqa: S105 - the public part of a token
_TOKEN_BYTES = 30


def new_admin_token(rng: Rng) -> str:
    """240 random bits behind a prefix by which scanners tell what it is."""
    return TOKEN_PREFIX + base64.b32encode(rng.token_bytes(_TOKEN_BYTES)).decode().lower()


def write_admin_token(path: Path, token: str) -> None:
    """Write the token file, mode 0600."""
    write_private(path, token.encode() + b"\n")


def read_admin_token(path: Path) -> str:
    """The token in the file, "" where there is none; raises KeyFileError where it is exposed."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(
            f"the token file {path} can't be read: {type(error).__name__}",
            hint="remove it and set security.admin_token, or put the right one back",
        ) from error
    if mode & 0o077:
        raise KeyFileError(
            f"the token file {path} is open to other users (mode {mode:04o})",
            hint=f"chmod 600 {path}; who may have read it is an admin: consider a new token",
            reason="TOKEN_FILE_EXPOSED",
        )
    return token


class LocalAccess:
    """Tells identities apart by token and by the peer's uid; holds the token's hash only."""

    def __init__(self, admin_token: str, own_uid: int, *, insecure: bool) -> None:
        self._token_hash = _hash(admin_token) if admin_token else None
        self._own_uid = own_uid
        self._insecure = insecure

    def by_token(self, token: str) -> Identity:
        """The identity of a bearer token; "" is no token. Raises Unauthenticated."""
        known = self._token_hash
        if known is not None and token and hmac.compare_digest(known, _hash(token)):
            return Identity("admin", "token")
        if self._insecure:
            return Identity("anyone", "insecure")
        if not token:
            raise Unauthenticated(
                "a token is needed",
                hint="use --token or ENVD_TOKEN; the one of this node is in "
                "admin.token in its data directory",
                reason="TOKEN_NEEDED",
            )
        raise Unauthenticated(
            "the token is not valid here",
            hint="use the one in admin.token in the node's data directory",
            reason="TOKEN_INVALID",
        )

    def by_peer(self, uid: int) -> Identity:
        """The identity of a process on this machine by its uid. Raises Unauthenticated."""
        if uid in {self._own_uid, 0}:
            return Identity(f"uid:{uid}", "socket")
        if self._insecure:
            return Identity(f"uid:{uid}", "insecure")
        raise Unauthenticated(
            f"user {uid} may not use this socket without a token",
            hint="use --token, or run as the user that runs envd",
            reason="TOKEN_NEEDED",
        )


class AllowAll:
    """The Authorizer of a node whose identities are all administrators."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        return

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        return True


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
