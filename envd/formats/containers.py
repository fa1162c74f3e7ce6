"""Variables as the environment of a container: ECS, Cloud Run, Docker Swarm.

What is secret is referred to where the platform looks it up: a parameter or secret of AWS, a
secret of Google's Secret Manager, a secret of the swarm.
"""

from __future__ import annotations

import json
import re
from textwrap import indent
from typing import Final

from envd.core.errors import InvalidRequest
from envd.formats.deployment import Deployment, check_free, check_names, refused
from envd.formats.write import yaml_name, yaml_string

_ECS_BYTES: Final = 1 << 16
_ARN = r"arn:aws[a-z-]*:{service}:[a-z0-9-]*:[0-9]*:"
_ECS_PLACE = (
    rf"(?:{_ARN.format(service='ssm')}parameter)?(?:/[A-Za-z0-9_.-]+)+"
    rf"|{_ARN.format(service='secretsmanager')}secret:[A-Za-z0-9/_+=.@-]+"
)
_CLOUD_RUN_RESERVED: Final = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"})
_CLOUD_RUN_BYTES: Final = 32_768
_CLOUD_RUN_MOST: Final = 1000
_SECRET_MANAGER_NAME: Final = 255
_SWARM_NAME: Final = 64


def ecs(deployment: Deployment) -> str:
    """Write `environment` and `secrets` of a container in a task definition, as JSON.

    A secret is a parameter below the place where they are kept, or a key in one secret of
    Secrets Manager with all of them, if the place is the ARN of one.
    """
    plain, secret = deployment.split()
    place = "/" + deployment.environment
    if secret:
        place = deployment.place(
            "" if place.startswith(("/aws", "/ssm")) else place,
            _ECS_PLACE,
            "a path such as /web/prod, an ARN of parameters below a path, or one of a secret",
        )
    document = {
        "environment": [{"name": name, "value": value} for name, value in plain.items()],
        "secrets": [{"name": name, "valueFrom": _value_from(place, name)} for name in secret],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if len(text.encode()) > _ECS_BYTES:
        raise InvalidRequest(
            "the variables take more than the 64 KiB of a task definition",
            hint="leave some out: --except GLOB",
            reason="INEXPRESSIBLE",
        )
    return text


def _value_from(place: str, name: str) -> str:
    return f"{place}:{name}::" if ":secretsmanager:" in place else f"{place}/{name}"


def cloud_run(deployment: Deployment) -> str:
    """Write a service of Cloud Run; the image is for its reader to fill in."""
    check_free(deployment.names, _CLOUD_RUN_RESERVED, "Cloud Run")
    plain, secret = deployment.split()
    for name in deployment.names:
        if name.startswith("X_GOOGLE_"):
            raise refused(name, "has a name that Cloud Run keeps for itself")
    for name, value in plain.items():
        if len(value.encode()) > _CLOUD_RUN_BYTES:
            raise refused(name, "is longer than the 32 KiB that Cloud Run takes")
    if len(deployment.names) > _CLOUD_RUN_MOST:
        raise InvalidRequest(
            f"there are more than the {_CLOUD_RUN_MOST} variables that Cloud Run takes",
            hint="leave some out: --except GLOB",
            reason="INEXPRESSIBLE",
        )
    prefix = _secret_prefix(deployment, secret, _SECRET_MANAGER_NAME, "[A-Za-z0-9_-]")
    rows = [
        f"- name: {yaml_name(name)}\n"
        + (
            f"  value: {yaml_string(plain[name])}\n"
            if name in plain
            else "  valueFrom:\n    secretKeyRef:\n"
            f'      name: "{prefix}{name}"\n      key: latest\n'
        )
        for name in deployment.names
    ]
    env = "".join(indent(row, 12 * " ") for row in rows)
    return (
        "apiVersion: serving.knative.dev/v1\nkind: Service\n"
        f'metadata:\n  name: "{_service_name(deployment)}"\n'
        "spec:\n  template:\n    spec:\n      containers:\n"
        "        - image: IMAGE # fill in\n"
        "          env:" + (f"\n{env}" if rows else " []\n")
    )


def _service_name(deployment: Deployment) -> str:
    """A name as Cloud Run has them: 49 characters, a letter first."""
    name = deployment.object_name
    if not re.fullmatch("[a-z][a-z0-9-]{0,47}[a-z0-9]|[a-z]", name):
        raise refused(
            deployment.environment,
            "is no name of a service, which begins with a letter and has 49 characters at most",
            "use another format, such as --format yaml",
        )
    return name


def docker_swarm(deployment: Deployment) -> str:
    """Write a file for `docker stack deploy`, to go with that of the stack.

    A secret of a swarm is a file, so NAME_FILE has its path.
    """
    plain, secret = deployment.split()
    for name in secret:
        if f"{name}_FILE" in deployment.names:
            raise refused(f"{name}_FILE", f"would be the path of the secret {name}, too")
    prefix = _secret_prefix(deployment, secret, _SWARM_NAME, "[A-Za-z0-9_.-]")
    rows = [
        f"{yaml_name(name)}: {_swarm_string(plain[name])}\n"
        if name in plain
        else f"{name}_FILE: /run/secrets/{name}\n"
        for name in deployment.names
    ]
    text = f'version: "3.8"\nservices:\n  "{deployment.object_name}":\n'
    text += "    environment:" + ("\n" + indent("".join(rows), 6 * " ") if rows else " {}\n")
    if not secret:
        return text
    text += "    secrets:\n" + "".join(f"      - {yaml_name(name)}\n" for name in secret)
    text += "secrets:\n"
    return text + "".join(
        f'  {yaml_name(name)}:\n    external: true\n    name: "{prefix}{name}"\n' for name in secret
    )


def _swarm_string(value: str) -> str:
    """A value that neither the reader of the file nor the swarm's templates fill in."""
    return yaml_string(value.replace("$", "$$").replace("{{", '{{"{{"}}'))


def _secret_prefix(deployment: Deployment, secret: list[str], longest: int, allowed: str) -> str:
    """What the names of secrets begin with in their store; raises for one that is none there."""
    if not secret:
        return ""
    prefix = deployment.place(
        deployment.object_name + "-",
        f"{allowed}+",
        "what the names of the secrets begin with, such as web-prod-",
    )
    room = max(1, longest - len(prefix))
    check_names(secret, f"{allowed}{{1,{room}}}", "has a name that no secret can have there")
    return prefix
