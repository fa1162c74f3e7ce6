"""docs/operations.md does what it says: each procedure, with real daemons and real disasters."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import envd
from tests.e2e.node import Node
from tests.e2e.operating import Machine, Operator, procedures

PLAIN, SERIAL = "web/prod", "web/leader"
MOVES_S = 300.0


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    yield made
    made.close()


def done(node: Node, *arguments: str) -> str:
    result = node.envctl(*arguments)
    assert result.code == 0, result.err
    return result.out


def document(node: Node, *arguments: str) -> Any:
    return json.loads(done(node, *arguments, "-o", "json"))


def write_some(node: Node) -> None:
    """One variable of a plain environment, and one of a serial one."""
    done(node, "set", PLAIN, "A=1")
    done(node, "set", SERIAL, "NAME=none")
    done(node, "settings", SERIAL, "mode=serial")


def client(machines: Sequence[Machine]) -> envd.SyncClient:
    addresses = [f"{each.address}:7420" for each in machines]
    return envd.connect_sync(*addresses, snapshot=False, environ={})


def write_without_end(program: envd.SyncClient, size: int) -> None:
    for at in count():
        program.set(f"fill/{at}", {"A": "x" * size})


def test_every_procedure_of_the_page_is_followed_here() -> None:
    text = Path(__file__).read_text()

    assert [title for title in procedures() if f'follows("{title}")' not in text] == []


def test_a_node_is_added_and_taken_out_again(operator: Operator) -> None:
    n1, *_ = operator.start(3)
    write_some(n1)

    with operator.follows("What is the matter?") as block:
        next(block)
    operator.machine("n4")
    with operator.follows("Add a node") as block:
        next(block)
        next(block)
    done(operator.machines["n4"], "set", PLAIN, "B=2")
    with operator.follows("Take a node out for good") as block:
        next(block)

    assert done(n1, "get", PLAIN, "B") == "2"
    assert document(n1, "cluster", "topology")["majority"]


def test_a_node_takes_its_share_and_hands_it_over_again(operator: Operator) -> None:
    machines = [operator.machine(f"n{number}") for number in range(1, 5)]
    for each in machines:
        with (each.directory / "etc" / "envd.toml").open("a") as settings:
            settings.write("\n[distributed]\nreplication_factor = 2\n")
    n1, *_, n4 = machines
    operator.start(3, machines=machines[:3])
    write_some(n1)
    for at in range(20):
        done(n1, "set", f"many/{at}", f"A={at}")

    with operator.follows("More nodes than copies") as block:
        next(block)
        until_moved(n1, 4)
        next(block)
        done(n4, "set", SERIAL, "NAME=four")
        next(block)

    assert n4.process is None or n4.process.wait(60) == 0
    until_moved(n1, 3)
    assert [done(n1, "get", f"many/{at}", "A") for at in range(20)] == [str(at) for at in range(20)]
    assert done(n1, "get", SERIAL, "NAME", "--consistency", "strong") == "four"


def until_moved(node: Node, nodes: int) -> None:
    """Wait until so many nodes hold partitions, and none is on its way."""
    deadline = time.monotonic() + MOVES_S
    while True:
        seen = document(node, "cluster", "topology")
        holding = [each for each in seen["nodes"] if each["partitions"]]
        if len(holding) == nodes and not seen["moving"] and not seen["waiting"]:
            return
        assert time.monotonic() < deadline, seen
        time.sleep(1)


def test_a_node_that_reaches_nobody_does_not_leave(operator: Operator) -> None:
    n1, n2, n3 = operator.start(3)
    n1.kill()
    n3.kill()

    refused = n2.envctl("cluster", "leave", "--yes")

    assert (refused.code, "nothing was changed" in refused.err) == (5, True)
    assert done(n2, "set", PLAIN, "A=1")


def test_a_dead_node_is_replaced_and_nothing_is_missing(operator: Operator) -> None:
    n1, n2, n3 = operator.start(3)
    write_some(n1)
    done(n2, "set", PLAIN, "OF_N2=yes")
    n2.kill()
    shutil.rmtree(n2.data)
    done(n1, "set", PLAIN, "DURING=yes")
    done(n3, "set", SERIAL, "NAME=during")

    with operator.follows("Replace a dead node") as block:
        next(block)
        next(block)

    assert [done(n2, "get", PLAIN, each) for each in ("A", "OF_N2", "DURING")] == [
        "1",
        "yes",
        "yes",
    ]
    assert done(n2, "get", SERIAL, "NAME", "--consistency", "strong") == "during"


def test_nodes_are_restarted_one_after_the_other_without_a_failed_request(
    operator: Operator,
) -> None:
    machines = operator.start(3)
    write_some(machines[0])
    ended = threading.Event()
    asked: list[int] = []

    def use() -> None:
        with client(machines) as program:
            while not ended.is_set() or not asked:
                program.set(PLAIN, {"N": str(len(asked))})
                program.set(SERIAL, {"N": str(len(asked))})
                asked.append(len(program.get(PLAIN).variables))

    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            use()
        except envd.EnvdError as error:
            failed.append(error)

    user = threading.Thread(target=guarded)
    user.start()
    try:
        with operator.follows("Restart or upgrade without a failed request") as block:
            next(block)
    finally:
        ended.set()
        user.join()

    assert not failed, failed
    assert done(machines[0], "get", PLAIN, "N") == str(len(asked) - 1)


def test_a_zone_is_lost_and_comes_back(operator: Operator) -> None:
    n1, n2, _, n4, _ = operator.start(5, at_once=True)
    write_some(n2)
    n1.kill()
    n4.kill()

    with operator.follows("Lose a zone") as block:
        next(block)
        next(block)

    assert done(n1, "get", PLAIN, "DURING") == "1"
    assert done(n4, "get", SERIAL, "NAME", "--consistency", "strong") == "two"
    assert not document(n1, "conflicts")["conflicts"]


def test_the_majority_of_the_voters_is_lost_and_comes_back_later(operator: Operator) -> None:
    n1, n2, n3 = operator.start(3)
    write_some(n1)
    n1.stop()
    done(n2, "set", SERIAL, "NAME=unseen")
    n2.kill()
    n3.kill()
    n1.start()

    with operator.follows("Lose the majority of the voters") as block:
        next(block)
        next(block)
        next(block)

    (conflict,) = document(n1, "conflicts", SERIAL)["conflicts"]
    assert (conflict["kept"]["value"], conflict["lost"]["value"]) == ("one", "unseen")
    assert done(n3, "get", SERIAL, "NAME", "--consistency", "strong") == "one"


def test_an_old_disk_that_was_put_back_becomes_another_node(operator: Operator) -> None:
    n1, _, n3 = operator.start(3)
    write_some(n1)
    n3.stop()
    copy = n3.directory / "copy"
    shutil.copytree(n3.data, copy)
    n3.start()
    done(n3, "set", PLAIN, "LATER=yes")
    n3.kill()
    shutil.rmtree(n3.data)
    shutil.copytree(copy, n3.data)
    n3.start()

    with operator.follows("Put back an old disk") as block:
        next(block)

    assert "node.renewed" in [event["event"] for event in n3.events]
    assert done(n3, "get", PLAIN, "LATER") == "yes"


def test_a_cluster_that_is_lost_is_restored_from_a_backup(operator: Operator) -> None:
    machines = operator.start(3)
    n1, n2, n3 = machines
    write_some(n1)
    (n1.directory / "root" / "passphrase").write_text("correct horse battery staple\n")
    (n1.directory / "root" / "passphrase").chmod(0o600)
    backup = str(n1.directory / "mnt" / "backups" / "monday.envd-backup")
    passphrase = str(n1.directory / "root" / "passphrase")
    done(n1, "backup", "create", "--file", backup, "--passphrase-file", passphrase)
    before = document(n1, "list")
    for each in machines:
        each.kill()
        shutil.rmtree(each.data)

    with operator.follows("Restore the whole cluster") as block:
        next(block)
        next(block)

    assert document(n3, "list") == before
    assert done(n2, "set", SERIAL, "NAME=again")


def test_a_clock_that_is_off_is_shown_and_set_right(operator: Operator) -> None:
    machines = [operator.machine(name) for name in ("n1", "n2", "n3")]
    machines[2].clock.write_text("120")
    machines[2].wrong_clock = True
    operator.start(3, machines=machines)
    done(machines[2], "set", PLAIN, "A=1")

    with operator.follows("Set a clock right") as block:
        next(block)

    assert document(machines[0], "cluster", "status")["quarantined"] == 0
    assert done(machines[0], "get", PLAIN, "A") == "1"


def test_a_full_disk_refuses_writes_until_there_is_room(operator: Operator) -> None:
    machines = [operator.machine(name) for name in ("n1", "n2", "n3")]
    if not machines[0].has_small_disk():
        pytest.skip("no file system can be mounted here")
    operator.start(3, machines=machines)
    machines[0].fill()
    with client(machines[:1]) as program:
        for size in (900_000, 20_000, 1):  # What is left of the journal takes small ones.
            with pytest.raises(envd.EnvdError, match="no room"):
                write_without_end(program, size)

    with operator.follows("Make room on a full disk") as block:
        next(block)
        next(block)

    with client(machines[:1]) as program:
        assert program.set(PLAIN, {"SIZE": "3"}).revision
