"""A secret value is seen nowhere without reveal, whatever is asked, and whatever fails."""

from __future__ import annotations

from typing import Any

import pytest

from envd.core.errors import Conflict, OutcomeUnknown
from tests.cli.bench import CANARY, Envctl

HARMLESS = (
    "get web/prod",
    "get web/prod@~1",
    "list",
    "history web/prod",
    "history web/prod DB_PASSWORD",
    "diff web/prod@~1 web/prod",
    "diff web/prod .env",
    "diff .env web/other",
    "settings web/prod",
    "import web/prod .env --dry-run",
    "import web/other .env",
    "import web/prod .env --prune --yes",
    "import web/prod bad.env",
    "rollback web/prod --to @~1 --dry-run",
    "rollback web/prod --to @~1",
    "rename web/prod web/renamed",
    "delete web/prod --dry-run",
    "delete web/prod --yes",
    "unset web/prod DB_PASSWORD",
    "plan -f envs",
    "apply -f envs --dry-run",
    "apply -f envs --yes",
    "whoami",
    "doctor",
)


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=1 --secret", f"DB_PASSWORD={CANARY}1")
    envctl.ok("set web/prod", f"DB_PASSWORD={CANARY}2")
    envctl.ok("create web/other")
    envctl.file(".env", f"DB_PASSWORD={CANARY}3\nURL=https://u:{CANARY}@example.com\n")
    envctl.file("bad.env", f"DB_PASSWORD={CANARY}\n{CANARY} '{CANARY}\n")
    (envctl.home / "envs/web").mkdir(parents=True)
    envctl.file("envs/web/prod.env", f"DB_PASSWORD={CANARY}4\n")
    return envctl


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
@pytest.mark.parametrize("line", HARMLESS)
def test_no_command_shows_a_secret_without_reveal(web: Envctl, line: str, output: str) -> None:
    result = web(f"{line} --output {output}")

    assert result.code in {0, 1}
    assert CANARY not in result.out
    assert CANARY not in result.err


@pytest.mark.parametrize("error", [Conflict("x"), OutcomeUnknown("x"), ValueError(CANARY)])
@pytest.mark.parametrize(
    "line",
    [
        f"set web/prod DB_PASSWORD={CANARY}",
        f"set web/prod DB_PASSWORD={CANARY} --secret",
        "import web/prod .env",
        "rename web/prod web/renamed",
    ],
)
def test_no_failing_write_shows_a_value(web: Envctl, line: str, error: Exception) -> None:
    def fail(call: str, request: Any) -> None:
        if call == "write":
            raise error

    web.node.before = fail

    result = web(line)

    assert result.code != 0
    assert CANARY not in result.out + result.err


@pytest.mark.parametrize(
    "line",
    [
        "get web/prod --reveal",
        "get web/prod DB_PASSWORD",
        "export web/prod",
        "run web/prod -- env",
        "diff web/prod@~1 web/prod --reveal",
    ],
)
def test_what_shows_secrets_takes_the_right_to(web: Envctl, line: str) -> None:
    environ = {"PATH": "/usr/bin:/bin"}
    allowed = web(line, environ=environ)
    web.node.rights.denied.add("reveal")

    denied = web(line, environ=environ)

    assert CANARY in allowed.out + repr(allowed.executed)
    assert denied.code in {6, 125}
    assert CANARY not in denied.out + denied.err
    assert denied.executed is None
