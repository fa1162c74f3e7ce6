"""The outermost guard of a command: every way in which it may end, as an exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from envd.cli import exits
from envd.cli.screen import Screen
from envd.core.errors import EnvdError, OutcomeUnknown

if TYPE_CHECKING:
    from envd.cli.invocation import Invocation
    from envd.cli.world import World

BROKEN_PIPE = 1


def guarded(world: World, words: Sequence[str], prepare: Callable[[], Invocation | str]) -> int:
    """Prepare and run a command; never raises."""
    screen = Screen(world.stdout, world.stderr, world.environ)
    invocation: Invocation | None = None
    debug = bool(world.environ.get("ENVD_DEBUG"))
    try:
        prepared = prepare()
        if isinstance(prepared, str):
            screen.block(prepared)
            screen.flush()
            return exits.DONE
        invocation = prepared
        code = invocation.command.run(invocation)
        screen.flush()
        invocation.remember()
        return code
    except EnvdError as error:
        _settle(world.stdout)
        if debug:
            _trace(world)
        return _told(screen, error, invocation)
    except KeyboardInterrupt:
        _settle(world.stdout)
        return _interrupted(screen, invocation)
    except BrokenPipeError:
        silence(world.stdout, world.stderr)
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 (the outermost guard: no traceback, no value)
        _settle(world.stdout)
        if debug:
            _trace(world)
        return _internal(screen, error)
    finally:
        if invocation is not None:
            invocation.close()


def _settle(stream: TextIO) -> None:
    """Flush; where that fails, let neither our error nor Python's exit fail once more."""
    try:
        stream.flush()
    except OSError:
        silence(stream)


def _trace(world: World) -> None:
    from traceback import print_exc

    print_exc(file=world.stderr)


def _told(screen: Screen, error: EnvdError, invocation: Invocation | None) -> int:
    hint = error.hint
    if isinstance(error, OutcomeUnknown) and invocation is not None:
        hint = _retry(invocation) or hint
    screen.error(error.message, hint)
    return exits.exit_code(error)


def _interrupted(screen: Screen, invocation: Invocation | None) -> int:
    if invocation is not None and invocation.write_in_flight:
        screen.error(
            "interrupted while a write was on its way; it may or may not be done",
            _retry(invocation) or "see how it stands now; what is done is not done twice",
        )
    else:
        screen.error("interrupted", "")
    return exits.INTERRUPTED


def _retry(invocation: Invocation) -> str:
    """How to repeat a write of which nobody knows; "" for a command that has no id of one."""
    if not any(flag.name == "--operation" for flag in invocation.command.flags):
        return ""
    return f"retry with --operation {invocation.operation}"


def _internal(screen: Screen, error: Exception) -> int:
    """Show the kind of the error only: its text may hold a value."""
    if isinstance(error, OSError) and error.strerror:
        screen.error(f"the system refused: {error.strerror}", "ENVD_DEBUG=1 shows where")
    else:
        screen.error(
            f"internal error ({type(error).__name__}); this is a fault in envctl",
            "run it again with ENVD_DEBUG=1 to see where",
        )
    return exits.FAILED


def silence(*streams: TextIO) -> None:
    """Point streams that nobody reads at /dev/null, so that Python's exit is quiet too."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        try:
            os.dup2(null, stream.fileno())
        except (OSError, ValueError):
            continue
    os.close(null)
