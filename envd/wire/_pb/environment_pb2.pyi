from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_EVENTUAL: _ClassVar[Consistency]
    CONSISTENCY_SESSION: _ClassVar[Consistency]
    CONSISTENCY_STRONG: _ClassVar[Consistency]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_LOCAL: _ClassVar[Durability]
    DURABILITY_DEFAULT: _ClassVar[Durability]
    DURABILITY_STRICT: _ClassVar[Durability]
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_EVENTUAL: Consistency
CONSISTENCY_SESSION: Consistency
CONSISTENCY_STRONG: Consistency
DURABILITY_UNSPECIFIED: Durability
DURABILITY_LOCAL: Durability
DURABILITY_DEFAULT: Durability
DURABILITY_STRICT: Durability

class Variable(_message.Message):
    __slots__ = ("name", "value", "secret", "masked", "stamp", "region", "node", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    secret: bool
    masked: bool
    stamp: bytes
    region: str
    node: str
    source: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., secret: _Optional[bool] = ..., masked: _Optional[bool] = ..., stamp: _Optional[bytes] = ..., region: _Optional[str] = ..., node: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("environment", "revision", "stamp", "metadata", "variables", "bases", "unresolved")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class Base(_message.Message):
        __slots__ = ("environment", "revision")
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        REVISION_FIELD_NUMBER: _ClassVar[int]
        environment: str
        revision: str
        def __init__(self, environment: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    BASES_FIELD_NUMBER: _ClassVar[int]
    UNRESOLVED_FIELD_NUMBER: _ClassVar[int]
    environment: str
    revision: str
    stamp: bytes
    metadata: _containers.ScalarMap[str, str]
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    bases: _containers.RepeatedCompositeFieldContainer[Environment.Base]
    unresolved: str
    def __init__(self, environment: _Optional[str] = ..., revision: _Optional[str] = ..., stamp: _Optional[bytes] = ..., metadata: _Optional[_Mapping[str, str]] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., bases: _Optional[_Iterable[_Union[Environment.Base, _Mapping]]] = ..., unresolved: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("environment", "variables", "reveal", "at", "consistency", "token", "max_lag_ms", "resolve")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_LAG_MS_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    environment: str
    variables: _containers.RepeatedScalarFieldContainer[str]
    reveal: bool
    at: str
    consistency: Consistency
    token: str
    max_lag_ms: int
    resolve: bool
    def __init__(self, environment: _Optional[str] = ..., variables: _Optional[_Iterable[str]] = ..., reveal: _Optional[bool] = ..., at: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., token: _Optional[str] = ..., max_lag_ms: _Optional[int] = ..., resolve: _Optional[bool] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("environment", "level", "lag_bound_ms")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LAG_BOUND_MS_FIELD_NUMBER: _ClassVar[int]
    environment: Environment
    level: Consistency
    lag_bound_ms: int
    def __init__(self, environment: _Optional[_Union[Environment, _Mapping]] = ..., level: _Optional[_Union[Consistency, str]] = ..., lag_bound_ms: _Optional[int] = ...) -> None: ...

class BatchGetRequest(_message.Message):
    __slots__ = ("environments", "reveal", "consistency", "resolve", "token")
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedScalarFieldContainer[str]
    reveal: bool
    consistency: Consistency
    resolve: bool
    token: str
    def __init__(self, environments: _Optional[_Iterable[str]] = ..., reveal: _Optional[bool] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., resolve: _Optional[bool] = ..., token: _Optional[str] = ...) -> None: ...

class BatchGetResponse(_message.Message):
    __slots__ = ("results",)
    class Result(_message.Message):
        __slots__ = ("found", "error")
        FOUND_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        found: GetResponse
        error: Error
        def __init__(self, found: _Optional[_Union[GetResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchGetResponse.Result]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchGetResponse.Result, _Mapping]]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("prefix", "after", "limit")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    after: str
    limit: int
    def __init__(self, prefix: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("environments", "next", "partial", "partial_reason")
    class Item(_message.Message):
        __slots__ = ("environment", "revision", "variables")
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        REVISION_FIELD_NUMBER: _ClassVar[int]
        VARIABLES_FIELD_NUMBER: _ClassVar[int]
        environment: str
        revision: str
        variables: int
        def __init__(self, environment: _Optional[str] = ..., revision: _Optional[str] = ..., variables: _Optional[int] = ...) -> None: ...
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_REASON_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedCompositeFieldContainer[ListResponse.Item]
    next: str
    partial: bool
    partial_reason: str
    def __init__(self, environments: _Optional[_Iterable[_Union[ListResponse.Item, _Mapping]]] = ..., next: _Optional[str] = ..., partial: _Optional[bool] = ..., partial_reason: _Optional[str] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("name", "value", "secret")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    secret: bool
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., secret: _Optional[bool] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("environment", "puts", "unsets", "metadata_puts", "metadata_unsets", "replace", "if_revision", "must_exist", "must_not_exist", "message", "operation", "durability", "bulk", "seen")
    class MetadataPutsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SeenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    UNSETS_FIELD_NUMBER: _ClassVar[int]
    METADATA_PUTS_FIELD_NUMBER: _ClassVar[int]
    METADATA_UNSETS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    MUST_EXIST_FIELD_NUMBER: _ClassVar[int]
    MUST_NOT_EXIST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    environment: str
    puts: _containers.RepeatedCompositeFieldContainer[Put]
    unsets: _containers.RepeatedScalarFieldContainer[str]
    metadata_puts: _containers.ScalarMap[str, str]
    metadata_unsets: _containers.RepeatedScalarFieldContainer[str]
    replace: bool
    if_revision: str
    must_exist: bool
    must_not_exist: bool
    message: str
    operation: str
    durability: Durability
    bulk: bool
    seen: _containers.ScalarMap[str, str]
    def __init__(self, environment: _Optional[str] = ..., puts: _Optional[_Iterable[_Union[Put, _Mapping]]] = ..., unsets: _Optional[_Iterable[str]] = ..., metadata_puts: _Optional[_Mapping[str, str]] = ..., metadata_unsets: _Optional[_Iterable[str]] = ..., replace: _Optional[bool] = ..., if_revision: _Optional[str] = ..., must_exist: _Optional[bool] = ..., must_not_exist: _Optional[bool] = ..., message: _Optional[str] = ..., operation: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ..., bulk: _Optional[bool] = ..., seen: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("environment", "revision", "stamp", "token", "acknowledged", "detached", "precondition")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    PRECONDITION_FIELD_NUMBER: _ClassVar[int]
    environment: str
    revision: str
    stamp: bytes
    token: str
    acknowledged: int
    detached: bool
    precondition: str
    def __init__(self, environment: _Optional[str] = ..., revision: _Optional[str] = ..., stamp: _Optional[bytes] = ..., token: _Optional[str] = ..., acknowledged: _Optional[int] = ..., detached: _Optional[bool] = ..., precondition: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message", "hint", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    hint: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class WriteStreamRequest(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("id", "write")
        ID_FIELD_NUMBER: _ClassVar[int]
        WRITE_FIELD_NUMBER: _ClassVar[int]
        id: int
        write: WriteRequest
        def __init__(self, id: _Optional[int] = ..., write: _Optional[_Union[WriteRequest, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WriteStreamRequest.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[WriteStreamRequest.Item, _Mapping]]] = ...) -> None: ...

class WriteStreamResponse(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("id", "done", "error")
        ID_FIELD_NUMBER: _ClassVar[int]
        DONE_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        id: int
        done: WriteResponse
        error: Error
        def __init__(self, id: _Optional[int] = ..., done: _Optional[_Union[WriteResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WriteStreamResponse.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[WriteStreamResponse.Item, _Mapping]]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("environment", "if_revision", "message", "operation", "durability")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    environment: str
    if_revision: str
    message: str
    operation: str
    durability: Durability
    def __init__(self, environment: _Optional[str] = ..., if_revision: _Optional[str] = ..., message: _Optional[str] = ..., operation: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("environment", "to", "variables", "if_revision", "message", "operation", "durability")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    environment: str
    to: str
    variables: _containers.RepeatedScalarFieldContainer[str]
    if_revision: str
    message: str
    operation: str
    durability: Durability
    def __init__(self, environment: _Optional[str] = ..., to: _Optional[str] = ..., variables: _Optional[_Iterable[str]] = ..., if_revision: _Optional[str] = ..., message: _Optional[str] = ..., operation: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("environment", "variable", "before", "limit")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    environment: str
    variable: str
    before: bytes
    limit: int
    def __init__(self, environment: _Optional[str] = ..., variable: _Optional[str] = ..., before: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("variable", "kind", "metadata")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Change.Kind]
        KIND_SET: _ClassVar[Change.Kind]
        KIND_UNSET: _ClassVar[Change.Kind]
    KIND_UNSPECIFIED: Change.Kind
    KIND_SET: Change.Kind
    KIND_UNSET: Change.Kind
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    variable: str
    kind: Change.Kind
    metadata: bool
    def __init__(self, variable: _Optional[str] = ..., kind: _Optional[_Union[Change.Kind, str]] = ..., metadata: _Optional[bool] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("id", "environment", "revision", "stamp", "time", "node", "region", "actor", "message", "changes", "deleted", "resolves", "salvages")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    RESOLVES_FIELD_NUMBER: _ClassVar[int]
    SALVAGES_FIELD_NUMBER: _ClassVar[int]
    id: str
    environment: str
    revision: str
    stamp: bytes
    time: str
    node: str
    region: str
    actor: str
    message: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    deleted: bool
    resolves: _containers.RepeatedScalarFieldContainer[str]
    salvages: Salvaged
    def __init__(self, id: _Optional[str] = ..., environment: _Optional[str] = ..., revision: _Optional[str] = ..., stamp: _Optional[bytes] = ..., time: _Optional[str] = ..., node: _Optional[str] = ..., region: _Optional[str] = ..., actor: _Optional[str] = ..., message: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., deleted: _Optional[bool] = ..., resolves: _Optional[_Iterable[str]] = ..., salvages: _Optional[_Union[Salvaged, _Mapping]] = ...) -> None: ...

class Salvaged(_message.Message):
    __slots__ = ("stamp", "time", "node", "region", "actor", "changes")
    STAMP_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    stamp: bytes
    time: str
    node: str
    region: str
    actor: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, stamp: _Optional[bytes] = ..., time: _Optional[str] = ..., node: _Optional[str] = ..., region: _Optional[str] = ..., actor: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("environment", "commits", "next", "trimmed")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    TRIMMED_FIELD_NUMBER: _ClassVar[int]
    environment: str
    commits: _containers.RepeatedCompositeFieldContainer[Commit]
    next: bytes
    trimmed: bool
    def __init__(self, environment: _Optional[str] = ..., commits: _Optional[_Iterable[_Union[Commit, _Mapping]]] = ..., next: _Optional[bytes] = ..., trimmed: _Optional[bool] = ...) -> None: ...

class ConflictsRequest(_message.Message):
    __slots__ = ("environment", "prefix", "after", "limit", "reveal")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    environment: str
    prefix: str
    after: str
    limit: int
    reveal: bool
    def __init__(self, environment: _Optional[str] = ..., prefix: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ..., reveal: _Optional[bool] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("id", "environment", "variable", "kept", "lost", "metadata")
    class Side(_message.Message):
        __slots__ = ("kind", "value", "secret", "masked", "stamp", "time", "actor", "node", "region")
        KIND_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        SECRET_FIELD_NUMBER: _ClassVar[int]
        MASKED_FIELD_NUMBER: _ClassVar[int]
        STAMP_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        ACTOR_FIELD_NUMBER: _ClassVar[int]
        NODE_FIELD_NUMBER: _ClassVar[int]
        REGION_FIELD_NUMBER: _ClassVar[int]
        kind: Change.Kind
        value: str
        secret: bool
        masked: bool
        stamp: bytes
        time: str
        actor: str
        node: str
        region: str
        def __init__(self, kind: _Optional[_Union[Change.Kind, str]] = ..., value: _Optional[str] = ..., secret: _Optional[bool] = ..., masked: _Optional[bool] = ..., stamp: _Optional[bytes] = ..., time: _Optional[str] = ..., actor: _Optional[str] = ..., node: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    environment: str
    variable: str
    kept: Conflict.Side
    lost: Conflict.Side
    metadata: bool
    def __init__(self, id: _Optional[str] = ..., environment: _Optional[str] = ..., variable: _Optional[str] = ..., kept: _Optional[_Union[Conflict.Side, _Mapping]] = ..., lost: _Optional[_Union[Conflict.Side, _Mapping]] = ..., metadata: _Optional[bool] = ...) -> None: ...

class ConflictsResponse(_message.Message):
    __slots__ = ("conflicts", "next", "partial", "partial_reason")
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_REASON_FIELD_NUMBER: _ClassVar[int]
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    next: str
    partial: bool
    partial_reason: str
    def __init__(self, conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ..., next: _Optional[str] = ..., partial: _Optional[bool] = ..., partial_reason: _Optional[str] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("environment", "variable", "take", "metadata", "if_revision", "message", "operation", "durability")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    TAKE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    environment: str
    variable: str
    take: str
    metadata: bool
    if_revision: str
    message: str
    operation: str
    durability: Durability
    def __init__(self, environment: _Optional[str] = ..., variable: _Optional[str] = ..., take: _Optional[str] = ..., metadata: _Optional[bool] = ..., if_revision: _Optional[str] = ..., message: _Optional[str] = ..., operation: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("prefix", "token", "values", "reveal", "resolve", "exact", "batched")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    BATCHED_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    token: str
    values: bool
    reveal: bool
    resolve: bool
    exact: bool
    batched: bool
    def __init__(self, prefix: _Optional[str] = ..., token: _Optional[str] = ..., values: _Optional[bool] = ..., reveal: _Optional[bool] = ..., resolve: _Optional[bool] = ..., exact: _Optional[bool] = ..., batched: _Optional[bool] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("heartbeat", "reset", "snapshot", "snapshot_end", "changed", "token", "more")
    class Heartbeat(_message.Message):
        __slots__ = ("partial", "partial_reason")
        PARTIAL_FIELD_NUMBER: _ClassVar[int]
        PARTIAL_REASON_FIELD_NUMBER: _ClassVar[int]
        partial: bool
        partial_reason: str
        def __init__(self, partial: _Optional[bool] = ..., partial_reason: _Optional[str] = ...) -> None: ...
    class Reset(_message.Message):
        __slots__ = ("reason",)
        REASON_FIELD_NUMBER: _ClassVar[int]
        reason: str
        def __init__(self, reason: _Optional[str] = ...) -> None: ...
    class SnapshotEnd(_message.Message):
        __slots__ = ("partial", "partial_reason")
        PARTIAL_FIELD_NUMBER: _ClassVar[int]
        PARTIAL_REASON_FIELD_NUMBER: _ClassVar[int]
        partial: bool
        partial_reason: str
        def __init__(self, partial: _Optional[bool] = ..., partial_reason: _Optional[str] = ...) -> None: ...
    class Changed(_message.Message):
        __slots__ = ("commit", "state", "gone", "through")
        COMMIT_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        GONE_FIELD_NUMBER: _ClassVar[int]
        THROUGH_FIELD_NUMBER: _ClassVar[int]
        commit: Commit
        state: Environment
        gone: bool
        through: str
        def __init__(self, commit: _Optional[_Union[Commit, _Mapping]] = ..., state: _Optional[_Union[Environment, _Mapping]] = ..., gone: _Optional[bool] = ..., through: _Optional[str] = ...) -> None: ...
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    heartbeat: WatchResponse.Heartbeat
    reset: WatchResponse.Reset
    snapshot: Environment
    snapshot_end: WatchResponse.SnapshotEnd
    changed: WatchResponse.Changed
    token: str
    more: _containers.RepeatedCompositeFieldContainer[WatchResponse]
    def __init__(self, heartbeat: _Optional[_Union[WatchResponse.Heartbeat, _Mapping]] = ..., reset: _Optional[_Union[WatchResponse.Reset, _Mapping]] = ..., snapshot: _Optional[_Union[Environment, _Mapping]] = ..., snapshot_end: _Optional[_Union[WatchResponse.SnapshotEnd, _Mapping]] = ..., changed: _Optional[_Union[WatchResponse.Changed, _Mapping]] = ..., token: _Optional[str] = ..., more: _Optional[_Iterable[_Union[WatchResponse, _Mapping]]] = ...) -> None: ...

class VariableColumns(_message.Message):
    __slots__ = ("names", "values", "secret")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedScalarFieldContainer[str]
    secret: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[str]] = ..., secret: _Optional[_Iterable[int]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("prefix", "reveal", "resolve")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    reveal: bool
    resolve: bool
    def __init__(self, prefix: _Optional[str] = ..., reveal: _Optional[bool] = ..., resolve: _Optional[bool] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("environments", "partial", "partial_reason")
    class Item(_message.Message):
        __slots__ = ("environment", "revision", "metadata", "variables", "masked", "unresolved")
        class MetadataEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        REVISION_FIELD_NUMBER: _ClassVar[int]
        METADATA_FIELD_NUMBER: _ClassVar[int]
        VARIABLES_FIELD_NUMBER: _ClassVar[int]
        MASKED_FIELD_NUMBER: _ClassVar[int]
        UNRESOLVED_FIELD_NUMBER: _ClassVar[int]
        environment: str
        revision: str
        metadata: _containers.ScalarMap[str, str]
        variables: VariableColumns
        masked: bool
        unresolved: str
        def __init__(self, environment: _Optional[str] = ..., revision: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., variables: _Optional[_Union[VariableColumns, _Mapping]] = ..., masked: _Optional[bool] = ..., unresolved: _Optional[str] = ...) -> None: ...
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_REASON_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedCompositeFieldContainer[ExportResponse.Item]
    partial: bool
    partial_reason: str
    def __init__(self, environments: _Optional[_Iterable[_Union[ExportResponse.Item, _Mapping]]] = ..., partial: _Optional[bool] = ..., partial_reason: _Optional[str] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("environments", "message")
    class Item(_message.Message):
        __slots__ = ("environment", "variables", "prune", "if_revision", "operation", "must_not_exist", "metadata")
        class MetadataEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        VARIABLES_FIELD_NUMBER: _ClassVar[int]
        PRUNE_FIELD_NUMBER: _ClassVar[int]
        IF_REVISION_FIELD_NUMBER: _ClassVar[int]
        OPERATION_FIELD_NUMBER: _ClassVar[int]
        MUST_NOT_EXIST_FIELD_NUMBER: _ClassVar[int]
        METADATA_FIELD_NUMBER: _ClassVar[int]
        environment: str
        variables: VariableColumns
        prune: bool
        if_revision: str
        operation: str
        must_not_exist: bool
        metadata: _containers.ScalarMap[str, str]
        def __init__(self, environment: _Optional[str] = ..., variables: _Optional[_Union[VariableColumns, _Mapping]] = ..., prune: _Optional[bool] = ..., if_revision: _Optional[str] = ..., operation: _Optional[str] = ..., must_not_exist: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedCompositeFieldContainer[ImportRequest.Item]
    message: str
    def __init__(self, environments: _Optional[_Iterable[_Union[ImportRequest.Item, _Mapping]]] = ..., message: _Optional[str] = ...) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("results",)
    class Result(_message.Message):
        __slots__ = ("environment", "done", "error")
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        DONE_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        environment: str
        done: WriteResponse
        error: Error
        def __init__(self, environment: _Optional[str] = ..., done: _Optional[_Union[WriteResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ImportResponse.Result]
    def __init__(self, results: _Optional[_Iterable[_Union[ImportResponse.Result, _Mapping]]] = ...) -> None: ...
