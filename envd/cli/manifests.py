"""A directory of files, each of which says what one environment shall be.

The path of a file below the directory, without its suffix, is the environment's name:
`envs/web/prod.toml` is web/prod. A `.env` file holds variables alone. A `.toml`, `.yaml` or
`.yml` file is a document:

    keep = ["API_KEY"]              these are left to the server, and must be there
    secrets = ["*_URL"]             names like this are secret
    plain = ["PUBLIC_*"]            names like this are not, whatever they look like
    prune = true                    what stands nowhere here is removed
    [settings]                      as in envctl settings; "" removes one
    extends = ["web/base"]
    [variables]
    PORT = "8080"
    [[bindings]]                    as in the settings of envd, of this environment
    name = "web"
    targets = ["aws-ssm:/web/prod"]

Values are text and taken as they stand: `${...}` means nothing here. Everything that is
wrong is refused before anything is asked of a node, with the file and the line or key; no
message holds a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from envd.cli.documents import Item, read_document
from envd.cli.exits import Failed
from envd.cli.manifest_bindings import read_bindings
from envd.cli.sources import MAX_FILE_BYTES
from envd.core.errors import InvalidRequest, LimitExceeded, Unsupported
from envd.core.layers import EXTENDS, bases_of
from envd.core.metadata import check_setting, is_setting, unknown_setting
from envd.core.names import MAX_VARIABLES, check_environment
from envd.core.syncing import BindingView
from envd.formats.read import Assignment, parse
from envd.formats.secrets import select_secret
from envd.formats.source import INVALID_FILE, Source

SUFFIXES = (".toml", ".yaml", ".yml", ".env")
_LISTS = ("keep", "secrets", "plain")
_KEYS = (*_LISTS, "prune", "settings", "variables", "bindings")
_PATTERN = re.compile(r"[*?\[]")


class Manifest(NamedTuple):
    """What one file says. Each variable's secret flag is decided."""

    environment: str
    variables: tuple[Assignment, ...] = ()
    settings: dict[str, str] = {}  # noqa: RUF012 (nobody writes to it)
    keep: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    prune: bool = False
    bindings: tuple[BindingView, ...] = ()

    def __repr__(self) -> str:
        """Leave the values out."""
        return f"Manifest({self.environment!r}, ...)"

    @property
    def required(self) -> tuple[str, ...]:
        """The names in `keep` that are no patterns: those must be there."""
        return tuple(name for name in self.keep if not _PATTERN.search(name))

    def keeps(self, name: str) -> bool:
        """Tell whether a variable is left to the server."""
        return _matches(name, self.keep)

    def makes_plain(self, name: str) -> bool:
        """Tell whether the file says that a variable is not secret."""
        return _matches(name, self.plain)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Place(NamedTuple):
    """One file of a directory; `extends` are the bases that it gives its environment, `binds`
    tells whether it has bindings."""

    environment: str
    path: Path
    shown: str
    extends: tuple[str, ...] = ()
    binds: bool = False


class Directory(NamedTuple):
    """The files of a directory in an order in which each base comes first."""

    places: tuple[Place, ...]
    passed_over: tuple[str, ...]
    """Files with other suffixes and links to directories, which are not read."""


def read_directory(root: Path, shown: str) -> Directory:
    """Find and check all files below `root`, which the user called `shown`.

    Contents are checked and let go again, so memory holds one file at a time. Raises Failed,
    or InvalidRequest with the file's name.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise Failed(f"{shown} {what}", hint="-f takes the directory that holds the files")
    found: dict[str, Place] = {}
    bound: dict[str, str] = {}
    passed_over = []
    for path in _files(root):
        name = f"{shown.rstrip('/')}/{path.relative_to(root)}"
        if path.suffix not in SUFFIXES or path.is_dir():
            passed_over.append(name)
            continue
        place = Place(_environment_of(path.relative_to(root), name), path, name)
        other = found.get(place.environment)
        if other is not None:
            raise _refused(name, f"{other.shown} is about {place.environment} already")
        manifest = read_manifest(place)
        for each in manifest.bindings:
            if each.name in bound:
                raise _refused(name, f"{bound[each.name]} has a binding {each.name} already")
            bound[each.name] = name
        extends = bases_of(manifest.settings.get(EXTENDS, ""))
        found[place.environment] = place._replace(extends=extends, binds=bool(manifest.bindings))
    if not found:
        raise Failed(
            f"{shown} holds no file of an environment",
            hint=f"its files end in {', '.join(SUFFIXES)}: {shown.rstrip('/')}/web/prod.toml",
        )
    return Directory(_bases_first(found), tuple(passed_over))


def read_manifest(place: Place) -> Manifest:
    """Read one file; raises Failed or InvalidRequest with its name."""
    try:
        if place.path.exists() and not place.path.is_file():
            raise Failed(f"{place.shown} is no file")  # A pipe would be waited for.
        with place.path.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Failed(f"can't read {place.shown}: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise Failed(f"{place.shown} is larger than {MAX_FILE_BYTES >> 20} MiB")
    made = _manifest(place, raw)
    if len(made.variables) > MAX_VARIABLES:
        count = len(made.variables)
        raise _refused(
            place.shown, f"it holds {count} variables; at most {MAX_VARIABLES} go in one"
        )
    return made


def _manifest(place: Place, raw: bytes) -> Manifest:
    if place.path.suffix == ".env":
        variables = parse(raw, format="dotenv", source=place.shown)
        decided = select_secret(variables, secret_globs=(), plain_globs=())
        return Manifest(place.environment, tuple(decided))
    source = Source(place.shown)
    root = read_document(source.decode(raw), source, toml=place.path.suffix == ".toml")
    return _Reader(source, root).manifest(place.environment)


def _files(root: Path) -> Iterator[Path]:
    """Every file below `root`, and links to directories; hidden ones are left out."""
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            entries = sorted(directory.iterdir())
        except OSError as error:
            raise Failed(f"can't read {directory}: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)
            else:
                yield entry


def _environment_of(relative: Path, shown: str) -> str:
    try:
        return check_environment(relative.with_suffix("").as_posix())
    except InvalidRequest as error:
        raise _refused(shown, error.message, error.hint) from error


def _bases_first(found: dict[str, Place]) -> tuple[Place, ...]:
    from envd.core.errors import Conflict
    from envd.core.layers import layers

    def bases(name: str) -> tuple[str, ...]:
        return found[name].extends if name in found else ()

    order: dict[str, None] = {}
    for name, place in sorted(found.items()):
        try:
            order.update(dict.fromkeys(layers(name, bases)))
        except (Conflict, LimitExceeded) as error:
            raise _refused(place.shown, error.message, error.hint) from error
    return tuple(found[name] for name in order if name in found)


def _refused(shown: str, what: str, hint: str = "") -> InvalidRequest:
    return InvalidRequest(f"{shown}: {what}", hint=hint, reason=INVALID_FILE)


class _Reader:
    """Makes a manifest of a document, or tells what is wrong in it, and where."""

    def __init__(self, source: Source, root: Item) -> None:
        self._source = source
        self._root = self._table(root, "the document", "keys such as [variables]")

    def manifest(self, environment: str) -> Manifest:
        for name, item in self._root.items():
            if name not in _KEYS:
                raise self._unknown(name, item)
        patterns = {name: self._texts(name) for name in _LISTS}
        prune = self._root.get("prune")
        if prune is not None and not isinstance(prune.value, bool):
            raise self._source.error(prune.line, "prune takes true or false")
        variables = self._variables(patterns["secrets"], patterns["plain"])
        made = Manifest(
            environment,
            variables,
            self._settings(),
            patterns["keep"],
            patterns["plain"],
            bool(prune and prune.value),
            read_bindings(self._root["bindings"], self._source, environment)
            if "bindings" in self._root
            else (),
        )
        for each in variables:
            if made.keeps(each.name):
                raise self._source.error(
                    each.line,
                    f"{each.name} has a value here, and keep leaves it to the server",
                    hint="take it out of one of the two",
                )
        return made

    def _unknown(self, name: str, item: Item) -> InvalidRequest:
        from difflib import get_close_matches

        near = get_close_matches(name, _KEYS, 1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(_KEYS)}"
        if isinstance(item.value, str):
            hint = f"variables stand below [variables]; {hint}"
        return self._source.error(item.line, f"there is no key {name[:64]!a}", hint=hint)

    def _variables(
        self, secrets: tuple[str, ...], plain: tuple[str, ...]
    ) -> tuple[Assignment, ...]:
        item = self._root.get("variables")
        if item is None:
            return ()
        made = []
        for name, each in self._table(item, "variables", "names and values").items():
            self._source.check_name(name, line=each.line)
            if not isinstance(each.value, str):
                raise self._source.error(
                    each.line,
                    f"the value of {name} is {each.kind}, expected text",
                    hint='put quotes around it: "..."',
                )
            if _matches(name, secrets) and _matches(name, plain):
                raise self._source.error(each.line, f"{name} is matched by secrets and by plain")
            made.append(self._source.assignment(name, each.value, line=each.line))
        return tuple(select_secret(made, secret_globs=secrets, plain_globs=plain))

    def _settings(self) -> dict[str, str]:
        item = self._root.get("settings")
        if item is None:
            return {}
        found = {}
        for name, each in self._table(item, "settings", "names and values").items():
            try:
                if not is_setting(name):
                    raise unknown_setting(name)
                found[name] = value = self._setting(name, each)
                if value:
                    check_setting(name, value)
            except (InvalidRequest, Unsupported) as error:
                if error.reason == INVALID_FILE:
                    raise
                raise self._source.error(each.line, error.message, hint=error.hint) from error
        return found

    def _setting(self, name: str, item: Item) -> str:
        """Text; a list is its parts joined by commas, and labels may be a table."""
        match item.value:
            case bool():
                return "true" if item.value else "false"
            case str():
                return item.value
            case list():
                return ",".join(self._text(each, f"a part of {name}") for each in item.value)
            case dict() if name == "labels":
                parts = {key: self._text(each, name) for key, each in item.value.items()}
                return ",".join(f"{key}={value}" for key, value in sorted(parts.items()))
            case _:
                if item.moment:
                    return item.moment
                raise self._source.error(item.line, f"{name} is {item.kind}, expected text")

    def _texts(self, name: str) -> tuple[str, ...]:
        item = self._root.get(name)
        if item is None:
            return ()
        if item.kind == "null":
            return ()
        if not isinstance(item.value, list):
            raise self._source.error(item.line, f'{name} takes a list: {name} = ["NAME"]')
        return tuple(self._text(each, f"a part of {name}") for each in item.value)

    def _text(self, item: Item, what: str) -> str:
        if not isinstance(item.value, str):
            raise self._source.error(item.line, f"{what} is {item.kind}, expected text")
        return item.value

    def _table(self, item: Item, what: str, expected: str) -> dict[str, Item]:
        if item.kind == "null":  # `variables:` with nothing below it, in YAML
            return {}
        if not isinstance(item.value, dict):
            raise self._source.error(item.line, f"{what} is {item.kind}, expected {expected}")
        return item.value
