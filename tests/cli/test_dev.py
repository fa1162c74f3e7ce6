"""`envctl dev`: the tour, the context, and what is told of the daemon."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envd.cli import contexts
from envd.cli.commands import dev
from envd.cli.commands.tour import Tour
from envd.cli.exits import Failed
from envd.cli.grammar import parse
from envd.cli.invocation import Invocation
from envd.cli.world import World
from tests.cli.bench import Envctl, NodeInMemory, Stream

EXAMPLE = Path(__file__).parents[2] / "config" / "example.env"


def world_of(node: NodeInMemory, home: Path) -> World:
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "ENVD_ENVIRONMENT": "not/this"}
    return World(environ, str(home), Stream(), Stream(), Stream(), lambda endpoint: node)


def invocation(world: World, line: str = "") -> Invocation:
    return Invocation(world, dev.DEV, parse("dev", dev.DEV, shlex.split(line)))


def shown(world: World) -> str:
    assert isinstance(world.stdout, Stream)
    return world.stdout.written()


def blocks(text: str) -> dict[str, list[str]]:
    """What each echoed command printed, the last time it ran."""
    found: dict[str, list[str]] = {}
    for block in text.split("\n$ ")[1:]:
        command, *rest = block.splitlines()
        found[command] = rest
    return found


def test_the_tour_sets_reads_runs_and_undoes(node: NodeInMemory, tmp_path: Path) -> None:
    world = world_of(node, tmp_path)

    Tour(world, "unix:/x", current=True).first(str(EXAMPLE))

    told = blocks(shown(world))
    run = """envctl run demo/dev -- sh -c 'echo "$GREETING"'"""
    assert "envctl set demo/dev GREETING='good morning' --message friendlier" in told
    assert "  ~ GREETING" in told["envctl rollback demo/dev --to @~1"]
    assert told[run][0] == "hello"
    assert [line.split()[0] for line in told["envctl get demo/dev"][1:3]] == ["NAME", "API_TOKEN"]
    assert node.writes()[0].environment == "demo/dev"


def test_the_commands_of_the_tour_can_be_typed_as_they_are_shown(
    node: NodeInMemory, tmp_path: Path
) -> None:
    world = world_of(node, tmp_path)
    Tour(world, "unix:/x", current=True).first(str(EXAMPLE))
    typed = [line[2:] for line in shown(world).splitlines() if line.startswith("$ ")]
    again = Envctl(NodeInMemory(), tmp_path, {"PATH": os.environ["PATH"]})

    for line in typed:
        again.ok(line.removeprefix("envctl "))

    assert len(typed) == 9
    assert again.value("demo/dev", "GREETING") == "hello"
    again.node.loop.close()


def test_the_tour_ends_with_what_to_type_and_how_a_shell_finds_it(
    node: NodeInMemory, tmp_path: Path
) -> None:
    world = world_of(node, tmp_path)
    hidden = world._replace(environ={**world.environ, "PATH": str(tmp_path)})
    (tmp_path / "envctl").touch(0o700)

    Tour(hidden, "unix:/x", current=True)._next()
    with_it = shown(world)
    (tmp_path / "envctl").unlink()
    Tour(hidden, "unix:/x", current=True)._next()
    without = shown(world).removeprefix(with_it)

    path = f'  export PATH={Path(sys.executable).parent}:"$PATH"'
    assert path not in with_it.splitlines()
    assert without.splitlines()[2:5] == [
        path,
        "  envctl set demo/dev NAME=value",
        "  envctl get demo/dev",
    ]
    assert "  envctl rollback demo/dev --to @~1" in with_it.splitlines()


def test_the_tour_names_the_context_where_another_is_current(
    node: NodeInMemory, tmp_path: Path
) -> None:
    world = world_of(node, tmp_path)

    Tour(world, "unix:/x", current=False).first("")

    commands = [line for line in shown(world).splitlines() if line.startswith("$ ")]
    assert all(line.startswith("$ envctl --context dev ") for line in commands)


def test_a_later_start_lists_what_there_is(node: NodeInMemory, tmp_path: Path) -> None:
    Envctl(node, tmp_path).ok("set mine/dev A=1")
    world = world_of(node, tmp_path)

    Tour(world, "unix:/x", current=True).again()

    assert "mine/dev" in shown(world)
    assert len(node.writes()) == 1


@contextmanager
def context(world: World, line: str = "") -> Iterator[bool]:
    with dev._context(invocation(world, line), Path("/data")) as current:
        yield current


def test_the_context_is_current_while_the_node_runs(node: NodeInMemory, tmp_path: Path) -> None:
    world = world_of(node, tmp_path)

    with context(world) as current:
        during = contexts.load(world.environ)
    after = contexts.load(world.environ)

    assert current
    assert during.current == "dev"
    assert during.named["dev"].server == "unix:/data/envd.sock"
    assert (after.current, set(after.named)) == ("", {"dev"})


def test_another_current_context_stays(node: NodeInMemory, tmp_path: Path) -> None:
    world = world_of(node, tmp_path)
    prod = contexts.Context("host:1", "token")
    contexts.save(world.environ, contexts.Contexts("prod", {"prod": prod}))

    with context(world) as current:
        during = contexts.load(world.environ)

    assert not current
    assert during.current == "prod"
    assert contexts.load(world.environ).named["prod"] == prod


def test_an_ephemeral_node_leaves_no_context(node: NodeInMemory, tmp_path: Path) -> None:
    world = world_of(node, tmp_path)

    with context(world, "--ephemeral"):
        assert "dev" in contexts.load(world.environ).named

    assert contexts.load(world.environ).named == {}


def test_an_ephemeral_directory_is_removed(node: NodeInMemory, tmp_path: Path) -> None:
    with dev._data_directory(invocation(world_of(node, tmp_path), "--ephemeral")) as data:
        (data / "file").write_text("x")

    assert not data.exists()


@pytest.mark.parametrize(
    ("line", "below"), [("", ".local/state/envd-dev"), ("--data mine", "mine")]
)
def test_the_data_stay(node: NodeInMemory, tmp_path: Path, line: str, below: str) -> None:
    with dev._data_directory(invocation(world_of(node, tmp_path), line)) as data:
        pass

    assert data == tmp_path / below
    assert data.is_dir()


def test_a_path_too_long_for_a_socket_is_told(node: NodeInMemory, tmp_path: Path) -> None:
    call = invocation(world_of(node, tmp_path), f"--data {'x' * 120}")

    with pytest.raises(Failed, match="too long a path"), dev._data_directory(call):
        pass


def test_a_bad_demo_file_is_told_before_anything_starts(envctl: Envctl) -> None:
    envctl.file("bad.env", "A='open\n")

    assert envctl("dev --demo bad.env").code == 1
    assert envctl("dev --demo none.env").code == 1
    assert not (envctl.home / ".local").exists()


def test_a_port_that_is_taken_gives_way_to_any_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]

        assert dev._port(port) == 0


def test_the_addresses_are_those_of_the_last_start(tmp_path: Path) -> None:
    lines = [{"event": "node.ready", "listen": f"127.0.0.1:{port}"} for port in (1, 2)]
    (tmp_path / "envd.log").write_text("\n".join(map(json.dumps, [*lines, {"event": "x"}])))

    assert dev._addresses(tmp_path) == {"listen": "127.0.0.1:2"}


def test_a_daemon_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "envd.log"
    log.write_text("error: of another start\n")
    begin = log.stat().st_size
    with log.open("a") as opened:
        opened.write('{"event": "x"}\nerror: the directory is in use\nhint: stop that one\n')
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    child.wait()

    with pytest.raises(Failed) as caught:
        dev._ready(child, tmp_path, log, begin)

    assert caught.value.message == "the daemon did not start: the directory is in use"
    assert caught.value.hint == f"stop that one\n      its log is {log}"


def test_a_daemon_is_stopped_with_sigterm() -> None:
    script = (
        "import signal; signal.signal(15, lambda *a: exit(7)); print(flush=True); signal.pause()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert isinstance(child.stdout, io.BufferedReader)
    child.stdout.readline()

    dev._stop(child)

    child.stdout.close()
    assert child.returncode == 7


def test_the_daemon_does_not_get_the_settings_of_another(
    node: NodeInMemory, tmp_path: Path
) -> None:
    environ = dev._child_environment(invocation(world_of(node, tmp_path)))

    assert environ.keys() == {"HOME", "PATH"}
