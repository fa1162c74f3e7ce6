"""What the logs of sixteen processes say of each other, and how the two kinds compare."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.gossipers import KINDS, Lines, Told, envd_said, serf_said
from bench.membership import ROWS, table, verdicts
from bench.servers import Missing


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"event": "member.down", "member": "n3", "uid": "07"}', ("n3", Told.DOWN)),
        ('{"event": "member.alive", "member": "n2"}', ("n2", Told.ALIVE)),
        ('{"event": "member.left", "member": "n2"}', ("n2", Told.LEFT)),
        ('{"event": "member.suspect", "member": "n2"}', None),
        ('{"event": "node.ready", "detail": "member.down"}', None),
        ("member.down n3", None),
    ],
)
def test_a_line_of_envd_tells_of_a_member(line: str, said: tuple[str, Told] | None) -> None:
    assert envd_said(line) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2026/01/02 03:04:05 [INFO] serf: EventMemberFailed: n3 127.0.0.1", ("n3", Told.DOWN)),
        ("2026/01/02 03:04:05 [INFO] serf: EventMemberJoin: n2 127.0.0.1", ("n2", Told.ALIVE)),
        ("2026/01/02 03:04:05 [INFO] serf: EventMemberLeave: n2 127.0.0.1", ("n2", Told.LEFT)),
        ("2026/01/02 03:04:05 [INFO] memberlist: Suspect n3 has failed, no acks received", None),
    ],
)
def test_a_line_of_serf_tells_of_a_member(line: str, said: tuple[str, Told] | None) -> None:
    assert serf_said(line) == said


class Ticking:
    """A clock that goes on by one second each time it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def failed(name: str) -> bytes:
    return b"serf: EventMemberFailed: %s 127.0.0.1\n" % name.encode()


def test_news_are_what_each_said_first_and_a_torn_line_is_put_together(tmp_path: Path) -> None:
    lines = Lines(Ticking())
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as pipe:
        lines.add(pipe, "n1", serf_said, tmp_path / "n1.log")
        os.write(write, failed("n3") + failed("n4")[:9])
        lines.listen(2)
        os.write(write, failed("n4")[9:] + failed("n3"))
        lines.listen(2)
        os.close(write)
        lines.listen(2)
        lines.close()

    assert lines.known("n1", Told.DOWN) == {"n3", "n4"}
    assert lines.first("n3", Told.DOWN)["n1"] < lines.first("n4", Told.DOWN)["n1"]
    assert lines.known("n1", Told.ALIVE) == set()
    assert (tmp_path / "n1.log").read_bytes() == failed("n3") + failed("n4") + failed("n3")


def test_what_was_forgotten_does_not_count(tmp_path: Path) -> None:
    lines = Lines(Ticking())
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as pipe:
        lines.add(pipe, "n1", serf_said, tmp_path / "n1.log")
        os.write(write, failed("n3"))
        os.close(write)
        lines.listen(2)
        lines.forget()
        lines.close()

    assert lines.first("n3", Told.DOWN) == {}


def test_members_have_names_and_places_of_their_own(tmp_path: Path) -> None:
    members = KINDS["envd"](tmp_path / "envd", 16)

    assert len({member.name for member in members}) == 16
    for flags in (("--listen", "--http"), ("--gossip",)):  # TCP; UDP, whose ports are others
        places = [member.command[member.command.index(f) + 1] for member in members for f in flags]
        assert len(set(places)) == len(flags) * 16
    seed = members[0].command[members[0].command.index("--gossip") + 1]
    assert all(member.command[member.command.index("--join") + 1] == seed for member in members[1:])


def test_a_serf_that_is_not_here_is_named_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Missing, match="apt-get install serf"):
        KINDS["serf"](tmp_path / "serf", 3)


def test_both_are_shown_side_by_side_with_what_is_lacking() -> None:
    found = {"envd": {"detected, first": [3.0, 1.0, 2.0]}, "serf": {"detected, first": [4.0]}}

    said = table(found).splitlines()

    line = next(line for line in said if line.startswith("detected, first"))
    assert line.split("  ")[0] == "detected, first"
    assert "2.00 (1.00 - 3.00)" in line
    assert "4.00" in line
    assert len(said) == len(ROWS) + 1
    assert next(line for line in said if line.startswith("left")).count("NOT RUN") == 2


@pytest.mark.parametrize(("ours", "word"), [(4.0, "met"), (4.04, "met"), (4.1, "MISSED")])
def test_envd_should_do_no_worse_but_for_what_is_chance(ours: float, word: str) -> None:
    found = {"envd": {"detected, first": [ours]}, "serf": {"detected, first": [4.0]}}

    assert verdicts(found) == [f"detected, first: no worse than serf: {word}"]


def test_without_serf_nothing_is_judged() -> None:
    assert verdicts({"envd": {"detected, first": [1.0]}}) == []
