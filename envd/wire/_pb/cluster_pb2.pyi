from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("node", "node_uid", "cluster", "version", "generation", "environments", "storage_bytes", "uptime_seconds", "insecure", "identity", "authenticated_by", "data_dir", "epoch", "members", "partitions", "under_replicated", "handoff", "lag_ms", "quarantined", "detached")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INSECURE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_BY_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    UNDER_REPLICATED_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    node: str
    node_uid: str
    cluster: str
    version: str
    generation: int
    environments: int
    storage_bytes: int
    uptime_seconds: int
    insecure: bool
    identity: str
    authenticated_by: str
    data_dir: str
    epoch: int
    members: int
    partitions: int
    under_replicated: int
    handoff: int
    lag_ms: int
    quarantined: int
    detached: int
    def __init__(self, node: _Optional[str] = ..., node_uid: _Optional[str] = ..., cluster: _Optional[str] = ..., version: _Optional[str] = ..., generation: _Optional[int] = ..., environments: _Optional[int] = ..., storage_bytes: _Optional[int] = ..., uptime_seconds: _Optional[int] = ..., insecure: _Optional[bool] = ..., identity: _Optional[str] = ..., authenticated_by: _Optional[str] = ..., data_dir: _Optional[str] = ..., epoch: _Optional[int] = ..., members: _Optional[int] = ..., partitions: _Optional[int] = ..., under_replicated: _Optional[int] = ..., handoff: _Optional[int] = ..., lag_ms: _Optional[int] = ..., quarantined: _Optional[int] = ..., detached: _Optional[int] = ...) -> None: ...

class MembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Member(_message.Message):
    __slots__ = ("name", "uid", "address", "region", "zone", "role", "state", "generation", "gossip", "http", "release", "answering")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ANSWERING_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    address: str
    region: str
    zone: str
    role: str
    state: str
    generation: int
    gossip: str
    http: str
    release: str
    answering: bool
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., address: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., generation: _Optional[int] = ..., gossip: _Optional[str] = ..., http: _Optional[str] = ..., release: _Optional[str] = ..., answering: _Optional[bool] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("name", "uid", "address", "connected", "acknowledged", "handoff", "lag_ms", "clock_offset_ms", "heard_ms", "phi", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_FIELD_NUMBER: _ClassVar[int]
    PHI_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    address: str
    connected: bool
    acknowledged: int
    handoff: int
    lag_ms: int
    clock_offset_ms: int
    heard_ms: int
    phi: float
    problem: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., address: _Optional[str] = ..., connected: _Optional[bool] = ..., acknowledged: _Optional[int] = ..., handoff: _Optional[int] = ..., lag_ms: _Optional[int] = ..., clock_offset_ms: _Optional[int] = ..., heard_ms: _Optional[int] = ..., phi: _Optional[float] = ..., problem: _Optional[str] = ...) -> None: ...

class Seed(_message.Message):
    __slots__ = ("address", "answers", "problem")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    address: str
    answers: bool
    problem: str
    def __init__(self, address: _Optional[str] = ..., answers: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...

class MembersResponse(_message.Message):
    __slots__ = ("members", "peers", "seeds")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    seeds: _containers.RepeatedCompositeFieldContainer[Seed]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., seeds: _Optional[_Iterable[_Union[Seed, _Mapping]]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("member", "dry_run")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    member: str
    dry_run: bool
    def __init__(self, member: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("member", "dry_run")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    member: str
    dry_run: bool
    def __init__(self, member: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class TopologyRequest(_message.Message):
    __slots__ = ("environment",)
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    environment: str
    def __init__(self, environment: _Optional[str] = ...) -> None: ...

class Voter(_message.Message):
    __slots__ = ("name", "uid", "region", "zone", "state", "votes", "reachable", "leaving", "partitions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    region: str
    zone: str
    state: str
    votes: str
    reachable: bool
    leaving: bool
    partitions: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., state: _Optional[str] = ..., votes: _Optional[str] = ..., reachable: _Optional[bool] = ..., leaving: _Optional[bool] = ..., partitions: _Optional[int] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("partition", "holders", "writers", "stage")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    WRITERS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    holders: _containers.RepeatedScalarFieldContainer[str]
    writers: _containers.RepeatedScalarFieldContainer[str]
    stage: str
    def __init__(self, partition: _Optional[int] = ..., holders: _Optional[_Iterable[str]] = ..., writers: _Optional[_Iterable[str]] = ..., stage: _Optional[str] = ...) -> None: ...

class TopologyResponse(_message.Message):
    __slots__ = ("epoch", "nodes", "majority", "copies", "moving", "waiting", "under_replicated", "left_seconds", "place", "floor_ms")
    class CopiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MovingEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    MAJORITY_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    MOVING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    UNDER_REPLICATED_FIELD_NUMBER: _ClassVar[int]
    LEFT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    FLOOR_MS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    nodes: _containers.RepeatedCompositeFieldContainer[Voter]
    majority: bool
    copies: _containers.ScalarMap[str, int]
    moving: _containers.ScalarMap[str, int]
    waiting: int
    under_replicated: int
    left_seconds: int
    place: Place
    floor_ms: int
    def __init__(self, epoch: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[Voter, _Mapping]]] = ..., majority: _Optional[bool] = ..., copies: _Optional[_Mapping[str, int]] = ..., moving: _Optional[_Mapping[str, int]] = ..., waiting: _Optional[int] = ..., under_replicated: _Optional[int] = ..., left_seconds: _Optional[int] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., floor_ms: _Optional[int] = ...) -> None: ...

class RecoverRequest(_message.Message):
    __slots__ = ("member", "dry_run")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    member: str
    dry_run: bool
    def __init__(self, member: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...
