"""HTTP without sockets, where time is virtual: to the nodes of a box, and to the door of the product."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from penstock.devnet.box import BoxNetwork, Broken, Request
from penstock.rails.base import PostFailed


class BoxPost:
    """`rails.post.Post` to networks in this process: http://box/NAME is the first node, http://box/NAME/1 the second."""

    def __init__(self, networks: Sequence[BoxNetwork], *, pause: Callable[[], Awaitable[None]] | None = None) -> None:
        self._networks = {network.name: network for network in networks}
        self._pause = pause

    def urls(self, name: str) -> tuple[str, ...]:
        """Where the nodes of a network answer."""
        return tuple(f"http://box/{name}/{number}" for number in range(len(self._networks[name].nodes)))

    async def __call__(
        self,
        url: str,
        body: bytes,
        timeout_s: float,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        first_line: bool = False,
        tls_cert: str = "",  # noqa: ARG002  there is no TLS here
    ) -> tuple[int, bytes]:
        """Status and body. Raises PostFailed."""
        if self._pause is not None:
            await self._pause()
        parts = urlsplit(url)
        name, _, rest = parts.path.removeprefix("/").partition("/")
        number, _, path = rest.partition("/")
        asked = Request(
            body=body,
            path=f"/{path}" if path else "",
            method=method,
            query=dict(parse_qsl(parts.query)),
            headers={key.lower(): value for key, value in (headers or {}).items()},
        )
        try:
            answer = self._networks[name].nodes[int(number)].answer(asked)
        except Broken as broken:
            if broken.how == "timeout":
                await asyncio.sleep(timeout_s)
            if broken.how in {"500", "503"}:
                return int(broken.how), b""
            raise PostFailed(broken.how) from broken
        return answer.status, answer.body.partition(b"\n")[0] if first_line else answer.body


async def call_asgi(app: Callable[..., Any], path: str, headers: Mapping[str, str | bytes], body: bytes) -> tuple[dict[str, str], bytes]:
    """One POST to an ASGI application, without a socket."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw_headers = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]
    raw_headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": raw_headers}
    await app({**scope, "client": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}, receive, send)
    found = {name.decode().title(): value.decode() for name, value in sent[0]["headers"]}
    return found, b"".join(message.get("body", b"") for message in sent[1:])
