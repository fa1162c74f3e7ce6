"""`envctl login` and `whoami`: the credential, and who it makes the caller."""

from __future__ import annotations

from envd.cli import contexts, endpoint, exits, offline
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.client.discovery import DEFAULT_LISTEN

_DEFAULT_CONTEXT = "default"
_MAX_TOKEN_BYTES = 4096


def _login(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    environ = invocation.world.environ
    known = contexts.load(environ)
    wanted = invocation.arguments.text("--context")
    name = wanted or known.current or _DEFAULT_CONTEXT
    before = known.named.get(name, contexts.Context())
    server = (
        invocation.arguments.text("--server")
        or ("" if wanted else environ.get("ENVD_ADDR", ""))
        or before.server
        or DEFAULT_LISTEN
    )
    addresses = endpoint.addresses(server, "--server")
    token = _token(invocation, server)
    connection = invocation.world.connect(
        endpoint.Endpoint(addresses, token, mend="name the node with --server HOST:PORT")
    )
    try:
        status = connection.status()
    finally:
        connection.close()
    kept = before._replace(server=server, token=token, token_file="")
    contexts.save(environ, contexts.Contexts(name, {**known.named, name: kept}))
    offline.renew(invocation, before.token, token)
    if invocation.shows_tables():
        screen = invocation.screen
        screen.line(f"logged in to {status.node} ({server}) as {status.identity}")
        screen.line(f"the current context is {name} ({contexts.path(environ)})")
    else:
        invocation.document(
            {"context": name, "server": server, "node": status.node, "identity": status.identity}
        )
    return exits.DONE


def _token(invocation: Invocation, server: str) -> str:
    arguments, stdin = invocation.arguments, invocation.world.stdin
    given = arguments.text("--token")
    if given and arguments.on("--token-stdin"):
        raise UsageError("--token and --token-stdin exclude each other")
    if not given and arguments.on("--token-stdin"):
        given = stdin.read(_MAX_TOKEN_BYTES)
    elif not given:
        if not stdin.isatty():
            raise UsageError(
                "nobody can be asked for the token, since standard input is no terminal",
                hint="envctl login --token-stdin < FILE",
            )
        try:
            given = invocation.world.ask_secret(f"token for {server}: ")
        except EOFError:
            given = ""
    token = given.strip()
    if not token:
        raise Failed("no token was given; nothing was stored")
    if not (token.isascii() and token.isprintable()):
        raise Failed("what was given holds characters that no token has; nothing was stored")
    return token


def _whoami(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    connection = invocation.connection
    status = connection.status()
    rows = {
        "identity": status.identity,
        "authenticated_by": status.authenticated_by,
        "node": status.node,
        "address": connection.address,
    }
    if invocation.shows_tables():
        for name, value in rows.items():
            invocation.screen.line(f"{name.replace('_', ' '):<18}{value}")
    else:
        invocation.document(rows)
    if status.insecure:
        invocation.screen.note("warning: the node is insecure: it checks no credentials")
    return exits.DONE


LOGIN = Command(
    usage=("[--server HOST:PORT[,...]] [--context NAME] [--token-stdin]",),
    about="""
    Ask for a token, try it on the node, and store both in the current context, or in the one
    that --context names, which becomes the current one. The file is readable by you alone. A
    token that does not hold is not stored.

    On the machine of the node itself no login is needed: the Unix socket knows who you are.
    """,
    examples=(
        ("envctl login --server envd.example.com:7420 --context prod", "asks for the token"),
        ("envctl login --token-stdin < token", "in a script"),
    ),
    run=_login,
    flags=(Flag("--token-stdin", "read the token from standard input"),),
)
WHOAMI = Command(
    usage=("",),
    about="""
    Show who the node takes you for, how you proved it, which node it is and how it is reached.
    """,
    examples=(
        ("envctl whoami", "on the node that is used here"),
        ("envctl whoami --context prod", "on another one"),
    ),
    run=_whoami,
)
