"""What the targets of infrastructure's formats read in them, by their own parsers where there are.

HCL is parsed by python-hcl2, which leaves escapes in strings to its caller; templates of
CloudFormation by the loader of cfn-lint; parts of task definitions and functions are held against
the models of botocore, and the environment of Cloud Run against its protobuf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import yaml

VAULT = "my-vault"


class Found(NamedTuple):
    """The values that stand in a file, and where each secret is looked up, or its value."""

    plain: dict[str, str]
    secret: dict[str, str]


def _hcl(text: str) -> dict[str, Any]:
    import hcl2

    read: dict[str, Any] = hcl2.loads(text)
    return read


def unquoted(text: str) -> str:
    """What a quoted string of HCL without templates stands for."""
    matched = re.fullmatch(r'"((?:[^"\\\n]|\\.)*)"', text)
    assert matched is not None
    assert matched[1].isascii()
    assert not re.search(r"[$%]\{", matched[1])
    return re.sub(r'\\(u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt"\\])', _meant, matched[1])


def _meant(match: re.Match[str]) -> str:
    what = match[1]
    if len(what) > 1:
        return chr(int(what[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t"}.get(what, what)


# -- Terraform ---------------------------------------------------------------------


def variables_of(text: str) -> dict[str, dict[str, Any]]:
    """The blocks `variable` of a file, by name."""
    return {
        unquoted(name): body
        for each in _hcl(text).get("variable", [])
        for name, body in each.items()
    }


def resources_of(text: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The blocks `resource` of a file, by kind and name."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for each in _hcl(text).get("resource", []):
        for kind, named in each.items():
            for name, body in named.items():
                known = found.setdefault(unquoted(kind), {})
                assert unquoted(name) not in known
                known[unquoted(name)] = body
    return found


def _terraform(text: str, places: Callable[[dict[str, Any]], Mapping[str, str]]) -> Found:
    """`places` are, by variable, where the resources put them."""
    put = places(resources_of(text))
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for name, body in variables_of(text).items():
        if "description" in body:
            continue
        assert body["type"] in ("string", "${string}")
        if body.get("sensitive"):
            assert "default" not in body
            secret[name] = put[name]
        else:
            plain[name] = unquoted(body["default"])
    assert put.keys() == plain.keys() | secret.keys()
    return Found(plain, secret)


def _ssm(resources: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, body in resources.get("aws_ssm_parameter", {}).items():
        assert body["value"] == f"${{var.{name}}}"
        found[name] = f"{body['type'].strip(chr(34))} {body['name'].strip(chr(34))}"
    return found


def _key_vault(resources: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, body in resources.get("azurerm_key_vault_secret", {}).items():
        assert body["value"] == f"${{var.{name}}}"
        assert body["key_vault_id"] == "${var.key_vault_id}"
        found[name] = unquoted(body["name"])
    assert len(set(found.values())) == len(found)
    return found


def _secret_manager(resources: dict[str, Any]) -> dict[str, str]:
    versions = resources.get("google_secret_manager_secret_version", {})
    found = {}
    for name, body in resources.get("google_secret_manager_secret", {}).items():
        assert versions[name]["secret"] == f"${{google_secret_manager_secret.{name}.id}}"
        assert versions[name]["secret_data"] == f"${{var.{name}}}"
        found[name] = body["secret_id"].strip('"')
    assert versions.keys() == found.keys()
    return found


def _vault(resources: dict[str, Any]) -> dict[str, str]:
    data = resources["vault_kv_secret_v2"]["envd"]["data_json"]
    matched = re.fullmatch(r"\$\{jsonencode\(\{(.*)\}\)\}", data, re.DOTALL)
    assert matched is not None
    pairs = [each.split(" = ") for each in matched[1].split(", ") if each]
    for key, value in pairs:
        assert value == f"var.{key.strip(chr(34))}"
    return {key.strip('"'): "data" for key, _ in pairs}


# -- CloudFormation ----------------------------------------------------------------


def template(text: str) -> dict[str, Any]:
    """A template, read as cfn-lint reads one."""
    from cfnlint.decode import decode_str  # type: ignore[import-untyped]

    assert text.isascii()
    read, complaints = decode_str(text)
    assert complaints == []
    document: dict[str, Any] = read
    return document


def _function(text: str, variables: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Found:
    document = template(text)
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for name, value in variables(document).items():
        if isinstance(value, str):
            plain[str(name)] = str(value)
            continue
        assert value.keys() == {"Ref"}
        parameter = document["Parameters"][value["Ref"]]
        assert (parameter["Type"], parameter["NoEcho"]) == ("String", True)
        assert parameter["Description"] == name
        secret[str(name)] = str(value["Ref"])
    assert len(set(secret.values())) == len(secret)
    check_shape(
        "lambda",
        "UpdateFunctionConfiguration",
        {"FunctionName": "f", "Environment": {"Variables": {**plain, **secret}}},
    )
    return Found(plain, secret)


def _cloudformation(document: dict[str, Any]) -> Mapping[str, Any]:
    function = document["Resources"]["Function"]
    assert function["Type"] == "AWS::Lambda::Function"
    variables: Mapping[str, Any] = function["Properties"]["Environment"]["Variables"]
    return variables


def _sam(document: dict[str, Any]) -> Mapping[str, Any]:
    assert document["Transform"] == "AWS::Serverless-2016-10-31"
    variables: Mapping[str, Any] = document["Globals"]["Function"]["Environment"]["Variables"]
    return variables


# -- containers --------------------------------------------------------------------


@cache
def _service(name: str) -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model(name)


def check_shape(service: str, operation: str, request: dict[str, Any]) -> None:
    """Hold a request against the model that botocore has of it."""
    from botocore.validate import ParamValidator

    shape = _service(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def _ecs(text: str) -> Found:
    part = json.loads(text)
    assert part.keys() == {"environment", "secrets"}
    container = {"name": "web", "image": "web", **part}
    check_shape(
        "ecs", "RegisterTaskDefinition", {"family": "web", "containerDefinitions": [container]}
    )
    return Found(
        {each["name"]: each["value"] for each in part["environment"]},
        {each["name"]: each["valueFrom"] for each in part["secrets"]},
    )


def _cloud_run(text: str) -> Found:
    from google.cloud import run_v2
    from google.protobuf import json_format

    service = yaml.safe_load(text)
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    (container,) = service["spec"]["template"]["spec"]["containers"]
    for each in container["env"]:
        message: dict[str, Any] = {key: each[key] for key in each if key != "valueFrom"}
        if "valueFrom" in each:
            reference = each["valueFrom"]["secretKeyRef"]
            assert reference.keys() == {"name", "key"}
            message["valueSource"] = {
                "secretKeyRef": {"secret": reference["name"], "version": reference["key"]}
            }
        read = json_format.ParseDict(message, run_v2.EnvVar.pb(run_v2.EnvVar()))
        if read.WhichOneof("values") == "value":
            plain[read.name] = read.value
        else:
            assert read.value_source.secret_key_ref.version == "latest"
            secret[read.name] = read.value_source.secret_key_ref.secret
    return Found(plain, secret)


def _docker_swarm(text: str) -> Found:
    """Values as Docker's reader of the file leaves them, and then the templates of the swarm."""
    stack = yaml.safe_load(text)
    ((_, service),) = stack["services"].items()
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    declared = stack.get("secrets", {})
    for name, value in service["environment"].items():
        if name.removesuffix("_FILE") in declared and value.startswith("/run/secrets/"):
            of = name.removesuffix("_FILE")
            assert value == f"/run/secrets/{of}"
            assert declared[of]["external"] is True
            secret[of] = declared[of]["name"]
        else:
            assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", value)
            filled = re.sub(r"\{\{(.*?)\}\}", _action, value.replace("$$", "$"))
            plain[name] = filled
    assert service.get("secrets", []) == list(secret) == list(declared)
    return Found(plain, secret)


def _action(match: re.Match[str]) -> str:
    assert match[1] == '"{{"', "the swarm would run this"
    return "{{"


def _nomad(text: str) -> Found:
    task = _hcl(text)
    (env,) = task["env"]
    plain = {name: unquoted(value) for name, value in env.items() if name != "__is_block__"}
    secret: dict[str, str] = {}
    for block in task.get("template", []):
        assert block["env"] is True
        assert block["destination"].startswith('"${NOMAD_SECRETS_DIR}/')
        matched = re.fullmatch(
            r'"<<EOT\n\{\{ with secret "(.*)" -\}\}\n(.*)\{\{ end -\}\}\nEOT"',
            block["data"],
            re.DOTALL,
        )
        assert matched is not None
        for line in matched[2].splitlines():
            name, _, value = line.partition("=")
            assert value == f"{{{{ .Data.data.{name} | toJSON }}}}"
            secret[name] = matched[1]
    return Found(plain, secret)


# -- Azure -------------------------------------------------------------------------


def _azure_functions(text: str) -> Found:
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for each in json.loads(text):
        assert each.keys() == {"name", "value", "slotSetting"}
        assert each["slotSetting"] is False
        reference = re.fullmatch(
            rf"@Microsoft\.KeyVault\(VaultName={VAULT};SecretName=([a-z0-9-]+)\)", each["value"]
        )
        if reference:
            secret[each["name"]] = reference[1]
        else:
            plain[each["name"]] = each["value"]
    return Found(plain, secret)


def _azure_functions_local(text: str) -> Found:
    settings = json.loads(text)
    assert settings["IsEncrypted"] is False
    return Found(settings["Values"], {})


def _azure_container_instances(text: str) -> Found:
    group = yaml.safe_load(text)
    assert group["type"] == "Microsoft.ContainerInstance/containerGroups"
    assert isinstance(group["apiVersion"], str)
    (container,) = group["properties"]["containers"]
    listed = container["properties"]["environmentVariables"]
    return Found(
        {each["name"]: each["value"] for each in listed if "value" in each},
        {each["name"]: each["secureValue"] for each in listed if "secureValue" in each},
    )


READERS: dict[str, Callable[[str], Found]] = {
    "terraform-ssm": lambda text: _terraform(text, _ssm),
    "terraform-key-vault": lambda text: _terraform(text, _key_vault),
    "terraform-secret-manager": lambda text: _terraform(text, _secret_manager),
    "terraform-vault": lambda text: _terraform(text, _vault),
    "cloudformation": lambda text: _function(text, _cloudformation),
    "sam": lambda text: _function(text, _sam),
    "ecs": _ecs,
    "cloud-run": _cloud_run,
    "docker-swarm": _docker_swarm,
    "nomad": _nomad,
    "azure-functions": _azure_functions,
    "azure-functions-local": _azure_functions_local,
    "azure-container-instances": _azure_container_instances,
}
