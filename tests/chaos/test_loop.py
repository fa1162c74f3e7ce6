"""The virtual-time loop: time jumps, order is fixed, nothing leaves, nothing fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest

from chaos.sim.loop import NotSimulated, Process, RunFailed, SimLoop, current_process


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    made = SimLoop()
    yield made
    made.close()


def test_a_day_passes_at_once(loop: SimLoop) -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return loop.time()

    ended = loop.simulate(main())

    assert ended == 1000.0 + 86_400


def test_timers_of_one_moment_run_in_the_order_they_were_set(loop: SimLoop) -> None:
    ran: list[int] = []

    async def main() -> None:
        for number in range(50):
            loop.call_later(1.0, ran.append, number)
        await asyncio.sleep(2)

    loop.simulate(main())

    assert ran == list(range(50))


def test_a_cancelled_timer_does_not_run(loop: SimLoop) -> None:
    ran: list[str] = []

    async def main() -> None:
        loop.call_later(1.0, ran.append, "kept")
        loop.call_later(1.0, ran.append, "cancelled").cancel()
        await asyncio.sleep(2)

    loop.simulate(main())

    assert ran == ["kept"]


def test_tasks_and_futures_hash_to_their_number_and_not_to_their_address(loop: SimLoop) -> None:
    async def main() -> list[int]:
        running = asyncio.get_running_loop()
        tasks = [running.create_task(asyncio.sleep(0)) for _ in range(3)]
        futures = [running.create_future() for _ in range(3)]
        await asyncio.wait(tasks)
        return [hash(one) for one in (*tasks, *futures)]

    other = SimLoop()
    first, second = loop.simulate(main()), other.simulate(main())
    other.close()

    assert len(set(first)) == len(first)
    assert max(first) < 100
    assert first == second


def test_a_group_cancels_its_tasks_in_the_order_they_were_begun(loop: SimLoop) -> None:
    cancelled: list[int] = []

    async def wait(number: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.append(number)

    async def group_that_fails() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(wait(number))
            await asyncio.sleep(1)
            raise ValueError

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            await group_that_fails()

    loop.simulate(main())

    assert sorted(cancelled) == list(range(40))
    again: list[int] = list(cancelled)
    cancelled.clear()
    other = SimLoop()
    other.simulate(main())
    other.close()
    assert cancelled == again


async def threads() -> None:
    await asyncio.to_thread(len, "")


async def names() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def connections() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def subprocesses() -> None:
    await asyncio.get_running_loop().subprocess_exec(asyncio.SubprocessProtocol, "true")


@pytest.mark.parametrize("asked", [threads, names, connections, subprocesses])
def test_what_would_leave_the_simulation_is_refused(loop: SimLoop, asked: object) -> None:
    assert callable(asked)

    with pytest.raises(NotSimulated):
        loop.simulate(asked())


def test_a_task_that_fails_with_nobody_looking_fails_the_run(loop: SimLoop) -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        loop.create_task(fail(), name="careless")
        await asyncio.sleep(1)
        await asyncio.sleep(1)

    with pytest.raises(RunFailed, match=r"careless.*ValueError: unseen"):
        loop.simulate(main())


def test_a_callback_that_fails_fails_the_run(loop: SimLoop) -> None:
    def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        loop.call_later(1, fail)
        await asyncio.sleep(2)

    with pytest.raises(RunFailed, match="ValueError: unseen"):
        loop.simulate(main())


def test_a_run_in_which_nothing_can_happen_any_more_fails(loop: SimLoop) -> None:
    async def main() -> None:
        await loop.create_future()

    with pytest.raises(RunFailed, match="nothing is left"):
        loop.simulate(main())


def test_a_run_in_which_no_time_passes_fails(loop: SimLoop) -> None:
    async def main() -> None:
        while loop.time() < 2000:  # noqa: ASYNC110 - time stands still, that is the point
            await asyncio.sleep(0)

    with pytest.raises(RunFailed, match="no virtual time"):
        loop.simulate(main())


# -- processes ---------------------------------------------------------------------------------


class Diary:
    """What a small program did."""

    def __init__(self, loop: SimLoop) -> None:
        self.process = Process(loop, "p")
        self.ticks: list[float] = []
        self.ended: list[str] = []
        self.loop = loop

    async def tick(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.child())
                while True:
                    self.ticks.append(self.loop.time())
                    await asyncio.sleep(1)
        finally:
            self.ended.append("parent")
            await asyncio.sleep(1)
            self.ended.append("parent, later")

    async def child(self) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            self.ended.append("child")


def test_a_killed_process_does_nothing_more_and_its_children_neither(loop: SimLoop) -> None:
    diary = Diary(loop)

    async def main() -> None:
        diary.process.spawn(diary.tick())
        await asyncio.sleep(2.5)
        diary.process.kill()
        await asyncio.sleep(10)

    loop.simulate(main())

    assert diary.ticks == [1000, 1001, 1002]
    assert sorted(diary.ended) == ["child", "parent"]


def test_a_paused_process_goes_on_later_with_what_came_due(loop: SimLoop) -> None:
    diary = Diary(loop)

    async def main() -> None:
        diary.process.spawn(diary.tick())
        await asyncio.sleep(1.5)
        diary.process.pause()
        await asyncio.sleep(10)
        diary.process.resume()
        await asyncio.sleep(1.2)

    loop.simulate(main())

    assert diary.ticks == [1000, 1001, 1011.5, 1012.5]


def test_what_a_process_starts_belongs_to_it(loop: SimLoop) -> None:
    process = Process(loop, "p")
    owners: list[Process | None] = []

    async def grandchild() -> None:
        owners.append(current_process())
        loop.call_soon(lambda: owners.append(current_process()))

    async def child() -> None:
        await asyncio.create_task(grandchild())

    async def main() -> None:
        process.spawn(child())
        await asyncio.sleep(1)
        owners.append(current_process())

    loop.simulate(main())

    assert owners == [process, process, None]


def test_a_generator_that_is_dropped_is_closed_by_its_own_process(loop: SimLoop) -> None:
    process = Process(loop, "p")
    closed: list[Process | None] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(current_process())

    async def take_one() -> None:
        async for _ in numbers():
            return

    async def main() -> None:
        process.spawn(take_one())
        await asyncio.sleep(1)

    loop.simulate(main())

    assert closed == [process]


def test_who_asked_is_told_of_a_death_once(loop: SimLoop) -> None:
    process = Process(loop, "p")
    told: list[str] = []

    process.on_death(lambda: told.append("first"))
    second = lambda: told.append("second")  # noqa: E731
    process.on_death(second)
    process.forget(second)
    process.kill()
    process.kill()

    assert told == ["first"]
