"""`envctl sync status` and `cost`: how bindings do, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from envd.cli import exits
from envd.cli.commands.past import local_time
from envd.cli.invocation import Invocation
from envd.core.syncing import (
    BindingCost,
    BindingsRequest,
    BindingStatus,
    CostView,
    Saving,
    SyncStatus,
    TargetStatus,
)
from envd.wire.plain import to_plain

_WELL: Final = frozenset({"in step", "behind", "waiting"})
_RESTING: Final = frozenset({"paused", "suspended"})
_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))
_NO_LEADER: Final = "no node leads it: none has its credentials, or no majority is in reach"


# -- status ------------------------------------------------------------------------------


def status(invocation: Invocation, words: Sequence[str]) -> int:
    """A row for each binding, and in words what is not well; all figures of one that is named."""
    found = invocation.connection.sync.status(BindingsRequest(tuple(words)))
    if not invocation.shows_tables():
        invocation.document(to_plain(found))
        return exits.DONE
    if not found.bindings:
        invocation.screen.note("there are no bindings; make one: envctl sync bind --help")
        return exits.DONE
    now_ms = invocation.world.wall_ms()
    if words:
        for at, each in enumerate(found.bindings):
            if at:
                invocation.screen.line()
            _show_one(invocation, each, now_ms)
    else:
        _show_all(invocation, found, now_ms)
    return exits.DONE


def _show_all(invocation: Invocation, found: SyncStatus, now_ms: int) -> None:
    header = ("BINDING", "STATE", "DRIFT", "LAG", "LAST SUCCESS", "NEXT", "LEADER")
    rows = [_row(each, now_ms) for each in found.bindings]
    invocation.screen.table(header, rows, [_colour(each) for each in found.bindings])
    troubles = [line for each in found.bindings for line in _troubles(each, now_ms)]
    if troubles:
        invocation.screen.line()
    for line in troubles:
        invocation.screen.line(line, "" if line.startswith(" ") else "yellow")
    if all(each.state == "in step" for each in found.bindings):
        invocation.screen.line("All is in step.", "green")


def _row(each: BindingStatus, now_ms: int) -> tuple[str, ...]:
    lag = in_words(each.lag_s) if each.lag_s else "-"
    drift = f"{each.drift:,}" if each.last_try else "?"
    last = ago(each.last_success, now_ms)
    return (each.binding, each.state, drift, lag, last, _next(each, now_ms), each.leader or "-")


def _next(each: BindingStatus, now_ms: int) -> str:
    return "-" if each.state in _RESTING else ago(each.next_run, now_ms, never="-")


def _colour(each: BindingStatus) -> str:
    if each.state in _RESTING:
        return "dim"
    return "" if each.state in _WELL else "red"


def _troubles(each: BindingStatus, now_ms: int) -> Iterator[str]:
    """What is not well with a binding, each with what to do about it."""
    why = each.detail or (_NO_LEADER if each.state == "no leader" else "")
    if why:
        yield f"{each.binding}: {why}"
        if each.hint:
            yield f"  {each.hint}"
    if each.conflicts:
        count = f"{each.conflicts:,} conflict{'' if each.conflicts == 1 else 's'}"
        yield f"{each.binding}: {count} to settle"
        yield "  see envctl conflicts"
    for target in each.targets:
        if target.circuit != "closed":
            again = ago(target.open_until, now_ms, never="now")
            yield f"{each.binding}: {target.target} is asked again {again}: {target.last_error}"


def _show_one(invocation: Invocation, each: BindingStatus, now_ms: int) -> None:
    screen = invocation.screen
    screen.line(f"{each.binding}: {each.state}", _colour(each) or "bold")
    for label, text in _figures(each, now_ms):
        screen.line(f"  {label:<14}{text}")
    if each.targets:
        screen.line()
        header = ("TARGET", "USED", "CIRCUIT", "READS", "WRITES", "ERRORS", "SLOWED", "MS")
        screen.table(header, [_target_row(target) for target in each.targets])
    troubles = list(_troubles(each, now_ms))
    if troubles:
        screen.line()
    for line in troubles:
        screen.line(line, "" if line.startswith(" ") else "yellow")


def _figures(each: BindingStatus, now_ms: int) -> Iterator[tuple[str, str]]:
    yield "leader", each.leader or "none"
    if each.last_success:
        yield "last success", _moment(each.last_success, now_ms)
    if each.last_try not in ("", each.last_success):
        yield "last try", _moment(each.last_try, now_ms)
    if each.run_total:
        yield "under way", f"{each.run_done:,} of {each.run_total:,} operations are done"
    if each.next_run and each.state not in _RESTING:
        yield "next run", _moment(each.next_run, now_ms)
    yield "drift", f"{each.drift:,} variable{'' if each.drift == 1 else 's'}"
    if each.lag_s:
        yield "lag", in_words(each.lag_s)
    yield "conflicts", f"{each.conflicts:,}" if each.conflicts else "none"
    yield "costs", f"about ${each.dollars_month:,.2f} a month"
    if each.told:
        yield "as of", _moment(each.told, now_ms)


def _moment(time: str, now_ms: int) -> str:
    return f"{local_time(time)}  ({ago(time, now_ms)})"


def _target_row(each: TargetStatus) -> tuple[str, ...]:
    counts = (each.reads, each.writes, each.errors, each.throttled)
    took = f"{each.latency_ms:,.0f}" if each.latency_ms else "-"
    used = "yes" if each.in_use else "no"
    return (each.target, used, each.circuit, *(f"{count:,}" for count in counts), took)


def ago(time: str, now_ms: int, *, never: str = "never") -> str:
    """A time beside now: "20 s ago", "in 2 min"; what is no time is shown as it is."""
    if not time:
        return never
    try:
        seconds = datetime.fromisoformat(time).timestamp() - now_ms / 1000
    except (ValueError, OverflowError, OSError):
        return time
    shown = in_words(abs(seconds))
    return f"in {shown}" if seconds > 0 else f"{shown} ago"


def in_words(seconds: float) -> str:
    """Example: in_words(150) is "2 min"."""
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.0f} s"


# -- cost --------------------------------------------------------------------------------


def cost(invocation: Invocation, words: Sequence[str]) -> int:
    """Calls and money a month, and what would be cheaper."""
    found = invocation.connection.sync.cost(BindingsRequest(tuple(words)))
    if not invocation.shows_tables():
        invocation.document(to_plain(found))
        return exits.DONE
    if not found.bindings:
        invocation.screen.note("there are no bindings, so stores cost nothing")
        return exits.DONE
    _show_costs(invocation, found)
    return exits.DONE


def _show_costs(invocation: Invocation, found: CostView) -> None:
    screen = invocation.screen
    header = ("BINDING", "STORE", "ITEMS", "READS", "WRITES", "$/MONTH", "BUDGET")
    rows = [_cost_row(each) for each in found.bindings]
    if len(rows) > 1:
        rows.append(("in all", "", "", "", "", _dollars(found.dollars_month), ""))
    over = ["red" if _is_over(each) else "" for each in found.bindings]
    screen.table(header, rows, [*over, "bold"][: len(rows)])
    savings = [(each, saving) for each in found.bindings for saving in each.savings]
    if savings:
        screen.line()
    for each, saving in savings:
        screen.line(f"{each.binding}: {_saving(saving)}", "green")
        screen.line(f"  {_terms(saving)}")
    screen.note(_measured(found))


def _cost_row(each: BindingCost) -> tuple[str, ...]:
    counts = (each.items, each.reads_month, each.writes_month)
    budget = f"{_dollars(each.budget_dollars)}" if each.budget_dollars else "-"
    store = each.target.partition(":")[0]
    figures = tuple(f"{count:,}" for count in counts)
    return (each.binding, store, *figures, _dollars(each.dollars_month), budget)


def _is_over(each: BindingCost) -> bool:
    return 0 < each.budget_dollars < each.dollars_month


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}"


def _saving(saving: Saving) -> str:
    return f"{saving.what} saves ${_dollars(saving.saves_dollars_month)} a month"


def _terms(saving: Saving) -> str:
    where = ", ".join(filter(None, (saving.provider, saving.service, saving.region)))
    return f"{where}; confidence {saving.confidence}, effort {saving.effort}"


def _measured(found: CostView) -> str:
    days = sorted({each.prices_as_of for each in found.bindings if each.prices_as_of})
    prices = f"at the prices of {', '.join(days)}" if days else "without known prices"
    shortest = min(each.measured_s for each in found.bindings)
    if not shortest:
        return f"an estimate {prices}; no traffic was measured yet"
    return f"an estimate {prices}, from the traffic of {in_words(shortest)}"
