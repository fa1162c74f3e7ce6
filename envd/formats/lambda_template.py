"""Variables as the environment of a Lambda function, in a template of CloudFormation or SAM.

A whole template, which can be deployed as it is with the URI of an image: take from it what
another template needs. Secrets become parameters with `NoEcho`, whose values are given when it is
deployed. It is written in ASCII, since CloudFormation answers other characters with `?`.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html has the names that Lambda
keeps for itself, and the limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from textwrap import indent
from typing import Final

from envd.core.errors import InvalidRequest
from envd.formats.deployment import Deployment, check_free, check_names, distinct, refused
from envd.formats.write import yaml_name

LAMBDA_RESERVED: Final = frozenset(
    {
        *("_HANDLER", "_X_AMZN_TRACE_ID", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_SESSION_TOKEN"),
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        *("AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        *("AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE"),
        *("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_RUNTIME_API"),
    }
)
LAMBDA_BYTES: Final = 4096
_MAX_PARAMETERS: Final = 200
_PARAMETERS: Final = ("ImageUri", "RoleArn")
# The function, and the role that SAM makes for it: names are of one space in a template.
_RESOURCES: Final = ("Function", "FunctionRole")
_ESCAPED = re.compile(r'["\\]|[^ -~]')


def cloudformation(deployment: Deployment) -> str:
    """Write a template with one `AWS::Lambda::Function`."""
    parameters, variables = _parts(deployment, _PARAMETERS)
    return (
        _head(deployment)
        + parameters
        + "Resources:\n  Function:\n    Type: AWS::Lambda::Function\n    Properties:\n"
        "      PackageType: Image\n      Code:\n        ImageUri: !Ref ImageUri\n"
        "      Role: !Ref RoleArn\n      Environment:\n" + indent(variables, 8 * " ")
    )


def sam(deployment: Deployment) -> str:
    """Write a template of SAM with the variables for all its functions, and one of these."""
    parameters, variables = _parts(deployment, _PARAMETERS[:1])
    return (
        _head(deployment, "Transform: AWS::Serverless-2016-10-31\n")
        + parameters
        + "Globals:\n  Function:\n    Environment:\n"
        + indent(variables, 6 * " ")
        + "Resources:\n  Function:\n    Type: AWS::Serverless::Function\n    Properties:\n"
        "      PackageType: Image\n      ImageUri: !Ref ImageUri\n"
    )


def _head(deployment: Deployment, transform: str = "") -> str:
    about = f"Description: A function with the variables of {deployment.environment}\n"
    return 'AWSTemplateFormatVersion: "2010-09-09"\n' + transform + about


def _parts(deployment: Deployment, own: tuple[str, ...]) -> tuple[str, str]:
    """The section `Parameters`, and the lines of `Variables`."""
    _check(deployment)
    _, secret = deployment.split()
    called = distinct(secret, parameter_name)
    for name, parameter in called.items():
        if parameter in (*own, *_RESOURCES):
            raise refused(name, f"would be called {parameter}, as something else in the template")
    if len(called) + len(own) > _MAX_PARAMETERS:
        raise InvalidRequest(
            f"there are more secrets than the {_MAX_PARAMETERS} parameters of a template",
            hint="leave some out: --except GLOB",
            reason="INEXPRESSIBLE",
        )
    parameters = "Parameters:\n" + "".join(f"  {name}:\n    Type: String\n" for name in own)
    parameters += "".join(
        f"  {yaml_name(parameter)}:\n    Type: String\n    NoEcho: true\n"
        f"    Description: {yaml_name(name)}\n"
        for name, parameter in called.items()
    )
    return parameters, _variables(deployment, called)


def _variables(deployment: Deployment, called: Mapping[str, str]) -> str:
    if not deployment.names:
        return "Variables: {}\n"
    rows = [
        f"  {yaml_name(name)}: "
        + (f"!Ref {called[name]}\n" if name in called else f"{_ascii(deployment.values[name])}\n")
        for name in deployment.names
    ]
    return "Variables:\n" + "".join(rows)


def parameter_name(name: str) -> str:
    """What a variable is called as a parameter, which takes letters and digits: ApiKey."""
    words = [word for word in re.split("[_.-]+", name) if word]
    return "".join(
        word[0].upper() + (word[1:].lower() if word.isupper() else word[1:]) for word in words
    )


def _check(deployment: Deployment) -> None:
    """Raise InvalidRequest for what Lambda does not take; sizes as far as values are known."""
    check_free(deployment.names, LAMBDA_RESERVED, "Lambda")
    check_names(
        deployment.names,
        "[A-Za-z][A-Za-z0-9_]+",
        "has a name that Lambda does not take, which begins with a letter, has two or more "
        "characters, and of other signs only '_'",
    )
    for name, value in deployment.values.items():
        if "{{resolve:" in value:
            raise refused(name, "has '{{resolve:' in its value, which CloudFormation would fill in")
    known = {name: deployment.values.get(name, "") for name in deployment.names}
    # The function counts the JSON of them all.
    text = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > LAMBDA_BYTES:
        raise InvalidRequest(
            f"the variables take more than the {LAMBDA_BYTES} bytes that Lambda has for all",
            hint="leave some out: --except GLOB",
            reason="INEXPRESSIBLE",
        )


def _ascii(value: str) -> str:
    """A value in double quotes, in one line of ASCII."""
    return '"' + _ESCAPED.sub(_escape, value) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
