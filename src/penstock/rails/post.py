"""One HTTP request to a node: bounded in time and size, without proxies, redirects or credentials from the environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final, Protocol

import aiohttp

from penstock.rails.base import PostFailed

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


class Post(Protocol):
    """One HTTP request. The only thing here that a simulation replaces."""

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
        """Status and body; with `first_line` the body up to its first line feed, though the answer may never end. `tls_cert` is the file of
        the only certificate that the node may show, where it made its own. Raises PostFailed.
        """
        ...


class HttpPost:
    """`Post` over aiohttp: one session, no proxies or credentials from the environment, no redirects."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._trusted: dict[str, ssl.SSLContext] = {}

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
        if self._session is None:
            self._session = aiohttp.ClientSession(
                trust_env=False, headers={"Content-Type": "application/json"}, connector=aiohttp.TCPConnector(limit_per_host=16)
            )
        limits = aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2)
        try:
            trusted = self._trusting(tls_cert) if tls_cert else True
            async with self._session.request(
                method, url, data=body or None, headers=headers, timeout=limits, allow_redirects=False, ssl=trusted
            ) as answer:
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if first_line and b"\n" in chunk:
                        return answer.status, bytes(content[: content.index(b"\n")])
                    if len(content) > ANSWER_BYTES_MAX:
                        raise PostFailed(f"its answer is longer than {ANSWER_BYTES_MAX >> 20} MiB")
                return answer.status, bytes(content)
        except TimeoutError:
            # Neither is chained: the text of aiohttp's errors may hold the whole address.
            raise PostFailed(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PostFailed(f"the connection failed ({type(error).__name__})") from None

    def _trusting(self, tls_cert: str) -> ssl.SSLContext:
        """TLS with a node whose certificate is the one in this file. Raises OSError (ssl.SSLError is one)."""
        if tls_cert not in self._trusted:
            self._trusted[tls_cert] = ssl.create_default_context(cafile=tls_cert)
        return self._trusted[tls_cert]

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
