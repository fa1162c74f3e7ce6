"""What it takes to bring one environment to what its file says, or to remove it.

A step is computed from the file and from the environment as it is now. Its digest is of all
that would be done, values too, and of the revision that it starts from: an equal digest is
the same change to the same state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b, scrypt
from typing import NamedTuple

from envd.cli import states
from envd.cli.commands.importing import put_of
from envd.cli.commands.sync_bindings import news, said
from envd.cli.manifests import Manifest
from envd.cli.states import Cell, Difference
from envd.core.answers import EnvironmentView
from envd.core.commit import Kind
from envd.core.requests import DeleteRequest, Put, Unset, WriteRequest
from envd.core.syncing import BindingView

_ACTIONS = {"+": "create", "~": "update", "-": "delete", "!": "conflict"}
_DIGEST_BYTES = 16


class Operation(NamedTuple):
    """One line of a plan: `kind` is variable, setting, binding or environment.

    `difference` has the sign (`!` where something is in the way) and both sides.
    """

    kind: str
    difference: Difference
    reason: str = ""
    binding: BindingView | None = None

    @property
    def action(self) -> str:
        return _ACTIONS[self.difference.sign]

    @property
    def in_the_way(self) -> bool:
        return self.difference.sign == "!"


class Step(NamedTuple):
    """The operations on one environment; `view` is how it is now, None where it is not there."""

    environment: str
    view: EnvironmentView | None
    operations: tuple[Operation, ...]
    deletes: bool = False

    @property
    def revision(self) -> str:
        return self.view.revision if self.view else ""

    @property
    def digest(self) -> str:
        """Of what would be done, and from where; "" where that is nothing."""
        if not self.operations:
            return ""
        done = [
            [each.action, each.kind, each.difference.name, *_after(each.difference)]
            for each in self.operations
        ]
        text = json.dumps([self.environment, self.revision, self.deletes, done])
        return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()

    @property
    def writes(self) -> bool:
        """Whether the environment itself changes."""
        return any(each.kind != "binding" for each in self.operations)

    @property
    def bindings(self) -> tuple[BindingView, ...]:
        """What is to be bound, behind the write."""
        return tuple(each.binding for each in self.operations if each.binding is not None)

    def write_request(self, message: str, operation: str) -> WriteRequest:
        """All of it as one commit, if the environment is still as it was."""
        variables = [each.difference for each in self.operations if each.kind == "variable"]
        settings = [each.difference for each in self.operations if each.kind == "setting"]
        return WriteRequest(
            self.environment,
            (
                *(put_of(each) for each in variables if each.after),
                *(_setting_put(each) for each in settings if each.after),
            ),
            (
                *(Unset(each.name) for each in variables if not each.after),
                *(Unset(each.name, Kind.METADATA) for each in settings if not each.after),
            ),
            bulk=True,
            if_revision=self.revision,
            must_not_exist=self.view is None,
            message=message,
            operation=operation,
        )

    def delete_request(self, message: str, operation: str) -> DeleteRequest:
        """The removal, if the environment is still as it was."""
        return DeleteRequest(self.environment, self.revision, message, operation)


def plan_id(digests: Iterable[str]) -> str:
    """The name of a whole plan.

    It stands in logs and pull requests, and a short secret could be found by trying what gives
    the same digest; scrypt (RFC 7914; 16 MiB, some 50 ms) makes each try dear.
    """
    text = "\n".join(digests).encode()
    made = scrypt(text, salt=b"envd plan", n=1 << 14, r=8, p=1, dklen=_DIGEST_BYTES // 2)
    return made.hex()


def step_of(
    manifest: Manifest,
    view: EnvironmentView | None,
    bound: Mapping[str, BindingView],
    *,
    prune: bool,
) -> Step:
    """Compare a file with its environment, and the bindings by name, as they are now."""
    operations = [
        *_variables(manifest, view, prune=prune or manifest.prune),
        *_settings(manifest, view),
    ]
    if view is None and not operations:
        operations = [Operation("environment", Difference("+", "", None, None))]
    operations += _bindings(manifest, bound)
    return Step(manifest.environment, view, tuple(operations))


def removal_of(view: EnvironmentView) -> Step:
    """The step that deletes an environment with everything in it."""
    count = len(view.variables)
    reason = f"no file, with {count} variable{'' if count == 1 else 's'}"
    operation = Operation("environment", Difference("-", "", None, None), reason)
    return Step(view.environment, view, (operation,), deletes=True)


def _variables(manifest: Manifest, view: EnvironmentView | None, *, prune: bool) -> list[Operation]:
    current = states.cells(view)
    wanted = {}
    for each in manifest.variables:
        known = current.get(each.name)
        stays = bool(known and known.secret) and not manifest.makes_plain(each.name)
        wanted[each.name] = Cell(each.value, bool(each.secret or stays))
    if prune:
        after = {name: cell for name, cell in current.items() if manifest.keeps(name)} | wanted
    else:
        after = current | wanted
    missing = [
        Operation("variable", Difference("!", name, None, None), "keep names it; it is not there")
        for name in manifest.required
        if name not in current
    ]
    found = states.differences(current, after)
    return [*(Operation("variable", each, each.remark) for each in found), *missing]


def _settings(manifest: Manifest, view: EnvironmentView | None) -> list[Operation]:
    there = view.metadata if view else {}
    current = {name: Cell(value, False) for name, value in there.items()}
    after = dict(current)
    for name, value in manifest.settings.items():
        after[name] = Cell(value, False)
        if not value:
            del after[name]
    return [Operation("setting", each) for each in states.differences(current, after)]


def _bindings(manifest: Manifest, bound: Mapping[str, BindingView]) -> list[Operation]:
    """The bindings that are not as the file says; those that it does not name are left alone."""
    found = []
    for wanted in manifest.bindings:
        known = bound.get(wanted.name)
        before = Cell(said(known), False) if known else None
        after = Cell(said(wanted), False)
        if before != after:
            sign = "~" if before else "+"
            difference = Difference(sign, wanted.name, before, after)
            what = "; ".join(news(known, wanted)) if known else said(wanted)
            found.append(Operation("binding", difference, what, wanted))
    return found


def _setting_put(difference: Difference) -> Put:
    assert difference.after is not None
    return Put(difference.name, difference.after.value or "", kind=Kind.METADATA)


def _after(difference: Difference) -> tuple[str | None, bool | None]:
    after = difference.after
    return (after.value, after.secret) if after else (None, None)
