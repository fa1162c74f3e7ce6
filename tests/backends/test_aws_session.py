"""Sessions with AWS: whose credentials are used, and what calls do besides."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("moto")

from envd.backends.aws_session import (
    Account,
    Calls,
    Reference,
    Sessions,
    listed,
    parse_reference,
)
from envd.backends.contract import Options
from envd.backends.errors import AuthExpired, Forbidden, StoreUnavailable, StoreUnsupported
from envd.testing.proxy import Hold, Match, Proxy, Reset, Respond, Rule
from tests.backends import aws_emulator
from tests.backends.aws_harness import refusal

ROLE = "arn:aws:iam::123456789012:role/envd"
CANARY = "hunter2-9d1f27c3-in-a-parameter"
GET = "AmazonSSM.GetParameters"


@pytest.fixture
async def proxy(aws: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """The emulator, asked through a proxy; STS too. No credentials of this machine are found."""
    aws_emulator.empty()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    async with Proxy(aws, operation_header="X-Amz-Target") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        yield proxy


def _options(proxy: Proxy, credentials: str = "", **settings: object) -> Options:
    given = {**aws_emulator.SETTINGS, **settings}
    return Options("/x", credentials=credentials, settings=given, endpoint=proxy.url)


def _calls(options: Options, sessions: Sessions | None = None, *, concurrency: int = 2) -> Calls:
    sessions = sessions or Sessions(aws_emulator.ENVIRONMENT)
    return Calls("ssm", options, sessions, concurrency=concurrency)


async def _get(calls: Calls, name: str = "/x/NAME") -> object:
    return await calls.call("get_parameters", "/x", Names=[name], WithDecryption=True)


def _counts(calls: list[bytes], word: bytes) -> Match:
    """A match that notes the bodies with a word, and matches none."""

    def seen(body: bytes) -> bool:
        if word in body:
            calls.append(body)
        return False

    return Match(body=seen)


# Whose credentials.


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", Reference("default")),
        ("profile:prod", Reference("profile", "prod")),
        (f"role:{ROLE}", Reference("role", ROLE)),
        (f"role:{ROLE}@a-b@c", Reference("role", ROLE, "a-b@c")),
        ("web-identity", Reference("web-identity")),
    ],
)
def test_a_reference_names_credentials(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    ["prod", "profile:", "role:envd", f"role:{ROLE}@", f"role:{ROLE}@x y", "web-identity:x", ":x"],
)
def test_what_names_no_credentials_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        parse_reference(text)

    assert text not in caught.value.message


def test_an_external_id_is_in_no_repr() -> None:
    assert CANARY not in repr(parse_reference(f"role:{ROLE}@{CANARY}"))


@pytest.mark.parametrize(
    ("credentials", "settings", "told"),
    [
        ("", {}, "the credentials that the AWS SDK finds"),
        ("", {"role_arn": ROLE}, ROLE),
        ("profile:prod", {}, "profile prod"),
        (f"role:{ROLE}", {}, ROLE),
        ("web-identity", {}, "the workload's identity"),
    ],
)
def test_people_are_told_whose_credentials_are_used(
    credentials: str, settings: dict[str, object], told: str
) -> None:
    assert Account.of(Options("/x", credentials=credentials, settings=settings)).identity == told


async def test_an_access_key_is_taken_from_the_variables_that_the_settings_name(
    proxy: Proxy,
) -> None:
    calls = _calls(_options(proxy), Sessions({"KEY_ID": "AKIAOURS", "SECRET_KEY": "s"}))
    ours = Match(headers={"authorization": ".*Credential=AKIAOURS/.*"})
    proxy.add(Rule(ours, refusal("ThrottlingException")))
    await calls.open()

    with pytest.raises(Exception, match="ThrottlingException"):
        await _get(calls)

    await calls.close()


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ({"secret_access_key_env": None}, aws_emulator.ENVIRONMENT),
        ({}, {"KEY_ID": "only"}),
        ({}, {"KEY_ID": "", "SECRET_KEY": ""}),
    ],
)
async def test_half_an_access_key_is_refused(
    proxy: Proxy, settings: dict[str, object], environment: dict[str, str]
) -> None:
    calls = _calls(_options(proxy, "", **settings), Sessions(environment))

    with pytest.raises(StoreUnsupported):
        await calls.open()

    await calls.close()


async def test_a_profile_is_that_of_the_configuration(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile prod]\nregion = eu-west-1\naws_access_key_id = A\naws_secret_access_key = B\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    calls = _calls(_options(proxy, "profile:prod", region=None))

    await calls.open()

    assert calls.identity == "profile prod in eu-west-1"
    await calls.close()


async def test_a_profile_that_there_is_not_is_refused(proxy: Proxy) -> None:
    calls = _calls(_options(proxy, "profile:nobody"))

    with pytest.raises(Forbidden, match="ProfileNotFound"):
        await calls.open()

    await calls.close()


async def test_no_region_is_told_with_the_setting_that_is_missing(proxy: Proxy) -> None:
    calls = _calls(_options(proxy, region=None))

    with pytest.raises(StoreUnsupported) as caught:
        await calls.open()

    assert caught.value.hint == "set cloud.providers.aws.region"
    await calls.close()


async def test_no_credentials_at_all_are_told_by_the_first_call(proxy: Proxy) -> None:
    options = _options(proxy, access_key_id_env=None, secret_access_key_env=None)
    calls = _calls(options)
    await calls.open()

    with pytest.raises(Forbidden, match="NoCredentialsError"):
        await _get(calls)

    await calls.close()


async def test_a_role_is_taken_on_once_for_all_backends(proxy: Proxy) -> None:
    taken: list[bytes] = []
    proxy.add(Rule(_counts(taken, b"Action=AssumeRole"), Respond(500)))
    sessions = Sessions(aws_emulator.ENVIRONMENT)
    options = _options(proxy, f"role:{ROLE}@the-external-id")
    one, two = _calls(options, sessions), _calls(options, sessions)
    await one.open()
    await two.open()

    await _get(one)
    await _get(two)

    assert len(taken) == 1
    assert b"ExternalId=the-external-id" in taken[0]
    assert b"RoleSessionName=envd" in taken[0]
    await one.close()
    await two.close()


async def test_the_role_of_the_settings_is_taken_on(proxy: Proxy) -> None:
    taken: list[bytes] = []
    proxy.add(Rule(_counts(taken, b"Action=AssumeRole"), Respond(500)))
    calls = _calls(_options(proxy, role_arn=ROLE))
    await calls.open()

    await _get(calls)

    assert len(taken) == 1
    assert b"ExternalId" not in taken[0]
    await calls.close()


async def test_a_role_that_may_not_be_taken_on_is_forbidden(proxy: Proxy) -> None:
    denied = Respond(
        403,
        {"Content-Type": "text/xml"},
        b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>",
    )
    proxy.add(Rule(Match(body=lambda body: b"AssumeRole" in body), denied))
    calls = _calls(_options(proxy, f"role:{ROLE}"))
    await calls.open()

    with pytest.raises(Forbidden, match="AccessDenied"):
        await _get(calls)

    await calls.close()


async def test_a_workload_without_a_token_has_no_web_identity(proxy: Proxy) -> None:
    calls = _calls(_options(proxy, "web-identity"))

    with pytest.raises(StoreUnsupported, match="no web identity"):
        await calls.open()

    await calls.close()


async def test_a_workload_takes_on_its_role_with_its_token(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("a-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    taken: list[bytes] = []
    proxy.add(Rule(_counts(taken, b"Action=AssumeRoleWithWebIdentity"), Respond(500)))
    calls = _calls(_options(proxy, "web-identity"))
    await calls.open()

    await _get(calls)

    assert len(taken) == 1
    await calls.close()


async def test_credentials_that_expired_are_looked_for_anew(proxy: Proxy) -> None:
    environment = {"KEY_ID": "AKIAOLD", "SECRET_KEY": "s"}
    calls = _calls(_options(proxy), Sessions(environment))
    old = Match(headers={"authorization": ".*Credential=AKIAOLD/.*"})
    proxy.add(Rule(old, refusal("ExpiredTokenException")))
    await calls.open()
    with pytest.raises(AuthExpired):
        await _get(calls)
    environment["KEY_ID"] = "AKIANEW"

    await calls.open()

    assert await _get(calls)
    await calls.close()


# Calls.


async def test_a_call_is_made_once(proxy: Proxy) -> None:
    calls = _calls(_options(proxy))
    await calls.open()

    for action in (refusal("InternalServerError", 500), refusal("ThrottlingException"), Reset()):
        proxy.add(Rule(Match(operation=GET), action, times=1))
        with pytest.raises(Exception, match="GetParameters of /x"):
            await _get(calls)

    assert proxy.count(operation=GET) == 3
    await calls.close()


async def test_no_error_of_the_sdk_is_behind_one_of_ours(proxy: Proxy) -> None:
    calls = _calls(_options(proxy))
    proxy.add(Rule(Match(operation=GET), refusal("ValidationException")))
    await calls.open()

    with pytest.raises(StoreUnsupported) as caught:
        await _get(calls, CANARY)

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    await calls.close()


async def test_the_sdk_logs_no_value_whatever_the_level(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="botocore")
    calls = _calls(_options(proxy))
    await calls.open()

    await _get(calls, CANARY)

    assert CANARY not in caplog.text
    await calls.close()


async def test_a_call_that_is_cancelled_is_waited_for(proxy: Proxy) -> None:
    calls = _calls(_options(proxy))
    proxy.add(Rule(Match(operation=GET), Hold(), times=1))
    await calls.open()
    waiting = asyncio.create_task(_get(calls))
    await proxy.hung()

    waiting.cancel()
    await asyncio.sleep(0)
    was_done = waiting.done()
    proxy.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not was_done
    assert proxy.requests[-1].status == 200
    await calls.close()


async def test_who_waits_for_a_turn_and_is_cancelled_makes_no_call(proxy: Proxy) -> None:
    calls = _calls(_options(proxy), concurrency=1)
    proxy.add(Rule(Match(operation=GET), Hold(), times=1))
    await calls.open()
    first = asyncio.create_task(_get(calls))
    await proxy.hung()
    second = asyncio.create_task(_get(calls))
    await asyncio.sleep(0)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    proxy.release()
    await first

    assert proxy.count(operation=GET) == 1
    await calls.close()


async def test_calls_do_not_take_the_threads_of_the_loop(proxy: Proxy) -> None:
    calls = _calls(_options(proxy))
    before = {each.name for each in threading.enumerate()}
    await calls.open()

    await _get(calls)

    started = {each.name for each in threading.enumerate()} - before
    assert started
    assert all(name.startswith("envd-ssm") for name in started)
    await calls.close()


async def test_who_is_closed_is_not_open(proxy: Proxy) -> None:
    calls = _calls(_options(proxy))
    await calls.open()
    await calls.close()

    with pytest.raises(StoreUnavailable, match="not open"):
        await _get(calls)


@pytest.mark.parametrize("answer", [{}, {"Parameters": None}, {"Parameters": "x"}])
def test_an_answer_without_its_list_makes_no_sense(answer: dict[str, object]) -> None:
    with pytest.raises(StoreUnavailable):
        listed(answer, "Parameters", "/x")
