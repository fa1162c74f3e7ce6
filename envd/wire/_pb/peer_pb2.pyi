from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("data", "more", "goodbye")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    more: bool
    goodbye: bool
    def __init__(self, data: _Optional[bytes] = ..., more: _Optional[bool] = ..., goodbye: _Optional[bool] = ...) -> None: ...
