"""What envd's loggers say in a run."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Hearing(logging.Handler):
    """Hands records of envd's loggers to the run."""

    def __init__(self, hear: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record)
