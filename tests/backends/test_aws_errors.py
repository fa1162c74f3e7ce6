"""What the SDK for AWS raises, told in the words of the contract, and without a word of its own."""

from __future__ import annotations

from typing import Any

import pytest

from envd.backends import errors
from envd.backends.aws_errors import THROTTLING, problem_of

_CANARY = "hunter2-in-an-error"


class _Answered(Exception):
    """An error of the SDK that has an answer of AWS."""

    def __init__(self, code: str, status: int = 400, **headers: str) -> None:
        super().__init__(f"An error occurred ({code}): {_CANARY}")
        self.response: dict[str, Any] = {
            "Error": {"Code": code, "Message": _CANARY},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": {name.replace("_", "-"): text for name, text in headers.items()},
            },
        }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, errors.Throttled) for code in THROTTLING),
        ("com.amazonaws.ssm#ThrottlingException", errors.Throttled),
        ("ExpiredTokenException", errors.AuthExpired),
        ("ExpiredToken", errors.AuthExpired),
        ("AccessDeniedException", errors.Forbidden),
        ("UnrecognizedClientException", errors.Forbidden),
        ("InvalidKeyId", errors.Forbidden),
        ("DecryptionFailure", errors.Forbidden),
        ("ParameterNotFound", errors.ItemNotFound),
        ("ResourceNotFoundException", errors.ItemNotFound),
        ("ParameterAlreadyExists", errors.StaleVersion),
        ("ResourceExistsException", errors.StaleVersion),
        ("ParameterMaxVersionLimitExceeded", errors.QuotaExceeded),
        ("LimitExceededException", errors.QuotaExceeded),
        ("ParameterPatternMismatchException", errors.InvalidValue),
        ("HierarchyLevelLimitExceededException", errors.InvalidName),
        ("ValidationException", errors.StoreUnsupported),
        ("InternalServerError", errors.StoreUnavailable),
    ],
)
def test_a_code_has_its_meaning(code: str, kind: type[errors.BackendError]) -> None:
    assert problem_of(_Answered(code)).kind is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.StoreUnsupported),
        (401, errors.Forbidden),
        (403, errors.Forbidden),
        (429, errors.Throttled),
        (500, errors.StoreUnavailable),
        (503, errors.StoreUnavailable),
        (0, errors.StoreUnavailable),
    ],
)
def test_a_code_that_nobody_knows_has_the_meaning_of_its_status(
    status: int, kind: type[errors.BackendError]
) -> None:
    assert problem_of(_Answered("NewException", status)).kind is kind


def test_a_code_can_mean_something_else_for_one_call() -> None:
    problem = problem_of(
        _Answered("InvalidRequestException"), {"InvalidRequestException": errors.StaleVersion}
    )

    assert problem.kind is errors.StaleVersion


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0)],
)
def test_the_store_says_how_long_to_wait(text: str, seconds: float) -> None:
    error = problem_of(_Answered("ThrottlingException", retry_after=text)).error("a call")

    assert isinstance(error, errors.Throttled)
    assert error.retry_after_s == seconds


def test_nothing_of_an_errors_text_is_kept() -> None:
    told = problem_of(_Answered("AccessDeniedException"))

    error = told.error("PutParameter of /web/NAME")

    assert error.message == "PutParameter of /web/NAME: AccessDeniedException"
    assert _CANARY not in f"{told!r} {error!r} {error.__dict__}"


def test_a_code_that_is_no_code_is_told_as_its_status() -> None:
    problem = problem_of(_Answered(f"{_CANARY} {_CANARY}", 400))

    assert problem.code == "status 400"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NoCredentialsError", errors.Forbidden),
        ("ProfileNotFound", errors.Forbidden),
        ("NoRegionError", errors.StoreUnsupported),
        ("UnauthorizedSSOTokenError", errors.AuthExpired),
        ("ReadTimeoutError", errors.StoreUnavailable),
        ("EndpointConnectionError", errors.StoreUnavailable),
    ],
)
def test_what_the_sdk_raises_by_itself_is_told_by_its_class(
    name: str, kind: type[errors.BackendError]
) -> None:
    raised = type(name, (Exception,), {})(_CANARY)

    problem = problem_of(raised)

    assert (problem.kind, problem.code) == (kind, name)
    assert _CANARY not in repr(problem)
