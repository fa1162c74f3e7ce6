"""Group 1, values: what is written is read back, to the last character.

A store may refuse values that it can't keep (SSM refuses `{{ }}`, several refuse empty ones). Then
`check` says so before any call; a value that is changed on the way is never right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from envd.backends.contract import Result
from envd.backends.errors import InvalidValue
from envd.testing.harness import Need
from envd.testing.trial import Trial, case

_SCRIPTS: Final = (
    "plain",
    "naïve café",
    "Ünïcödé ẞ ß",
    "e\u0301 and \u00e9",
    "日本語 한국어 中文",
    "עברית العربية",
    "😀 👩‍👩‍👧‍👦 🏴\U000e0067\U000e007f",
    "\ufeffwith a mark at the beginning",
    "\u2028 \u2029 \u0085 \u00a0 \u200b",
)
_LINES: Final = (
    "one\ntwo",
    "one\r\ntwo",
    "one\rtwo",
    "ends with one\n",
    "\nbegins with one",
    "a\ttab",
    "-----BEGIN KEY-----\nMIIB\n-----END KEY-----\n",
)
_CODE_LIKE: Final = (
    "{{x}}",
    "{{ ssm:/other }}",
    "${HOME}",
    "$HOME",
    "$(id)",
    "`id`",
    "%s %d %%",
    '{"a": [1, 2.0, null]}',
    "[1, 2]",
    '"quoted"',
    "'quoted'",
    "null",
    "true",
    "1e5",
    "007",
    "a=b",
    "# no comment",
    "a # b",
    "back\\slash \\n \\",
    "<a href='x'>&amp;</a>",
    "ENC[AES256_GCM,data:x]",
    "key: value",
    "- item",
    "aGVsbG8=",
)
_SPACES: Final = (" before", "after ", "  both  ", "\tboth\t", "\u00a0both\u00a0")


class ValueCases:
    """Values."""

    @case(Need.READABLE)
    async def test_ordinary_text_is_taken_and_reads_back(self, trial: Trial) -> None:
        await trial.put(trial.key(), "postgres://db.internal:5432/app")

        assert await trial.read(trial.key()) == "postgres://db.internal:5432/app"

    @case(Need.READABLE)
    async def test_text_of_all_scripts_reads_back_exactly(self, trial: Trial) -> None:
        await _read_back(trial, _SCRIPTS)

    @case(Need.READABLE)
    async def test_newlines_and_tabs_read_back_exactly(self, trial: Trial) -> None:
        await _read_back(trial, _LINES)

    @case(Need.READABLE)
    async def test_templates_and_json_like_text_read_back_exactly(self, trial: Trial) -> None:
        await _read_back(trial, _CODE_LIKE)

    @case(Need.READABLE)
    async def test_outer_spaces_read_back_exactly(self, trial: Trial) -> None:
        await _read_back(trial, _SPACES)

    @case(Need.READABLE)
    async def test_an_empty_value_reads_back_empty_or_is_refused(self, trial: Trial) -> None:
        await _read_back(trial, ("",))

    @case(Need.READABLE)
    async def test_all_control_characters_read_back_exactly_or_are_refused(
        self, trial: Trial
    ) -> None:
        await _read_back(trial, tuple(f"a{chr(code)}b" for code in range(1, 0x20)))

    @case(Need.READABLE)
    async def test_a_longer_value_is_replaced_by_a_shorter_one_whole(self, trial: Trial) -> None:
        await trial.put(trial.key(), "a long value of many words")

        await trial.put(trial.key(), "short")

        assert await trial.read(trial.key()) == "short"

    @case(Need.READABLE)
    async def test_whether_it_is_secret_is_kept_or_not_told(self, trial: Trial) -> None:
        for secret in (True, False):
            found = await trial.item(trial.key())
            version = found.version if found else ""
            op = trial.put_op(trial.key(), f"secret: {secret}", expect=version)

            outcome = await trial.one(replace(op, secret=secret))

            assert outcome.result is Result.APPLIED
            found = await trial.item(trial.key())
            assert found is not None
            assert found.secret in (None, secret)

    @case()
    async def test_a_write_is_dated_by_a_clock_in_milliseconds_or_not_at_all(
        self, trial: Trial
    ) -> None:
        item = await trial.put(trial.key(), "dated")

        is_plausible = item.changed_ms is None or 10**12 < item.changed_ms < 10**13
        assert is_plausible, "changed_ms is in unix milliseconds"


async def _read_back(trial: Trial, texts: Sequence[str]) -> None:
    """Each text reads back exactly, by name and in a scan, or is refused before any call."""
    for text in texts:
        before = await trial.item(trial.key())
        op = trial.put_op(trial.key(), text, expect=before.version if before else "")
        with trial.uncalled():
            rejects = trial.backend.check([op])
        outcome = await trial.one(op)
        if rejects:
            assert isinstance(rejects[0].error, InvalidValue), f"{text!a} was refused wrongly"
            assert outcome.result is Result.REJECTED, f"{text!a} was refused, and written"
            assert await trial.item(trial.key()) == before
            continue
        assert outcome.result is Result.APPLIED, f"{text!a} was {outcome.result.value}"
        assert await trial.read(trial.key()) == text, f"{text!a} was changed on the way"
        listed = trial.text((await trial.scan()).items[trial.key()])
        assert listed in (None, text), f"{text!a} was changed in a listing"
