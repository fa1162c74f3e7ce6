"""What is exported is read back exactly by those who read the format."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.read import Dialect, InputFormat, parse
from envd.formats.write import OUTPUT_FORMATS, render
from tests.formats.deployed import READERS, Found

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
TRICKY = st.lists(
    st.sampled_from(
        [
            *(
                "a",
                "n",
                "r",
                "'",
                '"',
                "`",
                "\\",
                "\n",
                "\r",
                "#",
                " ",
                "\t",
                "$",
                "${A}",
                "=",
                ":",
            ),
            *("\x85", "\u2028", "\ufeff", "\xa0", "\x1c", "é", "\U0001f600", "\x7f"),
        ]
    ),
    max_size=10,
).map("".join)
VALUES = TEXTS | TRICKY
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
SHELLS = [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]

PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMIIB+/=\n-----END PRIVATE KEY-----\n"
# Values that python-dotenv and the npm package read from one and the same text.
FOR_BOTH = [
    "",
    "plain",
    "a b",
    " padded ",
    "#a # b",
    "it's",
    'say "it"',
    'it\'s "both" `three`',
    PRIVATE_KEY,
    "a\r\nb\rc",
    "C:\\new\\dir",
    "C:\\dir\\",
    "\\\\server\\share",
    "\\n",
    "it's \\d+",
    "it's \\n",
    "\\\nit's",
    "$A ${A} $(id)",
    "a\tb",
    "\u2028\x85\ufeff",
    "=x=",
    "é \U0001f600",
]


def read(text: str, *, format: InputFormat, dialect: Dialect = "python") -> dict[str, str]:  # noqa: A002
    return {
        each.name: each.value
        for each in parse(text, format=format, dialect=dialect, source="export")
    }


@given(ENVIRONMENTS)
@example({"A": "x\ny\\", "B": '"', "C": "\n'x'\n"})
def test_dotenv_is_read_back_by_python_dotenv_and_by_us(variables: dict[str, str]) -> None:
    text = render(variables, format="dotenv")

    assert "\r" not in text
    assert dict(dotenv_values(stream=StringIO(text), interpolate=False)) == variables
    assert read(text, format="dotenv") == variables


@given(VALUES)
def test_dotenv_is_read_back_from_a_file(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "export.env"
    path.write_bytes(render({"A": value, "B.c-d": "x"}, format="dotenv").encode())

    got = dotenv_values(path, interpolate=False, encoding="utf-8")

    assert dict(got) == {"A": value, "B.c-d": "x"}


@pytest.mark.parametrize("value", FOR_BOTH)
def test_dotenv_is_read_back_in_both_dialects_where_one_text_can_do_that(value: str) -> None:
    variables = {"A": value, "B.c-d": value, "C": "after"}

    text = render(variables, format="dotenv")

    assert read(text, format="dotenv", dialect="python") == variables
    assert read(text, format="dotenv", dialect="node") == variables


@given(VALUES, VALUES, VALUES)
@example("x\ny\\", "\nB='x'", '"\n')
def test_a_value_that_node_cannot_hold_does_not_harm_the_lines_after_it(
    first: str, second: str, third: str
) -> None:
    variables = {"A": first, "B": second, "C": third, "D": "plain"}

    got = read(render(variables, format="dotenv"), format="dotenv", dialect="node")

    assert list(got) == list(variables)
    assert got["D"] == "plain"
    for name, value in variables.items():
        if not re.search(r"[\\\"`]", value):
            assert got[name] == value


def test_dotenv_is_as_bare_as_it_can_be() -> None:
    text = render(
        {"A": "http://x:80/?", "B": "a b", "C": "it's", "D": "", "E": "x"}, format="dotenv"
    )

    assert text == "A='http://x:80/?'\nB='a b'\nC=\"it's\"\nD=\nE=x\n"


@given(ENVIRONMENTS)
def test_json_is_an_object_of_strings_in_the_order_given(variables: dict[str, str]) -> None:
    text = render(variables, format="json")

    assert list(json.loads(text).items()) == list(variables.items())
    assert text.endswith("}\n")
    assert read(text, format="json") == variables


def test_json_is_indented_and_keeps_letters() -> None:
    assert render({"B": "é", "A": "1"}, format="json") == '{\n  "B": "é",\n  "A": "1"\n}\n'


@given(ENVIRONMENTS)
@example({"NO": "no", "y": "1.10", "null": "null", "Off": "2024-01-01"})
def test_yaml_is_read_back_as_strings(variables: dict[str, str]) -> None:
    text = render(variables, format="yaml")

    assert yaml.safe_load(text) == variables
    assert read(text, format="yaml") == variables


def test_yaml_leaves_no_value_to_be_guessed() -> None:
    variables = {"A": "1e5", "N": "x\n", "B": "\x85\u2028"}

    assert render(variables, format="yaml") == ('A: "1e5"\n"N": "x\\n"\nB: "\\u0085\\u2028"\n')


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_reads_the_export_has_the_same_variables(shell: str, tmp_path: Path) -> None:
    values = [
        *FOR_BOTH,
        "x\ny\\",
        "'",
        "'''",
        "\\'",
        "$(touch pwned)`touch pwned`",
        "!a",
        "\x1b[0m",
    ]
    variables = {f"V{index}_": value for index, value in enumerate(values)}
    script = tmp_path / "export.sh"
    script.write_bytes(render(variables, format="shell").encode())

    ran = subprocess.run(
        [shell, "-c", f". {script} && exec env -0"],
        capture_output=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
    )

    assert ran.returncode == 0, ran.stderr
    seen = dict(line.split("=", 1) for line in ran.stdout.decode().split("\0") if line)
    assert {name: seen.get(name) for name in variables} == variables
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["a.b", "a-b"])
def test_a_name_that_is_none_to_a_shell_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(name)} has a name that no shell"):
        render({"A": "1", name: "hunter2"}, format="shell")


def docker_reads(text: bytes) -> dict[str, str]:
    """Read as `docker run --env-file` does: bufio.ScanLines, trim before names, cut at `=`."""
    found = {}
    for raw in text.split(b"\n"):
        line = raw.removesuffix(b"\r").decode().lstrip()
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = value
    return found


@given(ENVIRONMENTS)
def test_docker_reads_every_value_that_is_not_refused(variables: dict[str, str]) -> None:
    try:
        text = render(variables, format="docker")
    except InvalidRequest:
        assert any("\n" in value or value.endswith("\r") for value in variables.values())
        return

    assert docker_reads(text.encode()) == variables


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("hunter\n2", "has a line end in its value"),
        ("hunter2\r", "has a carriage return at the end of its value"),
        ("hunter2" * 10_000, "is longer than the 64 KiB that a line may have"),
    ],
)
def test_a_value_that_docker_cannot_read_is_refused_by_name(value: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render({"A": "1", "KEY": value}, format="docker")

    assert caught.value.message == f"KEY {why}, which this format can't express"
    assert "--format shell" in caught.value.hint


@pytest.mark.parametrize("name", ["A=1\nB", "1A", "", "a b"])
@pytest.mark.parametrize("format_", OUTPUT_FORMATS)
def test_a_name_that_is_none_is_never_written(format_: str, name: str) -> None:
    with pytest.raises(InvalidRequest):
        render({name: "x"}, format=format_)


@pytest.mark.parametrize("value", ["\0", "\ud800"])
@pytest.mark.parametrize("format_", OUTPUT_FORMATS)
def test_a_value_that_is_no_text_is_never_written(format_: str, value: str) -> None:
    with pytest.raises(InvalidRequest):
        render({"A": value}, format=format_)


def test_a_format_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidRequest) as caught:
        render({}, format="toml")

    assert caught.value.hint == f"use {', '.join(OUTPUT_FORMATS)}"


@pytest.mark.parametrize("format_", OUTPUT_FORMATS)
def test_an_empty_environment_is_written_as_one(format_: str) -> None:
    empty = {"json": "{}\n", "yaml": "{}\n", "csv": "name,value\r\n"}

    text = render({}, format=format_)

    if format_ in READERS:
        assert READERS[format_](text) == Found({}, {})
    else:
        assert text == empty.get(format_, "") or "\ndata: {}\n" in text
