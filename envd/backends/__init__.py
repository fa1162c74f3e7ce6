"""The stores that envd keeps in step with: one module each, found by entry point.

A backend knows `envd.core`, this contract and its own SDK, which it imports when it is opened.
`docs/backends.md` shows how to write one; `envd.testing.conformance` shows whether it holds.
"""

from __future__ import annotations

from envd.backends.contract import (
    API_VERSION,
    Backend,
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Options,
    Outcome,
    Page,
    PriceSheet,
    Registration,
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import BackendError

__all__ = [
    "API_VERSION",
    "Backend",
    "BackendError",
    "Capability",
    "Cost",
    "Health",
    "Hint",
    "Item",
    "Key",
    "Limits",
    "Load",
    "Op",
    "Options",
    "Outcome",
    "Page",
    "PriceSheet",
    "Registration",
    "Reject",
    "Result",
    "Scope",
    "Verb",
]
