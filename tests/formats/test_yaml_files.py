"""YAML files of variables."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.read import Assignment, parse

PIECES = [
    "A: ",
    "B: ",
    "x",
    "no",
    "1",
    "\n",
    " ",
    '"',
    "'",
    "\\",
    "&a ",
    "*a",
    "#",
    "- ",
    "|\n",
    "!",
]


def read(text: str) -> list[Assignment]:
    return parse(text, format="yaml", source="v.yaml")


def refusal(text: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    return caught.value


def test_a_mapping_of_strings_is_read_in_its_order_with_its_lines() -> None:
    text = "# variables\nB: plain text # comment\nA: '8080'\nC: |\n  x\n  y\nD: \"\\u00e9\"\n"

    assert read(text) == [
        Assignment("B", "plain text", 2),
        Assignment("A", "8080", 3),
        Assignment("C", "x\ny\n", 4),
        Assignment("D", "é", 7),
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n"])
def test_a_file_without_variables_has_none(text: str) -> None:
    assert read(text) == []


def test_an_alias_stands_for_the_scalar_it_refers_to() -> None:
    assert [each.value for each in read("A: &x secret\nB: *x\nC: *x\n")] == ["secret"] * 3


@pytest.mark.parametrize("tagged", ["!!str 1", "'1'", '"1"', "|-\n 1"])
def test_a_scalar_that_is_written_as_a_string_is_one(tagged: str) -> None:
    assert read(f"A: {tagged}\n")[0].value == "1"


@pytest.mark.parametrize(
    ("scalar", "kind"),
    [
        ("no", "a boolean"),
        ("NO", "a boolean"),
        ("on", "a boolean"),
        ("8080", "a number"),
        ("0755", "a number"),
        ("1.10", "a number"),
        ("12:30:45", "a number"),
        ("null", "null"),
        ("", "null"),
        ("~", "null"),
        ("2024-01-01", "a date"),
        ("=", "no plain string"),
        ("!!int '1'", "a number"),
        ("!!binary aGk=", "no plain string"),
        ("! x", "no plain string"),
        ("!", "no plain string"),
    ],
)
def test_a_scalar_that_yaml_takes_for_no_string_is_refused_by_name(scalar: str, kind: str) -> None:
    error = refusal(f"A: x\nCOUNTRY: {scalar}\n")

    assert error.message == f"v.yaml:2: the value of COUNTRY is {kind} to YAML, expected a string"
    assert error.hint == "put quotes around it"


def test_an_alias_to_no_string_is_refused() -> None:
    assert "a number to YAML" in refusal("A: !!str &a 1\nB: &b 2\nC: *b\n").message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: x\nA: y", "2: A stands here a second time; the first is in line 1"),
        ("A: x\nNO: y", "2: NO is a boolean to YAML where a name is expected"),
        ("1: y", "1: a name is a number to YAML where a name is expected"),
        ("A: [x]", "1: the value of A is a list, expected a string"),
        ("A:\n  B: x", "2: the value of A is a mapping, expected a string"),
        ("? [A]\n: x", "1: a name is a list, expected a string"),
        ("<<: {A: x}", "1: a name is a merge key to YAML where a name is expected"),
        ("- A", "1: expected names and strings, found a list"),
        ("just text", "1: expected names and strings, found a single value"),
        ("A: x\n---\nB: y", "2: found a second document, expected one"),
        ("A: *x", "1: the value of A refers to an anchor that is not defined before"),
        ("A: x\nB: \x1b", "2: found a control character, which YAML can't hold as it is"),
    ],
)
def test_what_is_no_mapping_of_strings_is_refused(text: str, message: str) -> None:
    assert refusal(text).message == f"v.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A: x\nB: hunter2: y", 2),
        ('A: "\\hunter2"', 1),
        ("A: x\n\tB: hunter2", 2),
        ("A: x\nhunter2 y: z", 2),
        ('A: "\\0hunter2"', 1),
        ("A: !hunter2 x", 1),
        ("A: [hunter2]", 1),
    ],
)
def test_a_refusal_names_the_line_and_shows_nothing_of_it(text: str, line: int) -> None:
    error = refusal(text)

    assert error.message.startswith(f"v.yaml:{line}: ")
    assert "hunter" not in error.message + error.hint
    assert error.__context__ is None


def test_nested_aliases_are_refused_before_they_grow() -> None:
    lines = ["a: &a [x, x]"] + [
        f"{c}: &{c} [*{p}, *{p}]" for p, c in zip("abcdefg", "bcdefgh", strict=True)
    ]

    assert "is a list" in refusal("\n".join(lines)).message


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_what_is_read_is_what_safe_load_reads(text: str) -> None:
    try:
        got = {each.name: each.value for each in read(text)}
    except InvalidRequest:
        return

    try:
        expected = yaml.safe_load(text)
    except yaml.composer.ComposerError as error:  # it refuses to define an anchor twice
        assert "duplicate anchor" in str(error)  # noqa: PT017
    else:
        assert got == (expected or {})
