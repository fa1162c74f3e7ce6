"""Names in the stores of Google Cloud."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Key, Options
from envd.backends.errors import InvalidName, StoreUnsupported
from envd.backends.gcp_names import Place, PlaceNames, escaped, place_of, unescaped

SETTINGS = {"project_id": "example-project"}
ID = "ABCabc019_-./"


def _names(base: str = "envd-web", **options: object) -> PlaceNames:
    return PlaceNames(base, Options("web", **options), most=255)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web", Place("example-project", "envd-web")),
        ("/web", Place("example-project", "web")),
        ("other-project/web", Place("other-project", "envd-web")),
        ("other-project//web", Place("other-project", "web")),
        ("other-project/", Place("other-project", "envd-")),
        ("/", Place("example-project", "")),
        ("123456789/web", Place("123456789", "envd-web")),
    ],
)
def test_a_place_is_a_prefix_of_a_project(text: str, place: Place) -> None:
    assert place_of(text, SETTINGS, "envd-") == place


@pytest.mark.parametrize("text", ["web", "/web"])
def test_a_place_without_a_project_is_refused(text: str) -> None:
    with pytest.raises(StoreUnsupported, match="project"):
        place_of(text, {}, "envd-")


@pytest.mark.parametrize(
    ("key", "native"),
    [
        (Key("", "DATABASE_URL"), "envd-web--DATABASE_URL"),
        (Key("prod", "DATABASE_URL"), "envd-web--prod--DATABASE_URL"),
        (Key("my-app/eu", "a.b"), "envd-web--my-_app--eu--a-0b"),
    ],
)
def test_ids_are_readable(key: Key, native: str) -> None:
    names = _names(below=True)

    assert names.encode(key) == native
    assert names.decode(native) == key


def test_documents_are_named_as_their_environments() -> None:
    names = _names(layout="document", below=True)

    assert names.encode(Key("", "")) == "envd-web"
    assert names.encode(Key("prod/eu", "")) == "envd-web--prod--eu"
    assert names.decode("envd-web") == Key("", "")
    assert names.decode("envd-web--_") is None


def test_a_template_makes_the_id_as_it_stands() -> None:
    names = _names("", name_template="shop-{variable}")

    assert names.encode(Key("", "URL")) == "shop-URL"
    assert names.decode("shop-URL") == Key("", "URL")
    with pytest.raises(InvalidName):
        names.encode(Key("", "a.b"))


def test_a_base_that_ends_with_a_dash_needs_no_mark() -> None:
    names = _names("envd-")

    assert names.encode(Key("", "URL")) == "envd-URL"


@pytest.mark.parametrize("base", ["a b", "ä", "a/b", "x" * 256])
def test_a_place_that_no_id_begins_with_is_refused(base: str) -> None:
    with pytest.raises(InvalidName):
        _names(base)


@pytest.mark.parametrize("native", ["envd-web--a-b", "envd-web--A-", "envd-web-A", "envd-web", "x"])
def test_what_is_never_made_is_not_ours(native: str) -> None:
    assert _names(below=True).decode(native) is None


@given(st.text(ID))
def test_what_is_escaped_is_read_back(text: str) -> None:
    assert unescaped(escaped(text)) == text


@given(st.text("Aa0_-"))
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    plain = unescaped(text)

    assert plain is None or escaped(plain) == text
