"""A box on a loopback port: a network's node at /NAME (further nodes at /NAME/1, ...), the knobs at /control, an overview at /.

    async with Box(networks, runtime=runtime) as box:
        box.url("ETH")          http://127.0.0.1:PORT/ETH

Blocks need no task: each network makes those that are due before it answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from penstock.devnet.box import CLIENT_VERSION, BadCommand, BoxNetwork, Breakage, Broken, Request
from penstock.devnet.control import control, status
from penstock.runtime import Runtime

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
SILENCE_S: Final = 60.0
"""How long a `timeout` keeps the caller waiting before the connection is cut."""

NOTICE: Final = "Networks in a box: nothing here is worth anything, and nothing signed for them is valid elsewhere."


class Box:
    """Networks on one loopback port, from `async with` on until its end."""

    def __init__(self, networks: Sequence[BoxNetwork], *, runtime: Runtime, listen: str = "127.0.0.1:0") -> None:
        self.networks = list(networks)
        self._runtime = runtime
        self._host, self._port = _loopback(listen)
        self._by_name = {network.name: network for network in networks}
        self._runner: web.AppRunner | None = None
        self._ending = asyncio.Event()

    @property
    def base_url(self) -> str:
        """http://127.0.0.1:PORT; the port is known once the box is open."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def url(self, name: str, node: int = 0) -> str:
        """Where a node answers."""
        return f"{self.base_url}/{name}" + (f"/{node}" if node else "")

    def settings(self, name: str) -> dict[str, Any]:
        """What `[networks.NAME]` of a gateway needs to use this one."""
        network = self._by_name[name]
        others = dict(network.settings)
        form = str(others.pop("rpc_url", "{url}"))
        return {"rpc_urls": [form.format(url=self.url(name, node)) for node in range(len(network.nodes))], **others}

    def network(self, name: str) -> BoxNetwork:
        """The network of this name."""
        return self._by_name[name]

    async def __aenter__(self) -> Self:
        """Open the port. Raises OSError when it is taken."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_only_local_programs])
        app.router.add_get("/", self._overview)
        app.router.add_post("/control", self._control)
        app.router.add_route("*", "/{name}{path:(/.*)?}", self._node)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it; who waits for a silent node is let go."""
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _overview(self, _: web.Request) -> web.Response:
        networks = []
        for network in self.networks:
            network.tick()
            urls = [self.url(network.name, node) for node in range(len(network.nodes))]
            networks.append({**status(network), "settings": self.settings(network.name), "urls": urls})
        return web.json_response({"what": CLIENT_VERSION, "notice": NOTICE, "networks": networks})

    async def _control(self, request: web.Request) -> web.Response:
        try:
            answer = control(self.networks, _parsed(await request.read()))
        except BadCommand as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(answer)

    async def _node(self, request: web.Request) -> web.StreamResponse:
        network = self._by_name.get(request.match_info["name"])
        first, _, rest = request.match_info["path"].removeprefix("/").partition("/")
        numbered = first.isascii() and first.isdigit()
        number = int(first[:3]) if numbered else 0
        if network is None or number >= len(network.nodes):
            return web.json_response({"error": f"there is {', '.join(self._by_name)}; a node answers at /NAME or /NAME/1"}, status=404)
        path = (f"/{rest}" if rest else "") if numbered else request.match_info["path"]
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(await request.read(), path, request.method, dict(request.query), headers)
        try:
            answer = network.nodes[number].answer(asked)
        except Broken as broken:
            return await self._break(request, broken.how)
        return web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)

    async def _break(self, request: web.Request, how: Breakage) -> web.StreamResponse:
        """What the caller sees where no answer is due."""
        match how:
            case "500":
                return web.Response(status=500, text="Internal Server Error")
            case "503":
                return web.Response(status=503, text="Service Unavailable", headers={"Retry-After": "1"})
            case "timeout":
                await self._silence()
            case "reset":
                pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _silence(self) -> None:
        """Wait long enough for every sensible timeout, or until the box ends."""
        waiting = self._runtime.spawn(self._runtime.sleep(SILENCE_S), name="devnet.silence")
        ending = self._runtime.spawn(self._ended(), name="devnet.ending")
        try:
            await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            ending.cancel()

    async def _ended(self) -> None:
        await self._ending.wait()


async def serve(networks: Sequence[BoxNetwork], listen: str, *, runtime: Runtime, announce: Callable[[Box], None] | None = None) -> None:
    """Run a box until cancelled; `announce` is called once it answers. Raises ValueError for an address that is not loopback."""
    async with Box(networks, runtime=runtime, listen=listen) as box:
        if announce is not None:
            announce(box)
        await asyncio.Event().wait()


@web.middleware
async def _only_local_programs(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """A page in this machine's browser is no local program: no request with an Origin, none by another name than loopback's."""
    host = request.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
    if "Origin" in request.headers or not (host == "localhost" or _is_loopback(host)):
        return web.json_response({"error": "only programs on this machine, by its loopback address"}, status=403)
    response: web.StreamResponse = await handler(request)
    return response


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadCommand("the body is not JSON") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    if not _is_loopback(host) or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"a box listens on loopback only, for instance 127.0.0.1:8545, not on {listen!r}")
    return host, int(port)
