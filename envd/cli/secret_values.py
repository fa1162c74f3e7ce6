"""The secret values that envd holds, and the forms in which they may stand in a file.

Values that many texts hold by chance are left out: those of less than eight bytes, of fewer
than five different characters, short numbers, and the words that stand for a password in every
example. Values stay in this process's memory.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from envd.cli import states
from envd.cli.invocation import Invocation
from envd.cli.needles import MIN_BYTES
from envd.core.answers import EnvironmentView
from envd.core.errors import Conflict, Denied, NotFound
from envd.core.requests import HistoryRequest

_PAGE = 1000
_MIN_DISTINCT = 5
_MIN_DIGITS = 12
_EVERYDAY_WORDS = """
    admin123 changeit changeme changethis database disabled dummyvalue examplekey hostname
    localhost mypassword mysecret notasecret p@ssw0rd passw0rd password password1 password123
    placeholder postgres postgresql production replaceme rootpassword secret123 secretkey
    secretvalue somesecret supersecret test1234 testpassword testsecret undefined username
    yourpassword yoursecret your-api-key your_api_key your-password your_password
"""
_EVERYDAY = frozenset(_EVERYDAY_WORDS.split())


class Owner(NamedTuple):
    """Where a value belongs; `older` is one that it had before."""

    environment: str
    variable: str
    older: bool = False


@dataclass(slots=True)
class Holdings:
    """What was gathered: each value with its owners, and what was left out."""

    owners: dict[str, list[Owner]] = field(default_factory=dict, repr=False)
    ignored: int = 0
    """Values that are too short or too common."""
    closed: list[str] = field(default_factory=list)
    """Environments whose secrets may not be read."""
    environments: int = 0
    _passed_over: set[str] = field(default_factory=set, repr=False)

    def add(self, view: EnvironmentView, *, older: bool) -> None:
        """Take in the secret values of a state."""
        for name, variable in view.variables.items():
            if variable.secret and variable.value:
                self._take(variable.value, Owner(view.environment, name, older))

    def _take(self, value: str, owner: Owner) -> None:
        if is_everyday(value):
            if value not in self._passed_over:
                self._passed_over.add(value)
                self.ignored += 1
            return
        owners = self.owners.setdefault(value, [])
        if not any(each[:2] == owner[:2] for each in owners):
            owners.append(owner)


def gather(invocation: Invocation, names: Iterable[str], *, older: bool) -> Holdings:
    """Read the secret values of environments, with `older` those of their history too."""
    holdings = Holdings()
    listed = tuple(names)
    with invocation.progress("reading secrets", len(listed)) as progress:
        for name in listed:
            _read(invocation, name, holdings, older=older)
            progress.advance()
    return holdings


def _read(invocation: Invocation, name: str, holdings: Holdings, *, older: bool) -> None:
    try:
        view = states.read_comparable(invocation, name)
    except (NotFound, Denied) as error:
        if isinstance(error, Denied):
            holdings.closed.append(name)
        return
    holdings.environments += 1
    if any(variable.masked for variable in view.variables.values()):
        holdings.closed.append(name)
        return
    holdings.add(view, older=False)
    for revision in _earlier(invocation, view) if older else ():
        try:
            holdings.add(invocation.read(name, at=revision, reveal=True), older=True)
        except (NotFound, Conflict):
            continue  # It was trimmed meanwhile.
        except Denied:
            holdings.closed.append(name)
            return


def _earlier(invocation: Invocation, view: EnvironmentView) -> Iterator[str]:
    """The revisions of commits that set a variable, but for the present one.

    A blind commit has none, and is named by its place.
    """
    request = HistoryRequest(view.environment, limit=_PAGE)
    seen, read = {view.revision}, 0
    while True:
        page = invocation.connection.history(request)
        for place, commit in enumerate(page.commits, read):
            sets = any(each.kind == "set" and not each.metadata for each in commit.changes)
            revision = commit.revision or f"@~{place}"
            if sets and not commit.deleted and revision not in seen:
                seen.add(revision)
                yield revision
        read += len(page.commits)
        if not page.next:
            return
        request = replace(request, before=page.next)


def is_everyday(value: str) -> bool:
    """Tell whether a value is too short or too common to be looked for."""
    return (
        len(value.encode()) < MIN_BYTES
        or len(set(value)) < _MIN_DISTINCT
        or (value.isdigit() and len(value) < _MIN_DIGITS)
        or value.lower() in _EVERYDAY
    )


def forms(value: str) -> dict[bytes, str]:
    """The bytes to look for, each with the word for its form."""
    found = {value.encode(): "as it is"}
    spared = (quote(value, safe=each) for each in ("", "/", _SPARED_BY_JAVASCRIPT))
    for text in (*spared, quote_plus(value, safe="")):
        for spelled in (text, re.sub("%..", lambda code: code.group().lower(), text)):
            found.setdefault(spelled.encode(), "URL-encoded")
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        found.setdefault(escaped.encode(), "escaped")
        found.setdefault(escaped.replace("/", "\\/").encode(), "escaped")
    found.setdefault(
        re.sub(r'([\\"$`])', r"\\\1", value).encode(), "escaped"
    )  # as in a shell's "..."
    for quotes in (True, False):
        entities = html.escape(value, quote=quotes)
        found.setdefault(entities.encode(), "escaped")
        found.setdefault(entities.replace("&#x27;", "&#39;").encode(), "escaped")
    for encoding in ("utf-16-le", "utf-16-be"):
        found.setdefault(value.encode(encoding), "UTF-16")
    for encoded in _base64(value.encode()):
        found.setdefault(encoded, "base64")
        found.setdefault(encoded.translate(_URL_SAFE), "base64")
    return found


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_SPARED_BY_JAVASCRIPT = "!~*'()"
_WHITE_SPACE = b" \t\r\n"


class Broken(NamedTuple):
    """A form that may be broken into lines or indented: `anchor`, a piece of it, is looked for,
    and where that stands, all of it (`whole`, without white space)."""

    anchor: bytes
    whole: bytes
    form: str

    def __repr__(self) -> str:
        """Leave the value out."""
        return f"Broken({self.form})"


def broken_forms(value: str) -> Iterator[Broken]:
    """The forms that may be broken: a value of several lines, such as a key, and base64.

    Lines of base64 end anywhere, but one of two neighbours of 8 bytes is always whole.
    """
    lines = value.encode().split()
    if len(lines) > 1 and "\n" in value:
        longest = max(lines, key=len)
        if len(longest) >= MIN_BYTES:
            yield Broken(longest, b"".join(lines), "in other lines")
    for encoded in _base64(value.encode()):
        middle = len(encoded) // 2
        for at in (middle - MIN_BYTES, middle):
            if at >= 0 and at + MIN_BYTES <= len(encoded):
                yield Broken(encoded[at : at + MIN_BYTES], encoded, "base64")


def surroundings(text: bytes, start: int, length: int) -> bytes:
    """What stands around `start` without its white space, so far as `length` bytes may reach;
    nothing where no line ends there, for then a whole form would be found."""
    reach = 4 * length + 256
    around = text[max(start - reach, 0) : start + reach]
    return around.translate(None, _WHITE_SPACE) if b"\n" in around else b""


def _base64(raw: bytes) -> Iterator[bytes]:
    """The part of the base64 of any text with `raw` in it that `raw` alone decides.

    There are three, for what stands before may have any length. Example: of b"secretvalue" they
    are within the base64 of "secretvalue", "xsecretvalue" and "xxsecretvalue".
    """
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        yield encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
