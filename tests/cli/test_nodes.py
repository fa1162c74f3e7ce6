"""Which node is asked, with which credential, and the contexts that keep both."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from envd.cli import endpoint
from envd.cli.endpoint import Endpoint
from envd.client import discovery
from envd.core.errors import Unauthenticated, Unavailable
from envd.settings import default_data_dir
from tests.cli.bench import Envctl

TOKEN = "a-token-of-the-tests"


def asked(envctl: Envctl, line: str = "list", **environ: str) -> Endpoint:
    envctl.ok(line, environ=environ)
    return envctl.endpoints[-1]


@pytest.fixture
def contexts(envctl: Envctl) -> Envctl:
    """Two contexts; `one` is current."""
    for name, port in (("two", 2), ("one", 1)):
        envctl.ok(
            f"login --context {name} --server {name}:{port} --token-stdin", stdin=f"token-{name}"
        )
    return envctl


@pytest.mark.parametrize(
    ("line", "environ", "address", "token"),
    [
        ("list", {}, "one:1", "token-one"),
        ("list", {"ENVD_ADDR": "addr:9"}, "addr:9", ""),
        ("list --context two", {"ENVD_ADDR": "addr:9"}, "two:2", "token-two"),
        ("list --context two --server flag:8", {"ENVD_ADDR": "addr:9"}, "flag:8", ""),
        ("list --server flag:8", {"ENVD_TOKEN": "env"}, "flag:8", "env"),
        ("list --token flag", {"ENVD_TOKEN": "env"}, "one:1", "flag"),
        ("list", {"ENVD_TOKEN": "env"}, "one:1", "env"),
    ],
)
def test_the_node_and_the_credential_are_chosen_in_order(
    contexts: Envctl, line: str, environ: dict[str, str], address: str, token: str
) -> None:
    where = asked(contexts, line, **environ)

    assert (where.addresses, where.token) == ((address,), token)


def test_several_addresses_are_kept_in_order(envctl: Envctl) -> None:
    assert asked(envctl, "list --server a:1,b:2,[::1]:3").addresses == ("a:1", "b:2", "[::1]:3")


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"ENVD_SOCKET": "/run/x.sock"}, "/run/x.sock"),
        ({"ENVD_DATA_DIR": "/srv/envd"}, "/srv/envd/envd.sock"),
    ],
)
def test_where_nothing_is_said_it_is_the_node_of_this_machine(
    envctl: Envctl, environ: dict[str, str], path: str
) -> None:
    where = asked(envctl, **environ)

    assert where.addresses == (f"unix:{path}", "127.0.0.1:7420")


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize("state", [{}, {"XDG_STATE_HOME": "/s"}, {"XDG_STATE_HOME": "relative"}])
def test_the_data_directory_is_that_of_the_daemon(state: dict[str, str], is_root: bool) -> None:
    environ = {"HOME": "/home/ada", **state}

    found = discovery.data_directory(environ, is_root=is_root)

    assert found == str(default_data_dir(environ, is_root=is_root))


def test_the_token_of_the_daemon_goes_over_tcp(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text(f"{TOKEN}\n")

    assert discovery.token_in(str(tmp_path / "admin.token")) == TOKEN
    assert discovery.token_in(str(tmp_path / "none")) == ""


def test_a_token_file_goes_only_to_listeners_that_are_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]

        assert discovery._listeners(port) == {os.geteuid()}
        assert discovery.may_have_token(f"127.0.0.1:{port}")
    assert not discovery.may_have_token(f"127.0.0.1:{port}")
    assert discovery.may_have_token(f"envd.example.com:{port}")


def test_no_token_is_shown_in_a_repr(contexts: Envctl) -> None:
    from envd.cli import contexts as module

    known = module.load({"HOME": str(contexts.home)})

    assert "token-one" not in repr(asked(contexts))
    assert "token-one" not in repr(known)


def test_no_daemon_is_told_with_every_address_and_how_to_start_one(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        where = Endpoint((f"unix:{tmp_path}/none.sock", f"127.0.0.1:{port}"))

        with pytest.raises(Unavailable) as caught:
            endpoint.connect(where)

    assert caught.value.message == (
        f"no envd answers at unix:{tmp_path}/none.sock (No such file or directory), "
        f"nor at 127.0.0.1:{port} (Connection refused)"
    )
    assert caught.value.hint == "start one with: envd   (to try it out: envctl dev)"


def test_no_daemon_is_exit_code_five(envctl: Envctl, node_gone: None) -> None:
    result = envctl("list --server unix:/none")

    assert result.code == 5
    assert "error: no envd answers at unix:/none" in result.err
    assert "hint: --server names it" in result.err


@pytest.fixture
def node_gone(envctl: Envctl) -> None:
    """Connect for real, and so to nothing."""
    envctl._connect = endpoint.connect  # type: ignore[method-assign]


def test_login_tries_the_token_and_stores_it_for_the_owner_alone(envctl: Envctl) -> None:
    shown = envctl.ok("login --server host:7420 --context prod", typed="", secret=TOKEN)

    file = envctl.home / ".config/envd/config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert json.loads(file.read_text()) == {
        "current": "prod",
        "contexts": {"prod": {"server": "host:7420", "token": TOKEN}},
    }
    assert "logged in to node-1 (host:7420) as admin" in shown.out
    assert TOKEN not in shown.out + shown.err
    assert envctl.questions == ["token for host:7420: "]


def test_login_without_a_context_makes_one(envctl: Envctl) -> None:
    envctl.ok("login --token-stdin", stdin=TOKEN + "\n")

    where = asked(envctl)
    assert (where.addresses, where.token) == (("127.0.0.1:7420",), TOKEN)


def test_a_token_that_does_not_hold_is_not_stored(envctl: Envctl) -> None:
    def refuse(call: str, request: Any) -> None:
        raise Unauthenticated("the token is not valid here")

    envctl.node.before = refuse

    assert envctl("login --token-stdin", stdin=TOKEN).code == 6
    assert not (envctl.home / ".config").exists()


@pytest.mark.parametrize(
    ("line", "stdin", "code"),
    [
        ("login", "", 2),
        ("login --token-stdin", "", 1),
        ("login --token-stdin", "tök\n", 1),
        ("login --token x --token-stdin", "y", 2),
        ("login --server nonsense --token x", "", 2),
    ],
)
def test_logins_that_can_not_be(envctl: Envctl, line: str, stdin: str, code: int) -> None:
    assert envctl(line, stdin=stdin).code == code
    assert not (envctl.home / ".config").exists()


def test_whoami_tells_who_how_and_where(envctl: Envctl) -> None:
    assert envctl.json("whoami") == {
        "identity": "admin",
        "authenticated_by": "token",
        "node": "node-1",
        "address": "memory:1",
    }
    assert [line.split()[-1] for line in envctl.ok("whoami").lines] == [
        "admin",
        "token",
        "node-1",
        "memory:1",
    ]


def test_contexts_are_listed_switched_and_removed(contexts: Envctl) -> None:
    listed = contexts.json("context")["contexts"]
    contexts.ok("context two")
    switched = asked(contexts).addresses
    contexts.ok("context --none")
    none = asked(contexts).addresses
    contexts.ok("context two --remove")

    assert [(each["name"], each["current"]) for each in listed] == [("one", True), ("two", False)]
    assert switched == ("two:2",)
    assert none[-1] == "127.0.0.1:7420"
    assert [each["name"] for each in contexts.json("context")["contexts"]] == ["one"]
    assert "token-one" not in contexts.ok("context").out


def test_an_unknown_context_names_the_nearest(contexts: Envctl) -> None:
    for line in ("context tow", "list --context tow", "context tow --remove"):
        result = contexts(line)
        assert result.code == 2
        assert "did you mean two?" in result.err


@pytest.mark.parametrize("text", ["{", "[]", '{"contexts": 1}', '{"contexts": {"a": 1}}'])
def test_a_damaged_file_of_contexts_is_named_and_not_shown(envctl: Envctl, text: str) -> None:
    file = envctl.home / ".config/envd/config.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)

    result = envctl("list")

    assert result.code == 1
    assert str(file) in result.err


def test_a_context_may_name_a_file_for_its_token(envctl: Envctl, tmp_path: Path) -> None:
    file = envctl.home / ".config/envd/config.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        '{"current": "a", "contexts": {"a": {"server": "h:1", "token_file": "/run/token"}}}'
    )

    assert asked(envctl).token_file == "/run/token"


def test_a_dead_dev_node_is_told_with_the_ways_out(envctl: Envctl, node_gone: None) -> None:
    file = envctl.home / ".config/envd/config.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"current": "dev", "contexts": {"dev": {"server": "unix:/none"}}}')

    result = envctl("list")

    assert result.code == 5
    assert "envctl dev" in result.err
    assert "envctl context" in result.err
