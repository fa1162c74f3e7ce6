"""HashiCorp's own parser reads what is written for Terraform and Nomad, and leaves it as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from unicodedata import is_normalized

import pytest

from envd.formats.write import render
from tests.formats.hcl_programs import NoProgram, decoded, directory, formatted

pytestmark = pytest.mark.real

HCL = (
    *("terraform-key-vault", "terraform-secret-manager", "terraform-ssm", "terraform-vault"),
    "nomad",
)
_CHARACTERS = [chr(code) for code in (*range(1, 0x180), 0x2028, 0xFEFF, 0xFFFD, 0x1F600)]
_TEXTS = [
    *("", "plain", "  padded  ", "C:\\new\\dir\\", "$", "%", "$$", "%%", "a$", 'say "${x}"'),
    *("$ {x}", "$$ {x}", "%{ if x }", "%%{ if x }", "$%{x}", "%${x}", "\\${x}", "\\u0024", "<<EOT"),
    *("one\r\ntwo\n", "# none", "// none", "/* none", "\x1b[0m", "}", "e\u0301".strip("e")),
]
VALUES = [
    text
    for text in (*_TEXTS, *_CHARACTERS, *(f"a{each}b" for each in _CHARACTERS))
    if is_normalized("NFC", text)
]
VARIABLES = {f"V{number}": text for number, text in enumerate(VALUES)}


def attributes(names: Iterable[str], kind: str = "string") -> str:
    return "".join(f'attr "{name}" {{\ntype = {kind}\n}}\n' for name in names)


VARIABLE_SPEC = (
    'object {\nblock_map "variable" {\nlabels = ["name"]\nobject {\n'
    + attributes(["type", "description", "default"])
    + attributes(["sensitive"], "bool")
    + "}\n}\n}\n"
)


@pytest.fixture(scope="module")
def programs() -> Path:
    try:
        return directory()
    except NoProgram as error:
        pytest.skip(f"no parser of HCL: {error}")


@pytest.mark.parametrize("format_name", HCL)
@pytest.mark.parametrize("names", [[], ["A"], ["A", "LONG_NAME", "for", "if", "null", "true"]])
@pytest.mark.parametrize("secret", [[], ["A"], ["A", "for", "null"]])
def test_it_is_hcl_and_formatted(
    programs: Path, format_name: str, names: list[str], secret: list[str]
) -> None:
    variables = dict.fromkeys(names, 'say "é"\n')

    text = render(variables, format=format_name, environment="web/prod", secret=secret)

    assert formatted(programs, text) == text


def test_what_is_no_hcl_is_not_taken_for_it(programs: Path) -> None:
    with pytest.raises(AssertionError, match="Error"):
        formatted(programs, 'env {\n  A = "x\n}\n')


def test_a_default_of_terraform_means_the_value(programs: Path, tmp_path: Path) -> None:
    text = render(VARIABLES, format="terraform-key-vault", environment="web/prod")
    declared = text[: text.index("\nresource ")]

    found = decoded(programs, VARIABLE_SPEC, declared, tmp_path)

    assert isinstance(found, dict)
    read = {name: body.get("default") for name, body in found["variable"].items()}
    assert read == {"key_vault_id": None, **VARIABLES}


def test_a_secret_of_terraform_is_sensitive(programs: Path, tmp_path: Path) -> None:
    text = render({"A": "x"}, format="terraform-ssm", environment="web/prod", secret=["A"])
    declared = text[: text.index("\nresource ")]

    found = decoded(programs, VARIABLE_SPEC, declared, tmp_path)

    assert isinstance(found, dict)
    assert found["variable"]["A"] == {"type": "string", "sensitive": True}


def test_tfvars_mean_the_values(programs: Path, tmp_path: Path) -> None:
    spec = "object {\n" + attributes(VARIABLES) + "}\n"

    assert decoded(programs, spec, render(VARIABLES, format="tfvars"), tmp_path) == VARIABLES


def test_terraform_takes_both_files_together(tmp_path: Path) -> None:
    """Without the resources, whose providers would have to be fetched."""
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("there is no terraform here")
    variables = {"A": 'say "${x}" %{if}\n', "B": "é$", "for": "x", "null": "y"}
    text = render(variables, format="terraform-ssm", environment="web/prod", secret=["A"])
    (tmp_path / "main.tf").write_text(text[: text.index("\nresource ")], "utf-8")
    (tmp_path / "terraform.tfvars").write_text(render(variables, format="tfvars"), "utf-8")

    ran = subprocess.run(
        [terraform, "console"],
        input=b"jsonencode([nonsensitive(var.A), var.B, var.for, var.null, var.ssm_prefix])",
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "CHECKPOINT_DISABLE": "1"},
    )

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(json.loads(ran.stdout)) == [*variables.values(), "/web/prod"]


def test_the_environment_of_a_task_means_the_values(programs: Path, tmp_path: Path) -> None:
    taken = {name: text for name, text in VARIABLES.items() if "${x}" not in text}
    spec = 'object {\nblock "env" {\nobject {\n' + attributes(taken) + "}\n}\n}\n"

    found = decoded(programs, spec, render(taken, format="nomad"), tmp_path)

    assert found == {"env": taken}
