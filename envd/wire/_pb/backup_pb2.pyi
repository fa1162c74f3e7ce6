from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateBackupRequest(_message.Message):
    __slots__ = ("recovery_keys", "passphrase")
    RECOVERY_KEYS_FIELD_NUMBER: _ClassVar[int]
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    recovery_keys: _containers.RepeatedScalarFieldContainer[str]
    passphrase: PassphraseLock
    def __init__(self, recovery_keys: _Optional[_Iterable[str]] = ..., passphrase: _Optional[_Union[PassphraseLock, _Mapping]] = ...) -> None: ...

class PassphraseLock(_message.Message):
    __slots__ = ("salt", "log_n", "r", "p", "wrapped", "file_key")
    SALT_FIELD_NUMBER: _ClassVar[int]
    LOG_N_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    P_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_FIELD_NUMBER: _ClassVar[int]
    FILE_KEY_FIELD_NUMBER: _ClassVar[int]
    salt: bytes
    log_n: int
    r: int
    p: int
    wrapped: bytes
    file_key: bytes
    def __init__(self, salt: _Optional[bytes] = ..., log_n: _Optional[int] = ..., r: _Optional[int] = ..., p: _Optional[int] = ..., wrapped: _Optional[bytes] = ..., file_key: _Optional[bytes] = ...) -> None: ...

class CreateBackupResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ListBackupsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBackupsResponse(_message.Message):
    __slots__ = ("backups", "directory", "every", "next", "failure")
    BACKUPS_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    backups: _containers.RepeatedCompositeFieldContainer[Backup]
    directory: str
    every: str
    next: str
    failure: str
    def __init__(self, backups: _Optional[_Iterable[_Union[Backup, _Mapping]]] = ..., directory: _Optional[str] = ..., every: _Optional[str] = ..., next: _Optional[str] = ..., failure: _Optional[str] = ...) -> None: ...

class Backup(_message.Message):
    __slots__ = ("file", "size_bytes", "state", "detail", "created", "node", "node_uid", "cluster", "cluster_id", "version", "environments", "variables", "commits", "scheduled", "locks")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    file: str
    size_bytes: int
    state: str
    detail: str
    created: str
    node: str
    node_uid: str
    cluster: str
    cluster_id: str
    version: str
    environments: int
    variables: int
    commits: int
    scheduled: bool
    locks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, file: _Optional[str] = ..., size_bytes: _Optional[int] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., created: _Optional[str] = ..., node: _Optional[str] = ..., node_uid: _Optional[str] = ..., cluster: _Optional[str] = ..., cluster_id: _Optional[str] = ..., version: _Optional[str] = ..., environments: _Optional[int] = ..., variables: _Optional[int] = ..., commits: _Optional[int] = ..., scheduled: _Optional[bool] = ..., locks: _Optional[_Iterable[str]] = ...) -> None: ...
