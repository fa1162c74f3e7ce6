"""How far something long is, on the live line of a terminal.

Nothing is shown where standard error is no terminal, nor in the first half second, so what is
quick stays quiet. The line is wiped at the end, however that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from envd.cli.screen import Screen

if TYPE_CHECKING:
    from threading import Event

PATIENCE_S = 0.5
"""What takes less is not worth a line."""
_INTERVAL_S = 0.1


class Progress:
    """Counts steps, of `total` where that is known; `with` wipes the line at the end.

    Example of the line: `reading environments: 1,200 of 10,000  12%  850/s  11 s left`.
    """

    def __init__(
        self, screen: Screen, monotonic: Callable[[], float], doing: str, total: int | None
    ) -> None:
        self._screen = screen
        self._monotonic = monotonic
        self._doing = doing
        self._total = total
        self._done = 0
        self._began = monotonic() if screen.may_be_live else 0.0
        self._next = self._began + PATIENCE_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._screen.wipe()

    def advance(self, steps: int = 1) -> None:
        """Note that so many steps more are done."""
        self._done += steps
        if not self._screen.may_be_live:
            return
        now = self._monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL_S
            self._screen.live(self._text(now - self._began))

    def _text(self, elapsed_s: float) -> str:
        rate = self._done / elapsed_s
        shown_rate = f"{rate:,.0f}/s" if rate >= 1 else f"{1 / rate:,.0f} s each"
        if self._total is None:
            return f"{self._doing}: {self._done:,}  {shown_rate}"
        left_s = max(self._total - self._done, 0) / rate
        share = 100 * self._done // max(self._total, 1)
        return (
            f"{self._doing}: {self._done:,} of {self._total:,}  {share}%  "
            f"{shown_rate}  {left_s:,.0f} s left"
        )


@contextmanager
def waiting(
    screen: Screen, doing: str, how_far: Generator[str, None, None] | None = None
) -> Iterator[None]:
    """Show `doing` with the seconds that have passed, while the block waits for one call.

    `how_far` is asked every second, in another thread, for words to show as well, and closed there.
    """
    if not screen.may_be_live:
        yield
        return
    from threading import Event, Thread

    over = Event()
    teller = Thread(target=_tell, args=(screen, doing, over, how_far), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        screen.wipe()


def _tell(
    screen: Screen, doing: str, over: Event, how_far: Generator[str, None, None] | None
) -> None:
    ended, seconds = over.wait(PATIENCE_S), 0
    while not ended:
        far = "" if how_far is None else next(how_far, "")
        shown = f"{doing}: {far}" if far else f"{doing} ..."
        screen.live(shown + (f"  {seconds} s" if seconds else ""))
        seconds += 1
        ended = over.wait(1.0)
    if how_far is not None:
        how_far.close()
