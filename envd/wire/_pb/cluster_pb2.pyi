from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("node", "node_uid", "cluster", "version", "generation", "environments", "storage_bytes", "uptime_seconds", "insecure", "identity", "authenticated_by", "data_dir")
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
    def __init__(self, node: _Optional[str] = ..., node_uid: _Optional[str] = ..., cluster: _Optional[str] = ..., version: _Optional[str] = ..., generation: _Optional[int] = ..., environments: _Optional[int] = ..., storage_bytes: _Optional[int] = ..., uptime_seconds: _Optional[int] = ..., insecure: _Optional[bool] = ..., identity: _Optional[str] = ..., authenticated_by: _Optional[str] = ..., data_dir: _Optional[str] = ...) -> None: ...
