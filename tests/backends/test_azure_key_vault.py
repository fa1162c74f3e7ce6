"""What `azure-key-vault` makes of a vault, beyond what the conformance kit asks of every store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("azure.keyvault.secrets", reason="pip install 'envd-cluster[azure]'")

from envd.backends.azure_key_vault import SETTLING_S, KeyVaultBackend
from envd.backends.azure_secret import Mark
from envd.backends.contract import Key, Options, Result
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    NotOwned,
    StoreUnsupported,
    Throttled,
)
from tests.backends.driving import delete, do, items, key, one, pages, put, results, values
from tests.backends.fake_azure import fake_credential
from tests.backends.fake_key_vault import FakeKeyVault, fake_key_vault
from tests.backends.tls import certificate

NAME = "web---name"


def _options(vault: FakeKeyVault, place: str = "acme-prod/web", **settings: object) -> Options:
    given = {"ca_file": certificate().ca_file, **settings}
    return Options(place, below=True, settings=given, endpoint=vault.url)


@pytest.fixture
async def vault() -> AsyncIterator[FakeKeyVault]:
    async with fake_key_vault(tls=certificate().context) as running:
        yield running


@pytest.fixture
async def backend(vault: FakeKeyVault) -> AsyncIterator[KeyVaultBackend]:
    made = KeyVaultBackend(_options(vault), credentials=fake_credential)
    await made.open()
    yield made
    await made.close()


# What a secret looks like.


async def test_a_secret_says_whose_it_is_and_keeps_what_others_noted(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    theirs = vault.put(NAME, "theirs", {"team": "web"})
    theirs.content_type = "connection-string"
    seen = (await items(backend))[key("NAME")]

    outcome = await one(
        backend, put("NAME", "ours", expect=seen.version, stamp="1-a", any_owner=True)
    )

    latest = vault.secrets[NAME].latest
    assert outcome.result is Result.APPLIED
    assert latest.tags["managed-by"] == "envd"
    assert latest.tags["team"] == "web"
    assert latest.content_type == "connection-string"
    mark = Mark.of(latest.tags["envd"])
    assert (mark.over, mark.secret, mark.stamp) == (theirs.number, True, "1-a")


async def test_a_variable_that_its_name_does_not_tell_is_in_a_tag(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    await one(backend, put("camelCase", "value"))
    await one(backend, put("NAME", "value"))

    escaped = vault.secrets[backend.encode(key("camelCase"))].latest
    assert escaped.tags["envd-name"] == "camelCase"
    assert escaped.content_type == "text/plain"
    assert "envd-name" not in vault.secrets[NAME].latest.tags


async def test_a_secret_with_capital_letters_is_the_same_one(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.put("WEB---Name", "theirs")

    found = await items(backend)

    assert found[key("NAME")].native == NAME


async def test_more_tags_than_a_secret_takes_are_refused_before_they_are_sent(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.put(NAME, "theirs", {f"tag-{number}": "x" for number in range(14)})
    seen = (await items(backend))[key("NAME")]

    outcome = await one(backend, put("NAME", "ours", expect=seen.version, any_owner=True))

    assert isinstance(outcome.error, InvalidValue)
    assert vault.value(NAME) == "theirs"


# What is not ours to read.


async def test_a_disabled_secret_is_there_and_can_not_be_read(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    await one(backend, put("NAME", "value"))
    seen = (await items(backend))[key("NAME")]
    vault.secrets[NAME].latest.is_enabled = False

    listed = await items(backend)
    read = (await backend.get_many([key("NAME")]))[key("NAME")]
    outcome = await one(backend, put("NAME", "other", expect=seen.version))

    assert listed.keys() == {key("NAME")}, "what is left out of a listing counts as deleted"
    assert isinstance(read, Forbidden)
    assert "disabled" in read.message
    assert outcome.result is Result.REJECTED
    assert not any(each.startswith("DELETE") for each in vault.asked)


async def test_the_secret_of_a_certificate_is_never_ours(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.put(NAME, "a key and a chain", {"managed-by": "envd"})
    vault.secrets[NAME].is_of_certificate = True

    listed = await items(backend)
    read = (await backend.get_many([key("NAME")]))[key("NAME")]
    outcomes = [
        await one(backend, put("NAME", "ours", any_owner=True)),
        await one(backend, delete("NAME", expect="", any_owner=True)),
    ]

    assert listed == {}
    assert isinstance(read, InvalidValue)
    assert [type(each.error) for each in outcomes] == [NotOwned, NotOwned]
    assert vault.writes() == []


# Soft deletion.


async def test_a_deleted_name_is_written_once_the_store_has_recovered_it(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))
    await one(backend, delete("NAME", expect=created.version))
    vault.lag = 3
    again = put("NAME", "second")

    busy = await one(backend, again)
    still = await one(backend, again)
    done = await one(backend, again)

    assert isinstance(busy.error, Throttled)
    assert busy.error.retry_after_s == SETTLING_S
    assert busy.result is Result.FAILED
    assert isinstance(still.error, Throttled)
    assert (done.result, done.overtaken) == (Result.APPLIED, False)
    assert vault.value(NAME) == "second"


async def test_a_recovery_that_ends_between_the_look_and_the_write_overtakes_nobody(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))
    await one(backend, delete("NAME", expect=created.version))
    vault.lag = 2

    busy = await one(backend, put("NAME", "second"))
    done = await one(backend, put("NAME", "second"))

    assert isinstance(busy.error, Throttled)
    assert (done.result, done.overtaken) == (Result.APPLIED, False)


async def test_a_name_that_is_just_being_deleted_is_tried_again_later(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))
    vault.lag = 2
    await one(backend, delete("NAME", expect=created.version))

    outcome = await one(backend, put("NAME", "second"))

    assert isinstance(outcome.error, Throttled)
    assert NAME in vault.deleted


async def test_what_others_recovered_is_a_conflict_for_who_believes_the_name_free(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))
    await one(backend, delete("NAME", expect=created.version))
    vault.secrets[NAME] = vault.deleted.pop(NAME)

    outcome = await one(backend, put("NAME", "second"))

    assert outcome.result is Result.CONFLICT
    assert vault.value(NAME) == "first"


async def test_nothing_is_ever_purged(vault: FakeKeyVault, backend: KeyVaultBackend) -> None:
    for number in range(3):
        created = await one(backend, put("NAME", f"life {number}"))
        await one(backend, delete("NAME", expect=created.version))

    assert [each.value for each in vault.deleted[NAME].versions] == ["life 0", "life 1", "life 2"]


async def test_a_deletion_that_took_a_newer_version_says_so(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))
    vault.before["DELETE"] = lambda: vault.put(NAME, "theirs")

    outcome = await one(backend, delete("NAME", expect=created.version))

    assert (outcome.result, outcome.overtaken) == (Result.APPLIED, True)
    assert vault.deleted[NAME].latest.value == "theirs"


# Who wrote in between.


async def test_our_own_writes_within_one_second_overtake_nobody(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    version = ""
    for number in range(5):
        outcome = await one(backend, put("NAME", str(number), expect=version), attempt=str(number))
        assert (outcome.result, outcome.overtaken) == (Result.APPLIED, False)
        version = outcome.version

    assert len({each.made_s for each in vault.secrets[NAME].versions}) == 1


async def test_what_was_overtaken_once_is_not_told_of_again(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.before["PUT"] = lambda: vault.put(NAME, "theirs")
    created = await one(backend, put("NAME", "first"))

    outcome = await one(backend, put("NAME", "second", expect=created.version), attempt="2")

    assert created.overtaken
    assert len({each.made_s for each in vault.secrets[NAME].versions}) == 1
    assert (outcome.result, outcome.overtaken) == (Result.APPLIED, False)


async def test_an_old_version_of_others_overtook_nobody_later(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.put(NAME, "long ago")
    vault.now_s += 1
    vault.put(NAME, "now")
    seen = (await items(backend))[key("NAME")]

    outcome = await one(backend, put("NAME", "ours", expect=seen.version, any_owner=True))

    assert (outcome.result, outcome.overtaken) == (Result.APPLIED, False)


async def test_all_pages_of_versions_are_looked_through(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    for number in range(60):
        vault.put(NAME, f"old {number}")
        vault.now_s += 1
    seen = (await items(backend))[key("NAME")]
    vault.before["PUT"] = lambda: vault.put(NAME, "theirs")

    outcome = await one(backend, put("NAME", "ours", expect=seen.version, any_owner=True))

    assert outcome.overtaken
    assert outcome.between is not None
    assert outcome.between.value == "theirs"
    assert vault.value(NAME) == "ours"


async def test_who_comes_after_us_is_not_taken_for_overtaken(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))

    def later() -> None:
        vault.before["GET"] = lambda: vault.put(NAME, "theirs")

    vault.before["PUT"] = later
    outcome = await one(backend, put("NAME", "ours", expect=created.version))

    assert (outcome.result, outcome.overtaken, outcome.version) == (Result.APPLIED, False, "")
    assert vault.value(NAME) == "theirs"


async def test_who_was_overtaken_is_told_by_the_repeat_where_the_first_could_not_look(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    created = await one(backend, put("NAME", "first"))

    def others() -> None:
        vault.put(NAME, "theirs")
        vault.throttled = 1

    vault.before["PUT"] = others
    op = put("NAME", "ours", expect=created.version)
    first = await one(backend, op)
    again = await one(backend, op)
    another = await one(backend, op, attempt="another")

    assert isinstance(first.error, Throttled)
    assert first.error.retry_after_s == 1.5
    assert (again.result, again.overtaken) == (Result.APPLIED, True)
    assert again.between is not None
    assert again.between.value == "theirs"
    assert (another.result, another.version) == (Result.NOOP, again.version)
    assert len(vault.secrets[NAME].versions) == 3


# Listings.


async def test_a_cursor_of_elsewhere_is_refused(backend: KeyVaultBackend) -> None:
    with pytest.raises(StoreUnsupported):
        await pages(backend, cursor="https://elsewhere.example/secrets?x=1")


async def test_environments_are_paths(vault: FakeKeyVault, backend: KeyVaultBackend) -> None:
    ops = [put("NAME", each, environment=each) for each in ("eu", "eu/west")]

    outcomes = await do(backend, *ops)

    assert results(outcomes) == ["applied", "applied"]
    assert vault.secrets.keys() == {"web--eu---name", "web--eu--west---name"}


# Logging in.


async def test_a_token_that_the_vault_stops_taking_has_expired(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    await one(backend, put("NAME", "value"))
    vault.is_strict = True

    with pytest.raises(AuthExpired):
        await values(backend)
    vault.is_strict = False

    assert (await values(backend)).keys() == {key("NAME")}


@pytest.mark.parametrize(
    ("place", "usual"),
    [("", ""), ("a", ""), ("-acme", ""), ("acme--prod", ""), ("a" * 25, ""), ("/web", "")],
)
def test_a_place_names_a_vault(place: str, usual: str) -> None:
    with pytest.raises(InvalidName, match="names no Key Vault"):
        KeyVaultBackend(Options(place, settings={"key_vault_name": usual}))


def test_a_place_that_begins_with_a_slash_is_in_the_vault_of_the_settings() -> None:
    settings = {"key_vault_name": "acme-prod"}

    backend = KeyVaultBackend(Options("/web", settings=settings))

    assert backend.encode(Key("", "NAME")) == NAME


async def test_what_was_answered_is_told_nowhere(
    vault: FakeKeyVault, backend: KeyVaultBackend
) -> None:
    vault.secrets.clear()
    errors: list[BackendError] = []

    outcome = await one(backend, put("NAME", "x", stamp="1-a"))
    vault.secrets[NAME].latest.tags = {f"t{n}": "x" * 300 for n in range(3)}
    seen = (await items(backend))[key("NAME")]
    refused = await one(backend, put("NAME", "secret", expect=seen.version, any_owner=True))
    errors += [each.error for each in (outcome, refused) if each.error is not None]

    assert [type(each) for each in errors] == [InvalidValue]
    assert "quote" not in str(errors[0])
    assert errors[0].__cause__ is None
    assert errors[0].__context__ is None
