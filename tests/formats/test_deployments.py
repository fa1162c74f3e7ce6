"""Formats of infrastructure: their targets read the values back, and secrets are not in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unicodedata import is_normalized

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.read import Dialect, parse
from envd.formats.secrets import looks_secret
from envd.formats.write import HELD, LOCATING, OUTPUT_FORMATS, REFERRING, render
from tests.formats.deployed import READERS, VAULT, Found, template

FORMATS = sorted(REFERRING | HELD)
DOTENV = Path(__file__).parents[1] / "data" / "dotenv"
CANARY = "canary-77-value"
WORDS = ["Aa", "NO", "Yes", "TRUE", "NAME", "A_B_C", "LONG_NAME_1", "PGHOST", "X9"]
TRICKY = st.lists(
    st.sampled_from(
        [*"an'\"`\\\n\r\t\f #!$%{}=:<,@&*", "${", "%{", "$$", "{{", "}}", "\x85", "\ufeff", "é"]
    ),
    max_size=10,
).map("".join)
VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30) | TRICKY
PLAIN = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=4)
EVERYTHING = {
    "API_KEY": CANARY,
    "DATABASE_URL": f"postgres://web:{CANARY}@db/web",
    "GREETING": 'say "hi" to ${USER}, 100%{sure} é',
    "LINES": "one\ntwo\n",
    "LISTEN": "8080",
    "NO": "no",
    "PRICE": "$5 {{x}}",
}
SECRET = ("API_KEY", "DATABASE_URL")


def place(format_name: str) -> str:
    return VAULT if format_name == "azure-functions" else ""


def read(format_name: str, text: str) -> Found:
    return READERS[format_name](text)


def fits(format_name: str, value: str) -> bool:
    """Tell whether the target of a format can hold a value at all."""
    if format_name.startswith("terraform-") and not is_normalized("NFC", value):
        return False
    if format_name == "terraform-ssm":
        return value != "" and "{{" not in value
    if format_name == "terraform-secret-manager":
        return value != ""
    if format_name == "nomad":
        return is_normalized("NFC", value) and not re.search(r"\$\{[\w.-]+\}", value, re.ASCII)
    return "{{resolve:" not in value or format_name not in ("cloudformation", "sam")


def test_every_format_of_infrastructure_has_a_reader_here() -> None:
    assert READERS.keys() == REFERRING | HELD
    assert READERS.keys() <= set(OUTPUT_FORMATS)
    assert set(LOCATING) <= REFERRING


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=40)
@given(PLAIN)
@example({"A_B_C": "", "NO": "no", "Yes": "{{{{{ $$$$ ${A} {{"})
@example({"A_B_C": '{{"{{"}}', "X9": "$", "Aa": "%"})
def test_what_is_not_secret_is_read_back_exactly_or_refused(
    format_name: str, variables: dict[str, str]
) -> None:
    everything = {**variables, "API_KEY": CANARY}

    def write() -> str:
        return render(
            everything,
            format=format_name,
            environment="web/prod",
            secret=["API_KEY"],
            secrets_from=place(format_name),
        )

    if not all(fits(format_name, value) for value in variables.values()):
        with pytest.raises(InvalidRequest) as caught:
            write()
        assert caught.value.reason == "INEXPRESSIBLE"
        return
    found = read(format_name, write())
    if format_name == "azure-functions-local":
        assert found.plain == everything
    else:
        assert found.plain == variables
        assert list(found.secret) == ["API_KEY"]


@pytest.mark.parametrize("format_name", sorted(REFERRING))
def test_no_secret_is_in_a_file_that_refers_to_it(format_name: str) -> None:
    text = render(
        {name: value.replace("{", "(") for name, value in EVERYTHING.items()},
        format=format_name,
        environment="web/prod",
        secret=SECRET,
        secrets_from=place(format_name),
    )

    assert CANARY not in text
    assert read(format_name, text).secret.keys() == set(SECRET)


@pytest.mark.parametrize("format_name", sorted(REFERRING))
def test_a_value_of_a_secret_makes_no_difference(format_name: str) -> None:
    """So it need not be known: the text is the same, and nothing of it is refused."""

    def write(value: str) -> str:
        return render(
            {"API_KEY": value, "PLAIN": "x"},
            format=format_name,
            environment="web/prod",
            secret=["API_KEY"],
            secrets_from=place(format_name),
        )

    assert write("") == write("{{resolve:x}} ${x} e\u0301" * 10_000)


@pytest.mark.parametrize("format_name", sorted(HELD))
def test_where_nothing_can_be_referred_to_the_secrets_are_held(format_name: str) -> None:
    text = render(EVERYTHING, format=format_name, environment="web/prod", secret=SECRET)

    found = read(format_name, text)
    assert found.plain | found.secret == EVERYTHING


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("file", sorted(DOTENV.glob("*.env")), ids=lambda each: each.stem)
def test_a_real_file_is_written_once_what_is_refused_is_left_out(
    format_name: str, file: Path
) -> None:
    dialect: Dialect = "node" if file.stem.startswith("dotenv-js") else "python"
    assignments = parse(file.read_bytes(), format="dotenv", dialect=dialect, source=file.name)
    variables = {each.name: each.value for each in assignments}
    secret = [name for name, value in variables.items() if looks_secret(name, value)]
    before = len(variables)

    text = None
    while text is None:
        try:
            text = render(
                variables,
                format=format_name,
                environment="web/prod",
                secret=secret,
                secrets_from=place(format_name),
            )
        except InvalidRequest as error:
            name = error.message.split(" ", 1)[0]
            if name == "the":  # All together are too many for it.
                name = max(variables, key=lambda each: len(variables[each]))
            del variables[name]

    found = read(format_name, text)
    known = {name: value for name, value in variables.items() if name in found.plain}
    assert found.plain == known
    assert found.plain.keys() | found.secret.keys() == variables.keys()
    assert len(variables) >= before / 3


@pytest.mark.parametrize("format_name", FORMATS)
def test_it_looks_as_before(format_name: str, golden: Callable[[str, bytes], bytes]) -> None:
    variables = {name: value for name, value in EVERYTHING.items() if fits(format_name, value)}
    text = render(
        variables,
        format=format_name,
        environment="web/prod",
        secret=SECRET,
        secrets_from=place(format_name),
    ).encode()

    assert golden(f"export-{format_name}", text) == text


@pytest.mark.parametrize("format_name", ["cloudformation", "sam"])
def test_a_template_is_one_that_cfn_lint_has_no_complaint_about(format_name: str) -> None:
    from cfnlint.api import lint  # type: ignore[import-untyped]

    text = render(EVERYTHING, format=format_name, environment="web/prod", secret=SECRET)
    worse = text.replace("LISTEN", "AWS_REGION").replace("NoEcho", "NoEchoes")

    assert lint(text, regions=["us-east-1"]) == []
    assert len(lint(worse, regions=["us-east-1"])) >= 2


@pytest.mark.parametrize("format_name", ["cloudformation", "sam"])
def test_a_name_that_yaml_takes_for_a_word_is_a_name_in_a_template(format_name: str) -> None:
    names = ["NO", "Yes", "on", "True", "null"]
    text = render(dict.fromkeys(names, "x"), format=format_name, secret=names)

    assert [*template(text)["Parameters"]][-5:] == ["No", "Yes", "On", "True", "Null"]
    assert list(read(format_name, text).secret) == names
