"""REST over a real server: environments listed, replaced and deleted, their past and back to it."""

from __future__ import annotations

import pytest

from envd.core.names import MAX_VARIABLES
from tests.net.http_world import ENVIRONMENT, Http
from tests.net.world import CANARY, READER_TOKEN

HISTORY = "/v1/history/web/prod"
ROLLBACK = "/v1/rollback/web/prod"
NEVER = '"00000000000000000000000000000000"'


async def values(http: Http) -> dict[str, str | None]:
    """The variables of web/prod, revealed."""
    answer = await http.ask("GET", f"{ENVIRONMENT}?reveal=true")
    return {name: view["value"] for name, view in answer.document["variables"].items()}


# -- PUT -------------------------------------------------------------------------------


async def test_a_put_replaces_the_environment_whole(http: Http) -> None:
    await http.node.put("web/prod", A="1", B="old", SECRET_C="old")

    answer = await http.ask(
        "PUT",
        ENVIRONMENT,
        {
            "variables": {"B": "new", "SECRET_C": "new", "D": {"value": CANARY, "secret": True}},
            "message": "why",
            "operation": "op-1",
        },
    )

    shown = await http.ask("GET", ENVIRONMENT)
    (commit, _) = http.node.store.commits("web/prod", None, 10)
    secret = {name: view["secret"] for name, view in shown.document["variables"].items()}
    assert answer.status == 200
    assert answer.headers["ETag"] == shown.headers["ETag"] == f'"{answer.document["revision"]}"'
    assert await values(http) == {"B": "new", "SECRET_C": "new", "D": CANARY}
    assert secret == {"B": False, "SECRET_C": True, "D": True}
    assert (commit.message, commit.operation, commit.author) == ("why", "op-1", "admin")


async def test_a_put_creates_and_may_be_as_large_as_an_environment(http: Http) -> None:
    variables = {f"X{at}": "" for at in range(MAX_VARIABLES)}

    answer = await http.ask("PUT", ENVIRONMENT, {"variables": variables})

    assert answer.status == 200
    assert len(await values(http)) == MAX_VARIABLES


async def test_a_put_of_nothing_empties_what_is_there_and_is_not_found_elsewhere(
    http: Http,
) -> None:
    absent = await http.ask("PUT", ENVIRONMENT, {"variables": {}})
    created = await http.ask("PUT", ENVIRONMENT, {"variables": {}}, headers={"If-None-Match": "*"})
    await http.node.put("web/prod", A="1")
    emptied = await http.ask("PUT", ENVIRONMENT, {"variables": {}})

    assert (absent.status, absent.reason) == (404, "ENVIRONMENT_NOT_FOUND")
    assert (created.status, emptied.status) == (200, 200)
    assert await values(http) == {}


@pytest.mark.parametrize("tags", ['"{}"', f'{NEVER}, "{{}}"', "*"])
async def test_a_put_is_made_on_the_revision_that_if_match_names(http: Http, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")

    answer = await http.ask(
        "PUT", ENVIRONMENT, {"variables": {"B": "2"}}, headers={"If-Match": tags.format(revision)}
    )

    assert answer.status == 200
    assert await values(http) == {"B": "2"}


@pytest.mark.parametrize("tags", [NEVER, f'{NEVER}, "1"', 'W/"{}"', '"{short}"'])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_on_another_revision_is_stale(http: Http, method: str, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")
    header = tags.format(revision, short=revision[:12])
    body = {"variables": {"B": "2"}} if method == "PUT" else None

    answer = await http.ask(method, ENVIRONMENT, body, headers={"If-Match": header})

    assert (answer.status, answer.reason) == (412, "STALE_REVISION")
    assert await values(http) == {"A": "1"}


@pytest.mark.parametrize("tags", ["*", NEVER, f'{NEVER}, "1"'])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_if_match_never_holds_for_what_does_not_exist(
    http: Http, method: str, tags: str
) -> None:
    body = {"variables": {"B": "2"}} if method == "PUT" else None

    answer = await http.ask(method, ENVIRONMENT, body, headers={"If-Match": tags})

    assert (answer.status, answer.reason) == (412, "STALE_REVISION")


async def test_if_none_match_puts_only_what_is_new(http: Http) -> None:
    headers = {"If-None-Match": "*"}

    created = await http.ask("PUT", ENVIRONMENT, {"variables": {"A": "1"}}, headers=headers)
    again = await http.ask("PUT", ENVIRONMENT, {"variables": {"A": "2"}}, headers=headers)

    assert created.status == 200
    assert (again.status, again.reason) == (412, "STALE_REVISION")
    assert await values(http) == {"A": "1"}


async def test_a_patch_sets_and_removes_settings_in_the_same_commit(http: Http) -> None:
    await http.node.put("base", B="base")
    body = {"set": {"A": "1"}, "metadata": {"extends": "base", "owner": "ann"}}

    await http.ask("PATCH", ENVIRONMENT, body)
    resolved = await http.ask("GET", f"{ENVIRONMENT}?resolve=true")
    await http.ask("PATCH", ENVIRONMENT, {"metadata": {"extends": None}})
    after = await http.ask("GET", ENVIRONMENT)

    assert resolved.document["metadata"] == {"extends": "base", "owner": "ann"}
    assert set(resolved.document["variables"]) == {"A", "B"}
    assert after.document["metadata"] == {"owner": "ann"}


@pytest.mark.parametrize("tags", ['"{}"', f'"{{}}", {NEVER}'])
async def test_a_put_repeated_with_its_operation_is_done_once(http: Http, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")
    headers = {"If-Match": tags.format(revision)}
    body = {"variables": {"B": "2"}, "operation": "op-1"}

    first = await http.ask("PUT", ENVIRONMENT, body, headers=headers)
    second = await http.ask("PUT", ENVIRONMENT, body, headers=headers)

    assert (first.status, first.document) == (200, second.document)
    assert len(http.node.store.commits("web/prod", None, 10)) == 2


# -- DELETE ----------------------------------------------------------------------------


async def test_a_delete_removes_the_environment_and_leaves_its_history(http: Http) -> None:
    revision = await http.node.put("web/prod", A="1")
    path = f"{ENVIRONMENT}?message=no%20more&operation=op-1"

    deleted = await http.ask("DELETE", path, headers={"If-Match": f'"{revision}"'})
    again = await http.ask("DELETE", path)
    gone = await http.ask("GET", ENVIRONMENT)
    other = await http.ask("DELETE", ENVIRONMENT)
    (newest, _) = (await http.ask("GET", HISTORY)).document["commits"]

    assert deleted.status == 200
    assert again.document == {**deleted.document, "precondition": ""}
    assert (gone.status, other.status) == (404, 404)
    assert (newest["deleted"], newest["message"]) == (True, "no more")


async def test_a_delete_takes_no_body_and_no_if_none_match(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    body = await http.ask("DELETE", ENVIRONMENT, {"message": "why"})
    header = await http.ask("DELETE", ENVIRONMENT, headers={"If-None-Match": "*"})

    assert (body.status, body.reason) == (400, "MALFORMED")
    assert (header.status, header.reason) == (400, "INVALID_ETAG")
    assert await values(http) == {"A": "1"}


# -- lists -----------------------------------------------------------------------------


async def test_environments_are_listed_in_the_shape_of_the_contract_page_by_page(
    http: Http,
) -> None:
    revision = await http.node.put("web/prod", A="1", B="2")
    for name in ("web/test", "web/zero", "other"):
        await http.node.put(name, A="1")

    first = (await http.ask("GET", "/v1/environments?prefix=web&limit=2")).document
    rest = (await http.ask("GET", f"/v1/environments?prefix=web&after={first['next']}")).document
    everything = (await http.ask("GET", "/v1/environments")).document

    assert first["environments"][0] == {
        "environment": "web/prod",
        "revision": revision,
        "variables": 2,
    }
    assert (first["next"], first["partial"]) == ("web/test", False)
    assert [one["environment"] for one in rest["environments"]] == ["web/zero"]
    assert rest["next"] == ""
    assert len(everything["environments"]) == 4


# -- the past --------------------------------------------------------------------------


async def test_history_is_told_newest_first_page_by_page(http: Http) -> None:
    for at in range(3):
        await http.node.put("web/prod", **{"A": str(at), f"B{at}": CANARY})

    first = (await http.ask("GET", f"{HISTORY}?limit=2")).document
    rest = (await http.ask("GET", f"{HISTORY}?before={first['next']}")).document
    of_one = (await http.ask("GET", f"{HISTORY}?variable=B1")).document

    (newest, _) = first["commits"]
    assert {"revision", "stamp", "time", "actor", "message", "changes"} <= newest.keys()
    assert {change["variable"] for change in newest["changes"]} == {"A", "B2"}
    assert len(rest["commits"]) == len(of_one["commits"]) == 1
    assert (rest["next"], rest["trimmed"]) == ("", False)
    assert CANARY not in str(first)


async def test_a_rollback_writes_an_earlier_state_again(http: Http) -> None:
    old = await http.node.put("web/prod", A="1", B="1")
    now = await http.node.put("web/prod", A="2", B="2")

    part = await http.ask(
        "POST",
        ROLLBACK,
        {"to": old, "variables": ["A"], "message": "why", "operation": "op-1"},
        headers={"If-Match": f'"{now}"'},
    )
    after_part = await values(http)
    whole = await http.ask("POST", ROLLBACK, {"to": old[:8]})

    assert (part.status, after_part) == (200, {"A": "1", "B": "2"})
    assert await values(http) == {"A": "1", "B": "1"}
    assert whole.headers["ETag"] == f'"{whole.document["revision"]}"'


async def test_a_rollback_brings_back_what_was_deleted(http: Http) -> None:
    await http.node.put("web/prod", A="1")
    await http.ask("DELETE", ENVIRONMENT)

    answer = await http.ask("POST", ROLLBACK, {"to": "@deleted"})

    assert answer.status == 200
    assert await values(http) == {"A": "1"}


async def test_a_rollback_on_another_revision_is_stale(http: Http) -> None:
    old = await http.node.put("web/prod", A="1")
    await http.node.put("web/prod", A="2")

    answer = await http.ask("POST", ROLLBACK, {"to": old}, headers={"If-Match": f'"{old}"'})
    existing = await http.ask("POST", ROLLBACK, {"to": old}, headers={"If-Match": "*"})

    assert (answer.status, answer.reason) == (412, "STALE_REVISION")
    assert (existing.status, existing.reason) == (400, "INVALID_ETAG")


async def test_a_rollback_to_what_never_was_is_not_found(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    revision = await http.ask("POST", ROLLBACK, {"to": "00000000"})
    variable = await http.ask("POST", ROLLBACK, {"to": "@~0", "variables": ["B"]})

    assert (revision.status, revision.reason) == (404, "REVISION_NOT_FOUND")
    assert (variable.status, variable.reason) == (404, "VARIABLE_NOT_FOUND")


async def test_the_status_tells_figures_and_who_asks(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    status = (await http.ask("GET", "/v1/status", token=READER_TOKEN)).document

    assert (status["node"], status["environments"]) == ("node-1", 1)
    assert (status["identity"], status["authenticated_by"]) == ("reader", "token")


# -- refusals --------------------------------------------------------------------------

BAD_WRITES: list[tuple[str, str, object, str]] = [
    ("PUT", ENVIRONMENT, {}, "INVALID_FIELD"),
    ("PUT", ENVIRONMENT, {"set": {"A": CANARY}}, "UNKNOWN_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": ["A"]}, "INVALID_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": None}, "INVALID_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": {"A": 1}}, "INVALID_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": {"A": None}}, "INVALID_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": {"A": {"value": None}}}, "MASKED_VALUE"),
    ("PUT", ENVIRONMENT, {"variables": {"A": {"value": CANARY, "node": "n"}}}, "UNKNOWN_FIELD"),
    ("PUT", ENVIRONMENT, {"variables": {"1A": CANARY}}, "INVALID_NAME"),
    ("PUT", ENVIRONMENT, {"variables": {"A": CANARY + "\0"}}, "INVALID_VALUE"),
    ("PUT", ENVIRONMENT, {"variables": {f"A{at}": "" for at in range(4097)}}, "LIMIT_EXCEEDED"),
    ("PUT", ENVIRONMENT, {"variables": {"A": "1"}, "message": 1}, "INVALID_FIELD"),
    ("PUT", f"{ENVIRONMENT}?message=x", {"variables": {"A": "1"}}, "UNKNOWN_PARAMETER"),
    ("DELETE", f"{ENVIRONMENT}?to=x", None, "UNKNOWN_PARAMETER"),
    ("DELETE", f"{ENVIRONMENT}?operation={'x' * 129}", None, "LIMIT_EXCEEDED"),
    ("DELETE", f"{ENVIRONMENT}?message=%00", None, "INVALID_REQUEST"),
    ("POST", ROLLBACK, {}, "INVALID_FIELD"),
    ("POST", ROLLBACK, {"to": 1}, "INVALID_FIELD"),
    ("POST", ROLLBACK, {"to": ""}, "INVALID_REVISION"),
    ("POST", ROLLBACK, {"to": "\ud800"}, "INVALID_REVISION"),
    ("POST", ROLLBACK, {"to": "@~0", "variables": "A"}, "INVALID_FIELD"),
    ("POST", ROLLBACK, {"to": "@~0", "variables": [1]}, "INVALID_FIELD"),
    ("POST", ROLLBACK, {"to": "@~0", "variables": ["1A"]}, "INVALID_NAME"),
    ("POST", ROLLBACK, {"to": "@~0", "variables": ["A"] * 4097}, "LIMIT_EXCEEDED"),
    ("POST", ROLLBACK, {"to": "@~0", "from": "x"}, "UNKNOWN_FIELD"),
    ("GET", "/v1/environments?limit=0", None, "INVALID_FIELD"),
    ("GET", "/v1/environments?limit=10001", None, "INVALID_FIELD"),
    ("GET", "/v1/environments?limit=%D9%A1", None, "INVALID_FIELD"),
    ("GET", "/v1/environments?limit=" + "9" * 5000, None, "INVALID_FIELD"),
    ("GET", "/v1/environments?prefix=A", None, "INVALID_NAME"),
    ("GET", "/v1/environments?after=%FF", None, "INVALID_NAME"),
    ("GET", f"{HISTORY}?before=what", None, "INVALID_TOKEN"),
    ("GET", f"{HISTORY}?limit=-1", None, "INVALID_FIELD"),
    ("GET", f"{HISTORY}?variable=1A", None, "INVALID_NAME"),
    ("GET", "/v1/status?verbose=true", None, "UNKNOWN_PARAMETER"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    BAD_WRITES,
    ids=[f"{n}" for n in range(len(BAD_WRITES))],
)
async def test_a_request_that_makes_no_sense_is_refused_and_quotes_no_value(
    http: Http,
    method: str,
    path: str,
    body: object,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await http.node.put("web/prod", A="1")

    answer = await http.ask(method, path, body)

    assert (answer.status, answer.reason) == (400, reason)
    assert CANARY.encode() not in answer.body
    assert CANARY not in caplog.text
    assert await values(http) == {"A": "1"}
    assert http.server.faults == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/environments", "GET, HEAD"),
        ("POST", ENVIRONMENT, "DELETE, GET, HEAD, PATCH, PUT"),
        ("PUT", HISTORY, "GET, HEAD"),
        ("GET", ROLLBACK, "POST"),
        ("OPTIONS", "/v1/watch", "GET"),
        ("DELETE", "/v1/status", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_resource_lacks_is_told_with_those_it_has(
    http: Http, method: str, path: str, allowed: str
) -> None:
    answer = await http.ask(method, path)

    assert (answer.status, answer.reason) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", ENVIRONMENT, {"variables": {"A": "2"}}),
        ("DELETE", ENVIRONMENT, None),
        ("POST", ROLLBACK, {"to": "@~0"}),
    ],
)
async def test_a_reader_changes_nothing(http: Http, method: str, path: str, body: object) -> None:
    await http.node.put("web/prod", A="1")

    answer = await http.ask(method, path, body, token=READER_TOKEN)

    assert (answer.status, answer.reason) == (403, "RIGHT_MISSING")
    assert await values(http) == {"A": "1"}


async def test_a_key_that_stands_twice_in_a_large_body_is_found_soon(http: Http) -> None:
    pairs = ",".join(f'"A{at}":""' for at in range(300_000))

    answer = await http.ask(
        "PUT", ENVIRONMENT, f'{{"variables":{{{pairs},"Z":"","Z":""}}}}'.encode()
    )

    assert (answer.status, answer.reason) == (400, "MALFORMED")
    assert "'Z'" in answer.document["detail"]
