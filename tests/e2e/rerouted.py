"""A plugin for daemons under test: envd's own backends, led to servers on the loopback.

`REROUTED` in the daemon's environment is a JSON object: for each backend its `endpoint`, and the
`settings` that it is opened with. Of Azure's the login is a fake one; all else is what users have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from envd.backends import (
    aws_ssm,
    azure_app_configuration,
    azure_key_vault,
    gcp_secret_manager,
    vault,
)
from envd.backends.azure_app_configuration import AppConfigurationBackend
from envd.backends.azure_key_vault import KeyVaultBackend
from envd.backends.contract import Backend, Options, Registration
from tests.backends.fake_azure import fake_credential

VARIABLE = "REROUTED"
NAMES = ("ssm", "vault", "key-vault", "secret-manager", "app-configuration")


def _rerouted(
    name: str, registration: Registration, make: Callable[[Options], Backend]
) -> Registration:
    def made(options: Options) -> Backend:
        way = json.loads(os.environ[VARIABLE])[name]
        settings = {**options.settings, **way["settings"]}
        return make(replace(options, endpoint=way["endpoint"], settings=settings))

    return replace(registration, name=f"test-{name}", make=made)


def ssm() -> Registration:
    known = aws_ssm.registration()
    return _rerouted("ssm", known, known.make)


def of_vault() -> Registration:
    known = vault.registration()
    return _rerouted("vault", known, known.make)


def key_vault() -> Registration:
    return _rerouted(
        "key-vault",
        azure_key_vault.registration(),
        lambda options: KeyVaultBackend(options, credentials=fake_credential),
    )


def app_configuration() -> Registration:
    return _rerouted(
        "app-configuration",
        azure_app_configuration.registration(),
        lambda options: AppConfigurationBackend(options, credentials=fake_credential),
    )


def secret_manager() -> Registration:
    known = gcp_secret_manager.registration()
    return _rerouted("secret-manager", known, known.make)


_ENTRIES = {
    "test-ssm": ssm,
    "test-vault": of_vault,
    "test-key-vault": key_vault,
    "test-app-configuration": app_configuration,
    "test-secret-manager": secret_manager,
}


def installed(directory: Path) -> str:
    """Make a distribution of this plugin there; the `PYTHONPATH` that has a process find it."""
    metadata = directory / "envd_rerouted-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: envd-rerouted\nVersion: 1\n")
    lines = [f"{name} = {__name__}:{found.__name__}" for name, found in _ENTRIES.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[envd.backends]", *lines, ""]))
    return os.pathsep.join((str(directory), str(Path(__file__).parents[2])))
