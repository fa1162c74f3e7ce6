"""`envctl set`: variables in one atomic commit."""

from __future__ import annotations

from envd.cli import exits, target
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import IF_REVISION, WRITE_FLAGS, Command, Flag
from envd.cli.invocation import Invocation
from envd.core.errors import EnvdError, InvalidRequest
from envd.core.names import MAX_VALUE_BYTES, check_value, check_variable
from envd.core.requests import Put, ReadRequest, WriteRequest


def _set(invocation: Invocation) -> int:
    environment, bare, pairs = target.environment_and_pairs(invocation)
    files = invocation.arguments.texts("--from-file")
    if len(bare) > 1:
        raise UsageError(
            "only one value can be asked for at a time", hint="write KEY=VALUE for the others"
        )
    if not (bare or pairs or files):
        raise UsageError(
            f"nothing to set in {environment}", hint=f"envctl set {environment} KEY=VALUE"
        )
    given = [_pair(pair) for pair in pairs]
    given += [_from_file(invocation, pair) for pair in files]
    _check_once([*bare, *(name for name, _ in given)])
    given += [(check_variable(name), _asked(invocation, name)) for name in bare]
    secret = _secret_flag(invocation)
    answer = invocation.write(
        WriteRequest(
            environment,
            tuple(Put(name, value, secret) for name, value in given),
            if_revision=invocation.if_revision,
            must_exist=invocation.arguments.on("--no-create"),
        )
    )
    invocation.report(answer)
    if secret is None:
        _hint_at_credentials(invocation, environment, given)
    return exits.DONE


def _secret_flag(invocation: Invocation) -> bool | None:
    secret, plain = invocation.arguments.on("--secret"), invocation.arguments.on("--plain")
    if secret and plain:
        raise UsageError("--secret and --plain exclude each other")
    return True if secret else False if plain else None


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    check_value(check_variable(name), value)
    return name, value


def _check_once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{check_variable(name)} is set twice")


def _from_file(invocation: Invocation, word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    if not equals or not path:
        raise UsageError("--from-file takes KEY=PATH")
    check_variable(name)
    try:
        with open(_below(invocation.world.cwd, path), "rb") as opened:
            raw = opened.read(MAX_VALUE_BYTES + 2)
    except OSError as error:
        raise Failed(f"can't read {path}: {error.strerror}") from error
    return name, _content(invocation, name, raw)


def _asked(invocation: Invocation, name: str) -> str:
    stdin = invocation.world.stdin
    if not stdin.isatty():
        piped = stdin.buffer.read(MAX_VALUE_BYTES + 2)
        if not piped and not invocation.arguments.on("--raw"):
            raise UsageError(
                f"standard input holds no value for {name}",
                hint=f"{name}= sets an empty one",
            )
        return _content(invocation, name, piped)
    try:
        value = invocation.world.ask_secret(f"value of {name}: ")
    except EOFError:
        raise Failed("no value was given; nothing was changed") from None
    check_value(name, value)
    return value


def _content(invocation: Invocation, name: str, raw: bytes) -> str:
    """The text of a file or of piped input: one final newline less, unless --raw."""
    if not invocation.arguments.on("--raw"):
        raw = raw.removesuffix(b"\n")
    text = raw.decode(errors="surrogateescape")
    try:
        check_value(name, text)
    except InvalidRequest as error:
        raise Failed(error.message, hint=error.hint, reason=error.reason) from None
    return text


def _below(directory: str, path: str) -> str:
    return path if path.startswith("/") else f"{directory}/{path}"


def _hint_at_credentials(
    invocation: Invocation, environment: str, given: list[tuple[str, str]]
) -> None:
    """Tell how to make those secret that look like credentials and are not."""
    from envd.formats.secrets import looks_secret

    suspects = tuple(name for name, value in given if looks_secret(name, value))
    if not suspects:
        return
    try:
        view = invocation.connection.get(ReadRequest(environment, suspects))
    except EnvdError:
        return  # The write is done; a hint is not worth an error.
    for name, variable in view.variables.items():
        if not variable.secret:
            invocation.screen.note_with(
                "hint",
                f"{name} looks like a credential, but is not marked secret; to mark it:\n"
                f"      envctl set {environment} {name} --secret   (asks for the value)",
                "yellow",
            )


SET = Command(
    usage=(
        "[ENV] KEY=VALUE... [--secret|--plain]",
        "[ENV] KEY [--raw]",
        "[ENV] --from-file KEY=PATH...",
    ),
    about="""
    Set one or more variables in one atomic commit, and print the new revision. The environment
    is created with its first variable. A bare KEY asks for the value without showing it, or
    reads it from standard input where that is a pipe or a file.

    One final line end of what is piped, or of a file, is not part of the value unless --raw is
    given. A variable that is secret stays secret unless --plain is given.
    """,
    examples=(
        ("envctl set web/prod PORT=8080 LOG_LEVEL=info", "two variables, one commit"),
        ("envctl set web/prod DB_PASSWORD --secret", "asks for the value"),
        ("pass show db | envctl set web/prod DB_PASSWORD --secret", "from another program"),
        ("envctl set web/prod --from-file TLS_KEY=key.pem --secret", "from a file"),
    ),
    run=_set,
    flags=(
        Flag("--secret", "mask these values; showing them takes the right to reveal"),
        Flag("--plain", "these are not secret (lowering takes the right to reveal)"),
        Flag("--raw", "keep the final line end of piped input and files"),
        Flag("--from-file", "the value is what this file holds", "KEY=PATH", repeat=True),
        Flag("--no-create", "fail if the environment does not exist"),
        IF_REVISION,
        *WRITE_FLAGS,
    ),
)
