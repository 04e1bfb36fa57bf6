"""Callers' connections on real sockets: heads that do not end, offers to upgrade, and what makes room when there are too many."""

import asyncio
import contextlib

import pytest
import uvicorn

from penstock.http import connections
from penstock.http.app import UVICORN


@contextlib.asynccontextmanager
async def server(pause=None, servers=None, **more):
    """Answers each request with its method, path and body; gives the port. `pause` is waited for before the answer to /wait."""

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if pause is not None and scope["path"] == "/wait":
            await pause.wait()
        said = f"{scope['method']} {scope['path']} ".encode() + body
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    options = {**UVICORN, "loop": "none", **more}
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, **options))
    running.config.load()
    if servers is not None:
        servers.append(running)
    running.lifespan = running.config.lifespan_class(running.config)
    await running.startup()
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        await running.shutdown()


async def open_line(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split(b" ")[1]), await reader.readexactly(length)


def offer(body, protocol=b"h2c", path=b"/a"):
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n\r\n"
    return head % (path, len(body), protocol) + body


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
def test_an_offer_to_upgrade_is_passed_over_and_the_body_stays(protocol):
    """Java's own HTTP client offers h2c with every plain request; uvicorn gave the application an empty body."""

    async def job():
        async with server() as port:
            reader, writer = await open_line(port)
            writer.write(offer(b"first", protocol) + offer(b"second", protocol))
            assert await answer(reader) == (200, b"POST /a first")
            assert await answer(reader) == (200, b"POST /a second")
            writer.close()

    asyncio.run(job())


def test_the_body_behind_an_offer_to_upgrade_is_never_read_as_a_request():
    """It was, when it came a moment after its head: a request that nobody in front of us had seen."""

    async def job():
        async with server() as port:
            reader, writer = await open_line(port)
            head, body = offer(b"GET /smuggled HTTP/1.1\r\n\r\n").split(b"\r\n\r\n", 1)
            writer.write(head + b"\r\n\r\n")
            await asyncio.sleep(0)
            writer.write(body)
            assert await answer(reader) == (200, b"POST /a GET /smuggled HTTP/1.1\r\n\r\n")
            writer.write(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(reader) == (200, b"GET /b ")
            writer.close()

    asyncio.run(job())


def test_thousands_of_offers_in_one_piece_are_answered_one_by_one():
    async def job():
        async with server() as port:
            reader, writer = await open_line(port)
            writer.write(b"".join(offer(b"%d" % number) for number in range(2_000)))
            for number in range(2_000):
                assert await answer(reader) == (200, b"POST /a %d" % number)
            writer.close()

    asyncio.run(job())


@pytest.mark.parametrize(
    "raw", [b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 66_000]
)
def test_a_tunnel_and_a_head_without_end_are_refused(raw):
    async def job():
        async with server() as port:
            reader, writer = await open_line(port)
            writer.write(raw)
            assert (await answer(reader))[0] == 400
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(job())


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.1\r\n", b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second"])
def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch, begun):
    monkeypatch.setattr(connections, "HEAD_S", 0.05)

    async def job():
        async with server() as port:
            reader, writer = await open_line(port)
            writer.write(begun)
            if b"first" in begun:
                assert await answer(reader) == (200, b"GET /first ")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(job())


def test_a_request_at_work_is_not_cut_off_by_the_slow_head_of_the_next(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.02)

    async def job():
        pause = asyncio.Event()
        async with server(pause) as port:
            reader, writer = await open_line(port)
            writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET /second")
            asyncio.get_running_loop().call_later(0.1, pause.set)
            assert await answer(reader) == (200, b"GET /wait ")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(job())


@pytest.mark.parametrize("begun", [b"", b"\r\n"])
def test_who_asks_nothing_for_long_is_let_go(begun):
    """An empty line may stand before a request (RFC 9112, 2.2), and is none: uvicorn then kept the connection for ever."""

    async def job():
        async with server(timeout_keep_alive=0.05) as port:
            reader, writer = await open_line(port)
            for number in range(3):
                writer.write(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                assert await answer(reader) == (200, b"GET /%d " % number)
            writer.write(begun)
            assert await reader.read() == b""
            writer.close()

    asyncio.run(job())


def test_a_rest_begins_with_the_answer_and_not_with_the_request():
    async def job():
        pause = asyncio.Event()
        async with server(pause, timeout_keep_alive=0.05) as port:
            reader, writer = await open_line(port)
            writer.write(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(reader) == (200, b"GET /first ")
            writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            asyncio.get_running_loop().call_later(0.15, pause.set)
            assert await answer(reader) == (200, b"GET /wait ")
            writer.write(b"GET /third HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(reader) == (200, b"GET /third ")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(job())


def test_nobody_is_left_among_those_at_work_when_all_are_answered():
    """Their number is what new requests are refused by."""

    async def job():
        running = []
        async with server(servers=running) as port:
            reader, writer = await open_line(port)
            for number in range(5):
                writer.write(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                assert await answer(reader) == (200, b"GET /%d " % number)
                assert not running[0].server_state.tasks
            writer.close()

    asyncio.run(job())


def test_when_there_are_too_many_the_longest_quiet_make_room_and_nobody_at_work(monkeypatch):
    """uvicorn answered 503 to everybody as soon as 4,096 connections were open, however idle."""
    monkeypatch.setattr(connections, "connections_max", lambda: 8)

    async def job():
        pause = asyncio.Event()
        async with server(pause) as port:
            busy = await open_line(port)
            busy[1].write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            served = await open_line(port)
            idle = [await open_line(port) for _ in range(6)]
            served[1].write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(served[0]) == (200, b"GET /a ")
            late = await open_line(port)
            late[1].write(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(late[0]) == (200, b"GET /late ")
            with contextlib.suppress(ConnectionError):
                assert await idle[0][0].read() == b""
            served[1].write(b"GET /again HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer(served[0]) == (200, b"GET /again ")
            pause.set()
            assert await answer(busy[0]) == (200, b"GET /wait ")
            for _, writer in (busy, served, late, *idle):
                writer.transport.abort()

    asyncio.run(job())


def test_above_so_many_requests_at_work_the_next_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr(connections, "REQUESTS_MAX", 1)

    async def job():
        pause = asyncio.Event()
        async with server(pause) as port:
            first, second = await open_line(port), await open_line(port)
            first[1].write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.02)
            second[1].write(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await second[0].readuntil(b"\r\n\r\n")
            assert b" 503 " in head and b"retry-after: 1\r\n" in head
            assert (await second[0].readuntil(b"}")).startswith(b'{"code":11004,')
            pause.set()
            assert await answer(first[0]) == (200, b"GET /wait ")
            for _, writer in (first, second):
                writer.transport.abort()

    asyncio.run(job())
