"""`envctl run`: replace this process by a program that has the variables.

With --watch it is a child instead (see `supervising`).

The program inherits this process's environment, without envctl's own credentials; ours beat
inherited variables but those that --keep names, and later environments beat earlier ones. With
--pristine it gets ours alone. The program is looked for along the PATH of this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial

from envd import streams
from envd.cli import exits, offline, target
from envd.cli.exits import UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.world import CREDENTIALS
from envd.core.answers import EnvironmentView
from envd.core.errors import EnvdError, InvalidRequest, Unavailable
from envd.core.names import check_variable

_ADDED = (("LC_CTYPE", "C.UTF-8"), streams.GRPC_SILENT)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_RISKY = (
    "PATH", "LD_*", "DYLD_*", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4",
    "PROMPT_COMMAND", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE",
    "NODE_OPTIONS", "NODE_PATH", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "GIT_SSH*", "GIT_EXEC_PATH",
    "GIT_CONFIG*", "GCONV_PATH",
)  # fmt: skip


def _run(invocation: Invocation) -> int:
    names, command = _words(invocation)
    watched = _watched(invocation, names)
    bases: dict[str, None] = {}
    try:
        ours = _gathered(invocation, names, bases)
    except InvalidRequest:
        raise
    except EnvdError as error:
        invocation.screen.error(error.message, _hint(invocation, names, error))
        return exits.RUN_FAILED
    _warn(invocation, ours)
    environment = _environment(invocation, ours)
    invocation.close()
    invocation.screen.flush()
    if watched:
        from envd.cli.commands.supervising import supervise

        gather = partial(_gathered_again, invocation, names)
        paths = _candidates(command[0], invocation.world.environ)
        followed = tuple(dict.fromkeys((*watched, *bases)))
        return supervise(invocation, paths, command, followed, gather, environment)
    return _replace_process(invocation, command, environment)


def _watched(invocation: Invocation, names: Iterable[str]) -> tuple[str, ...]:
    """The environments that --watch is about; a revision never changes."""
    action = invocation.arguments.text("--watch")
    if not action:
        return ()
    from envd.cli.commands.supervising import read_action

    read_action(action)
    references = [target.referenced(invocation, name) for name in names]
    watched = tuple(dict.fromkeys(each.environment for each in references if not each.at))
    if not watched:
        raise UsageError("--watch: a revision never changes", hint="leave out the @REV")
    return watched


def _gathered_again(invocation: Invocation, names: Iterable[str]) -> Mapping[bytes, bytes]:
    """What the program would get now, read on a new connection."""
    try:
        return _environment(invocation, _gathered(invocation, names, {}))
    finally:
        invocation.close()


def _words(invocation: Invocation) -> tuple[list[str], list[str]]:
    arguments = invocation.arguments
    if arguments.on("--offline") and arguments.text("--watch"):
        raise UsageError("--watch takes a node, and --offline uses none")
    if arguments.literal is None:
        raise UsageError(
            "the program to run stands after '--'", hint="envctl run web/prod -- npm start"
        )
    if not arguments.literal:
        raise UsageError("no program is named after '--'")
    if len(arguments.words) > 1:
        raise UsageError(
            "too many arguments before '--'", hint="several environments: web/base,web/prod"
        )
    if arguments.words:
        names = [name.strip() for name in arguments.words[0].split(",")]
    else:
        names = [target.required_default(invocation)]
    return names, arguments.literal


def _gathered(
    invocation: Invocation, names: Iterable[str], bases: dict[str, None]
) -> dict[str, str]:
    """The variables of all environments, under the names that the program will see.

    Notes in `bases` which environments they extend.
    """
    prefix = invocation.arguments.text("--name-prefix")
    if prefix:
        check_variable(prefix)
    patterns = invocation.arguments.texts("--only")
    references = [target.referenced(invocation, name) for name in names]
    ours: dict[str, str] = {}
    for each in references:
        view = _view(invocation, each)
        bases.update(dict.fromkeys(view.bases))
        for name, variable in view.variables.items():
            if not patterns or _matches(name, patterns):
                ours[prefix + name] = variable.value or ""
    return ours


def _view(invocation: Invocation, reference: target.Reference) -> EnvironmentView:
    """The environment from the node, and kept for --offline; or with that, what was kept."""
    name = reference.environment
    if not invocation.arguments.on("--offline"):
        view = invocation.read_real(name, at=reference.at, resolve=not reference.at)
        if not reference.at:
            offline.keep(invocation, view)
        return view
    if reference.at:
        raise UsageError(
            f"--offline: no earlier revision of {name} is kept", hint=f"leave out the @: {name}"
        )
    return offline.recall(invocation, name)


def _hint(invocation: Invocation, names: Iterable[str], error: EnvdError) -> str:
    """The hint of an error, and where no node answers, the way without."""
    if not isinstance(error, Unavailable) or any("@" in name for name in names):
        return error.hint
    if invocation.arguments.text("--watch") or not offline.is_kept(invocation, names):
        return error.hint
    way = "or with the variables of the last time: --offline"
    return f"{error.hint}; {way}" if error.hint else way


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _warn(invocation: Invocation, ours: Mapping[str, str]) -> None:
    risky = [name for name in ours if _matches(name, _RISKY)]
    if risky:
        invocation.screen.note_with(
            "warning", f"sets {', '.join(risky)}, which may change what programs run", "yellow"
        )


def _environment(invocation: Invocation, ours: Mapping[str, str]) -> dict[bytes, bytes]:
    """What the program gets, as bytes: ours are UTF-8 whatever this process's locale is."""
    keep = invocation.arguments.texts("--keep")
    inherited: dict[str, str] = {}
    if not invocation.arguments.on("--pristine"):
        inherited = _inherited(invocation.world.environ)
    merged = {os.fsencode(name): os.fsencode(value) for name, value in inherited.items()}
    for name, value in ours.items():
        if not (name in inherited and _matches(name, keep)):
            merged[name.encode()] = value.encode()
    return merged


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """This process's environment as it was given, without the credentials.

    In the C locale Python adds LC_CTYPE to its own environment (PEP 538), and we silence gRPC;
    a program that envctl runs shall get neither.
    """
    inherited = {name: value for name, value in environ.items() if name not in CREDENTIALS}
    if environ is not os.environ:
        return inherited
    added = [pair for pair in _ADDED if inherited.get(pair[0]) == pair[1]]
    if added:
        try:
            with open("/proc/self/environ", "rb") as opened:
                given = opened.read().split(b"\0")
        except OSError:
            return inherited
        for name, value in added:
            if f"{name}={value}".encode() not in given:
                del inherited[name]
    return inherited


def _replace_process(
    invocation: Invocation, command: list[str], environment: Mapping[bytes, bytes]
) -> int:
    """Become the program, or tell why not: 127 not found, 126 not executable."""
    refusal: OSError | None = None
    for path in _candidates(command[0], invocation.world.environ):
        try:
            return invocation.world.execute(path, command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refusal = refusal or error
    if refusal is not None:
        invocation.screen.error(f"can't run {command[0]}: {refusal.strerror}", "")
        return exits.NOT_EXECUTABLE
    invocation.screen.error(f"there is no program {command[0]}", "")
    return exits.COMMAND_NOT_FOUND


def _candidates(program: str, environ: Mapping[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    if not program:
        return []
    path = environ.get("PATH", _DEFAULT_PATH)
    return [f"{directory or '.'}/{program}" for directory in path.split(":")]


RUN = Command(
    usage=("[ENV[,ENV...]] [FLAGS] -- PROGRAM [ARGUMENTS]",),
    about="""
    Run a program with the variables of one or more environments; of several, later ones win.
    They are added to the environment of this shell and beat what is there, but names that
    --keep matches. ENVD_TOKEN and ENVD_BACKUP_PASSPHRASE are not passed on. envctl is replaced
    by the program, so signals and the exit code are the program's own.

    With --watch envctl stays, passes signals on and ends with the program's exit code. Where
    the variables that the program would get have changed, it is restarted (SIGTERM, after 10
    seconds SIGKILL) or sent a signal, which tells it and leaves its variables as they are.

    Each run keeps a copy of the variables, sealed with the credential, below XDG_CACHE_HOME.
    With --offline it is used instead of a node, for seven days; nothing does so unasked.

    Exit codes of envctl itself: 125 it failed, 126 the program can't be executed, 127 there is
    no such program.
    """,
    examples=(
        ("envctl run web/prod -- npm start", "start a program"),
        ("envctl run web/base,web/prod -- ./server --port 80", "two environments in layers"),
        ("envctl run web/prod --pristine -- env", "exactly the variables, nothing else"),
        ("envctl run web/dev --watch restart -- npm start", "restart it when they change"),
    ),
    run=_run,
    flags=(
        Flag("--name-prefix", "put this before every name", "PREFIX"),
        Flag("--only", "only variables with names like this", "GLOB", repeat=True),
        Flag("--keep", "inherited variables like this beat ours", "GLOB", repeat=True),
        Flag("--pristine", "do not inherit anything"),
        Flag("--watch", "on changes: restart, or a signal such as signal:HUP", "ACTION"),
        Flag("--offline", "without a node: with what the last run was given"),
        Flag("--no-snapshot", "keep no copy for --offline [ENVD_SNAPSHOT=off]"),
    ),
)
