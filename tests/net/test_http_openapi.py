"""The OpenAPI document says what the server does: its routes, its shapes, its statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import hdrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.net.http_world import ENVIRONMENT, Http
from tests.net.world import TOKEN

PATH = "/v1/openapi.json"
METHODS = {"get", "put", "post", "patch", "delete"}


async def document_of(http: Http) -> dict[str, Any]:
    """The document as it is served."""
    answer = await http.ask("GET", PATH)
    assert answer.status == 200
    document: dict[str, Any] = answer.document
    return document


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, operation)."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(node: object) -> Iterator[str]:
    """Every $ref below a node."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for name, item in node.items():
            if name == "$ref":
                yield item
            yield from references(item)


async def test_every_route_is_in_the_document_and_every_path_is_a_route(http: Http) -> None:
    document = await document_of(http)

    told = {(method, path) for method, path, _ in operations_of(document)}
    routes = http.server._application().router.routes()
    registered = {
        (route.method, route.resource.canonical)
        for route in routes
        if route.resource is not None and route.method != hdrs.METH_HEAD
    }
    assert told == registered
    assert ("PUT", "/v1/environments/{name}") in told


async def test_the_document_is_whole(http: Http) -> None:
    document = await document_of(http)

    schemas = document["components"]["schemas"]
    names = {reference.rpartition("/")[2] for reference in references(document)}
    ids = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    assert all(one.startswith("#/components/schemas/") for one in references(document))
    assert names == schemas.keys()
    assert len(ids) == len(set(ids))
    for item in document["paths"].values():
        assert item.keys() <= METHODS
    for _, path, operation in operations_of(document):
        parameters = operation["parameters"]
        keys = [(one["in"], one["name"]) for one in parameters]
        assert len(keys) == len(set(keys))
        assert all(one["schema"] and one["description"] for one in parameters)
        assert (("path", "name") in keys) == ("{name}" in path)
        assert "200" in operation["responses"]
        assert all(one["description"] for one in operation["responses"].values())


async def test_only_probes_are_open(http: Http) -> None:
    document = await document_of(http)

    opened = {path for _, path, operation in operations_of(document) if "security" in operation}
    assert opened == {"/livez", "/readyz"}
    for path in document["paths"]:
        answer = await http.ask("GET", path.replace("{name}", "a"), token="")
        assert (answer.status == 200) == (path in opened)


async def test_a_body_has_no_fields_but_those_of_its_shape(http: Http) -> None:
    document = await document_of(http)

    for method, path, operation in operations_of(document):
        if "requestBody" in operation:
            (content,) = operation["requestBody"]["content"].values()
            name = content["schema"]["$ref"].rpartition("/")[2]
            schema = document["components"]["schemas"][name]
            place = path.replace("{name}", "a")
            refused = await http.ask(method, place, {"no_such_field": 1})
            hint = refused.document["hint"]

            assert schema["additionalProperties"] is False
            assert hint == f"there are {', '.join(sorted(schema['properties']))}"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/livez", None),
        ("GET", "/v1/environments", None),
        ("GET", ENVIRONMENT, None),
        ("PUT", ENVIRONMENT, {"variables": {"A": {"value": "x", "secret": True}}}),
        ("PATCH", ENVIRONMENT, {"set": {"A": "1"}}),
        ("GET", "/v1/history/web/prod", None),
        ("POST", "/v1/rollback/web/prod", {"to": "@~0"}),
        ("GET", "/v1/status", None),
        ("DELETE", ENVIRONMENT, None),
        ("DELETE", "/v1/environments/none", None),
    ],
)
async def test_what_is_answered_has_the_shape_that_is_told(
    http: Http, method: str, path: str, body: object
) -> None:
    document = await document_of(http)
    await http.node.put("web/prod", A="1", SECRET_B="2")

    answer = await http.ask(method, path, body)

    told = path.replace("web/prod", "{name}").replace("none", "{name}")
    response = document["paths"][told][method.lower()]["responses"][str(answer.status)]
    schema = response["content"][answer.headers["Content-Type"]]["schema"]
    assert_fits(document, schema, answer.document)


def assert_fits(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Assert that a value has the shape of a schema, and no field beside it."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        kind, nothing = schema["anyOf"]
        assert nothing == {"type": "null"}
        if value is not None:
            assert_fits(document, kind, value)
        return
    if "enum" in schema:
        assert value in schema["enum"]
        return
    python = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    assert isinstance(value, python[schema["type"]])
    if isinstance(value, list):
        for item in value:
            assert_fits(document, schema["items"], item)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= value.keys() <= schema["properties"].keys()
        for name, item in value.items():
            assert_fits(document, schema["properties"][name], item)
    elif isinstance(value, dict):
        for item in value.values():
            assert_fits(document, schema["additionalProperties"], item)


async def test_an_expectation_that_is_not_known_is_a_problem_that_quotes_nothing(
    http: Http,
) -> None:
    for path in (ENVIRONMENT, "/no/such"):
        received = await http.raw(
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Expect: canary\r\nConnection: close\r\n\r\n".encode()
        )

        assert received.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")
        assert b"application/problem+json" in received
        assert b"no-store" in received
        assert b"canary" not in received


# -- whatever is asked -----------------------------------------------------------------

TEXTS = st.sampled_from(["", "a", "web/prod", "A", "@~0", "@deleted", "true", "1", "0", "*"])
ANYTHING = TEXTS | st.text(max_size=12)
NAMES = st.sampled_from(["web/prod", "a", "a//b", "sys/x", "A", "..", "%"]) | st.text(min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANYTHING,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["A", "B", "value", "secret", "1"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = ["set", "unset", "variables", "to", "message", "operation", "other"]
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(
    lambda document: json.dumps(document).encode()
) | st.binary(max_size=32)
QUERIES = st.dictionaries(
    st.sampled_from(
        [
            "prefix",
            "after",
            "limit",
            "variable",
            "before",
            "at",
            "reveal",
            "resolve",
            "message",
            "operation",
        ]
    ),
    ANYTHING,
    max_size=2,
)
HEADERS = st.dictionaries(
    st.sampled_from(["If-Match", "If-None-Match"]),
    st.sampled_from(["*", '"x"', "x", '"00000000000000000000000000000000"', 'W/"x", "y"', ""]),
    max_size=2,
)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_whatever_is_asked_the_answer_is_one_that_the_document_tells_of(
    http: Http, data: st.DataObject
) -> None:
    document = await document_of(http)
    listed = [one for one in operations_of(document) if one[1] != "/v1/watch"]
    method, path, operation = data.draw(st.sampled_from(listed))
    name = quote(data.draw(NAMES), safe="/", errors="replace")
    query = urlencode(data.draw(QUERIES), errors="replace")
    body = data.draw(BODIES) if method not in {"GET", "DELETE"} else None
    await http.node.put("web/prod", A="1")

    answer = await http.ask(
        method, f"{path.format(name=name)}?{query}", body, headers=data.draw(HEADERS)
    )

    elsewhere = answer.status in {404, 405} and answer.reason in {
        "NO_SUCH_RESOURCE",
        "METHOD_NOT_ALLOWED",
    }
    assert elsewhere or str(answer.status) in operation["responses"]
    assert answer.status < 500
    assert http.server.faults == 0
