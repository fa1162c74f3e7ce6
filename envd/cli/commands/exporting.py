"""`envctl export`: the variables as a file that other programs read."""

from __future__ import annotations

from pathlib import Path

from envd.cli import exits, sources, target
from envd.cli.exits import UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.formats.write import OUTPUT_FORMATS, render


def _export(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    wanted = invocation.arguments.text("--format") or "dotenv"
    if not invocation.shows_tables():
        raise UsageError(
            "export writes a file, in the format that --format names",
            hint=f"--format {invocation.output}",
        )
    reference = (
        target.referenced(invocation, words[0])
        if words
        else target.Reference(target.required_default(invocation))
    )
    with invocation.waiting(f"reading {reference}"):
        view = invocation.read_real(
            reference.environment, at=reference.at, resolve=not reference.at
        )
    values = {name: variable.value or "" for name, variable in view.variables.items()}
    text = render(values, format=wanted, environment=reference.environment)
    file = invocation.arguments.text("--file")
    if file and file != "-":
        private = sources.write_file(Path(invocation.world.cwd) / file, text)
        mode = " (mode 0600)" if private else ""
        invocation.screen.note(f"wrote {len(values)} variables to {file}{mode}")
    elif invocation.screen.exact(text):
        invocation.screen.note("note: control characters are shown escaped; a pipe gets them")
    return exits.DONE


EXPORT = Command(
    usage=("[ENV[@REV]] [--format FORMAT] [--file PATH]",),
    about="""
    Write all variables with their real values, which takes the right to reveal if one of them
    is secret. A file is written at once and readable by you alone (mode 0600). A format that
    can't hold a value exactly refuses it, naming the variable.

    systemd is a file for EnvironmentFile=, github-actions is what a step appends to
    $GITHUB_ENV. k8s-secret and k8s-configmap are manifests; the object is named after the
    environment, with '-' for '/', '_' and '.': web/prod becomes web-prod.
    """,
    examples=(
        ("envctl export web/prod --file .env", "a .env file"),
        ("envctl export web/prod@~1 --format json", "as it was before the last commit"),
        ('eval "$(envctl export web/prod --format shell)"', "into this shell"),
        ("envctl export web/prod --format k8s-secret | kubectl apply -f -", "into Kubernetes"),
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
    ),
)
