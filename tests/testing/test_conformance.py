"""The conformance kit sees what is wrong: a broken backend fails the case that is meant for it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from envd.backends.contract import Backend, Options
from envd.backends.errors import BackendError
from envd.testing.conformance import (
    CASES,
    GROUPS,
    BackendConformance,
    Harness,
    ScriptedHarness,
)
from envd.testing.report import REASON
from tests.testing import broken
from tests.testing.broken import Around, BrokenHarness
from tests.testing.memory_harness import (
    ETCD_LIKE,
    KEY_VAULT_LIKE,
    MEMORY,
    PROFILES,
    SSM_LIKE,
    VAULT_LIKE,
    MemoryHarness,
    Profile,
)

_SEEN = (AssertionError, pytest.fail.Exception)


def run(name: str, harness: Harness) -> None:
    """Run one case."""
    getattr(BackendConformance(), f"test_{name}")(harness)


@pytest.mark.parametrize(
    ("kind", "profile", "case"),
    [
        # 1 values
        (broken.StripsSpaces, MEMORY, "outer_spaces_read_back_exactly"),
        (broken.StripsSpaces, SSM_LIKE, "outer_spaces_read_back_exactly"),
        # 2 sizes
        (broken.CutsValues, SSM_LIKE, "a_value_over_the_limit_is_refused_before_any_call"),
        (broken.CutsValues, SSM_LIKE, "sizes_count_bytes_and_not_characters"),
        # 3 names
        (broken.FoldsCase, MEMORY, "no_two_variables_have_one_name_in_the_store"),
        (broken.FoldsCase, MEMORY, "every_name_that_is_encoded_decodes_to_itself"),
        (
            broken.DecodesWhatIsNotItsOwn,
            MEMORY,
            "names_of_others_are_not_ours_and_do_not_spoil_a_scan",
        ),
        # 4 listing
        (broken.SaysCompleteAfterOnePage, SSM_LIKE, "one_more_than_a_page_is_listed"),
        (broken.SaysCompleteAfterOnePage, MEMORY, "two_hundred_and_fifty_items_are_listed"),
        (broken.SaysCompleteOnEachPage, SSM_LIKE, "only_the_last_page_is_complete"),
        (broken.StopsAtEmptyPages, SSM_LIKE, "empty_pages_are_not_the_end"),
        (broken.MatchesPrefixesOfText, MEMORY, "environments_with_similar_names_are_apart"),
        # 5 versions
        (broken.LosesCas, MEMORY, "a_stale_write_is_refused_and_changes_nothing"),
        (broken.RetriesConflicts, VAULT_LIKE, "of_sixteen_writers_one_wins"),
        (broken.LosesCas, MEMORY, "creating_twice_is_a_conflict"),
        (
            broken.HidesWhomItOvertook,
            KEY_VAULT_LIKE,
            "a_stale_write_is_refused_or_says_whom_it_overtook",
        ),
        (
            broken.HidesWhomItOvertook,
            SSM_LIKE,
            "of_sixteen_writers_at_most_one_believes_it_was_alone",
        ),
        (broken.WritesAgain, MEMORY, "an_equal_value_is_not_written_again"),
        # 6 stamps
        (broken.DropsStamps, MEMORY, "a_stamp_reads_back"),
        (broken.DropsStamps, ETCD_LIKE, "a_stamp_survives_a_restart"),
        # 7 idempotency
        (broken.WritesAgain, MEMORY, "a_repeat_of_what_was_answered_writes_nothing_more"),
        (broken.LosesCas, MEMORY, "a_repeat_does_not_undo_what_others_wrote_since"),
        # 8 batches
        (broken.AnswersInReverse, MEMORY, "outcomes_come_in_the_order_of_their_operations"),
        (
            broken.SaysThatAllIsDone,
            MEMORY,
            "when_item_seven_of_twenty_fails_each_outcome_is_true",
        ),
        (broken.SaysThatAllIsDone, MEMORY, "more_operations_than_fit_are_answered_one_by_one"),
        (broken.SaysThatAllIsDone, ETCD_LIKE, "an_atomic_batch_is_done_whole_or_not_at_all"),
        # 9 deletes
        (broken.LosesCas, MEMORY, "a_stale_delete_is_refused"),
        (broken.DeletesWhatOthersMade, MEMORY, "what_others_created_is_not_deleted"),
        (broken.DeletesWhatOthersMade, MEMORY, "what_others_created_is_not_overwritten"),
        (
            broken.TakesDeniedForEmpty,
            MEMORY,
            "a_denied_listing_is_an_error_and_no_empty_place",
        ),
        # 10 faults
        (
            broken.EndsQuietly,
            SSM_LIKE,
            "credentials_that_expire_during_a_scan_end_it_with_an_error",
        ),
        (broken.TakesDeniedForEmpty, MEMORY, "what_is_forbidden_is_refused"),
        (
            broken.ForgetsHowLongToWait,
            MEMORY,
            "throttling_tells_how_long_to_wait_where_the_store_says",
        ),
        (broken.SaysThatAllIsDone, MEMORY, "a_write_whose_reply_is_lost_may_be_done"),
        # 11 watch
        (broken.TellsNoChanges, MEMORY, "a_change_is_hinted_at"),
        (broken.StopsWatching, ETCD_LIKE, "a_change_is_hinted_at"),
        # 12 hygiene
        (broken.ShowsValues, MEMORY, "no_value_is_in_a_repr"),
        (broken.LogsValues, MEMORY, "no_value_is_in_a_log_or_on_the_screen"),
        (broken.QuotesValues, MEMORY, "no_value_is_in_an_error_or_in_what_led_to_it"),
        (broken.ChainsValues, MEMORY, "no_value_is_in_an_error_or_in_what_led_to_it"),
        (broken.LeavesATask, MEMORY, "close_leaves_no_task_and_no_thread"),
        (broken.LeavesAThread, MEMORY, "close_leaves_no_task_and_no_thread"),
        # 13 cost
        (broken.PredictsHalf, SSM_LIKE, "scans_of_more_than_a_page_take_the_predicted_calls"),
        (broken.PredictsHalf, MEMORY, "changes_take_the_predicted_calls"),
    ],
)
def test_a_broken_backend_fails_the_case_that_is_meant_for_it(
    kind: type[Around], profile: Profile, case: str
) -> None:
    run(case, MemoryHarness(profile))

    with pytest.raises(_SEEN):
        run(case, BrokenHarness(profile, kind))


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        (broken.RaisesHalfWay, "a_value_that_is_refused_does_not_raise_half_way"),
        (broken.RaisesInAProbe, "a_probe_tells_what_is_wrong_and_never_raises"),
    ],
)
def test_a_backend_that_raises_where_it_may_not_fails(kind: type[Around], case: str) -> None:
    with pytest.raises(BackendError):
        run(case, BrokenHarness(MEMORY, kind))


def test_every_group_has_cases_and_a_broken_backend() -> None:
    marks = test_a_broken_backend_fails_the_case_that_is_meant_for_it.pytestmark  # type: ignore[attr-defined]
    tried = {CASES[f"test_{case}"].group for _, _, case in marks[0].args[1]}

    assert tried == {case.group for case in CASES.values()}
    assert len(tried) == len(GROUPS) == 13


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_what_is_skipped_names_the_backend_what_it_lacks_and_why(profile: Profile) -> None:
    lacks = set()
    for name in CASES:
        case = name.removeprefix("test_")
        if case not in ("a_stamp_reads_back", "a_change_is_hinted_at", "a_scan_brings_the_values"):
            continue
        try:
            run(case, MemoryHarness(profile))
        except pytest.skip.Exception as skipped:
            match = REASON.fullmatch(str(skipped))
            assert match is not None
            assert match["backend"] == profile.name
            lacks.add(match["lacks"])

    assert lacks <= {"STAMPS", "WATCH", "LIST_VALUES"}


def test_a_harness_that_says_no_reason_fails_the_case() -> None:
    class Silent(MemoryHarness):
        @property
        def why(self) -> Mapping[str, str]:
            return {}

    with pytest.raises(AssertionError, match="does not say why"):
        run("a_change_is_hinted_at", Silent(SSM_LIKE))


def test_a_case_can_not_be_replaced() -> None:
    with pytest.raises(TypeError, match="test_a_stale_delete_is_refused"):
        type("TestMine", (BackendConformance,), {"test_a_stale_delete_is_refused": None})


def test_what_a_case_opened_is_closed_and_ended_though_it_fails() -> None:
    happened: list[str] = []

    class Closing(Around):
        async def close(self) -> None:
            happened.append("closed")
            await self.inner.close()

    class Noted(BrokenHarness):
        async def end(self) -> None:
            happened.append("ended")

    class Losing(Closing, broken.LosesCas):
        pass

    with pytest.raises(AssertionError):
        run("a_stale_delete_is_refused", Noted(MEMORY, Losing))

    assert happened == ["closed", "ended"]


async def test_a_harness_tells_which_of_its_promises_is_missing() -> None:
    class Unfinished(ScriptedHarness):
        pass

    harness = Unfinished()

    with pytest.raises(NotImplementedError, match="Unfinished has no backend"):
        await harness.make(Options("x"))
    with pytest.raises(NotImplementedError, match="Unfinished has no contents"):
        await harness.contents()


def test_a_broken_backend_is_a_backend() -> None:
    harness = MemoryHarness(MEMORY)

    assert isinstance(Around(harness.backend(Options("x"))), Backend)
