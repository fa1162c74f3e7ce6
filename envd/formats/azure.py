"""Variables as settings of Azure Functions, and as the environment of a container instance.

Settings of an app refer to secrets in a key vault. The settings of a machine of one's own, and
container instances, take no reference: these two hold the secrets, and belong into no repository.
"""

from __future__ import annotations

import json
import re
from typing import Final

from envd.formats.deployment import Deployment, check_names, distinct, refused
from envd.formats.terraform import key_vault_name
from envd.formats.write import yaml_name, yaml_string

_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
_VAULT: Final = "[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]"
# What App Service, and the tools on a developer's machine, look up instead of giving it to an app.
_REFERENCE: Final = re.compile(r"\s*@Microsoft\.(?:KeyVault|AppConfiguration)\(", re.IGNORECASE)
_KEY_VAULT_NAME: Final = 127
_GROUP_NAME: Final = 63
_API_VERSION: Final = "2023-05-01"


def functions(deployment: Deployment) -> str:
    """Write what `az functionapp config appsettings set --settings @FILE` takes."""
    _check_settings(deployment)
    plain, secret = deployment.split()
    if secret:
        vault = deployment.place("", _VAULT, "the name of the key vault that has the secrets")
        check_names(
            secret,
            f"[A-Za-z0-9_]{{1,{_KEY_VAULT_NAME}}}",
            "has a name that no secret of a key vault can have",
        )
        called = distinct(secret, key_vault_name)
        for name in secret:
            plain[name] = f"@Microsoft.KeyVault(VaultName={vault};SecretName={called[name]})"
    settings = [
        {"name": name, "value": plain[name], "slotSetting": False} for name in deployment.names
    ]
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def functions_local(deployment: Deployment) -> str:
    """Write `local.settings.json`, with the secrets in it."""
    _check_settings(deployment)
    document = {
        "IsEncrypted": False,
        "Values": {name: deployment.values[name] for name in deployment.names},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _check_settings(deployment: Deployment) -> None:
    """Raise InvalidRequest for what an app would be given otherwise, or not at all."""
    check_names(
        deployment.names,
        _NAME,
        "has a name that an app setting can't have: letters, digits and '_' alone are kept",
    )
    distinct(deployment.names, str.upper)
    for name, value in deployment.values.items():
        if _REFERENCE.match(value):
            raise refused(name, "has '@Microsoft...(' at the start, which Azure would fill in")


def container_instances(deployment: Deployment) -> str:
    """Write a container group for `az container create --file`, with the secrets in it."""
    group = deployment.object_name
    if len(group) > _GROUP_NAME:
        raise refused(
            deployment.environment,
            f"is longer than the {_GROUP_NAME} characters that the name of a group may have",
            "use another format, such as --format json",
        )
    check_names(deployment.names, _NAME, "has a name that a container instance can't have")
    rows = [
        f"          - name: {yaml_name(name)}\n"
        f"            {'secureValue' if name in deployment.secret else 'value'}: "
        f"{yaml_string(deployment.values[name])}\n"
        for name in deployment.names
    ]
    return (
        f'apiVersion: "{_API_VERSION}"\ntype: Microsoft.ContainerInstance/containerGroups\n'
        f'name: "{group}"\nproperties:\n  osType: Linux\n  containers:\n'
        f'    - name: "{group}"\n      properties:\n        image: IMAGE # fill in\n'
        "        resources:\n          requests:\n            cpu: 1.0\n"
        "            memoryInGB: 1.5\n"
        "        environmentVariables:" + ("\n" + "".join(rows) if rows else " []\n")
    )
