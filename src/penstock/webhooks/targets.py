"""Where webhooks may go. A receiver's address is a stranger's text, so it is the resolved address that is judged, never the text.

A host is resolved once, every address must be admitted, and the connection goes to what was judged: a name that answers
differently a moment later gains nothing. Redirects are not followed, proxies and credentials of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from penstock.webhooks.deliver import Reply, TargetFailed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECT_S: Final = 5.0
TOTAL_S: Final = 20.0
ANSWER_BYTES_MAX: Final = 64 * 1024
URL_MAX: Final = 2_000

DENIED: Final = tuple(
    ipaddress.ip_network(text)
    for text in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",
        "ff00::/8",
    ]
)
PRIVATE: Final = tuple(
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could be meant (test plan, threat 14). Mapped addresses are judged by what they map."""
    plain = _canonical(address)
    return plain.is_global and not any(plain in network for network in DENIED if network.version == plain.version)


def is_private(address: Address) -> bool:
    """Loopback and private ranges: what `webhooks.allow_private_targets` admits. Link-local (cloud metadata) is never admitted."""
    plain = _canonical(address)
    return any(plain in network for network in PRIVATE if network.version == plain.version)


def _canonical(address: Address) -> Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def check_url(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a webhook URL, in a sentence; None when its form can be used. Its address is judged at each connection."""
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"it must be printable ASCII of at most {URL_MAX} characters"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL such as https://shop.example/webhook"
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        return "it must begin with https:// (plain http goes only to private addresses, with webhooks.allow_private_targets)"
    if not host:
        return "it names no host"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "it must not hold user, password or fragment"
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return None
    return _problem([literal], plain_http=parts.scheme == "http", allow_private=allow_private)


def _problem(addresses: list[Address], *, plain_http: bool, allow_private: bool) -> str | None:
    """Why these addresses are not connected to; every one of them must be admitted."""
    if not addresses:
        return "the host has no address"
    for address in addresses:
        if allow_private and is_private(address):
            continue
        if not is_public(address):
            return "the host's address is private, reserved or link-local"
        if plain_http:
            return "plain http to a public address is never used"
    return None


class _Resolver(AbstractResolver):
    """Resolves and judges in one step, so that what is connected to is what was judged."""

    def __init__(self, *, plain_http: bool, allow_private: bool) -> None:
        self._plain_http = plain_http
        self._allow_private = allow_private

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Addresses of a host, all admitted. Raises TargetFailed."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        except (OSError, UnicodeError) as error:
            raise TargetFailed("the host name does not resolve") from error
        if any("%" in str(entry[4][0]) for entry in found):
            raise TargetFailed("the host's address has a scope")
        addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
        problem = _problem(addresses, plain_http=self._plain_http, allow_private=self._allow_private)
        if problem is not None:
            raise TargetFailed(problem)
        return [
            ResolveResult(hostname=host, host=str(address), port=port, family=entry[0], proto=0, flags=socket.AI_NUMERICHOST)
            for entry, address in zip(found, addresses, strict=True)
        ]

    async def close(self) -> None:
        """Nothing is held."""


class HttpTargets:
    """The production way out, over aiohttp with keep-alive."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        session = self._sessions.get(scheme)
        if session is None:
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(plain_http=scheme == "http", allow_private=self._allow_private),
                use_dns_cache=False,
                limit=0,
            )
            session = self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S),
                auto_decompress=False,
            )
        return session

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """One POST; at most 64 KiB of the answer are read. Raises TargetFailed."""
        problem = check_url(url, allow_private=self._allow_private)
        if problem is not None:
            raise TargetFailed(problem)
        scheme = urlsplit(url).scheme
        try:
            async with self._session(scheme).post(url, data=body, headers=headers, allow_redirects=False) as answer:
                self._check_peer(answer, plain_http=scheme == "http")
                content = bytearray()
                async for chunk in answer.content.iter_chunked(8192):
                    content += chunk
                    if len(content) >= ANSWER_BYTES_MAX:
                        answer.close()
                        break
                return Reply(answer.status, bytes(content[:ANSWER_BYTES_MAX]).decode("utf-8", "replace"))
        except TimeoutError as error:
            raise TargetFailed(f"no whole answer within {TOTAL_S:g} s") from error
        except aiohttp.ClientError as error:
            cause = error.__cause__
            raise TargetFailed(
                str(cause) if isinstance(cause, TargetFailed) else f"the connection failed ({type(error).__name__})"
            ) from error
        except (OSError, ValueError) as error:
            raise TargetFailed(f"the connection failed ({type(error).__name__})") from error

    def _check_peer(self, answer: aiohttp.ClientResponse, *, plain_http: bool) -> None:
        """The peer that answered is one that is admitted."""
        connection = answer.connection
        peer: Any = connection.transport.get_extra_info("peername") if connection is not None and connection.transport is not None else None
        if peer is None:
            return  # the whole answer was there already and the connection is back in the pool: it was judged when it was made
        problem = _problem([ipaddress.ip_address(peer[0])], plain_http=plain_http, allow_private=self._allow_private)
        if problem is not None:
            raise TargetFailed(problem)

    async def close(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
