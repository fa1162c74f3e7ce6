"""A fake of Parameter Manager's API, over real gRPC: parameters with labels, and named versions.

It is as strict as the API may be: no name of a version is given twice, a parameter that still has
versions is not deleted, and what is to be JSON has to be.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud import parametermanager_v1 as api
from google.protobuf.empty_pb2 import Empty

from tests.backends.fake_grpc import FakeGrpc, Method, Refused
from tests.backends.fake_secret_manager import PROJECT

SERVICE = "google.cloud.parametermanager.v1.ParameterManager"
PARENT = f"projects/{PROJECT}/locations/global"
MAX_BYTES = 1 << 20
_ID = re.compile(r"[A-Za-z0-9_-]{1,63}")
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass
class Kept:
    """One parameter of the store; its versions by their names."""

    parameter: Any
    order: int
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def newest(self) -> Any:
        return max(self.versions.values(), key=lambda each: each.create_time, default=None)


class FakeParameterManager:
    """The store, and the handlers of its API. Time goes on by a second with each write."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self._ticks = 0
        self.server = FakeGrpc(
            SERVICE,
            {
                "ListParameters": Method(self.list_parameters, api.ListParametersRequest),
                "GetParameter": Method(self.get_parameter, api.GetParameterRequest),
                "CreateParameter": Method(self.create_parameter, api.CreateParameterRequest),
                "UpdateParameter": Method(self.update_parameter, api.UpdateParameterRequest),
                "DeleteParameter": Method(self.delete_parameter, api.DeleteParameterRequest),
                "ListParameterVersions": Method(
                    self.list_versions, api.ListParameterVersionsRequest
                ),
                "GetParameterVersion": Method(self.get_version, api.GetParameterVersionRequest),
                "CreateParameterVersion": Method(
                    self.create_version, api.CreateParameterVersionRequest
                ),
                "DeleteParameterVersion": Method(
                    self.delete_version, api.DeleteParameterVersionRequest
                ),
            },
        )

    def clear(self) -> None:
        """Forget everything; time goes on."""
        self.kept.clear()
        self.server.forget()

    # What tests and others do behind the API's back.

    def values(self) -> dict[str, str]:
        """The newest values by the id of their parameter."""
        found: dict[str, str] = {}
        for name, kept in self.kept.items():
            if kept.newest is not None and not kept.newest.disabled:
                found[_last(name)] = kept.newest.payload.data.decode()
        return found

    def put(self, native: str, value: str | bytes) -> None:
        """As `gcloud parametermanager` does it, with names of versions of its user's own."""
        name = f"{PARENT}/parameters/{native}"
        if name not in self.kept:
            self.create_parameter(
                api.CreateParameterRequest(parent=PARENT, parameter_id=native, parameter={})
            )
        data = value if isinstance(value, bytes) else value.encode()
        self.create_version(
            api.CreateParameterVersionRequest(
                parent=name,
                parameter_version_id=f"by-hand-{self._ticks}",
                parameter_version={"payload": {"data": data}},
            )
        )

    def delete(self, native: str) -> None:
        del self.kept[f"{PARENT}/parameters/{native}"]

    def of(self, native: str) -> Kept:
        return self.kept[f"{PARENT}/parameters/{native}"]

    # The API.

    def list_parameters(self, request: Any) -> Any:
        start = f"{request.parent}/parameters/"
        every = [each for name, each in self.kept.items() if name.startswith(start)]
        after = _after(request.page_token)
        rest = [each for each in every if each.order > after]
        size = min(request.page_size or 25, 1000)
        return api.ListParametersResponse(
            parameters=[each.parameter for each in rest[:size]],
            next_page_token=f"after:{rest[size - 1].order}" if len(rest) > size else "",
        )

    def get_parameter(self, request: Any) -> Any:
        return self._found(request.name).parameter

    def create_parameter(self, request: Any) -> Any:
        if not _ID.fullmatch(request.parameter_id):
            raise Refused(_INVALID)
        name = f"{request.parent}/parameters/{request.parameter_id}"
        if name in self.kept:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS)
        parameter = api.Parameter(request.parameter, name=name, create_time=self._now())
        self.kept[name] = Kept(parameter, self._ticks)
        return parameter

    def update_parameter(self, request: Any) -> Any:
        kept = self._found(request.parameter.name)
        if list(request.update_mask.paths) != ["labels"]:
            raise Refused(_INVALID)
        labels = dict(request.parameter.labels)
        kept.parameter = api.Parameter(kept.parameter, labels=labels, update_time=self._now())
        return kept.parameter

    def delete_parameter(self, request: Any) -> Any:
        if self._found(request.name).versions:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION)
        del self.kept[request.name]
        return Empty()

    def list_versions(self, request: Any) -> Any:
        # By their names, which is no order in time.
        every = sorted(self._found(request.parent).versions.items())
        after = _after(request.page_token)
        size = min(request.page_size or 25, 1000)
        page = every[after : after + size]
        versions = [
            api.ParameterVersion(name=v.name, create_time=v.create_time, disabled=v.disabled)
            for _, v in page
        ]
        return api.ListParameterVersionsResponse(
            parameter_versions=versions,
            next_page_token=f"after:{after + size}" if len(every) > after + size else "",
        )

    def get_version(self, request: Any) -> Any:
        kept, version = self._version(request.name)
        found = kept.versions[version]
        if found.disabled or request.view != api.View.FULL:
            return api.ParameterVersion(
                name=found.name, create_time=found.create_time, disabled=found.disabled
            )
        return found

    def create_version(self, request: Any) -> Any:
        kept = self._found(request.parent)
        data = request.parameter_version.payload.data
        if not _ID.fullmatch(request.parameter_version_id) or not 0 < len(data) <= MAX_BYTES:
            raise Refused(_INVALID)
        if kept.parameter.format_ == api.ParameterFormat.JSON:
            try:
                json.loads(data)
            except ValueError:
                raise Refused(_INVALID) from None
        if request.parameter_version_id in kept.versions:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS)
        name = f"{request.parent}/versions/{request.parameter_version_id}"
        version = api.ParameterVersion(
            name=name, create_time=self._now(), payload=request.parameter_version.payload
        )
        kept.versions[request.parameter_version_id] = version
        return version

    def delete_version(self, request: Any) -> Any:
        kept, version = self._version(request.name)
        del kept.versions[version]
        return Empty()

    def _found(self, name: str) -> Kept:
        if name not in self.kept:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        return self.kept[name]

    def _version(self, name: str) -> tuple[Kept, str]:
        parameter, _, version = name.partition("/versions/")
        kept = self._found(parameter)
        if version not in kept.versions:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        return kept, version

    def _now(self) -> dt.datetime:
        self._ticks += 1
        return _START + dt.timedelta(seconds=self._ticks)


def _after(token: str) -> int:
    if token and not re.fullmatch(r"after:-?[0-9]+", token):
        raise Refused(_INVALID)
    return int(token.removeprefix("after:")) if token else 0


def _last(name: str) -> str:
    return name.rpartition("/")[2]
