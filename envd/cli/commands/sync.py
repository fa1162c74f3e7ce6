"""`envctl sync`: what it takes, and which of its parts is meant."""

from __future__ import annotations

from envd.cli import parts
from envd.cli.grammar import DRY_RUN, YES, Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.parts import Part

_BINDING = (
    *("--prefix", "--to", "--route", "--direction", "--conflicts", "--deletes", "--layout"),
    *("--name-template", "--credentials", "--interval", "--window", "--priority", "--suspended"),
    *("--budget", "--budget-stops"),
)
_PARTS = {
    "bind": Part("sync_bindings:bind", (*_BINDING, "--dry-run")),
    "unbind": Part("sync_bindings:unbind", ("--dry-run",)),
    "list": Part("sync_bindings:show"),
    "pause": Part("sync_bindings:pause"),
    "resume": Part("sync_bindings:resume"),
    "status": Part("sync_status:status"),
    "plan": Part("sync_plan:plan", ("--exit-code",)),
    "apply": Part(
        "sync_plan:apply",
        (
            *("--plan", "--allow-deletes", "--allow-restart", "--message", "--dry-run"),
            *("--exit-code", "--yes"),
        ),
    ),
    "cost": Part("sync_status:cost"),
}


def _sync(invocation: Invocation) -> int:
    return parts.perform(invocation, _PARTS, "keep what in step?")


SYNC = Command(
    usage=(
        "bind NAME (--env ENV | --prefix PREFIX) --to TARGET... [--direction D]",
        "status|plan [BINDING...] [--exit-code]",
        "apply [BINDING...] [--plan ID] [--allow-deletes N] [--yes]",
        "list|pause|resume|cost [BINDING...]",
        "unbind NAME",
    ),
    about="""
    A binding ties an environment, or all environments below a prefix, to a place in a store
    elsewhere: TARGET is the kind of store and the place, such as aws-ssm:/payments/prod; envctl
    backend list shows which kinds there are. One node of the cluster, which has the
    credentials, compares both sides each --interval and carries over what changed. bind replaces
    a binding of the same name whole; unbind removes it, and what it made stays on both sides.

    plan shows what would be done, and does nothing; the periodic run does the same by itself.
    Its lines: + create, ~ update, - delete, = adopt (both sides are equal already, which is
    noted), ! conflict (both sides changed: the policy says which one is kept, the other goes on
    record in envctl conflicts), . skip (they differ, and the binding leaves it so). -> is written
    to the store, <- to envd. apply shows the plan, asks, and does exactly that plan; with --plan ID
    it does the one that was reviewed, or nothing (exit 4) where the state has moved on. Where only
    some of it could be done, each operation is listed with why, and the exit code is 7.

    A binding that would delete over 20 % or 50 of its names stops and waits: look at the plan, then
    apply it with --allow-deletes N. Deletes only ever touch what envd itself created, unless the
    binding says --deletes mirror. A store whose writes restart a program asks for --allow-restart.

    status tells for each binding: in step, behind (changes are on their way), failing, braked (it
    would delete too much), paused, suspended, waiting (outside its windows), over budget, no
    leader; with names, all figures. cost tells calls and money a month, from measured traffic and
    published prices, and what would be cheaper.
    """,
    examples=(
        (
            "envctl sync bind pay --env pay/prod --to aws-ssm:/pay/prod --dry-run",
            "can it be reached, and bound?",
        ),
        (
            "envctl sync bind all --prefix '' --to vault:envd --direction both",
            "every environment, both ways",
        ),
        ("envctl sync plan pay --exit-code", "exit 9 if something would be done"),
        ("envctl sync apply pay --plan 5c1d0e4f9a7b2233", "what was reviewed, or nothing"),
        ("envctl sync status", "is all in step?"),
        ("envctl sync pause", "touch no store until: envctl sync resume"),
    ),
    run=_sync,
    flags=(
        Flag("--prefix", "bind: all environments below it, instead of --env ('': all)", "PREFIX"),
        Flag("--to", "bind: the store and the place; several in order", "TARGET", repeat=True),
        Flag(
            "--route",
            "bind: which of several targets is used: failover (the first that works, the default), "
            "latency or region; cost and priority compare nothing yet (docs/sync.md)",
            "ROUTE",
            "",
            ("failover", "latency", "cost", "priority", "region"),
        ),
        Flag(
            "--direction",
            "bind: push (to the store, the default), pull (from it) or both",
            "D",
            "",
            ("push", "pull", "both"),
        ),
        Flag(
            "--conflicts",
            "bind: where both sides changed keep lww (the later write, the default), envd, store, "
            "or manual (leave both, and ask)",
            "POLICY",
            "",
            ("lww", "envd", "store", "manual"),
        ),
        Flag(
            "--deletes",
            "bind: delete what envd created there (owned, the default), never, or all (mirror)",
            "POLICY",
            "",
            ("owned", "never", "mirror"),
        ),
        Flag(
            "--layout",
            "bind: per-variable (the default), or one document for an environment",
            "LAYOUT",
            "",
            ("per-variable", "document"),
        ),
        Flag(
            "--name-template",
            "bind: names in the store, of {environment} and {variable}",
            "T",
        ),
        Flag(
            "--credentials",
            "bind: which ones to use, such as profile:prod; never the credentials themselves",
            "REF",
        ),
        Flag("--interval", "bind: compare so often (default 60s)", "TIME"),
        Flag(
            "--window",
            "bind: run only then, such as 'Mon-Fri 08:00-18:00' (repeatable)",
            "W",
            repeat=True,
        ),
        Flag("--priority", "bind: 0 to 1000, lower goes first (default 100)", "N"),
        Flag("--suspended", "bind: keep it, but do nothing yet"),
        Flag("--budget", "bind: warn above so many dollars a month", "DOLLARS"),
        Flag("--budget-stops", "bind: and stop there"),
        Flag("--plan", "apply: only if the plan is still this one", "ID"),
        Flag("--allow-deletes", "apply: so many deletes may pass the brake", "N"),
        Flag("--allow-restart", "apply: writes may restart what reads the store"),
        Flag("--exit-code", "plan, apply --dry-run: exit 9 if something would be done"),
        Flag("--message", "apply: why, for the history", "TEXT", "-m"),
        DRY_RUN,
        YES,
    ),
)
