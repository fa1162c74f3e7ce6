"""Names in the stores of AWS."""

from __future__ import annotations

import pytest

from envd.backends.aws_names import PlaceNames, absolute
from envd.backends.aws_parameter import RULES as OF_PARAMETERS
from envd.backends.aws_secret import RULES as OF_SECRETS
from envd.backends.contract import Key, Options, Scope
from envd.backends.errors import InvalidName


@pytest.mark.parametrize(
    ("place", "prefix", "found"),
    [
        ("/payments/prod", "/envd", "payments/prod"),
        ("payments/prod", "/envd", "envd/payments/prod"),
        ("payments/prod", "envd/", "envd/payments/prod"),
        ("payments/prod", "", "payments/prod"),
        ("//prod/db", "envd/", "/prod/db"),
        ("/", "/envd", ""),
    ],
)
def test_a_place_lies_below_the_prefix_unless_it_begins_with_a_slash(
    place: str, prefix: str, found: str
) -> None:
    assert absolute(place, prefix) == found


def test_a_variable_is_right_below_its_place() -> None:
    names = PlaceNames("/payments/prod", Options("", below=True), OF_PARAMETERS)

    assert names.encode(Key("", "DATABASE_URL")) == "/payments/prod/DATABASE_URL"
    assert names.encode(Key("web/eu", "A-B.c")) == "/payments/prod/web/eu/A-B.c"
    assert names.decode("/payments/prod/web/eu/A-B.c") == Key("web/eu", "A-B.c")


def test_the_document_of_the_place_itself_has_its_name() -> None:
    names = PlaceNames("payments/prod", Options("", "document", below=True), OF_SECRETS)

    assert names.encode(Key("", "")) == "payments/prod"
    assert names.encode(Key("web", "")) == "payments/prod/web"
    assert names.decode("payments/prod") == Key("", "")
    assert names.decode("payments/prod/_") is None


@pytest.mark.parametrize("native", ["/payments/prod2/A", "/payments/prod", "/payments", "A", ""])
def test_names_outside_of_the_place_are_not_ours(native: str) -> None:
    names = PlaceNames("/payments/prod", Options(""), OF_PARAMETERS)

    assert names.decode(native) is None


@pytest.mark.parametrize("place", ["/aws/x", "/SSM", "/a b", "/" + "x" * 1011, "/a//b"])
def test_a_place_that_the_parameter_store_refuses_can_not_be_bound(place: str) -> None:
    with pytest.raises(InvalidName):
        PlaceNames(place, Options(""), OF_PARAMETERS)


def test_the_root_of_the_parameter_store_holds_all_names_but_those_of_aws() -> None:
    names = PlaceNames("/", Options(""), OF_PARAMETERS)

    assert names.encode(Key("", "NAME")) == "/NAME"
    with pytest.raises(InvalidName, match="reserved"):
        names.encode(Key("", "AWS_REGION"))


def test_fifteen_levels_are_taken_and_sixteen_are_not() -> None:
    deep = "/".join("abcdefghijklm")
    names = PlaceNames(f"/{deep}", Options("", below=True), OF_PARAMETERS)

    assert names.encode(Key("web", "NAME")).count("/") == 15
    with pytest.raises(InvalidName, match="levels"):
        names.encode(Key("web/eu", "NAME"))


def test_a_scope_has_the_path_above_its_names() -> None:
    names = PlaceNames("/app", Options("", below=True), OF_PARAMETERS)
    templated = PlaceNames(
        "/app", Options("", below=True, name_template="{variable}/{environment}"), OF_PARAMETERS
    )

    assert names.path(Scope("web", below=True)) == "/app/web"
    assert names.is_flat(Scope("web"))
    assert not names.is_flat(Scope("web", below=True))
    assert templated.path(Scope("web")) == "/app"
    assert not templated.is_flat(Scope("web"))
