"""What makes a write the same as another one under its operation id."""

from __future__ import annotations

from envd.core.commit import Kind
from envd.core.requests import Put, Unset, WriteRequest
from envd.node.operations import request_digest
from envd.wire import api
from tests.node.conftest import DIGEST_KEY

SETTING = Put("owner", "ops", kind=Kind.METADATA)
OTHER = Put("description", "the web", kind=Kind.METADATA)
VARIABLE = Put("PORT", "8080")


def digest_of(*puts: Put, unsets: tuple[Unset, ...] = (), operation: str = "op") -> bytes:
    request = WriteRequest("web/prod", puts, unsets, operation=operation)
    return request_digest(request, DIGEST_KEY)


def test_a_write_is_the_same_in_whichever_order_settings_and_variables_come() -> None:
    assert digest_of(SETTING, VARIABLE, OTHER) == digest_of(VARIABLE, OTHER, SETTING)


def test_a_write_is_the_same_on_the_node_that_it_is_handed_to() -> None:
    unsets = (Unset("labels", Kind.METADATA), Unset("HOST"))
    request = WriteRequest("web/prod", (SETTING, VARIABLE, OTHER), unsets, operation="op")

    handed = api.write_from(api.write_message(request))

    assert request_digest(handed, DIGEST_KEY) == request_digest(request, DIGEST_KEY)


def test_the_order_of_variables_makes_another_write_as_it_did() -> None:
    assert digest_of(VARIABLE, Put("HOST", "a")) != digest_of(Put("HOST", "a"), VARIABLE)


def test_a_variable_is_no_setting_of_the_same_name() -> None:
    assert digest_of(Put("owner", "ops")) != digest_of(SETTING)
