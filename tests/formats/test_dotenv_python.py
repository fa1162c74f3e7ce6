"""The python dialect: python-dotenv's reading, made strict."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest, LimitExceeded
from envd.formats.dotenv_python import MAX_BLANKS
from envd.formats.read import Assignment, parse
from envd.formats.source import with_line_feeds

FIXTURES = Path(__file__).parents[1] / "data" / "dotenv"
PIECES = ["A", "B=", "C", "=", "'", '"', "`", "\\", "\\n", "\n", "\r", "#", " ", "export ", "${A}"]
STATEMENTS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


def read(text: str | bytes) -> list[Assignment]:
    return parse(text, format="dotenv", source=".env")


def values(text: str | bytes) -> dict[str, str]:
    return {each.name: each.value for each in read(text)}


def refusal(text: str | bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    return caught.value


@pytest.mark.parametrize(
    "path",
    sorted(path for path in FIXTURES.glob("*.env") if path.name != "dotenv-js-multiline.env"),
    ids=lambda path: path.stem,
)
def test_a_real_file_reads_as_python_dotenv_reads_it(path: Path) -> None:
    got = values(path.read_bytes())

    assert got == dict(dotenv_values(path, interpolate=False, encoding="utf-8"))
    assert got


def test_a_backtick_value_over_lines_is_refused_with_its_lines_and_the_way_out() -> None:
    error = refusal((FIXTURES / "dotenv-js-multiline.env").read_bytes())

    assert error.message == (
        ".env:35: expected NAME=VALUE, found a line without '=', "
        "after a backtick quote that opens in line 34"
    )
    assert "--dialect node" in error.hint
    assert error.reason == "INVALID_FILE"


def test_a_backtick_value_in_one_line_is_what_python_dotenv_makes_of_it() -> None:
    assert values("A=`x`") == {"A": "`x`"}


@given(STATEMENTS)
def test_what_is_read_is_what_python_dotenv_reads_and_the_rest_is_refused(text: str) -> None:
    translated = with_line_feeds(text)
    bindings = list(parse_stream(StringIO(translated)))
    readable = not any(b.error or (b.key is not None and b.value is None) for b in bindings)

    try:
        got: dict[str, str] | InvalidRequest = values(text)
    except InvalidRequest as error:
        got = error

    if isinstance(got, dict):
        assert readable
        assert got == dict(dotenv_values(stream=StringIO(translated), interpolate=False))
    else:
        assert not readable or "expected a variable name" in got.message


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("A=1\n\n# c\n  B\nC=2", 4, "a line without '='"),
        ("export A", 1, "a line without '='"),
        ("A=1\n=2", 2, "'=' without a name"),
        ("A B=1", 1, "something that is no name before '='"),
        ("A=1\n\n\nB='x\nC=2\n", 4, "a quote that is never closed in the value of B"),
        ('A="x\nB="y"\n', 1, "text after the closing quote of the value of A"),
        ('\n\n1A="x', 3, "a quote that is never closed in the value"),
        ("A='x' y", 1, "text after the closing quote of the value of A"),
        ("A=1\r\nB\r\n", 2, "a line without '='"),
        ("A=1\rB\r", 2, "a line without '='"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_number(
    text: str, line: int, found: str
) -> None:
    assert refusal(text).message == f".env:{line}: expected NAME=VALUE, found {found}"


@pytest.mark.parametrize(
    "text", ["hunter2", "A=1\nhunter2", "A='hunter2", "A='x' hunter2", "hunter+2=", "A hunter2=1"]
)
def test_a_refusal_shows_nothing_that_may_be_a_value(text: str) -> None:
    error = refusal(text)

    assert "hunter" not in error.message + error.hint
    assert error.__cause__ is None
    assert error.__context__ is None


def test_an_assignment_does_not_show_its_value() -> None:
    assert "hunter2" not in repr(read("A=hunter2"))


def test_standard_input_is_called_by_its_name() -> None:
    with pytest.raises(InvalidRequest, match=r"^standard input:1: "):
        parse("A", format="dotenv", source="-")


def test_the_last_of_two_assignments_wins_at_the_place_of_the_first() -> None:
    assert read("A=1\nB=2\nA=3") == [Assignment("A", "3", 3), Assignment("B", "2", 2)]


def test_references_stay_as_they_are_written() -> None:
    assert values('A=1\nB="${A} $A"\nC=${A}') == {"A": "1", "B": "${A} $A", "C": "${A}"}


def test_every_kind_of_line_end_ends_a_line() -> None:
    assert values("A=1\r\nB=2\rC='x\r\ny'") == {"A": "1", "B": "2", "C": "x\ny"}


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert values(b"\xef\xbb\xbfA=1") == {"A": "1"}


def test_a_second_byte_order_mark_is_refused() -> None:
    assert refusal("\ufeff\ufeffA=1").message == ".env:1: found a second byte order mark"


def test_an_empty_file_has_no_variables() -> None:
    assert read("") == read("\n# nothing\n") == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"A=1\nB=\xff", ".env:2: the byte at offset 6 is not valid UTF-8"),
        (b"A=1\r\n\r\xff", ".env:3: the byte at offset 6 is not valid UTF-8"),
        ("A=1".encode("utf-16"), ".env:1: the file is UTF-16, expected UTF-8"),
        (b"A=1\nB=\0", ".env:2: found a NUL character, which no environment can carry"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_line_and_offset(raw: bytes, message: str) -> None:
    assert refusal(raw).message == message


def test_text_with_a_lone_surrogate_is_refused() -> None:
    assert refusal("A=1\nB=\udcff").message == ".env:2: the text is not valid UTF-8"


def test_a_name_that_envd_cannot_hold_is_refused_and_not_shown() -> None:
    error = refusal("A=1\n'b c'=2")

    assert error.message.startswith(".env:2: expected a variable name, found characters")
    assert "b c" not in error.message


def test_a_value_over_the_limit_is_refused_with_its_line() -> None:
    error = refusal("A=1\nB=" + "x" * ((1 << 20) + 1))

    assert isinstance(error, LimitExceeded)
    assert error.message.startswith(".env:2: the value of B is 1048577 bytes long")


def test_blanks_that_the_parser_would_choke_on_are_refused_in_unquoted_values_only() -> None:
    blanks = " " * (MAX_BLANKS + 1)

    assert "blanks in a row" in refusal(f"A=1\nB=x{blanks}y").message
    assert values(f"A=x{blanks}# comment") == {"A": "x"}
    assert values(f"A='{blanks}'\nB=1") == {"A": blanks, "B": "1"}


def test_nothing_is_logged_about_a_line_that_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    refusal("A='x\nB")

    assert caplog.records == []
