"""The trace: one hash over everything that happened, and the last events in words."""

from __future__ import annotations

from chaos.sim.trace import Trace


def trace_of(*events: tuple[str, str, bytes]) -> Trace:
    trace = Trace(lambda: 1.5, kept=3)
    for event in events:
        trace.note(*event)
    return trace


def test_the_hash_tells_every_difference() -> None:
    base = trace_of(("frame", "a b", b"x"), ("fault", "cut", b"")).hexdigest()

    others = {
        trace_of(("frame", "a b", b"y"), ("fault", "cut", b"")).hexdigest(),
        trace_of(("frame", "a c", b"x"), ("fault", "cut", b"")).hexdigest(),
        trace_of(("fault", "cut", b""), ("frame", "a b", b"x")).hexdigest(),
        trace_of(("frame", "a b", b"x")).hexdigest(),
    }

    assert len(others) == 4
    assert base not in others
    assert base == trace_of(("frame", "a b", b"x"), ("fault", "cut", b"")).hexdigest()


def test_the_time_of_an_event_counts() -> None:
    early, late = Trace(lambda: 1.0), Trace(lambda: 1.000_001)

    early.note("x", "")
    late.note("x", "")

    assert early.hexdigest() != late.hexdigest()


def test_the_last_events_are_told_without_what_is_left_out() -> None:
    trace = trace_of(*((kind, str(n), b"") for n, kind in enumerate(("a", "b", "a", "c"))))

    told = [line.split()[1:3] for line in trace.last(10, frozenset({"a"}))]

    assert told == [["b", "1"], ["c", "3"]]
    assert trace.counts == {"a": 2, "b": 1, "c": 1}
