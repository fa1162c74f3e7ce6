"""Files of environments: whatever they hold, they are read or refused, never worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.cli.manifests import Manifest, Place, read_manifest
from envd.core.errors import EnvdError, InvalidRequest

WORDS = """
    [settings] [variables] keep secrets plain prune = : , [ ] { } " ' # - & * ! | > \\ 1 true
    null 2020-01-01 owner extends labels A B.c \n \r \t \x00 \ufeff é <<
"""
PIECES = st.sampled_from(WORDS.split(" "))
TEXTS = st.one_of(
    st.binary(max_size=200), st.lists(PIECES).map(lambda each: " ".join(each).encode())
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


@given(TEXTS, st.sampled_from((".toml", ".yaml", ".env")))
def test_any_bytes_are_read_or_refused(directory: Path, raw: bytes, suffix: str) -> None:
    path = directory / f"web{suffix}"
    path.write_bytes(raw)

    try:
        outcome = read_manifest(Place("web", path, path.name)).environment
    except EnvdError as error:
        outcome = error.message

    assert outcome.startswith("web")


@given(st.dictionaries(st.from_regex("[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True), st.text()))
def test_toml_and_yaml_say_the_same(directory: Path, variables: dict[str, str]) -> None:
    toml = directory / "web.toml"
    yaml = directory / "web.yaml"
    for path, head, between in ((toml, "[variables]", " = "), (yaml, "variables:", ": ")):
        lines = [f'  "{name}"{between}{quoted(value)}' for name, value in variables.items()]
        path.write_text("\n".join([head, *lines]))

    found = [read(path) for path in (toml, yaml)]

    assert found[0] == found[1]
    if found[0] is not None:
        assert found[0] == variables


def quoted(value: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'


def read(path: Path) -> dict[str, str] | None:
    """The variables of a file, None where it is refused."""
    try:
        made = read_manifest(Place("web", path, path.name))
    except InvalidRequest:
        return None
    return {each.name: each.value for each in made.variables}


def test_more_variables_than_an_environment_holds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.env"
    path.write_text("".join(f"V{number}=1\n" for number in range(4097)))

    with pytest.raises(InvalidRequest, match="it holds 4097 variables; at most 4096 go in one"):
        read_manifest(Place("web", path, "web.env"))


def test_names_are_left_to_the_server_by_name_or_pattern() -> None:
    manifest = Manifest("web", keep=("API_KEY", "AWS_*"))

    assert manifest.required == ("API_KEY",)
    assert manifest.keeps("AWS_REGION")
    assert manifest.keeps("API_KEY")
    assert not manifest.keeps("API_KEYS")
