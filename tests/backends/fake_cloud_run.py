"""A fake of Cloud Run's API, over real gRPC: one service, whose changes go under an etag."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import grpc
from google.cloud import run_v2 as api
from google.longrunning.operations_pb2 import Operation  # type: ignore[import-untyped]

from tests.backends.fake_grpc import FakeGrpc, Method, Refused
from tests.backends.fake_secret_manager import PROJECT

SERVICE = "google.cloud.run.v2.Services"
NAME = f"projects/{PROJECT}/locations/europe-west1/services/web"
PLACE = "europe-west1/web"
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class FakeCloudRun:
    """The services of a project; a change makes the next generation, and a revision of it."""

    def __init__(self) -> None:
        self.services: dict[str, Any] = {}
        self._ticks = 0
        self.server = FakeGrpc(
            SERVICE,
            {
                "GetService": Method(self.get_service, api.GetServiceRequest),
                "UpdateService": Method(self.update_service, api.UpdateServiceRequest),
            },
        )

    def clear(self) -> None:
        """One service, which was just made, with one container and no variables."""
        self.services.clear()
        self.server.forget()
        self.make({"containers": [{"image": "example/web", "ports": [{"container_port": 8080}]}]})

    # What tests and others do behind the API's back.

    def make(self, template: Mapping[str, object]) -> None:
        self._ticks += 1
        self.services[NAME] = api.Service(
            name=NAME, uid=f"uid-{self._ticks}", template=template, generation=1, etag='"1"'
        )
        self._turn(self.services[NAME])

    @property
    def service(self) -> Any:
        return self.services[NAME]

    def env(self, at: int = 0) -> list[Any]:
        return list(self.service.template.containers[at].env)

    def values(self, at: int = 0) -> dict[str, str]:
        return {each.name: each.value for each in self.env(at) if "value_source" not in each}

    def put(self, document: str) -> None:
        """As `gcloud run services update --set-env-vars` does it: what refers to secrets stays."""
        kept = [each for each in self.env() if "value_source" in each]
        texts = [{"name": name, "value": text} for name, text in json.loads(document).items()]
        self._change(api.Service(self.service), [*texts, *kept])

    def deploy(self, image: str) -> None:
        """As `gcloud run deploy --image` does it."""
        service = api.Service(self.service)
        service.template.containers[0].image = image
        self._change(service, self.env())

    def settle(self) -> None:
        """The rollout goes on: the etag changes, and the generation does not."""
        self._turn(self.service)

    def _change(self, service: Any, env: list[Any]) -> None:
        service.template.containers[0].env = env
        service.generation += 1
        self._turn(service)
        self.services[NAME] = service

    def _turn(self, service: Any) -> None:
        self._ticks += 1
        service.etag = f'"{self._ticks:x}"'
        service.update_time = _START + dt.timedelta(seconds=self._ticks)

    # The API.

    def get_service(self, request: Any) -> Any:
        return self._found(request.name)

    def update_service(self, request: Any) -> Any:
        current = self._found(request.service.name)
        wanted = request.service
        if wanted.etag and wanted.etag != current.etag:
            raise Refused(grpc.StatusCode.ABORTED)
        names = [[each.name for each in c.env] for c in wanted.template.containers]
        if any(len(set(each)) != len(each) or "PORT" in each for each in names):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT)
        if wanted.template.revision and wanted.template.revision == current.template.revision:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT)
        changed = api.Service(wanted)
        changed.uid, changed.generation = current.uid, current.generation + 1
        self._turn(changed)
        self.services[wanted.name] = changed
        operation = Operation(name=f"{wanted.name}/operations/{self._ticks}")
        operation.metadata.Pack(api.Service.pb(changed))
        return operation

    def _found(self, name: str) -> Any:
        if name not in self.services:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        return self.services[name]
