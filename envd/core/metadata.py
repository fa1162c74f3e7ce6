"""The settings of an environment: which there are, and what each may be.

They are text, like variables; `envctl settings` shows and sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from difflib import get_close_matches

from envd.core.chain import MODE, PLAIN, SERIAL
from envd.core.errors import InvalidRequest, Unsupported
from envd.core.names import check_environment

CREATED = "created"
MAX_TEXT = 4096
MAX_EXTENDS = 8


def check_setting(name: str, value: str) -> None:
    """Return if `name` is a setting that callers may set to `value`, else raise."""
    check = _CHECKS.get(name)
    if check is None:
        raise unknown_setting(name)
    check(name, value)


def unknown_setting(name: str) -> InvalidRequest:
    """The error for a name that is no setting, with the nearest one."""
    near = get_close_matches(name, _CHECKS, 1)
    known = ", ".join(_CHECKS)
    return InvalidRequest(
        f"{name[:64]!a} is no setting of an environment",
        hint=f"did you mean {near[0]}?" if near else f"the settings are {known}",
        reason="UNKNOWN_SETTING",
    )


def is_setting(name: str) -> bool:
    """Tell whether callers may set or unset `name`."""
    return name in _CHECKS


def _text(name: str, value: str) -> None:
    if len(value) > MAX_TEXT:
        raise _bad(name, f"text of at most {MAX_TEXT} characters")


def _labels(name: str, value: str) -> None:
    _text(name, value)
    for label in filter(None, value.split(",")):
        key, equals, _ = label.partition("=")
        if not equals or not key.strip():
            raise _bad(name, "KEY=VALUE pairs joined by commas")


def _mode(name: str, value: str) -> None:
    if value not in (PLAIN, SERIAL):
        raise _bad(name, "lww or serial")


def _extends(name: str, value: str) -> None:
    bases = [base.strip() for base in value.split(",") if base.strip()]
    if len(bases) > MAX_EXTENDS:
        raise _bad(name, f"at most {MAX_EXTENDS} environments joined by commas")
    for base in bases:
        check_environment(base)


def _protected(name: str, value: str) -> None:
    if value == "true":
        raise Unsupported(
            "this version has no approvals, so it can't protect an environment",
            hint="keep protected=false",
        )
    if value != "false":
        raise _bad(name, "true or false")


def _moment(name: str, value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise _bad(name, "a date or time such as 2030-12-31T00:00:00Z") from None


def _bad(name: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"the setting {name} takes {expected}", reason="INVALID_SETTING")


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "description": _text,
    "owner": _text,
    "labels": _labels,
    MODE: _mode,
    "extends": _extends,
    "regions": _text,
    "protected": _protected,
    "expires": _moment,
}
