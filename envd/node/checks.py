"""What a node refuses at the origin, before anything is stamped: nothing half-applied."""

from __future__ import annotations

import struct

from envd.core import names
from envd.core.commit import Kind
from envd.core.environment import Environment
from envd.core.errors import InvalidRequest, LimitExceeded
from envd.core.metadata import check_setting, is_setting, unknown_setting
from envd.core.requests import PutColumns, Seen, WriteRequest
from envd.core.stamp import Stamp

MAX_ENTRIES = 4 * names.MAX_VARIABLES
"""Of one environment, tombstones included: they stay until they are collected."""


def check_write(request: WriteRequest, *, system: bool = False) -> None:
    """Check names, values, counts and texts of a write; raises InvalidRequest or a child.

    The environments that envd keeps for itself may be written for `system` only.
    """
    names.check_environment(request.environment, system=system)
    check_operation(request.message, request.operation)
    count = len(request.puts) + len(request.unsets)
    large = request.bulk or request.replace
    limit = names.MAX_VARIABLES if large else names.MAX_OPERATIONS
    if count > limit:
        raise LimitExceeded(
            f"{count} operations in one write; at most {limit} are allowed",
            hint="that is as many as an environment may hold: split it into several"
            if large
            else "import takes as many as an environment may hold; or write in several steps",
        )
    if not count and not request.replace and not request.must_not_exist:
        raise InvalidRequest("the write changes nothing", hint="name what to set or to unset")
    for each in request.seen:
        _check_seen(each)
    if type(request.puts) is PutColumns and not request.unsets:
        variables, values = request.puts.names, request.puts.values
        if len(set(variables)) == count and names.are_legal(variables, values):
            return
    seen: set[tuple[Kind, str]] = set()
    for put in request.puts:
        _check_name(put.kind, put.name, seen)
        names.check_value(put.name, put.value)
        if put.kind is Kind.METADATA:
            check_setting(put.name, put.value)
    for unset in request.unsets:
        _check_name(unset.kind, unset.name, seen)
        if unset.kind is Kind.METADATA and not is_setting(unset.name):
            raise unknown_setting(unset.name)


def _check_seen(seen: Seen) -> None:
    names.check_variable(seen.name)
    try:
        if seen.stamp:
            Stamp.from_hex(seen.stamp)
    except (ValueError, struct.error):
        raise InvalidRequest(
            f"what was seen of {seen.name} is no stamp", hint="a stamp is 40 hexadecimal digits"
        ) from None


def _check_name(kind: Kind, name: str, seen: set[tuple[Kind, str]]) -> None:
    if kind is Kind.VARIABLE:
        names.check_variable(name)
    else:
        names.check_metadata_name(name)
    if (kind, name) in seen:
        raise InvalidRequest(
            f"{name} stands twice in one write", hint="a commit sets or unsets a name once"
        )
    seen.add((kind, name))


def check_operation(message: str, operation: str) -> None:
    """Check the message and the operation id of a write."""
    for what, text, limit in (
        ("message", message, names.MAX_MESSAGE_BYTES),
        ("operation id", operation, names.MAX_OPERATION_ID_BYTES),
    ):
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidRequest(f"the {what} is not valid UTF-8") from None
        if size > limit:
            raise LimitExceeded(f"the {what} is {size} bytes long; at most {limit} are allowed")
        if "\0" in text:
            raise InvalidRequest(f"the {what} holds a NUL character")


def check_room(before: Environment, after: Environment) -> None:
    """Refuse a write that leaves an environment over its limits, unless it shrinks it."""
    now, was = after.summary, before.summary
    if now.live > names.MAX_VARIABLES and now.live >= was.live:
        raise LimitExceeded(
            f"{after.name} would have {now.live} variables; "
            f"at most {names.MAX_VARIABLES} are allowed",
            hint="split it into several environments",
        )
    if now.names > MAX_ENTRIES and now.names > was.names:
        raise LimitExceeded(
            f"{after.name} keeps {now.names} names, set or unset; "
            f"at most {MAX_ENTRIES} are allowed",
            hint="names that were unset count too: delete the environment and create it anew, "
            "which clears them (its history stays)",
        )
    if now.characters * 4 > names.MAX_ENVIRONMENT_BYTES:
        size = _bytes(after)
        if size > names.MAX_ENVIRONMENT_BYTES and size >= _bytes(before):
            raise LimitExceeded(
                f"{after.name} would hold {size} bytes; "
                f"at most {names.MAX_ENVIRONMENT_BYTES} are allowed",
                hint="split it into several environments",
            )


def _bytes(environment: Environment) -> int:
    return sum(
        len(name) + len((entry.value or "").encode())
        for kind in Kind
        for name, entry in environment.live(kind)
    )
