"""Laws of what `vault` writes into secrets: it reads back, and what others have there stays."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Key, Op, Verb
from envd.backends.vault_secret import (
    MARK,
    DocumentShape,
    Secret,
    VariableShape,
    gravestone,
)

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True).filter(lambda x: x != MARK)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
variables = st.dictionaries(names, texts, max_size=4)
no_text = st.none() | st.booleans() | st.integers() | st.lists(texts, max_size=2)
numbers = st.integers(1, 1000)


def secret(number: int, data: dict[str, object] | None) -> Secret:
    return Secret(number, "2026-01-02T03:04:05.000000001Z", data)


@given(numbers, texts, texts, st.dictionaries(names.filter(lambda x: x != "value"), no_text))
def test_a_variable_reads_back_and_the_fields_beside_it_stay(
    number: int, before: str, after: str, others: dict[str, object]
) -> None:
    shape, op = VariableShape(), Op(Verb.PUT, Key("", "NAME"), "", after, stamp="1-a")

    written = shape.written(op, secret(number, {**others, "value": before}))

    then = secret(number + 1, written)
    assert (shape.value(then), then.stamp, shape.secrecy(then)) == (after, "1-a", True)
    assert shape.is_so(op, then)
    assert others.items() <= written.items()


@given(numbers, variables, variables, st.data())
def test_a_document_reads_back_and_what_is_no_variable_in_it_stays(
    number: int, before: dict[str, str], after: dict[str, str], data: st.DataObject
) -> None:
    taken = before.keys() | after.keys()
    others = data.draw(
        st.dictionaries(names.filter(lambda x: x not in taken), no_text, max_size=3)
        | st.dictionaries(st.just("no name"), texts)
    )
    shape = DocumentShape()
    op = Op(Verb.PUT, Key("", ""), "", json.dumps(after), stamp="1-a")

    written = shape.written(op, secret(number, {**before, **others}))

    then = secret(number + 1, written)
    assert json.loads(shape.value(then) or "") == after
    assert shape.is_so(op, then)
    assert shape.left(then) == others
    assert shape.intrusion(op, then) is None


@given(numbers, st.integers(0, 1001), variables)
def test_a_stamp_is_believed_in_its_own_version_alone(
    number: int, seen_at: int, held: dict[str, str]
) -> None:
    op = Op(Verb.PUT, Key("", ""), "", json.dumps(held), stamp="1-a")

    written = DocumentShape().written(op, secret(number, None))

    assert secret(seen_at, written).stamp == ("1-a" if seen_at == number + 1 else "")


@given(numbers, variables)
def test_a_gravestone_holds_nothing_but_what_says_so(number: int, held: dict[str, str]) -> None:
    assert gravestone(secret(number, dict(held))) == {
        MARK: {"deleted": True, "version": number + 1}
    }
