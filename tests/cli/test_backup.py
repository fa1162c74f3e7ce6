"""`envctl backup`: files that are made, looked at, verified and made a node of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envd.backup_job import backup
from envd.core.backups import BackupFacts, BackupListing, BackupRequest
from envd.core.errors import Unavailable
from envd.security.backup_keys import read_recovery_key
from tests.cli.bench import Envctl, NodeInMemory
from tests.storage.backups import (
    PASSPHRASE,
    RECOVERY,
    backup_of,
    by_passphrase,
    made_state,
    order_for,
    snapshot_of,
)
from tests.storage.world import CountingRng

FIGURES = "3 environments, 108 variables, 8 commits"
GIVEN = {"ENVD_BACKUP_PASSPHRASE": PASSPHRASE}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that is not running."""
    path = tmp_path_factory.mktemp("node") / "data"
    asyncio.run(made_state(path))
    return path


@pytest.fixture(autouse=True)
def _makes_backups(node: NodeInMemory, data: Path) -> None:
    def make(request: BackupRequest) -> Iterator[bytes]:
        with snapshot_of(data) as snapshot:
            yield from backup(order_for(data, request), snapshot, CountingRng())

    node.make_backup = make


@pytest.fixture
def made(data: Path, envctl: Envctl) -> Path:
    """A backup that PASSPHRASE opens, cheaply."""
    return backup_of(data, envctl.home / "made.envd-backup", by_passphrase())


def left_over(envctl: Envctl) -> list[str]:
    return sorted(path.name for path in envctl.home.iterdir())


# -- create ----------------------------------------------------------------------------------------


def test_create_asks_twice_and_writes_a_file_named_after_node_and_time(envctl: Envctl) -> None:
    result = envctl.ok("backup create", typed="", secret=PASSPHRASE)

    (name,) = left_over(envctl)
    assert name == "envd-node-1-20231114T221320Z.envd-backup"
    assert (envctl.home / name).stat().st_mode & 0o777 == 0o600
    assert len(envctl.questions) == 2
    assert name in result.out
    assert FIGURES in result.out
    assert "verify" not in result.err


def test_create_and_restore_with_the_cost_that_people_get(
    envctl: Envctl, node: NodeInMemory
) -> None:
    (envctl.home / "secret").write_text(PASSPHRASE + "\n")
    (envctl.home / "secret").chmod(0o600)

    made = envctl.json("backup create --file b --passphrase-file secret")
    restored = envctl.json("backup restore b --data-dir new --passphrase-file secret")

    assert (made["state"], made["locks"], made["environments"]) == ("whole", ["passphrase"], 3)
    assert restored["cluster_id"] != made["cluster_id"]
    assert json.loads((envctl.home / "new/node.json").read_text())["generation"] == 0
    (request,) = [asked for call, asked in node.asked if call == "backup"]
    assert PASSPHRASE not in repr(request)
    assert request.passphrase.log_n == 17


def test_create_writes_to_standard_output_but_not_to_a_terminal(envctl: Envctl) -> None:
    refused = envctl("backup create --file -", terminal=True, environ=GIVEN)

    assert refused.code == 2
    assert left_over(envctl) == []


def test_create_makes_a_recovery_key_and_says_what_to_do_with_it(envctl: Envctl) -> None:
    result = envctl.ok("backup create --new-recovery-key my.key --file b")

    key = read_recovery_key(envctl.home / "my.key")
    assert key.public in result.err
    assert key.secret not in result.err + result.out
    assert "keep it safe" in result.err
    assert envctl.ok("backup verify b --recovery-key my.key").out.count("opened") == 1
    again = envctl("backup create --new-recovery-key my.key --file c")
    assert again.code == 1
    assert "--recovery-key" in again.err
    assert left_over(envctl) == ["b", "my.key"]


def test_create_takes_public_keys_and_files_and_no_secret(envctl: Envctl) -> None:
    envctl.file("public", RECOVERY.public)

    envctl.ok(f"backup create --file b --recovery-key public --recovery-key {RECOVERY.public}")

    assert envctl.json("backup list b")["backups"][0]["locks"] == [RECOVERY.public]
    refused = envctl(f"backup create --file c --recovery-key {RECOVERY.secret}")
    assert refused.code == 2
    assert RECOVERY.secret not in refused.err
    both = envctl("backup create --file c --recovery-key public --passphrase-file public")
    assert both.code == 2


def test_create_without_anybody_to_ask_says_how(envctl: Envctl) -> None:
    result = envctl("backup create --file b")

    assert result.code == 2
    assert "--passphrase-file" in result.err
    assert left_over(envctl) == []


@pytest.mark.parametrize(
    ("secret", "code"), [("short", 2), ("", 1), (EOFError, 1), (KeyboardInterrupt, 130)]
)
def test_create_that_is_not_gone_through_with_asks_once_and_leaves_nothing(
    envctl: Envctl, secret: str | type[BaseException], code: int
) -> None:
    result = envctl("backup create --file b", typed="", secret=secret)

    assert result.code == code
    assert "internal" not in result.err
    assert len(envctl.questions) == 1
    assert left_over(envctl) == []


def test_create_overwrites_nothing(envctl: Envctl) -> None:
    envctl.file("b", "mine")

    result = envctl("backup create --file b", environ=GIVEN)

    assert result.code == 4
    assert (envctl.home / "b").read_text() == "mine"


def test_a_backup_that_breaks_off_or_ends_too_early_leaves_no_file(
    envctl: Envctl, node: NodeInMemory
) -> None:
    whole = node.make_backup

    def cut(request: BackupRequest) -> Iterator[bytes]:
        yield b"".join(whole(request))[:-1]

    def lost(request: BackupRequest) -> Iterator[bytes]:
        yield next(whole(request))
        raise Unavailable("the connection broke")

    for make, code in ((cut, 1), (lost, 5)):
        node.make_backup = make
        assert envctl("backup create --file b", environ=GIVEN).code == code
        assert left_over(envctl) == []


def test_a_full_disk_is_told_and_leaves_nothing(envctl: Envctl) -> None:
    result = envctl("backup create --file /dev/full/b", environ=GIVEN)

    assert result.code == 1
    assert result.err.startswith("error: ")


# -- list ------------------------------------------------------------------------------------------


def test_list_shows_what_the_node_has_and_when_the_next_one_comes(
    envctl: Envctl, node: NodeInMemory
) -> None:
    one = BackupFacts(
        "/backups/scheduled-1.envd-backup",
        3 << 20,
        created="2026-01-01T00:00:00Z",
        environments=1234,
        variables=5,
    )
    node.backups_now = BackupListing(
        (one,), "/backups", "1d", "2026-01-02T00:00:00.000Z", "disk full"
    )

    result = envctl.ok("backup list")

    assert result.lines[0].split() == [
        "CREATED", "ENVIRONMENTS", "VARIABLES", "SIZE", "STATE", "FILE",
    ]  # fmt: skip
    assert "1,234" in result.lines[1]
    assert "3.0 MiB  whole  scheduled-1.envd-backup" in result.lines[1]
    assert "every 1d" in result.err
    assert "the last try failed: disk full" in result.err


def test_list_says_where_a_node_keeps_none(envctl: Envctl, node: NodeInMemory) -> None:
    assert "name no [backup] directory" in envctl.ok("backup list").err
    node.backups_now = replace(node.backups_now, directory="/backups")
    assert "no schedule" in envctl.ok("backup list").err


def test_list_shows_the_files_of_a_directory_and_which_are_damaged(
    envctl: Envctl, made: Path
) -> None:
    flipped = bytearray(made.read_bytes())
    flipped[-300] ^= 1
    (envctl.home / "flipped.envd-backup").write_bytes(flipped)
    envctl.file("notes.txt", "not a backup")

    quick, checked = envctl.ok("backup list ."), envctl.ok("backup list . --check")

    assert [line.split()[-1] for line in quick.lines[1:]] == [
        "flipped.envd-backup",
        "made.envd-backup",
    ]
    assert "damaged" in checked.lines[1]
    assert "flipped.envd-backup is damaged at byte" in checked.err
    assert "checked" in checked.lines[2]


def test_list_of_one_file_tells_all_that_it_says_of_itself(envctl: Envctl, made: Path) -> None:
    result = envctl.ok(f"backup list {made.name}")

    for words in ("node node-1", "default (cccc", FIGURES, "passphrase"):
        assert words in result.out
    assert envctl("backup list nowhere").code == 1
    assert envctl("backup list --check").code == 2


# -- verify ----------------------------------------------------------------------------------------


def test_verify_checks_without_a_key_and_says_what_it_did_not_look_at(
    envctl: Envctl, made: Path
) -> None:
    result = envctl.ok(f"backup verify {made.name}")

    assert "its checksums hold" in result.out
    assert "--open" in result.err


def test_verify_opens_with_the_passphrase(envctl: Envctl, made: Path) -> None:
    given = envctl.ok(f"backup verify {made.name}", environ=GIVEN)
    asked = envctl.ok(f"backup verify {made.name} --open", typed="", secret=PASSPHRASE)
    wrong = envctl(f"backup verify {made.name} --open", typed="", secret="another one")

    assert "whole, opened and checked" in given.out
    assert given.out == asked.out
    assert len(envctl.questions) == 2
    assert wrong.code == 1
    assert "passphrase does not open" in wrong.err


def test_verify_names_what_is_damaged_among_several(envctl: Envctl, made: Path) -> None:
    flipped = bytearray(made.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    envctl.file("flipped", bytes(flipped))

    alone = envctl("backup verify flipped")
    both = envctl(f"backup verify flipped {made.name}")

    assert alone.code == 1
    assert "flipped is damaged at byte" in alone.err
    assert "hint: use another backup" in alone.err
    assert both.code == 7
    assert "its checksums hold" in both.out


# -- restore ---------------------------------------------------------------------------------------


def test_restore_makes_a_node_and_says_how_to_start_it(envctl: Envctl, made: Path) -> None:
    result = envctl.ok(f"backup restore {made.name} --data-dir new", environ=GIVEN)

    new = envctl.home / "new"
    assert sorted(path.name for path in new.iterdir()) == [
        "admin.token", "keyring", "local.key", "lock", "node.json", "state",
    ]  # fmt: skip
    assert f"restored {FIGURES}" in result.out
    assert f"envd --data-dir {new}" in result.out
    assert (new / "admin.token").read_text().strip() not in result.out


def test_restore_refuses_a_directory_that_is_not_empty_before_it_asks_for_anything(
    envctl: Envctl, made: Path
) -> None:
    result = envctl(f"backup restore {made.name} --data-dir .", typed="", secret=PASSPHRASE)

    assert result.code == 1
    assert "is not empty" in result.err
    assert envctl.questions == []


def test_restore_verifies_before_it_writes(envctl: Envctl, made: Path) -> None:
    flipped = bytearray(made.read_bytes())
    flipped[-60] ^= 1
    made.write_bytes(flipped)

    result = envctl(f"backup restore {made.name} --data-dir new", environ=GIVEN)

    assert result.code == 1
    assert str(made) in result.err
    assert not (envctl.home / "new").exists()


def test_restore_with_dry_run_only_looks(envctl: Envctl, made: Path) -> None:
    result = envctl.ok(f"backup restore {made.name} --data-dir new --dry-run", environ=GIVEN)

    assert "would be restored" in result.out
    assert not (envctl.home / "new").exists()


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "backup",
        "backup destroy",
        "backup create some.file",
        "backup verify",
        "backup verify b --file x",
        "backup restore b",
        "backup restore --data-dir new",
        "backup restore a b --data-dir new",
        f"backup verify b --recovery-key {RECOVERY.secret}",
        "backup list --open",
    ],
)
def test_wrong_words_are_told_with_what_is_right(envctl: Envctl, line: str) -> None:
    result = envctl(line)

    assert result.code == 2
    assert "hint: " in result.err
    assert RECOVERY.secret not in result.err


def test_a_passphrase_file_that_others_can_read_is_noted_and_an_empty_one_refused(
    envctl: Envctl, made: Path
) -> None:
    envctl.file("p", PASSPHRASE + "\r\n").chmod(0o644)

    result = envctl.ok(f"backup verify {made.name} --passphrase-file p")

    assert "chmod 600 p" in result.err
    for content in (b"", b"\n", b"\xff"):
        envctl.file("p", content)
        assert envctl(f"backup verify {made.name} --passphrase-file p").code == 1
    assert envctl(f"backup verify {made.name} --passphrase-file missing").code == 1
    piped = envctl.ok(f"backup verify {made.name} --passphrase-file -", stdin=PASSPHRASE + "\n")
    assert "opened" in piped.out
