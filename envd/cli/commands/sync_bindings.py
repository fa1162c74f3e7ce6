"""`envctl sync bind|unbind|list|pause|resume`: bindings, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from envd.cli import exits, target
from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation
from envd.core.names import check_prefix
from envd.core.syncing import (
    BindingList,
    BindingsRequest,
    BindingView,
    BindRequest,
    PauseRequest,
    UnbindRequest,
)
from envd.wire.plain import to_plain

_ARROWS = {"push": "->", "pull": "<-", "both": "<->"}
_LEAST_INTERVAL_S, _MOST_PRIORITY = 5, 1000
_WORDS = {
    "direction": "--direction",
    "route": "--route",
    "conflict_policy": "--conflicts",
    "delete_policy": "--deletes",
    "layout": "--layout",
    "name_template": "--name-template",
    "credentials": "--credentials",
}
_OF_THE_NODE = frozenset({"name", "paused_by", "origin", "revision"})
_IN_WORDS = _OF_THE_NODE | {"environment", "prefix", "targets", "direction"}


# -- bind --------------------------------------------------------------------------------


def bind(invocation: Invocation, words: Sequence[str]) -> int:
    """Make or replace a binding, and tell what it ties and what is new of it."""
    wanted = _wanted(invocation, _only(words, "bind NAME --env ENV --to TARGET"))
    dry_run = invocation.arguments.on("--dry-run")
    connection = invocation.connection.sync
    before = None
    if invocation.shows_tables():
        known = connection.bindings(BindingsRequest()).bindings
        before = next((each for each in known if each.name == wanted.name), None)
    with invocation.waiting("asking the store"):
        bound = connection.bind(BindRequest(wanted, dry_run))
    if not invocation.shows_tables():
        invocation.document(to_plain(bound))
        return exits.DONE
    screen = invocation.screen
    screen.line(f"{bound.name} {'could be' if dry_run else 'is'} bound: {in_words(bound)}")
    for line in news(before, bound) if before else ():
        screen.line(f"  {line}")
    if before and not dry_run and not list(news(before, bound)):
        screen.line("  as it was before")
    if not dry_run:
        screen.note(f"what it does at its next run: envctl sync plan {bound.name}")
    return exits.DONE


def _wanted(invocation: Invocation, name: str) -> BindingView:
    given = invocation.arguments
    targets = given.texts("--to")
    if not targets:
        raise UsageError(
            "no target is named",
            hint="--to STORE:PLACE, as in --to aws-ssm:/payments/prod; kinds: envctl backend list",
        )
    for each in targets:
        check_target(each)
    budget = _dollars(invocation)
    if given.on("--budget-stops") and not budget:
        raise UsageError("--budget-stops goes with --budget DOLLARS")
    environment, prefix = _what(invocation)
    said: dict[str, Any] = {
        field: given.text(flag) for field, flag in _WORDS.items() if given.text(flag)
    }
    return BindingView(
        name,
        environment,
        prefix,
        tuple(targets),
        **said,
        interval_seconds=_interval_s(invocation),
        windows=tuple(given.texts("--window")),
        priority=_priority(invocation),
        suspended=given.on("--suspended"),
        budget_dollars=budget,
        budget_stops=given.on("--budget-stops"),
    )


def check_target(text: str) -> None:
    """Raise UsageError for what is no STORE:PLACE."""
    store, colon, place = text.partition(":")
    if not (store and colon and place.strip()):
        raise UsageError(
            f"{text[:64]!a} is no target",
            hint="a store and a place in it: aws-ssm:/payments/prod; kinds: envctl backend list",
        )


def _what(invocation: Invocation) -> tuple[str | None, str | None]:
    """The environment or the prefix; where neither is said, the default environment."""
    given = invocation.arguments
    if not (given.text("--prefix") or given.is_empty("--prefix")):
        return target.required_default(invocation), None
    if given.text("--env"):
        raise UsageError("--env and --prefix exclude each other")
    return None, check_prefix(given.text("--prefix"))


def _interval_s(invocation: Invocation) -> int:
    interval_ms = invocation.arguments.milliseconds("--interval")
    if interval_ms is None:
        return 60
    if interval_ms < _LEAST_INTERVAL_S * 1000 or interval_ms % 1000:
        raise UsageError(f"--interval takes whole seconds, at least {_LEAST_INTERVAL_S}s")
    return interval_ms // 1000


def _priority(invocation: Invocation) -> int:
    text = invocation.arguments.text("--priority") or "100"
    if not (text.isascii() and text.isdigit()) or int(text[:9]) > _MOST_PRIORITY:
        raise UsageError(f"--priority takes a number from 0 to {_MOST_PRIORITY}")
    return int(text)


def _dollars(invocation: Invocation) -> float:
    text = invocation.arguments.text("--budget") or "0"
    try:
        amount = float(text.removeprefix("$"))
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= 1e9:
        raise UsageError("--budget takes US dollars a month, such as 5 or 12.50")
    return amount


def news(before: BindingView, now: BindingView) -> Iterator[str]:
    """What is not as it was: "direction: push, now both"."""
    for each in fields(BindingView):
        old, new = getattr(before, each.name), getattr(now, each.name)
        if old != new and each.name not in _OF_THE_NODE:
            yield f"{each.name.replace('_', ' ')}: {_shown(old)}, now {_shown(new)}"


def _shown(value: object) -> str:
    match value:
        case None | "" | ():
            return "none"
        case tuple():
            return ", ".join(map(str, value))
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


# -- unbind, pause, resume -----------------------------------------------------------------


def unbind(invocation: Invocation, words: Sequence[str]) -> int:
    """Remove a binding."""
    dry_run = invocation.arguments.on("--dry-run")
    request = UnbindRequest(_only(words, "unbind NAME"), dry_run)
    binding = invocation.connection.sync.unbind(request)
    if not invocation.shows_tables():
        invocation.document(to_plain(binding))
        return exits.DONE
    how = "would be" if dry_run else "is"
    invocation.screen.line(f"{binding.name} {how} unbound: {in_words(binding)}")
    invocation.screen.line("  what it made stays, in the store and in envd")
    return exits.DONE


def pause(invocation: Invocation, words: Sequence[str]) -> int:
    """Have bindings rest."""
    return _paused(invocation, PauseRequest(tuple(words)))


def resume(invocation: Invocation, words: Sequence[str]) -> int:
    """Have bindings go on."""
    return _paused(invocation, PauseRequest(tuple(words), resume=True))


def _paused(invocation: Invocation, request: PauseRequest) -> int:
    listed = invocation.connection.sync.pause(request)
    if not invocation.shows_tables():
        invocation.document(to_plain(listed))
        return exits.DONE
    if not listed.bindings:
        invocation.screen.note("there are no bindings")
        return exits.DONE
    names = ", ".join(each.name for each in listed.bindings)
    if request.resume:
        invocation.screen.line(f"resumed: {names}")
        asleep = [each.name for each in listed.bindings if each.suspended]
        for name in asleep:
            invocation.screen.note(f"note: {name} is suspended; bind it anew without --suspended")
    else:
        invocation.screen.line(f"paused: {names}")
        invocation.screen.note("nothing is carried over until: envctl sync resume")
    return exits.DONE


# -- list --------------------------------------------------------------------------------


def show(invocation: Invocation, words: Sequence[str]) -> int:
    """The bindings as a table; one that is named, with all that it says."""
    listed = invocation.connection.sync.bindings(BindingsRequest(tuple(words)))
    if not invocation.shows_tables():
        invocation.document(to_plain(listed))
    elif not listed.bindings:
        invocation.screen.note("there are no bindings; make one: envctl sync bind --help")
    elif len(words) == 1:
        _show_one(invocation, listed.bindings[0])
    else:
        _show_table(invocation, listed)
    return exits.DONE


def _show_table(invocation: Invocation, listed: BindingList) -> None:
    rows = []
    for each in listed.bindings:
        more = f" (+{len(each.targets) - 1})" if len(each.targets) > 1 else ""
        rest = "paused" if each.paused_by else "suspended" if each.suspended else ""
        arrow = _ARROWS.get(each.direction, each.direction)
        every = rest or _every(each)
        rows.append((each.name, bound_part(each), arrow, f"{each.targets[0]}{more}", every))
    invocation.screen.table(("BINDING", "ENVIRONMENTS", "", "TARGET", "EVERY"), rows)


def _show_one(invocation: Invocation, binding: BindingView) -> None:
    screen = invocation.screen
    screen.line(f"{binding.name}: {in_words(binding)}", "bold")
    lines = {
        "targets": ", ".join(binding.targets),
        "route": binding.route if len(binding.targets) > 1 else "",
        "direction": binding.direction,
        "conflicts": binding.conflict_policy,
        "deletes": binding.delete_policy,
        "layout": binding.layout,
        "names": binding.name_template or "the store's own way",
        "credentials": binding.credentials or "the provider's own way",
        "every": _every(binding),
        "windows": ", ".join(binding.windows) or "always",
        "priority": str(binding.priority),
        "budget": _budget(binding),
        "suspended": "yes" if binding.suspended else "",
        "paused by": binding.paused_by,
        "comes from": "the settings of a node"
        if binding.origin == "file"
        else "envctl, or the API",
    }
    for label, text in lines.items():
        if text:
            screen.line(f"  {label:<12}{text}")


def _every(binding: BindingView) -> str:
    minutes, seconds = divmod(binding.interval_seconds, 60)
    return f"{binding.interval_seconds} s" if seconds or minutes == 1 else f"{minutes} min"


def _budget(binding: BindingView) -> str:
    if not binding.budget_dollars:
        return "none"
    stops = ", and stops there" if binding.budget_stops else ""
    return f"${binding.budget_dollars:,.2f} a month{stops}"


# -- words ---------------------------------------------------------------------------------


def in_words(binding: BindingView) -> str:
    """Example: "payments/prod -> aws-ssm:/payments/prod"."""
    arrow = _ARROWS.get(binding.direction, binding.direction)
    return f"{bound_part(binding)} {arrow} {', '.join(binding.targets)}"


def said(binding: BindingView) -> str:
    """All that a binding says, in a line: what it ties, and what is not the default.

    Two bindings of one name are the same if this is.
    """
    told = [in_words(binding)]
    for each in fields(BindingView):
        value = getattr(binding, each.name)
        if each.name not in _IN_WORDS and value != each.default:
            told.append(f"{each.name}={_shown(value)}")
    return "  ".join(told)


def bound_part(binding: BindingView) -> str:
    """What of envd is bound: "web/prod", "web/*" for all below a prefix, "*" for everything."""
    if binding.environment is not None:
        return binding.environment
    return f"{binding.prefix}/*" if binding.prefix else "*"


def _only(words: Sequence[str], usage: str) -> str:
    if len(words) != 1:
        what = "too many arguments" if words else "no binding is named"
        raise UsageError(what, hint=f"usage: envctl sync {usage}")
    return words[0]
