"""`envctl import --from`: the variables at a place in a store, once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.cli.renames import Rename, suggested
from envd.core.names import check_variable
from envd.core.syncing import FetchedVariable, FetchRequest, FetchView
from tests.cli.bench import CANARY, Envctl
from tests.syncing import SSM


def holds(envctl: Envctl, *variables: FetchedVariable, **skipped: str) -> None:
    envctl.node.stores.found = FetchView(SSM, variables, skipped)


def there(name: str, value: str | None = "1", **more: object) -> FetchedVariable:
    told: dict[str, object] = {"environment": "", "native": f"/payments/prod/{name}", **more}
    return FetchedVariable(variable=name, value=value, **told)  # type: ignore[arg-type]


def test_a_store_is_read_once_and_becomes_one_commit(envctl: Envctl) -> None:
    holds(envctl, there("PORT", "8080"), there("DB_PASSWORD", CANARY), there("PIN", secret=True))

    shown = envctl.ok(f"import web/prod --from {SSM} --credentials profile:p --message first")

    assert envctl.node.stores.asked == [("fetch", FetchRequest(SSM, "profile:p", reveal=True))]
    assert shown.lines[:5] == [
        *("+ DB_PASSWORD", "+ PIN", "+ PORT"),
        "web/prod: 3 to add, 0 to change, 0 to remove, 0 the same",
        "secret: DB_PASSWORD, PIN",
    ]
    assert CANARY not in shown.out + shown.err
    assert envctl.value("web/prod", "DB_PASSWORD") == CANARY
    assert len(envctl.json("history web/prod")["commits"]) == 1


def test_what_a_store_says_is_not_secret_is_judged_by_its_look(envctl: Envctl) -> None:
    holds(envctl, there("DB_PASSWORD", CANARY, secret=False), there("PORT", "1", secret=False))

    shown = envctl.ok(f"import web/prod --from {SSM}")

    assert "secret: DB_PASSWORD" in shown.lines


def test_patterns_decide_as_for_a_file(envctl: Envctl) -> None:
    holds(envctl, there("DB_PASSWORD", "x"), there("PORT", "1"))

    shown = envctl.ok(f"import web/prod --from {SSM} --plain 'DB_*' --secret PORT --secret NO")

    assert "secret: PORT" in shown.lines
    assert "note: --secret NO matches no name there" in shown.err


def test_a_dry_run_writes_nothing_and_prune_removes_what_the_store_lacks(envctl: Envctl) -> None:
    envctl.ok("set web/prod OLD=1 PORT=1")
    holds(envctl, there("PORT"))

    looked = envctl(f"import web/prod --from {SSM} --prune --dry-run --exit-code")
    before = envctl.value("web/prod", "OLD")
    envctl.ok(f"import web/prod --from {SSM} --prune --yes")

    assert looked.code == 9
    assert "- OLD" in looked.lines
    assert before == "1"
    assert envctl("get web/prod OLD").code == 3


def test_the_default_environment_is_used(envctl: Envctl) -> None:
    envctl.file(".envd.toml", 'environment = "web/dev"\n')

    envctl.ok(f"import --from {SSM}")

    assert envctl.value("web/dev", "A") == "1"


# -- names ---------------------------------------------------------------------------------


def test_names_are_taken_by_a_map_of_names_and_patterns(envctl: Envctl) -> None:
    holds(envctl, there("prod_DB"), there("prod_PORT"), there("X"), there("KEEP"), there("GONE"))

    envctl.ok(f"import web/prod --from {SSM} --rename 'prod_DB=URL,prod_*=*,X=Y,GONE='")

    assert sorted(envctl.json("get web/prod")["variables"]) == ["KEEP", "PORT", "URL", "Y"]


def test_a_map_may_be_a_file(envctl: Envctl) -> None:
    envctl.file("names.map", "# theirs = ours\n\nprod-* = APP_*\n")
    holds(envctl, there("prod-A"))

    envctl.ok(f"import web/prod --from {SSM} --rename names.map")

    assert envctl.value("web/prod", "APP_A") == "1"


def test_the_name_in_the_store_can_be_mapped_too(envctl: Envctl) -> None:
    holds(envctl, there("", native="db url"))

    envctl.ok(f"import web/prod --from {SSM} --rename 'db url=DB_URL'")

    assert envctl.value("web/prod", "DB_URL") == "1"


def test_what_can_be_no_variable_is_left_out_and_told_with_its_mend(envctl: Envctl) -> None:
    holds(
        envctl,
        there("A"),
        there("db url", native="db url"),
        there("B", None),
        there("C", environment="eu"),
        broken="it is an image",
    )

    shown = envctl.ok(f"import web/prod --from {SSM}")

    assert shown.err == (
        "note: 4 names in the store are left out:\n"
        "  /payments/prod/B: its value can't be read\n"
        "  /payments/prod/C: is of eu, below that place; import that by itself\n"
        "  broken: it is an image\n"
        "  db url: is no name of a variable; take it with --rename 'db url=DB_URL'\n"
    )
    assert list(envctl.json("get web/prod")["variables"]) == ["A"]
    document = envctl.json(f"import web/prod --from {SSM}")
    assert document["left_out"]["broken"] == "it is an image"


def test_two_names_for_one_variable_are_refused(envctl: Envctl) -> None:
    holds(envctl, there("A"), there("B"))

    result = envctl(f"import web/prod --from {SSM} --rename B=A")

    assert result.code == 1
    assert "/payments/prod/A and /payments/prod/B would both be A" in result.err
    assert not envctl.node.writes()


def test_a_line_of_the_map_that_is_about_nothing_is_told(envctl: Envctl) -> None:
    shown = envctl.ok(f"import web/prod --from {SSM} --rename NONE=B")

    assert "note: --rename NONE matches no name in the store" in shown.err


# -- refusals ------------------------------------------------------------------------------


def test_nothing_at_a_place_is_never_taken_for_an_empty_environment(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")
    holds(envctl)

    result = envctl(f"import web/prod --from {SSM} --prune --yes")

    assert result.code == 3
    assert "there is nothing to import" in result.err
    assert envctl.value("web/prod", "A") == "1"


def test_prune_is_refused_where_a_value_can_not_be_read(envctl: Envctl) -> None:
    envctl.ok("set web/prod B=1")
    holds(envctl, there("A"), there("B", None))

    result = envctl(f"import web/prod --from {SSM} --prune --yes")

    assert result.code == 1
    assert "can't tell what the store lacks" in result.err
    assert envctl.value("web/prod", "B") == "1"


@pytest.mark.parametrize("value", [CANARY + "\0", CANARY + "\ud800", CANARY * 100_000])
def test_a_value_that_can_not_be_is_refused_by_name_alone(envctl: Envctl, value: str) -> None:
    holds(envctl, there("A", value))

    result = envctl(f"import web/prod --from {SSM}")

    assert result.code == 1
    assert "the value of A" in result.err
    assert CANARY not in result.err


@pytest.mark.parametrize("text", ["none.map", "."])
def test_a_map_that_can_not_be_read_changes_nothing(envctl: Envctl, text: str) -> None:
    result = envctl(f"import web/prod --from {SSM} --rename {text}")

    assert result.code == 1
    assert f"can't read {text}" in result.err
    assert not envctl.node.stores.asked


# -- laws ----------------------------------------------------------------------------------


@given(st.text(max_size=20))
def test_a_name_that_is_suggested_is_legal(name: str) -> None:
    assert check_variable(suggested(name))


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_a_prefix_that_is_taken_off_can_be_put_back(start: str, middle: str, end: str) -> None:
    start, end = start.replace("*", ""), end.replace("*", "")
    off, back = Rename(f"{start}*{end}", "*"), Rename("*", f"{start}*{end}")

    there = off.of(start + middle + end)

    assert there == middle
    assert back.of(middle) == start + middle + end
