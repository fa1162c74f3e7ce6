"""Named contexts: which node, with which credential, and which environment, under one name.

They are kept in `$XDG_CONFIG_HOME/envd/config.json` (mode 0600, it may hold tokens):

    {"current": "prod", "contexts": {"prod": {"server": "...", "token": "...",
     "token_file": "...", "environment": "..."}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from envd.cli.exits import Failed, UsageError


class Context(NamedTuple):
    """One named context; what is empty is not said."""

    server: str = ""
    token: str = ""
    token_file: str = ""
    environment: str = ""

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"Context(server={self.server!r}, ...)"


class Contexts(NamedTuple):
    """The whole file."""

    current: str
    named: dict[str, Context]

    def chosen(self, wanted: str) -> tuple[str, Context] | None:
        """The context called `wanted`, or the current one for ""; None where there is none."""
        name = wanted or self.current
        if not name:
            return None
        if name in self.named:
            return name, self.named[name]
        if wanted:
            raise self.unknown(wanted)
        return None

    def unknown(self, name: str) -> UsageError:
        """The error for a name that no context has."""
        from difflib import get_close_matches

        near = get_close_matches(name, self.named, 1)
        known = ", ".join(sorted(self.named)) or "none yet; envctl login makes one"
        hint = f"did you mean {near[0]}?" if near else f"the contexts are: {known}"
        return UsageError(f"there is no context {name[:64]!a}", hint=hint)


def home(environ: Mapping[str, str], variable: str, below_home: str) -> str:
    """A base directory of the XDG specification, "" where the home directory is unknown.

    As that specification has it, a path that is not absolute is ignored.
    """
    named = environ.get(variable, "")
    if named.startswith("/"):
        return named.rstrip("/")
    user = environ.get("HOME", "")
    return f"{user.rstrip('/')}/{below_home}" if user.startswith("/") else ""


def path(environ: Mapping[str, str]) -> str:
    """Where the contexts are kept, "" where there is no place for them."""
    directory = home(environ, "XDG_CONFIG_HOME", ".config")
    return f"{directory}/envd/config.json" if directory else ""


def load(environ: Mapping[str, str]) -> Contexts:
    """Read the contexts; no file is no contexts."""
    file = path(environ)
    try:
        with open(file, encoding="utf-8") as opened:
            document = json.load(opened)
        return _contexts(document)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts("", {})
    except OSError as error:
        raise Failed(f"can't read {file}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError):
        # Not chained: the error carries the file, and the file carries tokens.
        raise Failed(
            f"{file} does not hold envctl's contexts as envctl writes them",
            hint="mend it, or remove it and log in again",
        ) from None


def save(environ: Mapping[str, str], contexts: Contexts) -> None:
    """Write the contexts, atomically and with mode 0600."""
    from pathlib import Path

    from envd.files import write_private

    file = path(environ)
    if not file:
        raise Failed("no place for contexts: neither XDG_CONFIG_HOME nor HOME is set")
    named = {
        name: {key: value for key, value in context._asdict().items() if value}
        for name, context in sorted(contexts.named.items())
    }
    document = {"current": contexts.current, "contexts": named}
    try:
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(Path(file), json.dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise Failed(f"can't write {file}: {error.strerror}") from error


def private(file: str) -> bool:
    """Tell whether a file can be read by its owner only."""
    with open(file, "rb") as opened:
        return os.fstat(opened.fileno()).st_mode & 0o077 == 0


def _contexts(document: object) -> Contexts:
    if not isinstance(document, dict):
        raise TypeError
    named = {}
    for name, fields in document.get("contexts", {}).items():
        known = {key: str(fields[key]) for key in Context._fields if fields.get(key)}
        named[str(name)] = Context(**known)
    return Contexts(str(document.get("current", "") or ""), named)
