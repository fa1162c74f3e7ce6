"""Offline snapshots: what is written is read, and only by whom and as long as it should be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.client import snapshot
from envd.core.answers import EnvironmentView, VariableView
from envd.core.errors import SnapshotError
from envd.core.requests import Consistency

NOW_MS = 1_700_000_000_000
TOKEN = "tok-0123456789-0123456789-0123456789"
OTHER = "tok-9876543210-9876543210-9876543210"
CANARY = "canary-41f7"
CONTEXT = "127.0.0.1:7420"


def variable(value: str | None, *, secret: bool = False, source: str = "") -> VariableView:
    return VariableView(value, secret, value is None, "00" * 20, "eu", "node-1", source)


STATE = EnvironmentView(
    "web/prod",
    "ab" * 16,
    "01" * 20,
    {"extends": "web/base"},
    {
        "DATABASE_URL": variable(CANARY, secret=True, source="web/prod"),
        "EMPTY": variable("", source="web/base"),
        "MASKED": variable(None, secret=True),
        "UMLAUT": variable("ä\n\U0001f600"),
    },
    Consistency.EVENTUAL,
    0,
    {"web/base": "cd" * 16},
)


def counting() -> snapshot.RandomBytes:
    """Bytes that look drawn and are the same in each run."""
    drawn = iter(range(1, 1000))
    return lambda size: bytes((next(drawn) * 7) % 256 for _ in range(size))


def written(folder: Path, token: str = TOKEN) -> Path:
    return snapshot.save(folder, CONTEXT, STATE, token=token, now_ms=NOW_MS)


def refusal(
    folder: Path, *, token: str = TOKEN, context: str = CONTEXT, now_ms: int = NOW_MS
) -> str:
    with pytest.raises(SnapshotError) as caught:
        snapshot.load(folder, context, "web/prod", token=token, now_ms=now_ms)
    assert CANARY not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_a_snapshot_gives_back_the_state_and_its_age(tmp_path: Path, token: str) -> None:
    written(tmp_path, token)

    loaded = snapshot.load(tmp_path, CONTEXT, "web/prod", token=token, now_ms=NOW_MS + 90_000)

    assert loaded.state == STATE
    assert loaded.saved_at_ms == NOW_MS
    assert loaded.age_s(NOW_MS + 90_000) == 90


def test_files_are_private_and_hold_nothing_in_clear(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "envd" / "snapshots"
    written(folder, "")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert len(files) == 2
    for path in files:
        raw = path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(word in raw for word in (CANARY.encode(), b"DATABASE_URL", b"web/prod"))


def test_a_directory_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    written(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_it_is_refused_after_seven_days_and_renewed_by_a_save(tmp_path: Path) -> None:
    written(tmp_path)
    week_ms = 7 * 24 * 3600 * 1000

    snapshot.load(tmp_path, CONTEXT, "web/prod", token=TOKEN, now_ms=NOW_MS + week_ms)
    assert refusal(tmp_path, now_ms=NOW_MS + week_ms + 1) == "SNAPSHOT_EXPIRED"
    snapshot.save(tmp_path, CONTEXT, STATE, token=TOKEN, now_ms=NOW_MS + week_ms)
    snapshot.load(tmp_path, CONTEXT, "web/prod", token=TOKEN, now_ms=NOW_MS + week_ms + 1)


def test_it_is_refused_where_it_comes_from_the_future(tmp_path: Path) -> None:
    written(tmp_path)

    assert refusal(tmp_path, now_ms=NOW_MS - 2 * 3600 * 1000) == "SNAPSHOT_EXPIRED"


def test_each_credential_opens_its_own_only(tmp_path: Path) -> None:
    written(tmp_path, TOKEN)
    assert refusal(tmp_path, token=OTHER) == "SNAPSHOT_CREDENTIAL"
    assert refusal(tmp_path, token="") == "SNAPSHOT_CREDENTIAL"

    written(tmp_path, "")
    assert refusal(tmp_path, token=TOKEN) == "SNAPSHOT_CREDENTIAL"
    (tmp_path / "key").unlink()
    assert refusal(tmp_path, token="") == "SNAPSHOT_CREDENTIAL"


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "")
    (tmp_path / "key").chmod(0o640)

    assert refusal(tmp_path, token="") == "SNAPSHOT_KEY_FILE"


def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "")
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path / "key", 65534, -1)

    assert refusal(tmp_path, token="") == "SNAPSHOT_KEY_FILE"


def test_a_key_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    written(tmp_path, "")
    (tmp_path / "key").unlink()
    (tmp_path / "key").mkdir(mode=0o700)

    assert refusal(tmp_path, token="") == "SNAPSHOT_KEY_FILE"


def test_a_new_token_opens_what_was_renewed_for_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    assert list(snapshot.renew(tmp_path, old=TOKEN, new=OTHER)) == [path]

    assert refusal(tmp_path, token=TOKEN) == "SNAPSHOT_CREDENTIAL"
    loaded = snapshot.load(tmp_path, CONTEXT, "web/prod", token=OTHER, now_ms=NOW_MS)
    assert loaded.state == STATE
    assert path.read_bytes()[94:] == before[94:]  # the same key: the state is sealed once
    assert list(snapshot.renew(tmp_path, old="", new=TOKEN)) == []


def test_renewing_passes_over_what_it_cannot_open(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "strange.snapshot").write_bytes(b"x" * 200)
    (tmp_path / ("00" * 16 + ".snapshot")).write_bytes(b"x" * 200)

    assert len(snapshot.renew(tmp_path, old=TOKEN, new=OTHER)) == 1
    assert list(snapshot.renew(tmp_path / "absent", old=TOKEN, new=OTHER)) == []


def test_another_context_or_environment_has_none(tmp_path: Path) -> None:
    path = written(tmp_path)

    assert refusal(tmp_path, context="elsewhere:7420") == "SNAPSHOT_MISSING"
    other = snapshot.save(tmp_path, "elsewhere:7420", STATE, token=TOKEN, now_ms=NOW_MS)
    other.write_bytes(path.read_bytes())
    assert refusal(tmp_path, context="elsewhere:7420") == "SNAPSHOT_DAMAGED"


def test_another_version_is_told_apart_from_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    path.write_bytes(raw)

    assert refusal(tmp_path) == "SNAPSHOT_VERSION"


@given(st.data())
def test_no_changed_bit_and_no_cut_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("snapshots")
    path = written(folder)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    path.write_bytes(raw)

    assert refusal(folder) in {"SNAPSHOT_DAMAGED", "SNAPSHOT_CREDENTIAL", "SNAPSHOT_VERSION"}


def test_the_format_stays(tmp_path: Path, golden: Callable[[str, bytes], bytes]) -> None:
    path = snapshot.save(
        tmp_path, CONTEXT, STATE, token=TOKEN, now_ms=NOW_MS, random_bytes=counting()
    )

    kept = golden("client-snapshot", path.read_bytes())

    assert path.read_bytes() == kept
    assert snapshot.load(tmp_path, CONTEXT, "web/prod", token=TOKEN, now_ms=NOW_MS).state == STATE


def test_servers_name_the_same_context_in_any_order() -> None:
    assert snapshot.context_of(["b:1", "a:1"]) == snapshot.context_of(["a:1", "b:1"]) == "a:1,b:1"
    names = {
        snapshot.context_of(["a:1"], resolve=resolve, reveal=reveal)
        for resolve in (True, False)
        for reveal in (True, False)
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "/h/.cache/envd/snapshots"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/envd/snapshots"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "c"}, "/h/.cache/envd/snapshots"),
    ],
)
def test_snapshots_lie_in_the_cache_of_the_user(environ: dict[str, str], expected: str) -> None:
    assert snapshot.directory(environ) == Path(expected)


def test_without_a_home_there_is_no_place() -> None:
    with pytest.raises(SnapshotError) as caught:
        snapshot.directory({})

    assert caught.value.reason == "SNAPSHOT_NO_PLACE"
