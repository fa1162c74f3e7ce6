"""Documents as text: a JSON object of text, the value of an item with layout "document"."""

from __future__ import annotations

import json

from envd.backends.contract import Op
from envd.backends.errors import BackendError, InvalidName, InvalidValue
from envd.backends.naming import shown
from envd.core.errors import EnvdError
from envd.core.names import check_variable


def document(text: str) -> dict[str, str] | None:
    """The variables in a document, None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_text = isinstance(found, dict) and all(map(_is_text, (*found, *found.values())))
    return found if is_text else None


def _is_text(found: object) -> bool:
    """Whether this is text; JSON can also name halves of characters, which no store can keep."""
    if not isinstance(found, str):
        return False
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


def document_problem(op: Op) -> BackendError | None:
    """Why the value of a put can't be a document, None where it can."""
    variables = document(op.value)
    if variables is None:
        return InvalidValue(f"the value of {shown(op.key)} is no JSON object of text")
    if not all(map(is_variable, variables)):
        return InvalidName(f"a name in the document of {shown(op.key)} is none of a variable")
    return None


def is_variable(name: str) -> bool:
    """Whether a variable can be called so."""
    try:
        check_variable(name)
    except EnvdError:
        return False
    return True
