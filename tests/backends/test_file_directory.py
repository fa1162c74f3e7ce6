"""A directory with one file an environment."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Key, Options, Scope
from envd.backends.errors import InvalidName, NameCollision, StoreUnavailable, StoreUnsupported
from envd.backends.file import FileBackend
from envd.core.names import ENVIRONMENT_PATTERN, VARIABLE_PATTERN
from tests.backends.driving import delete, do, items, key, one, pages, put, results, values

ENVIRONMENTS = st.just("") | st.from_regex(ENVIRONMENT_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= 60 and name.count("/") < 8
)
KEYS = st.builds(
    Key,
    ENVIRONMENTS,
    st.from_regex(VARIABLE_PATTERN, fullmatch=True).filter(lambda name: len(name) < 200),
)


def opened(path: Path, **more: object) -> FileBackend:
    return FileBackend(Options(str(path), below=True, settings=more))


def files(directory: Path) -> set[str]:
    """All files below that are not hidden, by their relative paths."""
    return {
        each.relative_to(directory).as_posix()
        for each in directory.rglob("*")
        if each.is_file() and not each.name.startswith(".")
    }


@given(one=KEYS, other=KEYS)
def test_a_name_is_that_of_one_key(one: Key, other: Key) -> None:
    file = opened(Path("/srv"))

    names = {each: file.encode(each) for each in (one, other)}

    assert all(file.decode(name) == each for each, name in names.items())
    assert len(set(names.values())) == len(names)


@given(native=st.text(max_size=20) | st.from_regex(r"[a-z/.]*:[A-Z:]*", fullmatch=True))
def test_a_name_that_is_decoded_is_the_name_of_what_it_is_decoded_to(native: str) -> None:
    file = opened(Path("/srv"))

    key = file.decode(native)

    assert key is None or file.encode(key) == native


@pytest.mark.parametrize(
    ("format_", "suffix"), [("dotenv", ".env"), ("json", ".json"), ("yaml", ".yaml")]
)
async def test_each_environment_is_a_file(tmp_path: Path, format_: str, suffix: str) -> None:
    file = opened(tmp_path, format=format_)

    outcomes = await do(
        file,
        put("A", "1"),
        put("A", "2", environment="team/app"),
        put("A", "3", environment="team/app/prod"),
        put("B", "4", environment="team/app/prod"),
    )

    assert results(outcomes) == ["applied"] * 4
    assert files(tmp_path) == {
        f"_{suffix}",
        f"team/app{suffix}",
        f"team/app/prod{suffix}",
    }
    assert await values(file) == {
        key("A"): "1",
        key("A", "team/app"): "2",
        key("A", "team/app/prod"): "3",
        key("B", "team/app/prod"): "4",
    }


async def test_new_directories_are_private(tmp_path: Path) -> None:
    await do(opened(tmp_path), put("A", "1", environment="team/app/prod"))

    modes = [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("team", "team/app")]

    assert modes == [0o700, 0o700]


async def test_the_format_is_that_of_the_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("A: one\n")
    file = opened(tmp_path)

    await do(file, put("B", "2", environment="web"), put("A", "1", environment="db"))

    assert (tmp_path / "web.yml").read_text() == 'A: one\nB: "2"\n'
    assert (tmp_path / "db.yaml").read_text() == 'A: "1"\n'


async def test_files_of_several_formats_are_refused_until_one_is_set(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text('{"A": "1"}')
    (tmp_path / "package.env").write_text("A=2\n")

    with pytest.raises(StoreUnsupported, match="several formats"):
        await pages(opened(tmp_path))
    outcome = await one(opened(tmp_path), put("B", "1", environment="web"))
    chosen = await values(opened(tmp_path, format="json"))

    assert isinstance(outcome.error, StoreUnsupported)
    assert chosen == {key("A", "web"): "1"}


async def test_two_files_of_one_environment_are_refused(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("A: one\n")
    (tmp_path / "web.yaml").write_text("A: two\n")

    with pytest.raises(NameCollision):
        await pages(opened(tmp_path))


async def test_what_is_no_environment_is_passed_over(tmp_path: Path) -> None:
    for name in ("Web.env", ".env", "README.md", ".git/x.env", "web.env~", "a b.env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not read at all")
    (tmp_path / "web.env").write_text("A=1\n")

    assert await values(opened(tmp_path)) == {key("A", "web"): "1"}


async def test_a_directory_that_is_not_there_is_not_empty(tmp_path: Path) -> None:
    file = opened(tmp_path / "unmounted")

    with pytest.raises(StoreUnavailable):
        await pages(file)
    outcome = await one(file, put("A", "1"))
    health = await file.probe()

    assert outcome.result.value == "failed"
    assert not health.ok


async def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    file = opened(tmp_path)
    await do(file, put("A", "1", environment="web"), put("A", "1", environment="db"))
    (tmp_path / "web.env").unlink()

    with pytest.raises(StoreUnavailable, match=r"web\.env: the file is gone"):
        await pages(file)


async def test_one_bad_file_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "bad.env").write_text("no assignment\n")
    file = opened(tmp_path)

    outcomes = await do(file, put("A", "1", environment="bad"), put("A", "1", environment="good"))

    assert results(outcomes) == ["failed", "applied"]
    with pytest.raises(StoreUnavailable, match=r"bad\.env:1:"):
        await pages(file)


async def test_a_scan_is_a_page_for_each_file_and_goes_on_after_one(tmp_path: Path) -> None:
    for name in ("_", "a", "b"):
        (tmp_path / f"{name}.env").write_text("A=1\n")
    file = opened(tmp_path)
    first, second, last = await pages(file)

    rest = await pages(file, cursor=first.cursor)

    assert [page.complete for page in (first, second, last)] == [False, False, True]
    assert [item.key.environment for page in rest for item in page.items] == ["a", "b"]
    assert not any(page.complete for page in rest)


async def test_only_the_files_in_scope_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\n")
    (tmp_path / "bad.env").write_text("no assignment\n")

    found = await items(opened(tmp_path), Scope("a", below=True))
    nothing = await pages(opened(tmp_path), Scope("c"))

    assert set(found) == {key("A", "a")}
    assert [(list(page.items), page.complete) for page in nothing] == [([], True)]


@pytest.mark.parametrize("environment", ["..", "../x", "/etc", "a//b", "a/../b", ".hidden"])
async def test_no_environment_leads_out_of_the_directory(tmp_path: Path, environment: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = opened(inside)

    outcome = await one(file, put("A", "1", environment=environment))
    read = await file.get_many([key("A", environment)])

    assert isinstance(outcome.error, InvalidName)
    assert isinstance(read[key("A", environment)], InvalidName)
    assert files(tmp_path) == set()


async def test_deleting_all_of_an_environment_leaves_its_file(tmp_path: Path) -> None:
    file = opened(tmp_path)
    made = await one(file, put("A", "1", environment="web"))

    await do(file, delete("A", expect=made.version, environment="web"))

    assert (tmp_path / "web.env").read_text() == ""
    assert await values(file) == {}
