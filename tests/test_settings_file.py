"""The settings file that is shipped, the rendering of settings, and keys without effect."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import SettingsError
from envd.settings import FLAGS, MASK, Machine, Settings, load, render_effective
from envd.settings.document import line_of
from envd.settings.model import SCHEMA
from envd.settings.rendering import to_toml
from envd.settings.schema import Leaf, NamedTables, Table, TableArray, dotted_names

SHIPPED = Path(__file__).parent.parent / "config" / "envd.toml"
USER = Machine(host_name=lambda: "host-1", is_root=lambda: False)
HOME = {"HOME": "/home/ada"}
TOKEN = "a-Token.with_every~character+of/base64=="
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a settings file and returns its path."""

    def written(text: str) -> Path:
        file = tmp_path / "envd.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def settings(
    flags: Mapping[str, str | bool | int | None] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    return load(flags or {}, HOME | dict(environ or {}), file, machine=USER)


def refusal(file: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings(file=file)
    return caught.value


# What does nothing yet.


def test_keys_without_effect_are_listed_once_they_differ_from_the_default(write: Write) -> None:
    file = write(
        '[cluster]\nname = "other"\njoin = ["a:1"]\n[node]\nrole = "agent"\n'
        '[distributed]\nconsistency_level = "strong"\n'
        '[cloud]\nenabled = true\n[regions.eu]\nreplication_factor = 3\nzones = ["a"]\n'
        "[[bindings]]\nname = 'a'\nprefix = ''\ntargets = ['file:a']\n"
        "[autoscaling]\nenabled = true\n"
        '[observability]\nlog_level = "debug"\n'
    )

    found = settings({"advertise": "127.0.0.1", "zone": "b"}, file=file)

    assert found.ineffective() == [
        "distributed.consistency_level",
        "autoscaling.enabled",
        "regions.eu.zones",
    ]


# The rendering of `config check`.


def test_the_rendering_says_where_each_value_comes_from(write: Write) -> None:
    file = write(
        '[cluster]\njoin = ["a:1"]\n[node]\nregion = "eu"\n[autoscaling]\nenabled = true\n'
    )

    text = render_effective(settings({"listen": "127.0.0.1:0"}, {"ENVD_ZONE": "b"}, file))

    lines = text.splitlines()
    assert 'listen = "127.0.0.1:0"  # from --listen' in lines
    assert 'zone = "b"  # from ENVD_ZONE' in lines
    assert f'region = "eu"  # from {file}' in lines
    assert f'join = ["a:1"]  # from {file}' in lines
    assert f"enabled = true  # from {file}; no effect in this version" in lines
    assert 'http = "127.0.0.1:7422"' in lines
    assert "# admin_token is not set" in lines


def test_the_rendering_masks_secrets_and_a_mask_is_no_secret(write: Write) -> None:
    found = settings(file=write(f'[security]\nadmin_token = "{TOKEN}"\n'))

    text = render_effective(found)

    assert found.security.admin_token == TOKEN
    assert TOKEN not in text
    assert tomllib.loads(text)["security"]["admin_token"] == MASK
    assert "admin_token" in refusal(write(text)).message


def test_the_rendering_loads_back_to_the_same_settings(write: Write) -> None:
    found = settings(file=write(_with_examples().replace("admin_token", "#")))

    again = settings(file=write(render_effective(found)))

    assert again.differences(found) == []


@given(st.text())
def test_any_text_is_written_as_one_line_of_toml(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()

    written = to_toml(text)

    assert tomllib.loads(f"a = {written}") == {"a": text}
    assert len(written.splitlines()) == 1


# The shipped file.


def test_the_shipped_file_is_exactly_the_defaults() -> None:
    found = settings(file=SHIPPED)

    assert found.differences(settings()) == []
    assert found.ineffective() == []


def test_the_shipped_file_names_every_key_once_and_no_other() -> None:
    first_of_two_bindings = _with_examples().rpartition("[[bindings]]")[0]

    named = [key for key, _, _ in _keys_of(first_of_two_bindings)]

    assert sorted([*named, "bindings.prefix"]) == sorted(key for key, _ in _leaves(SCHEMA))


def test_the_examples_in_the_shipped_file_are_valid_once_uncommented(write: Write) -> None:
    found = settings(file=write(_with_examples()))

    assert set(found.regions) == {"eu-central"}
    assert [binding.name for binding in found.bindings] == ["payments", "batch"]
    assert found.security.admin_token == TOKEN


def test_the_example_of_a_token_is_refused_as_a_token(write: Write) -> None:
    error = refusal(write(_with_examples(token=None)))

    assert "security.admin_token" in error.message


def test_the_shipped_file_explains_every_key_and_says_which_have_no_effect() -> None:
    inert = {key: leaf.inert for key, leaf in _leaves(SCHEMA)}
    first_of_two_bindings = _with_examples().rpartition("[[bindings]]")[0]

    for key, comment, of_section in _keys_of(first_of_two_bindings):
        assert comment, f"{key} has no comment"
        assert ("no effect yet" in f"{comment} {of_section}".lower()) is inert[key], key


def _with_examples(token: str | None = TOKEN) -> str:
    """Return the shipped file with its commented keys and headers uncommented."""
    text = re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", SHIPPED.read_text(encoding="utf-8"))
    return text if token is None else re.sub('(admin_token) = ".*"', rf'\1 = "{token}"', text)


def _leaves(table: Table, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    for name, node in table.children.items():
        match node:
            case Leaf():
                yield prefix + name, node
            case Table():
                yield from _leaves(node, f"{prefix}{name}.")
            case NamedTables():
                yield from _leaves(node.table, f"{prefix}{name}.NAME.")
            case TableArray():
                yield from _leaves(node.table, f"{prefix}{name}.")


def _keys_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each key of the file, the comment of its block and that above its section."""
    section, comment = "", ""
    of_section: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            comment = ""
        elif line.startswith("#"):
            comment += line.removeprefix("#")
        elif line.startswith("["):
            section = re.sub(r"^regions\..*", "regions.NAME", line.strip("[]"))
            of_section.setdefault(section, comment)
            comment = ""
        else:
            yield f"{section}.{line.split(' = ')[0]}", comment, of_section[section]


def test_every_name_of_the_model_is_reachable_from_the_schema() -> None:
    names = list(dotted_names(SCHEMA))

    assert len(names) == len(set(names))
    assert {flag.key for flag in FLAGS} <= set(names)


# Lines.


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("a = 1\n[node]\nlisten = 1", ("node", "listen"), 3),
        ("node.listen = 1", ("node", "listen"), 1),
        ("[a]\nnode = {listen = 1}\n[b]\n", ("a", "node", "listen"), 2),
        ("[ regions . 'eu' ]\nzones = 1", ("regions", "eu", "zones"), 2),
        ("[[b]]\nx = 1\n[[b]]\nx = 2", ("b", 1, "x"), 4),
        ("# listen = 1\n[node]", ("node", "listen"), None),
    ],
)
def test_the_line_of_a_key_is_found_where_it_is_plain(
    text: str, path: tuple[str | int, ...], expected: int | None
) -> None:
    assert line_of(text, path) == expected


# Keys that only a mistake, or somebody who means harm, would write.


@pytest.mark.parametrize(
    "line", ["a." * 200_000 + "a = 1", '"a".' * 17 + "a = 1", "x = {" + "b . " * 17 + "b = 1}"]
)
def test_a_key_of_very_many_parts_is_refused_before_it_is_read(write: Write, line: str) -> None:
    error = refusal(write(f"[cluster]\n{line}\n"))

    assert "envd.toml:2: no key has more than 16 parts" in error.message


def test_dots_in_texts_and_remarks_are_no_parts_of_a_key(write: Write) -> None:
    hosts = ", ".join(f'"10.0.0.{at}:7421"' for at in range(99))
    labels = ".".join("abcdefghijklmnopqrstuvwxyz")

    read = settings(file=write(f"# e.g. {hosts}\n[cluster]\njoin = [{hosts}]\nname = '{labels}'\n"))

    assert len(read.cluster.join) == 99
    assert read.cluster.name == labels
