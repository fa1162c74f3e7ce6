"""Names in a Key Vault: what they look like, and that each has one key."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.azure_names import MAX_CHARACTERS, SecretNames
from envd.backends.contract import Key, Options
from envd.backends.errors import InvalidName
from envd.core.names import ENVIRONMENT_PATTERN, VARIABLE_PATTERN

_VAULT = SecretNames("", Options("", below=True))
_VARIABLES = st.from_regex(re.compile(VARIABLE_PATTERN), fullmatch=True).map(lambda t: t[:40])
_ENVIRONMENTS = st.from_regex(re.compile(ENVIRONMENT_PATTERN), fullmatch=True).filter(
    lambda text: len(text) < 20 and not text.startswith("sys")
)


@pytest.mark.parametrize(
    ("key", "native"),
    [
        (Key("", "DATABASE_URL"), "database-url"),
        (Key("", "A"), "a"),
        (Key("", "_A_"), "-a-"),
        (Key("", "X_1"), "x-1"),
        (Key("", "X__1"), "x--lbpv6mi"),
        (Key("", "camelCase"), "x--mnqw2zlminqxgzi"),
        (Key("", "A___B"), "x--ifpv6x2c"),
        (Key("web", "A___B"), "web---a---b"),
        (Key("web", "_A"), "web----a"),
        (Key("web/prod-eu", "A"), "web--prod-eu---a"),
        (Key("web.eu", "A"), "x--o5sweltfou---a"),
        (Key("x/web", "A"), "x--paxxozlc---a"),
        (Key("a--b", "A"), "x--mews2yq---a"),
    ],
)
def test_a_name_is_readable_where_it_can_be(key: Key, native: str) -> None:
    assert _VAULT.encode(key) == native
    assert _VAULT.decode(native) == key


def test_a_place_is_a_path_and_holds_what_is_below_it() -> None:
    one = SecretNames("web/prod", Options(""))
    all_of_web = SecretNames("web", Options("", below=True))

    native = one.encode(Key("", "NAME"))

    assert native == "web--prod---name"
    assert all_of_web.encode(Key("prod", "NAME")) == native
    assert all_of_web.decode(native) == Key("prod", "NAME")
    assert one.decode("web--prod2---name") is None
    assert one.decode("web---name") is None
    assert SecretNames("", Options("")).decode(native) is None


def test_documents_are_named_as_their_environments_are() -> None:
    documents = SecretNames("web", Options("", "document", below=True))
    of_vault = SecretNames("", Options("", "document", below=True))

    assert documents.encode(Key("", "")) == "web"
    assert documents.encode(Key("prod", "")) == "web--prod"
    assert documents.decode("web--prod---name") is None
    assert of_vault.encode(Key("", "")) == "x--"
    assert of_vault.decode("x--") == Key("", "")


def test_capital_letters_of_others_are_the_same_name() -> None:
    assert _VAULT.decode("Database-URL") == Key("", "DATABASE_URL")


@pytest.mark.parametrize("native", ["", "a_b", "a.b", "ä", "x--", "x--1", "x--ifpv", "a" * 128])
def test_what_no_key_would_be_called_is_not_ours(native: str) -> None:
    assert _VAULT.decode(native) is None


def test_a_template_names_what_is_in_the_place() -> None:
    names = SecretNames("web", Options("", name_template="APP_{variable}"))

    native = names.encode(Key("", "NAME"))

    assert native == "web---app-name"
    assert names.decode(native) == Key("", "NAME")
    assert names.decode("web---name") is None


@pytest.mark.parametrize("path", ["Web", "web//prod", "/web", "web prod"])
def test_a_path_is_written_as_an_environment(path: str) -> None:
    with pytest.raises(InvalidName):
        SecretNames(path, Options(""))


def test_a_name_that_is_too_long_is_none() -> None:
    assert len(_VAULT.encode(Key("", "N" * MAX_CHARACTERS))) == MAX_CHARACTERS
    with pytest.raises(InvalidName, match="128 characters"):
        _VAULT.encode(Key("", "N" * (MAX_CHARACTERS + 1)))
    with pytest.raises(InvalidName):
        _VAULT.encode(Key("", "n" * 100))


@given(_ENVIRONMENTS | st.just(""), _VARIABLES)
def test_every_name_tells_its_key(environment: str, variable: str) -> None:
    key = Key(environment, variable)
    try:
        native = _VAULT.encode(key)
    except InvalidName:
        return

    assert re.fullmatch(r"[0-9a-z-]{1,127}", native)
    assert _VAULT.decode(native) == key


def test_short_names_are_all_apart() -> None:
    pieces = ["", "A", "X", "a", "_", "__", "-"]
    variables = ["".join(each) for each in product(["A", "X", "_", "a"], pieces, pieces)]
    environments = ["", "a", "x", "a-a", "a--a", "a/a", "a/x", "x/a", "a.a"]
    keys = {Key(environment, each) for environment in environments for each in variables}

    names = {_VAULT.encode(key): key for key in keys}

    assert len(names) == len(keys)
    assert all(_VAULT.decode(native) == key for native, key in names.items())
