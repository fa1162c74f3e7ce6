"""Which names and sizes are legal, and the errors that say why one is not.

An environment is `team/app/prod`: segments of lower-case letters, digits and `._-`,
beginning and ending with a letter or digit, joined by `/`. A variable is
`[A-Za-z_][A-Za-z0-9_.-]*`. Values are text without NUL. The limits are refused at the
origin, before anything is stamped, so no half of a commit is ever applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envd.core.errors import InvalidRequest, LimitExceeded

MAX_ENVIRONMENT_NAME_BYTES = 255
MAX_SEGMENTS = 8
MAX_VARIABLE_NAME_BYTES = 255
MAX_VALUE_BYTES = 1 << 20
MAX_VARIABLES = 4096
MAX_ENVIRONMENT_BYTES = 4 << 20
MAX_OPERATIONS = 1024
MAX_MESSAGE_BYTES = 4096
MAX_OPERATION_ID_BYTES = 128
RESERVED_SEGMENT = "sys"
_SYSTEM = RESERVED_SEGMENT + "/"

_SEGMENT = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
ENVIRONMENT_PATTERN = rf"{_SEGMENT}(?:/{_SEGMENT})*"
VARIABLE_PATTERN = r"[A-Za-z_][A-Za-z0-9_.-]*"
_ENVIRONMENT = re.compile(ENVIRONMENT_PATTERN)
_VARIABLE = re.compile(VARIABLE_PATTERN)
_VARIABLES = re.compile(rf"(?:[A-Za-z_][A-Za-z0-9_.-]{{,{MAX_VARIABLE_NAME_BYTES - 1}}}\0)*")
_METADATA = re.compile(r"[a-z][a-z0-9_.-]*")


def is_system(name: str) -> bool:
    """Tell whether an environment is envd's own: replicated as all are, and shown to nobody."""
    return name.startswith(_SYSTEM)


def check_environment(name: str, *, system: bool = False) -> str:
    """Return `name` if it is a legal environment name, else raise InvalidRequest.

    Those that envd keeps for itself are legal for `system` only.
    """
    if len(name) > MAX_ENVIRONMENT_NAME_BYTES:
        raise LimitExceeded(
            f"the environment name is {len(name)} bytes long; "
            f"at most {MAX_ENVIRONMENT_NAME_BYTES} are allowed"
        )
    if not _ENVIRONMENT.fullmatch(name):
        raise InvalidRequest(
            f"{_shown(name)} is no environment name",
            hint="use segments of a-z, 0-9, '.', '_' and '-', joined by '/', "
            "each beginning and ending with a letter or digit: team/app/prod",
            reason="INVALID_NAME",
        )
    if name.count("/") >= MAX_SEGMENTS:
        raise LimitExceeded(
            f"the environment name has {name.count('/') + 1} segments; "
            f"at most {MAX_SEGMENTS} are allowed"
        )
    if not system and name.split("/", 1)[0] == RESERVED_SEGMENT:
        raise InvalidRequest(
            f"{_shown(name)} begins with '{RESERVED_SEGMENT}', which envd keeps for itself",
            hint="choose another first segment",
            reason="RESERVED_NAME",
        )
    return name


def check_prefix(prefix: str) -> str:
    """Return `prefix` without a closing slash if environments can be below it; "" is all."""
    trimmed = prefix.removesuffix("/")
    return check_environment(trimmed) if trimmed else ""


def has_prefix(name: str, prefix: str) -> bool:
    """Tell whether `prefix` holds `name`; prefixes match whole segments.

    "" matches all but the system's own.
    """
    if not prefix:
        return not name.startswith(_SYSTEM)
    return name == prefix or name.startswith(prefix + "/")


def check_variable(name: str) -> str:
    """Return `name` if it is a legal variable name, else raise InvalidRequest."""
    if len(name) > MAX_VARIABLE_NAME_BYTES:
        raise LimitExceeded(
            f"a variable name is {len(name)} bytes long; "
            f"at most {MAX_VARIABLE_NAME_BYTES} are allowed"
        )
    if not _VARIABLE.fullmatch(name):
        raise InvalidRequest(
            f"{_shown(name)} is no variable name",
            hint="use letters, digits, '_', '.' and '-', beginning with a letter or '_'",
            reason="INVALID_NAME",
        )
    return name


def check_metadata_name(name: str) -> str:
    """Return `name` if it is a legal metadata key, else raise InvalidRequest."""
    if len(name) > MAX_VARIABLE_NAME_BYTES or not _METADATA.fullmatch(name):
        raise InvalidRequest(
            f"{_shown(name)} is no setting of an environment",
            hint="use a-z, 0-9, '_', '.' and '-', beginning with a letter",
            reason="INVALID_NAME",
        )
    return name


def check_value(variable: str, value: str) -> int:
    """Return the size of `value` in bytes if it is legal, else raise, naming the variable."""
    if "\0" in value:
        raise InvalidRequest(
            f"the value of {variable} holds a NUL character, which no environment can carry",
            reason="INVALID_VALUE",
        )
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        # Not chained: a UnicodeEncodeError carries the whole value.
        raise InvalidRequest(
            f"the value of {variable} is not valid UTF-8",
            hint="values are text; encode binary data first, for example as base64",
            reason="INVALID_VALUE",
        ) from None
    if size > MAX_VALUE_BYTES:
        raise LimitExceeded(
            f"the value of {variable} is {size} bytes long; at most {MAX_VALUE_BYTES} are allowed"
        )
    return size


def are_legal(variables: Sequence[str], values: Sequence[str]) -> bool:
    """Tell whether all of them pass `check_variable` and `check_value`, at a fraction of the cost.

    False says only that they have to be looked at one by one.
    """
    joined, text = "\0".join(variables) + "\0", "".join(values)
    return (
        joined.count("\0") == len(variables)
        and _VARIABLES.fullmatch(joined) is not None
        and "\0" not in text
        and len(text) * 4 <= MAX_VALUE_BYTES
        and _is_utf8(text)
    )


def _is_utf8(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _shown(name: str) -> str:
    """Quote a name for a message, shortened, with control characters escaped."""
    return ascii(name if len(name) <= 64 else name[:61] + "...")
