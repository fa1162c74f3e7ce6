"""Which environment and which variable a command is about.

ENV may be left out where a default is in force: `--env`, else `ENVD_ENVIRONMENT`, else
`.envd.toml` in this directory or the nearest parent that has one, else the environment of
the context. A lone argument with a `/` is ENV, otherwise KEY if such a default is in force, else
ENV. (One with an `@` is ENV@REV, since no variable has an `@` in its name.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from envd.cli.endpoint import chosen_context
from envd.cli.exits import Failed, UsageError
from envd.core.errors import EnvdError, InvalidRequest
from envd.core.names import check_environment, check_variable

if TYPE_CHECKING:
    from envd.cli.invocation import Invocation

DIRECTORY_FILE = ".envd.toml"
_CHOOSE = "name it, or choose one for this directory with: envctl use ENV"


class Default(NamedTuple):
    """The environment where none is named, and who says so."""

    environment: str
    origin: str


class Reference(NamedTuple):
    """An environment, now or `at` a revision."""

    environment: str
    at: str = ""

    def __str__(self) -> str:
        """Say it as it would be typed."""
        return f"{self.environment}@{self.at.removeprefix('@')}" if self.at else self.environment


def default_environment(invocation: Invocation) -> Default | None:
    """The default that is in force; raises where it is no legal name."""
    environ = invocation.world.environ
    for origin, name in (
        ("--env", invocation.arguments.text("--env")),
        ("ENVD_ENVIRONMENT", environ.get("ENVD_ENVIRONMENT", "")),
    ):
        if name:
            return Default(_checked(name, origin, UsageError), origin)
    found = directory_default(invocation.world.cwd)
    if found:
        return found
    context = chosen_context(invocation.arguments, environ)
    if context and context[1].environment:
        origin = f"the context {context[0]}"
        return Default(_checked(context[1].environment, origin, Failed), origin)
    return None


def directory_default(directory: str) -> Default | None:
    """What the nearest `.envd.toml` says, from `directory` upwards."""
    while directory:
        directory = directory.rstrip("/")
        file = f"{directory}/{DIRECTORY_FILE}"
        try:
            with open(file, "rb") as opened:
                return Default(_environment_in(opened.read(65_536), file), file)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            directory = directory.rpartition("/")[0]
        except OSError as error:
            raise Failed(f"can't read {file}: {error.strerror}") from error
    return None


def _environment_in(raw: bytes, file: str) -> str:
    import tomllib

    try:
        environment = tomllib.loads(raw.decode()).get("environment")
    except ValueError as error:
        raise Failed(f"{file} is no TOML: {error}", hint=f"mend or remove {file}") from error
    if not isinstance(environment, str):
        raise Failed(
            f"{file} names no environment", hint='it takes one line: environment = "team/app/dev"'
        )
    return _checked(environment, file, Failed)


def _checked(name: str, origin: str, kind: type[EnvdError]) -> str:
    """Check a name that was not typed as ENV, so the error says where it stands."""
    try:
        return check_environment(name)
    except InvalidRequest as error:
        raise kind(f"{origin}: {error.message}", hint=error.hint, reason=error.reason) from error


def environment_only(text: str) -> str:
    """Read ENV where a revision makes no sense."""
    if "@" in text:
        raise UsageError(
            f"{text[:64]!a} names a revision, and this is about the environment as it is now",
            hint=f"leave out the {'@' + text.partition('@')[2][:40]!a}",
        )
    return check_environment(text)


def environment(invocation: Invocation) -> str:
    """The one word ENV, or the default."""
    words = invocation.take_words(most=1)
    if words:
        return environment_only(words[0])
    return required_default(invocation)


def environment_and_key(invocation: Invocation) -> tuple[Reference, str]:
    """The words `[ENV] [KEY]`; KEY is "" where it was left out."""
    words = invocation.take_words(most=2)
    if len(words) == 2 or (words and is_environment(invocation, words[0])):
        key = check_variable(words[1]) if len(words) == 2 else ""
        return referenced(invocation, words[0]), key
    key = check_variable(words[0]) if words else ""
    return Reference(required_default(invocation)), key


def environment_and_rest(invocation: Invocation) -> tuple[str, list[str]]:
    """The words `[ENV] WORD...`: the first one is judged as a lone argument is."""
    words = invocation.take_words()
    if words and is_environment(invocation, words[0]):
        return environment_only(words[0]), words[1:]
    return required_default(invocation), words


def environment_and_pairs(invocation: Invocation) -> tuple[str, list[str], list[str]]:
    """The words `[ENV] [KEY] NAME=VALUE...` as (ENV, bare KEYs, pairs); ENV comes first.

    Of two words without `=` the first is ENV.
    """
    words = invocation.take_words()
    bare = [word for word in words if "=" not in word]
    first_is_bare = bool(words) and "=" not in words[0]
    if first_is_bare and (len(bare) == 2 or is_environment(invocation, words[0])):
        name, bare = environment_only(bare[0]), bare[1:]
    else:
        name = required_default(invocation)
    return name, bare, [word for word in words if "=" in word]


def is_environment(invocation: Invocation, word: str) -> bool:
    """The rule for a lone argument: ENV with a `/` (or `@`), else KEY if there is a default."""
    return "/" in word or "@" in word or default_environment(invocation) is None


def referenced(invocation: Invocation, text: str) -> Reference:
    """Read `ENV`, `ENV@REV`, or `@REV` of the default environment."""
    name, at_sign, rev = text.partition("@")
    if at_sign and not rev:
        raise UsageError(f"{text[:64]!a} lacks the revision after '@'", hint="as in web/prod@~1")
    if not name and at_sign:
        name = required_default(invocation)
    return Reference(check_environment(name), "@deleted" if rev == "deleted" else rev)


def required_default(invocation: Invocation) -> str:
    """The default environment; raises UsageError where none is in force."""
    default = default_environment(invocation)
    if default is None:
        raise UsageError("no environment is named, and no default is in force", hint=_CHOOSE)
    return default.environment
