"""Variables to text, in the formats that other programs read.

Each format is a function from variables to text in the registry `_RENDERERS`, or, where the
document also has a name, in `_MANIFESTS`; those for infrastructure are in modules of their own,
which `_DEPLOYMENTS` names and which are loaded when they are used. A further format is a further
entry. A format that can't hold a value, or can't hold it so that its readers give back exactly
that value, refuses it by name: an export is right or it does not happen. Names and values are
checked first, so no text can break out of its line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from envd.core.errors import InvalidRequest
from envd.core.names import check_environment, check_value, check_variable
from envd.formats.deployment import Deployment, object_name
from envd.formats.dotenv_quote import quoted
from envd.formats.hcl import HCL_NAME, hcl_string, is_hcl_text

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words that YAML 1.1 takes for booleans and null; as names they need quotes.
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# What JSON leaves raw in a string but YAML takes for a line end or forbids.
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# Docker reads the file with a bufio.Scanner, which stops at a line of 64 KiB and its end.
_DOCKER_MAX_LINE_BYTES = (1 << 16) - 1
_PROPERTIES_ESCAPED = re.compile(r"\A |\\|[^ -~]")
_PROPERTIES_ESCAPES: Final = MappingProxyType(
    {" ": r"\ ", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\f": r"\f"}
)
_SYSTEMD_ESCAPED = re.compile(r'["\\`$]')
# systemd drops variables whose values hold these (env_value_is_valid, unichar_is_valid).
_NOT_IN_SYSTEMD = re.compile(
    "[\x01-\x08\x0b-\x1f\x7f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_RUNNERS_OWN = ("GITHUB_", "RUNNER_")
# What Kubernetes takes (apimachinery: IsConfigMapKey, DNS1123SubdomainMaxLength, MaxSecretSize).
_KUBERNETES_MAX_NAME = 253
_KUBERNETES_MAX_BYTES = 1 << 20


def render(
    variables: Mapping[str, str],
    *,
    format: str,  # noqa: A002 (it is the word of the command line: --format)
    environment: str = "envd",
    secret: Collection[str] = (),
    secrets_from: str = "",
) -> str:
    """Return the text of `variables` in one of `OUTPUT_FORMATS`, in the order given.

    `environment` is where they come from: objects and paths are named after it. `secret` are the
    names of the secret ones; their values are not looked at in a format of `REFERRING`, which
    finds them at `secrets_from`, in a form of its own, if it is one of `LOCATING`. Raises
    InvalidRequest if there is no such format, or if it can't hold a name or a value faithfully;
    the message names the variable and never holds the value.
    """
    if format not in OUTPUT_FORMATS:
        raise InvalidRequest(
            f"there is no format {format[:64]!a}", hint=f"use {', '.join(OUTPUT_FORMATS)}"
        )
    if secrets_from and format not in LOCATING:
        raise InvalidRequest(
            f"the format {format} does not refer to a place of secrets",
            hint=f"--secrets-from is for {', '.join(LOCATING)}",
        )
    for name, value in variables.items():
        check_variable(name)
        check_value(name, value)
    if format in _RENDERERS:
        return _RENDERERS[format](variables)
    if format in _MANIFESTS:
        return _MANIFESTS[format](variables, _object_name(environment))
    withheld = secret if format in REFERRING else ()
    deployment = Deployment(
        environment=check_environment(environment),
        names=tuple(variables),
        secret=frozenset(secret) & variables.keys(),
        values={name: value for name, value in variables.items() if name not in withheld},
        secrets_from=secrets_from,
    )
    module, _, function = _DEPLOYMENTS[format].partition(":")
    renderer: Callable[[Deployment], str] = getattr(
        import_module(f"envd.formats.{module}"), function
    )
    return renderer(deployment)


def _dotenv(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={quoted(value)}\n" for name, value in variables.items())


def _json(variables: Mapping[str, str]) -> str:
    return json.dumps(dict(variables), indent=2, ensure_ascii=False) + "\n"


def _yaml(variables: Mapping[str, str]) -> str:
    """Write every value in double quotes: what is a string unquoted depends on the reader."""
    if not variables:
        return "{}\n"
    return "".join(
        f"{yaml_name(name)}: {yaml_string(value)}\n" for name, value in variables.items()
    )


def yaml_name(name: str) -> str:
    """A name as YAML writes it: in quotes where it would be something else to YAML 1.1."""
    return f'"{name}"' if name.lower() in _YAML_WORDS else name


def yaml_string(value: str) -> str:
    """A value in double quotes, in one line."""
    return _RAW_IN_JSON.sub(
        lambda match: f"\\u{ord(match.group()):04x}", json.dumps(value, ensure_ascii=False)
    )


def _shell(variables: Mapping[str, str]) -> str:
    """Write for a POSIX shell: between single quotes, only a single quote has a meaning."""
    for name in variables:
        if not _SHELL_NAME.fullmatch(name):
            raise _inexpressible(name, "has a name that no shell variable can have", "dotenv")
    return "".join(
        "export {}='{}'\n".format(name, value.replace("'", "'\\''"))
        for name, value in variables.items()
    )


def _docker(variables: Mapping[str, str]) -> str:
    """Write for `docker run --env-file`: a value is what stands between `=` and line end.

    Docker trims blanks before a name only, and drops one CR at the end of a line.
    """
    lines = []
    for name, value in variables.items():
        line = f"{name}={value}"
        if "\n" in value:
            raise _inexpressible(name, "has a line end in its value")
        if value.endswith("\r"):
            raise _inexpressible(name, "has a carriage return at the end of its value")
        if len(line.encode()) > _DOCKER_MAX_LINE_BYTES:
            raise _inexpressible(name, "is longer than the 64 KiB that a line may have")
        lines.append(line + "\n")
    return "".join(lines)


def _csv(variables: Mapping[str, str]) -> str:
    """Write RFC 4180 with a header; every value is quoted, so nothing in it has a meaning."""
    rows = ['{},"{}"'.format(name, value.replace('"', '""')) for name, value in variables.items()]
    return "".join(row + "\r\n" for row in ("name,value", *rows))


def _properties(variables: Mapping[str, str]) -> str:
    """Write for `java.util.Properties`: ASCII, which is the same in each of its encodings."""

    def escape(match: re.Match[str]) -> str:
        character = match.group()
        units = character.encode("utf-16-be").hex()
        return _PROPERTIES_ESCAPES.get(character) or "".join(
            f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)
        )

    return "".join(
        f"{name}={_PROPERTIES_ESCAPED.sub(escape, value)}\n" for name, value in variables.items()
    )


def _tfvars(variables: Mapping[str, str]) -> str:
    """Write quoted strings of HCL. Terraform keeps strings in Unicode's form NFC alone."""
    lines = []
    for name, value in variables.items():
        if not re.fullmatch(HCL_NAME, name):
            raise _inexpressible(name, "has a name that no Terraform variable can have", "json")
        if not is_hcl_text(value):
            raise _inexpressible(name, "has a value that is not in Unicode's form NFC", "json")
        lines.append(f"{name} = {hcl_string(value)}\n")
    return "".join(lines)


def _systemd(variables: Mapping[str, str]) -> str:
    """Write for `EnvironmentFile=` of systemd.exec(5), which takes C-like double quotes."""
    lines = []
    for name, value in variables.items():
        if not _SHELL_NAME.fullmatch(name):
            raise _inexpressible(name, "has a name that systemd does not take", "dotenv")
        if _NOT_IN_SYSTEMD.search(value):
            raise _inexpressible(name, "has a control character or noncharacter in its value")
        escaped = _SYSTEMD_ESCAPED.sub(lambda each: "\\" + each.group(), value)
        lines.append(f'{name}="{escaped}"\n')
    return "".join(lines)


def _github_actions(variables: Mapping[str, str]) -> str:
    """Write what a step appends to `$GITHUB_ENV`: each value between lines with a delimiter.

    A runner on Windows takes a carriage return at the end of a value for one of the line's.
    Its own variables and NODE_OPTIONS can't be set by a step.
    """
    parts = []
    for name, value in variables.items():
        if name.upper().startswith(_RUNNERS_OWN) or name.upper() == "NODE_OPTIONS":
            raise _inexpressible(name, "has a name that GitHub's runner keeps for itself", "dotenv")
        if value.endswith("\r"):
            raise _inexpressible(name, "has a carriage return at the end of its value")
        delimiter = _delimiter(value)
        parts.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    return "".join(parts)


def _delimiter(value: str) -> str:
    """A text that does not occur in `value`: the value's own digest, or the digest of that."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    while digest in value:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return f"ENVD_{digest}"


def _object_name(environment: str) -> str:
    """The name of a Kubernetes object: the environment's, with - for `/`, `_` and `.`.

    Example: _object_name("web/prod") is "web-prod".
    """
    name = object_name(check_environment(environment))
    if len(name) > _KUBERNETES_MAX_NAME:
        raise _inexpressible(environment, "is longer than the name of an object may be", "json")
    return name


def _k8s_secret(variables: Mapping[str, str], name: str) -> str:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in variables.items()}
    return _manifest("Secret", name, variables, data) + "type: Opaque\n"


def _k8s_configmap(variables: Mapping[str, str], name: str) -> str:
    data = {key: yaml_string(value) for key, value in variables.items()}
    return _manifest("ConfigMap", name, variables, data)


def _manifest(kind: str, name: str, variables: Mapping[str, str], data: Mapping[str, str]) -> str:
    room = _KUBERNETES_MAX_BYTES
    for key, value in variables.items():
        room -= len(value.encode())
        if len(key) > _KUBERNETES_MAX_NAME:
            raise _inexpressible(key, "has a longer name than a key may have", "json")
        if room < 0:
            raise _inexpressible(key, "and those before it are more than 1 MiB", "json")
    head = f'apiVersion: v1\nkind: {kind}\nmetadata:\n  name: "{name}"\n'
    if not data:
        return head + "data: {}\n"
    rows = (f"  {yaml_name(key)}: {text or chr(34) * 2}\n" for key, text in data.items())
    return head + "data:\n" + "".join(rows)


def _inexpressible(name: str, why: str, other: str = "shell") -> InvalidRequest:
    return InvalidRequest(
        f"{name} {why}, which this format can't express",
        hint=f"use another format, such as --format {other}",
        reason="INEXPRESSIBLE",
    )


_RENDERERS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = MappingProxyType(
    {
        "dotenv": _dotenv,
        "json": _json,
        "yaml": _yaml,
        "shell": _shell,
        "docker": _docker,
        "tfvars": _tfvars,
        "properties": _properties,
        "csv": _csv,
        "systemd": _systemd,
        "github-actions": _github_actions,
    }
)
# Documents that also carry a name.
_MANIFESTS: Final[Mapping[str, Callable[[Mapping[str, str], str], str]]] = MappingProxyType(
    {"k8s-secret": _k8s_secret, "k8s-configmap": _k8s_configmap}
)
# Where the renderer of an infrastructure's format is.
_DEPLOYMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "terraform-key-vault": "terraform:key_vault",
        "terraform-secret-manager": "terraform:secret_manager",
        "terraform-ssm": "terraform:ssm",
        "terraform-vault": "terraform:vault",
        "cloudformation": "lambda_template:cloudformation",
        "sam": "lambda_template:sam",
        "ecs": "containers:ecs",
        "cloud-run": "containers:cloud_run",
        "azure-functions": "azure:functions",
        "azure-functions-local": "azure:functions_local",
        "azure-container-instances": "azure:container_instances",
        "docker-swarm": "containers:docker_swarm",
        "nomad": "nomad:nomad",
    }
)
OUTPUT_FORMATS: Final = (*_RENDERERS, *_MANIFESTS, *_DEPLOYMENTS)
HELD: Final = frozenset({"azure-functions-local", "azure-container-instances"})
"""Those of infrastructure that hold the values of secrets: their targets take no reference."""
REFERRING: Final = frozenset(_DEPLOYMENTS) - HELD
"""The formats that hold no value of a secret."""
LOCATING: Final = ("ecs", "cloud-run", "azure-functions", "docker-swarm", "nomad")
"""Of these, the ones that refer to a place where the secrets are kept."""
