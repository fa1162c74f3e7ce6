"""Version ids of Secrets Manager: what they carry, and that nobody else's is taken for one."""

from __future__ import annotations

import hashlib
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.aws_version_id import fits, stamp_of, version_id

_STAMP = "0000000001980c2a5e3f000100000000000000070000ab42.91b3c4d5e6f70819"
_STAMPS = st.text("0123456789abcdef.-", max_size=64) | st.text(
    st.characters(max_codepoint=127), max_size=37
)


@given(_STAMPS, st.text(), st.text())
def test_a_stamp_is_read_back_from_its_id(stamp: str, name: str, attempt: str) -> None:
    assert stamp_of(version_id(stamp, name, attempt)) == stamp


@given(_STAMPS, st.text())
def test_an_id_is_one_that_the_store_takes(stamp: str, attempt: str) -> None:
    made = version_id(stamp, attempt)

    assert len(made) == 64
    assert set(made) <= set(string.ascii_letters + string.digits)


@given(_STAMPS, st.text(), st.text())
def test_a_repeat_has_the_same_id_and_another_attempt_another(
    stamp: str, attempt: str, other: str
) -> None:
    made = version_id(stamp, attempt)

    assert version_id(stamp, attempt) == made
    assert (version_id(stamp, other) == made) == (attempt == other)


def test_the_stamps_of_the_reconciler_fit() -> None:
    assert fits(_STAMP[:57])
    assert fits(_STAMP[:64])


@pytest.mark.parametrize("stamp", ["x" * 38, "0" * 65, "ä"])
def test_a_stamp_that_does_not_fit_is_refused(stamp: str) -> None:
    assert not fits(stamp)
    with pytest.raises(ValueError, match="too long"):
        version_id(stamp)


def test_ids_stay_what_they_are() -> None:
    # Those that are in people's stores must be read for ever.
    assert version_id("1-a", "name", "", "attempt") == (
        "EztFNnGrvcpD7jUdzfW0000000000000000000000000000000000000000001gO"
    )


@pytest.mark.parametrize(
    "identifier",
    ["", str(uuid.UUID(int=7)), "A" * 64, "E" + "0" * 63, "terraform-20250101000000000000000001"],
)
def test_ids_of_others_carry_no_stamp(identifier: str) -> None:
    assert stamp_of(identifier) is None


@given(st.binary())
def test_a_hash_that_another_uses_for_an_id_carries_no_stamp(content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()

    assert stamp_of(digest) is None
    assert stamp_of(digest.upper()) is None


@given(st.integers(0, 63), st.sampled_from(string.ascii_letters + string.digits))
def test_an_id_that_was_changed_carries_no_stamp(place: int, character: str) -> None:
    made = version_id(_STAMP[:57], "attempt")

    changed = made[:place] + character + made[place + 1 :]

    assert stamp_of(changed) == (_STAMP[:57] if changed == made else None)
