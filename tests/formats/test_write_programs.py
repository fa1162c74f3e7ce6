"""What is exported for other programs is read back exactly by the rules of those programs."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Callable
from io import StringIO
from typing import Any
from unicodedata import normalize

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.write import render

CHARACTERS = st.characters(exclude_characters="\0", codec="utf-8")
TRICKY = st.lists(
    st.sampled_from([*"an'\"`\\\n\r\t\f #!$%{}=:<,", "${", "%{", "\x85", "\u2028", "\ufeff", "é"]),
    max_size=10,
).map("".join)
VALUES = st.text(CHARACTERS, max_size=40) | TRICKY
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
PLAIN_NAMES = st.from_regex(r"[A-FH-QS-Z_][A-Z0-9_]{0,8}", fullmatch=True)
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
PLAIN = st.dictionaries(PLAIN_NAMES, VALUES, max_size=4)
SECRET = "canary-41-value"


def read_csv(text: str) -> dict[str, str]:
    header, *rows = csv.reader(StringIO(text, newline=""), strict=True)
    assert header == ["name", "value"]
    return dict(rows)


def read_properties(text: str) -> dict[str, str]:
    """`java.util.Properties.load`, for lines with `=` and without continuation."""
    assert text.isascii()
    found = {}
    for line in re.split("[\r\n]+", text):
        if line:
            name, _, raw = line.partition("=")
            found[name] = re.sub(r"\\(u[0-9a-f]{4}|.)", _java, raw.lstrip(" \t\f"))
    return {name: _joined(value) for name, value in found.items()}


def _java(match: re.Match[str]) -> str:
    what = match[1]
    if len(what) == 5:
        return chr(int(what[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}.get(what, what)


def _joined(value: str) -> str:
    """Surrogate pairs, as Java keeps them, as characters."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16")


def read_tfvars(text: str) -> dict[str, str]:
    """Quoted strings of HCL without templates; what would begin a template is an error."""
    found = {}
    for line in text.split("\n")[:-1]:
        matched = re.fullmatch(r'([A-Za-z_][\w-]*) = "((?:[^"\\]|\\.)*)"', line, re.ASCII)
        assert matched is not None
        assert not re.search(r"[$%]\{", matched[2])
        found[matched[1]] = re.sub(r'\\(u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt"\\])', _hcl, matched[2])
    return found


def _hcl(match: re.Match[str]) -> str:
    what = match[1]
    if len(what) > 1:
        return chr(int(what[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t"}.get(what, what)


def read_systemd(text: str) -> dict[str, str]:
    """parse_env_file_internal of systemd, for values in double quotes."""
    found = {}
    while text:
        matched = re.match(r'(\w+)="((?:[^"\\]|\\["\\`$])*)"\n', text, re.ASCII)
        assert matched is not None
        found[matched[1]] = re.sub(r'\\(["\\`$])', r"\1", matched[2])
        text = text[matched.end() :]
    return found


def read_github(text: str) -> dict[str, str]:
    """The runner's EnvFileKeyValuePairs, for values with a delimiter."""
    found = {}
    lines = text.split("\n")[:-1]
    while lines:
        name, _, delimiter = lines.pop(0).partition("<<")
        end = lines.index(delimiter)
        found[name] = "\n".join(lines[:end])
        assert delimiter not in found[name]
        del lines[: end + 1]
    return found


def manifest(text: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text)
    return document


# -- round trips -------------------------------------------------------------------


@given(ENVIRONMENTS)
def test_csv_is_exact(variables: dict[str, str]) -> None:
    assert read_csv(render(variables, format="csv")) == variables


@given(ENVIRONMENTS)
@example({"A": "  two blanks", "B": "\U0001f600", "C": "\\u0041"})
def test_properties_are_exact(variables: dict[str, str]) -> None:
    assert read_properties(render(variables, format="properties")) == variables


@given(PLAIN)
@example({"A": '${x} $${x} %{if} $" $', "my-name": "\U0001f600"})
def test_tfvars_are_exact_for_what_is_nfc(variables: dict[str, str]) -> None:
    composed = {name: normalize("NFC", value) for name, value in variables.items()}

    text = render(composed, format="tfvars")

    assert text.isascii()
    assert read_tfvars(text) == composed


@given(PLAIN)
def test_systemd_is_exact_or_refuses(variables: dict[str, str]) -> None:
    taken = re.compile("[\x01-\x08\x0b-\x1f\x7f]|[\ufdd0-\ufdef]")
    if any(taken.search(each) or _noncharacter(each) for each in variables.values()):
        with pytest.raises(InvalidRequest):
            render(variables, format="systemd")
    else:
        assert read_systemd(render(variables, format="systemd")) == variables


def _noncharacter(value: str) -> bool:
    return any(ord(each) & 0xFFFE == 0xFFFE for each in value)


@given(PLAIN)
@example({"A": "", "B": "\n", "C": "x\n", "D": "\r\nB<<EOF\n"})
def test_github_actions_is_exact_or_refuses(variables: dict[str, str]) -> None:
    if any(value.endswith("\r") for value in variables.values()):
        with pytest.raises(InvalidRequest):
            render(variables, format="github-actions")
    else:
        assert read_github(render(variables, format="github-actions")) == variables


def test_a_delimiter_does_not_depend_on_chance() -> None:
    once, again = (render({"A": "x"}, format="github-actions") for _ in range(2))

    assert once == again


@given(ENVIRONMENTS)
@example({"yes": "no", "null": ""})
def test_a_secret_of_kubernetes_is_exact(variables: dict[str, str]) -> None:
    document = manifest(render(variables, format="k8s-secret", environment="web/prod"))

    assert (document["apiVersion"], document["kind"]) == ("v1", "Secret")
    decoded = {name: base64.b64decode(text).decode() for name, text in document["data"].items()}
    assert decoded == variables


@given(ENVIRONMENTS)
@example({"yes": "no", "null": ""})
def test_a_config_map_is_exact(variables: dict[str, str]) -> None:
    document = manifest(render(variables, format="k8s-configmap", environment="web/prod"))

    assert document["kind"] == "ConfigMap"
    assert document["data"] == variables


@pytest.mark.parametrize(
    ("environment", "name"),
    [("web/prod", "web-prod"), ("a/b_c.d", "a-b-c-d"), ("1", "1"), ("null", "null")],
)
def test_an_object_is_named_after_its_environment(environment: str, name: str) -> None:
    document = manifest(render({}, format="k8s-secret", environment=environment))

    assert document["metadata"] == {"name": name}
    assert document["data"] == {}


# -- golden texts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "text"),
    [
        ("csv", 'name,value\r\nA,"say ""hi"""\r\n'),
        ("properties", 'A=say "hi"\n'),
        ("tfvars", 'A = "say \\"hi\\""\n'),
        ("systemd", 'A="say \\"hi\\""\n'),
        (
            "k8s-secret",
            'apiVersion: v1\nkind: Secret\nmetadata:\n  name: "envd"\n'
            "data:\n  A: c2F5ICJoaSI=\ntype: Opaque\n",
        ),
        (
            "k8s-configmap",
            'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: "envd"\n'
            'data:\n  A: "say \\"hi\\""\n',
        ),
    ],
)
def test_it_looks_as_people_write_it(format_name: str, text: str) -> None:
    assert render({"A": 'say "hi"'}, format=format_name) == text


# -- refusals ----------------------------------------------------------------------

REFUSED: list[tuple[str, str, str]] = [
    ("tfvars", "A.B", SECRET),
    ("tfvars", "NFD", SECRET + "e\u0301"),
    ("systemd", "A-B", SECRET),
    ("systemd", "CR", SECRET + "\r"),
    ("systemd", "ESCAPE", SECRET + "\x1b"),
    ("systemd", "NONCHARACTER", SECRET + "\U0001ffff"),
    ("github-actions", "CR", SECRET + "\r"),
    ("github-actions", "NODE_OPTIONS", SECRET),
    ("github-actions", "GITHUB_TOKEN", SECRET),
    ("github-actions", "Runner_X", SECRET),
    ("k8s-secret", "N" * 254, SECRET),
    ("k8s-configmap", "N" * 254, SECRET),
]


@pytest.mark.parametrize(("format_name", "name", "value"), REFUSED)
def test_what_can_not_be_expressed_is_refused_by_name(
    format_name: str, name: str, value: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(name)) as caught:
        render({"FINE": "x", name: value}, format=format_name)

    assert caught.value.reason == "INEXPRESSIBLE"
    assert SECRET not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("format_name", ["k8s-secret", "k8s-configmap"])
def test_more_than_an_object_holds_is_refused(format_name: str) -> None:
    half = "x" * (1 << 19)

    assert render({"A": half, "B": half}, format=format_name)
    with pytest.raises(InvalidRequest, match="B and those before it"):
        render({"A": half, "B": half + "x"}, format=format_name)


def test_a_longer_name_than_an_object_may_have_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="longer than the name"):
        render({}, format="k8s-secret", environment="e" * 255)


READERS: dict[str, Callable[[str], dict[str, str]]] = {
    "csv": read_csv,
    "properties": read_properties,
    "tfvars": read_tfvars,
    "systemd": read_systemd,
    "github-actions": read_github,
}


@pytest.mark.parametrize("format_name", READERS)
def test_no_value_reaches_another_line(format_name: str) -> None:
    evil = '"\nEVIL="x"\nEVIL=x\nEVIL<<EOF\nx\nEOF\nEVIL,x\n'

    assert READERS[format_name](render({"A": evil}, format=format_name)) == {"A": evil}
