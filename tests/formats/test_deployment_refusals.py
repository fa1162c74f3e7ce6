"""What a target forbids is refused by name, with what to do, before anything is written."""

from __future__ import annotations

import re

import pytest

from envd.core.errors import InvalidRequest
from envd.formats.write import LOCATING, OUTPUT_FORMATS, REFERRING, render
from tests.formats.deployed import READERS, VAULT, Found, resources_of, variables_of

CANARY = "canary-78-value"

NAMES: list[tuple[str, str, str]] = [
    ("terraform-ssm", "A.B", "no Terraform variable"),
    ("terraform-ssm", "for_each", "keeps for itself"),
    ("terraform-ssm", "ssm_prefix", "keeps for itself"),
    ("terraform-key-vault", "A.B", "no secret of a key vault"),
    ("terraform-key-vault", "K" * 128, "no secret of a key vault"),
    ("terraform-key-vault", "key_vault_id", "keeps for itself"),
    ("terraform-secret-manager", "A.B", "no secret of Secret Manager"),
    ("terraform-secret-manager", "K" * 250, "no secret of Secret Manager"),
    ("terraform-secret-manager", "project", "keeps for itself"),
    ("terraform-vault", "A.B", "no Terraform variable"),
    ("terraform-vault", "vault_path", "keeps for itself"),
    ("cloudformation", "AWS_REGION", "Lambda keeps for itself"),
    ("cloudformation", "_HANDLER", "Lambda keeps for itself"),
    ("cloudformation", "A-B", "Lambda does not take"),
    ("cloudformation", "_A", "Lambda does not take"),
    ("cloudformation", "A", "Lambda does not take"),
    ("sam", "AWS_ACCESS_KEY_ID", "Lambda keeps for itself"),
    ("sam", "A.B", "Lambda does not take"),
    ("cloud-run", "PORT", "Cloud Run keeps for itself"),
    ("cloud-run", "K_SERVICE", "Cloud Run keeps for itself"),
    ("cloud-run", "X_GOOGLE_A", "Cloud Run keeps for itself"),
    ("azure-functions", "A.B", "app setting can't have"),
    ("azure-functions-local", "A-B", "app setting can't have"),
    ("azure-container-instances", "A-B", "container instance can't have"),
    ("nomad", "A-B", "Nomad would change"),
]

SECRET_NAMES: list[tuple[str, str, str]] = [
    ("cloudformation", "ROLE_ARN", "would be called RoleArn"),
    ("cloudformation", "IMAGE_URI", "would be called ImageUri"),
    ("cloudformation", "FUNCTION", "would be called Function,"),
    ("sam", "FUNCTION_ROLE", "would be called FunctionRole,"),
    ("sam", "IMAGE_URI", "would be called ImageUri"),
    ("cloud-run", "A.B", "no secret can have there"),
    ("cloud-run", "K" * 250, "no secret can have there"),
    ("docker-swarm", "K" * 60, "no secret can have there"),
    ("azure-functions", "K" * 128, "no secret of a key vault"),
]

VALUES: list[tuple[str, str, str]] = [
    ("terraform-ssm", "", "is empty"),
    ("terraform-ssm", CANARY + "{{x}}", "which the Parameter Store refuses"),
    ("terraform-ssm", CANARY + "e\u0301", "form NFC"),
    ("terraform-ssm", CANARY + "é" * 2048, "longer than the 4 KiB"),
    ("terraform-key-vault", CANARY + "x" * 25 * 1024, "longer than the 25 KiB"),
    ("terraform-secret-manager", "", "is empty"),
    ("terraform-secret-manager", CANARY + "x" * (1 << 16), "longer than the 64 KiB"),
    ("terraform-vault", CANARY + "e\u0301", "form NFC"),
    ("cloudformation", CANARY + "{{resolve:ssm:x}}", "which CloudFormation would fill in"),
    ("cloud-run", CANARY + "x" * 32_768, "longer than the 32 KiB"),
    ("azure-functions", f"@Microsoft.KeyVault(VaultName={CANARY})", "which Azure would fill in"),
    ("azure-functions", f" @microsoft.appconfiguration({CANARY})", "which Azure would fill in"),
    ("nomad", CANARY + "${attr.cpu.arch}", "which Nomad would fill in"),
    ("nomad", CANARY + "e\u0301", "form NFC"),
]

TOGETHER: list[tuple[str, int, int]] = [
    # (format, bytes of each of eight values, as many as it takes)
    ("cloudformation", 600, 480),
    ("sam", 600, 480),
    ("ecs", 8192, 8000),
    ("terraform-vault", 70_000, 65_536),
]


def write(format_name: str, variables: dict[str, str], *secret: str) -> str:
    vault = VAULT if format_name == "azure-functions" and secret else ""
    return render(
        variables,
        format=format_name,
        environment="web/prod",
        secret=secret,
        secrets_from=vault,
    )


@pytest.mark.parametrize(("format_name", "name", "why"), NAMES)
@pytest.mark.parametrize("is_secret", [False, True])
def test_a_name_that_the_target_forbids_is_refused_with_what_to_do(
    format_name: str, name: str, why: str, is_secret: bool
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(name)} .*({why})") as caught:
        write(format_name, {"FINE": "x", name: CANARY}, *([name] if is_secret else []))

    assert caught.value.hint == f"leave it out: --except {name}"
    assert caught.value.reason == "INEXPRESSIBLE"
    assert CANARY not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(("format_name", "name", "why"), SECRET_NAMES)
def test_a_name_that_only_a_secret_can_not_have_is_refused_for_a_secret(
    format_name: str, name: str, why: str
) -> None:
    if format_name not in ("azure-functions", "docker-swarm") and len(name) < 100:
        assert write(format_name, {name: "x"})
    with pytest.raises(InvalidRequest, match=f"^{re.escape(name)} .*{why}"):
        write(format_name, {name: CANARY}, name)


@pytest.mark.parametrize(("format_name", "value", "why"), VALUES)
def test_a_value_that_the_target_can_not_hold_is_refused_by_name(
    format_name: str, value: str, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^THE_ONE .*{re.escape(why)}") as caught:
        write(format_name, {"FINE": "x", "THE_ONE": value})

    assert CANARY not in caught.value.message + caught.value.hint
    assert write(format_name, {"THE_ONE": value}, "THE_ONE")


@pytest.mark.parametrize(("format_name", "too_many", "most"), TOGETHER)
def test_more_than_the_target_holds_together_is_refused(
    format_name: str, too_many: int, most: int
) -> None:
    names = [f"VALUE_{number}" for number in range(8)]

    assert write(format_name, dict.fromkeys(names, "x" * most))
    with pytest.raises(InvalidRequest, match=r"^the (variables|values) ") as caught:
        write(format_name, dict.fromkeys(names, "x" * too_many))
    assert "--except" in caught.value.hint


def test_lambda_counts_its_variables_as_json() -> None:
    room = 4096 - len('{"NAME":""}')

    assert write("sam", {"NAME": "x" * room})
    with pytest.raises(InvalidRequest, match="4096 bytes"):
        write("sam", {"NAME": "x" * (room + 1)})
    with pytest.raises(InvalidRequest, match="4096 bytes"):
        write("sam", {"NAME": '"' * (room // 2 + 1)})


def test_a_template_has_no_more_parameters_than_it_may() -> None:
    names = [f"S{number}" for number in range(199)]

    assert write("sam", dict.fromkeys(names, ""), *names)
    with pytest.raises(InvalidRequest, match="200 parameters"):
        write("cloudformation", dict.fromkeys(names, ""), *names)


def test_cloud_run_takes_a_thousand_variables() -> None:
    names = [f"V{number}" for number in range(1001)]

    assert write("cloud-run", dict.fromkeys(names[:1000], ""))
    with pytest.raises(InvalidRequest, match="1000 variables"):
        write("cloud-run", dict.fromkeys(names, ""))


@pytest.mark.parametrize(
    ("format_name", "first", "second"),
    [
        ("terraform-key-vault", "A_B", "a-b"),
        ("azure-functions", "A_B", "a_b"),
        ("azure-functions-local", "A_B", "a_B"),
        ("cloudformation", "API_KEY", "API__KEY"),
        ("sam", "API_KEY", "ApiKey"),
    ],
)
def test_names_that_would_become_one_are_refused(format_name: str, first: str, second: str) -> None:
    for other in (first, second):
        assert write(format_name, {other: "x"}, other)
    with pytest.raises(InvalidRequest, match=f"^{second} and {first} would both be called"):
        write(format_name, {first: "x", second: "x"}, first, second)


def test_a_secret_of_a_swarm_and_a_variable_with_its_path_do_not_go_together() -> None:
    with pytest.raises(InvalidRequest, match=r"^KEY_FILE would be the path of the secret KEY"):
        write("docker-swarm", {"KEY": "x", "KEY_FILE": "y"}, "KEY")


@pytest.mark.parametrize(
    ("format_name", "environment"),
    [
        ("cloud-run", "1web"),
        ("cloud-run", "w" * 50),
        ("azure-container-instances", "w" * 64),
    ],
)
def test_an_environment_that_no_object_can_be_named_after_is_refused(
    format_name: str, environment: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{environment} is"):
        render({"NAME": "x"}, format=format_name, environment=environment)


# -- where secrets are kept --------------------------------------------------------

_ARN = "arn:aws:{}:eu-central-1:123456789012:"
PLACES: list[tuple[str, str, str]] = [
    ("ecs", "", "/web/prod/KEY"),
    ("ecs", "/other", "/other/KEY"),
    ("ecs", _ARN.format("ssm") + "parameter/x", _ARN.format("ssm") + "parameter/x/KEY"),
    (
        "ecs",
        _ARN.format("secretsmanager") + "secret:web/prod-AbCdEf",
        _ARN.format("secretsmanager") + "secret:web/prod-AbCdEf:KEY::",
    ),
    ("cloud-run", "", "web-prod-KEY"),
    ("cloud-run", "shop_", "shop_KEY"),
    ("docker-swarm", "", "web-prod-KEY"),
    ("docker-swarm", "shop.", "shop.KEY"),
    ("nomad", "", "secret/data/web/prod"),
    ("nomad", "kv/data/shop", "kv/data/shop"),
    ("azure-functions", VAULT, "key"),
]


@pytest.mark.parametrize(("format_name", "place", "found"), PLACES)
def test_a_secret_is_looked_up_where_it_is_said_to_be(
    format_name: str, place: str, found: str
) -> None:
    text = render(
        {"KEY": CANARY},
        format=format_name,
        environment="web/prod",
        secret=["KEY"],
        secrets_from=place,
    )

    assert READERS[format_name](text) == Found({}, {"KEY": found})


@pytest.mark.parametrize("place", ['x"y', "x\ny", "a b", "${x}", "{{x}}", "a;b", ")"])
@pytest.mark.parametrize("format_name", LOCATING)
def test_a_place_that_is_none_is_never_written(format_name: str, place: str) -> None:
    with pytest.raises(InvalidRequest, match="--secrets-from has another form"):
        render({"KEY": "x"}, format=format_name, secret=["KEY"], secrets_from=place)


@pytest.mark.parametrize("format_name", sorted(set(OUTPUT_FORMATS) - set(LOCATING)))
def test_a_format_that_refers_to_no_place_does_not_take_one(format_name: str) -> None:
    with pytest.raises(InvalidRequest, match="does not refer to a place"):
        render({"KEY": "x"}, format=format_name, secret=["KEY"], secrets_from="/web")


@pytest.mark.parametrize(
    ("format_name", "environment"), [("azure-functions", "web"), ("ecs", "aws/prod")]
)
def test_where_nothing_can_be_guessed_the_place_is_asked_for(
    format_name: str, environment: str
) -> None:
    """The Parameter Store keeps what begins with /aws for itself; a vault's name is anybody's."""
    assert render({"KEY": "x"}, format=format_name, environment=environment)
    with pytest.raises(InvalidRequest, match="nothing says where") as caught:
        render({"KEY": "x"}, format=format_name, environment=environment, secret=["KEY"])
    assert "--secrets-from" in caught.value.hint


# -- Terraform's two files ---------------------------------------------------------

TERRAFORM = sorted(each for each in REFERRING if each.startswith("terraform-"))


@pytest.mark.parametrize("format_name", TERRAFORM)
def test_tfvars_gives_a_value_to_every_variable_that_has_none(format_name: str) -> None:
    variables = {"API_KEY": CANARY, "LOG_LEVEL": "info"}

    declared = variables_of(write(format_name, variables, "API_KEY"))
    given = re.findall(r"^(\w+) = ", render(variables, format="tfvars"), re.MULTILINE)

    asked_for = {name for name, body in declared.items() if "default" not in body}
    assert set(given) == {"API_KEY", "LOG_LEVEL"}
    assert set(given) <= declared.keys()
    assert asked_for - set(given) <= {"key_vault_id"}


def test_a_place_that_the_parameter_store_keeps_for_itself_is_no_default() -> None:
    reserved = render({"A": "x"}, format="terraform-ssm", environment="aws/prod")
    other = render({"A": "x"}, format="terraform-ssm", environment="web/prod")

    assert "default" not in variables_of(reserved)["ssm_prefix"]
    assert variables_of(other)["ssm_prefix"]["default"] == '"/web/prod"'


def test_a_secret_is_a_secure_string_and_nothing_else_is() -> None:
    found = resources_of(write("terraform-ssm", {"KEY": "x", "LEVEL": "y"}, "KEY"))

    kinds = {name: body["type"] for name, body in found["aws_ssm_parameter"].items()}
    assert kinds == {"KEY": '"SecureString"', "LEVEL": '"String"'}
