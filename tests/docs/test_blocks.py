"""Every block of Python and shell in README.md and docs/ does what a reader would do with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, Reader, blocks, commands, pages

FOUND = {page: list(blocks(page, (ROOT / page).read_text())) for page in pages()}
RUN = {page: [block for block in found if not block.reason] for page, found in FOUND.items()}
NOT_RUN = [block for found in FOUND.values() for block in found if block.reason]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("page", [page for page, found in RUN.items() if found])
def test_the_blocks_of_a_page_work_in_order(page: str, reader: Reader) -> None:
    for block in RUN[page]:
        reader.run(block)


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    pytest.skip(f"{block} is not run: {block.reason}")


def test_blocks_are_found_with_their_marks() -> None:
    page = """
```python
a = 1
```
<!-- not run: it never ends -->

```sh
run
```
```json
{}
```
```console
$ first \\
  still first
output
$ second
```
"""
    found = list(blocks("x.md", page))

    assert [(block.language, block.line, block.reason) for block in found] == [
        ("python", 2, ""),
        ("sh", 7, "it never ends"),
        ("console", 13, ""),
    ]
    assert commands(found[2].text) == "first \\\n  still first\nsecond"


def test_a_block_that_fails_is_told_with_its_place_and_output(reader: Reader) -> None:
    for language, text in (("sh", "echo said; false"), ("python", "raise ValueError('said')")):
        with pytest.raises(AssertionError, match=r"(?s)x\.md:7 ended with 1:.*said"):
            reader.run(Block("x.md", 7, language, text))
