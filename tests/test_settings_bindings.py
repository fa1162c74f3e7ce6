"""`[cloud]` and `[[bindings]]`: what is taken, what does something, and what becomes of it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from envd.core.errors import SettingsError
from envd.core.syncing import BindingView
from envd.settings import Machine, Settings, load
from envd.syncing import binding_view

MACHINE = Machine(host_name=lambda: "host-1", is_root=lambda: False)
SHORT = "[[bindings]]\nname = 'all'\nprefix = ''\ntargets = ['file:/x']\n"
LONG = """\
[[bindings]]
name = "payments"
environment = "payments/prod"
targets = ["aws-ssm:/payments/prod", "vault:payments/prod"]
route = "cost"
direction = "both"
conflict_policy = "manual"
delete_policy = "never"
layout = "document"
name_template = "{variable}"
credentials = "profile:payments"
interval_seconds = 300
windows = ["Mon-Fri 08:00-18:00"]
priority = 0
suspended = true
budget_dollars = 5
budget_stops = true
"""


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "envd.toml"
    file.write_text(text)
    return load({}, {"HOME": "/home/ada"}, file, machine=MACHINE)


def test_a_binding_of_the_file_is_kept_with_the_defaults_of_one_made_by_hand(
    tmp_path: Path,
) -> None:
    (binding,) = loaded(tmp_path, SHORT).bindings

    assert binding_view(binding) == BindingView("all", None, "", ("file:/x",), origin="file")


def test_everything_that_the_file_says_of_a_binding_is_kept(tmp_path: Path) -> None:
    (binding,) = loaded(tmp_path, LONG).bindings

    view = binding_view(binding)

    default = BindingView("", None, None, ())
    of_the_node = {"paused_by", "revision", "prefix"}
    for each in fields(BindingView):
        if each.name not in of_the_node:
            assert getattr(view, each.name) != getattr(default, each.name), each.name
    assert (view.budget_dollars, view.budget_stops) == (5.0, True)


def test_what_works_is_not_told_to_be_without_effect(tmp_path: Path) -> None:
    text = (
        '[cloud]\nenabled = true\ndefault_provider = "aws"\nprice_file = "/p"\n'
        '[cloud.providers.file]\ngit_commit = true\n[cloud.providers.aws]\nregion = "eu"\n'
    )

    found = loaded(tmp_path, text + LONG)

    assert found.ineffective() == ["cloud.default_provider"]
    assert found.cloud.providers.file.git_commit
    assert found.cloud.price_file == Path("/p")


@pytest.mark.parametrize("amount", ["-0.01", "'5'", "inf", "nan"])
def test_a_budget_is_an_amount_of_money(tmp_path: Path, amount: str) -> None:
    with pytest.raises(SettingsError, match="budget_dollars"):
        loaded(tmp_path, f"{SHORT}budget_dollars = {amount}\n")
