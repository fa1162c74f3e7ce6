"""`/metrics` over HTTP, and what each way in counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from envd.core.errors import Denied
from envd.core.requests import Put, WriteRequest
from envd.net.grpc_server import GrpcServer
from envd.telemetry.cluster import ClusterFigures
from envd.telemetry.node import Telemetry
from envd.telemetry.requests import Kind
from envd.wire import api as wire
from envd.wire._pb import environment_pb2 as pb
from tests.net.http_world import Http, http_to, watching
from tests.net.world import (
    ANY_PORT,
    CANARY,
    READER_TOKEN,
    FakeAccess,
    HeldStore,
    Node,
    RaisingAuthorizer,
    Rpc,
    channel_to,
    refused,
    until,
)
from tests.telemetry.reading import families
from tests.telemetry.test_text import figures

ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0"}


async def counted(http: Http) -> dict[tuple[str, str], int]:
    """The requests by method and code, as a scrape tells them."""
    answer = await http.ask("GET", "/metrics", headers=ACCEPT)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    return {
        (sample.labels["method"], sample.labels["code"]): int(sample.value)
        for family in families(answer.body.decode()).values()
        for sample in family.samples
        if sample.name == "envd_requests_total"
    }


async def test_a_scrape_takes_a_credential_that_may_read(http: Http) -> None:
    assert (await http.ask("GET", "/metrics", token="")).status == 401
    assert (await http.ask("GET", "/metrics", token=READER_TOKEN)).status == 200
    assert (await http.ask("GET", "/metrics", headers={"Host": "evil.example"})).status == 421
    assert (
        await http.ask("GET", "/metrics", headers={"Origin": "http://evil.example"})
    ).status == 403
    assert (await http.ask("POST", "/metrics")).status == 405


async def test_who_may_not_read_gets_no_figures() -> None:
    node = Node(authorizer=RaisingAuthorizer(Denied("no")))
    async with http_to(node) as http:
        assert (await http.ask("GET", "/metrics")).status == 403


async def test_requests_are_counted_by_operation_and_never_by_the_clients_text(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    await http.ask("GET", "/v1/environments/web/prod")
    await http.ask("HEAD", "/v1/environments/web/prod")
    await http.ask("GET", f"/v1/environments/{CANARY}")
    await http.ask("PATCH", "/v1/environments/web/prod", {"set": {"A": CANARY}})
    await http.ask("GET", f"/{CANARY}")
    await http.ask("GET", "/v1/environments/web/prod", token="")
    async with watching(http) as events:
        await events.next()

    found = await counted(http)
    one = "/v1/environments/{name}"
    assert found[f"GET {one}", "200"] == 2
    assert found[f"GET {one}", "404"] == 1
    assert found[f"GET {one}", "401"] == 1
    assert found[f"PATCH {one}", "200"] == 1
    assert found["HTTP other", "404"] == 1
    assert CANARY not in str(found)


async def test_a_fault_is_counted_as_one() -> None:
    telemetry = Telemetry()
    node = Node(authorizer=RaisingAuthorizer(KeyError("x")))
    async with http_to(node, telemetry=telemetry) as http:
        assert (await http.ask("GET", "/v1/environments/web/prod")).status == 500

    text = telemetry.text("")[0].decode()
    assert "envd_faults_total 1.0" in text
    assert 'envd_requests_total{code="500",method="GET /v1/environments/{name}"} 1.0' in text


async def test_grpc_calls_are_counted_by_method_and_code(node: Node) -> None:
    telemetry = Telemetry()
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, telemetry=telemetry)
    port = await server.start()
    async with channel_to(f"127.0.0.1:{port}") as channel:
        rpc = Rpc(node, server, port, channel)
        await node.put("web/prod", A="1")
        await rpc.unary("Get", pb.GetRequest(environment="web/prod"), pb.GetResponse)
        error = await refused(
            rpc.unary("Get", pb.GetRequest(environment="web/none"), pb.GetResponse)
        )
        await refused(rpc.unary("Get", pb.GetRequest(environment="a"), pb.GetResponse, token=""))
        watch = rpc.out_stream("Watch", pb.WatchRequest(prefix="web"), pb.WatchResponse)
        await watch.read()
        watch.cancel()
        stream = rpc.streams("WriteStream", pb.WriteStreamResponse)
        for number, revision in enumerate(("", "", "0123456789abcdef")):
            request = WriteRequest("web/s", (Put("A", str(number)),), if_revision=revision)
            item = pb.WriteStreamRequest.Item(id=number, write=wire.write_message(request))
            await stream.write(pb.WriteStreamRequest(items=[item]))
        await stream.done_writing()
        async for _ in stream:
            pass
    await until(lambda: bool(telemetry.requests.of("Watch").codes))
    node.api.stop()
    await server.stop(0)

    codes = {name: figures.codes for name, figures in telemetry.requests.methods.items()}
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert codes["Get"] == {"OK": 1, "NOT_FOUND": 1, "UNAUTHENTICATED": 1}
    assert codes["Watch"] == {"CANCELLED": 1}
    assert codes["WriteStream"] == {"OK": 2, "FAILED_PRECONDITION": 1}
    timed = {name for name, one in telemetry.requests.methods.items() if any(one.seconds.counts)}
    assert timed == {"Get", "WriteStream"}
    assert 'envd_conflicts_total{kind="refused"} 1.0' in telemetry.text("")[0].decode()


async def test_writes_whose_answers_nobody_takes_are_counted_as_cancelled() -> None:
    store = HeldStore()
    node = Node(store=store)
    telemetry = Telemetry()
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, telemetry=telemetry)
    port = await server.start()
    async with channel_to(f"127.0.0.1:{port}") as channel:
        stream = Rpc(node, server, port, channel).streams("WriteStream", pb.WriteStreamResponse)
        for number in range(3):
            request = WriteRequest("web/s", (Put("A", str(number)),))
            item = pb.WriteStreamRequest.Item(id=number, write=wire.write_message(request))
            await stream.write(pb.WriteStreamRequest(items=[item]))
        await until(lambda: len(store.appended) == 3)
        stream.cancel()
        codes = telemetry.requests.of("WriteStream").codes
        await until(lambda: codes == {"CANCELLED": 4})  # three writes, and what carried them
    store.gate.set()
    node.api.stop()
    await server.stop(0)


async def test_a_scrape_tells_of_the_cluster_as_it_is_at_this_moment(node: Node) -> None:
    telemetry = Telemetry()
    alive = [1]
    telemetry.start(figures, lambda: (0, 0), lambda: ClusterFigures({"alive": alive[0]}))

    async with http_to(node, telemetry=telemetry) as http:
        alive[0] = 3
        answer = await http.ask("GET", "/metrics")
    await telemetry.close()

    assert 'envd_members{state="alive"} 3.0' in answer.body.decode()


@dataclass
class FakeSpans:
    """Spans that keep which environments they are about."""

    trace_id: str = "1" * 32
    named: list[str] = field(default_factory=list)

    def server(self, method: str, traceparent: str, kind: Kind) -> FakeSpans:
        return self

    def about(self, environment: str) -> None:
        self.named.append(environment)

    def end(self, code: str) -> None:
        """Nothing."""


async def test_what_strangers_name_is_in_no_trace(node: Node) -> None:
    spans = FakeSpans()
    telemetry = Telemetry()
    telemetry.requests.spans = spans
    async with http_to(node, telemetry=telemetry) as http:
        await http.ask("GET", "/v1/environments/theirs", token="")
        await http.ask("GET", "/v1/environments/ours")

    assert spans.named == ["ours"]
