"""`envctl list`: which environments there are."""

from __future__ import annotations

from dataclasses import replace

from envd.cli import exits
from envd.cli.exits import PartlyDone
from envd.cli.grammar import Command
from envd.cli.invocation import Invocation, short
from envd.client.connection import Connection
from envd.core.answers import ListPage
from envd.core.names import check_prefix
from envd.core.requests import ListRequest
from envd.wire.plain import to_plain


def whole_list(connection: Connection, prefix: str) -> ListPage:
    """Every page as one; `partial` if one of them was, with each reason once."""
    request = ListRequest(prefix)
    pages = [connection.list(request)]
    while pages[-1].next:
        pages.append(connection.list(replace(request, after=pages[-1].next)))
    reasons = dict.fromkeys(page.partial_reason for page in pages if page.partial_reason)
    return ListPage(
        tuple(each for page in pages for each in page.environments),
        partial=any(page.partial for page in pages),
        partial_reason="; ".join(reasons),
    )


def _list(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    prefix = check_prefix(words[0]) if words else ""
    found = whole_list(invocation.connection, prefix)
    if not invocation.shows_tables():
        invocation.document(to_plain(found))
    elif found.environments:
        invocation.screen.table(
            ("ENVIRONMENT", "VARIABLES", "REVISION"),
            [
                (each.environment, str(each.variables), short(each.revision))
                for each in found.environments
            ],
        )
    elif not found.partial:
        below = f" below {prefix}" if prefix else ""
        invocation.screen.note(f"there are no environments{below} yet")
    if found.partial:
        reason = found.partial_reason or "some partitions did not answer"
        raise PartlyDone(f"the list is not whole: {reason}")
    return exits.DONE


LIST = Command(
    usage=("[PREFIX]",),
    about="""
    List the environments, or those below a prefix. A prefix is made of whole segments: 'web'
    lists web and web/prod, and not website. Where some of the cluster did not answer, the list
    says so and the exit code is 7.
    """,
    examples=(
        ("envctl list", "all of them"),
        ("envctl list payments", "payments, payments/prod, payments/api/prod, ..."),
        ("envctl list -o json | jq -r '.environments[].environment'", "the names, for programs"),
    ),
    run=_list,
)
