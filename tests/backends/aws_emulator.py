"""AWS as moto plays it, on the loopback, and where moto is laxer than AWS made as strict.

moto's listing of parameters has pages of ten at whatever size is asked for, and both listings go on
by counting, so that they skip something when an item before is deleted meanwhile; its secrets
forget which version is current when a stage is moved, and can be written while they are deleted.
`strict` mends that. Sizes, names and throttling are the rules of the proxy before it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
from moto.core.responses import ActionResult
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.ssm.exceptions import ValidationException
from moto.ssm.models import ssm_backends
from moto.ssm.responses import SimpleSystemManagerResponse
from werkzeug.serving import make_server

ACCOUNT: Final = "123456789012"
REGION: Final = "eu-central-1"
ENVIRONMENT: Final = {"KEY_ID": "testing", "SECRET_KEY": "testing"}
"""What the variables of the access key hold; moto takes anything."""
SETTINGS: Final = {
    "region": REGION,
    "access_key_id_env": "KEY_ID",
    "secret_access_key_env": "SECRET_KEY",
}


def parameters() -> Any:
    """What the Parameter Store holds, as moto keeps it."""
    return ssm_backends[ACCOUNT][REGION]


def secrets() -> Any:
    """What Secrets Manager holds, as moto keeps it."""
    return secretsmanager_backends[ACCOUNT][REGION]


def empty() -> None:
    """Forget everything."""
    ssm_backends.reset()
    secretsmanager_backends.reset()


@contextmanager
def emulator() -> Iterator[str]:
    """moto, made strict, on a free port; the URL."""
    # One thread for all requests: who counts threads should not find one that comes and goes.
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=False, request_handler=MotoRequestHandler)
    serving = threading.Thread(target=server.serve_forever, name="moto")
    with pytest.MonkeyPatch.context() as patch:
        strict(patch)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            serving.join()
            server.server_close()


def strict(patch: pytest.MonkeyPatch) -> None:
    """Have moto do as AWS does, and log no requests: there are very many of them."""
    patch.setattr(MotoRequestHandler, "log_request", lambda *_, **__: None)
    patch.setattr(SimpleSystemManagerResponse, "describe_parameters", _describe_parameters)
    patch.setattr(SecretsManagerResponse, "list_secrets", _list_secrets)
    patch.setattr(SecretsManagerBackend, "update_secret_version_stage", _moving())
    patch.setattr(SecretsManagerBackend, "put_secret_value", _refusing_deleted("put_secret_value"))
    patch.setattr(SecretsManagerBackend, "create_secret", _refusing_deleted("create_secret"))


def _describe_parameters(self: Any) -> ActionResult:
    size, token = self._get_param("MaxResults", 50), self._get_param("NextToken") or ""
    if token and not token.startswith("after:"):
        raise ValidationException("The token is not valid.")
    found = self.ssm_backend.describe_parameters(None, self._get_param("ParameterFilters"))
    page, after = _page({each.name: each for each in found}, size, token)
    listed = [each.describe_response_object(False) for each in page]
    for each in listed:
        del each["Value"]
    return ActionResult({"Parameters": listed, **({"NextToken": after} if after else {})})


def _list_secrets(self: Any) -> str:
    size, token = self._get_int_param("MaxResults") or 100, self._get_param("NextToken") or ""
    if token and not token.startswith("after:"):
        raise InvalidRequestException("The token is not valid.")
    found, _ = self.backend.list_secrets(
        filters=self._get_param("Filters", if_none=[]),
        max_results=1_000_000,
        include_planned_deletion=self._get_param("IncludePlannedDeletion", if_none=False),
    )
    page, after = _page({each["Name"]: each for each in found}, size, token)
    return json.dumps({"SecretList": page, **({"NextToken": after} if after else {})})


def _page(found: dict[str, Any], size: int, token: str) -> tuple[list[Any], str]:
    """One page of what was found, in the order of names, and the token of the next, "" for none."""
    rest = sorted(name for name in found if name > token.removeprefix("after:"))
    page: Sequence[str] = rest[:size]
    return [found[name] for name in page], f"after:{page[-1]}" if len(rest) > size else ""


def _moving() -> Any:
    """Stages that are moved take along which version is the default one."""
    move = SecretsManagerBackend.update_secret_version_stage

    def moved(self: Any, **given: Any) -> Any:
        secret = self.secrets.get(given["secret_id"])
        if secret is not None and secret.is_deleted():
            raise InvalidRequestException("The secret is marked for deletion.")
        answer = move(self, **given)
        assert secret is not None
        for identifier, version in secret.versions.items():
            if "AWSCURRENT" in version["version_stages"]:
                secret.set_default_version_id(identifier)
        return answer

    return moved


def _refusing_deleted(name: str) -> Any:
    """Nothing is written to a secret that is deleted."""
    write = getattr(SecretsManagerBackend, name)

    def written(self: Any, **given: Any) -> Any:
        which = given.get("secret_id") or given.get("name")
        if which in self.secrets and self.secrets[which].is_deleted():
            raise InvalidRequestException("The secret is marked for deletion.")
        return write(self, **given)

    return written
