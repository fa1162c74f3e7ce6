"""Changes: what merges, what differs, and a backlog that is bounded and forgets no name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.client.changes import Backlog, Change, completed, difference
from envd.core.answers import ChangeView, EnvironmentView, VariableView


def change(number: int, *names: str, kind: str = "set") -> Change:
    views = tuple(ChangeView(name, kind) for name in names)
    return Change("web/prod", f"{number:032x}", views)


def state(revision: str = "ab", **values: str) -> EnvironmentView:
    variables = {
        name: VariableView(value, False, False, "00", "eu", "n") for name, value in values.items()
    }
    return EnvironmentView("web/prod", revision, "00", {}, variables)


@given(st.lists(st.frozensets(st.sampled_from("ABC"))), st.integers(1, 5))
def test_a_backlog_keeps_order_names_and_counts(names: list[frozenset[str]], limit: int) -> None:
    backlog = Backlog(limit)
    for number, touched in enumerate(names):
        backlog.add(change(number, *touched))
    kept = []
    assert len(backlog) == min(limit, len(names))
    while len(backlog):
        kept.append(backlog.take())

    assert sum(one.commits for one in kept) == len(names)
    assert [one.revision for one in kept] == sorted(one.revision for one in kept)
    assert [one.commits for one in kept[:-1]] == [1] * len(kept[:-1])
    if names:
        assert kept[-1].revision == f"{len(names) - 1:032x}"
        assert frozenset().union(*(one.names for one in kept)) == frozenset().union(*names)


def test_merging_keeps_the_last_kind_of_each_name() -> None:
    backlog = Backlog(1)
    backlog.add(change(1, "A", "B"))
    backlog.add(change(2, "A", kind="unset"))

    assert backlog.take().changes == (ChangeView("A", "unset"), ChangeView("B", "set"))


def test_a_backlog_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Backlog(0)


def test_equal_states_differ_in_nothing() -> None:
    assert difference("web/prod", state(A="1"), state(A="1")) is None
    assert difference("web/prod", None, None) is None


def test_a_difference_names_what_came_went_and_changed() -> None:
    found = difference("web/prod", state(A="1", B="1", C="1"), state("cd", A="1", B="2", D="1"))

    assert found is not None
    assert found.caught_up
    assert found.revision == "cd"
    assert found.changes == (
        ChangeView("B", "set"),
        ChangeView("C", "unset"),
        ChangeView("D", "set"),
    )


def test_a_deletion_is_a_difference_of_everything() -> None:
    found = difference("web/prod", state(A="1"), None)

    assert found is not None
    assert found.deleted
    assert found.names == {"A"}


def test_another_revision_with_equal_variables_is_a_change_without_names() -> None:
    found = difference("web/prod", state("ab", A="1"), state("cd", A="1"))

    assert found is not None
    assert found.names == frozenset()


def test_a_change_after_hidden_states_names_what_they_changed_too() -> None:
    missed = difference("web/prod", state(A="1", B="1"), state("cd", A="2"))
    last = change(7, "A", "C")

    both = completed(last, missed)

    assert both.names == {"A", "B", "C"}
    assert (both.revision, both.commits) == (last.revision, 1)
    assert both.caught_up
    assert completed(last, None) is last
