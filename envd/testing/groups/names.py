"""Group 3, names: every variable has a name of its own in the store, or none at all.

A name that the store can't have is refused before any call. That two variables share a name is
never possible, also where the store takes `foo` and `FOO` for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from envd.backends.contract import Backend, Key, Op, Result, Verb
from envd.backends.errors import BackendError, InvalidName, NameCollision, StoreUnsupported
from envd.testing.harness import Ability, Need
from envd.testing.trial import NAME, Trial, case

_ORDINARY: Final = ("DATABASE_URL", "POOL_SIZE", "AWS_REGION", "S3_BUCKET", "LOG_LEVEL")
_SIMILAR: Final = (
    *("A_B", "A-B", "A.B", "A__B", "A--B", "A_-B", "AB", "a_b", "a-b", "a.b", "ab"),
    *("foo", "FOO", "Foo", "fOO", "X__", "x__", "X--", "x--", "_", "__", "_A", "A_", "A-", "A."),
    *("X__GE", "x--ge", "_5F", "A_5FB", "A_2DB", "A..B", "PATH", "envd", "ENVD", "latest"),
    *("AWSCURRENT", "default", "con", "nul", "a.json", "CamelCase", "camelCase", "V0", "v0"),
)
_ENVIRONMENTS: Final = (
    "",
    "app",
    "app2",
    "app-2",
    "app/web",
    "app-web",
    "app.web",
    "app_web",
    "a/p",
)
_DEEP: Final = "a/b/c/d/e/f/g/h"
_LONGEST: Final = 255


class NameCases:
    """Names."""

    @case()
    async def test_ordinary_names_have_a_name_in_the_store(self, trial: Trial) -> None:
        for name in _ORDINARY:
            key = trial.key() if trial.is_document else Key("", name)

            assert trial.backend.decode(trial.backend.encode(key)) == key

    @case()
    async def test_every_name_that_is_encoded_decodes_to_itself(self, trial: Trial) -> None:
        for key in _keys(trial):
            native = _native(trial, key)

            if native is not None:
                assert trial.backend.decode(native) == key, f"{native!a} is decoded wrongly"

    @case()
    async def test_no_two_variables_have_one_name_in_the_store(self, trial: Trial) -> None:
        seen: dict[str, Key] = {}
        for key in _keys(trial):
            native = _native(trial, key)
            if native is not None:
                other = seen.setdefault(native, key)
                assert other == key, f"{other} and {key} are both {native!a}"

    @case(Ability.BELOW, below=True)
    async def test_no_two_variables_of_different_environments_have_one_name(
        self, trial: Trial
    ) -> None:
        seen: dict[str, Key] = {}
        for key in _keys(trial):
            native = _native(trial, key)
            if native is not None:
                other = seen.setdefault(native, key)
                assert other == key, f"{other} and {key} are both {native!a}"
                assert trial.backend.decode(native) == key

    @case(Need.MANY)
    async def test_every_name_that_is_encoded_is_taken_and_listed(self, trial: Trial) -> None:
        keys = [key for key in _keys(trial) if _native(trial, key) is not None]
        taken: dict[Key, str] = {}
        for number, key in enumerate(keys[: trial.backend.limits.max_items or None]):
            op = trial.put_op(key, f"value {number}")
            collides = any(
                isinstance(each.error, NameCollision)
                for each in trial.backend.check([*(trial.put_op(old, "x") for old in taken), op])
            )
            outcome = await trial.one(op)
            if outcome.result is Result.APPLIED:
                taken[key] = f"value {number}"
            else:
                assert isinstance(outcome.error, NameCollision), f"{key} was not taken"
                assert collides, f"check does not know that {key} collides"

        listed = await trial.scan()

        assert listed.complete
        assert listed.live.keys() == taken.keys()
        for key, text in taken.items():
            assert await trial.read(key) in (None, text), f"{key} was overwritten by another"

    @case()
    async def test_names_that_are_no_variables_are_refused_before_any_call(
        self, trial: Trial
    ) -> None:
        for key in (Key("", "1st"), Key("", "a b"), Key("", "a/b"), Key("", "ä"), Key("Up", NAME)):
            await _is_refused(trial, key)

    @case()
    async def test_a_name_that_is_too_long_is_refused_before_any_call(self, trial: Trial) -> None:
        await _is_refused(trial, Key("", "N" * (_LONGEST + 1)))

    @case(Need.NAME_LIMIT)
    async def test_names_in_the_store_are_never_longer_than_it_says(self, trial: Trial) -> None:
        for length in range(1, _LONGEST + 1):
            native = None if trial.is_document else _native(trial, Key("", "N" * length))
            if native is not None:
                assert len(native.encode()) <= trial.backend.limits.max_name_bytes

    @case()
    async def test_the_longest_name_is_taken_or_refused_before_any_call(self, trial: Trial) -> None:
        if trial.is_document:
            key = Key("e" * 200 if trial.options.below else "", "")
        else:
            key = Key("", "N" * _LONGEST)

        await _is_taken_or_refused(trial, key)

    @case(Ability.BELOW, below=True)
    async def test_the_deepest_environment_is_taken_or_refused_before_any_call(
        self, trial: Trial
    ) -> None:
        await _is_taken_or_refused(trial, Key(_DEEP, "" if trial.is_document else "NAME_1"))

    @case(Need.BATCHES)
    async def test_one_illegal_name_among_others_is_the_only_one_that_check_refuses(
        self, trial: Trial
    ) -> None:
        good = trial.put_op(trial.key(), "good")
        bad = trial.put_op(Key("", "no name"), "bad")

        rejects = trial.backend.check([good, bad])

        assert [each.op for each in rejects] == [bad]

    @case(Ability.OTHERS, Ability.FOREIGN_NAMES)
    async def test_names_of_others_are_not_ours_and_do_not_spoil_a_scan(self, trial: Trial) -> None:
        await trial.put(trial.key(), "ours")
        for native in trial.harness.foreign:
            await trial.harness.others_put(native, trial.value("theirs"))

        found = await trial.scan()

        assert found.complete
        assert found.items.keys() == {trial.key()}
        assert [trial.backend.decode(native) for native in trial.harness.foreign] == [None] * len(
            trial.harness.foreign
        )

    @case(Ability.TEMPLATES, Ability.BELOW, below=True)
    async def test_a_template_that_folds_two_variables_into_one_name_is_refused(
        self, trial: Trial
    ) -> None:
        try:
            backend = await trial.another(
                name_template="all" if trial.is_document else "{variable}"
            )
        except (InvalidName, NameCollision, StoreUnsupported):
            return
        variable = "" if trial.is_document else "NAME_1"
        ops = [trial.put_op(Key(each, variable), each) for each in ("app", "web")]
        if len({_native_in(backend, op.key) for op in ops} - {None}) == len(ops):
            return  # The environment is in the name all the same.

        async with trial.unwritten():
            rejects = backend.check(ops)
            outcomes = [await trial.one(each.op, backend=backend) for each in rejects]

        assert rejects, "two variables were given one name"
        assert all(isinstance(each.error, InvalidName | NameCollision) for each in rejects)
        assert all(each.result is Result.REJECTED for each in outcomes)


def _keys(trial: Trial) -> Iterator[Key]:
    """Keys whose names are easily taken for one another."""
    environments = _ENVIRONMENTS if trial.options.below else ("",)
    if trial.is_document:
        yield from (Key(environment, "") for environment in environments)
        return
    for environment, name in product(environments, (*_ORDINARY, *_SIMILAR)):
        yield Key(environment, name)


def _native(trial: Trial, key: Key) -> str | None:
    return _native_in(trial.backend, key)


def _native_in(backend: Backend, key: Key) -> str | None:
    """The name in the store, None where there is none; any other error is wrong."""
    try:
        return backend.encode(key)
    except InvalidName:
        return None


async def _is_refused(trial: Trial, key: Key) -> None:
    op = Op(Verb.PUT, key, "", trial.value("x"))
    with trial.uncalled():
        assert _native(trial, key) is None, f"{key} has a name in the store"
        rejects = trial.backend.check([op])
    async with trial.unwritten():
        outcome = await trial.one(op)

    assert [type(each.error) for each in rejects] == [InvalidName], f"check lets {key} through"
    assert outcome.result is Result.REJECTED
    assert isinstance(outcome.error, InvalidName)


async def _is_taken_or_refused(trial: Trial, key: Key) -> None:
    if _native(trial, key) is None:
        await _is_refused(trial, key)
        return
    outcome = await trial.one(trial.put_op(key, "x"))
    assert outcome.result is Result.APPLIED
    found: BackendError | object = (await trial.scan()).items.get(key)
    assert found is not None, f"{key} was written, and is not listed"
