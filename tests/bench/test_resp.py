"""Redis's protocol as the comparison speaks it: golden bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest

from bench.payload import NotReady
from bench.resp import RedisClient, Reply, command, reply


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


async def answering(replies: Mapping[bytes, bytes]) -> tuple[asyncio.Server, RedisClient]:
    """A server that answers commands by their first word, and a client of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(EOFError):
            while True:
                words = await reply(reader)
                assert isinstance(words, list)
                assert isinstance(words[0], bytes)
                writer.write(replies[words[0]])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, RedisClient(server.sockets[0].getsockname()[1])


def settings(appendfsync: str) -> bytes:
    pairs = ("appendonly", "yes", "appendfsync", appendfsync)
    return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(one), one.encode()) for one in pairs)


async def test_a_redis_that_loads_its_data_is_not_ready() -> None:
    server, client = await answering({b"PING": b"-LOADING Redis is loading the dataset\r\n"})

    with pytest.raises(NotReady):
        await client.answers()

    await client.close()
    server.close()


@pytest.mark.parametrize(("appendfsync", "equal"), [("always", True), ("everysec", False)])
async def test_a_redis_that_does_not_sync_each_write_is_refused(
    appendfsync: str, equal: bool
) -> None:
    server, client = await answering({b"PING": b"+PONG\r\n", b"CONFIG": settings(appendfsync)})

    if equal:
        await client.answers()
    else:
        with pytest.raises(RuntimeError, match="does not sync"):
            await client.answers()

    await client.close()
    server.close()


async def test_the_line_of_one_command_is_found_in_its_statistics() -> None:
    said = b"# Commandstats\r\ncmdstat_hset:calls=3,usec=9\r\ncmdstat_hget:calls=1,usec=2\r\n"
    server, client = await answering({b"INFO": b"$%d\r\n%b\r\n" % (len(said), said)})

    assert await client.stats("hget") == "cmdstat_hget:calls=1,usec=2"
    assert await client.stats("hdel") == ""

    await client.close()
    server.close()
