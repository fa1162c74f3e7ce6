"""What the SDK for Google Cloud raises, told in the words of the contract.

What Google writes of an error may quote the request, and the SDK keeps the whole call with it. So
nothing of an error's text is kept, and no error of the SDK is the cause or context of one of ours:
only its status, the reason that Google gives (both are names), and how long to wait are taken over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    ItemNotFound,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)

Meanings = Mapping[str, type[BackendError]]
"""Errors by the name of the status that Google answers, such as FAILED_PRECONDITION."""

_STATUSES: Final[Meanings] = MappingProxyType(
    {
        "NOT_FOUND": ItemNotFound,
        "ALREADY_EXISTS": StaleVersion,
        "PERMISSION_DENIED": Forbidden,
        "UNAUTHENTICATED": AuthExpired,
        "RESOURCE_EXHAUSTED": Throttled,
        "FAILED_PRECONDITION": StoreUnsupported,
        "INVALID_ARGUMENT": StoreUnsupported,
        "OUT_OF_RANGE": StoreUnsupported,
        "UNIMPLEMENTED": StoreUnsupported,
    }
)
"""Any other status is no answer: nobody knows what was done."""

_RAISED: Final[Meanings] = MappingProxyType(
    {
        "DefaultCredentialsError": Forbidden,
        "RefreshError": AuthExpired,
        "MalformedError": StoreUnsupported,
        "InvalidValue": StoreUnsupported,
    }
)
"""What the library for credentials raises, by the name of the class."""

_NO_TOKEN: Final = "Getting metadata from plugin failed"  # noqa: S105 - no token
"""What gRPC says where no token could be got; it calls the status UNAVAILABLE."""

_HINTS: Final = MappingProxyType(
    {
        "DefaultCredentialsError": "give the binding credentials, or the node an account",
        "RefreshError": "look whether the account may still be used, and the clock is right",
        "SERVICE_DISABLED": "enable the API in the project: gcloud services enable",
        "BILLING_DISABLED": "the project has no billing account",
        "CONSUMER_INVALID": "look whether there is such a project",
        "PERMISSION_DENIED": "see docs/backends-gcp.md for the role that envd needs",
    }
)
_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,62}")
_MAX_WAIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What became of a call that failed, without anything of its text."""

    kind: type[BackendError]
    code: str
    hint: str = ""
    retry_after_s: float = 0.0

    def error(self, doing: str) -> BackendError:
        """The error of doing something. Example: `GetSecret of envd-web: PERMISSION_DENIED`."""
        message = f"{doing}: {self.code}"
        if issubclass(self.kind, Throttled):
            return self.kind(message, hint=self.hint, retry_after_s=self.retry_after_s)
        return self.kind(message, hint=self.hint)


def problem_of(error: Exception, meanings: Meanings = MappingProxyType({})) -> Problem:
    """Tell what an error of the SDK means; `meanings` is for statuses that mean another thing here.

    What is not known at all is no answer: nobody knows what was done.
    """
    status = getattr(getattr(error, "grpc_status_code", None), "name", "")
    if status:
        return _answered(error, str(status), meanings)
    for kind in type(error).__mro__:
        if kind.__name__ in _RAISED:
            name = kind.__name__
            return Problem(_RAISED[name], name, _HINTS.get(name, ""))
    return Problem(StoreUnavailable, type(error).__name__)


def _answered(error: Exception, status: str, meanings: Meanings) -> Problem:
    if status == "UNAVAILABLE" and _NO_TOKEN in str(getattr(error, "message", "")):
        return Problem(AuthExpired, "no token could be got", _HINTS["RefreshError"])
    kind = meanings.get(status) or _STATUSES.get(status) or StoreUnavailable
    reason = str(getattr(error, "reason", None) or "")
    told = f"{status} {reason}" if _NAME.fullmatch(reason) else status
    hint = _HINTS.get(reason, "") or _HINTS.get(status, "")
    return Problem(kind, told, hint, _wait_s(getattr(error, "details", None)))


def _wait_s(details: Any) -> float:
    """What the `RetryInfo` of an answer says, in seconds; 0 where there is none."""
    for each in details if isinstance(details, list) else []:
        delay = getattr(each, "retry_delay", None)
        if delay is not None:
            return float(min(max(0.0, delay.seconds + delay.nanos / 1e9), _MAX_WAIT_S))
    return 0.0
