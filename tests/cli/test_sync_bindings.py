"""`envctl sync bind|unbind|list|pause|resume`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from envd.core.syncing import BindingView, BindRequest
from tests.cli.bench import Envctl
from tests.syncing import BATCH, PAYMENTS, SSM

LONG = (
    "sync bind pay --prefix web/eu --to file:/a --to vault:b --route cost --direction both "
    "--conflicts manual --deletes never --layout document --name-template {variable} "
    "--credentials profile:p --interval 5m --window 'Mon-Fri 08:00-18:00' --window Sat "
    "--priority 0 --suspended --budget 12.50 --budget-stops"
)


def bound(envctl: Envctl) -> BindRequest:
    (request,) = [request for call, request in envctl.node.stores.asked if call == "bind"]
    assert isinstance(request, BindRequest)
    return request


def test_a_binding_of_few_words_has_the_defaults(envctl: Envctl) -> None:
    shown = envctl.ok(f"sync bind pay --env web/prod --to {SSM}")

    assert bound(envctl) == BindRequest(BindingView("pay", "web/prod", None, (SSM,)))
    assert shown.lines == [f"pay is bound: web/prod -> {SSM}"]
    assert shown.err == "what it does at its next run: envctl sync plan pay\n"


def test_every_flag_is_a_word_of_the_binding(envctl: Envctl) -> None:
    envctl.ok(LONG)

    assert bound(envctl).binding == BindingView(
        "pay",
        None,
        "web/eu",
        ("file:/a", "vault:b"),
        route="cost",
        direction="both",
        conflict_policy="manual",
        delete_policy="never",
        layout="document",
        name_template="{variable}",
        credentials="profile:p",
        interval_seconds=300,
        windows=("Mon-Fri 08:00-18:00", "Sat"),
        priority=0,
        suspended=True,
        budget_dollars=12.5,
        budget_stops=True,
    )


def test_the_empty_prefix_is_every_environment(envctl: Envctl) -> None:
    shown = envctl.ok("sync bind all --prefix '' --to file:/a --direction pull")

    assert (bound(envctl).binding.environment, bound(envctl).binding.prefix) == (None, "")
    assert shown.lines == ["all is bound: * <- file:/a"]


def test_without_env_and_prefix_the_default_environment_is_bound(envctl: Envctl) -> None:
    envctl.file(".envd.toml", 'environment = "web/dev"\n')

    envctl.ok("sync bind pay --to file:/a")

    assert bound(envctl).binding.environment == "web/dev"


def test_binding_anew_tells_what_is_not_as_it_was(envctl: Envctl) -> None:
    shown = envctl.ok(
        f"sync bind payments --env payments/prod --to {SSM} --to vault:payments/prod "
        "--credentials profile:payments --window 'Mon-Fri 08:00-18:00' --budget 5 --interval 10s"
    )

    assert shown.lines[1:] == ["  direction: both, now push", "  interval seconds: 60, now 10"]


def test_binding_the_same_again_tells_that_too(envctl: Envctl) -> None:
    line = "sync bind pay --env web/prod --to file:/a"
    envctl.ok(line)

    shown = envctl.ok(line)

    assert shown.lines == ["pay is bound: web/prod -> file:/a", "  as it was before"]


def test_a_dry_run_binds_nothing(envctl: Envctl) -> None:
    shown = envctl.ok("sync bind pay --env web/prod --to file:/a --dry-run")

    assert bound(envctl).dry_run
    assert "pay" not in envctl.node.stores.kept
    assert shown.lines == ["pay could be bound: web/prod -> file:/a"]


def test_a_binding_as_a_document_is_all_of_it(envctl: Envctl) -> None:
    document = envctl.json("sync bind pay --env web/prod --to file:/a")

    assert document.items() >= {("name", "pay"), ("environment", "web/prod"), ("prefix", None)}
    assert document["targets"] == ["file:/a"]


def test_unbinding_says_that_what_it_made_stays(envctl: Envctl) -> None:
    looked = envctl.ok("sync unbind payments --dry-run")
    there = "payments" in envctl.node.stores.kept
    shown = envctl.ok("sync unbind payments")

    assert there
    assert looked.lines[0].startswith("payments would be unbound: payments/prod <-> ")
    assert shown.lines[1] == "  what it made stays, in the store and in envd"
    assert not envctl.node.stores.kept


def test_a_binding_that_does_not_exist_is_not_found(envctl: Envctl) -> None:
    for part in ("unbind", "list", "pause", "resume"):
        result = envctl(f"sync {part} nothing")

        assert result.code == 3
        assert "there is no binding nothing" in result.err


def test_bindings_are_a_table_that_fits_80_columns(envctl: Envctl) -> None:
    envctl.node.stores.kept["batch"] = BATCH

    lines = envctl.ok("sync list").lines

    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["BINDING", "ENVIRONMENTS", "TARGET", "EVERY"],
        ["batch", "batch/*", "->", "azure-key-vault:acme-batch", "5 min"],
        ["payments", "payments/prod", "<->", f"{SSM} (+1)", "60 s"],
    ]
    assert max(map(len, lines)) <= 80


def test_a_binding_that_is_named_is_shown_whole(envctl: Envctl) -> None:
    shown = envctl.ok("sync list payments")

    told = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.lines[2:8])
    assert told["route"] == "failover"
    assert told["conflicts"] == "lww"
    assert "  budget      $5.00 a month" in shown.lines
    assert "  windows     Mon-Fri 08:00-18:00" in shown.lines


def test_where_nothing_is_bound_the_way_to_bind_is_told(envctl: Envctl) -> None:
    envctl.node.stores.kept.clear()

    shown = envctl.ok("sync list")

    assert shown.err == "there are no bindings; make one: envctl sync bind --help\n"
    assert envctl.json("sync list") == {"bindings": []}


def test_bindings_rest_and_go_on(envctl: Envctl) -> None:
    envctl.node.stores.kept["batch"] = replace(BATCH, suspended=True)

    paused = envctl.ok("sync pause payments")
    listed = envctl.ok("sync list").lines
    resumed = envctl.ok("sync resume")

    assert paused.lines == ["paused: payments"]
    assert [line.split()[-1] for line in listed[1:]] == ["suspended", "paused"]
    assert resumed.lines == ["resumed: batch, payments"]
    assert "batch is suspended; bind it anew" in resumed.err
    assert envctl.node.stores.kept["payments"] == PAYMENTS


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sync", "keep what in step?"),
        ("sync bnd", "there is no envctl sync 'bnd'"),
        ("sync bind", "no binding is named"),
        ("sync bind a b --env e --to file:/x", "too many arguments"),
        ("sync bind a --env e", "no target is named"),
        ("sync bind a --to file:/x", "no environment is named"),
        ("sync bind a --env e --to file", "'file' is no target"),
        ("sync bind a --env e --prefix p --to file:/x", "exclude each other"),
        ("sync bind a --prefix p//q --to file:/x", "is no environment name"),
        ("sync bind a --env e --to file:/x --direction up", "invalid choice"),
        ("sync bind a --env e --to file:/x --interval 1s", "at least 5s"),
        ("sync bind a --env e --to file:/x --interval 6500ms", "whole seconds"),
        ("sync bind a --env e --to file:/x --priority 1001", "from 0 to 1000"),
        ("sync bind a --env e --to file:/x --priority -1", "from 0 to 1000"),
        ("sync bind a --env e --to file:/x --budget much", "takes US dollars"),
        ("sync bind a --env e --to file:/x --budget nan", "takes US dollars"),
        ("sync bind a --env e --to file:/x --budget-stops", "goes with --budget"),
        ("sync bind a --env e --to file:/x --yes", "has no --yes"),
        ("sync list --to file:/x", "has no --to"),
        ("sync unbind a b", "too many arguments"),
    ],
)
def test_wrong_usage_is_refused(envctl: Envctl, line: str, complaint: str) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err
    assert not envctl.node.stores.asked
