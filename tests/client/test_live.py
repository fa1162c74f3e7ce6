"""Live environments against a real server: current, in order, resumed, and started offline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import envd
from envd.client import snapshot
from envd.client.keeping import REFRESH_MS, Keeper, Place
from envd.client.live import LiveEnvironment
from envd.client.picking import RoundRobin, Server
from envd.client.servers import World
from envd.core.answers import EnvironmentView
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    SnapshotError,
    Unauthenticated,
    Unavailable,
)
from envd.core.requests import Consistency, DeleteRequest, Put, WriteRequest
from tests.client.watches import HEARTBEAT, SNAPSHOT_END, Script, snapshot_of, watched
from tests.client.world import client_of, next_of, options, serving, unused_port
from tests.net.world import ADMIN, CANARY, PATIENCE_S, READER_TOKEN, TOKEN, Node, Rpc, until


async def test_it_shows_what_is_there_and_then_each_change(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="1", DB_SECRET=CANARY)
    env = await client.environment("web/prod")
    assert dict(env) == {"A": "1", "DB_SECRET": CANARY}
    assert (env.connected, env.stale, env.age_s, env.error) == (True, False, 0.0, None)
    assert env.is_secret("DB_SECRET")
    changes = env.changes()

    revision = await node.put("web/prod", A="2", B="3")
    change = await next_of(changes)

    assert (env["A"], env["B"]) == ("2", "3")
    assert env.revision == change.revision == revision
    assert change.names == {"A", "B"}
    assert (change.environment, change.source, change.actor) == ("web/prod", "web/prod", "admin")
    assert (change.commits, change.caught_up, change.deleted) == (1, False, False)


async def test_changes_come_all_and_in_order(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", N="-1")
    env = await client.environment("web/prod")
    changes = env.changes()

    revisions = [await node.put("web/prod", N=str(number)) for number in range(500)]
    seen = [await next_of(changes) for _ in revisions]

    assert [change.revision for change in seen] == revisions
    assert env["N"] == "499"


async def test_a_reader_that_is_too_slow_gets_them_merged(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="0")
    env = await client.environment("web/prod")
    quick, changes = env.changes(), env.changes(limit=2)

    for number in range(10):
        await node.put("web/prod", **{f"V{number}": "x"})
    for _ in range(10):
        await next_of(quick)
    first, second = await next_of(changes), await next_of(changes)

    assert first.names == {"V0"}
    assert second.names == {f"V{number}" for number in range(1, 10)}
    assert (first.commits, second.commits) == (1, 9)


async def test_what_is_below_it_is_not_its_own(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="1")
    await node.put("web/prod/eu", A="other")
    env = await client.environment("web/prod")
    changes = env.changes()

    await node.put("web/prod/eu", A="another")
    await node.put("web/prod", A="2")

    assert (await next_of(changes)).environment == "web/prod"
    assert env["A"] == "2"


async def test_it_has_the_variables_of_what_it_extends(client: envd.Client, node: Node) -> None:
    await node.put("base", A="base", B="base")
    await node.put("web/prod", B="own")
    extends = Put("extends", "base", kind=Kind.METADATA)
    await node.api.write(ADMIN, WriteRequest("web/prod", (extends,)))
    env = await client.environment("web/prod")
    own = await client.environment("web/prod", resolve=False)
    assert dict(env) == {"A": "base", "B": "own"}
    assert dict(own) == {"B": "own"}
    assert (env.source("A"), env.source("B"), list(env.bases)) == ("base", "web/prod", ["base"])
    changes = env.changes()

    await node.put("base", A="newer")
    change = await next_of(changes)

    assert env["A"] == "newer"
    assert (change.environment, change.source, change.names) == (
        "web/prod",
        "base",
        frozenset("A"),
    )


async def test_where_a_base_is_gone_the_last_whole_state_stays(
    client: envd.Client, node: Node
) -> None:
    await node.put("base", A="base")
    await node.put("web/prod", B="own")
    extends = Put("extends", "base", kind=Kind.METADATA)
    await node.api.write(ADMIN, WriteRequest("web/prod", (extends,)))
    env = await client.environment("web/prod")
    changes = env.changes()

    await node.api.delete(ADMIN, DeleteRequest("base"))
    await next_of(changes)
    assert dict(env) == {"A": "base", "B": "own"}
    assert env.stale
    assert env.connected
    assert isinstance(env.error, Conflict)

    await node.put("base", A="back")
    await next_of(changes)
    assert env["A"] == "back"
    assert not env.stale


async def test_a_deleted_environment_has_no_variables(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="1")
    env = await client.environment("web/prod")
    changes = env.changes()

    await node.api.delete(ADMIN, DeleteRequest("web/prod"))

    assert (await next_of(changes)).deleted
    assert (env.exists, len(env), env.revision) == (False, 0, "")
    with pytest.raises(envd.VariableMissing, match="web/prod does not exist"):
        env["A"]


async def test_one_that_does_not_exist_is_an_error_unless_it_may_come(
    client: envd.Client, node: Node
) -> None:
    with pytest.raises(NotFound, match="web/prod does not exist"):
        await client.environment("web/prod")
    env = await client.environment("web/prod", must_exist=False)
    assert not env.exists

    await node.put("web/prod", A="1")
    await env.wait_for(lambda now: now.get("A") == "1", timeout_s=PATIENCE_S)


async def test_without_the_right_to_reveal_secrets_are_masked(rpc: Rpc) -> None:
    await rpc.node.put("web/prod", A="1", DB_SECRET=CANARY)
    async with client_of(rpc, token=READER_TOKEN) as client:
        env = await client.environment("web/prod")

        assert dict(env) == {"A": "1"}
        with pytest.raises(envd.VariableMasked) as caught:
            env["DB_SECRET"]

    assert "reveal" in caught.value.hint


async def test_without_a_credential_it_says_so_at_once(rpc: Rpc) -> None:
    async with client_of(rpc, token="wrong") as client:
        with pytest.raises(Unauthenticated):
            await client.environment("web/prod")


async def test_callbacks_are_called_in_order_and_may_fail(
    client: envd.Client, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await node.put("web/prod", N="0")
    env = await client.environment("web/prod")
    seen: list[str] = []

    async def note(change: envd.Change) -> None:
        await asyncio.sleep(0)
        seen.append(change.revision)
        if len(seen) == 1:
            raise RuntimeError(CANARY)

    stop = env.on_change(note)
    with caplog.at_level(logging.ERROR):
        revisions = [await node.put("web/prod", N=str(number)) for number in range(1, 4)]
        await until(lambda: len(seen) == 3)
    stop()
    await node.put("web/prod", N="9")
    await env.wait_for(lambda now: now["N"] == "9", timeout_s=PATIENCE_S)

    assert seen == revisions
    assert "callback.failed environment=web/prod error=RuntimeError" in caplog.text
    assert CANARY not in caplog.text


async def test_waiting_for_a_revision_ends_when_it_is_shown(
    client: envd.Client, node: Node
) -> None:
    await node.put("web/prod", A="1")
    env = await client.environment("web/prod")

    answer = await client.set("web/prod", {"A": "2"})
    await env.wait_for(revision=answer.revision, timeout_s=PATIENCE_S)

    assert env["A"] == "2"
    with pytest.raises(TimeoutError):
        await env.wait_for(revision="f" * 32, timeout_s=0)


async def test_the_same_environment_is_followed_once(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="1")

    first, second = await asyncio.gather(
        client.environment("web/prod"), client.environment("web/prod")
    )

    assert first is second
    assert node.hub.open_watches == 1
    await first.close()
    await until(lambda: node.hub.open_watches == 0)
    assert await client.environment("web/prod") is not first


async def test_closing_ends_readers_and_keeps_the_last_state(rpc: Rpc) -> None:
    await rpc.node.put("web/prod", A="1")
    client = client_of(rpc)
    env = await client.environment("web/prod")
    reader = asyncio.create_task(_all(env))
    await asyncio.sleep(0)

    await client.close()
    await client.close()

    assert await reader == 0
    assert env["A"] == "1"
    assert env.stale
    with pytest.raises(InvalidRequest, match="closed"):
        await client.environment("web/prod")
    await until(lambda: rpc.node.hub.open_watches == 0)


async def _all(env: LiveEnvironment) -> int:
    return len([change async for change in env.changes()])


# -- over restarts -----------------------------------------------------------------


async def test_it_goes_on_where_it_was_after_the_server_was_away(node: Node) -> None:
    await node.put("web/prod", N="0")
    async with serving(node) as address:
        client = envd.Client(options([address]))
        env = await client.environment("web/prod")
        changes = env.changes()
        revisions = [await node.put("web/prod", N="1")]
        await next_of(changes)
    await until(lambda: env.stale)
    revisions += [await node.put("web/prod", N=str(number)) for number in range(2, 5)]

    async with serving(node, address):
        seen = [await next_of(changes) for _ in range(3)]
        await client.close()

    assert env["N"] == "4"
    assert [change.revision for change in seen] == revisions[1:]
    assert not any(change.caught_up for change in seen)


async def test_another_node_tells_the_state_anew_and_the_difference_is_a_change() -> None:
    other = Node()
    await other.put("web/prod", A="1", B="other")
    async with serving(other) as second:
        node = Node()
        await node.put("web/prod", A="1", B="here")
        await node.put("web/prod", C="here")  # so its token is ahead of the other node
        async with serving(node) as first:
            client = envd.Client(options([first, second]))
            env = await client.environment("web/prod")
            changes = env.changes()
            assert env["B"] == "here"

        change = await next_of(changes)
        await client.close()

    assert dict(env) == {"A": "1", "B": "other"}
    assert change.caught_up
    assert change.names == {"B", "C"}


# -- offline -----------------------------------------------------------------------


async def test_it_starts_from_its_snapshot_and_catches_up(node: Node, tmp_path: Path) -> None:
    await node.put("web/prod", A="1", DB_SECRET=CANARY)
    clock_ms = 1_700_000_000_000
    async with serving(node) as address, envd.Client(options([address], tmp_path)) as client:
        await client.environment("web/prod")
    await node.put("web/prod", A="2")

    later = options([address], tmp_path, wall_ms=lambda: clock_ms + 60_000)
    async with envd.Client(later) as client:
        env = await client.environment("web/prod")
        assert dict(env) == {"A": "1", "DB_SECRET": CANARY}
        assert 60 <= env.age_s < 60 + PATIENCE_S
        changes = env.changes()

        async with serving(node, address):
            change = await next_of(changes)

            assert env["A"] == "2"
            assert env.connected
            assert (change.caught_up, change.names) == (True, frozenset("A"))


async def test_every_change_reaches_the_snapshot(node: Node, tmp_path: Path) -> None:
    await node.put("web/prod", A="1")
    async with serving(node) as address:
        async with envd.Client(options([address], tmp_path)) as client:
            env = await client.environment("web/prod")
            await node.put("web/prod", A="2")
            await env.wait_for(lambda now: now["A"] == "2", timeout_s=PATIENCE_S)

        kept = snapshot.load(tmp_path, address, "web/prod", token=TOKEN, now_ms=1_700_000_000_000)
        assert kept.state.variables["A"].value == "2"

        async with envd.Client(options([address], tmp_path)) as client:
            env = await client.environment("web/prod")
            await node.api.delete(ADMIN, DeleteRequest("web/prod"))
            await env.wait_for(lambda now: not now.exists, timeout_s=PATIENCE_S)

    assert refused(tmp_path, address) == "SNAPSHOT_MISSING"


async def test_a_node_that_is_silent_about_changes_keeps_the_snapshot_fresh(
    tmp_path: Path,
) -> None:
    node = Node(heartbeat_s=0)
    await node.put("web/prod", A="1")
    now_ms = 1_700_000_000_000
    async with (
        serving(node) as address,
        envd.Client(options([address], tmp_path, wall_ms=lambda: now_ms)) as client,
    ):
        await client.environment("web/prod")
        await until(lambda: age_ms(tmp_path, address, now_ms) == 0)
        now_ms += REFRESH_MS
        await until(lambda: age_ms(tmp_path, address, now_ms) == 0)


def age_ms(folder: Path, address: str, now_ms: int) -> float:
    try:
        kept = snapshot.load(folder, address, "web/prod", token=TOKEN, now_ms=now_ms)
    except SnapshotError:
        return -1
    return kept.age_s(now_ms) * 1000


def refused(folder: Path, address: str) -> str:
    with pytest.raises(SnapshotError) as caught:
        snapshot.load(folder, address, "web/prod", token=TOKEN, now_ms=1_700_000_000_000)
    return caught.value.reason


async def test_without_a_node_and_a_snapshot_it_says_why(tmp_path: Path) -> None:
    address = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([address], tmp_path, attempts=2)) as client:
        with pytest.raises(Unavailable, match="no envd answers") as caught:
            await client.environment("web/prod")

    assert "there is no snapshot of web/prod" in caught.value.hint
    async with envd.Client(options([address], attempts=2)) as client:
        with pytest.raises(Unavailable):
            await client.environment("web/prod")


async def test_a_renewed_token_opens_the_snapshots(node: Node, tmp_path: Path) -> None:
    await node.put("web/prod", A="1")
    async with serving(node) as address:
        async with envd.Client(options([address], tmp_path)) as client:
            await client.environment("web/prod")
        async with envd.Client(options([address], tmp_path)) as client:
            await client.use_token("renewed-0123456789-0123456789-012345")

    renewed = options([address], tmp_path, token="renewed-0123456789-0123456789-012345")
    async with envd.Client(renewed) as client:
        assert (await client.environment("web/prod"))["A"] == "1"


async def test_a_snapshot_that_cannot_be_written_harms_nothing(
    client: envd.Client, rpc: Rpc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await rpc.node.put("web/prod", A=CANARY)
    (tmp_path / "file").write_text("")
    async with client_of(rpc, tmp_path / "file" / "below") as other:
        env = await other.environment("web/prod")

        assert env["A"] == CANARY

    assert "snapshot.failed environment=web/prod" in caplog.text
    assert CANARY not in caplog.text


# -- what goes wrong on the way ----------------------------------------------------


async def test_a_node_without_room_for_a_watch_is_left_for_another() -> None:
    full, other = Node(max_watches=0), Node()
    await full.put("web/prod", A="full")
    await other.put("web/prod", A="other")
    async with (
        serving(full) as first,
        serving(other) as second,
        envd.Client(options([first, second], attempts=3)) as client,
    ):
        env = await client.environment("web/prod", timeout_s=PATIENCE_S)

        assert env["A"] == "other"


async def test_a_watch_that_ends_again_and_again_is_asked_for_with_waits() -> None:
    waits: list[float] = []

    async def note(wait_s: float) -> None:
        waits.append(wait_s)
        await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(watched(Script([HEARTBEAT]))) for _ in range(3)
        ]
        client = await stack.enter_async_context(envd.Client(options(addresses, sleep=note)))
        following = asyncio.create_task(client.environment("web/prod"))
        await until(lambda: len(waits) >= 5)
        following.cancel()


async def test_a_state_that_was_told_by_half_is_forgotten_with_its_connection() -> None:
    told = Script([snapshot_of(A="1")], [SNAPSHOT_END])
    async with watched(told) as address, envd.Client(options([address])) as client:
        env = await client.environment("web/prod", must_exist=False)

        assert not env.exists


async def test_what_no_envd_says_is_an_error_and_no_silence() -> None:
    async with (
        watched(Script([b"\xff\xff\xff"])) as address,
        envd.Client(options([address], attempts=2)) as client,
    ):
        with pytest.raises(Unavailable, match="is no envd"):
            await client.environment("web/prod")


async def test_a_right_that_comes_shows_what_was_masked_and_one_that_goes_masks_it() -> None:
    script = Script(
        [snapshot_of(A="1", KEY=None), SNAPSHOT_END],
        [snapshot_of(A="1", KEY=CANARY), SNAPSHOT_END],
        [snapshot_of(A="1", KEY=None), SNAPSHOT_END],
        refuses_to_reveal={0, 2},
    )
    async with watched(script) as address, envd.Client(options([address])) as client:
        env = await client.environment("web/prod")
        assert dict(env) == {"A": "1"}

        script.go_on()
        await env.wait_for(lambda now: now.get("KEY") == CANARY, timeout_s=PATIENCE_S)
        script.go_on()
        await env.wait_for(lambda now: "KEY" not in now, timeout_s=PATIENCE_S)

    assert [request.token for request in script.accepted] == [""] * 3


async def test_what_was_hidden_while_a_base_was_gone_is_told_when_it_is_back(
    client: envd.Client, node: Node
) -> None:
    await node.put("base", A="base", GONE="base")
    await node.put("web/prod", B="own")
    extends = Put("extends", "base", kind=Kind.METADATA)
    await node.api.write(ADMIN, WriteRequest("web/prod", (extends,)))
    env = await client.environment("web/prod")
    changes = env.changes()
    await node.api.delete(ADMIN, DeleteRequest("base"))
    await next_of(changes)
    await node.put("web/prod", B="newer")
    assert (await next_of(changes)).names == {"B"}
    assert env["B"] == "own"

    await node.put("base", A="back")
    change = await next_of(changes)

    assert dict(env) == {"A": "back", "B": "newer"}
    assert change.names == {"A", "B", "GONE"}


class Clocked:
    """A keeper with a wall clock that is set, which tells when it has written and rests."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_700_000_000_000
        self.rests = asyncio.Event()
        world = World(time.monotonic, lambda: self.now_ms, self._rest)
        self.keeper = Keeper(Place(folder, "a:1", lambda: TOKEN), "web/prod", world)

    async def _rest(self, _: float) -> None:
        self.rests.set()
        await asyncio.Event().wait()


WHOLE = EnvironmentView("web/prod", "ab", "00", {}, {}, Consistency.EVENTUAL, 0)


async def test_a_state_that_no_node_vouches_for_is_not_kept_fresh(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path)
    clocked.keeper.keep(WHOLE)
    await clocked.rests.wait()

    clocked.keeper.keep(replace(WHOLE, unresolved="its base is gone"))
    clocked.now_ms += REFRESH_MS
    clocked.keeper.still_so()
    clocked.keeper.again()
    await clocked.keeper.close()

    assert age_ms(tmp_path, "a:1", clocked.now_ms) == REFRESH_MS


async def test_a_clock_that_went_back_has_the_snapshot_written_again(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path)
    clocked.keeper.keep(WHOLE)
    await clocked.rests.wait()

    clocked.now_ms -= REFRESH_MS
    clocked.keeper.still_so()
    await clocked.keeper.close()

    assert age_ms(tmp_path, "a:1", clocked.now_ms) == 0


async def test_one_caller_that_waits_no_longer_does_not_end_it_for_the_others() -> None:
    script = Script([])
    async with watched(script) as address, envd.Client(options([address])) as client:
        patient = asyncio.create_task(client.environment("web/prod", must_exist=False))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await client.environment("web/prod", must_exist=False, timeout_s=0)
        script.tell(SNAPSHOT_END)

        assert not (await patient).exists


async def test_one_that_nobody_waits_for_any_more_begins_anew(node: Node) -> None:
    await node.put("web/prod", A="1")
    address = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([address], attempts=10**9)) as client:
        first = asyncio.create_task(client.environment("web/prod"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert client._following._followed == {}

        async with serving(node, address):
            assert (await client.environment("web/prod"))["A"] == "1"


async def test_an_old_one_that_is_closed_again_leaves_the_new_one_alone(
    client: envd.Client, node: Node
) -> None:
    await node.put("web/prod", A="1")
    old = await client.environment("web/prod")
    await old.close()
    new = await client.environment("web/prod")

    await old.close()

    assert new.connected
    assert await client.environment("web/prod") is new


async def test_changes_of_one_that_is_closed_end_at_once(client: envd.Client, node: Node) -> None:
    await node.put("web/prod", A="1")
    env = await client.environment("web/prod")
    await env.close()

    async with asyncio.timeout(PATIENCE_S):
        assert await _all(env) == 0
        with pytest.raises(InvalidRequest, match="closed"):
            await env.wait_for(revision="f" * 32)


async def test_a_callback_may_be_given_twice_and_may_close_what_calls_it(
    client: envd.Client, node: Node
) -> None:
    await node.put("web/prod", A="1")
    env = await client.environment("web/prod")
    seen: list[str] = []

    async def note(change: envd.Change) -> None:
        seen.append(change.revision)

    async def close(_: envd.Change) -> None:
        await client.close()
        seen.append("closed")

    env.on_change(note)
    env.on_change(note)
    await node.put("web/prod", A="2")
    await until(lambda: len(seen) == 2)
    env.on_change(close)
    await node.put("web/prod", A="3")
    await until(lambda: "closed" in seen)

    assert not env.connected
    await until(lambda: node.hub.open_watches == 0)


@pytest.mark.parametrize("name", ["", 5, None, "web/\udc80"])
async def test_what_is_no_name_is_refused_at_once(client: envd.Client, name: Any) -> None:
    with pytest.raises(InvalidRequest):
        await client.environment(name)


async def test_an_error_of_the_client_itself_is_told_and_hangs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(RoundRobin):
        def pick(self, servers: Sequence[Server], calls: Callable[[str], int]) -> Server:
            raise RuntimeError(CANARY)

    async with envd.Client(replace(options(["127.0.0.1:1"]), picker=Broken())) as client:
        with pytest.raises(envd.EnvdError, match="the watch failed"):
            await client.environment("web/prod")

    assert "watch.failed environment=web/prod error=RuntimeError" in caplog.text
    assert CANARY not in caplog.text
