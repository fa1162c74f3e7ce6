"""The settings of a node's own backups: what goes together, and what is no recovery key."""

from __future__ import annotations

from pathlib import Path

import pytest

from envd.core.errors import SettingsError
from envd.settings import Duration, Machine, Settings, load
from tests.storage.backups import RECOVERY

USER = Machine(host_name=lambda: "host-1", is_root=lambda: False)


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "envd.toml"
    file.write_text(f"[backup]\n{text}\n")
    return load({}, {"HOME": "/home/ada"}, file, machine=USER)


def test_a_schedule_is_read_with_its_directory_and_keys(tmp_path: Path) -> None:
    backup = loaded(
        tmp_path,
        f'directory = "~/b"\nevery = "12h"\nrecovery_keys = ["{RECOVERY.public}"]\nkeep_count = 3',
    ).backup

    assert backup.directory == Path("/home/ada/b")
    assert backup.every == Duration.parse("12h")
    assert backup.recovery_keys == (RECOVERY.public,)
    assert (backup.keep_count, backup.keep_days) == (3, 30)


def test_a_directory_alone_is_for_lists(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'directory = "/b"').backup.every is None
    assert loaded(tmp_path, "").ineffective() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('every = "1h"', "backup.directory"),
        ('every = "1h"\ndirectory = "/b"', "backup.recovery_keys"),
        ('every = "10s"', "from 1m"),
        ('recovery_keys = ["envd_recovery_pub_aaaa"]', "recovery_keys"),
        (f'recovery_keys = ["{RECOVERY.secret}"]', "recovery_keys"),
        ("keep_count = 0", "keep_count"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, text)

    assert words in refused.value.message
    assert RECOVERY.secret not in refused.value.message + refused.value.hint
