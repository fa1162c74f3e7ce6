"""Values and the notes beside them: which belongs to which, and what it tells."""

from __future__ import annotations

import pytest

from envd.backends.contract import Key, Op, Verb
from envd.backends.errors import InvalidName
from envd.backends.marked_keys import DocumentShape, Kept, Pairing, Raw, mark_of, note
from envd.backends.marked_store import place_of

OP = Op(Verb.PUT, Key("", "NAME"), "", "value", secret=False, stamp="1-a")


def kept(*, made: int = 1, changed: int = 1, marked: int = 1, mark: bytes | None = None) -> Kept:
    written = note(OP, Kept("a"), document=False) if mark is None else mark
    return Kept("a", Raw("a", made, changed, b"value"), Raw(mark_of("a"), 1, marked, written))


def test_a_note_that_was_written_with_its_value_tells_of_it() -> None:
    found = kept()

    assert (found.is_ours, found.stamp, found.secret) == (True, "1-a", False)


def test_a_value_that_was_edited_since_is_ours_without_a_stamp() -> None:
    found = kept(changed=2)

    assert (found.is_ours, found.stamp, found.secret) == (True, "", False)


def test_a_value_that_was_made_since_is_somebody_elses() -> None:
    found = kept(made=2, changed=2)

    assert (found.is_ours, found.stamp, found.secret) == (False, "", None)


@pytest.mark.parametrize("mark", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_note_tells_nothing(mark: bytes) -> None:
    found = kept(mark=mark)

    assert (found.is_ours, found.stamp, found.secret) == (False, "", None)


def test_no_two_notes_of_a_key_are_equal() -> None:
    first = note(OP, Kept("a"), document=False)

    assert first != note(OP, kept(), document=False)


def _pairs(*pages: list[str]) -> list[list[tuple[str, bool]]]:
    """What each page tells: values, and whether they have a note; then what is left."""
    pairing = Pairing()
    found = [pairing.take([Raw(path, 1, 1) for path in page]) for page in pages]
    found.append(pairing.rest())
    return [[(each.path, each.mark is not None) for each in page] for page in found]


def test_values_are_paired_with_their_notes() -> None:
    pairs = _pairs(["a", "a!envd", "b", "c", "c!envd"])

    assert pairs == [[("a", True), ("b", False), ("c", True)], []]


def test_a_note_on_the_next_page_is_found() -> None:
    assert _pairs(["a"], ["a!envd", "b"]) == [[], [("a", True)], [("b", False)]]


def test_what_stands_between_a_value_and_its_note_separates_them_not() -> None:
    pairs = _pairs(["a", "a b", "a!e", "a!envd"])

    assert {each for page in pairs for each in page} == {
        ("a", True),
        ("a b", False),
        ("a!e", False),
    }


def test_a_note_without_a_value_is_nothing() -> None:
    assert _pairs(["a!envd", "b"]) == [[], [("b", False)]]


@pytest.mark.parametrize("text", ["", "[]", '{"A": 1}', "{" * 100_000])
def test_a_document_is_text_by_name_and_nothing_else(text: str) -> None:
    assert DocumentShape().text(Kept("a", Raw("a", 1, 1, text.encode()))) is None


def test_a_document_has_names_of_variables() -> None:
    bad = Op(Verb.PUT, Key("", ""), "", '{"no name": "x"}')

    assert isinstance(DocumentShape().problem(bad), InvalidName)


@pytest.mark.parametrize(
    ("place", "prefix", "path"),
    [
        ("web", "/envd", "/envd/web"),
        ("web/prod/", "/envd/", "/envd/web/prod"),
        ("/web", "/envd", "/web"),
        ("web", "", "web"),
    ],
)
def test_a_place_is_below_the_prefix_or_the_store_itself(
    place: str, prefix: str, path: str
) -> None:
    assert place_of(place, prefix) == path


@pytest.mark.parametrize("place", ["/", "/a//b", "/a/../b", "/a/.", "a\nb", "/web!envd"])
def test_a_place_that_would_be_another_one_is_none(place: str) -> None:
    with pytest.raises(InvalidName):
        place_of(place, "/envd")
