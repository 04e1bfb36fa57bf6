"""Where webhooks may go, and the way there: a merchant's URL must never lead into the house (SSRF).

A name is resolved once, its addresses are judged, and the connection is made to a judged address; the socket judges again what it is about
to connect to, and the peer is looked at before the first byte leaves. So it does not matter how an address was written (`0x7f.1`,
`2130706433`), nor what the name resolves to a moment later. Redirects are never followed, proxies and cookies do not exist.

With `allow_private`, loopback, private and link-local addresses are admitted too, and plain http to these alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from penstock.runtime import Runtime
from penstock.webhooks.deliver import Reply, TargetFailed
from penstock.webhooks.line import Line, NoAnswer

CONNECT_S: Final = 5.0
TOTAL_S: Final = 20.0
KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which many servers close an idle connection, so that no send meets one that is closing."""
URL_MAX: Final = 2_048
URLS_REMEMBERED: Final = 4_096
DNS_THREADS: Final = 32
_TARGET_SAFE: Final = "%/?:@!$&'()*+,;=~"
"""What may stand in a request's target as it is; `check_url` has let nothing through but visible ASCII."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _networks(text: str) -> _Networks:
    return tuple(ipaddress.ip_network(word) for word in text.split())


INSIDE: Final = _networks("10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7 fe80::/10")
"""What `allow_private` admits."""

DENIED: Final = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 "
    "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 "
    "::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/9 ff00::/8"
)
"""Never public, whatever `is_global` says (test plan, section 2): it is True for NAT64, 6to4, multicast and more."""

METADATA: Final = _networks("100.100.100.200/32 169.254.169.254/32 169.254.170.2/32 fd00:ec2::254/128")
"""Where clouds hand out credentials: no webhook has business there, even where private targets are admitted."""

_FORM: Final = re.compile(r"(https?)://[\x21-\x7e]+", re.IGNORECASE)
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"\[[^\]]*\](:[0-9]*)?")
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
    if "[" in parts.netloc and _BRACKETS.fullmatch(parts.netloc) is None:
        return "its host or port is malformed"
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


class Refused(OSError):
    """An address that must not be connected to."""


def system_lookup(host: str, port: int) -> list[tuple[int, str]]:
    """Family and address, as the operating system resolves a name. Blocks."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_ADDRCONFIG)
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


Lookup = Callable[[str, int], Sequence[tuple[int, str]]]


def judged(found: Sequence[tuple[int, str]], port: int, reach: Reach) -> list[AddrInfoType]:
    """Of a name's addresses those that may be connected to. Raises Refused when there is none."""
    verdicts = [(kind, text, judge(canonical(text), reach) or "") for kind, text in found]
    good: list[AddrInfoType] = [
        (kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port)) for kind, text, problem in verdicts if not problem
    ]
    if not good:
        raise Refused(next((problem for _, _, problem in verdicts if problem), "the name has no address"))
    return good


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """What a URL names: whom to connect to, and how each request begins."""

    scheme: str
    host: str
    port: int
    head: bytes

    @property
    def peer(self) -> tuple[str, str, int]:
        """What all URLs have in common that may share a connection."""
        return self.scheme, self.host, self.port

    @classmethod
    def of(cls, url: str) -> _Endpoint:
        """Of a URL that `check_url` has nothing against."""
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe=_TARGET_SAFE) + (f"?{quote(parts.query, safe=_TARGET_SAFE)}" if parts.query else "")
        usual = 443 if parts.scheme == "https" else 80
        name = (f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "").rstrip(".")
        host = name if parts.port in (None, usual) else f"{name}:{parts.port}"
        head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Penstock\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        return cls(parts.scheme, parts.hostname or "", parts.port or usual, head.encode("ascii"))

    def request(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of one POST. Raises ValueError for a header that is not one line of ASCII."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if not lines.isascii() or lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            raise ValueError("a header is not one line of ASCII")
        return b"%sContent-Length: %d\r\n%s\r\n%s" % (self.head, len(body), lines.encode("ascii"), body)


class HttpTargets:
    """`Targets` over HTTP/1.1: TLS verified, 5 s to connect, 20 s in all, 64 KiB of the answer, connections kept while they are used.

    Why this is no general HTTP client: docs/adr/0011.
    """

    def __init__(self, runtime: Runtime, *, allow_private: bool, lookup: Lookup = system_lookup, total_s: float | None = None) -> None:
        self._total_s = TOTAL_S if total_s is None else total_s
        self._runtime = runtime
        self._allow_private = allow_private
        self._lookup = lookup
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._kept: dict[tuple[str, str, int], list[Line]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._problem = lru_cache(maxsize=URLS_REMEMBERED)(partial(check_url, allow_private=allow_private))
        """Of a URL's text, which says the same each time; whom it leads to is judged at each connection."""
        self._endpoint = lru_cache(maxsize=URLS_REMEMBERED)(_Endpoint.of)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One POST. Raises TargetFailed with a reason that is fit for the log of sends."""
        problem = self._problem(url)
        if problem is not None:
            raise TargetFailed(f"the webhook URL cannot be used: {problem}")
        try:
            endpoint = self._endpoint(url)
            request = endpoint.request(headers, body)
            async with asyncio.timeout(self._total_s):
                line = self._take(endpoint) or await self._connect(endpoint)
                status, content = await line.ask(request)
            self._keep(endpoint, line)
            return Reply(status, content.decode("utf-8", "replace"))
        except TimeoutError:
            raise TargetFailed(f"no answer within {self._total_s:g} s") from None
        except NoAnswer as error:
            raise TargetFailed(str(error)) from None
        except (OSError, ValueError) as error:
            raise TargetFailed(_reason(error)) from None

    async def _connect(self, endpoint: _Endpoint) -> Line:
        """A new connection to one of the addresses that may be. Raises NoAnswer, OSError or ValueError."""
        reach = reach_of(endpoint.scheme, allow_private=self._allow_private)
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await self._addresses(endpoint, reach)
                # One that does not answer holds up the others for a quarter of a second (RFC 8305).
                connected = await start_connection(addresses, happy_eyeballs_delay=0.25, socket_factory=partial(_socket, reach))
                try:
                    _require(str(connected.getpeername()[0]), reach)
                    tls = self._tls if endpoint.scheme == "https" else None
                    name = endpoint.host.rstrip(".") if tls else None
                    return (await asyncio.get_running_loop().create_connection(Line, sock=connected, ssl=tls, server_hostname=name))[1]
                except BaseException:
                    connected.close()
                    raise
        except TimeoutError:
            raise NoAnswer(f"no connection within {CONNECT_S:g} s") from None

    async def _addresses(self, endpoint: _Endpoint, reach: Reach) -> list[AddrInfoType]:
        """What the name leads to now, of it those that may be connected to. Raises as `judged`, and socket.gaierror."""
        found = await self._runtime.in_thread("dns", lambda: self._lookup(endpoint.host, endpoint.port), width=DNS_THREADS)
        return judged(found, endpoint.port, reach)

    def _take(self, endpoint: _Endpoint) -> Line | None:
        """A connection that is kept, the one that was used last; its peer was judged when it was made."""
        kept, now = self._kept.get(endpoint.peer, []), self._runtime.monotonic()
        while kept:
            line = kept.pop()
            if line.is_open and now - line.idle_since < KEEP_ALIVE_S:
                return line
            line.close()
        return None

    def _keep(self, endpoint: _Endpoint, line: Line) -> None:
        if self._is_closed:
            line.close()
        if not line.is_open:
            return
        line.idle_since = self._runtime.monotonic()
        self._kept.setdefault(endpoint.peer, []).append(line)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for long."""
        old = self._runtime.monotonic() - KEEP_ALIVE_S
        for key, lines in list(self._kept.items()):
            for line in lines:
                if line.idle_since <= old:
                    line.close()
            if fresh := [line for line in lines if line.is_open]:
                self._kept[key] = fresh
            else:
                del self._kept[key]
        self._sweeping = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep) if self._kept else None

    async def close(self) -> None:
        """Close the connections, those in use when they have their answer."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for lines in self._kept.values():
            for line in lines:
                line.close()
        self._kept.clear()


def _require(text: str, reach: Reach) -> None:
    problem = judge(canonical(text), reach)
    if problem is not None:
        raise Refused(problem)


def _socket(reach: Reach, info: AddrInfoType) -> socket.socket:
    """A socket for an address, which is judged once more."""
    family, kind, proto, _, address = info
    _require(str(address[0]), reach)
    return socket.socket(family=family, type=kind, proto=proto)


def _reason(error: OSError | ValueError) -> str:
    """What went wrong in words without addresses of ours, secrets or what the receiver wrote."""
    match error:
        case Refused():
            return f"not sent: {error}"
        case socket.gaierror():
            return "its name does not resolve"
        case ssl.SSLCertVerificationError():
            return "its certificate is not valid"
        case ssl.SSLError():
            return "TLS failed"
        case OSError(errno=int(number)):
            return f"no connection ({os.strerror(number)})"
        case OSError():
            return f"no connection ({type(error).__name__})"
        case _:
            return f"not sent: {error}"
