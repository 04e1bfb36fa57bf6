"""How receivers behave (test plan, F1): raw answers on loopback, and URLs and names that lead where no webhook may go."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Talk = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
"""Answers the n-th request of an endpoint, counted from 0."""

METADATA: Final = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
BYTES_MAX: Final = 10 * 1024**3
PIECE: Final = b"x" * 65_536


def _plain(body: bytes = b"success", status: bytes = b"200 OK", *extra: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *extra)) + b"\r\n" + body


def _says(*answers: bytes) -> Talk:
    """One after the other, the last one for ever."""

    async def talk(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(answers[min(number, len(answers) - 1)])
        await writer.drain()

    return talk


def _drips(first: bytes, piece: bytes, pause_s: float = 1.0) -> Talk:
    async def talk(writer: asyncio.StreamWriter, number: int) -> None:  # noqa: ARG001
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return talk


def _floods(first: bytes) -> Talk:
    async def talk(writer: asyncio.StreamWriter, number: int) -> None:  # noqa: ARG001
        writer.write(first)
        for _ in range(BYTES_MAX // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()

    return talk


OK: Final = b"HTTP/1.1 200 OK\r\n"
SUCCEEDING: Final[dict[str, Talk]] = {
    "success": _says(_plain()),
    "SUCCESS and a line end": _says(_plain(b"SUCCESS\n")),
    "500, then success": _says(_plain(b"", b"500 No"), _plain()),
    "429 with a huge Retry-After, then success": _says(_plain(b"", b"429 Slow", b"Retry-After: 999999999"), _plain()),
    "closed within the body, then success": _says(OK + b"Content-Length: 100\r\n\r\nsuccess", _plain()),
    "200 without the word, then success": _says(_plain(b"ok"), _plain(b'{"msg":"success"}')),
}
"""What is delivered within three sends."""
FAILING: Final[dict[str, Talk]] = {
    "silence": _drips(b"", b"", 30),
    "1 byte a second of status": _drips(b"HTTP/1.1 200 O", b"K"),
    "1 byte a second of header": _drips(OK + b"X: ", b"x"),
    "1 byte a second of body": _drips(OK + b"Content-Length: 9999\r\n\r\n", b"s"),
    "10 GB of body": _floods(OK + b"Content-Length: %d\r\n\r\n" % BYTES_MAX),
    "10 GB of header": _floods(OK + b"X: "),
    "chunks without end": _drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"y" * 0x4000 + b"\r\n", 0),
    "a gzip bomb": _says(_plain(gzip.compress(b"success" * 1_000_000), b"200 OK", b"Content-Encoding: gzip")),
    "many headers": _says(OK + b"".join(b"X-%d: 1\r\n" % n for n in range(5_000)) + b"\r\n"),
    "HTTP/0.9": _says(b"success"),
    "no HTTP": _says(b"\x00\xff\r\n\r\n"),
    "closed at once": _says(b""),
    "200 without the word": _says(_plain(b"ok")),
    "200 and unsuccessful": _says(_plain(b'{"success":false,"msg":"unsuccessful"}')),
    "204": _says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "301 to itself": _says(_plain(b"success", b"301 Moved", b"Location: /")),
    "302 to a metadata address": _says(_plain(b"success", b"302 Found", b"Location: " + METADATA.encode())),
    "307 to a metadata address": _says(_plain(b"success", b"307 Temporary Redirect", b"Location: " + METADATA.encode())),
    "308 to a metadata address by name": _says(_plain(b"success", b"308 Permanent", b"Location: http://metadata.google.internal/")),
    "410": _says(_plain(b"success", b"410 Gone")),
    "two lengths": _says(OK + b"Content-Length: 7\r\nContent-Length: 8\r\n\r\nsuccess!"),
    "100 without end": _drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
}
"""What is never delivered while it lasts."""


@dataclass(slots=True)
class Arrival:
    """One POST as it came."""

    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Endpoint:
    """One receiver on loopback. `mended` makes it a good one."""

    name: str
    talk: Talk
    port: int = 0
    mended: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    connections: int = 0
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)
    """Requests under way, by path."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        self.connections += 1
        path = ""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.arrivals.append(Arrival(headers, body))
                path = head.split(" ")[1]
                self.at_once[path] += 1
                self.most_at_once[path] = max(self.most_at_once[path], self.at_once[path])
                await (_says(_plain()) if self.mended else self.talk)(writer, len(self.arrivals) - 1)
        finally:
            self.at_once[path] -= 1
            writer.close()


@contextlib.asynccontextmanager
async def endpoints(talks: dict[str, Talk], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[dict[str, Endpoint]]:
    """A receiver for each, on ports of their own. What still talks at the end is ended."""
    made = {name: Endpoint(name, talk) for name, talk in talks.items()}
    servers, tasks = [], set[asyncio.Task[None]]()
    for endpoint in made.values():

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: Endpoint = endpoint) -> None:
            task = asyncio.create_task(endpoint.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        endpoint.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------------------------------------------- where nobody may go

Addresses = Sequence[str]


@dataclass(frozen=True, slots=True)
class Lure:
    """A URL ({port} is the trap's), and what its name resolves to, one answer a question; the last one for ever."""

    name: str
    url: str
    answers: tuple[Addresses, ...] = ((),)


def lures() -> Iterator[Lure]:
    """Ways to make a gateway talk to its own house."""
    yield Lure("a name for loopback", "https://shop.example:{port}/", (("127.0.0.1", "::1"),))
    yield Lure("rebinding, one answer each", "https://shop.example:{port}/", (("198.18.0.1",), ("127.0.0.1",)))
    yield Lure("rebinding after a public answer", "https://shop.example:{port}/", (("1.1.1.1",), ("127.0.0.1",)))
    yield Lure("rebinding back", "https://shop.example:{port}/", (("127.0.0.1",), ("1.1.1.1",)))
    yield Lure("a public answer among others", "https://shop.example:{port}/", (("127.0.0.1", "1.1.1.1", "::1", "169.254.169.254"),))
    for name, address in {
        "private": "10.0.0.1", "private 172": "172.16.0.1", "private 192": "192.168.1.1", "shared": "100.64.0.1", "metadata": "169.254.169.254",
        "metadata of another cloud": "100.100.100.200", "metadata in IPv6": "fd00:ec2::254", "mapped": "::ffff:127.0.0.1", "mapped metadata": "::ffff:169.254.169.254",
        "compatible": "::127.0.0.1", "NAT64": "64:ff9b::7f00:1", "NAT64 local": "64:ff9b:1::7f00:1", "6to4": "2002:7f00:1::1", "Teredo": "2001:0:7f00:1::1", "scoped": "fe80::1%lo",
        "unique local": "fc00::1", "multicast": "224.0.0.1", "multicast in IPv6": "ff02::1", "broadcast": "255.255.255.255", "this network": "0.0.0.0", "unspecified": "::",  # noqa: S104
        "documentation": "192.0.2.1", "documentation in IPv6": "2001:db8::1", "benchmark": "198.18.0.1", "discard": "100::1", "reserved": "240.0.0.1", "6to4 relay": "192.88.99.1",
    }.items():  # fmt: skip
        yield Lure(f"a name for {name}", "https://shop.example:{port}/", ((address,),))
    for host in (
        "127.0.0.1", "localhost", "localhost.", "LOCALHOST", "a.localhost", "[::1]", "[::]", "0.0.0.0", "0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.1", "2130706433", "0x7f000001",  # noqa: S104
        "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "[fe80::1%25lo]", "[64:ff9b::7f00:1]", "169.254.169.254", "metadata.google.internal", "127.0.0.1.nip.io", "①②⑦.0.0.1", "127。0。0。1",
        "127.0.0.1%00.shop.example", "shop.example@127.0.0.1", "shop.example:443@127.0.0.1", "127.0.0.1#@shop.example", "127.0.0.1\\@shop.example",
    ):  # fmt: skip
        yield Lure(f"the host {host}", f"https://{host}:{{port}}/", (("127.0.0.1",),))
        yield Lure(f"the host {host} without TLS", f"http://{host}:{{port}}/", (("127.0.0.1",),))
    for url in ("https://shop.example:{port}/\r\nX: y", "https://shop.example\r\nHost: 127.0.0.1:{port}/", "https://shop.example:{port}/ HTTP/1.1\r\n\r\n", "gopher://127.0.0.1:{port}/", "file:///etc/passwd",
                "unix:///run/x", "//127.0.0.1:{port}/", "https:127.0.0.1:{port}", "https:///127.0.0.1:{port}/", "HTTPS://127.0.0.1:{port}/", "https://127.0.0.1:{port}/?@1.1.1.1", "ftp://127.0.0.1:{port}/"):  # fmt: skip
        yield Lure(f"the URL {url!r}", url, (("127.0.0.1",),))
    yield Lure("a name that is not there", "https://nowhere.example:{port}/", ((),))


def family(address: str) -> int:
    """As a resolver tells it."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# ------------------------------------------------------------------------------------------------------------- certificates


def tls_context(folder: Path, name: str, *, days_left: int = 1, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Of a server with a self-signed certificate for this name, over with negative days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    over = datetime.now(UTC) + timedelta(days=days_left)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(over - timedelta(days=9))
        .not_valid_after(over)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}-{days_left}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that it is old is the point
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    return context
