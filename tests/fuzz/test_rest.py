"""REST, as its own OpenAPI document tells of it: schemathesis makes requests that fit, and
requests that do not, and checks every answer against the document."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)

from tests.fuzz.victim import Victim, fuzzing

STREAM = "/v1/watch"
OPERATIONS = (
    "isAlive",
    "isReady",
    "getMetrics",
    "getStatus",
    "listEnvironments",
    "getEnvironment",
    "replaceEnvironment",
    "changeEnvironment",
    "deleteEnvironment",
    "getHistory",
    "rollbackEnvironment",
    "listConflicts",
    "getConflicts",
    "resolveConflicts",
    "listMembers",
    "getTopology",
    "getOpenApi",
)
ALWAYS_VALID = ("isAlive", "isReady")
"""Whatever is asked of these, it fits: a probe may add what it likes."""
UNCHECKED = [ignored_auth, positive_data_acceptance]
"""Not told by a schema: which names exist, that a write must change something."""


def document_of(daemon: Victim) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {daemon.token}"}
    answer = requests.get(f"{daemon.http}/v1/openapi.json", headers=headers, timeout=30)
    document: dict[str, Any] = answer.json()
    return document


def operation_ids(document: dict[str, Any]) -> dict[str, str]:
    """The path of every operation by its id."""
    return {
        operation["operationId"]: path
        for path, item in document["paths"].items()
        for operation in item.values()
    }


def test_every_operation_is_fuzzed(daemon: Victim) -> None:
    ids = operation_ids(document_of(daemon))

    assert {one for one, path in ids.items() if path != STREAM} == set(OPERATIONS)


def test_the_document_is_valid(daemon: Victim) -> None:
    from jsonschema_rs import Draft202012Validator, meta

    document = document_of(daemon)

    schemathesis.openapi.from_dict(document).validate()
    for schema in document["components"]["schemas"].values():
        meta.validate(schema)
        Draft202012Validator({**schema, "components": document["components"]})


def excluded(case: Any, response: Any) -> list[Any]:
    """The checks that say nothing of this case.

    A body that does not fit must be refused, unless a precondition that does not hold or a
    foreign Host was told before it. Unknown headers are passed over, as HTTP has it, and a
    query may say `reveal` for `reveal=true`, which no schema can tell.
    """
    body = case.meta.components.get(ParameterLocation.BODY)
    must_refuse = body is not None and body.mode.is_negative
    if must_refuse and response.status_code not in {412, 421}:
        return UNCHECKED
    return [*UNCHECKED, negative_data_rejection]


@pytest.mark.parametrize(
    ("operation_id", "mode"),
    [(one, GenerationMode.POSITIVE) for one in OPERATIONS]
    + [(one, GenerationMode.NEGATIVE) for one in OPERATIONS if one not in ALWAYS_VALID],
)
def test_every_answer_is_one_that_the_document_tells_of(
    daemon: Victim, operation_id: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(document_of(daemon))
    operation = schema.find_operation_by_id(operation_id)
    strategy = operation.as_strategy(generation_mode=mode)

    @fuzzing(everyday=15)
    @given(case=strategy, known=st.booleans())
    def check(case: Any, known: bool) -> None:
        if known and mode is GenerationMode.POSITIVE and "name" in case.path_parameters:
            case.path_parameters["name"] = "web/prod"
        headers = {"Authorization": f"Bearer {daemon.token}"}
        response = case.call(base_url=daemon.http, headers=headers, timeout=30)
        case.validate_response(response, excluded_checks=excluded(case, response))

    check()

    daemon.answers()
