"""docs/export.md shows what is written, and names every format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envd.formats.write import OUTPUT_FORMATS, render
from tests.formats.deployed import READERS

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLES = {"DATABASE_PASSWORD": "correct horse", "LOG_LEVEL": "info"}


def shown() -> list[tuple[str, str]]:
    """What is shown of each format: the blocks after a command that names it."""
    found = []
    named = ""
    for language, text in BLOCK.findall(PAGE):
        if language == "sh":
            formats = [each for each in re.findall(r"--format ([\w-]+)", text) if each in READERS]
            named = formats[-1] if formats else named
        else:
            found.append((named, text))
    return found


@pytest.mark.parametrize(("format_name", "text"), shown())
def test_what_the_page_shows_is_what_is_written(format_name: str, text: str) -> None:
    written = render(
        VARIABLES,
        format=format_name,
        environment="web/prod",
        secret=["DATABASE_PASSWORD"],
        secrets_from="my-vault" if format_name == "azure-functions" else "",
    )

    assert text in written


def test_the_page_has_an_example_of_every_format_of_infrastructure() -> None:
    commands = "".join(text for language, text in BLOCK.findall(PAGE) if language == "sh")

    assert {name for name, _ in shown()} == READERS.keys() - {"cloudformation"}
    assert "--format cloudformation" in commands
    assert all(f"`{each}`" in PAGE for each in OUTPUT_FORMATS)
