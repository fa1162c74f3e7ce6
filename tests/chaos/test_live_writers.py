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
from chaos.live.workload import Records, Writer, environments
from envd.core.answers import WriteAnswer

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


def test_whole_lines_of_a_log_are_told_as_events(tmp_path: Path) -> None:
    place = Place("n1", "127.0.0.1", "127.0.0.1", 1, 2, 3)
    node = LiveNode(place, tmp_path, tmp_path / "n1.log", tmp_path / "secret")
    lines = [json.dumps({"event": name}) for name in ("node.ready", "peer.connected")]
    node.log.write_text("\n".join([*lines, "no event", '{"event": "cut o']))

    assert [event["event"] for event in node.events()] == ["node.ready", "peer.connected"]
    assert len(node.events("node.ready")) == 1
    assert node.events("node.stopped") == []
    assert "no event" in node.last_lines(2)
