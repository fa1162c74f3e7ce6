"""Redis's protocol as the comparison speaks it: golden bytes."""

from __future__ import annotations

import asyncio

import pytest

from bench.resp import Reply, command, reply


def fed(raw: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return reader


def test_a_command_counts_its_words_and_their_bytes() -> None:
    assert command("HGET", "é", "") == b"*3\r\n$4\r\nHGET\r\n$2\r\n\xc3\xa9\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "meaning"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b":20\r\n", 20),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"$-1\r\n", None),
        (b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n", [b"0", [b"a"]]),
    ],
)
async def test_a_reply_is_read_to_its_end(raw: bytes, meaning: Reply) -> None:
    reader = fed(raw + b":1\r\n")

    assert await reply(reader) == meaning
    assert await reply(reader) == 1


async def test_an_error_reply_is_raised_with_its_text() -> None:
    with pytest.raises(RuntimeError, match="WRONGTYPE"):
        await reply(fed(b"-WRONGTYPE no hash\r\n"))


async def test_the_end_of_the_stream_is_not_a_reply() -> None:
    with pytest.raises(EOFError):
        await reply(fed(b"$4\r\nab"))
