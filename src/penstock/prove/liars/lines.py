"""Between a client and a node that lies: in virtual time, and as a real HTTP proxy on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from penstock.prove.liars.liar import Asked, Liar, Said
from penstock.rails.base import PostFailed
from penstock.rails.post import ANSWER_BYTES_MAX, Post

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
HOP_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


class LyingPost:
    """`rails.post.Post` with a liar before some of the nodes, by their place in the list; what a line does to an answer happens here."""

    def __init__(self, post: Post, liars: Mapping[int, Liar]) -> None:
        self._post = post
        self.liars = liars

    async def __call__(
        self,
        url: str,
        body: bytes,
        timeout_s: float,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        first_line: bool = False,
        tls_cert: str = "",
    ) -> tuple[int, bytes]:
        """Status and body. Raises PostFailed."""
        del tls_cert  # nothing here is encrypted
        _, number, path = _parted(url)

        async def ask() -> Said:
            status, answer = await self._post(url, body, timeout_s, method=method, headers=headers, first_line=first_line)
            return Said(answer, status)

        liar = self.liars.get(number)
        said = await liar.answer(Asked(body, path, method), ask) if liar is not None else await ask()
        match said.how:
            case "silence":
                await asyncio.sleep(timeout_s)
                raise PostFailed(f"no answer within {timeout_s:g} s")
            case "drip" if len(said.body) > timeout_s:
                await asyncio.sleep(timeout_s)
                raise PostFailed(f"no answer within {timeout_s:g} s")
            case "reset" | "cut":
                raise PostFailed("the connection failed (ClientPayloadError)")
            case "" | "drip":
                pass
        if len(said.body) > ANSWER_BYTES_MAX:
            raise PostFailed(f"its answer is longer than {ANSWER_BYTES_MAX >> 20} MiB")
        return said.status, said.body.partition(b"\n")[0] if first_line else said.body


def _parted(url: str) -> tuple[str, int, str]:
    """Network, place of the node, and what follows, of http://box/NAME/PLACE/..."""
    name, _, rest = urlsplit(url).path.removeprefix("/").partition("/")
    number, _, path = rest.partition("/")
    return name, int(number), f"/{path}" if path else ""


class LyingProxy:
    """The same as an HTTP server before one real node. `sent_bytes` counts what it gave away."""

    def __init__(self, node_url: str, liar: Liar) -> None:
        self._node_url = node_url.rstrip("/")
        self.liar = liar
        self.sent_bytes = 0
        self.url = ""
        self._client: aiohttp.ClientSession | None = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.raw_path if request.raw_path != "/" else ""

        async def ask() -> Said:
            assert self._client is not None  # noqa: S101  it serves
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
            async with self._client.request(request.method, self._node_url + path, data=body or None, headers=headers) as answer:
                return Said(await answer.read(), answer.status)

        said = await self.liar.answer(Asked(body, path.partition("?")[0], request.method), ask)
        response = web.StreamResponse(status=said.status, headers={"Content-Type": "application/json"})
        with suppress(ConnectionResetError):  # who asked may be gone
            await self._say(request, response, said)
        return response

    async def _say(self, request: web.Request, response: web.StreamResponse, said: Said) -> None:
        if said.how in {"silence", "reset"}:
            if said.how == "silence":
                await asyncio.sleep(3_600)
            _cut(request)
        response.content_length = len(said.body)
        await response.prepare(request)
        pieces: Sequence[bytes] = [said.body[place : place + 65_536] for place in range(0, len(said.body), 65_536)]
        if said.how == "drip":
            pieces = [said.body[place : place + 1] for place in range(len(said.body))]
        for piece in pieces:
            await response.write(piece[: len(piece) // 2] if said.how == "cut" else piece)
            self.sent_bytes += len(piece)
            if said.how == "cut":
                _cut(request)
                break
            if said.how == "drip":
                await asyncio.sleep(1)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@asynccontextmanager
async def lying_proxy(node_url: str, liar: Liar) -> AsyncIterator[LyingProxy]:
    """A lying node on a free port of loopback, until the end of the block."""
    proxy = LyingProxy(node_url, liar)
    application = web.Application(client_max_size=BODY_BYTES_MAX)
    application.router.add_route("*", "/{path:.*}", proxy._serve)
    runner: Any = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(trust_env=False) as client:
        proxy._client = client
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            proxy.url = f"http://{host}:{port}"
            yield proxy
        finally:
            await runner.cleanup()
