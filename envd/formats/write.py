"""Variables to text, in the formats that other programs read.

Each format is a function from variables to text in the registry `_RENDERERS`; a further one
is a further entry. A format that can't hold a value, or can't hold it so that its readers
give back exactly that value, refuses it by name: an export is right or it does not happen.
Names and values are checked first, so no text can break out of its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from envd.core.errors import InvalidRequest
from envd.core.names import check_value, check_variable
from envd.formats.dotenv_quote import quoted

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words that YAML 1.1 takes for booleans and null; as names they need quotes.
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# What JSON leaves raw in a string but YAML takes for a line end or forbids.
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# Docker reads the file with a bufio.Scanner, which stops at a line of 64 KiB and its end.
_DOCKER_MAX_LINE_BYTES = (1 << 16) - 1


def render(
    variables: Mapping[str, str],
    *,
    format: str,  # noqa: A002 (it is the word of the command line: --format)
) -> str:
    """Return the text of `variables` in one of `OUTPUT_FORMATS`, in the order given.

    Raises InvalidRequest if there is no such format, or if it can't hold a name or a value
    faithfully; the message names the variable and never holds the value.
    """
    renderer = _RENDERERS.get(format)
    if renderer is None:
        raise InvalidRequest(
            f"there is no format {format[:64]!a}", hint=f"use {', '.join(OUTPUT_FORMATS)}"
        )
    for name, value in variables.items():
        check_variable(name)
        check_value(name, value)
    return renderer(variables)


def _dotenv(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={quoted(value)}\n" for name, value in variables.items())


def _json(variables: Mapping[str, str]) -> str:
    return json.dumps(dict(variables), indent=2, ensure_ascii=False) + "\n"


def _yaml(variables: Mapping[str, str]) -> str:
    """Write every value in double quotes: what is a string unquoted depends on the reader."""
    if not variables:
        return "{}\n"
    return "".join(
        f"{_yaml_name(name)}: {_yaml_string(value)}\n" for name, value in variables.items()
    )


def _yaml_name(name: str) -> str:
    return f'"{name}"' if name.lower() in _YAML_WORDS else name


def _yaml_string(value: str) -> str:
    return _RAW_IN_JSON.sub(
        lambda match: f"\\u{ord(match.group()):04x}", json.dumps(value, ensure_ascii=False)
    )


def _shell(variables: Mapping[str, str]) -> str:
    """Write for a POSIX shell: between single quotes, only a single quote has a meaning."""
    for name in variables:
        if not _SHELL_NAME.fullmatch(name):
            raise _inexpressible(name, "has a name that no shell variable can have", "dotenv")
    return "".join(
        "export {}='{}'\n".format(name, value.replace("'", "'\\''"))
        for name, value in variables.items()
    )


def _docker(variables: Mapping[str, str]) -> str:
    """Write for `docker run --env-file`: a value is what stands between `=` and line end.

    Docker trims blanks before a name only, and drops one CR at the end of a line.
    """
    lines = []
    for name, value in variables.items():
        line = f"{name}={value}"
        if "\n" in value:
            raise _inexpressible(name, "has a line end in its value")
        if value.endswith("\r"):
            raise _inexpressible(name, "has a carriage return at the end of its value")
        if len(line.encode()) > _DOCKER_MAX_LINE_BYTES:
            raise _inexpressible(name, "is longer than the 64 KiB that a line may have")
        lines.append(line + "\n")
    return "".join(lines)


def _inexpressible(name: str, why: str, other: str = "shell") -> InvalidRequest:
    return InvalidRequest(
        f"{name} {why}, which this format can't express",
        hint=f"use another format, such as --format {other}",
        reason="INEXPRESSIBLE",
    )


_RENDERERS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = MappingProxyType(
    {
        "dotenv": _dotenv,
        "json": _json,
        "yaml": _yaml,
        "shell": _shell,
        "docker": _docker,
    }
)
OUTPUT_FORMATS: Final = tuple(_RENDERERS)
