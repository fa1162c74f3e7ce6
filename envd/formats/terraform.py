"""Variables as resources of Terraform or OpenTofu that keep them in a cloud's store or a vault.

Each variable is also one of Terraform: what is secret is `sensitive` and has no default, so the
file has no secret in it, and the values come from a file that `--format tfvars` writes (or from
`TF_VAR_` variables). What is not secret has its value as the default. Where the store is, is a
variable, too. The text is as `terraform fmt` leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from envd.core.errors import InvalidRequest
from envd.formats.deployment import Deployment, check_free, check_names, distinct, refused
from envd.formats.hcl import HCL_NAME, hcl_string, is_hcl_text

# Arguments of the block `module`, which no variable can be called.
_RESERVED: Final = frozenset(
    {"count", "depends_on", "for_each", "lifecycle", "locals", "providers", "source", "version"}
)
_SSM_BYTES: Final = 4096
_KEY_VAULT_BYTES: Final = 25 * 1024
_KEY_VAULT_NAME: Final = 127
_SECRET_MANAGER_BYTES: Final = 1 << 16
_SECRET_MANAGER_NAME: Final = 255
_VAULT_BYTES: Final = 1 << 19


class _Setting(NamedTuple):
    """A variable of Terraform that says where the store is; `default` is HCL, "" for none."""

    name: str
    description: str
    default: str = ""


def ssm(deployment: Deployment) -> str:
    """Write parameters of AWS's Parameter Store; secrets become `SecureString`."""
    for name, value in deployment.values.items():
        _check_size(name, value, least=1, most=_SSM_BYTES, who="a standard parameter")
        if "{{" in value:
            raise refused(name, "has '{{' in its value, which the Parameter Store refuses")
    path = "/" + deployment.environment
    reserved = path.startswith(("/aws", "/ssm"))
    prefix = _Setting(
        "ssm_prefix", "What the names begin with.", "" if reserved else hcl_string(path)
    )

    def resource(name: str) -> str:
        kind = "SecureString" if name in deployment.secret else "String"
        return _block(
            "aws_ssm_parameter",
            name,
            {"name": f'"${{var.ssm_prefix}}/{name}"', "type": f'"{kind}"', "value": f"var.{name}"},
        )

    return _file(deployment, (prefix,), resource)


def key_vault(deployment: Deployment) -> str:
    """Write secrets of an Azure key vault, whose names have - for `_` and no capital letters."""
    check_names(
        deployment.names,
        rf"[A-Za-z0-9_-]{{1,{_KEY_VAULT_NAME}}}",
        "has a name that no secret of a key vault can have",
    )
    called = distinct(deployment.names, key_vault_name)
    for name, value in deployment.values.items():
        _check_size(name, value, least=0, most=_KEY_VAULT_BYTES, who="a key vault")
    vault = _Setting("key_vault_id", "The resource id of the key vault.")

    def resource(name: str) -> str:
        return _block(
            "azurerm_key_vault_secret",
            name,
            {
                "name": f'"{called[name]}"',
                "value": f"var.{name}",
                "key_vault_id": "var.key_vault_id",
            },
        )

    return _file(deployment, (vault,), resource)


def key_vault_name(name: str) -> str:
    """What a variable is called in a key vault, which knows no `_` and no case: api-key."""
    return name.lower().replace("_", "-")


def secret_manager(deployment: Deployment) -> str:
    """Write secrets of Google's Secret Manager, each with a version."""
    prefix = deployment.object_name + "-"
    check_names(
        deployment.names,
        rf"[A-Za-z0-9_-]{{1,{max(1, _SECRET_MANAGER_NAME - len(prefix))}}}",
        "has a name that no secret of Secret Manager can have",
    )
    for name, value in deployment.values.items():
        _check_size(name, value, least=1, most=_SECRET_MANAGER_BYTES, who="Secret Manager")
    settings = (
        _Setting("project", "The project; that of the provider where it is null.", "null"),
        _Setting("secret_prefix", "What the names begin with.", hcl_string(prefix)),
    )

    def resource(name: str) -> str:
        kind = "google_secret_manager_secret"
        secret = (
            f'resource "{kind}" "{name}" {{\n'
            "  project   = var.project\n"
            f'  secret_id = "${{var.secret_prefix}}{name}"\n\n'
            "  replication {\n    auto {}\n  }\n}\n"
        )
        version = _block(
            f"{kind}_version",
            name,
            {"secret": f"{kind}.{name}.id", "secret_data": f"var.{name}"},
        )
        return secret + "\n" + version

    return _file(deployment, settings, resource)


def vault(deployment: Deployment) -> str:
    """Write one secret of Vault's key-value store, version 2, with all variables in it."""
    if sum(len(value.encode()) for value in deployment.values.values()) > _VAULT_BYTES:
        raise InvalidRequest(
            "the values are longer than the 512 KiB that a secret of Vault may have",
            hint="leave some out: --except GLOB",
            reason="INEXPRESSIBLE",
        )
    settings = (
        _Setting("vault_mount", "Where the key-value store is mounted.", '"secret"'),
        _Setting("vault_path", "The path of the secret.", hcl_string(deployment.environment)),
    )
    keys = {name: '"for"' if name == "for" else name for name in deployment.names}
    width = max(map(len, keys.values()), default=0)
    data = "".join(f"    {keys[name]:{width}} = var.{name}\n" for name in keys)
    rows = {"mount": "var.vault_mount", "name": "var.vault_path"}
    # What goes over several lines is not lined up with others.
    body = f"{_rows(rows)}  data_json = jsonencode({{\n{data}  }})\n"
    if not keys:
        body = _rows({**rows, "data_json": "jsonencode({})"})
    secret = f'resource "vault_kv_secret_v2" "envd" {{\n{body}}}\n'
    return _file(deployment, settings, lambda _: "") + "\n" + secret


def _file(
    deployment: Deployment, settings: tuple[_Setting, ...], resource: Callable[[str], str]
) -> str:
    """Declare the variables, ours first, then the resources, in order of name."""
    check_names(deployment.names, HCL_NAME, "has a name that no Terraform variable can have")
    taken = _RESERVED | {setting.name for setting in settings}
    check_free(deployment.names, taken, "Terraform or this file")
    for name, value in deployment.values.items():
        if not is_hcl_text(value):
            raise refused(name, "has a value that is not in Unicode's form NFC")
    parts = [_setting(setting) for setting in settings]
    parts += [_variable(name, deployment.values) for name in deployment.names]
    parts += [text for text in map(resource, deployment.names) if text]
    return _head(deployment) + "\n".join(parts)


def _head(deployment: Deployment) -> str:
    head = f"# The variables of {deployment.environment}, written by envctl export.\n"
    if deployment.secret:
        head += "# This file has no value of a secret: --format tfvars writes those.\n"
    return head + "\n"


def _setting(setting: _Setting) -> str:
    rows = {"description": f'"{setting.description}"', "type": "string"}
    if setting.default:
        rows["default"] = setting.default
    return f'variable "{setting.name}" {{\n{_rows(rows)}}}\n'


def _variable(name: str, values: Mapping[str, str]) -> str:
    rows = {"type": "string"}
    if name in values:
        rows["default"] = hcl_string(values[name])
    else:
        rows["sensitive"] = "true"
    return f'variable "{name}" {{\n{_rows(rows)}}}\n'


def _block(kind: str, name: str, rows: Mapping[str, str]) -> str:
    return f'resource "{kind}" "{name}" {{\n{_rows(rows)}}}\n'


def _rows(rows: Mapping[str, str]) -> str:
    """Assignments, one a line, with their signs below each other."""
    width = max(map(len, rows))
    return "".join(f"  {key:{width}} = {value}\n" for key, value in rows.items())


def _check_size(name: str, value: str, *, least: int, most: int, who: str) -> None:
    size = len(value.encode())
    if size < least:
        raise refused(name, f"is empty, which {who} can't hold")
    if size > most:
        raise refused(name, f"is longer than the {most >> 10} KiB that {who} can hold")
