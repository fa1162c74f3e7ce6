"""Names in a store: injective and reversible, whatever the template."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Key
from envd.backends.errors import InvalidName
from envd.backends.naming import Naming
from envd.core.names import ENVIRONMENT_PATTERN, VARIABLE_PATTERN

Layout = Literal["per-variable", "document"]

ENVIRONMENTS = st.just("") | st.from_regex(ENVIRONMENT_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= 60 and name.count("/") < 8
)
VARIABLES = st.from_regex(VARIABLE_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 60)
KEYS = st.builds(Key, ENVIRONMENTS, VARIABLES)
TEMPLATES = [
    "",
    "{environment}/{variable}",
    "/app/{environment}/{variable}",
    "{variable}@{environment}",
    "{environment}-{variable}",
    "{environment}{variable}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@given(key=KEYS, other=KEYS)
def test_a_name_is_that_of_one_key_or_there_is_none(template: str, key: Key, other: Key) -> None:
    naming = Naming(template, below=True)
    names: dict[Key, str] = {}

    for each in (key, other):
        try:
            names[each] = naming.encode(each)
        except InvalidName:
            assert template in ("{environment}-{variable}", "{environment}{variable}")

    assert all(naming.decode(name) == each for each, name in names.items())
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("template", TEMPLATES[:4])
@given(key=KEYS)
def test_with_parts_that_are_told_apart_every_key_has_a_name(template: str, key: Key) -> None:
    naming = Naming(template, below=True)

    assert naming.decode(naming.encode(key)) == key


@given(environment=ENVIRONMENTS)
def test_every_environment_has_a_name_for_its_document(environment: str) -> None:
    naming = Naming(layout="document", below=True)

    assert naming.decode(naming.encode(Key(environment, ""))) == Key(environment, "")


@given(native=st.text(max_size=30))
def test_a_name_that_is_decoded_is_the_name_of_what_it_is_decoded_to(native: str) -> None:
    naming = Naming("{environment}/{variable}", below=True)

    key = naming.decode(native)

    assert key is None or naming.encode(key) == native


@pytest.mark.parametrize(
    ("key", "native"),
    [
        (Key("", "A"), "A"),
        (Key("web/prod", "A.b-C"), "web/prod/A.b-C"),
    ],
)
def test_names_are_as_people_expect(key: Key, native: str) -> None:
    assert Naming(below=True).encode(key) == native


@pytest.mark.parametrize(
    ("template", "layout", "below"),
    [
        ("{environment}", "per-variable", True),
        ("{variable}", "per-variable", True),
        ("{environment}/{variable}", "document", True),
        ("{variable}{variable}", "per-variable", False),
        ("{name}", "per-variable", False),
        ("{variable}{}", "per-variable", False),
        ("{variable}{", "per-variable", False),
        ("fixed", "per-variable", False),
    ],
)
def test_a_template_that_can_not_tell_keys_apart_is_refused(
    template: str, layout: Layout, below: bool
) -> None:
    with pytest.raises(InvalidName, match="the name template"):
        Naming(template, layout=layout, below=below)


@pytest.mark.parametrize(
    ("key", "layout", "below"),
    [
        (Key("web", "A"), "per-variable", False),
        (Key("", ""), "per-variable", False),
        (Key("", "A"), "document", False),
        (Key("", "1A"), "per-variable", False),
        (Key("../web", "A"), "per-variable", True),
    ],
)
def test_a_key_that_a_place_does_not_hold_has_no_name(
    key: Key, layout: Layout, below: bool
) -> None:
    naming = Naming(layout=layout, below=below)

    with pytest.raises(InvalidName):
        naming.encode(key)


def test_a_name_of_any_length_is_refused_or_decoded_at_once() -> None:
    assert Naming(below=True).decode("a/" * 100_000 + "!") is None
