"""Sessions with Google Cloud: whose credentials are used, and what errors of the SDK mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

pytest.importorskip("google.cloud.secretmanager_v1")

from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors

from envd.backends.contract import Options
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    InvalidValue,
    ItemNotFound,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)
from envd.backends.gcp_channel import host_of
from envd.backends.gcp_checksum import crc32c
from envd.backends.gcp_credentials import Account, Reference, parse_reference
from envd.backends.gcp_errors import problem_of
from envd.backends.gcp_secret_manager import SecretManagerBackend

ACCOUNT = "envd@example-project.iam.gserviceaccount.com"
SECRET = "hunter2-9d1f27c3"


@pytest.fixture(autouse=True)
def _no_account_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(65537, 2048)
    return made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def key_file(tmp_path: Path, key: str) -> Path:
    return _file(
        tmp_path,
        type="service_account",
        client_email=ACCOUNT,
        private_key=key,
        token_uri="https://oauth2.googleapis.com/token",
    )


def _file(directory: Path, **content: Any) -> Path:
    path = directory / "credentials.json"
    path.write_text(json.dumps(content))
    return path


# Whose credentials.


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", Reference("default")),
        ("file:/etc/envd/gcp.json", Reference("file", "/etc/envd/gcp.json")),
        (f"impersonate:{ACCOUNT}", Reference("impersonate", ACCOUNT)),
    ],
)
def test_a_reference_names_credentials(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text", ["file:", "file:gcp.json", "impersonate:", "impersonate:x", SECRET]
)
def test_what_names_no_credentials_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        parse_reference(text)

    assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_a_file_has_the_key_of_a_service_account(key_file: Path) -> None:
    account = Account(Reference("file", str(key_file)))

    found = account.load()

    assert found.service_account_email == ACCOUNT
    assert found.scopes


def test_the_file_of_the_settings_is_used_where_nothing_is_named(key_file: Path) -> None:
    account = Account.of(Options("web", settings={"credentials_file": key_file}))

    assert account.load().service_account_email == ACCOUNT


def test_an_account_is_taken_on_with_the_other_credentials(key_file: Path) -> None:
    other = "deploy@example-project.iam.gserviceaccount.com"
    account = Account(Reference("impersonate", other), str(key_file))

    found = account.load()

    assert found.service_account_email == other
    assert found._source_credentials.service_account_email == ACCOUNT


def test_what_the_sdk_finds_is_used_where_nothing_is_set(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))

    assert Account(Reference("default")).load().service_account_email == ACCOUNT


def test_a_workload_is_known_by_a_token_in_a_file(tmp_path: Path) -> None:
    audience = (
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x"
    )
    path = _file(
        tmp_path,
        type="external_account",
        audience=audience,
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url="https://sts.googleapis.com/v1/token",
        credential_source={"file": "/var/run/token"},
    )

    found = Account(Reference("file", str(path))).load()

    assert found.info["audience"] == audience


@pytest.mark.parametrize(
    "content",
    [
        {"type": "external_account", "credential_source": {"executable": {"command": "/bin/sh"}}},
        {"type": "service_account", "private_key": SECRET},
        {"type": "something else", "secret": SECRET},
        {},
    ],
)
def test_a_file_that_can_not_be_used_is_named_and_not_quoted(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    path = _file(tmp_path, **content)

    with pytest.raises(StoreUnsupported) as caught:
        Account(Reference("file", str(path))).load()

    assert str(path) in caught.value.message
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_file_that_is_not_there_is_forbidden(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="can't be read"):
        Account(Reference("file", str(tmp_path / "none.json"))).load()


async def test_to_open_without_any_credentials_is_forbidden() -> None:
    backend = SecretManagerBackend(Options("web", settings={"project_id": "example-project"}))

    with pytest.raises(Forbidden, match="DefaultCredentialsError") as caught:
        await backend.open()

    assert caught.value.hint
    assert caught.value.__context__ is None


async def test_to_open_with_a_key_makes_no_call(key_file: Path) -> None:
    settings = {"project_id": "example-project", "credentials_file": str(key_file)}
    backend = SecretManagerBackend(Options("web", settings=settings))

    await backend.open()
    await backend.close()


# Where the API is.


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("http://127.0.0.1:9090", "127.0.0.1:9090"),
        ("http://localhost:9090/", "localhost:9090"),
        ("http://[::1]:9090", "[::1]:9090"),
        ("https://secretmanager.example.com", "secretmanager.example.com"),
        ("secretmanager.example.com:443", "secretmanager.example.com:443"),
    ],
)
def test_an_endpoint_is_an_address(endpoint: str, host: str) -> None:
    assert host_of(endpoint) == host


@pytest.mark.parametrize(
    "endpoint",
    ["http://10.0.0.1:9090", "http://example.com", "ftp://x", "https://x/path"],
)
def test_plain_text_does_not_leave_this_machine(endpoint: str) -> None:
    with pytest.raises(StoreUnsupported):
        host_of(endpoint)


# What errors mean.


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (google_errors.NotFound, ItemNotFound),
        (google_errors.AlreadyExists, StaleVersion),
        (google_errors.PermissionDenied, Forbidden),
        (google_errors.Unauthenticated, AuthExpired),
        (google_errors.ResourceExhausted, Throttled),
        (google_errors.InvalidArgument, StoreUnsupported),
        (google_errors.FailedPrecondition, StoreUnsupported),
        (google_errors.MethodNotImplemented, StoreUnsupported),
        (google_errors.Aborted, StoreUnavailable),
        (google_errors.Cancelled, StoreUnavailable),
        (google_errors.DeadlineExceeded, StoreUnavailable),
        (google_errors.InternalServerError, StoreUnavailable),
        (google_errors.ServiceUnavailable, StoreUnavailable),
        (google_errors.Unknown, StoreUnavailable),
        (google_errors.DataLoss, StoreUnavailable),
        (auth_errors.RefreshError, AuthExpired),
        (auth_errors.ReauthFailError, AuthExpired),
        (auth_errors.DefaultCredentialsError, Forbidden),
        (auth_errors.TransportError, StoreUnavailable),
        (KeyError, StoreUnavailable),
    ],
)
def test_each_error_of_the_sdk_has_one_meaning(
    raised: type[Exception], kind: type[BackendError]
) -> None:
    problem = problem_of(raised(SECRET))

    assert problem.kind is kind
    assert SECRET not in repr(problem)
    assert type(problem.error("GetSecret of x")) is kind


def test_a_status_may_mean_another_thing_to_one_method() -> None:
    raised: type[Exception] = google_errors.FailedPrecondition

    problem = problem_of(raised("x"), {"FAILED_PRECONDITION": InvalidValue})

    assert problem.kind is InvalidValue


def test_a_token_that_could_not_be_got_is_told_from_a_store_that_is_ill() -> None:
    # What gRPC makes of an error of google-auth, word by word.
    told = "Getting metadata from plugin failed with error: invalid_grant: sometext"

    raised: type[Exception] = google_errors.ServiceUnavailable

    problem = problem_of(raised(told))

    assert problem.kind is AuthExpired
    assert "sometext" not in repr(problem)


# Checksums.


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksums_are_those_of_the_rfc(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
