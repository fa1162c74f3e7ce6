"""What backends answer to operations, said the same way by all of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from envd.backends.contract import (
    MAX_STAMP_CHARACTERS,
    Cost,
    Health,
    Limits,
    Load,
    Op,
    Outcome,
    PriceSheet,
    Reject,
    Result,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidValue,
    StaleVersion,
    StoreUnsupported,
    ValueTooLarge,
)
from envd.backends.naming import shown


async def probed(reach: Callable[[], Awaitable[object]], identity: Callable[[], str]) -> Health:
    """What a probe found that makes this one call; `identity` is asked once it is over."""
    began_s = asyncio.get_running_loop().time()
    try:
        await reach()
    except BackendError as error:
        return Health(False, identity=identity(), detail=error.message, hint=error.hint)
    took_s = asyncio.get_running_loop().time() - began_s
    return Health(True, took_s * 1000, identity())


def unsuccessful(op: Op, error: BackendError, *, version: str = "") -> Outcome:
    """The outcome of an operation that a store answered with this error."""
    if isinstance(error, StaleVersion):
        return Outcome(op, Result.CONFLICT, version, error)
    return Outcome(op, Result.REJECTED if error.is_refusal else Result.FAILED, version, error)


def stale(op: Op, version: str) -> Outcome:
    """The item is at `version`, not at the expected one."""
    name = shown(op.key)
    if not op.expect:
        error = StaleVersion(f"{name} is there already")
    elif not version:
        error = StaleVersion(f"{name} is not there any more")
    else:
        error = StaleVersion(f"{name} was changed by somebody else")
    return unsuccessful(op, error, version=version)


def value_problem(op: Op, limits: Limits) -> BackendError | None:
    """Why the value or the stamp of an operation can't be, None where they can."""
    if op.verb is Verb.DELETE:
        return None
    name = shown(op.key)
    if len(op.stamp) > MAX_STAMP_CHARACTERS or not op.stamp.isascii():
        return InvalidValue(f"the stamp of {name} is no short ASCII text")
    size = _size(op.value)
    if size is None:
        return InvalidValue(f"the value of {name} is not valid UTF-8")
    if size < limits.min_value_bytes:
        return InvalidValue(
            f"the value of {name} has {size} bytes; this store takes none below "
            f"{limits.min_value_bytes}"
        )
    if limits.max_value_bytes and size > limits.max_value_bytes:
        return ValueTooLarge(
            f"the value of {name} has {size} bytes; this store takes at most "
            f"{limits.max_value_bytes}"
        )
    return None


def _size(value: str) -> int | None:
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return None


def check_batch(count: int, most: int, *, what: str) -> None:
    """Raise StoreUnsupported where a call is given more than it takes; 0 is no limit."""
    if most and count > most:
        raise StoreUnsupported(f"{count} {what} in one call; this store takes at most {most}")


def rejected(ops: list[Op], rejects: list[Reject]) -> dict[int, Outcome]:
    """The outcomes of what `check` refused, by the operation's place among `ops`."""
    refused = {id(each.op): each.error for each in rejects}
    return {at: unsuccessful(op, refused[id(op)]) for at, op in enumerate(ops) if id(op) in refused}


def priced(prices: PriceSheet, *, items: int, reads: int, writes: int) -> Cost:
    """Calls with their price: what is free is taken off, reads first.

    Example: 110 items at $0.40 a month with 10 of them free, and no calls, are $40.
    """
    charged_reads = max(0, reads - prices.free_calls)
    charged_writes = max(0, writes - max(0, prices.free_calls - reads))
    dollars = (
        max(0, items - prices.free_items) * prices.item_month
        + charged_reads / 10_000 * prices.reads_10k
        + charged_writes / 10_000 * prices.writes_10k
    )
    return Cost(reads, writes, dollars)


def scan_calls(load: Load, page_items: int) -> int:
    """Calls of a month's scans: one a page, and one for a place that is empty."""
    pages = math.ceil(load.items / page_items) if page_items else 1
    return load.scans * max(1, pages)
