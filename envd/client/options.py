"""The options of the calls that `SyncClient` hands on to `Client`, for those who check types.

`Client` documents them; a test sees to it that they are the same.
"""

from __future__ import annotations

from typing import TypedDict

from envd.core.requests import Consistency


class CallOptions(TypedDict, total=False):
    timeout_s: float | None


class FollowOptions(CallOptions, total=False):
    reveal: bool
    resolve: bool
    must_exist: bool


class ReadManyOptions(CallOptions, total=False):
    reveal: bool
    resolve: bool


class ReadOptions(ReadManyOptions, total=False):
    at: str
    consistency: Consistency
    token: str
    max_lag_ms: int | None


class ListOptions(CallOptions, total=False):
    after: str
    limit: int


class HistoryOptions(CallOptions, total=False):
    before: str
    limit: int


class ConflictsOptions(ListOptions, total=False):
    prefix: str
    reveal: bool


class SettingsOptions(CallOptions, total=False):
    message: str


class WriteOptions(SettingsOptions, total=False):
    if_revision: str
    operation: str


class ResolveOptions(WriteOptions, total=False):
    setting: bool


class SetOptions(WriteOptions, total=False):
    secret: bool | None


class ExportOptions(TypedDict, total=False):
    reveal: bool
    resolve: bool


class ImportOptions(TypedDict, total=False):
    message: str
