"""The state that `envctl run` keeps of an environment, for when no node can be reached.

It is sealed with the credential (see client.snapshot) and good for seven days. Keeping it never
fails a run; what stands in the way is a warning. It is used on request only, so nobody runs
with old variables unawares.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from envd.cli import endpoint
from envd.cli.endpoint import Endpoint
from envd.cli.invocation import Invocation
from envd.client.discovery import token_in
from envd.core.answers import EnvironmentView
from envd.core.errors import SnapshotError

_SWITCH = "ENVD_SNAPSHOT"


def keep(invocation: Invocation, view: EnvironmentView) -> None:
    """Save the real values of an environment, unless the person does not want that."""
    environ = invocation.world.environ
    unwanted = environ.get(_SWITCH, "").lower() in {"off", "0", "no", "false"}
    if unwanted or invocation.arguments.on("--no-snapshot"):
        return
    from envd.client import snapshot

    where = endpoint.choose(invocation.arguments, environ)
    try:
        snapshot.save(
            snapshot.directory(environ),
            snapshot.context_of(where.addresses),
            view,
            token=_credential(where),
            now_ms=invocation.world.wall_ms(),
        )
    except (OSError, SnapshotError) as error:
        what = error.strerror if isinstance(error, OSError) else error.message
        invocation.screen.note_with(
            "warning",
            f"nothing of {view.environment} is kept for --offline: {what}  ({_SWITCH}=off)",
            "yellow",
        )


def recall(invocation: Invocation, environment: str) -> EnvironmentView:
    """The state that was kept, telling the person how old it is; raises SnapshotError."""
    from envd.client import snapshot

    where = endpoint.choose(invocation.arguments, invocation.world.environ)
    now_ms = invocation.world.wall_ms()
    found = snapshot.load(
        snapshot.directory(invocation.world.environ),
        snapshot.context_of(where.addresses),
        environment,
        token=_credential(where),
        now_ms=now_ms,
    )
    age = in_words(found.age_s(now_ms))
    invocation.screen.note(f"note: offline: {environment} as it was {age} ago")
    return found.state


def is_kept(invocation: Invocation, environments: Iterable[str]) -> bool:
    """Tell whether --offline would do for all of these environments."""
    from envd.client import snapshot

    with suppress(OSError, SnapshotError):
        where = endpoint.choose(invocation.arguments, invocation.world.environ)
        folder = snapshot.directory(invocation.world.environ)
        context, token = snapshot.context_of(where.addresses), _credential(where)
        for each in environments:
            now_ms = invocation.world.wall_ms()
            snapshot.load(folder, context, each, token=token, now_ms=now_ms)
        return True
    return False


def renew(invocation: Invocation, old: str, new: str) -> None:
    """Let what was kept under one token be read with the next one."""
    if not old or old == new:
        return
    from envd.client import snapshot

    with suppress(OSError, SnapshotError):
        snapshot.renew(snapshot.directory(invocation.world.environ), old=old, new=new)


def in_words(seconds: float) -> str:
    """A span of time as people say it. Example: in_words(7300) is "2 hours"."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def _credential(where: Endpoint) -> str:
    """The token that is used with certainty; on the Unix socket there is none."""
    if where.token or any(address.startswith("unix:") for address in where.addresses):
        return where.token
    return token_in(where.token_file)
