"""envd, a distributed daemon that keeps environment variables, and its client for programs.

    async with envd.connect() as client:
        env = await client.environment("payments/prod")
        env["DATABASE_URL"]; env.int("POOL_SIZE", default=5)

`connect` and `connect_sync` make a client; the other names are what it takes and gives. Each is
imported when it is first used, so `import envd` costs nothing; `__init__.pyi` has their types.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "envd.client.bulk": ("Exported", "Imported"),
    "envd.client.changes": ("Change",),
    "envd.client.client": ("Client",),
    "envd.client.connecting": ("connect", "connect_sync"),
    "envd.client.live": ("Changes", "LiveEnvironment"),
    "envd.client.picking": ("Server",),
    "envd.client.reading": ("VariableInvalid", "VariableMasked", "VariableMissing"),
    "envd.client.sync": ("SyncClient", "SyncEnvironment"),
    "envd.core.answers": (
        "EnvironmentView",
        "HistoryPage",
        "ListPage",
        "Status",
        "WriteAnswer",
    ),
    "envd.core.errors": (
        "Conflict",
        "Denied",
        "EnvdError",
        "InvalidRequest",
        "LimitExceeded",
        "NotFound",
        "OutcomeUnknown",
        "SnapshotError",
        "Unauthenticated",
        "Unavailable",
        "Unsupported",
    ),
    "envd.core.requests": ("Consistency", "Put", "Unset", "WriteRequest"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
