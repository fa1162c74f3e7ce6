"""`envctl scan`: which secret values of envd stand in files, and in the history of git."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from envd.cli import exits
from envd.cli.commands.listing import whole_list
from envd.cli.commands.planning import counted
from envd.cli.exits import Failed, PartlyDone, UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.haystack import Repository, Rules, Text, files
from envd.cli.invocation import Invocation
from envd.cli.needles import Needles
from envd.cli.secret_values import (
    Holdings,
    Owner,
    broken_forms,
    forms,
    gather,
    surroundings,
)
from envd.core.errors import Denied

_MAX_MIB = 64
_MOST_NAMED = 5
_MASKED = "********"


class Finding(NamedTuple):
    """A value of `owners` at a line of a text; `line` 0 is the name of the file."""

    place: str
    object_id: str
    line: int
    form: str
    owners: tuple[Owner, ...]

    def text(self, place: str) -> str:
        """One line, as grep shows it: `FILE:LINE: ENV KEY (form)`."""
        first = self.owners[0]
        remarks = [self.form if self.line else "in the file's name"]
        if all(owner.older for owner in self.owners):
            remarks.append("an older value")
        if len(self.owners) > 1:
            remarks.append(f"and {len(self.owners) - 1} more with this value")
        line = f"{place}:{self.line}" if self.line else place
        return f"{line}: {first.environment} {first.variable} ({', '.join(remarks)})"


class Meaning(NamedTuple):
    """Whose value a needle is, in which form; with `whole` it is a piece of that."""

    owners: tuple[Owner, ...]
    form: str
    whole: bytes = b""

    def __repr__(self) -> str:
        """Leave the value out."""
        return f"Meaning({self.form})"


@dataclass(slots=True)
class Search:
    """Looks for what envd holds, text by text."""

    needles: Needles
    meanings: list[list[Meaning]] = field(repr=False)
    looked_into: int = 0

    @classmethod
    def of(cls, holdings: Holdings) -> Search:
        """Make it of all forms of all values."""
        meanings: dict[bytes, list[Meaning]] = {}
        for value, given in holdings.owners.items():
            owners = tuple(given)
            for raw, form in forms(value).items():
                meanings.setdefault(raw, []).append(Meaning(owners, form))
            for piece in broken_forms(value):
                meaning = Meaning(owners, piece.form, piece.whole)
                meanings.setdefault(piece.anchor, []).append(meaning)
        return cls(Needles(meanings), list(meanings.values()))

    def look_into(self, text: Text) -> Iterator[Finding]:
        """The findings in a text, each secret once a line."""
        self.looked_into += not text.passed_over
        place, in_name = self.without_values(text.place)
        for meaning in in_name:
            yield Finding(place, text.object_id, 0, "", meaning.owners)
        line, counted_to, seen = 1, 0, set()
        for start, meaning in self._found(text.content):
            line += text.content.count(b"\n", counted_to, start)
            counted_to = start
            at, form = (0, "") if text.is_names else (line, meaning.form)
            finding = Finding(place, text.object_id, at, form, meaning.owners)
            if finding not in seen:
                seen.add(finding)
                yield finding

    def _found(self, text: bytes) -> Iterator[tuple[int, Meaning]]:
        """What stands where; of a secret that is found in several forms at one place, the first."""
        ends: dict[tuple[Owner, ...], int] = {}
        for start, number in self.needles.find(text):
            meanings = self.meanings[number]
            around = surroundings(text, start, max(len(each.whole) for each in meanings))
            for meaning in meanings if around else (each for each in meanings if not each.whole):
                whole = meaning.whole
                if start >= ends.get(meaning.owners, 0) and (not whole or whole in around):
                    ends[meaning.owners] = start + (len(whole) or self.needles.length(number))
                    yield start, meaning

    def without_values(self, place: str) -> tuple[str, list[Meaning]]:
        """The name of a file with the values in it masked, and what they mean."""
        raw = place.encode(errors="surrogateescape")
        meanings = []
        for start, number in reversed(self.needles.find(raw)):
            exact = [meaning for meaning in self.meanings[number] if not meaning.whole]
            if exact:
                raw = raw[:start] + _MASKED.encode() + raw[start + self.needles.length(number) :]
            meanings += exact
        return raw.decode(errors="backslashreplace"), meanings


def _scan(invocation: Invocation) -> int:
    arguments = invocation.arguments
    words = invocation.take_words(most=1)
    shown = words[0] if words else "."
    path = Path(invocation.world.cwd) / shown
    history = arguments.on("--history")
    if shown == "-" and history:
        raise UsageError("--history is about a path, not about standard input")
    if shown != "-" and not path.exists():
        raise Failed(f"there is nothing at {shown}")
    repository = Repository(path, invocation.world.environ) if history else None
    holdings = _holdings(invocation)
    rules = Rules(arguments.number("--max-size", _MAX_MIB) << 20, arguments.on("--binary"))
    search = Search.of(holdings)
    findings = []
    if holdings.owners:
        texts = _standard_input(invocation, rules) if shown == "-" else files(path, shown, rules)
        findings += _searched(invocation, search, texts, None, "searching files")
        if repository is not None:
            findings += _in_history(invocation, search, repository, rules)
    return _told(invocation, holdings, search, rules, findings)


def _holdings(invocation: Invocation) -> Holdings:
    page = whole_list(invocation.connection, "")
    names = [each.environment for each in page.environments]
    older = not invocation.arguments.on("--current")
    holdings = gather(invocation, names, older=older)
    if names and len(set(holdings.closed)) == len(names):
        raise Denied(
            "you may read the secrets of no environment, so there is nothing to look for",
            hint="it takes the right to reveal: envctl whoami",
        )
    if page.partial:
        raise PartlyDone(f"the list of environments is not whole: {page.partial_reason}")
    return holdings


def _standard_input(invocation: Invocation, rules: Rules) -> Iterator[Text]:
    content = invocation.world.stdin.buffer.read(rules.max_bytes + 1)
    if len(content) > rules.max_bytes:
        raise Failed(
            f"standard input is larger than {rules.max_bytes >> 20} MiB", hint="see --max-size"
        )
    yield Text("standard input", content)


def _searched(
    invocation: Invocation, search: Search, texts: Iterable[Text], total: int | None, doing: str
) -> list[Finding]:
    """Look into the texts; what is found in files is shown at once."""
    found = []
    with invocation.progress(doing, total) as progress:
        for text in texts:
            for finding in search.look_into(text):
                found.append(finding)
                if not finding.object_id:
                    invocation.tell(finding.text(finding.place))
            progress.advance()
    return found


def _in_history(
    invocation: Invocation, search: Search, repository: Repository, rules: Rules
) -> list[Finding]:
    names = repository.objects(rules)
    texts = repository.texts(names, rules)
    found = _searched(invocation, search, texts, len(names), "searching git's objects")
    contents = {each.object_id for each in found if not each.place}
    places = repository.places(contents) if contents else {}
    placed = _each_name_once(_placed(search, each, places) for each in found)
    for each in placed:
        invocation.tell(each.text(each.place))
    return placed


def _each_name_once(findings: Iterable[Finding]) -> list[Finding]:
    """Without the repetitions of names: a directory is an object anew with every change in it."""
    named: set[tuple[Owner, ...]] = set()
    kept = []
    for each in findings:
        if each.line or each.owners not in named:
            kept.append(each)
        if not each.line:
            named.add(each.owners)
    return kept


def _placed(search: Search, finding: Finding, places: dict[str, str]) -> Finding:
    if finding.place:
        where = f"{finding.object_id[:12]} ({finding.place})"
    else:
        where = places[finding.object_id]
    masked, _ = search.without_values(where)
    return finding._replace(place=masked)


# -- what is told ----------------------------------------------------------------------


def _told(
    invocation: Invocation,
    holdings: Holdings,
    search: Search,
    rules: Rules,
    findings: list[Finding],
) -> int:
    for names in (rules.large, rules.unreadable):
        names[:] = [search.without_values(name)[0] for name in names]
    if invocation.shows_tables():
        _summary(invocation, holdings, search, findings)
    else:
        invocation.document(_document(holdings, search, rules, findings))
    _note_left_out(invocation, holdings, rules)
    if findings:
        return exits.DIFFERENCES
    if rules.unreadable:
        raise PartlyDone(
            f"{counted(len(rules.unreadable), 'file')} could not be read: "
            + _some(rules.unreadable)
        )
    return exits.DONE


def _summary(
    invocation: Invocation, holdings: Holdings, search: Search, findings: list[Finding]
) -> None:
    values = counted(len(holdings.owners), "secret value")
    if not holdings.owners:
        invocation.screen.line("there are no secret values to look for")
        return
    objects = " and git objects" if invocation.arguments.on("--history") else ""
    within = f"{values}, {counted(search.looked_into, 'file')}{objects} searched"
    if findings:
        names = {owner[:2] for each in findings for owner in each.owners}
        what = f"{counted(len(findings), 'place')} with {counted(len(names), 'secret variable')}"
        invocation.screen.line(f"found {what}  ({within})", "red")
    else:
        invocation.screen.line(f"nothing found  ({within})", "green")


def _note_left_out(invocation: Invocation, holdings: Holdings, rules: Rules) -> None:
    notes = []
    if holdings.ignored:
        notes.append(f"{counted(holdings.ignored, 'value')} too short or too common to look for")
    if holdings.closed:
        closed = sorted(set(holdings.closed))
        notes.append(f"secrets that you may not read: {_some(closed)}")
    if rules.large:
        notes.append(f"larger than {rules.max_bytes >> 20} MiB (--max-size): {_some(rules.large)}")
    if rules.binaries:
        notes.append(f"{counted(rules.binaries, 'binary file')} passed over (--binary)")
    for note in notes:
        invocation.screen.note(f"note: {note}")


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    shown = [ascii(name)[1:-1] if not name.isprintable() else name for name in names]
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _document(
    holdings: Holdings, search: Search, rules: Rules, findings: list[Finding]
) -> dict[str, Any]:
    return {
        "findings": [
            {
                "file": each.place,
                "line": each.line or None,
                "object": each.object_id or None,
                "form": each.form or "file name",
                "secrets": [owner._asdict() for owner in each.owners],
            }
            for each in findings
        ],
        "searched": search.looked_into,
        "values": len(holdings.owners),
        "ignored": holdings.ignored,
        "not_readable": sorted(set(holdings.closed)),
        "too_large": rules.large,
        "binary": rules.binaries,
        "unreadable": rules.unreadable,
    }


SCAN = Command(
    usage=("[PATH|-] [--history] [--current]",),
    about="""
    Look for the secret values that envd holds, in the files at or below PATH (default: here).
    All environments whose secrets you may read count, with the values that they had before;
    deleted ones do not. A value is found as it is, indented or broken into other lines, as
    base64 (alone or within a longer text), URL-encoded, in UTF-16, and with the escapes of JSON,
    HTML and shells. It is shown where it stands and whose it is, never the value.

    With --history every object of the git repository around PATH is searched, also those that
    no branch reaches any more. Links are not followed; .git is passed over, and of binary files
    and those above --max-size all but the name. Values that are short or common are not looked
    for.

    The exit code is 9 if something was found, 0 if not, 7 if files could not be read.
    """,
    examples=(
        ("envctl scan", "this directory"),
        ("envctl scan . --history", "and all that git has of it"),
        ("git diff --cached | envctl scan -", "before a commit"),
    ),
    run=_scan,
    flags=(
        Flag("--history", "search the objects of the git repository too"),
        Flag("--current", "only the values of now, not older ones"),
        Flag("--binary", "search binary files too"),
        Flag("--max-size", f"pass over files that are larger (default {_MAX_MIB})", "MIB"),
    ),
)
