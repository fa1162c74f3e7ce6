"""Group 12, hygiene: a value is in no log, repr, error or trace, and nothing is left behind.

The cases write a value that nothing else has, do what a reconciler does, have everything go wrong,
and look for it in all that was said.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import logging
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Final

from envd.backends.contract import Capability, Key, Load, Op, Verb
from envd.backends.errors import BackendError
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Need
from envd.testing.trial import Trial, case, running_tasks

MARKED: Final = "hunter2-9d1f27c3-correct-horse"
"""The value that must be nowhere."""
_FORMS: Final = (
    MARKED,
    base64.b64encode(MARKED.encode()).decode().rstrip("="),
    MARKED.encode().hex(),
)
_FAULTS: Final = (
    Kind.THROTTLED,
    Kind.AUTH_EXPIRED,
    Kind.FORBIDDEN,
    Kind.UNAVAILABLE,
    Kind.RESET,
    Kind.MALFORMED,
)
_THREADS_OF_ASYNCIO: Final = "asyncio_"
"""The loop's own pool, which the loop bounds and ends."""


class _Heard(logging.Handler):
    """All records that anybody logs, as they would be written, whatever their level."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{self.format(record)} {record.__dict__!r}")


class HygieneCases:
    """Hygiene."""

    @case()
    async def test_no_value_is_in_a_repr(self, trial: Trial) -> None:
        op = trial.put_op(trial.key(), MARKED)
        outcome = await trial.one(op)
        found = await trial.item(trial.key())

        _is_nowhere([repr(each) for each in (op, outcome, found, trial.backend, trial.options)])
        _is_nowhere([repr((await trial.scan()).pages), str(outcome.error), repr(outcome.error)])

    @case()
    async def test_no_value_is_in_a_log_or_on_the_screen(self, trial: Trial) -> None:
        with _heard() as said:
            await _write_and_fail(trial)

        _is_nowhere(said)

    @case()
    async def test_no_value_is_in_an_error_or_in_what_led_to_it(self, trial: Trial) -> None:
        errors = await _write_and_fail(trial)

        assert errors
        for error in errors:
            _is_nowhere([str(error), repr(error), error.message, error.hint, repr(error.__dict__)])
            _is_nowhere(traceback.format_exception(error))
            for cause in _causes(error):
                _is_nowhere([repr(cause), repr(cause.args), repr(getattr(cause, "__dict__", {}))])

    @case(Need.VALUE_LIMIT)
    async def test_no_value_is_in_the_refusal_of_one_that_is_too_large(self, trial: Trial) -> None:
        size = trial.backend.limits.max_value_bytes // len(MARKED) + 1

        rejects = trial.backend.check([trial.put_op(trial.key(), MARKED * size)])

        assert rejects
        _is_nowhere([str(rejects[0].error), repr(rejects[0].error), repr(rejects[0])])

    @case(Need.READABLE)
    async def test_no_value_that_is_no_unicode_is_in_its_refusal(self, trial: Trial) -> None:
        op = trial.put_op(trial.key(), f"{MARKED}\ud800")
        if trial.is_document:
            op = Op(Verb.PUT, op.key, "", f'{{"NAME": "{MARKED}\ud800"}}')

        with _heard() as said:
            rejects = trial.backend.check([op])
            outcome = await trial.one(op)

        assert rejects, "text that is no Unicode can't be written"
        _is_nowhere([*said, repr(outcome)])
        for error in (rejects[0].error, outcome.error):
            assert error is not None
            _is_nowhere([str(error), *traceback.format_exception(error)])
            for cause in _causes(error):
                _is_nowhere([repr(cause), repr(cause.args), repr(getattr(cause, "object", ""))])

    @case()
    async def test_every_error_is_one_of_the_contracts(self, trial: Trial) -> None:
        errors = await _write_and_fail(trial)

        assert all(isinstance(error, BackendError) for error in errors)

    @case()
    async def test_close_leaves_no_task_and_no_thread(self, trial: Trial) -> None:
        tasks, threads = running_tasks(), _threads()
        backend = await trial.harness.make(trial.options)
        await backend.open()
        await asyncio.gather(*(trial.item(trial.key(), backend=backend) for _ in range(16)))
        await trial.scan(backend=backend)
        await trial.one(trial.put_op(trial.key(), "left"), backend=backend)

        await backend.close()

        assert running_tasks() <= tasks, "a task is left"
        assert _threads() <= threads, "a thread is left"

    @case()
    async def test_threads_are_no_more_than_calls_may_be_under_way(self, trial: Trial) -> None:
        threads = _threads()
        backend = await trial.another()

        await asyncio.gather(*(trial.item(trial.key(), backend=backend) for _ in range(64)))

        started = _threads() - threads
        assert len(started) <= trial.backend.limits.concurrency + 1

    @case()
    async def test_close_leaves_nothing_open(self, trial: Trial) -> None:
        backend = await trial.harness.make(trial.options)
        await backend.open()
        await trial.scan(backend=backend)

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            await backend.close()
            del backend
            gc.collect()

        left = [str(each.category.__name__) for each in warned]
        assert "ResourceWarning" not in left, "something was left open"

    @case()
    async def test_what_is_open_can_be_closed_and_opened_anew(self, trial: Trial) -> None:
        backend = await trial.another()
        await trial.one(trial.put_op(trial.key(), "kept"), backend=backend)
        await backend.close()

        anew = await trial.another()

        assert trial.key() in (await trial.scan(backend=anew)).live

    @case()
    async def test_what_it_says_of_itself_fits_together(self, trial: Trial) -> None:
        has, limits = trial.backend.capabilities, trial.backend.limits

        def implies(one: Capability, other: Capability) -> bool:
            return one not in has or other in has

        assert implies(Capability.WATCH_NO_DELETES, Capability.WATCH)
        assert implies(Capability.ATOMIC_BATCH, Capability.CAS)
        assert not (Capability.ATOMIC_BATCH in has and limits.batch == 1)
        assert not (Capability.WRITE_ONLY in has and Capability.LIST_VALUES in has)
        assert not (Capability.WHOLE_DOCUMENT in has and not trial.is_document)
        assert trial.backend.cost(Load(items=0)).dollars >= 0


async def _write_and_fail(trial: Trial) -> list[BackendError]:
    """Do what a reconciler does, with and without faults; the errors that came of it."""
    errors: list[BackendError] = []
    item = await trial.put(trial.key(), MARKED)
    ops = [
        trial.put_op(trial.key(), f"{MARKED} stale"),
        trial.put_op(Key("", "no name"), MARKED),
        trial.put_op(trial.key(), f"{MARKED} changed", expect=item.version),
        trial.delete_op(trial.key(), item.version),
    ]
    errors += [reject.error for reject in trial.backend.check(ops)]
    for op in ops:
        outcome = await trial.one(op)
        errors += [outcome.error] if outcome.error is not None else []
    await trial.scan()
    for kind in _FAULTS:
        if kind in trial.harness.faults:
            errors += await _fail(trial, kind)
    return errors


async def _fail(trial: Trial, kind: Kind) -> list[BackendError]:
    """Have a scan, a read and a write meet a fault."""
    errors: list[BackendError] = []
    await trial.inject(Fault(kind, Call.SCAN))
    try:
        await trial.scan()
    except BackendError as error:
        errors.append(error)
    await trial.inject(Fault(kind, Call.GET))
    try:
        await trial.item(trial.key())
    except BackendError as error:
        errors.append(error)
    item = await trial.item(trial.key())
    await trial.inject(Fault(kind, Call.APPLY))
    version = item.version if item is not None else ""
    outcome = await trial.one(trial.put_op(trial.key(), f"{MARKED} {kind.name}", expect=version))
    return [*errors, outcome.error] if outcome.error is not None else errors


def _is_nowhere(texts: list[str]) -> None:
    """The marked value is in none of these; the message does not say which form was found."""
    found = [number for number, text in enumerate(texts) if any(form in text for form in _FORMS)]
    assert not found, f"a value is in {len(found)} of {len(texts)} texts"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to an error: causes and contexts, all the way down."""
    seen: set[int] = set()
    waiting = [error.__cause__, error.__context__]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__]


@contextmanager
def _heard() -> Iterator[list[str]]:
    """All that is logged or printed meanwhile."""
    root, handler, screen = logging.getLogger(), _Heard(), io.StringIO()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    said: list[str] = []
    try:
        with redirect_stdout(screen), redirect_stderr(screen):
            yield said
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        said += [*handler.said, screen.getvalue()]


def _threads() -> set[threading.Thread]:
    """The threads that run, but for those of the loop."""
    running = threading.enumerate()
    return {each for each in running if not each.name.startswith(_THREADS_OF_ASYNCIO)}
