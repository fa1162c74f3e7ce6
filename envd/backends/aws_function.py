"""A function of AWS Lambda as a place: its name, its variables, and the tag that tells of envd.

The tag `envd` of a function says what envd did last to its variables:

    put 9f2c...e1 0197a3c4d5e6.0001.07       these variables, by their hash, with this stamp
    delete 9f2c...e1                         all of them, as they were

It is written by a call of its own before the variables are, so it counts only for what it names: a
stamp for the variables that it was given to, and a deletion until there are other variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from envd.backends.contract import Item, Key, Limits, PriceSheet
from envd.backends.errors import Forbidden, InvalidName, InvalidValue, StoreUnavailable

MAX_BYTES: Final = 4096
"""Of all variables of a function together, as JSON."""
LIMITS: Final = Limits(
    max_value_bytes=MAX_BYTES,
    max_name_bytes=140,
    max_items=1,
    batch=1,
    get_batch=1,
    # An account has 15 calls a second of all of Lambda's control plane together. A function can't
    # be changed again until the change before is in force, which takes some seconds.
    reads_per_s=5.0,
    writes_per_s=1.0,
    burst=5,
    writes_per_item_per_s=0.1,
    concurrency=4,
)
PRICES: Final = PriceSheet("aws", "Lambda", "2026-09-20", source="AWS Lambda Pricing")
TAG: Final = "envd"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ARN = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
_RESERVED: Final = ("AWS_", "LAMBDA_", "_")
_ROOT: Final = Key("", "")
_MARK = re.compile(r"(?P<did>put|delete) (?P<print>\S+)(?: (?P<stamp>\S*))?")


class FunctionName:
    """The one name of a place that is a function, which is its own."""

    def __init__(self, place: str) -> None:
        """Raise InvalidName for what is no function, or is a version or an alias of one."""
        if not (_NAME.fullmatch(place) or _ARN.fullmatch(place)):
            raise InvalidName(
                "this is not the name of a function",
                hint="give its name, or its ARN without a version or alias: only $LATEST changes",
            )
        self.function = place

    def encode(self, key: Key) -> str:
        """The function, for the one document that it holds; InvalidName for any other key."""
        if key != _ROOT:
            raise InvalidName("a function holds the variables of one environment, and none below")
        return self.function

    def decode(self, native: str) -> Key | None:
        return _ROOT if native == self.function else None


def is_reserved(name: str) -> bool:
    """Whether a variable is AWS's to set, or tells Lambda itself what to do.

    Those are not envd's: they are neither shown nor written, and stay as they are.
    """
    return name.startswith(_RESERVED)


@dataclass(frozen=True, slots=True)
class Function:
    """A function as it was found.

    `variables` are those that envd sees, `reserved` the others. `version` is the hash of the
    former, "" without any. `revision` is Lambda's own, which changes with anything about it.
    """

    arn: str
    revision: str
    is_updating: bool
    version: str
    text: str = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    reserved: Mapping[str, str] = field(repr=False)

    @staticmethod
    def of(found: Mapping[str, Any], name: str, fingerprint: Callable[[str], str]) -> Function:
        """That of an answer; raises Forbidden where AWS could not decrypt the variables."""
        arn, revision = found.get("FunctionArn"), found.get("RevisionId")
        if not isinstance(arn, str) or not isinstance(revision, str):
            raise StoreUnavailable(f"{name}: an answer that tells of no function")
        environment = found.get("Environment") or {}
        if environment.get("Error"):
            raise Forbidden(
                f"the variables of {name} can't be decrypted, so nobody knows which there are",
                hint="allow envd kms:Decrypt with the key of the function",
            )
        held = environment.get("Variables") or {}
        variables = {key: value for key, value in held.items() if not is_reserved(key)}
        return Function(
            arn,
            revision,
            found.get("LastUpdateStatus") == "InProgress" or found.get("State") == "Pending",
            version_of(variables, fingerprint),
            json.dumps(variables, ensure_ascii=False),
            variables,
            {key: value for key, value in held.items() if is_reserved(key)},
        )

    def item(self, native: str, tags: Mapping[str, Any]) -> Item:
        """The document of a function that has variables."""
        mark = Mark.of(tags)
        return Item(
            _ROOT,
            native,
            self.version,
            value=self.text,
            managed=mark.owns(self.version),
            stamp=mark.stamp if mark.print == self.version else "",
        )


def version_of(variables: Mapping[str, str], fingerprint: Callable[[str], str]) -> str:
    """The version of these variables, in whatever order; "" for none."""
    return fingerprint(json.dumps(variables, sort_keys=True)) if variables else ""


def parsed(text: str) -> dict[str, str] | InvalidValue:
    """The variables of a document, or why a function can't have them; no value is told."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        return InvalidValue("the variables of a function are a JSON object of text")
    for name in found:
        if is_reserved(name):
            return InvalidValue(
                f"AWS reserves names that begin with AWS_, LAMBDA_ or _, so no function has {name}"
            )
        if not _VARIABLE.fullmatch(name):
            return InvalidValue(
                f"a function can't have a variable {name}",
                hint="names have two letters, digits and _ at least, beginning with a letter",
            )
    return found


def size_of(variables: Mapping[str, str]) -> int:
    """What AWS measures: the bytes of these variables as JSON, without spaces."""
    return len(json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode())


@dataclass(frozen=True, slots=True)
class Mark:
    """What the tag says; `did` is "" for a function that has none."""

    did: str = ""
    print: str = ""
    stamp: str = ""

    @staticmethod
    def of(tags: Mapping[str, Any]) -> Mark:
        found = _MARK.fullmatch(str(tags.get(TAG, "")))
        if found is None:
            return Mark()
        return Mark(found["did"], found["print"], _plain(found["stamp"] or ""))

    def owns(self, version: str) -> bool:
        """Whether variables of this version are counted as envd's."""
        return self.did == "put" or (self.did == "delete" and self.print == version)

    @property
    def text(self) -> str:
        """As the value of a tag, which may have at most 256 of few characters."""
        stamp = f" {_quoted(self.stamp)}" if self.stamp else ""
        return f"{self.did} {self.print}{stamp}"


def _quoted(stamp: str) -> str:
    """A stamp in what a tag may hold: anything but letters, digits, `.`, `-` and `_` as `=XX`."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f"={ord(found[0]):02X}", stamp)


def _plain(quoted: str) -> str:
    return re.sub(r"=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), quoted)
