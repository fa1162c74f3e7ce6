"""`envctl watch`: a line for each change, as it happens.

A watch outlives the node: where the connection breaks, it tries again, more and more slowly,
and goes on after the last change that it showed. Where the node can't resume there (its
journal no longer goes back so far), that is told, for changes may be missing. So is it where no
node answers for some of what is watched.
"""

from __future__ import annotations

from collections.abc import Iterator

from envd.cli.commands.past import in_words, local_time
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.core.answers import (
    Changed,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.errors import Unavailable
from envd.core.names import check_prefix
from envd.core.requests import WatchRequest
from envd.wire.plain import to_plain

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0


def _watch(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    prefix = check_prefix(words[0]) if words else ""
    resolve = invocation.arguments.on("--resolved")
    missing = ""
    for event in resumed(invocation, prefix, resolve=resolve):
        if isinstance(event, Changed):
            _show(invocation, event)
        elif isinstance(event, Heartbeat | SnapshotEnd):
            if event.partial_reason not in ("", missing):
                _say(invocation, f"changes may be missing for now: {event.partial_reason}")
            missing = event.partial_reason
        elif isinstance(event, Reset):
            _say(invocation, f"changes may be missing here: {event.reason}")
    raise AssertionError("a watch has no end")


def resumed(
    invocation: Invocation, prefix: str, *, patient: bool = False, resolve: bool = False
) -> Iterator[WatchEvent]:
    """The events of a watch, for ever, over restarts of the node.

    Raises Unavailable where the node does not answer at first, unless `patient`; later it
    tries again.
    """
    token, pause_s, begun, away = "", FIRST_PAUSE_S, patient, False
    while True:
        try:
            for event in invocation.connection.watch(WatchRequest(prefix, token, resolve=resolve)):
                if away:
                    _say(invocation, f"watching again, at {invocation.connection.address}")
                begun, away, pause_s = True, False, FIRST_PAUSE_S
                if not isinstance(event, Reset | SnapshotItem):
                    token = event.token
                yield event
        except Unavailable as error:
            if not begun:
                raise
            invocation.close()
            if not away:
                _say(invocation, f"{error.message}; trying again until it is back")
            away = True
        invocation.world.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _say(invocation: Invocation, text: str) -> None:
    invocation.screen.note(f"note: {text}")
    invocation.screen.flush()


def _show(invocation: Invocation, event: Changed) -> None:
    commit = event.commit
    through = {"through": event.through} if event.through else {}
    document = {**to_plain(commit), "token": event.token, **through}
    if invocation.output == "json":
        invocation.screen.document_in_line(document)
        return
    if invocation.output == "yaml":
        invocation.screen.block("---\n")
        invocation.document(document)
    else:
        message = f"  ({commit.message})" if commit.message else ""
        when, done = local_time(commit.time), in_words(commit)
        where = f"{commit.environment} through {event.through}" if through else commit.environment
        invocation.screen.line(f"{when}  {where}  {commit.actor}  {done}{message}")
    invocation.screen.flush()


WATCH = Command(
    usage=("[PREFIX] [--resolved]",),
    about="""
    Show each change of the environments, or of those below a prefix, as it happens: when,
    where, who, and the names. Values are not shown. With --output json each change is one
    document in one line. Where the node goes away, the watch goes on once it is back, with
    what happened in between. Ctrl-C ends it.

    With --resolved a change of what an environment extends is shown as a change of that
    environment too: "web/prod through web/base".
    """,
    flags=(Flag("--resolved", "with the changes of what they extend"),),
    examples=(
        ("envctl watch", "everything"),
        ("envctl watch payments", "payments and what is below it"),
        ("envctl watch -o json | jq -r .environment", "for programs"),
    ),
    run=_watch,
)
