"""The flags of `envd`, each with its environment variable and its key in the file.

`FLAGS` is the one table of these. The order of precedence is flag, variable, file, default.
`--config` has no key: it names the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envd import __version__
from envd.settings.model import SCHEMA
from envd.settings.schema import Leaf, leaf_at


@dataclass(frozen=True, slots=True)
class Flag:
    name: str
    variable: str
    key: str
    metavar: str
    help: str

    @property
    def destination(self) -> str:
        """Return the attribute of the parsed arguments: `data_dir`."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def leaf(self) -> Leaf:
        return leaf_at(SCHEMA, self.key)

    @property
    def takes_value(self) -> bool:
        return self.leaf.kind is not bool


CONFIG_FLAG: Final = "--config"
CONFIG_VARIABLE: Final = "ENVD_CONFIG"

FLAGS: Final = (
    Flag("--data-dir", "ENVD_DATA_DIR", "node.data_dir", "DIR", "where the node keeps its data"),
    Flag("--node-name", "ENVD_NODE_NAME", "node.name", "NAME", "this node's name"),
    Flag(
        "--cluster-name", "ENVD_CLUSTER_NAME", "cluster.name", "NAME", "the cluster it belongs to"
    ),
    Flag(
        "--cluster-secret-file",
        "ENVD_CLUSTER_SECRET_FILE",
        "cluster.secret_file",
        "FILE",
        "the secret that nodes of one cluster share",
    ),
    Flag(
        "--listen", "ENVD_LISTEN", "node.listen", "HOST:PORT", "gRPC, for clients and other nodes"
    ),
    Flag("--gossip", "ENVD_GOSSIP", "cluster.gossip", "HOST:PORT", "gossip between nodes, UDP"),
    Flag(
        "--http",
        "ENVD_HTTP",
        "node.http",
        "HOST:PORT",
        "REST, metrics, health and the web page",
    ),
    Flag("--socket", "ENVD_SOCKET", "node.socket", "PATH", "Unix socket for local clients"),
    Flag(
        "--advertise",
        "ENVD_ADVERTISE",
        "node.advertise",
        "HOST",
        "the host under which others reach this node",
    ),
    Flag(
        "--join",
        "ENVD_JOIN",
        "cluster.join",
        "HOST:PORT[,...]",
        "gossip addresses of nodes to join",
    ),
    Flag(
        "--bootstrap-expect",
        "ENVD_BOOTSTRAP_EXPECT",
        "cluster.bootstrap_expect",
        "N",
        "create the cluster once N empty nodes have met",
    ),
    Flag("--region", "ENVD_REGION", "node.region", "REGION", "the region this node runs in"),
    Flag("--zone", "ENVD_ZONE", "node.zone", "ZONE", "the zone this node runs in"),
    Flag(
        "--role",
        "ENVD_ROLE",
        "node.role",
        "storage|agent",
        "keep data, or only cache and watch",
    ),
    Flag(
        "--insecure",
        "ENVD_INSECURE",
        "security.insecure",
        "",
        "no TLS, no authentication, any address; for trials only",
    ),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the daemon's flags to a parser.

    Nothing is parsed or defaulted here: what is not given is None, and `load` reads the rest,
    so a wrong value is the same kind of error from a flag, a variable and the file.
    """
    parser.add_argument("--version", action="version", version=f"envd {__version__}")
    parser.add_argument(
        CONFIG_FLAG,
        metavar="FILE",
        help=f"read settings from this TOML file [{CONFIG_VARIABLE}; default: none]",
    )
    for flag in FLAGS:
        text = _help(flag).replace("%", "%%")
        if flag.takes_value:
            parser.add_argument(flag.name, metavar=flag.metavar, help=text)
        else:
            parser.add_argument(flag.name, action="store_true", default=None, help=text)


def config_file(
    argv_flags: Mapping[str, str | bool | int | None], environ: Mapping[str, str]
) -> Path | None:
    """Return the file that `--config`, else `ENVD_CONFIG`, names; None where neither does."""
    named = argv_flags.get("config") or environ.get(CONFIG_VARIABLE)
    return Path(str(named)) if named else None


def _help(flag: Flag) -> str:
    leaf = flag.leaf
    if leaf.derived is not None:
        default = leaf.derived.words
    elif leaf.kind is bool:
        default = "off"
    else:
        default = str(leaf.default) if leaf.default else "none"
    effect = "; no effect in this version yet" if leaf.inert else ""
    return f"{flag.help} [{flag.variable}; default: {default}{effect}]"
