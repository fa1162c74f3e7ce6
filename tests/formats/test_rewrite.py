"""Files changed in place: the change is there, and nothing else is another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.formats.read import Dialect, InputFormat, parse
from envd.formats.rewrite import rewrite

REAL = Path(__file__).parent.parent / "data" / "dotenv"
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TRICKY = st.lists(
    st.sampled_from(["'", '"', "`", "\\", "\n", "\r", "#", " ", "=", "$", "{", "}", "a", "n", ":"]),
    max_size=8,
).map("".join)
VARIABLES = st.dictionaries(NAMES, VALUES | TRICKY, max_size=6)
FORMATS: list[InputFormat] = ["dotenv", "json", "yaml"]


def read(raw: bytes, format_: InputFormat, dialect: Dialect = "python") -> dict[str, str]:
    found = parse(raw, format=format_, dialect=dialect, source="file")
    return {each.name: each.value for each in found}


def change(
    raw: bytes | str,
    changes: Mapping[str, str | None],
    format_: InputFormat,
    dialect: Dialect = "python",
) -> str:
    raw = raw.encode() if isinstance(raw, str) else raw
    return rewrite(raw, changes, format=format_, dialect=dialect, source="file").decode()


@pytest.mark.parametrize("format_", FORMATS)
@given(before=VARIABLES, changes=st.dictionaries(NAMES, st.none() | VALUES | TRICKY, max_size=4))
def test_a_file_holds_what_it_held_and_what_was_changed(
    format_: InputFormat, before: dict[str, str], changes: dict[str, str | None]
) -> None:
    raw = rewrite(b"", before, format=format_, source="file")
    removed: dict[str, str | None] = dict.fromkeys(list(before)[::2])

    after = rewrite(raw, {**removed, **changes}, format=format_, source="file")

    wanted = {**before, **removed, **changes}
    assert read(raw, format_) == before
    assert read(after, format_) == {k: v for k, v in wanted.items() if v is not None}


@pytest.mark.parametrize("file", sorted(REAL.glob("*.env")), ids=lambda file: file.stem)
@settings(max_examples=20)
@given(data=st.data())
def test_of_a_real_file_only_the_changed_line_is_another(file: Path, data: st.DataObject) -> None:
    dialect: Dialect = "node" if file.name.startswith("dotenv-js") else "python"
    raw = file.read_bytes()
    name = data.draw(st.sampled_from(sorted(read(raw, "dotenv", dialect))))

    after = change(raw, {name: "changed"}, "dotenv", dialect).encode()

    assert read(after, "dotenv", dialect) == {**read(raw, "dotenv", dialect), name: "changed"}
    removed = [each for each in raw.splitlines() if each not in after.splitlines()]
    added = [each for each in after.splitlines() if each not in raw.splitlines()]
    assert len(added) <= 1
    assert all(not each.strip().startswith(b"#") for each in removed)


@pytest.mark.parametrize("file", sorted(REAL.glob("*.env")), ids=lambda file: file.stem)
def test_a_real_file_gets_back_what_was_taken_out(file: Path) -> None:
    dialect: Dialect = "node" if file.name.startswith("dotenv-js") else "python"
    raw = file.read_bytes()
    before = read(raw, "dotenv", dialect)

    emptied = change(raw, dict.fromkeys(before), "dotenv", dialect)

    comments = [line for line in raw.decode().splitlines() if line.startswith("#")]
    assert read(emptied.encode(), "dotenv", dialect) == {}
    assert [line for line in emptied.splitlines() if line.startswith("#")] == comments


DOTENV = """\
# the database
  export A = 'one'  # first
B=two # second

C="several
lines" # third
A=again
D=
E= # empty
"""


@pytest.mark.parametrize(
    ("changes", "was", "becomes"),
    [
        ({"B": "2"}, "B=two # second", "B=2 # second"),
        ({"C": "3"}, 'C="several\nlines" # third', "C=3 # third"),
        ({"A": "x y"}, "A=again", "A='x y'"),
        ({"D": "4"}, "D=\n", "D=4\n"),
        ({"E": "5"}, "E= # empty", "E= 5 # empty"),
        ({"B": None}, "B=two # second\n", ""),
        ({"C": None}, 'C="several\nlines" # third\n', ""),
        ({"Z": "#"}, "# empty\n", "# empty\nZ='#'\n"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_change_of_a_dotenv_file_is_one_of_its_lines(
    changes: dict[str, str | None], was: str, becomes: str, line_end: str, mark: str
) -> None:
    raw = mark + DOTENV.replace("\n", line_end)

    after = change(raw, changes, "dotenv")

    assert after == mark + DOTENV.replace(was, becomes).replace("\n", line_end)


def test_all_assignments_of_a_name_go() -> None:
    after = change(DOTENV, {"A": None}, "dotenv")

    assert after == DOTENV.replace("  export A = 'one'  # first\n", "").replace("A=again\n", "")


def test_a_file_without_a_last_line_end_is_continued_in_a_new_line() -> None:
    after = change("A=1", {"B": "2"}, "dotenv")

    assert after == "A=1\nB=2\n"


@pytest.mark.parametrize(
    ("raw", "changes", "after"),
    [
        ('{"A": "1"}', {"B": "2"}, '{"A": "1", "B": "2"}'),
        ('{"A": "1", "B": "2"}', {"A": None}, '{"B": "2"}'),
        ('{\n\t"A": "1",\n\t"B": "2"\n}\n', {"B": None}, '{\n\t"A": "1"\n}\n'),
        ('{\n\t"A":"1",\n\t"B":"2"\n}\n', {"C": "3"}, '{\n\t"A":"1",\n\t"B":"2",\n\t"C": "3"\n}\n'),
        ('{\n  "A" : "1"\n}', {"A": "é"}, '{\n  "A" : "é"\n}'),
        ('{ "A": "1" }', {"A": None}, "{}"),
        (
            '{"environment": "a", "variables": {"A": {"secret": true, "value": "1"}}}',
            {"A": "2"},
            '{"environment": "a", "variables": {"A": {"secret": true, "value": "2"}}}',
        ),
    ],
)
def test_json_keeps_its_form(raw: str, changes: dict[str, str | None], after: str) -> None:
    changed = change(raw, changes, "json")

    assert changed == after
    assert json.loads(changed) is not None


YAML = """\
# the database
A: 'one'  # first
B: |
  several
  lines

# the rest
"C": plain  # third
"""


@pytest.mark.parametrize(
    ("changes", "was", "becomes"),
    [
        ({"A": "1"}, "'one'", '"1"'),
        ({"B": "2"}, "|\n  several\n  lines\n\n", '"2"\n\n'),
        ({"C": None}, '"C": plain  # third\n', ""),
        ({"B": None}, "B: |\n  several\n  lines\n\n", ""),
        ({"no": "3"}, "# third\n", '# third\n"no": "3"\n'),
    ],
)
def test_yaml_keeps_its_comments(changes: dict[str, str | None], was: str, becomes: str) -> None:
    after = change(YAML, changes, "yaml")

    assert after == YAML.replace(was, becomes)


@pytest.mark.parametrize(
    ("raw", "changes", "after"),
    [
        ("{}\n", {"A": "1"}, 'A: "1"\n'),
        ("--- {}\n", {"A": "1"}, '--- \nA: "1"\n'),
        ("{A: '1'}\n", {"B": "2"}, "{A: '1', B: \"2\"}\n"),
        ("---\nA: x\n...\n", {"B": "2"}, '---\nA: x\nB: "2"\n...\n'),
        ("# only\n", {"A": "1"}, '# only\nA: "1"\n'),
        ("  A: x\n", {"B": "2"}, '  A: x\n  B: "2"\n'),
    ],
)
def test_yaml_is_continued_as_it_was_begun(
    raw: str, changes: dict[str, str | None], after: str
) -> None:
    assert change(raw, changes, "yaml") == after


@pytest.mark.parametrize(
    ("raw", "name"), [("A: &a 'SECRET'\nB: *a\n", "A"), ("{A: 'SECRET', # why\n B: x}\n", "B")]
)
def test_what_can_not_be_changed_in_place_is_refused_by_name(raw: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        change(raw, {name: "HIDDEN"}, "yaml")

    assert caught.value.reason == "INEXPRESSIBLE"
    assert name in caught.value.message
    assert "SECRET" not in caught.value.message
    assert "HIDDEN" not in caught.value.message
    assert caught.value.__context__ is None


def test_a_value_that_node_would_read_otherwise_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="A can't be changed"):
        change("", {"A": "`'\"\\n\n#"}, "dotenv", "node")


@given(before=VARIABLES, name=NAMES, value=VALUES | TRICKY)
def test_a_file_for_node_holds_a_value_or_refuses_it(
    before: dict[str, str], name: str, value: str
) -> None:
    refusal: InvalidRequest | None = None
    after = b""

    try:
        raw = rewrite(b"", before, format="dotenv", dialect="node", source="file")
        after = rewrite(raw, {name: value}, format="dotenv", dialect="node", source="file")
    except InvalidRequest as error:
        refusal = error

    if refusal is None:
        assert read(after, "dotenv", "node") == {**before, name: value}
    else:
        assert refusal.reason == "INEXPRESSIBLE"
