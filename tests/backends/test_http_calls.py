"""Calls over HTTP: what is answered, what is not, and that nothing of either is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from envd.backends import errors
from envd.backends.http_calls import MAX_ANSWER_BYTES, Answer, HttpCalls, Tls, error_of
from envd.testing.proxy import Proxy
from tests.backends.certificates import made_certificate

CANARY = "canary-4711"


class Server:
    """Answers what the path says, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        self.headers = dict(request.headers)
        self.body = await request.read()
        match request.path:
            case "/moved":
                return web.Response(status=307, headers={"Location": f"/?{CANARY}"})
            case "/broken":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "/large":
                return web.Response(body=b"x" * (MAX_ANSWER_BYTES + 1))
            case "/cut":
                response = web.StreamResponse(headers={"Content-Length": "100"})
                await response.prepare(request)
                await response.write(CANARY.encode())
                assert request.transport is not None
                request.transport.close()
                return response
            case "/silent" | "/silent-line":
                response = web.StreamResponse()
                if request.path == "/silent-line":
                    await response.prepare(request)
                    await response.write(b"one\n")
                await self.over.wait()
                return response
            case "/lines":
                response = web.StreamResponse()
                await response.prepare(request)
                for piece in (b"on", b"e\ntwo\nth", b"ree\n", b"rest"):
                    await response.write(piece)
                return response
        return web.Response(body=b'{"a": [1]}', headers={"Retry-After": "7"})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    server.over.set()
    await runner.cleanup()


@pytest.fixture
async def calls(url: str) -> AsyncIterator[HttpCalls]:
    made = HttpCalls(url + "/", headers={"X-Token": CANARY})
    await made.open()
    yield made
    await made.close()


async def test_a_call_and_its_answer(server: Server, calls: HttpCalls) -> None:
    answer = await calls.call(
        "PUT", "/v1/a%2Fb", query={"cas": "1", "x": "ä &"}, body=b"value", headers={"If-Match": "2"}
    )

    assert answer.is_good
    assert answer.table() == {"a": [1]}
    assert answer.retry_after_s == 7
    assert server.asked == ["PUT /v1/a%2Fb?cas=1&x=%C3%A4+%26"]
    assert (server.body, server.headers["If-Match"]) == (b"value", "2")
    assert server.headers["X-Token"] == CANARY


async def test_a_redirect_is_an_answer(server: Server, calls: HttpCalls) -> None:
    answer = await calls.call("GET", "/moved")

    assert answer.status == 307
    assert len(server.asked) == 1
    assert isinstance(error_of(answer, "it"), errors.StoreUnavailable)


@pytest.mark.parametrize("path", ["/large", "/cut"])
async def test_an_answer_that_is_none_tells_nothing(calls: HttpCalls, path: str) -> None:
    with pytest.raises(errors.StoreUnavailable) as caught:
        await calls.call("GET", path)

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.hint}"


async def test_nobody_there(url: str) -> None:
    calls = HttpCalls("http://127.0.0.1:1")
    with pytest.raises(errors.StoreUnavailable):
        await calls.call("GET", "/")  # Not open yet.
    await calls.open()
    with pytest.raises(errors.StoreUnavailable):
        await calls.call("GET", "/")
    with pytest.raises(errors.StoreUnavailable):
        async with calls.stream("GET", "/"):
            pass
    await calls.close()


async def test_lines_of_a_stream(calls: HttpCalls) -> None:
    async with calls.stream("GET", "/lines") as (answer, lines):
        assert answer.is_good
        assert [line async for line in lines] == [b"one", b"two", b"three"]


async def test_what_goes_wrong_with_who_reads_a_stream_is_theirs(calls: HttpCalls) -> None:
    with pytest.raises(ValueError, match="theirs"):
        async with calls.stream("GET", "/lines"):
            raise ValueError("theirs")


async def test_a_stream_is_left_when_its_reader_is_cancelled(calls: HttpCalls) -> None:
    async def read() -> None:
        async with calls.stream("GET", "/lines") as (_, lines):
            async for _ in lines:
                reached.set()
                await asyncio.Event().wait()

    reached = asyncio.Event()
    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("body", [b"", b"no", b"[1]", b"\xff", b"[" * 100_000])
def test_no_json_object(body: bytes) -> None:
    with pytest.raises(errors.StoreUnavailable) as caught:
        Answer(200, body=body).table()
    assert caught.value.__context__ is None
    assert not body or repr(body) not in repr(Answer(200, body=body))


def test_rows() -> None:
    assert Answer(200, body=b"[1]").rows() == [1]
    with pytest.raises(errors.StoreUnavailable):
        Answer(200, body=b"{}").rows()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.StoreUnsupported),
        (401, errors.AuthExpired),
        (402, errors.QuotaExceeded),
        (403, errors.Forbidden),
        (404, errors.ItemNotFound),
        (408, errors.StoreUnavailable),
        (409, errors.StaleVersion),
        (412, errors.StaleVersion),
        (413, errors.ValueTooLarge),
        (429, errors.Throttled),
        (500, errors.StoreUnavailable),
        (503, errors.StoreUnavailable),
        (507, errors.QuotaExceeded),
    ],
)
def test_what_a_status_means(status: int, kind: type[errors.BackendError]) -> None:
    assert type(error_of(Answer(status, body=CANARY.encode()), "it")) is kind


def test_when_to_come_back() -> None:
    busy = error_of(Answer(503, {"retry-after": "3"}), "it")
    assert isinstance(busy, errors.Throttled)
    assert busy.retry_after_s == 3
    assert Answer(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after_s == 0


async def test_a_name_and_a_password_in_an_address_are_not_told() -> None:
    calls = HttpCalls(f"http://user:{CANARY}@127.0.0.1:1")
    await calls.open()
    try:
        with pytest.raises(errors.StoreUnavailable, match=r"http://127\.0\.0\.1:1 ") as caught:
            await calls.call("GET", "/")
    finally:
        await calls.close()

    assert CANARY not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize("path", ["/silent", "/silent-line"])
async def test_a_stream_that_tells_nothing_is_taken_for_dead(calls: HttpCalls, path: str) -> None:
    async def follow() -> None:
        async with calls.stream("GET", path, silence_s=0.1) as (_, lines):
            async for line in lines:
                assert line == b"one"

    with pytest.raises(errors.StoreUnavailable, match="Timeout"):
        await follow()


async def test_what_a_netrc_has_for_a_host_is_not_shown_to_it(
    server: Server, calls: HttpCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"default login somebody password {CANARY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    await calls.call("GET", "/")
    shown = server.headers.get("Authorization")
    await calls.call("GET", "/", headers={"Authorization": "Bearer ours"})

    assert (shown, server.headers["Authorization"]) == (None, "Bearer ours")


async def test_a_proxy_that_the_environment_names_is_asked(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", url.replace("http://", "http://me:word@"))
    calls = HttpCalls("http://store.invalid")
    await calls.open()
    try:
        answer = await calls.call("GET", "/v1/kv")
    finally:
        await calls.close()

    assert answer.status == 200
    assert server.asked == ["GET http://store.invalid/v1/kv"]
    assert "Proxy-Authorization" in server.headers


async def test_files_for_https_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "missing.pem"):
        with pytest.raises(errors.StoreUnsupported, match="https"):
            await HttpCalls("https://127.0.0.1:1", tls=Tls(ca_file=tmp_path / file)).open()


async def test_a_body_of_many_bytes_is_sent_whole(server: Server, calls: HttpCalls) -> None:
    body = b"x" * (3 << 20)

    await calls.call("POST", "/v1/large-body", body=body)

    assert server.body == body


async def test_an_answer_is_as_long_as_the_call_allows(server: Server, calls: HttpCalls) -> None:
    with pytest.raises(errors.StoreUnavailable):
        await calls.call("GET", "/", most_bytes=9)

    assert (await calls.call("GET", "/", most_bytes=10)).body == b'{"a": [1]}'


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
async def test_a_call_whose_answer_is_lost_is_not_made_again(
    server: Server, calls: HttpCalls, method: str
) -> None:
    await calls.call("GET", "/")  # So that there is a connection to be used once more.

    with pytest.raises(errors.StoreUnavailable):
        await calls.call(method, "/broken")

    assert server.asked == ["GET /", f"{method} /broken"]


async def test_a_server_and_a_client_show_each_other_their_certificates(
    server: Server, url: str, tmp_path: Path
) -> None:
    certificate = made_certificate(tmp_path)
    ours = Tls(certificate.certificate, certificate.certificate, certificate.key)
    nobody = Tls(certificate.certificate)
    async with Proxy(url, tls=certificate.served(to_itself_alone=True)) as there:
        answers: list[int] = []
        for tls in (ours, nobody, Tls()):
            calls = HttpCalls(there.url, tls=tls)
            await calls.open()
            try:
                answers.append((await calls.call("GET", "/")).status)
            except errors.StoreUnavailable:
                answers.append(0)
            finally:
                await calls.close()

    assert answers == [200, 0, 0]
    assert server.asked == ["GET /"]
