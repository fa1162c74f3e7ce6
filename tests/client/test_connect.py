"""`envd.connect`: what is said, what is found, and that importing envd costs nothing."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import envd
from envd.client import discovery, options
from envd.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        ((), {}, (["127.0.0.1:7420"], True)),
        ((), {"ENVD_ADDR": "a:1, b:2"}, (["a:1", "b:2"], False)),
        ((), {"ENVD_ADDR": "unix:/run/envd.sock,a:1"}, (["a:1"], False)),
        (("a:1,b:2", "c:3"), {"ENVD_ADDR": "x:1"}, (["a:1", "b:2", "c:3"], False)),
        (("a:1", "a:1"), {}, (["a:1"], False)),
        (("[::1]:7420",), {}, (["[::1]:7420"], False)),
    ],
)
def test_addresses(
    given: tuple[str, ...], environ: dict[str, str], expected: tuple[list[str], bool]
) -> None:
    addresses, of_this_machine = discovery.addresses_of(given, environ)

    assert (list(addresses), of_this_machine) == expected


@pytest.mark.parametrize(
    "address", ["", ",", "host", "host:", ":1", "host:0", "host:65536", "h/x:1", "unix:/x", "h:١"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        envd.connect(address)


def test_a_socket_alone_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="ENVD_ADDR names a Unix socket only") as caught:
        envd.connect(environ={"ENVD_ADDR": "unix:/run/envd.sock"})

    assert "ENVD_ADDR=unix:PATH,127.0.0.1:7420" in caught.value.hint


def test_the_token_is_what_is_said_then_that_of_the_process() -> None:
    environ = {"ENVD_TOKEN": " from-the-process ", "HOME": "/none"}

    said = envd.connect("a:1", token="said", environ=environ)
    found = envd.connect("a:1", environ=environ)
    none = envd.connect("a:1", environ={"HOME": "/none"})

    tokens = [dict(one._servers.metadata()).get("authorization") for one in (said, found, none)]
    assert tokens == ["Bearer said", "Bearer from-the-process", None]


def test_the_token_of_this_machine_lies_in_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("token-1\n")

    assert discovery.token_in(str(tmp_path / "admin.token")) == "token-1"
    assert discovery.token_in(str(tmp_path / "none")) == ""
    assert discovery.data_directory({"ENVD_DATA_DIR": "/d"}, is_root=False) == "/d"
    assert discovery.data_directory({}, is_root=True) == "/var/lib/envd"
    assert discovery.data_directory({"HOME": "/h"}, is_root=False) == "/h/.local/state/envd"
    assert discovery.data_directory({"XDG_STATE_HOME": "/s"}, is_root=False) == "/s/envd"
    assert discovery.data_directory({}, is_root=False) == ""


def test_where_nobody_listens_no_token_is_given_away() -> None:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        assert not discovery.may_have_token(address)
        held.listen()
        assert discovery.may_have_token(address)


def test_snapshots_lie_where_they_are_said_to() -> None:
    environ = {"HOME": "/h"}

    assert envd.connect("a:1", environ=environ)._snapshots == Path("/h/.cache/envd/snapshots")
    assert envd.connect("a:1", environ=environ, snapshot="/s")._snapshots == Path("/s")
    assert envd.connect("a:1", environ=environ, snapshot=False)._snapshots is None
    assert envd.connect("a:1", environ={})._snapshots is None


def test_servers_may_be_given_with_their_zones() -> None:
    servers = (envd.Server("a:1", "east"), envd.Server("b:1", "west"))

    client = envd.connect(*servers, balance="zone", zone="west", environ={})

    assert client._servers.choose() == "b:1"
    assert repr(client) == "<envd.Client a:1, b:1>"


def test_importing_envd_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import envd, sys; print(sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ast.literal_eval(done.stdout))

    assert not loaded & {"grpc", "google.protobuf", "asyncio", "cryptography", "envd.client"}


def test_the_stub_and_the_module_have_the_same_names() -> None:
    stub = Path(envd.__file__).with_suffix(".pyi").read_text()
    typed = {
        (alias.name, node.module)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert typed == set(envd._HOME.items())  # type: ignore[attr-defined]
    for name in sorted(envd._HOME):  # type: ignore[attr-defined]
        assert getattr(envd, name).__name__ == name
        assert name in dir(envd)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        envd.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "environment",
        "get",
        "get_many",
        "list",
        "history",
        "status",
        "set",
        "unset",
        "settings",
        "write",
        "delete",
        "rollback",
        "export",
        "import_",
    ],
)
def test_the_twins_take_the_same_options(name: str) -> None:
    taken = inspect.signature(getattr(envd.Client, name)).parameters.values()
    handed_on = inspect.signature(getattr(envd.SyncClient, name)).parameters["options"]
    kind = handed_on.annotation.removeprefix("Unpack[").removesuffix("]")

    assert {one.name: one.annotation for one in taken if one.kind is one.KEYWORD_ONLY} == {
        key: one.__forward_arg__ for key, one in getattr(options, kind).__annotations__.items()
    }
