"""Text to variables: dotenv in two dialects, JSON and YAML.

There is no standard of dotenv. The python dialect reads what the python-dotenv package
reads, the node dialect what the npm package `dotenv` reads; they differ in backticks,
comments and escapes. Both packages pass over lines that they can't read; envd refuses such a
file, names the line, and imports nothing of it. What both do read is read exactly as they do,
`${X}` stays as it is written.

JSON is an object of names and strings or envd's own environment (`json_object`), YAML a
mapping of names to strings (`yaml_mapping`). A value that is no string is refused there, so
that `NO`, `1.10` and `0755` never turn into something else on their way.
"""

from __future__ import annotations

import os
from typing import assert_never

from envd.formats.source import Assignment, Dialect, InputFormat, Source

__all__ = ["Assignment", "Dialect", "InputFormat", "guess_format", "parse"]


def parse(
    text: str | bytes,
    *,
    format: InputFormat,  # noqa: A002 (it is the word of the command line: --format)
    dialect: Dialect = "python",
    source: str,
) -> list[Assignment]:
    """Return the variables of `text`, one assignment for each name, in the order written.

    A name assigned twice in a dotenv file keeps its first place and its last value, as in the
    two packages; JSON and YAML with a name twice are refused. `source` is the file's name for
    the errors, "-" is standard input. `dialect` matters to dotenv only.

    Raises InvalidRequest (reason INVALID_FILE, or LIMIT_EXCEEDED) naming file and line. The
    message never holds a value nor a piece of a line that may be one.
    """
    place = Source(source)
    decoded = place.decode(text)
    match format:
        case "dotenv":
            return _parse_dotenv(decoded, dialect, place)
        case "json":
            from envd.formats.json_object import read_json

            return read_json(decoded, place)
        case "yaml":
            from envd.formats.yaml_mapping import read_yaml

            return read_yaml(decoded, place)
        case _:
            assert_never(format)


def _parse_dotenv(text: str, dialect: Dialect, source: Source) -> list[Assignment]:
    match dialect:
        case "python":
            from envd.formats.dotenv_python import read_python

            return read_python(text, source)
        case "node":
            from envd.formats.dotenv_node import read_node

            return read_node(text, source)
        case _:
            assert_never(dialect)


def guess_format(path: str | os.PathLike[str]) -> InputFormat:
    """Return the format that a file of this name holds: .json, .yaml, .yml, else dotenv."""
    name = os.fspath(path).lower()
    if name.endswith(".json"):
        return "json"
    if name.endswith((".yaml", ".yml")):
        return "yaml"
    return "dotenv"
