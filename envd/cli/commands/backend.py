"""`envctl backend`: which kinds of stores there are, and whether places in them answer."""

from __future__ import annotations

from collections.abc import Sequence

from envd.cli import exits, parts
from envd.cli.commands.sync_bindings import check_target
from envd.cli.exits import UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.parts import Part
from envd.core.syncing import BindingsRequest, CheckRequest, CheckView
from envd.wire.plain import to_plain

_PARTS = {
    "list": Part("backend:list_backends"),
    "check": Part("backend:check", ("--credentials",)),
}


def _backend(invocation: Invocation) -> int:
    return parts.perform(invocation, _PARTS, "what about stores?")


def list_backends(invocation: Invocation, words: Sequence[str]) -> int:
    """The kinds of stores, with what a target in each looks like."""
    if words:
        raise UsageError("list takes no words", hint="envctl backend check TARGET tries one")
    listed = invocation.connection.sync.backends()
    if not invocation.shows_tables():
        invocation.document(to_plain(listed))
        return exits.DONE
    screen = invocation.screen
    found = listed.backends
    rows = [
        (f"{each.name}:{each.place_hint}", "no" if each.problem else "yes", each.summary)
        for each in found
    ]
    screen.table(
        ("TARGET", "READY", "STORE"), rows, ["dim" if each.problem else "" for each in found]
    )
    for each in found:
        if each.problem:
            mend = f": {each.hint}" if each.hint else ""
            screen.note(f"{each.name} can't be used, {each.problem}{mend}")
    return exits.DONE


def check(invocation: Invocation, words: Sequence[str]) -> int:
    """Try places, or those of bindings; exit 1 where none answers, 7 where some do not."""
    targets = tuple(word for word in words if ":" in word)
    for each in targets:
        check_target(each)
    request = CheckRequest(
        targets, invocation.arguments.text("--credentials"), _bindings(invocation, words)
    )
    with invocation.waiting("trying the stores"):
        checks = invocation.connection.sync.check(request).checks
    if not invocation.shows_tables():
        invocation.document({"checks": [to_plain(each) for each in checks]})
    else:
        _show(invocation, checks)
    failed = sum(not each.ok for each in checks)
    if not failed:
        return exits.DONE
    return exits.PARTLY if failed < len(checks) else exits.FAILED


def _bindings(invocation: Invocation, words: Sequence[str]) -> tuple[str, ...]:
    """The words that are no targets; without any word all bindings."""
    if words:
        return tuple(word for word in words if ":" not in word)
    known = invocation.connection.sync.bindings(BindingsRequest()).bindings
    if not known:
        raise UsageError(
            "no target is named, and there are no bindings",
            hint="envctl backend check aws-ssm:/payments/prod; kinds: envctl backend list",
        )
    return tuple(each.name for each in known)


def _show(invocation: Invocation, checks: Sequence[CheckView]) -> None:
    rows = [
        (
            each.target,
            "ok" if each.ok else "fails",
            f"{each.round_trip_ms:,.0f} ms" if each.ok else "-",
            each.identity or "-",
        )
        for each in checks
    ]
    colours = ["" if each.ok else "red" for each in checks]
    invocation.screen.table(("TARGET", "STATE", "TOOK", "AS"), rows, colours)
    for each in checks:
        if not each.ok:
            invocation.screen.error(f"{each.target}: {each.detail}", each.hint)


BACKEND = Command(
    usage=("list", "check [TARGET|BINDING...] [--credentials REF]"),
    about="""
    list shows the kinds of stores that the node knows, and how a target in each is written: the
    kind, a colon, and the place. One that is not ready lacks a library on the node, and the way to
    install it is told.

    check has the node make one cheap call to each target and tells how long it took and who the
    store took it for. Of a binding it tries all targets with the binding's own credentials;
    without any word, those of all bindings. Nothing is written. Exit code 1 where none answers,
    7 where some do not.
    """,
    examples=(
        ("envctl backend list", "which kinds there are"),
        ("envctl backend check aws-ssm:/payments/prod", "can the node reach it?"),
        ("envctl backend check vault:payments --credentials approle:ci", "and as that one?"),
        ("envctl backend check", "all that is bound"),
    ),
    run=_backend,
    flags=(
        Flag(
            "--credentials",
            "check: which ones to use, such as profile:prod; never the credentials themselves",
            "REF",
        ),
    ),
)
