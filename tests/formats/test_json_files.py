"""JSON files of variables."""

from __future__ import annotations

import pytest

from envd.core.errors import InvalidRequest
from envd.formats.read import Assignment, parse

ENVIRONMENT = """{
  "environment": "web/prod", "revision": "R", "metadata": {"owner": "x"},
  "variables": {
    "A": {"value": "1", "secret": true, "stamp": "S"},
    "B": {"value": "2", "secret": false},
    "C": "3"
  }
}"""


def read(text: str) -> list[Assignment]:
    return parse(text, format="json", source="v.json")


def refusal(text: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    return caught.value


def test_an_object_of_strings_is_read_in_its_order_with_its_lines() -> None:
    got = read('\ufeff{"B": "1",\n\n "A": "x\\ny\\u00e9"\r}\n')

    assert got == [Assignment("B", "1", 1), Assignment("A", "x\nyé", 3)]


def test_an_environment_as_envd_prints_it_says_what_is_secret() -> None:
    assert read(ENVIRONMENT) == [
        Assignment("A", "1", 4, secret=True),
        Assignment("B", "2", 5, secret=False),
        Assignment("C", "3", 6),
    ]


def test_an_empty_object_has_no_variables() -> None:
    assert read("{}") == read(" {\n} ") == read('{"variables": {}}') == []


def test_variables_is_a_name_like_others_where_it_holds_a_string() -> None:
    assert read('{"variables": "x", "A": "y"}') == [
        Assignment("variables", "x", 1),
        Assignment("A", "y", 1),
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("null", "null"),
        ("true", "a boolean"),
        ("8080", "a number"),
        ("1.10", "a number"),
        ("1" * 5000, "a number"),
        ("NaN", "a number"),
        ("[1]", "an array"),
        ('{"a": 1}', "an object"),
    ],
)
def test_a_value_that_is_no_string_is_refused_by_name(value: str, kind: str) -> None:
    error = refusal('{"A": "1",\n "PORT": ' + value + "}")

    assert error.message == f"v.json:2: the value of PORT is {kind}, expected a string"
    assert error.hint


@pytest.mark.parametrize(
    "field", ['"value": null', '"value": "x", "masked": true', '"value": null, "masked": true']
)
def test_a_masked_value_is_refused_by_name(field: str) -> None:
    error = refusal('{"environment": "e", "variables": {"KEY": {' + field + "}}}")

    assert error.message == (
        "v.json:1: the value of KEY is masked; masked values can't be imported"
    )
    assert error.hint == "export with --reveal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"A": "1",\n "A": "1"}', "2: A stands here a second time; the first is in line 1"),
        (
            '{"variables": {"A": "1",\n"A": "2"}}',
            "2: A stands here a second time; the first is in line 1",
        ),
        (
            '{"variables": {"A": {"value": "1", "value": "2"}}}',
            "1: a field of A stands there twice",
        ),
        ('{"variables": {"A": {"secret": true}}}', "1: A has no field 'value'"),
        (
            '{"variables": {"A": {"value": 1}}}',
            "1: the value of A is a number, expected a string",
        ),
        (
            '{"variables": {"A": {"value": "1", "secret": "yes"}}}',
            "1: the field 'secret' of A is a string, not a boolean",
        ),
        (
            '{"variables": {},\n"A": "1"}',
            "2: A stands beside 'variables' and would be ignored",
        ),
    ],
)
def test_an_object_that_is_not_clear_is_refused(text: str, message: str) -> None:
    assert refusal(text).message == f"v.json:{message}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]", 1),
        ('"hunter2"', 1),
        ("A=hunter2", 1),
        ('{"A": "hunter2",\n}', 2),
        ('{"A": "hunter2"', 1),
        ('{"A": "hunter2"\n"B": "x"}', 2),
        ('{"A"\n"hunter2"}', 2),
        ('{"A": hunter2}', 1),
        ('{\n"A": "hunter2}', 2),
        ('{"A": "\\hunter2"}', 1),
        ('{"A": "hunter\n2"}', 1),
        ('{"A": "hunter2"}\nhunter2', 2),
        ("{hunter2: 1}", 1),
        ('{"hunter 2": "x"}', 1),
        ('{"A": "\\ud800"}', 1),
        ('{"A": "\\u0000"}', 1),
    ],
)
def test_what_is_no_json_is_refused_with_its_line_and_without_its_text(
    text: str, line: int
) -> None:
    error = refusal(text)

    assert error.message.startswith(f"v.json:{line}: ")
    assert "hunter" not in error.message + error.hint
    assert error.__context__ is None


@pytest.mark.parametrize("piece", ["[", '{"a":'])
def test_deep_nesting_is_refused(piece: str) -> None:
    assert "nested too deeply" in refusal('{"A": ' + piece * 100_000).message
