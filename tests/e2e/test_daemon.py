"""The daemon as a process: how it starts, refuses to start, stops, and what it leaves."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envd.core.errors import NotFound
from envd.core.requests import (
    DeleteRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.storage.segment import raw_frames
from tests.e2e.node import PATIENCE_S, Node

CANARY = "c4n4ry-plaintext-value"


def put(environment: str, **values: str) -> WriteRequest:
    return WriteRequest(environment, tuple(Put(name, value) for name, value in values.items()))


def test_sigterm_and_ctrl_c_stop_with_exit_code_zero_and_keep_everything(node: Node) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with node.connection() as connection:
            connection.write(put("e", **{signal.Signals(number).name: "1"}))

        assert node.stop(number) == 0
        node.start()

    with node.connection() as connection:
        assert set(connection.get(ReadRequest("e")).variables) == {"SIGTERM", "SIGINT"}
    assert not any(event["event"] == "store.replayed" for event in node.events)


def test_sighup_changes_the_log_level_live(stopped: Node) -> None:
    config = stopped.directory / "envd.toml"
    config.write_text('[observability]\nlog_level = "info"\n')
    stopped.start("--config", str(config))
    config.write_text('[observability]\nlog_level = "error"\n[node]\nregion = "moon"\n')

    assert stopped.process is not None
    stopped.process.send_signal(signal.SIGHUP)
    with stopped.connection() as connection:
        connection.write(put("e", A="1"))
    stopped.stop()

    events = [event["event"] for event in stopped.events]
    assert "settings.reloaded" in events
    assert "settings.need_restart" in events
    assert "node.stopped" not in events


def test_closed_streams_are_no_fault(stopped: Node) -> None:
    address = stopped.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(PATIENCE_S)
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *stopped.command()],
            env=stopped.environ(NOTIFY_SOCKET=str(address)),
        )
        told = systemd.recv(1000)
        process.terminate()

    assert told.startswith(b"READY=1\n")
    assert process.wait(PATIENCE_S) == 0


def test_a_second_daemon_on_the_same_directory_is_refused(node: Node) -> None:
    assert node.process is not None

    refused = node.fails_to_start()

    assert refused.code == 1
    assert f"process {node.process.pid}" in refused.err
    assert "hint:" in refused.err
    assert "Traceback" not in refused.err


def test_a_taken_port_is_refused_with_its_address(stopped: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        for flag in ("--listen", "--http"):
            refused = stopped.fails_to_start(flag, address)

            assert refused.code == 1
            assert address in refused.err
            assert "Traceback" not in refused.err


@pytest.mark.parametrize("flags", [("--frob",), ("--listen", "rubbish"), ("--role", "king")])
def test_a_wrong_flag_is_wrong_usage(stopped: Node, flags: tuple[str, ...]) -> None:
    refused = stopped.fails_to_start(*flags)

    assert refused.code == 2
    assert refused.err.startswith("error: ")


def test_other_addresses_than_loopback_need_insecure(stopped: Node) -> None:
    refused = stopped.fails_to_start("--listen", "0.0.0.0:0")

    assert refused.code == 1
    assert "--insecure" in refused.err


def test_insecure_says_so_loudly_and_lets_everybody_in(stopped: Node) -> None:
    ready = stopped.start("--insecure", "--http", "0.0.0.0:0")

    assert any(event["event"] == "node.insecure" for event in stopped.events)
    port = ready["http"].rpartition(":")[2]
    with pytest.raises(urllib.error.HTTPError) as absent:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/environments/e")
    assert absent.value.code == 404
    absent.value.close()


def test_http_is_open_for_health_only(node: Node) -> None:
    ready = next(event for event in node.events if event["event"] == "node.ready")
    base = f"http://{ready['http']}"

    with urllib.request.urlopen(f"{base}/readyz") as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as closed:
        urllib.request.urlopen(f"{base}/v1/environments/e")
    assert closed.value.code == 401
    closed.value.close()


def test_a_stale_socket_of_a_killed_daemon_is_replaced(node: Node) -> None:
    node.kill()
    assert node.socket.exists()

    node.start()

    with node.connection() as connection:
        assert connection.status().generation == 2
    assert stat.S_IMODE(node.socket.stat().st_mode) == 0o600


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Nobody can write there; root neither, where it may mount."""
    directory.mkdir(mode=0o500)
    if os.geteuid() != 0:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("root may write everywhere, and this machine lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_read_only_data_directory_is_named(stopped: Node) -> None:
    with read_only(stopped.data):
        refused = stopped.fails_to_start()

    assert refused.code == 1
    assert str(stopped.data) in refused.err
    assert "hint:" in refused.err
    assert "Traceback" not in refused.err


def test_no_value_stands_in_clear_in_any_file(node: Node) -> None:
    secret = Put("API_KEY", CANARY + "-secret", secret=True)
    with node.connection() as connection:
        first = connection.write(WriteRequest("e", (secret, Put("A", CANARY + "-plain"))))
        connection.write(put("e", A=CANARY + "-edited"))
        connection.rollback(RollbackRequest("e", first.revision))
        connection.write(put("gone", A=CANARY + "-deleted"))
        connection.delete(DeleteRequest("gone"))
        connection.write(put("big", A=CANARY * 1000))

    assert node.files_with(CANARY.encode()) == []
    node.kill()
    assert node.files_with(CANARY.encode()) == []
    node.start()
    node.stop()

    assert node.files_with(CANARY.encode()) == []
    assert not any(CANARY in str(event) for event in node.events)


def test_what_was_deleted_and_rolled_back_is_so_after_a_crash(node: Node) -> None:
    with node.connection() as connection:
        first = connection.write(put("e", A="1", B="b"))
        connection.write(put("e", A="2"))
        back = connection.rollback(RollbackRequest("e", first.revision))
        connection.write(put("gone", A="1"))
        connection.delete(DeleteRequest("gone"))

    node.kill()
    node.start()

    with node.connection() as connection:
        assert connection.get(ReadRequest("e")).revision == back.revision
        listed = connection.list(ListRequest()).environments
        assert [item.environment for item in listed] == ["e"]
        with pytest.raises(NotFound):
            connection.get(ReadRequest("gone"))


def damage_first_frame(node: Node) -> None:
    segment = min((node.data / "journal").glob("*.seg"))
    with segment.open("r+b") as file:
        file.seek(120)
        byte = file.read(1)
        file.seek(120)
        file.write(bytes([byte[0] ^ 1]))


def truncate_state(node: Node) -> None:
    state = node.data / "state" / "data.mdb"
    os.truncate(state, state.stat().st_size - 4096)


def scribble_over_state(node: Node) -> None:
    state = node.data / "state" / "data.mdb"
    size = state.stat().st_size
    with state.open("r+b") as file:
        for page in range(2, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)


@pytest.mark.parametrize("damage", [damage_first_frame, truncate_state, scribble_over_state])
def test_damage_is_told_before_anything_is_served(node: Node, damage: object) -> None:
    with node.connection() as connection:
        for n in range(300):
            connection.write(put(f"e{n}", A="x" * 200))
    node.stop()
    node.start()
    node.kill()
    assert callable(damage)
    damage(node)

    refused = node.fails_to_start()

    assert refused.code == 1
    assert refused.err.count("error:") == 1
    assert "hint:" in refused.err
    assert "Traceback" not in refused.err


def test_a_torn_last_group_is_dropped_reported_and_survives_more_restarts(node: Node) -> None:
    with node.connection() as connection:
        connection.write(put("kept", A="1"))
    node.kill()
    segment = max((node.data / "journal").glob("*.seg"))
    *_, last = raw_frames(segment.read_bytes(), int(segment.stem))
    with segment.open("r+b") as file:
        file.seek(last.end)
        file.write(b"GRUP" + os.urandom(500))

    node.start()

    assert any(event["event"] == "journal.tail_dropped" for event in node.events)
    for _ in range(2):
        with node.connection() as connection:
            assert connection.get(ReadRequest("kept")).variables["A"].value == "1"
            connection.write(put("more", A="1"))
        node.kill()
        node.start()
