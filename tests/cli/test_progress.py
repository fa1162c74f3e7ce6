"""How far something long is: on a terminal only, and wiped at the end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator

import pytest

from envd.cli.progress import Progress, waiting
from envd.cli.screen import Screen, columns_of
from tests.cli.bench import Envctl, Stream

WIPE = "\r\x1b[K"
PATIENCE_S = 60


class Heard(Stream):
    """A terminal that tells when something was written to it."""

    def __init__(self) -> None:
        super().__init__(terminal=True)
        self.event = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        self.event.set()
        return written


def screen(err: Stream, **environ: str) -> Screen:
    return Screen(Stream(), err, environ)


def test_progress_shows_rate_and_what_is_left_and_is_wiped() -> None:
    err = Stream(terminal=True)
    clock = map(float, itertools.count(step=2))

    with Progress(screen(err), lambda: next(clock), "reading", 1000) as progress:
        progress.advance(400)
        progress.advance(100)

    assert err.written() == (
        f"{WIPE}reading: 400 of 1,000  40%  200/s  3 s left"
        f"{WIPE}reading: 500 of 1,000  50%  125/s  4 s left"
        f"{WIPE}"
    )


def test_without_a_total_only_the_rate_is_known() -> None:
    err = Stream(terminal=True)
    clock = map(float, itertools.count(step=4))

    with Progress(screen(err), lambda: next(clock), "searching", None) as progress:
        progress.advance(2)

    assert err.written() == f"{WIPE}searching: 2  2 s each{WIPE}"


def test_what_is_quick_stays_quiet() -> None:
    err = Stream(terminal=True)
    clock = iter([0.0, 0.1, 0.4])

    with Progress(screen(err), lambda: next(clock), "reading", 10) as progress:
        progress.advance()
        progress.advance()

    assert err.written() == ""


@pytest.mark.parametrize(("terminal", "environ"), [(False, {}), (True, {"TERM": "dumb"})])
def test_nothing_is_shown_where_nobody_could_see_it(
    terminal: bool, environ: dict[str, str]
) -> None:
    err = Stream(terminal=terminal)

    with Progress(screen(err, **environ), lambda: 9.0, "reading", 10) as progress:
        progress.advance()
    with waiting(screen(err, **environ), "reading"):
        pass

    assert err.written() == ""


def test_the_line_makes_room_for_what_else_is_written() -> None:
    out, err = Stream(terminal=True), Stream(terminal=True)
    shown = Screen(out, err, {})

    shown.live("10 of 20")
    shown.line("a line")
    shown.live("11 of 20")
    shown.note("a note")

    assert out.written() == "a line\n"
    assert err.written() == f"{WIPE}10 of 20{WIPE}{WIPE}10 of 20{WIPE}11 of 20{WIPE}a note\n"


def test_the_line_stays_where_the_output_goes_elsewhere() -> None:
    out, err = Stream(), Stream(terminal=True)
    shown = Screen(out, err, {})

    shown.live("10 of 20")
    shown.line("a line")
    shown.document({}, "json")

    assert out.written() == "a line\n{}\n"
    assert err.written() == f"{WIPE}10 of 20"


def test_a_long_call_is_told_while_it_lasts() -> None:
    err = Heard()

    with waiting(screen(err), "writing 9 variables"):
        assert err.event.wait(PATIENCE_S)

    assert err.written() == f"{WIPE}writing 9 variables ...{WIPE}"


def test_who_waits_long_is_told_how_far_it_is_and_the_teller_is_let_go() -> None:
    err = Heard()
    said: list[str] = []

    def how_far() -> Generator[str, None, None]:
        try:
            yield "3 of 9"
        finally:
            said.append("closed")

    with waiting(screen(err), "applying", how_far()):
        assert err.event.wait(PATIENCE_S)

    assert err.written() == f"{WIPE}applying: 3 of 9{WIPE}"
    assert said == ["closed"]


def test_a_command_over_many_environments_has_progress(envctl: Envctl) -> None:
    for number in range(3):
        envctl.ok(f"set web/{number} A=1")

    shown = envctl.ok("find A", terminal=True)

    assert "reading environments: 2 of 3  66%" in shown.err
    assert shown.err.endswith(WIPE)
    assert envctl.ok("find A").err == ""


# -- widths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("héllo", 5), ("日本", 4), ("e\u0301", 1), ("…", 1)]
)
def test_columns_of_a_terminal(text: str, columns: int) -> None:
    assert columns_of(text) == columns


def test_tables_with_wide_characters_stay_aligned() -> None:
    out = Stream()

    Screen(out, Stream(), {}).table(("NAME", "WHAT"), [("日本", "x"), ("abcd", "y")])

    assert out.written() == "NAME  WHAT\n日本  x\nabcd  y\n"
