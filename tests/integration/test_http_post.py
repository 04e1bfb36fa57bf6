"""The port to nodes that has sockets, against servers on loopback."""

import asyncio

import pytest
from aiohttp import web

from penstock.rails.rpc import ANSWER_BYTES_MAX, HttpPost, PostFailed


async def serve(handler):
    app = web.Application()
    app.router.add_post("/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/SECRETKEY"


def over_http(handler, timeout_s=5.0):
    async def main():
        runner, url = await serve(handler)
        post = HttpPost()
        try:
            return await post(url, b"{}", timeout_s)
        finally:
            await post.close()
            await runner.cleanup()

    return asyncio.run(main())


def test_the_real_port_returns_status_and_body():
    async def handler(request):
        assert request.content_type == "application/json"
        return web.Response(status=429, body=await request.read())

    assert over_http(handler) == (429, b"{}")


def test_the_real_port_follows_no_redirect():
    async def handler(request):
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/")

    assert over_http(handler)[0] == 307


def test_the_real_port_bounds_time_and_length_and_names_no_address(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")

    async def slow(request):
        await asyncio.sleep(0.5)

    async def long(request):
        return web.Response(body=b"x" * (ANSWER_BYTES_MAX + 1))

    async def reset(request):
        request.transport.abort()
        return web.Response()

    for handler, words in ((slow, "no answer within"), (long, "longer than 4 MiB"), (reset, "the connection failed")):
        with pytest.raises(PostFailed, match=words) as caught:
            over_http(handler, timeout_s=0.2 if handler is slow else 5.0)
        assert "SECRET" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_the_real_port_says_when_nobody_listens():
    async def main():
        post = HttpPost()
        try:
            await post("http://127.0.0.1:1/SECRETKEY", b"", 2.0)
        finally:
            await post.close()

    with pytest.raises(PostFailed, match="the connection failed"):
        asyncio.run(main())
