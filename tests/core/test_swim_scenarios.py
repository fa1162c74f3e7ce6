"""Membership as scripts: `scenarios/*.txt`; `pytest --rewrite-scenarios` accepts what is said now.

A script is commands (see `swim_world`), each followed by `----`, what is said, and an empty line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.swim_world import World

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
_RULE = "----"


def steps(script: str) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """The comments and empty lines before each group of commands, these, and what is expected."""
    lines = iter([*script.splitlines(), None])
    before: list[str] = []
    commands: list[str] = []
    for line in lines:
        if line is None:
            return
        if line == _RULE:
            expected = []
            for said in lines:
                if not said:
                    break
                expected.append(said)
            yield before, commands, expected
            before, commands = [], []
        elif line.startswith("#") or not line:
            before.append(line)
        else:
            commands.append(line)


def replayed(script: str) -> str:
    """The script with what is said now."""
    world, lines = World(), []
    for before, commands, _ in steps(script):
        said = [text for command in commands if (text := world.run(command))]
        lines += [*before, *commands, _RULE, *said, ""]
    return "\n".join(lines)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_goes_as_it_is_written(path: Path, request: pytest.FixtureRequest) -> None:
    script = path.read_text("utf-8")

    now = replayed(script)

    if request.config.getoption("--rewrite-scenarios"):
        path.write_text(now, "utf-8")
    assert now.splitlines() == path.read_text("utf-8").splitlines()


def test_there_are_scenarios() -> None:
    assert SCENARIOS
