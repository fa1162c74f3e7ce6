"""Running without a node: what the last run was given, and never unasked."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from envd.core.errors import Unavailable
from tests.cli.bench import CANARY, Envctl

DAY_MS = 86_400_000
PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.environ |= PATH
    envctl.ok("set web/base A=base B=base")
    envctl.ok("set web/prod B=prod --secret", f"API={CANARY}")
    envctl.ok("settings web/prod extends=web/base")
    return envctl


def take_the_node_away(web: Envctl) -> None:
    def gone(call: str, request: Any) -> None:
        raise Unavailable("no envd answers", hint="start it", reason="NO_DAEMON")

    web.node.before = gone
    web.node.asked.clear()


def given(web: Envctl, line: str, **options: Any) -> dict[str, str]:
    result = web.ok(line, **options)
    assert result.executed is not None
    return result.executed[2]


def test_a_run_is_repeated_offline_with_the_same_variables(web: Envctl) -> None:
    online = given(web, "run web/prod --pristine -- env")
    take_the_node_away(web)
    web.wall_ms += 3 * 3_600_000

    result = web.ok("run web/prod --pristine --offline -- env")

    assert result.executed is not None
    assert result.executed[2] == online == {"A": "base", "B": "prod", "API": CANARY}
    assert result.err == "note: offline: web/prod as it was 3 hours ago\n"
    assert not web.node.asked


def test_each_of_several_environments_is_kept(web: Envctl) -> None:
    web.ok("run web/base,web/prod -- env")
    take_the_node_away(web)

    assert given(web, "run web/base --offline --pristine -- env") == {"A": "base", "B": "base"}
    assert given(web, "run web/prod,web/base --offline --pristine -- env")["B"] == "base"


def test_a_later_run_replaces_what_was_kept(web: Envctl) -> None:
    web.ok("run web/prod -- env")
    web.ok("set web/prod B=later")
    web.ok("run web/prod --only NONE -- env")
    take_the_node_away(web)

    assert given(web, "run web/prod --offline -- env")["B"] == "later"


def test_nothing_is_old_unasked_and_the_way_is_told(web: Envctl) -> None:
    web.ok("run web/prod -- env")
    take_the_node_away(web)

    result = web("run web/prod -- env")

    assert (result.code, result.executed) == (125, None)
    assert result.err.splitlines() == [
        "error: no envd answers",
        "hint: start it; or with the variables of the last time: --offline",
    ]


@pytest.mark.parametrize("line", ["run web/base -- env", "run web/prod,web/base -- env"])
def test_the_way_is_not_told_where_it_leads_nowhere(web: Envctl, line: str) -> None:
    web.ok("run web/prod -- env")
    take_the_node_away(web)

    assert web(line).err == "error: no envd answers\nhint: start it\n"


def test_what_was_never_kept_is_told(web: Envctl) -> None:
    take_the_node_away(web)

    result = web("run web/prod --offline -- env")

    assert (result.code, result.executed) == (125, None)
    assert result.err.startswith("error: there is no snapshot of web/prod\nhint: ")


def test_after_a_week_it_is_over(web: Envctl) -> None:
    web.ok("run web/prod -- env")
    take_the_node_away(web)

    web.wall_ms += 7 * DAY_MS
    assert web("run web/prod --offline -- env").code == 0
    web.wall_ms += 1
    result = web("run web/prod --offline -- env")

    assert result.code == 125
    assert "older than seven days" in result.err


def test_another_credential_or_node_does_not_open_it(web: Envctl) -> None:
    web.environ |= {"ENVD_ADDR": "node:7420", "ENVD_TOKEN": "first-token"}
    web.ok("run web/prod -- env")
    take_the_node_away(web)

    assert web("run web/prod --offline -- env").code == 0
    other = web("run web/prod --offline --token another-token -- env")
    assert other.code == 125
    assert "sealed for another token" in other.err
    elsewhere = web("run web/prod --offline --server other:7420 -- env")
    assert "there is no snapshot of web/prod" in elsewhere.err


def test_a_new_token_of_a_context_opens_what_the_old_one_sealed(web: Envctl) -> None:
    web.ok("login --server node:7420 --token first-token")
    web.ok("run web/prod -- env")

    web.ok("login --token second-token")
    take_the_node_away(web)

    assert given(web, "run web/prod --offline -- env")["B"] == "prod"
    assert web("run web/prod --offline --token first-token -- env").code == 125


@pytest.mark.parametrize(
    ("flag", "environ"), [("--no-snapshot", {}), ("", {"ENVD_SNAPSHOT": "off"})]
)
def test_who_wants_nothing_kept_gets_that(web: Envctl, flag: str, environ: dict[str, str]) -> None:
    web.ok(f"run web/prod {flag} -- env", environ=environ)

    assert not (web.home / ".cache").exists()


def test_what_is_kept_is_private_and_sealed(web: Envctl) -> None:
    web.ok("run web/prod -- env")

    kept = [path for path in (web.home / ".cache").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert CANARY.encode() not in path.read_bytes()


def test_a_run_goes_on_where_nothing_can_be_kept(web: Envctl) -> None:
    web.file(".cache", "a file where a directory should be")

    result = web.ok("run web/prod -- env")

    assert result.executed is not None
    assert result.err.startswith("warning: nothing of web/prod is kept for --offline: ")


@pytest.mark.parametrize(
    "line",
    ["run web/prod@~1 --offline -- env", "run web/prod --offline --watch restart -- env"],
)
def test_what_does_not_go_offline(web: Envctl, line: str) -> None:
    web.ok("run web/prod -- env")

    assert web(line).code == 2


def test_a_revision_is_not_kept(web: Envctl) -> None:
    web.ok("run web/prod@~1 -- env")

    assert not (web.home / ".cache").exists()


def test_the_default_environment_goes_offline_too(web: Envctl) -> None:
    web.ok("use web/prod")
    web.ok("run -- env")
    take_the_node_away(web)

    assert given(web, "run --offline -- env")["B"] == "prod"
