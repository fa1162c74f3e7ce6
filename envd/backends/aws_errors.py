"""What the SDK for AWS raises, told in the words of the contract.

What AWS writes of an error may quote the value that it did not like (`Value '...' at 'value' failed
to satisfy constraint`), and so may the SDK before any call. So nothing of an error's text is kept,
and no error of the SDK is the cause or context of one of ours: only its code, which is a name, and
how long to wait are taken over.
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
    InvalidName,
    InvalidValue,
    ItemNotFound,
    QuotaExceeded,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)

Meanings = Mapping[str, type[BackendError]]
"""Errors by the code that AWS answers."""

THROTTLING: Final = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "TooManyUpdates",
    "PriorRequestNotComplete",
)
"""TooManyUpdates: another write of the same parameter is not done yet."""

_CODES: Final[Meanings] = MappingProxyType(
    {
        **dict.fromkeys(THROTTLING, Throttled),
        **dict.fromkeys(
            ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
            AuthExpired,
        ),
        **dict.fromkeys(
            (
                "AccessDenied",
                "AccessDeniedException",
                "UnauthorizedOperation",
                "UnrecognizedClientException",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "SignatureDoesNotMatch",
                "MissingAuthenticationToken",
                "MissingAuthenticationTokenException",
                "IncompleteSignature",
                "OptInRequired",
                "InvalidKeyId",
                "DecryptionFailure",
                "EncryptionFailure",
                "KMSAccessDeniedException",
                "KMSInvalidStateException",
            ),
            Forbidden,
        ),
        **dict.fromkeys(
            (
                "ParameterNotFound",
                "ParameterVersionNotFound",
                "ResourceNotFoundException",
                "InvalidResourceId",
            ),
            ItemNotFound,
        ),
        **dict.fromkeys(("ParameterAlreadyExists", "ResourceExistsException"), StaleVersion),
        **dict.fromkeys(
            (
                "ParameterLimitExceeded",
                "ParameterMaxVersionLimitExceeded",
                "LimitExceededException",
            ),
            QuotaExceeded,
        ),
        **dict.fromkeys(
            (
                "ParameterPatternMismatchException",
                "HierarchyTypeMismatchException",
                "UnsupportedParameterType",
            ),
            InvalidValue,
        ),
        "HierarchyLevelLimitExceededException": InvalidName,
        **dict.fromkeys(
            (
                "InternalServerError",
                "InternalServiceError",
                "InternalFailure",
                "ServiceUnavailable",
            ),
            StoreUnavailable,
        ),
    }
)
_RAISED: Final[Meanings] = MappingProxyType(
    {
        "NoCredentialsError": Forbidden,
        "PartialCredentialsError": Forbidden,
        "ProfileNotFound": Forbidden,
        "NoRegionError": StoreUnsupported,
        "InvalidRegionError": StoreUnsupported,
        "UnknownServiceError": StoreUnsupported,
        "ParamValidationError": StoreUnsupported,
        "UnauthorizedSSOTokenError": AuthExpired,
        "SSOTokenLoadError": AuthExpired,
        "TokenRetrievalError": AuthExpired,
        "LoginRefreshRequired": AuthExpired,
    }
)
"""What the SDK raises by itself, by the name of the class."""

_HINTS: Final = MappingProxyType(
    {
        "NoCredentialsError": "give the binding credentials, or the node a role of its own",
        "PartialCredentialsError": "give both the id and the secret of the access key",
        "ProfileNotFound": "name a profile of the AWS configuration of the user that runs envd",
        "NoRegionError": "set cloud.providers.aws.region",
        "InvalidSignatureException": "look whether the clock of this machine is right",
        "SignatureDoesNotMatch": "look whether the clock of this machine is right",
        "InvalidKeyId": "look whether the KMS key is there, and may be used",
        "ParameterMaxVersionLimitExceeded": "remove the label of the parameter's oldest version",
        "ParameterPatternMismatchException": "the parameter has an allowed pattern of its own",
        "HierarchyTypeMismatchException": "delete the parameter, so that it is made anew",
    }
)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{1,63}")
_MAX_WAIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What became of a call that failed, without anything of its text."""

    kind: type[BackendError]
    code: str
    hint: str = ""
    retry_after_s: float = 0.0

    def error(self, doing: str) -> BackendError:
        """The error of doing something. Example: `PutParameter of /web/NAME: AccessDenied`."""
        message = f"{doing}: {self.code}"
        if issubclass(self.kind, Throttled):
            return self.kind(message, hint=self.hint, retry_after_s=self.retry_after_s)
        return self.kind(message, hint=self.hint)


def problem_of(error: Exception, meanings: Meanings = MappingProxyType({})) -> Problem:
    """Tell what an error of the SDK means; `meanings` is for codes that mean something else here.

    What is not known at all is no answer: nobody knows what was done.
    """
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return _answered(response, meanings)
    for kind in type(error).__mro__:
        if kind.__name__ in _RAISED:
            name = kind.__name__
            return Problem(_RAISED[name], name, _HINTS.get(name, ""))
    return Problem(StoreUnavailable, type(error).__name__)


def _answered(response: Mapping[str, Any], meanings: Meanings) -> Problem:
    about = response.get("Error", {})
    found = str(about.get("Code", "")).rpartition("#")[2] if isinstance(about, Mapping) else ""
    code = found if _CODE.fullmatch(found) else ""
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    kind = meanings.get(code) or _CODES.get(code) or _by_status(status)
    told = code or f"status {status}"
    headers = metadata.get("HTTPHeaders", {})
    return Problem(kind, told, _HINTS.get(code, ""), _seconds(headers.get("retry-after", "")))


def _by_status(status: int) -> type[BackendError]:
    if status == 429:
        return Throttled
    if status in (401, 403):
        return Forbidden
    if 400 <= status < 500:
        return StoreUnsupported
    return StoreUnavailable


def _seconds(text: str) -> float:
    """A `Retry-After` in seconds; 0 where there is none, or a date, which AWS does not send."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return 0.0
    return min(float(text), _MAX_WAIT_S)
