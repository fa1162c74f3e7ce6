"""`envctl dev`: the tour, the context, and what is told of the daemon."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from envd import settings as envd_settings
from envd.cli import contexts
from envd.cli.commands import dev, dev_nodes
from envd.cli.commands.dev_nodes import Node
from envd.cli.commands.tour import Stop, Tour
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
def context(world: World, line: str = "", count: int = 1) -> Iterator[bool]:
    nodes = [Node(number, Path(f"/data/node{number}")) for number in range(1, count + 1)]
    with dev._context(invocation(world, line), nodes) as current:
        yield current


def test_the_context_is_current_while_the_node_runs(node: NodeInMemory, tmp_path: Path) -> None:
    world = world_of(node, tmp_path)

    with context(world) as current:
        during = contexts.load(world.environ)
    after = contexts.load(world.environ)

    assert current
    assert during.current == "dev"
    assert during.named["dev"].server == "unix:/data/node1/envd.sock"
    assert (after.current, set(after.named)) == ("", {"dev"})


def test_the_context_names_every_node_and_each_has_its_own(
    node: NodeInMemory, tmp_path: Path
) -> None:
    world = world_of(node, tmp_path)
    old = contexts.Context("host:1")
    contexts.save(world.environ, contexts.Contexts("", {"dev-node2": old}))

    with context(world, count=3):
        during = contexts.load(world.environ)
    after = contexts.load(world.environ)

    sockets = [f"unix:/data/node{number}/envd.sock" for number in (1, 2, 3)]
    assert during.named["dev"].server == ",".join(sockets)
    assert [during.named[f"dev-node{number}"].server for number in (1, 2, 3)] == sockets
    assert set(after.named) == {"dev", "dev-node2"}
    assert after.named["dev-node2"] == old


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
def test_the_data_stay(node: NodeInMemory, line: str, below: str) -> None:
    with TemporaryDirectory() as home:  # its path is short: a socket would go there
        with dev._data_directory(invocation(world_of(node, Path(home)), line)) as data:
            pass

        assert data == Path(home) / below
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


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_gives_way_to_any_free_one(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port: int = taken.getsockname()[1]

        assert dev_nodes.free_port(port, kind) == 0


def test_each_node_has_a_directory_and_ports_of_its_own(tmp_path: Path) -> None:
    first, second = dev_nodes.places(tmp_path, 2)

    flags = dict(zip(*[iter(second._usual_command()[3:])] * 2, strict=True))

    assert (first.data, second.data) == (tmp_path / "node1", tmp_path / "node2")
    assert flags["--node-name"] == "node2"
    assert flags["--data-dir"] == str(tmp_path / "node2")
    assert flags["--socket"] == str(tmp_path / "node2/envd.sock")
    assert flags["--listen"] in {"127.0.0.1:7430", "127.0.0.1:0"}
    assert flags["--gossip"] in {"127.0.0.1:7431", "127.0.0.1:0"}
    assert flags["--http"] in {"127.0.0.1:7432", "127.0.0.1:0"}


def test_the_node_of_an_earlier_version_stays_where_it_is_as_the_first(tmp_path: Path) -> None:
    (tmp_path / "node.json").touch()

    nodes = dev_nodes.places(tmp_path, 3)

    assert [node.data for node in nodes] == [tmp_path, tmp_path / "node2", tmp_path / "node3"]


def test_the_addresses_are_those_of_the_last_start(tmp_path: Path) -> None:
    lines = [{"event": "node.ready", "listen": f"127.0.0.1:{port}"} for port in (1, 2)]
    (tmp_path / "envd.log").write_text("\n".join(map(json.dumps, [*lines, {"event": "x"}])))

    assert Node(1, tmp_path).addresses() == {"listen": "127.0.0.1:2"}


def test_the_others_join_the_first_with_its_secret_and_its_token(tmp_path: Path) -> None:
    first, second = dev_nodes.places(tmp_path, 2)
    first.data.mkdir()
    (first.data / "admin.token").write_text("t" * 40 + "\n")
    ready = {"event": "node.ready", "gossip": "127.0.0.1:7421"}
    (first.data / "envd.log").write_text(json.dumps(ready))

    flags = dev_nodes.joining(first, second)

    settings = second.data / "envd.toml"
    assert flags == [
        *("--join", "127.0.0.1:7421"),
        *("--cluster-secret-file", str(first.data / "cluster.secret")),
        *("--config", str(settings)),
    ]
    wanted = f'[cloud]\nenabled = true\n[security]\nadmin_token = "{"t" * 40}"\n'
    assert settings.read_text() == wanted
    assert settings.stat().st_mode & 0o777 == 0o600
    assert envd_settings.load({}, {}, settings).security.admin_token == "t" * 40


def test_a_first_node_that_does_not_say_where_it_is_is_told(tmp_path: Path) -> None:
    first, second = dev_nodes.places(tmp_path, 2)
    first.data.mkdir()
    first.log.write_text("{}\n")

    with pytest.raises(Failed, match="does not say where to join it"):
        dev_nodes.joining(first, second)


def program(node: Node, script: str) -> None:
    """Have a node run another program than envd."""
    node._command = [sys.executable, "-c", script]
    node.start(dict(os.environ))


def test_a_daemon_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    node = Node(1, tmp_path)
    node.log.write_text("error: of another start\n")
    lines = "x", "error: the directory is in use", "hint: stop that one"
    program(node, f"import sys; sys.exit(print(*{lines}, sep=chr(10)) or 1)")

    with pytest.raises(Failed) as caught:
        node.ready()

    assert caught.value.message == "node1 did not start: the directory is in use"
    assert caught.value.hint == f"stop that one\n      its log is {node.log}"


def test_daemons_are_stopped_with_sigterm_together(tmp_path: Path) -> None:
    nodes = dev_nodes.places(tmp_path, 2)
    for node in nodes:
        program(node, GRACEFUL)
        wait_for(node, "up")

    dev_nodes.stop(nodes)

    assert [node.process.returncode for node in nodes if node.process] == [7, 7]


GRACEFUL = (
    "import signal; signal.signal(15, lambda *a: exit(7)); print('up', flush=True); signal.pause()"
)


def wait_for(node: Node, text: str) -> None:
    while text not in node.log.read_text():
        assert node.process is not None
        assert node.process.poll() is None


def test_which_node_ended_and_how_is_told(tmp_path: Path) -> None:
    nodes = dev_nodes.places(tmp_path, 2)
    program(nodes[0], GRACEFUL)
    program(nodes[1], "raise SystemExit(3)")

    ended = dev._ended(nodes)
    how = ended.exit_code
    assert nodes[0].process is not None
    nodes[0].process.kill()
    killed = dev._ended(nodes)
    by = killed.exit_code

    assert (ended, how) == (nodes[1], 3)
    assert (killed, by) == (nodes[0], -9)


def test_a_node_that_fails_to_come_back_is_tried_again_and_one_that_left_is_not(
    node: NodeInMemory, tmp_path: Path
) -> None:
    waits: list[float] = []
    world = world_of(node, tmp_path)._replace(sleep=waits.append)
    nodes = dev_nodes.places(tmp_path, 2)
    tries = nodes[0].data / "tries"
    program(nodes[1], "raise SystemExit(0)")
    # Fails when it is started again, twice; then it stops in good order.
    program(
        nodes[0],
        f"import os; os.write(os.open({str(tries)!r}, 0o2101), b'x'); "
        f"raise SystemExit(3 if os.path.getsize({str(tries)!r}) < 3 else 0)",
    )

    dev._stay(invocation(world), nodes)

    shown_lines = shown(world).splitlines()
    assert "node2 stopped in good order, and stays away" in shown_lines
    assert "node1 ended (code 3); it starts again in 3 seconds" in shown_lines
    assert "node1 does not run; it starts again in 6 seconds" in shown_lines
    assert shown_lines[-1] == "no node is left"
    assert waits == [3.0, 6.0]


def test_a_node_that_does_not_come_back_holds_up_no_other(
    node: NodeInMemory, tmp_path: Path
) -> None:
    nodes = dev_nodes.places(tmp_path, 2)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            assert nodes[1].process is not None
            nodes[1].process.kill()
            os.waitid(os.P_PID, nodes[1].process.pid, os.WEXITED | os.WNOWAIT)
        if len(waits) == 4:
            raise KeyboardInterrupt

    program(nodes[0], "raise SystemExit(3)")
    program(nodes[1], GRACEFUL)
    wait_for(nodes[1], "up")
    nodes[1]._command = [sys.executable, "-c", "raise SystemExit(5)"]
    world = world_of(node, tmp_path)._replace(sleep=wait)

    dev._stay(invocation(world), nodes)

    told = shown(world)
    assert "node2 was killed (signal 9); it starts again in 3 seconds" in told
    assert "node2 does not run; it starts again in 6 seconds" in told
    assert "node1 does not run; it starts again in 6 seconds" in told


def test_the_daemon_does_not_get_the_settings_of_another(
    node: NodeInMemory, tmp_path: Path
) -> None:
    environ = dev_nodes.child_environment(world_of(node, tmp_path).environ)

    assert environ.keys() == {"HOME", "PATH"}


def test_the_tour_of_a_cluster_writes_on_one_node_and_reads_on_another(
    node: NodeInMemory, tmp_path: Path
) -> None:
    world = world_of(node, tmp_path)._replace(monotonic=time.monotonic)
    stops = [Stop(f"dev-node{number}", f"node{number}", node) for number in (1, 2, 3)]

    Tour(world, "unix:/x", stops, current=True).first("")

    told = blocks(shown(world))
    assert "envctl --context dev-node1 set demo/dev COLOUR=green" in told
    read = told["envctl --context dev-node3 get demo/dev COLOUR"]
    assert read[0] == "green"
    assert re.fullmatch(r"Measured: a write on node1 was answered after [\d.]+ ms,", read[1])
    assert re.fullmatch(
        r"and it was read on node2 after [\d.]+ ms, on node3 after [\d.]+ ms\.", read[2]
    )
    assert shown(world).endswith("\n\nCtrl-C stops these nodes.\n")
    assert "  envctl cluster members" in shown(world).splitlines()


def test_the_tour_says_where_a_write_does_not_come(node: NodeInMemory, tmp_path: Path) -> None:
    ticks = itertools.count()
    world = world_of(node, tmp_path)._replace(
        monotonic=lambda: float(next(ticks)), sleep=lambda seconds: None
    )
    other = NodeInMemory()
    stops = [Stop("dev-node1", "node1", node), Stop("dev-node2", "node2", other)]

    Tour(world, "unix:/x", stops, current=True).first("")

    assert "and it was not read within 10 s on node2." in shown(world).splitlines()
    other.loop.close()


@pytest.mark.parametrize("count", ["0", "10", "x"])
def test_a_number_of_nodes_has_bounds(envctl: Envctl, count: str) -> None:
    assert envctl(f"dev --nodes {count}").code == 2
    assert not (envctl.home / ".local").exists()
