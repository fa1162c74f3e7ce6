"""`envctl settings`: what is kept about an environment, beside its variables."""

from __future__ import annotations

from envd.cli import exits, target
from envd.cli.exits import UsageError
from envd.cli.grammar import IF_REVISION, WRITE_FLAGS, Command
from envd.cli.invocation import Invocation, short
from envd.core.commit import Kind
from envd.core.errors import NotFound
from envd.core.metadata import check_setting, is_setting, unknown_setting
from envd.core.names import check_value
from envd.core.requests import Put, Unset, WriteRequest


def _settings(invocation: Invocation) -> int:
    environment, bare, pairs = target.environment_and_pairs(invocation)
    if len(bare) > 1 or (bare and pairs):
        raise UsageError(
            "settings are shown or changed, not both", hint="write KEY=VALUE to change"
        )
    if pairs:
        return _change(invocation, environment, pairs)
    return _show(invocation, environment, bare[0] if bare else "")


def _change(invocation: Invocation, environment: str, pairs: list[str]) -> int:
    puts, unsets = [], []
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not is_setting(name):
            raise unknown_setting(name)
        if value:
            check_value(name, value)
            check_setting(name, value)
            puts.append(Put(name, value, kind=Kind.METADATA))
        else:
            unsets.append(Unset(name, Kind.METADATA))
    request = WriteRequest(
        environment, tuple(puts), tuple(unsets), if_revision=invocation.if_revision
    )
    invocation.report(invocation.write(request))
    return exits.DONE


def _show(invocation: Invocation, environment: str, name: str) -> int:
    view = invocation.read(environment, reveal=False)
    if name and name not in view.metadata:
        if not is_setting(name):
            raise unknown_setting(name)
        raise NotFound(f"{environment} has no setting {name}")
    if not invocation.shows_tables():
        shown = {name: view.metadata[name]} if name else view.metadata
        invocation.document(
            {"environment": environment, "revision": view.revision, "metadata": shown}
        )
    elif name:
        invocation.screen.exact(view.metadata[name])
    else:
        invocation.screen.heading(environment, f"revision {short(view.revision)}")
        if view.metadata:
            invocation.screen.table(("SETTING", "VALUE"), list(view.metadata.items()))
        else:
            invocation.screen.note("it has no settings")
    return exits.DONE


SETTINGS = Command(
    usage=("[ENV]", "[ENV] KEY", "[ENV] KEY=VALUE..."),
    about="""
    Show the settings of an environment, or change some in one atomic commit. KEY= without a
    value removes the setting.

    The settings are description, owner, labels (KEY=VALUE pairs joined by commas), mode,
    extends, regions, protected and expires (a date). They are kept with the environment, in
    its history too. extends=BASE,... adds the variables of other environments wherever this
    one is run or exported: of several a later one wins, and its own beat them all. This
    version does not act on regions, protected and expires yet.

    With mode=serial each write is agreed upon by a majority of the voters (envctl cluster
    topology), in one order, so that --if-revision is exact and --consistency strong shows the
    newest; where no majority can be reached, writes are refused. With mode=lww, the default,
    every node takes writes at any time, and of two to one variable the later one wins.
    """,
    examples=(
        ("envctl settings web/prod", "show them"),
        ("envctl settings web/prod owner=ops@example.com labels=tier=1", "set two"),
        ("envctl settings web/prod extends=web/base", "build on another environment"),
        ("envctl settings web/prod mode=serial", "one order of writes, by a majority"),
        ("envctl settings web/prod expires=", "remove one"),
    ),
    run=_settings,
    flags=(IF_REVISION, *WRITE_FLAGS),
)
