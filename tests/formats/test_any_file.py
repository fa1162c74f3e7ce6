"""Any bytes whatever: read or refused, never anything else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.read import Assignment, Dialect, InputFormat, guess_format, parse

READERS: list[tuple[InputFormat, Dialect]] = [
    ("dotenv", "python"),
    ("dotenv", "node"),
    ("json", "python"),
    ("yaml", "python"),
]
PIECES = [
    *("A=", "A: ", "export ", "'", '"', "`", "\\", "\n", "\r", "#", " ", "\t", "=", ":", "{", "}"),
    *("[", "]", ",", "&a", "*a", "!", "%", "|", "> ", "- ", "? ", "---", "...", "null", "1", "\\u"),
    *("\ufeff", "\x85", "\u2028", "\0", "\x1b", "\ud800", "é", '"A"', '"variables"', "{}", "true"),
]
MARKED = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


def is_read_or_refused(raw: str | bytes, format_: InputFormat, dialect: Dialect) -> None:
    refusal: InvalidRequest | None = None
    found: list[Assignment] = []
    try:
        found = parse(raw, format=format_, dialect=dialect, source="any")
    except InvalidRequest as error:
        refusal = error
    if refusal is not None:
        assert refusal.message.startswith("any:")
        assert refusal.__context__ is None
    assert len({each.name for each in found}) == len(found)
    assert all(each.line >= 1 for each in found)


@pytest.mark.parametrize(("format_", "dialect"), READERS)
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes, format_: InputFormat, dialect: Dialect) -> None:
    is_read_or_refused(raw, format_, dialect)


@pytest.mark.parametrize(("format_", "dialect"), READERS)
@given(text=MARKED | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str, format_: InputFormat, dialect: Dialect) -> None:
    is_read_or_refused(text, format_, dialect)
    is_read_or_refused(text.encode("utf-8", "surrogatepass"), format_, dialect)


@pytest.mark.parametrize(("format_", "dialect"), READERS)
@pytest.mark.parametrize(
    "piece",
    [
        "'",
        '"',
        "`",
        "\\",
        "A='",
        "A='\n",
        "\\'",
        " ",
        "\n",
        "[",
        "{",
        '{"a":',
        "a: ",
        "- ",
        "&a ",
        "? ",
    ],
)
def test_a_long_file_of_one_piece_is_read_or_refused(
    piece: str, format_: InputFormat, dialect: Dialect
) -> None:
    is_read_or_refused("A=x" + piece * (200_000 // len(piece)) + "x", format_, dialect)
    is_read_or_refused(piece * (200_000 // len(piece)), format_, dialect)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("vars.json", "json"),
        ("a/VARS.JSON", "json"),
        ("vars.yaml", "yaml"),
        ("vars.yml", "yaml"),
        (".env", "dotenv"),
        (".env.json.local", "dotenv"),
        ("-", "dotenv"),
        ("vars", "dotenv"),
    ],
)
def test_the_format_of_a_file_is_guessed_by_its_name(path: str, expected: str) -> None:
    assert guess_format(path) == expected


def test_the_readers_load_no_parser_before_it_is_needed() -> None:
    script = (
        "import sys, envd.formats.read, envd.formats.write, envd.formats.secrets\n"
        "print(*sorted({'dotenv', 'yaml', 'logging'} & set(sys.modules)))"
    )

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == ""
