"""Where webhooks may go, and the way there: a merchant's URL must never lead into the house (SSRF).

A name is resolved once, its addresses are judged, and the connection is made to a judged address; the socket judges again what it is about
to connect to, and the peer is looked at before the first byte leaves. So it does not matter how an address was written (`0x7f.1`,
`2130706433`), nor what the name resolves to a moment later. Redirects are never followed, proxies and cookies do not exist.

With `allow_private`, loopback, private and link-local addresses are admitted too, and plain http to these alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from penstock.runtime import Runtime
from penstock.webhooks.deliver import Reply, TargetFailed

CONNECT_S: Final = 5.0
TOTAL_S: Final = 20.0
BODY_BYTES_MAX: Final = 64 * 1024
KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which many servers close an idle connection, so that no send meets one that is closing."""
URL_MAX: Final = 2_048
URLS_REMEMBERED: Final = 4_096
DNS_THREADS: Final = 32

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _networks(text: str) -> _Networks:
    return tuple(ipaddress.ip_network(word) for word in text.split())


INSIDE: Final = _networks("10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7 fe80::/10")
"""What `allow_private` admits."""

DENIED: Final = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 "
    "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 "
    "::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/9 ff00::/8"
)
"""Never public, whatever `is_global` says (test plan, section 2): it is True for NAT64, 6to4, multicast and more."""

METADATA: Final = _networks("100.100.100.200/32 169.254.169.254/32 169.254.170.2/32 fd00:ec2::254/128")
"""Where clouds hand out credentials: no webhook has business there, even where private targets are admitted."""

_FORM: Final = re.compile(r"(https?)://[\x21-\x7e]+", re.IGNORECASE)
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)
_NAMES_INSIDE: Final = ("localhost", "local", "internal", "home.arpa")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which addresses one connector may connect to."""

    public: bool
    private: bool


@lru_cache(maxsize=4096)
def canonical(text: str) -> Address:
    """An address as it is really reached: without scope, and IPv4 where it is IPv4 in the clothes of IPv6. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else address


def judge(address: Address, reach: Reach) -> str | None:
    """Why this address must not be connected to, None when it may be."""
    place = _place(address)
    if place == "metadata":
        return f"{address} is a cloud's metadata service"
    if place == "inside":
        return None if reach.private else f"{address} is not a public address"
    if place == "denied":
        return f"{address} is not a public address"
    if not reach.public:
        return f"{address} is a public address, and plain http goes to private ones only; use https"
    if not reach.private and _is_ours(address):
        return f"{address} is this machine's own address"
    return None


@lru_cache(maxsize=4096)
def _place(address: Address) -> Literal["metadata", "inside", "denied", "public"]:
    """Where the address lies, which never changes; each send asks for that of its peer."""
    if any(address in network for network in METADATA):
        return "metadata"
    if any(address in network for network in INSIDE):
        return "inside"
    return "denied" if not address.is_global or any(address in network for network in DENIED) else "public"


def _is_ours(address: Address) -> bool:
    """Whether an interface of this machine has it: then it can be bound. (Where the system lets anything be bound, nobody can say.)"""
    anybodys = "192.0.2.1" if address.version == 4 else "2001:db8::1"
    return _can_bind(address.version, str(address)) and not _can_bind(address.version, anybodys)


def _can_bind(version: int, address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def check_url(url: str, *, allow_private: bool) -> str | None:
    """Why this cannot be a webhook URL, in a plain sentence; None when it can. Judges the text alone, so it never asks the network.

    Whether the name leads to an address that may be connected to is judged again and again, at each connection.
    """
    if len(url) > URL_MAX:
        return f"it is longer than {URL_MAX} characters"
    form = _FORM.fullmatch(url)
    if form is None or "\\" in url:
        return "it must begin with https:// and consist of plain ASCII without spaces, such as https://shop.example/webhook"
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        return "its host or port is malformed"
    if parts.username is not None or parts.password is not None:
        return "it must not hold a user name or password"
    if parts.fragment or "#" in url:
        return "it must not hold a fragment (#...)"
    if parts.scheme != "https" and not allow_private:
        return "it must be https; plain http is only for private targets, with webhooks.allow_private_targets"
    if port is not None and (port == 0 or (port < 1024 and port != 443 and not allow_private)):
        return f"port {port} is no place for a webhook; use 443, or one from 1024 up"
    return _check_host(host, parts, reach_of(parts.scheme, allow_private=allow_private), allow_private=allow_private)


def _check_host(host: str, parts: SplitResult, reach: Reach, *, allow_private: bool) -> str | None:
    if not host or "%" in host:
        return "it has no host that can be used"
    if "[" in parts.netloc or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return judge(canonical(host), reach)
        except ValueError:
            return "its host is neither a name nor an address in its usual form, such as 203.0.113.7"
    if len(host) > 253 or _NAME.fullmatch(host) is None:
        return "its host is not a valid name"
    inside = any(host.rstrip(".") == name or host.rstrip(".").endswith(f".{name}") for name in _NAMES_INSIDE)
    if inside and not allow_private:
        return f"{host} is a name inside a house; a public one is needed, or webhooks.allow_private_targets"
    return None


def reach_of(scheme: str, *, allow_private: bool) -> Reach:
    """Plain http never leaves the house."""
    return Reach(public=scheme == "https", private=allow_private)


class _Refused(OSError):
    """An address that must not be connected to; aiohttp carries it as the cause of its own error."""


def system_lookup(host: str, port: int) -> list[tuple[int, str]]:
    """Family and address, as the operating system resolves a name. Blocks."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_ADDRCONFIG)
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


Lookup = Callable[[str, int], Sequence[tuple[int, str]]]


class _Resolver(AbstractResolver):
    """Resolves a name and hands out only those of its addresses that may be connected to."""

    def __init__(self, runtime: Runtime, lookup: Lookup, reach: Reach) -> None:
        self._runtime = runtime
        self._lookup = lookup
        self._reach = reach

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002
    ) -> list[ResolveResult]:
        """Addresses to connect to. Raises _Refused when there is none that may be."""
        found = await self._runtime.in_thread("dns", lambda: self._lookup(host, port), width=DNS_THREADS)
        verdicts = [(kind, text, judge(canonical(text), self._reach) or "") for kind, text in found]
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        good = [
            ResolveResult(hostname=host, host=text, port=port, family=kind, proto=socket.IPPROTO_TCP, flags=flags)
            for kind, text, problem in verdicts
            if not problem
        ]
        if not good:
            raise _Refused(next((problem for _, _, problem in verdicts if problem), "the name has no address"))
        return good

    async def close(self) -> None:
        """Nothing to close."""


class _Connector(aiohttp.TCPConnector):
    """Connects to judged addresses only, and looks at the peer before the first byte."""

    def __init__(self, runtime: Runtime, lookup: Lookup, reach: Reach) -> None:
        super().__init__(
            resolver=_Resolver(runtime, lookup, reach),
            use_dns_cache=False,
            family=socket.AF_UNSPEC,
            limit=0,
            keepalive_timeout=KEEP_ALIVE_S,
            socket_factory=self._socket,
        )
        self._reach = reach

    def _socket(self, addr_info: Any) -> socket.socket:
        family, kind, proto, _, sockaddr = addr_info
        self._require(str(sockaddr[0]))
        return socket.socket(family=family, type=kind, proto=proto)

    def _require(self, text: str) -> None:
        problem = judge(canonical(text), self._reach)
        if problem is not None:
            raise _Refused(problem)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        """A connection whose peer has been judged, new or kept."""
        connection = await super().connect(req, traces, timeout)
        peer = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        try:
            self._require(str(peer[0]) if peer else "0.0.0.0")  # noqa: S104  a peer without a name is refused
        except _Refused:
            connection.close()
            raise
        return connection


class HttpTargets:
    """`Targets` over aiohttp: TLS verified, 5 s to connect, 20 s in all, 64 KiB of the answer, connections kept while they are used."""

    def __init__(self, runtime: Runtime, *, allow_private: bool, lookup: Lookup = system_lookup, total_s: float | None = None) -> None:
        self._total_s = TOTAL_S if total_s is None else total_s
        self._runtime = runtime
        self._allow_private = allow_private
        self._lookup = lookup
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._problem = lru_cache(maxsize=URLS_REMEMBERED)(partial(check_url, allow_private=allow_private))
        """Of a URL's text, which says the same each time; whom it leads to is judged at each connection and at each send."""

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        """One a scheme, because plain http may reach less."""
        session = self._sessions.get(scheme)
        if session is None:
            reach = reach_of(scheme, allow_private=self._allow_private)
            session = self._sessions[scheme] = aiohttp.ClientSession(
                connector=_Connector(self._runtime, self._lookup, reach),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),  # `post` bounds the whole with one timer
                headers={"User-Agent": "Penstock", "Accept-Encoding": "identity"},
            )
        return session

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One POST. Raises TargetFailed with a reason that is fit for the log of sends."""
        problem = self._problem(url)
        if problem is not None:
            raise TargetFailed(f"the webhook URL cannot be used: {problem}")
        try:
            async with (
                asyncio.timeout(self._total_s),
                self._session(urlsplit(url).scheme).post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                return Reply(answer.status, await _beginning(answer))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise TargetFailed(_reason(error, self._total_s)) from None

    async def close(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    content = bytearray()
    while len(content) < BODY_BYTES_MAX and not answer.content.at_eof():
        content += await answer.content.read(BODY_BYTES_MAX - len(content))
    if not answer.content.at_eof():
        answer.close()  # the rest is not read, so this connection is not used again
    return content.decode("utf-8", "replace")


def _reason(error: BaseException, total_s: float) -> str:
    """What went wrong in words without addresses of ours, secrets or what the receiver wrote."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _Refused):
            return f"not sent: {cause}"
        cause = getattr(cause, "os_error", None) or cause.__cause__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, TimeoutError):
        return f"no answer within {total_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer"
    return f"no HTTP answer ({type(error).__name__})"
