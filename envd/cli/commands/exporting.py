"""`envctl export`: the variables as a file that other programs read."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from envd.cli import exits, sources, target
from envd.cli.exits import UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.core.answers import VariableView
from envd.formats.write import HELD, LOCATING, OUTPUT_FORMATS, REFERRING, render


def _export(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    wanted = invocation.arguments.text("--format") or "dotenv"
    if not invocation.shows_tables():
        raise UsageError(
            "export writes a file, in the format that --format names",
            hint=f"--format {invocation.output}",
        )
    if invocation.arguments.text("--secrets-from") and wanted not in LOCATING:
        raise UsageError(
            f"the format {wanted} does not refer to a place of secrets",
            hint=f"--secrets-from is for {', '.join(LOCATING)}",
        )
    reference = (
        target.referenced(invocation, words[0])
        if words
        else target.Reference(target.required_default(invocation))
    )
    variables = _variables(invocation, reference, withhold=wanted in REFERRING)
    # Of an earlier revision those are masked, too, that were made secret since.
    secret = {name for name, variable in variables.items() if variable.secret or variable.masked}
    text = render(
        {name: variable.value or "" for name, variable in variables.items()},
        format=wanted,
        environment=reference.environment,
        secret=secret,
        secrets_from=invocation.arguments.text("--secrets-from"),
    )
    file = invocation.arguments.text("--file")
    if file and file != "-":
        private = sources.write_file(Path(invocation.world.cwd) / file, text)
        mode = " (mode 0600)" if private else ""
        without = ", none with the value of a secret" if secret and wanted in REFERRING else ""
        invocation.screen.note(f"wrote {len(variables)} variables to {file}{mode}{without}")
    elif invocation.screen.exact(text):
        invocation.screen.note("note: control characters are shown escaped; a pipe gets them")
    return exits.DONE


def _variables(
    invocation: Invocation, reference: target.Reference, *, withhold: bool
) -> dict[str, VariableView]:
    """The variables to write; the right to reveal is needed only where a secret is among them.

    With `withhold` it is not needed at all: a secret has no value then.
    """
    globs = invocation.arguments.texts("--except")
    kept: dict[str, VariableView] = {}
    with invocation.waiting(f"reading {reference}"):
        for reveal in (False,) if withhold else (False, True):
            view = invocation.read(
                reference.environment, at=reference.at, reveal=reveal, resolve=not reference.at
            )
            kept = {
                name: variable
                for name, variable in view.variables.items()
                if not any(fnmatchcase(name, glob) for glob in globs)
            }
            if not any(variable.masked for variable in kept.values()):
                break
    return kept


EXPORT = Command(
    usage=("[ENV[@REV]] [--format FORMAT] [--file PATH]",),
    about=f"""
    Write all variables with their real values, which takes the right to reveal if one of them
    is secret. A file is written at once and readable by you alone (mode 0600). A format that
    can't hold a name or a value exactly refuses it, naming the variable: --except leaves it out.

    systemd is a file for EnvironmentFile=, github-actions is what a step appends to
    $GITHUB_ENV. k8s-secret and k8s-configmap are manifests; the object is named after the
    environment, with '-' for '/', '_' and '.': web/prod becomes web-prod.

    Formats of infrastructure hold no value of a secret, take no right to reveal, and may be
    committed. What is not secret stands in them in clear. A secret is referred to:
    terraform-* and cloudformation or sam by a variable or parameter, whose value is given when it
    is deployed (for Terraform: --format tfvars --file terraform.tfvars);
    {", ".join(LOCATING[:-1])} and {LOCATING[-1]} where it is kept, which is
    --secrets-from. {" and ".join(sorted(HELD))}
    are the exception: their targets take no reference, so these files hold the secrets.
    """,
    examples=(
        ("envctl export web/prod --file .env", "a .env file"),
        ("envctl export web/prod@~1 --format json", "as it was before the last commit"),
        ('eval "$(envctl export web/prod --format shell)"', "into this shell"),
        ("envctl export web/prod --format k8s-secret | kubectl apply -f -", "into Kubernetes"),
        ("envctl export web/prod --format terraform-ssm --file main.tf", "resources, no secrets"),
        ("envctl export web/prod --format ecs --secrets-from /web/prod", "part of a task"),
    ),
    run=_export,
    flags=(
        Flag(
            "--format",
            "default dotenv; the others: " + ", ".join(OUTPUT_FORMATS[1:]),
            "FORMAT",
            "",
            OUTPUT_FORMATS,
        ),
        Flag("--file", "write this file instead of standard output", "PATH"),
        Flag("--except", "leave out variables with names like this", "GLOB", repeat=True),
        Flag(
            "--secrets-from",
            "where the target finds the secrets: a path or ARN (ecs), the beginning of their "
            "names (cloud-run, docker-swarm), a key vault (azure-functions), a path in Vault "
            "(nomad)",
            "PLACE",
        ),
    ),
)
