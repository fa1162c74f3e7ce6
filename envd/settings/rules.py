"""What settings must fulfil together; each rule names the key, where it was set, and the mend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from envd.core.errors import SettingsError
from envd.settings.document import shown
from envd.settings.model import Settings

# sun_path of Linux is 108 bytes, with the closing NUL (unix(7)).
MAX_SOCKET_PATH_BYTES: Final = 107


def check(settings: Settings) -> None:
    """Raise SettingsError for the first rule that the settings break."""
    _check_listeners(settings)
    _check_exposure(settings)
    _check_socket(settings)
    _check_peers(settings)
    _check_tls(settings)
    _check_backup(settings)
    _check_bindings(settings)
    _check_autoscaling(settings)


def at(settings: Settings, key: str) -> str:
    """Return the words that a message about a key begins with: where it was set, and the key."""
    origin = settings.origins.get(key)
    return f"{shown(origin)}: `{key}`" if origin else f"`{key}`"


def _check_listeners(settings: Settings) -> None:
    listen, http = settings.node.listen, settings.node.http
    if listen == http and listen.port != 0:
        key = "node.http" if "node.http" in settings.origins else "node.listen"
        raise SettingsError(
            f"{at(settings, key)}: gRPC and HTTP can't share one address",
            hint="give --listen and --http different ports",
        )
    metrics_port = settings.observability.metrics_port
    if metrics_port and any(metrics_port == one.port for one in (listen, http)):
        raise SettingsError(
            f"{at(settings, 'observability.metrics_port')} is the port of gRPC or HTTP",
            hint="leave it out: HTTP serves /metrics too; or choose another port",
        )


def _check_exposure(settings: Settings) -> None:
    """Refuse to serve in clear text beyond this machine unless `--insecure` asks for it.

    TLS keys do not lift this as long as nothing serves TLS: what would be reachable is the
    clear text. Gossip itself is sealed, but the channels between nodes that it leads to are not.
    """
    if settings.security.insecure:
        return
    exposed = {
        "node.listen": settings.node.listen,
        "node.http": settings.node.http,
        "cluster.gossip": settings.cluster.gossip,
    }
    for key, address in exposed.items():
        if not address.is_loopback:
            raise SettingsError(
                f"{at(settings, key)} can be reached from other machines, and this version "
                "has no TLS yet",
                hint="use a loopback address such as 127.0.0.1; or, for trials in a network "
                "you trust, pass --insecure (no TLS, no authentication). Once TLS is there, "
                "the tls_ keys under [security] will allow this",
            )


def _check_socket(settings: Settings) -> None:
    size = len(os.fsencode(settings.node.socket))
    if size > MAX_SOCKET_PATH_BYTES:
        raise SettingsError(
            f"{at(settings, 'node.socket')} is a path of {size} bytes; the system allows a Unix "
            f"socket {MAX_SOCKET_PATH_BYTES}",
            hint="pass --socket with a shorter path, for example under /run or /tmp",
        )


def _check_peers(settings: Settings) -> None:
    peers = {"cluster.join": settings.cluster.join}
    peers |= {f"regions.{name}.gateways": row.gateways for name, row in settings.regions.items()}
    for key, addresses in peers.items():
        if any(address.port == 0 for address in addresses):
            raise SettingsError(f"{at(settings, key)} has a port 0, which nobody can connect to")


def _check_tls(settings: Settings) -> None:
    security = settings.security
    if (security.tls_cert_file is None) != (security.tls_key_file is None):
        given, lacking = "tls_cert_file", "tls_key_file"
        if security.tls_cert_file is None:
            given, lacking = lacking, given
        raise SettingsError(
            f"{at(settings, f'security.{given}')} is set, but `security.{lacking}` is not",
            hint="a certificate and its private key go together",
        )


def _check_backup(settings: Settings) -> None:
    """A schedule needs a place for its files and a key that opens them."""
    backup = settings.backup
    if backup.every is None:
        return
    if backup.directory is None:
        raise SettingsError(
            f"{at(settings, 'backup.every')} is set, but `backup.directory` is not",
            hint="name a directory for the backups, on another disk than the data",
        )
    if not backup.recovery_keys:
        raise SettingsError(
            f"{at(settings, 'backup.every')} is set, but `backup.recovery_keys` names no key "
            "that opens the backups",
            hint="make one with: envctl backup create --new-recovery-key FILE",
        )


def _check_bindings(settings: Settings) -> None:
    for name in _repeated(binding.name for binding in settings.bindings):
        raise SettingsError(f"{at(settings, 'bindings')}: two bindings are named `{name}`")
    for number, binding in enumerate(settings.bindings):
        if (binding.environment is None) == (binding.prefix is None):
            raise SettingsError(
                f"{at(settings, f'bindings[{number}].name')}: binding `{binding.name}` must have "
                "either `environment` or `prefix`",
                hint='prefix = "" stands for every environment',
            )


def _check_autoscaling(settings: Settings) -> None:
    if settings.autoscaling.min_nodes > settings.autoscaling.max_nodes:
        raise SettingsError(
            f"{at(settings, 'autoscaling.min_nodes')} is larger than `autoscaling.max_nodes`"
        )


def _repeated(names: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
