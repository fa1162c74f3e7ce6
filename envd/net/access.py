"""How the shells learn who calls."""

from __future__ import annotations

from typing import Protocol

from envd.core.answers import Identity
from envd.core.errors import Unauthenticated

_SCHEME = "bearer"


class Access(Protocol):
    """Tells identities by what they prove; it decides, and fails closed."""

    def by_token(self, token: str) -> Identity:
        """The identity of a bearer token, "" where none came. Raises Unauthenticated."""
        ...

    def by_peer(self, uid: int) -> Identity:
        """The identity of a process on this machine by its uid. Raises Unauthenticated."""
        ...


def bearer_token(authorization: str) -> str:
    """The token in the value of an Authorization header; raises Unauthenticated for another scheme.

    Example: bearer_token("Bearer abc") is "abc".
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != _SCHEME:
        raise Unauthenticated(
            "the authorization is no bearer token",
            hint="send it as: Authorization: Bearer TOKEN",
            reason="TOKEN_NEEDED",
        )
    return token.strip()
