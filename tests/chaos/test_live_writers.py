"""The writers of live chaos keep every answer, and tell a refusal from a failure."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, cast

import envd
from chaos.live.places import Place
from chaos.live.processes import LiveNode
from chaos.live.workload import (
    Acknowledged,
    Reader,
    Records,
    SerialWriter,
    Writer,
    environments,
)
from envd.core.answers import EnvironmentView, WriteAnswer

WRITES = 200


class FakeClient:
    """Answers each call, or raises what it is told to; ends the writer after so many."""

    def __init__(self, *errors: envd.EnvdError | None) -> None:
        self.errors = errors
        self.calls: list[tuple[str, str]] = []
        self.writer: Writer | None = None

    async def _call(self, kind: str, name: str) -> WriteAnswer:
        self.calls.append((kind, name))
        if len(self.calls) == WRITES and self.writer is not None:
            self.writer.finish()
        error = self.errors[len(self.calls) % len(self.errors)] if self.errors else None
        if error is not None:
            raise error
        return WriteAnswer(name, "r", f"{len(self.calls):040x}", "t", 2, detached=True)

    async def set(self, name: str, _values: dict[str, str]) -> WriteAnswer:
        return await self._call("set", name)

    async def unset(self, name: str, _key: str) -> WriteAnswer:
        return await self._call("unset", name)

    async def rollback(self, name: str, _to: str) -> WriteAnswer:
        return await self._call("rollback", name)

    async def delete(self, name: str) -> WriteAnswer:
        return await self._call("delete", name)


async def written(client: FakeClient, seed: int = 1) -> Records:
    """What a writer recorded of WRITES writes."""
    records = Records()
    client.writer = Writer(
        "n1",
        cast(Any, client),
        records,
        random.Random(seed),
        environments(4),
        pause_s=0.0,
    )
    async with asyncio.timeout(20):
        await client.writer.run()
    return records


async def test_every_answer_is_kept_as_it_was_given() -> None:
    client = FakeClient()

    records = await written(client)

    assert [(each.kind, each.environment) for each in records.acknowledged] == client.calls
    assert {each.kind for each in records.acknowledged} == {"set", "unset", "rollback", "delete"}
    assert all(each.copies == 2 and each.detached for each in records.acknowledged)
    assert not records.failed


async def test_what_the_state_does_not_admit_is_no_failure() -> None:
    records = await written(FakeClient(None, envd.NotFound("absent")))

    assert len(records.acknowledged) == WRITES / 2
    assert records.not_admitted.total() == WRITES / 2
    assert not records.failed


async def test_an_error_is_kept_with_its_kind_and_reason() -> None:
    class Lost(envd.OutcomeUnknown):
        """One of the client's own, as a program never names it."""

    records = await written(FakeClient(Lost("broken"), envd.Unavailable("no", reason="NO_DAEMON")))

    reasons = {reason for _, reason in records.reasons()}
    assert {"set: OutcomeUnknown/OUTCOME_UNKNOWN", "set: Unavailable/NO_DAEMON"} <= reasons
    assert sum(records.reasons().values()) == WRITES


async def test_the_same_seed_writes_the_same() -> None:
    first, again, other = FakeClient(), FakeClient(), FakeClient()

    await written(first)
    await written(again)
    await written(other, seed=2)

    assert first.calls == again.calls
    assert first.calls != other.calls


class FakeReads:
    """Answers reads with this stamp, or raises what it is told to; ends the reader after some."""

    def __init__(self, stamp: str, error: envd.EnvdError | None = None) -> None:
        self.stamp = stamp
        self.error = error
        self.tokens: list[str] = []
        self.reader: Reader | None = None

    async def get(self, name: str, *, token: str) -> EnvironmentView:
        self.tokens.append(token)
        if len(self.tokens) == WRITES and self.reader is not None:
            self.reader.finish()
        if self.error is not None:
            raise self.error
        return EnvironmentView(name, "r", self.stamp, {}, {})


async def have_read(client: FakeReads) -> Records:
    """What a reader recorded of WRITES reads, after one write with the stamp 5."""
    records = Records()
    written = Acknowledged("n1", "set", "a/b", "5", 2, False, 0.0, 0.1, "token")
    records.acknowledged.append(written)
    client.reader = Reader(
        "reader", cast(Any, client), records, random.Random(1), environments(4), pause_s=0.0
    )
    async with asyncio.timeout(20):
        await client.reader.run()
    return records


async def test_a_read_with_the_token_of_a_write_that_shows_less_is_stale() -> None:
    fresh, old = FakeReads("5"), FakeReads("4")

    fine, stale = await have_read(fresh), await have_read(old)

    assert (fine.answered["reader"], fine.stale) == (WRITES, [])
    assert len(stale.stale) == old.tokens.count("token") > 0


async def test_a_read_of_what_is_absent_is_answered_and_a_refused_one_is_kept_as_failed() -> None:
    absent = await have_read(FakeReads("5", envd.NotFound("deleted")))
    refused = await have_read(FakeReads("5", envd.Unavailable("no", reason="NO_HOLDER")))

    assert (absent.answered["reader"], absent.failed) == (WRITES, [])
    assert refused.answered.total() == 0
    assert {each.reason for each in refused.failed} == {"Unavailable/NO_HOLDER"}
    assert {each.kind for each in refused.failed} == {"read", "session read"}


class FakeSerial:
    """Makes an environment serial and takes writes; the second one of these is refused."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.writer: SerialWriter | None = None

    async def settings(self, _name: str, settings: dict[str, str]) -> None:
        self.calls.append(f"mode {settings['mode']}")

    async def set(self, name: str, values: dict[str, str]) -> WriteAnswer:
        self.calls.append(values["COUNT"])
        if len(self.calls) == 5 and self.writer is not None:
            self.writer.finish()
        if values["COUNT"] == "2":
            raise envd.Unavailable("no majority", reason="NO_QUORUM")
        return WriteAnswer(name, "r", f"{len(self.calls):040x}", "t", 2)


async def test_a_serial_environment_is_made_once_and_what_is_refused_is_kept_as_failed() -> None:
    client, records = FakeSerial(), Records()
    client.writer = SerialWriter("serial", cast(Any, client), records, "a/b", pause_s=0.0)

    async with asyncio.timeout(20):
        await client.writer.run()

    assert client.calls == ["0", "mode serial", "1", "2", "3"]
    assert len(records.acknowledged) == 2
    assert records.reasons() == {("serial", "set: Unavailable/NO_QUORUM"): 1}


def test_whole_lines_of_a_log_are_told_as_events(tmp_path: Path) -> None:
    place = Place("n1", "127.0.0.1", "127.0.0.1", 1, 2, 3)
    node = LiveNode(place, tmp_path, tmp_path / "n1.log", tmp_path / "secret")
    lines = [json.dumps({"event": name}) for name in ("node.ready", "peer.connected")]
    node.log.write_text("\n".join([*lines, "no event", '{"event": "cut o']))

    assert [event["event"] for event in node.events()] == ["node.ready", "peer.connected"]
    assert len(node.events("node.ready")) == 1
    assert node.events("node.stopped") == []
    assert "no event" in node.last_lines(2)
