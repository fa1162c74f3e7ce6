"""Every setting of the daemon: its key, type, range and default.

The class of a section is the section, the field is the key: `Settings.node.listen` is
`listen` under `[node]`. Units end the name (`_bytes`, `_ms`, `_seconds`); what is `None` is
not set. What each key means to an operator, and when to change it, is told once, in
config/envd.toml; a comment here only says where a number comes from.

`INERT` marks what this version accepts and checks but does not act on. A feature that
arrives takes its mark away, and nothing else: the list that the daemon logs at start
(`Settings.ineffective`), `envd config check` and the tests of config/envd.toml follow.

The Structs hold values that `load` has checked; building one by hand checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, assert_never

from msgspec import Meta, Struct, field

from envd.core.backups import check_recovery_key
from envd.core.names import check_environment, check_prefix
from envd.settings.marks import INERT, NOT_A_KEY, SECRET, Derived, Expects, Within
from envd.settings.schema import Leaf, NamedTables, Table, TableArray, table_of
from envd.settings.units import Address, Duration, check_host

MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
PAGE_BYTES: Final = 4096

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["auto", "json", "console"]
Role = Literal["storage", "agent"]
Consistency = Literal["eventual", "session", "strong", "local_quorum", "each_quorum", "global"]
Provider = Literal["aws", "azure", "gcp", "vault"]

NodeName = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z", max_length=253),
    Expects("a name of letters, digits, '.', '_' and '-', beginning and ending with one of the "
            "first two, of at most 253 characters"),
]  # fmt: skip
ClusterName = Annotated[
    str,
    Meta(pattern=r"\A[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z", max_length=63),
    Expects("a name of a-z, 0-9, '.', '_' and '-', of at most 63 characters"),
]
PlaceName = Annotated[
    str,
    Meta(pattern=r"\A[a-z0-9]([a-z0-9_-]*[a-z0-9])?\Z", max_length=63),
    Expects("a name of a-z, 0-9, '_' and '-', of at most 63 characters"),
]
Host = Annotated[str, Expects("a host name or an IP address, without a port", check_host)]
# Lower-case letters are left out so that a pasted credential is refused, not looked up.
VariableName = Annotated[
    str,
    Meta(pattern=r"\A[A-Z_][A-Z0-9_]*\Z", max_length=128),
    Expects("the name of an environment variable, in upper case (its name, not its value)"),
]
Text = Annotated[str, Meta(min_length=1, max_length=512)]
# `@` would let a user and a password in.
Url = Annotated[
    str,
    Meta(pattern=r"\Ahttps?://[^\s@/]+(/[^\s@]*)?\Z", max_length=2048),
    Expects("a URL that begins with http:// or https:// and holds no user or password"),
]
EnvironmentName = Annotated[
    str, Expects('an environment such as "payments/prod"', check_environment)
]
Prefix = Annotated[str, Expects('a prefix of environments such as "payments"', check_prefix)]
RecoveryKey = Annotated[
    str, Expects("the public half of a recovery key (envd_recovery_pub_...)", check_recovery_key)
]


class Node(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[node]`: this process, where it runs and where it is reached."""

    data_dir: Annotated[
        Path, Derived("$XDG_STATE_HOME/envd, or ~/.local/state/envd; as root /var/lib/envd")
    ]
    name: Annotated[NodeName, Derived("the host name")]
    listen: Address = Address("127.0.0.1", 7420)
    http: Address = Address("127.0.0.1", 7422)
    socket: Annotated[
        Path, Derived("envd.sock in the data directory", lambda data, _: data / "envd.sock")
    ]
    advertise: Annotated[Host, Derived("the listen host", lambda _, listen: listen.host)]
    region: PlaceName = "default"
    zone: PlaceName = "default"
    role: Role = "storage"


class Cluster(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cluster]`: which cluster the node belongs to and how it finds it."""

    name: ClusterName = "default"
    secret_file: Annotated[
        Path,
        Derived(
            "cluster.secret in the data directory, made at creation",
            lambda data, _: data / "cluster.secret",
        ),
    ]
    gossip: Address = Address("127.0.0.1", 7421)
    join: tuple[Address, ...] = ()
    bootstrap_expect: Annotated[int, Meta(ge=1, le=1000)] | None = None


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[storage]`: the journal, the state and how long history is kept."""

    # A segment must hold the largest commit (an environment of 4 MiB) with its framing.
    segment_bytes: Annotated[int, Meta(ge=16 * MIB, le=GIB)] = 32 * MIB
    keep_segments: Annotated[int, Meta(ge=1, le=1024)] = 4
    # Address space, not disk; x86-64 gives a process 128 TiB of it.
    map_size_bytes: Annotated[int, Meta(ge=64 * MIB, le=64 * TIB, multiple_of=PAGE_BYTES)] = (
        256 * GIB
    )
    memtable_bytes: Annotated[int, Meta(ge=16 * MIB, le=16 * GIB)] = 64 * MIB
    journal_queue_bytes: Annotated[int, Meta(ge=16 * MIB, le=16 * GIB)] = 64 * MIB
    flush_interval_ms: Annotated[int, Meta(ge=10, le=60_000)] = 2_000
    history_commits: Annotated[int, Meta(ge=1, le=100_000)] = 100
    history_days: Annotated[int, Meta(ge=0, le=36_500)] = 90


class Security(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[security]`: who may talk to the node, and the key that seals its data."""

    insecure: bool = False
    key_file: Annotated[
        Path, Derived("local.key in the data directory", lambda data, _: data / "local.key")
    ]
    # 32 characters of base64 are 192 bits; the mask of `config check` is shorter on purpose.
    admin_token: (
        Annotated[
            str,
            SECRET,
            Meta(pattern=r"\A[A-Za-z0-9._~+/=-]*\Z", min_length=32, max_length=512),
            Expects("32 to 512 of the characters that a bearer token may have"),
        ]
        | None
    ) = None
    tls_ca_file: Annotated[Path | None, INERT] = None
    tls_cert_file: Annotated[Path | None, INERT] = None
    tls_key_file: Annotated[Path | None, INERT] = None

    def __repr__(self) -> str:
        """Leave the token out, wherever settings end up being printed."""
        return f"Security(insecure={self.insecure}, ...)"


class Backup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[backup]`: the backups that the node makes by itself."""

    directory: Path | None = None
    every: Annotated[Duration, Within(Duration(60_000), Duration(366 * 86_400_000))] | None = None
    recovery_keys: Annotated[tuple[RecoveryKey, ...], Meta(max_length=8)] = ()
    keep_count: Annotated[int, Meta(ge=1, le=10_000)] = 7
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 30


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`: what one node takes on at once before it answers "not now"."""

    max_concurrent_requests: Annotated[int, Meta(ge=1, le=100_000)] = 1_024
    max_watches: Annotated[int, Meta(ge=0, le=1_000_000)] = 10_000


class Distributed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[distributed]`: copies, consistency and the pulse of the cluster."""

    replication_factor: Annotated[int, Meta(ge=1, le=9)] | None = None
    consistency_level: Annotated[Consistency, INERT] = "eventual"
    gossip_interval: Annotated[Duration, INERT, Within(Duration(50), Duration(10_000))] = Duration(
        200
    )
    heartbeat_interval: Annotated[Duration, INERT, Within(Duration(50), Duration(10_000))] = (
        Duration(200)
    )


class Region(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[regions.NAME]`: a region, its copies, and what must stay in it."""

    zones: Annotated[tuple[PlaceName, ...], INERT] = ()
    replication_factor: Annotated[int, Meta(ge=0, le=9)] | None = None
    gateways: Annotated[tuple[Address, ...], INERT] = ()
    pinned_prefixes: Annotated[tuple[Prefix, ...], INERT] = ()


class Aws(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.aws]`"""

    region: PlaceName | None = None
    access_key_id_env: VariableName | None = None
    secret_access_key_env: VariableName | None = None
    role_arn: (
        Annotated[
            str,
            Meta(pattern=r"\Aarn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}\Z"),
            Expects('the ARN of a role such as "arn:aws:iam::123456789012:role/envd"'),
        ]
        | None
    ) = None
    endpoint: Url | None = None
    kms_key_id: Text | None = None
    ssm_parameter_prefix: Text = "/envd"
    ssm_tier: Literal["standard", "advanced"] = "standard"
    secrets_manager_prefix: Text = "envd/"
    secrets_manager_recovery_days: Annotated[int, Meta(ge=7, le=30)] = 30


class Azure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.azure]`"""

    subscription_id: Text | None = None
    resource_group: Text | None = None
    tenant_id: Text | None = None
    client_id_env: VariableName | None = None
    client_secret_env: VariableName | None = None
    authority: Url = "https://login.microsoftonline.com"
    ca_file: Path | None = None
    key_vault_name: Text | None = None
    key_vault_suffix: Text = "vault.azure.net"
    key_vault_api_version: Text = "7.4"
    app_configuration_suffix: Text = "azconfig.io"
    resource_manager: Url = "https://management.azure.com"


class Gcp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.gcp]`"""

    project_id: Text | None = None
    credentials_file: Path | None = None
    secret_manager_prefix: Text = "envd-"  # noqa: S105 - a prefix of names
    secret_manager_location: PlaceName | None = None
    secret_manager_replicas: tuple[PlaceName, ...] = ()
    parameter_manager_prefix: Text = "envd-"
    parameter_manager_location: PlaceName = "global"
    secret_manager_keep_versions: Annotated[int, Meta(ge=0, le=1000)] = 0


class Vault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.vault]`, for HashiCorp Vault and OpenBao"""

    address: Url | None = None
    namespace: Text | None = None
    mount: Text = "secret"
    path_prefix: Text = "envd"
    auth: Literal["token", "approle", "kubernetes"] = "token"
    auth_mount: Text | None = None
    token_env: VariableName = "VAULT_TOKEN"  # noqa: S105 - a name, not a token
    token_file: Path | None = None
    role_id_env: VariableName | None = None
    secret_id_env: VariableName | None = None
    kubernetes_role: Text | None = None
    kubernetes_token_file: Path | None = None
    ca_file: Path | None = None


class Etcd(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.etcd]`"""

    endpoints: tuple[Url, ...] = ()
    path_prefix: Text = "/envd"
    user_env: VariableName | None = None
    password_env: VariableName | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Consul(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.consul]`"""

    address: Url | None = None
    path_prefix: Text = "envd"
    datacenter: Text | None = None
    namespace: Text | None = None
    partition: Text | None = None
    token_env: VariableName | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Kubernetes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.kubernetes]`"""

    auth: Literal["auto", "in-cluster", "kubeconfig"] = "auto"
    kubeconfig: Path | None = None
    context: Text | None = None


class DigitalOcean(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.digitalocean]`, for App Platform"""

    token_env: VariableName = "DIGITALOCEAN_ACCESS_TOKEN"  # noqa: S105 - a name, not a token
    token_file: Path | None = None
    scope: Literal["RUN_TIME", "BUILD_TIME", "RUN_AND_BUILD_TIME"] = "RUN_AND_BUILD_TIME"
    endpoint: Url | None = None


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud.providers.file]`: files on the node's own disks, in a git working tree or not."""

    git_commit: bool = False


class Providers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    aws: Aws = Aws()
    azure: Azure = Azure()
    gcp: Gcp = Gcp()
    vault: Vault = Vault()
    etcd: Etcd = Etcd()
    consul: Consul = Consul()
    kubernetes: Kubernetes = Kubernetes()
    digitalocean: DigitalOcean = DigitalOcean()
    file: File = File()


class Cloud(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cloud]`: whether the node keeps environments in step with stores, and which there are."""

    enabled: bool = False
    default_provider: Annotated[Provider | None, INERT] = None
    price_file: Path | None = None
    providers: Providers = Providers()


class Binding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[bindings]]`: ties an environment, or all below a prefix, to a place in a store."""

    name: ClusterName
    environment: EnvironmentName | None = None
    prefix: Prefix | None = None
    targets: Annotated[
        tuple[
            Annotated[
                str,
                Meta(pattern=r"\A[a-z0-9][a-z0-9-]*:\S.*\Z", max_length=2048),
                Expects('a store and a place in it such as "aws-ssm:/payments/prod"'),
            ],
            ...,
        ],
        Meta(min_length=1, max_length=8),
    ]
    route: Literal["failover", "latency", "cost", "priority", "region"] = "failover"
    direction: Literal["push", "pull", "both"] = "push"
    conflict_policy: Literal["lww", "envd", "store", "manual"] = "lww"
    delete_policy: Literal["owned", "never", "mirror"] = "owned"
    layout: Literal["per-variable", "document"] = "per-variable"
    name_template: Text | None = None
    credentials: Text | None = None
    interval_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 60
    windows: tuple[Text, ...] = ()
    priority: Annotated[int, Meta(ge=0, le=1_000)] = 100
    suspended: bool = False
    budget_dollars: Annotated[float, Meta(ge=0.0, le=1e9)] = 0.0
    budget_stops: bool = False


class Autoscaling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[autoscaling]`: between which bounds the number of nodes may be steered."""

    enabled: bool = False
    min_nodes: Annotated[int, Meta(ge=1, le=1_000)] = 3
    max_nodes: Annotated[int, Meta(ge=1, le=1_000)] = 9
    target_cpu_percent: Annotated[int, Meta(ge=1, le=100)] = 70
    target_storage_percent: Annotated[int, Meta(ge=1, le=100)] = 75
    cooldown_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 300


class Observability(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[observability]`: logs, metrics, traces."""

    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    metrics_endpoint: Url | None = None
    tracing_endpoint: Url | None = None
    trace_sample_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one node, as they are in force.

    `origins` tells where a value was set, by its dotted key: a file's path, `ENVD_LISTEN` or
    `--listen`. A key that is not in it has its default.
    """

    node: Node
    cluster: Cluster
    storage: Storage = Storage()
    security: Security
    backup: Backup = Backup()
    limits: Limits = Limits()
    distributed: Distributed = Distributed()
    regions: Mapping[PlaceName, Region] = field(default_factory=dict)
    cloud: Cloud = Cloud()
    bindings: tuple[Binding, ...] = ()
    autoscaling: Annotated[Autoscaling, INERT] = Autoscaling()
    observability: Observability = Observability()
    origins: Annotated[Mapping[str, str], NOT_A_KEY] = field(default_factory=dict)

    def ineffective(self) -> list[str]:
        """Return the keys that are not at their default and do nothing in this version."""
        rows = SCHEMA.children["regions"]
        assert isinstance(rows, NamedTables)
        below = (
            _entries(rows.table, row, f"regions.{name}.", self)
            for name, row in self.regions.items()
        )
        every = (*self.entries(), *(entry for found in below for entry in found))
        return [entry.key for entry in every if entry.inert and entry.value != entry.default]

    def differences(self, other: Settings) -> list[str]:
        """Return the keys whose values differ, wherever those came from.

        After SIGHUP this is what the operator changed; what can't change live needs a restart.
        """
        mine = {entry.key: entry.value for entry in self.entries()}
        theirs = {entry.key: entry.value for entry in other.entries()}
        keys = dict.fromkeys((*mine, *theirs))
        return [key for key in keys if mine.get(key) != theirs.get(key)]

    def entries(self) -> Iterator[Entry]:
        """Yield every key with its value; a named region, and all bindings, are one entry."""
        yield from _entries(SCHEMA, self, "", self)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it is in force, and what it would be if nobody had set it."""

    key: str
    value: object
    default: object
    inert: bool


def _entries(table: Table, struct: object, prefix: str, whole: Settings) -> Iterator[Entry]:
    for name, node in table.children.items():
        key, value = prefix + name, getattr(struct, name)
        match node:
            case Leaf():
                yield Entry(key, value, default_of(node, whole), node.inert)
            case Table():
                yield from _entries(node, value, key + ".", whole)
            case NamedTables():
                for region, row in value.items():
                    yield Entry(f"{key}.{region}", row, None, node.table.inert)
            case TableArray():
                yield Entry(key, value, (), node.table.inert)
            case _:
                assert_never(node)


def default_of(leaf: Leaf, settings: Settings) -> object:
    """Return what a key would be if nobody had set it, the other settings being as they are."""
    if leaf.derived is not None and leaf.derived.of is not None:
        return leaf.derived.of(settings.node.data_dir, settings.node.listen)
    return leaf.default


SCHEMA: Final = table_of(Settings)
