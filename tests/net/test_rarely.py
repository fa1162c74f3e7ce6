from __future__ import annotations

from envd.net.rarely import Rarely


def test_one_in_a_while_is_let_through_with_the_number_of_those_before_it() -> None:
    times = iter([0.0, 1.0, 9.9, 10.0, 10.1, 30.0])
    rarely = Rarely(times.__next__, every_s=10.0)

    assert [rarely.due() for _ in range(6)] == [1, 0, 0, 3, 0, 2]
