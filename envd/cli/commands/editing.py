"""`envctl edit`: an environment as a file in the editor, and one commit of what was changed.

The file is in dotenv form, of mode 0600 in a directory of its own (below XDG_RUNTIME_DIR, which
is in memory, where there is one). It is removed at the end, however that comes; it is kept,
and its path told, only where the changes in it could not be saved. Secret values are not
written to it unless --reveal is given: a line with a mark stands for each and must stay as it
is. A file that can't be read is opened again with the reason on top, until it is left
unchanged.

A process that is killed leaves its directory behind. The next edit removes those of this user
that nobody holds (each is locked as long as its process lives) and nobody touched for a day,
so an editor that is still open loses nothing.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from envd.cli import exits, sources, states, target
from envd.cli.commands.importing import Plan, perform_plan, show_plan
from envd.cli.exits import Failed
from envd.cli.grammar import REVEAL, WRITE_FLAGS, Command
from envd.cli.invocation import Invocation, short
from envd.cli.states import Cell
from envd.cli.world import CREDENTIALS
from envd.core.answers import EnvironmentView
from envd.core.errors import EnvdError, InvalidRequest, NotFound
from envd.formats.read import Assignment, parse
from envd.formats.secrets import select_secret
from envd.formats.write import render

MARK = "<secret, kept as it is>"
_FALLBACK = "vi"
_MAX_ROUNDS = 100
_PREFIX = "envctl-edit-"
_KEPT_PREFIX = "envctl-kept-"
_FORGOTTEN_AFTER_S = 86_400


def _edit(invocation: Invocation) -> int:
    environment = target.environment(invocation)
    view = _read(invocation, environment)
    with _private_directory(invocation) as directory:
        return _edit_in(invocation, directory, environment, view)


def _edit_in(
    invocation: Invocation, directory: Path, environment: str, view: EnvironmentView | None
) -> int:
    keep = False
    try:
        file = directory / f"{environment.replace('/', '-')}.env"
        original = _text(environment, view)
        _write(file, original)
        try:
            assignments = _edited(invocation, file, original, view)
            if assignments is None:
                invocation.tell("the file was left as it was; nothing was changed")
                return exits.DONE
            plan = _plan(environment, view, assignments)
            if invocation.shows_tables():
                show_plan(invocation, plan)
            return perform_plan(invocation, plan, "saved")
        except EnvdError:
            keep = file.exists() and file.read_bytes() != original
            raise
    finally:
        if keep:
            kept = _kept(directory) / file.name
            invocation.screen.note(f"note: what you wrote is kept in {kept}; remove it afterwards")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _read(invocation: Invocation, environment: str) -> EnvironmentView | None:
    try:
        if invocation.arguments.on("--reveal"):
            return invocation.read_real(environment)
        return invocation.read(environment, reveal=False)
    except NotFound:
        return None


# -- the file --------------------------------------------------------------------------


@contextmanager
def _private_directory(invocation: Invocation) -> Iterator[Path]:
    """A new directory that is locked as long as this process works in it."""
    runtime = invocation.world.environ.get("XDG_RUNTIME_DIR", "")
    below = runtime if runtime.startswith("/") and os.access(runtime, os.W_OK) else None
    _remove_forgotten(Path(below or tempfile.gettempdir()), invocation.world.wall_ms() / 1000)
    try:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=below))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Failed(f"can't make a file to edit: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(lock)


def _remove_forgotten(below: Path, now_s: float) -> None:
    """Remove what processes that were killed left; what can't be removed stays."""
    for directory in sorted(below.glob(f"{_PREFIX}*")):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            touched_s = [
                os.fstat(lock).st_mtime,
                *(each.lstat().st_mtime for each in directory.iterdir()),
            ]
            if (
                os.fstat(lock).st_uid == os.geteuid()
                and now_s - max(touched_s) > _FORGOTTEN_AFTER_S
            ):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            continue  # Somebody holds it, or removed it just now.
        finally:
            os.close(lock)


def _kept(directory: Path) -> Path:
    """Give a directory the name of one that is kept on purpose; where it is now."""
    name = directory.name.removeprefix(_PREFIX)
    try:
        return directory.rename(directory.with_name(f"{_KEPT_PREFIX}{name}"))
    except OSError:
        return directory


def _text(environment: str, view: EnvironmentView | None) -> bytes:
    """What the editor is given first."""
    at = f"at revision {short(view.revision)}" if view else "which does not exist yet"
    head = [
        f"# {environment}, {at}. Lines are NAME=value, with quotes as in a .env file.",
        "# Save and leave the editor to commit; without a change nothing is done.",
    ]
    variables = view.variables if view else {}
    if any(each.masked for each in variables.values()):
        head.append(
            "# Secret values are not shown. Leave their lines as they are, or use --reveal."
        )
    values = {name: MARK if each.masked else each.value or "" for name, each in variables.items()}
    return ("\n".join([*head, "", ""]) + render(values, format="dotenv")).encode()


def _write(file: Path, text: bytes) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(text)
    except OSError as error:
        raise Failed(f"can't write {file}: {error.strerror}") from error


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(sources.MAX_FILE_BYTES)
    except OSError as error:
        raise Failed(f"can't read {file}: {error.strerror}; nothing was changed") from error


# -- the editor ------------------------------------------------------------------------


def _edited(
    invocation: Invocation, file: Path, original: bytes, view: EnvironmentView | None
) -> list[Assignment] | None:
    """What the person left, None where that is what there was.

    Raises the error of a file that can't be read, once it is left unchanged with that error.
    """
    given, refusal = original, None
    for _ in range(_MAX_ROUNDS):
        _open_editor(invocation, file)
        raw = _content(file)
        if raw == given:
            break
        try:
            return _accepted(raw, view, file.name)
        except InvalidRequest as error:
            refusal = Failed(
                f"{error.message}; nothing was changed", hint=error.hint, reason=error.reason
            )
            given = _with_error(raw, error)
            _write(file, given)
    if refusal is not None:
        raise refusal
    return None


def _open_editor(invocation: Invocation, file: Path) -> None:
    environ = invocation.world.environ
    editor = environ.get("VISUAL") or environ.get("EDITOR") or _FALLBACK
    given = {name: value for name, value in environ.items() if name not in CREDENTIALS}
    invocation.screen.flush()
    try:
        code = invocation.world.spawn([*shlex.split(editor), str(file)], given)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "VISUAL or EDITOR has open quotes"
        raise Failed(
            f"can't start the editor: {why}; nothing was changed",
            hint="name one in EDITOR, such as EDITOR=nano",
        ) from error
    if code:
        raise Failed(f"the editor ended with exit code {code}; nothing was changed")


def _with_error(raw: bytes, error: EnvdError) -> bytes:
    """The person's text with the reason in place of its first line, if that is a comment.

    So the numbers of lines in the reason stay right.
    """
    lines = raw.split(b"\n")
    if lines[0].startswith(b"# "):
        del lines[0]
    reason = " ".join(f"{error.message}; {error.hint}".split())
    return b"\n".join([f"# error: {reason}".encode(), *lines])


def _accepted(raw: bytes, view: EnvironmentView | None, source: str) -> list[Assignment]:
    """The lines of the file; raises InvalidRequest for one that can't be read or saved."""
    assignments = parse(raw, format="dotenv", dialect="python", source=source)
    values = {each.name: each.value for each in assignments}
    masked = {name for name, each in (view.variables if view else {}).items() if each.masked}
    for name in sorted(masked):
        if values.get(name) != MARK:
            raise InvalidRequest(
                f"the line of {name}, which is secret, was changed",
                hint="put it back; to change it use envctl edit --reveal, or set and unset",
                reason="INVALID_FILE",
            )
    for name, value in values.items():
        if MARK in value and name not in masked:
            raise InvalidRequest(
                f"{name} holds the mark of a secret that is not shown",
                hint="the mark stands for the value of its own line only",
                reason="INVALID_FILE",
            )
    return assignments


# -- what was changed ------------------------------------------------------------------


def _plan(environment: str, view: EnvironmentView | None, assignments: list[Assignment]) -> Plan:
    """Compare with what was shown; flags stay, and new names may become secret by their look."""
    current = states.cells(view)
    judged = {
        each.name: each for each in select_secret(assignments, secret_globs=(), plain_globs=())
    }
    wanted = {name: _cell(each, current) for name, each in judged.items()}
    found = states.differences(current, wanted)
    touched = {each.name for each in found}
    return Plan(environment, view, wanted, found, len(wanted.keys() - touched))


def _cell(assignment: Assignment, current: Mapping[str, Cell]) -> Cell:
    known = current.get(assignment.name)
    if known is None:
        return Cell(assignment.value, bool(assignment.secret))
    if known.value is None:
        return known
    return Cell(assignment.value, known.secret)


EDIT = Command(
    usage=("[ENV] [--reveal]",),
    about="""
    Change an environment in the editor that VISUAL or EDITOR names. What was changed is shown
    without values and saved as one commit, if the environment is still at the revision that
    was shown. Flags stay as they are; new variables that look like credentials become secret.

    Secret values are not shown unless --reveal is given, which takes the right to; their lines
    must stay as they are. A file that can't be read is opened again with the reason on top;
    leave it unchanged to give up. The file is readable by you alone and removed at the end; it
    is kept, and its path told, where your changes could not be saved.
    """,
    examples=(
        ("envctl edit web/prod", "all but the secret values"),
        ("EDITOR='code --wait' envctl edit web/dev --reveal", "secrets too"),
    ),
    run=_edit,
    flags=(REVEAL, *WRITE_FLAGS),
)
