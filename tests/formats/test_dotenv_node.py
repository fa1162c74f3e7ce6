"""The node dialect. Every expected value was given by the npm package, version 17."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envd.core.errors import InvalidRequest
from envd.formats.read import Assignment, parse

FIXTURES = Path(__file__).parents[1] / "data" / "dotenv"


def read(text: str | bytes) -> list[Assignment]:
    return parse(text, format="dotenv", dialect="node", source=".env")


def values(text: str | bytes) -> dict[str, str]:
    return {each.name: each.value for each in read(text)}


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.node.json")), ids=lambda path: path.stem)
def test_a_file_reads_as_the_npm_package_reads_it(path: Path) -> None:
    text = path.with_name(path.name.replace(".node.json", ".env")).read_bytes()

    got = values(text)

    assert got == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.env")), ids=lambda path: path.stem)
def test_no_line_of_a_real_file_is_refused(path: Path) -> None:
    assert values(path.read_bytes())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A: b", {"A": "b"}),
        ("A:\nB=c", {"A": "B=c"}),
        ("export A=1", {"A": "1"}),
        ("export=1", {"export": "1"}),
        ("export = 1", {"export": "1"}),
        ("export\nA=1", {"A": "1"}),
        ("A\n=1", {"A": "1"}),
        ("A=\n'b'", {"A": "b"}),
        ("A=\nb=c", {"A": "", "b": "c"}),
        ("A=#x", {"A": ""}),
        ("A=b#c", {"A": "b"}),
        ("A=b # c", {"A": "b"}),
        ("A='b#c' # d", {"A": "b#c"}),
        ("A='b' c", {"A": "'b' c"}),
        ("A='b", {"A": "'b"}),
        ('A="b\\nc', {"A": '"b\nc'}),
        ('A="b\\nc\\r"', {"A": "b\nc\r"}),
        ("A='b\\nc'", {"A": "b\\nc"}),
        ("A=b\\nc", {"A": "b\\nc"}),
        ("A=`b\\nc`", {"A": "b\\nc"}),
        ('A="a\\"b"', {"A": 'a\\"b'}),
        ("A='a\\'b'", {"A": "a\\'b"}),
        ("A='a\\' # b'", {"A": "a\\' # b"}),
        ("A='a\\\\'", {"A": "a\\\\"}),
        ('A="x\\\\"\nB="\nC=1', {"A": 'x\\\\"\nB=', "C": "1"}),
        ("A='b' 'c'", {"A": "b' 'c"}),
        ("A='b\nc' # d\nB=e", {"A": "b\nc", "B": "e"}),
        ('A=`it\'s "x"`', {"A": 'it\'s "x"'}),
        ('A="it\'s"', {"A": "it's"}),
        ("A=  b c  ", {"A": "b c"}),
        ('A="  b  "', {"A": "  b  "}),
        ("  A  =  b", {"A": "b"}),
        ("A=1\r\nB=2\rC='x\ry'", {"A": "1", "B": "2", "C": "x\ny"}),
        ("A=1\nA=2", {"A": "2"}),
        ("a.b-c=1", {"a.b-c": "1"}),
        ('A=\u2028"b"', {"A": "b"}),
        ("A=b\u2028'c'", {"A": "b\u2028c"}),
        ("A='b'\u2028B=c", {"A": "b", "B": "c"}),
        ("# x\u2028A=b", {"A": "b"}),
        ("A=b # x\u2028B=c", {"A": "b", "B": "c"}),
        ("A=\ufeffb\xa0", {"A": "b"}),
        ("A=\x85b", {"A": "\x85b"}),
        ("A=${B}", {"A": "${B}"}),
        ('A=""', {"A": ""}),
        ("A=''", {"A": ""}),
        ("A=", {"A": ""}),
        ("A= ", {"A": ""}),
        ("A=`", {"A": "`"}),
        ("A='b'#c", {"A": "b"}),
        ("\ufeffA=b", {"A": "b"}),
        ("A==b", {"A": "=b"}),
        ("A=b=c", {"A": "b=c"}),
        ("A='\\'b' c'", {"A": "\\'b' c"}),
        ('A="\\\\n"', {"A": "\\\n"}),
        ("A='", {"A": "'"}),
        ('A="b" "\\nc"', {"A": 'b" "\nc'}),
    ],
)
def test_a_text_means_what_it_means_to_the_npm_package(text: str, expected: dict[str, str]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("A=1\n\n# c\n  B\n", 4, "a line without '='"),
        ("A=1\n=2", 2, "'=' without a name"),
        ("A B=1", 1, "something that is no name before '='"),
        ("A=1\n'B'=2", 2, "a quote where a name is expected"),
        ("A='b\nc' d\n", 2, "a line without '='"),
        ("A :b", 1, "a line without '='"),
        ("A:b", 1, "a line without '='"),
        ("A=1\r\n\rB", 3, "a line without '='"),
    ],
)
def test_a_line_that_the_package_passes_over_is_refused_with_its_number(
    text: str, line: int, found: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(text)

    assert caught.value.message == f".env:{line}: expected NAME=VALUE, found {found}"


def test_an_assignment_knows_the_line_it_begins_in() -> None:
    text = "# c\nA='x\ny'\n\n  B=1\nA=2"

    assert [(each.name, each.line) for each in read(text)] == [("A", 6), ("B", 5)]


def test_a_name_that_envd_cannot_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read("A=1\n2hunter=x")

    assert caught.value.message.startswith(".env:2: expected a variable name, found characters")
    assert "hunter" not in caught.value.message
