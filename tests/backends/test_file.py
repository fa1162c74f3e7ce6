"""Variables in one file: what people wrote stays, and what they do meanwhile is not lost."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.backends.contract import Backend, Load, Options
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    ValueTooLarge,
)
from envd.backends.file import FileBackend
from envd.backends.file_document import MAX_FILE_BYTES, FileLock
from envd.backends.file_marks import lock_path, side_path
from envd.core.names import VARIABLE_PATTERN
from tests.backends.driving import (
    EVERYTHING,
    delete,
    do,
    items,
    key,
    one,
    pages,
    put,
    results,
    values,
)

REAL = Path(__file__).parent.parent / "data" / "dotenv"
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def opened(path: Path, **more: object) -> FileBackend:
    return FileBackend(Options(str(path), settings=more, wall_ms=lambda: 7_000))


def copied(source: Path, path: Path) -> list[str]:
    """Copy a file; return its comments."""
    path.write_bytes(source.read_bytes())
    return [line for line in source.read_text().splitlines() if line.lstrip().startswith("#")]


def entries(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


class Editing:
    """A clock of the backend that has somebody save the file whenever it is read."""

    def __init__(self, edit: Callable[[], object]) -> None:
        self._edit = edit

    def __call__(self, text: str) -> str:
        self._edit()
        return f"{len(text)}"


def test_it_is_a_backend(tmp_path: Path) -> None:
    assert isinstance(opened(tmp_path / ".env"), Backend)


@pytest.mark.parametrize(
    "name", [".env", "app.env", ".env.production", "a.json", "a.yaml", "a.yml"]
)
@settings(max_examples=25)
@given(written=st.dictionaries(NAMES, VALUES, min_size=1, max_size=6))
async def test_a_scan_gives_back_what_was_put(name: str, written: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = opened(Path(directory, name))

        outcomes = await do(file, *(put(each, value) for each, value in written.items()))

        found = await items(file)
        assert {each.key.variable: each.value for each in found.values()} == written
        assert [each.version for each in outcomes] == [found[key(name)].version for name in written]


@given(
    variable=st.from_regex(VARIABLE_PATTERN, fullmatch=True).filter(lambda name: len(name) < 200)
)
def test_every_variable_has_a_name_that_leads_back(variable: str) -> None:
    plain = FileBackend(Options("/srv/.env"))
    prefixed = FileBackend(Options("/srv/.env", name_template="APP_{variable}"))

    assert plain.encode(key(variable)) == variable
    assert plain.decode(variable) == key(variable)
    assert prefixed.decode(prefixed.encode(key(variable))) == key(variable)


async def test_names_that_the_template_does_not_make_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PATH=/bin\nAPP_A=1\n")
    file = FileBackend(Options(str(path), name_template="APP_{variable}"))

    await do(file, put("B", "2"))

    assert await values(file) == {key("A"): "1", key("B"): "2"}
    assert path.read_text() == "PATH=/bin\nAPP_A=1\nAPP_B=2\n"


@pytest.mark.parametrize("template", ["A/{variable}", "é{variable}"])
async def test_a_template_that_makes_no_names_of_variables_is_refused(
    tmp_path: Path, template: str
) -> None:
    file = FileBackend(Options(str(tmp_path / ".env"), name_template=template))

    outcome = await one(file, put("B", "2"))

    assert isinstance(outcome.error, InvalidName)


@pytest.mark.parametrize("source", sorted(REAL.glob("*.env")), ids=lambda file: file.stem)
async def test_of_a_real_file_one_line_changes(tmp_path: Path, source: Path) -> None:
    dialect = "node" if source.name.startswith("dotenv-js") else "python"
    path = tmp_path / ".env"
    comments = copied(source, path)
    file = opened(path, dialect=dialect)
    before = await items(file)
    first = next(iter(before.values()))

    outcomes = await do(
        file,
        put(first.key.variable, "changed", expect=first.version, any_owner=True),
        put("ADDED_BY_ENVD", "new"),
    )

    after = path.read_text().splitlines()
    assert results(outcomes) == ["applied", "applied"]
    assert [line for line in after if line.lstrip().startswith("#")] == comments
    assert after[-1] == "ADDED_BY_ENVD=new"
    assert (await values(file))[first.key] == "changed"


async def test_each_variable_has_a_version_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\nB=1\n")
    file = opened(path)
    before = await items(file)

    path.write_text("# moved\nB=1\nA=2\n")

    after = await items(file)
    assert after[key("A")].version != before[key("A")].version
    assert after[key("B")].version == before[key("B")].version
    assert before[key("A")].version != before[key("B")].version


async def test_versions_are_made_by_the_fingerprint_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    file = FileBackend(Options(str(path), fingerprint=lambda text: f"keyed {len(text)}"))

    found = await items(file)

    assert found[key("A")].version == "keyed 3"


async def test_a_stamp_is_there_until_somebody_else_edits(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = opened(path)
    await do(file, put("A", "1", stamp="s1"), put("B", "1", stamp="s1"))
    mine = (await items(file))[key("A")]

    path.write_text(path.read_text().replace("A=1", "A=theirs"))

    theirs = await items(opened(path))
    assert (mine.stamp, mine.managed, mine.changed_ms) == ("s1", True, 7_000)
    assert (theirs[key("A")].stamp, theirs[key("A")].managed) == ("", True)
    assert theirs[key("B")].stamp == "s1"


async def test_the_stamp_of_a_write_that_a_crash_undid_is_that_before_it(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = opened(path)
    first = await one(file, put("A", "1", stamp="s1"))
    before = path.read_bytes()
    await do(file, put("A", "2", expect=first.version, stamp="s2"))

    path.write_bytes(before)

    assert (await items(file))[key("A")].stamp == "s1"


async def test_the_side_file_has_no_value_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    await do(opened(path), put("A", "HIDDEN", stamp="s1"))

    side = side_path(path)
    assert side.name == "..env.envd.json"
    assert "HIDDEN" not in side.read_text()
    assert list(json.loads(side.read_text())["variables"]) == ["A"]
    assert stat.S_IMODE(side.stat().st_mode) == 0o600


async def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    old, new = tmp_path / "old.env", tmp_path / "new.env"
    old.write_text("A=1\n")
    old.chmod(0o640)

    await do(opened(old), put("B", "2"))
    await do(opened(new), put("B", "2"))

    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


async def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    target = tmp_path / "shared" / "real.env"
    target.parent.mkdir()
    target.write_text("A=1\n")
    link = tmp_path / ".env"
    link.symlink_to("shared/real.env")

    await do(opened(link), put("B", "2"))

    assert link.is_symlink()
    assert target.read_text() == "A=1\nB=2\n"
    assert side_path(target).exists()
    assert entries(tmp_path) == [".env", "shared"]


async def test_nothing_but_the_side_file_and_the_lock_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    await do(opened(path), put("A", "1"))

    assert entries(tmp_path) == ["..env.envd.json", "..env.envd.lock", ".env"]


async def test_what_is_so_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = opened(path)
    first = await one(file, put("A", "1", stamp="s1"))
    was = path.stat()

    outcomes = await do(
        file,
        put("A", "1", expect=first.version, stamp="s2"),
        delete("B", expect="gone"),
    )

    assert results(outcomes) == ["noop", "noop"]
    assert outcomes[0].version == first.version
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)


async def test_a_stale_version_is_refused_and_the_rest_is_done(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = opened(path)
    first = await one(file, put("A", "1"))
    path.write_text("A=theirs\n")

    outcomes = await do(
        file, put("A", "2", expect=first.version), delete("A", expect=""), put("B", "2")
    )

    assert results(outcomes) == ["conflict", "conflict", "applied"]
    assert path.read_text() == "A=theirs\nB=2\n"


async def test_what_somebody_saves_while_envd_writes_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    saves = Editing(lambda: path.write_text("A=1\n# mine\n"))
    file = FileBackend(Options(str(path), fingerprint=saves))

    outcome = await one(file, put("B", "2", stamp="s1"))

    assert isinstance(outcome.error, StaleVersion)
    assert outcome.result.value == "conflict"
    assert path.read_text() == "A=1\n# mine\n"
    assert not (await items(opened(path)))[key("A")].managed
    assert "B" not in side_path(path).read_text()


async def test_a_file_that_somebody_makes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    saves = Editing(lambda: path.write_text("A=theirs\n"))
    file = FileBackend(Options(str(path), fingerprint=saves))

    outcomes = await do(file, put("A", "1"))

    assert results(outcomes) == ["conflict"]
    assert path.read_text() == "A=theirs\n"


async def test_operations_of_one_batch_build_on_each_other(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# top\nA=1\n")
    file = opened(path)
    version = (await items(file))[key("A")].version

    outcomes = await do(
        file,
        delete("A", expect=version, any_owner=True),
        put("A", "2"),
        put("B", "3"),
    )

    assert results(outcomes) == ["applied", "applied", "applied"]
    assert path.read_text() == "# top\nA=2\nB=3\n"


async def test_what_people_wrote_is_theirs_until_it_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\nB=2\n")
    file = opened(path)
    found = await items(file)
    version = found[key("A")].version

    refused = await do(file, put("A", "x", expect=version), delete("A", expect=version))
    taken = await do(file, put("A", "x", expect=version, any_owner=True))

    assert not found[key("A")].managed
    assert all(isinstance(each.error, NotOwned) for each in refused)
    assert results(taken) == ["applied"]
    assert [each.managed for each in (await items(file)).values()] == [True, False]


@pytest.mark.parametrize(
    ("name", "text", "after"),
    [
        (".env", "# keep\nA=1\n", "# keep\n"),
        ("a.json", '{"A": "1"}\n', "{}\n"),
        ("a.yaml", "# keep\nA: one\n", "# keep\n"),
    ],
)
async def test_the_last_variable_goes_and_the_file_stays(
    tmp_path: Path, name: str, text: str, after: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    file = opened(path)
    version = (await items(file))[key("A")].version

    await do(file, delete("A", expect=version, any_owner=True))

    assert path.read_text() == after
    assert await values(file) == {}
    await do(file, put("B", "2"))
    assert await values(file) == {key("B"): "2"}


async def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    found = await pages(opened(tmp_path / ".env"))

    assert [(page.items, page.complete) for page in found] == [([], True)]


async def test_a_file_that_is_gone_is_not_empty(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = opened(path)
    await do(file, put("A", "1"))
    path.unlink()

    with pytest.raises(StoreUnavailable, match="the file is gone") as caught:
        await pages(file)
    outcome = await one(file, put("A", "1"))

    assert str(side_path(path)) in caught.value.hint
    assert outcome.result.value == "failed"
    side_path(path).unlink()
    assert await values(file) == {}


async def test_a_directory_that_is_not_there_is_not_empty(tmp_path: Path) -> None:
    file = opened(tmp_path / "unmounted" / ".env")

    with pytest.raises(StoreUnavailable, match="there is no such directory"):
        await pages(file)
    outcome = await one(file, put("A", "1"))

    assert outcome.result.value == "failed"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "A=1\nHIDDEN\n"),
        (".env", "A=1\nB='HIDDEN\n"),
        ("a.json", '{"A": "1",\n"B": HIDDEN}'),
        ("a.json", ""),
        ("a.yaml", "A: one\nB: [HIDDEN]\n"),
        (".env", "A=1\nB=\udcffHIDDEN\n"),
    ],
)
async def test_a_file_that_can_not_be_read_is_told_by_line_and_not_touched(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    file = opened(path)

    with pytest.raises(StoreUnavailable) as caught:
        await pages(file)
    outcome = await one(file, put("C", "3"))
    read = await file.get_many([key("A")])

    line = 2 if text else 1
    assert caught.value.message.startswith(f"{path}:{line}:")
    assert "HIDDEN" not in f"{caught.value.message} {caught.value.hint}"
    assert outcome.result.value == "failed"
    assert isinstance(read[key("A")], StoreUnavailable)
    assert path.read_bytes() == text.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "A=ENC[AES256_GCM,data:x]\nsops_mac=ENC[x]\nsops_version=3.9.0\n"),
        ("a.yaml", "A: ENC[AES256_GCM,data:x]\nsops:\n    version: 3.9.0\n"),
        ("a.json", '{"A": "ENC[AES256_GCM,data:x]", "sops": {"version": "3.9.0"}}'),
    ],
)
async def test_a_file_that_sops_encrypted_is_left_alone(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    file = opened(path)

    with pytest.raises(StoreUnsupported, match="encrypted by SOPS"):
        await pages(file)
    outcome = await one(file, put("B", "2"))

    assert isinstance(outcome.error, StoreUnsupported)
    assert path.read_text() == text


async def test_a_damaged_side_file_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    side_path(path).write_text('{"envd": 1, "variables": {"A": [1]}}')

    with pytest.raises(StoreUnavailable, match=r"\.\.env\.envd\.json"):
        await pages(opened(path))


async def test_a_value_that_the_file_can_not_hold_is_refused_and_the_rest_is_done(
    tmp_path: Path,
) -> None:
    path = tmp_path / ".env"
    file = opened(path, dialect="node")

    outcomes = await do(
        file, put("A", "1"), put("B", "`'\"\\n\n#HIDDEN"), put("C", "3"), put("D", "4")
    )

    assert results(outcomes) == ["applied", "rejected", "applied", "applied"]
    assert isinstance(outcomes[1].error, InvalidValue)
    assert "HIDDEN" not in outcomes[1].error.message
    assert path.read_text() == "A=1\nC=3\nD=4\n"
    assert list(json.loads(side_path(path).read_text())["variables"]) == ["A", "C", "D"]


@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [
        ("A", "a\0b", InvalidValue),
        ("A", "\ud800", InvalidValue),
        ("A", "x" * ((1 << 20) + 1), ValueTooLarge),
        ("1", "x", InvalidName),
    ],
)
async def test_what_can_not_be_is_refused_before_the_file_is_touched(
    tmp_path: Path, variable: str, value: str, kind: type[BackendError]
) -> None:
    outcome = await one(opened(tmp_path / ".env"), put(variable, value))

    assert type(outcome.error) is kind
    assert entries(tmp_path) == []


async def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)

    with pytest.raises(StoreUnsupported, match="larger than 16 MiB"):
        await pages(opened(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_read_only_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o400)

    outcome = await one(opened(path), put("B", "2"))

    assert isinstance(outcome.error, Forbidden)


async def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    with pytest.raises(StoreUnsupported):
        await pages(opened(tmp_path / ".env"))
    health = await opened(tmp_path / ".env").probe()

    assert not health.ok


async def test_links_in_a_circle_are_an_error_as_any(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(".env")

    with pytest.raises(StoreUnavailable):
        await pages(opened(tmp_path / ".env"))


async def test_who_finds_the_file_locked_waits_a_little_and_gives_up(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    lock = FileLock(lock_path(path))
    lock.acquire()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    outcome = await one(FileBackend(Options(str(path)), sleep=sleep), put("A", "1"))

    lock.release()
    assert outcome.result.value == "failed"
    assert 1 < sum(slept) < 5
    assert not path.exists()


async def test_who_waits_for_the_lock_goes_on_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    lock = FileLock(lock_path(path))
    lock.acquire()

    async def sleep(_: float) -> None:
        lock.release()

    outcome = await one(FileBackend(Options(str(path)), sleep=sleep), put("A", "1"))

    assert outcome.result.value == "applied"


async def test_of_writers_at_once_one_wins(tmp_path: Path) -> None:
    file = opened(tmp_path / ".env")

    outcomes = await asyncio.gather(*(one(file, put("A", f"{n}")) for n in range(16)))

    assert sorted(results(outcomes)) == ["applied"] + ["conflict"] * 15


async def test_items_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    read = await opened(path).get_many([key("A"), key("B"), key("A", "../x")])

    found = read[key("A")]
    assert not isinstance(found, BackendError)
    assert (found.value, found.secret) == ("1", None)
    assert isinstance(read[key("B")], ItemNotFound)
    assert isinstance(read[key("A", "../x")], InvalidName)


async def test_a_watch_tells_that_something_was_saved(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            path.write_text("A=22\n")

    file = FileBackend(Options(str(path), settings={"poll_s": 5}), sleep=sleep)
    async with aclosing(file.watch(EVERYTHING, None)) as watch:  # type: ignore[type-var]
        hint = await anext(watch)
    async with aclosing(file.watch(EVERYTHING, "older")) as watch:  # type: ignore[type-var]
        resumed = await anext(watch)

    assert (hint.key, resumed.key) == (None, None)
    assert hint.cursor == resumed.cursor
    assert slept == [5.0, 5.0]


async def test_a_probe_says_who_reads(tmp_path: Path) -> None:
    health = await opened(tmp_path / ".env").probe()

    assert health.ok
    assert health.identity == f"uid {os.geteuid()}"


def test_files_cost_nothing() -> None:
    cost = FileBackend(Options("/srv/.env")).cost(Load(items=10, scans=3, changed=2))

    assert (cost.reads, cost.writes, cost.dollars) == (3, 2, 0.0)


@pytest.mark.parametrize(
    ("place", "more", "kind"),
    [
        (".env", {}, InvalidName),
        ("~/.env", {}, InvalidName),
        ("/srv/app.conf", {}, InvalidName),
        ("/srv/.env", {"format": "toml"}, StoreUnsupported),
        ("/srv/.env", {"dialect": "ruby"}, StoreUnsupported),
        ("/srv/.env", {"git_commit": "yes"}, StoreUnsupported),
        ("/srv/.env", {"poll_s": 0}, StoreUnsupported),
        ("/srv/.env", {"poll_s": True}, StoreUnsupported),
        ("/srv/.env", {"git-commit": True}, StoreUnsupported),
    ],
)
def test_options_that_can_not_be_are_refused(
    place: str, more: dict[str, object], kind: type[BackendError]
) -> None:
    with pytest.raises(kind):
        FileBackend(Options(place, settings=more))


def test_a_file_of_any_name_is_of_the_format_that_is_set() -> None:
    file = FileBackend(Options("/srv/app.conf", settings={"format": "dotenv"}))

    assert file.encode(key("A")) == "A"


def test_a_layout_of_documents_is_refused() -> None:
    with pytest.raises(StoreUnsupported, match="one by one"):
        FileBackend(Options("/srv/.env", layout="document"))
