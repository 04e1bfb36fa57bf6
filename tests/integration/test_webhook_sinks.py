"""Real sockets: receivers that answer, redirect, drip, flood, lie about TLS, or resolve to where nobody may go."""

import asyncio
import contextlib
import datetime as dt
import gc
import gzip
import socket
import ssl
import time

import pytest
import uvloop
from aiohttp import web

from penstock.runtime import SystemRuntime
from penstock.webhooks import line, targets
from penstock.webhooks.deliver import TargetFailed
from penstock.webhooks.targets import HttpTargets

HEADERS = {"Content-Type": "application/json; charset=utf-8", "Appid": "2023", "Timestamp": "1790000000", "Sign": "ab"}
LOOPBACK = [(socket.AF_INET, "127.0.0.1")]


@contextlib.asynccontextmanager
async def sink(talk):
    """A receiver of raw bytes: `talk(reader, writer, request)` answers. Gives its port and the requests it got."""
    got = []

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                got.append((head, await reader.readexactly(length)))
                if not await talk(writer, got):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()


def answer(*parts, keep=False):
    async def talk(writer, got):
        for part in parts:
            writer.write(part)
            await writer.drain()
        return keep

    return talk


def plain(body=b"success", status=b"200 OK", *extra):
    head = b"".join(line + b"\r\n" for line in (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *extra))
    return head + b"\r\n" + body


def run(body, **options):
    async def job():
        out = HttpTargets(runtime, **{"allow_private": True, **options})
        try:
            return await body(out)
        finally:
            await out.close()

    runtime = SystemRuntime()
    try:
        return uvloop.run(job())  # the loop of `serve`
    finally:
        runtime.close()


def post_to(talk, url="http://127.0.0.1:{}/hook", **options):
    """Reply or the reason of the failure, and what the sink got."""

    async def body(out):
        async with sink(talk) as (port, got):
            try:
                return await out.post(url.format(port), HEADERS, b'{"a":1}'), got
            except TargetFailed as error:
                return str(error), got

    return run(body, **options)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(targets, "TOTAL_S", 0.5)
    monkeypatch.setattr(targets, "CONNECT_S", 0.3)


def test_it_posts_the_very_bytes_and_headers_and_nothing_that_could_leak():
    reply, got = post_to(answer(plain(b"Success\n")))
    assert (reply.status, reply.text) == (200, "Success\n")
    head, body = got[0]
    assert body == b'{"a":1}'
    lines = {line.split(b": ")[0].lower(): line.split(b": ", 1)[1] for line in head.split(b"\r\n")[1:] if line}
    assert lines.pop(b"host").startswith(b"127.0.0.1:")
    assert lines == {name.lower().encode(): value.encode() for name, value in HEADERS.items()} | {
        b"accept": b"*/*",
        b"accept-encoding": b"identity",
        b"content-length": b"7",
        b"user-agent": b"Penstock",
    }


def test_the_connection_is_kept_for_the_next_send_and_cookies_are_not():
    ports = set()

    async def talk(writer, got):
        ports.add(writer.get_extra_info("peername")[1])
        writer.write(plain(b"success", b"200 OK", b"Set-Cookie: a=b"))
        return True

    async def body(out):
        async with sink(talk) as (port, got):
            for _ in range(3):
                await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            return got

    got = run(body)
    assert len(ports) == 1
    assert all(b"cookie" not in head.lower() for head, _ in got)


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
def test_a_redirect_is_an_answer_and_never_followed(status):
    reply, got = post_to(answer(plain(b"", status, b"Location: http://169.254.169.254/latest/meta-data")))
    assert reply.status == int(status[:3])
    assert len(got) == 1


def test_a_huge_body_is_read_to_64_kib_and_no_further():
    sent = 0

    async def talk(writer, got):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    reply, _ = post_to(talk)
    assert reply.text == "x" * 65_536
    assert sent < 16 * 1024 * 1024


def test_chunks_without_end_are_read_to_64_kib_and_no_further():
    reply, _ = post_to(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"4000\r\n" + b"y" * 0x4000 + b"\r\n"] * 64))
    assert reply.text == "y" * 65_536


def test_a_compressed_bomb_stays_folded():
    bomb = gzip.compress(b"success" * 1_000_000)
    reply, _ = post_to(answer(plain(bomb[:60_000], b"200 OK", b"Content-Encoding: gzip")))
    assert len(reply.text) <= 65_536
    assert "success" not in reply.text


READ_ALIKE = {
    "with its length": [plain()],
    "byte by byte": [bytes([byte]) for byte in plain()],
    "in chunks, with trailers": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsucc\r\n3;x=y\r\ness\r\n0\r\nX: y\r\n\r\n"],
    "until the connection ends": [b"HTTP/1.1 200 OK\r\n\r\nsucc", b"ess"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nsuccess"],
    "line ends without CR": [b"HTTP/1.1 200 OK\nContent-Length: 7\n\nsuccess"],
    "a folded header, a space before a colon": [b"HTTP/1.1 200 OK\r\nX: 1\r\n  2\r\nContent-Length : 7\r\n\r\nsuccess"],
    "a space after a chunk's size": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7  \r\nsuccess\r\n0\r\n\r\n"],
    "a coding that is none of ours": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nsuccess"],
    "a head of 20 KB in parts": [
        b"HTTP/1.1 200 OK\r\n",
        *[b"Set-Cookie: %s\r\n" % (b"c" * 4_000)] * 5,
        b"Content-Length: 7\r\n\r\nsuccess",
    ],
    "after interim answers": [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plain()],
}


@pytest.mark.parametrize("parts", READ_ALIKE.values(), ids=READ_ALIKE)
def test_an_answer_is_read_however_it_comes(parts):
    reply, got = post_to(answer(*parts))
    assert (reply.status, reply.text, len(got)) == (200, "success", 1)


def test_only_1xx_is_followed_by_another_answer():
    reply, _ = post_to(answer(b"HTTP/1.1 099 C\r\nContent-Length: 7\r\n\r\nsuccess" + plain(b"failure")))
    assert (reply.status, reply.text) == (99, "success")


NOT_KEPT = {
    "a second answer": plain() + plain(b"failure", b"500 No"),
    "a second answer that is none": plain() + b"garbage",
    "close": plain(b"success", b"200 OK", b"Connection: close"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nsuccess",
    "a body that is cut": plain(b"z" * 70_000),
}


@pytest.mark.parametrize("whole", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_connection_on_which_more_came_than_was_asked_for_is_not_used_again(whole):
    ports = []

    async def talk(writer, got):
        ports.append(writer.get_extra_info("peername")[1])
        writer.write(whole)
        return True

    async def body(out):
        async with sink(talk) as (port, _):
            return [(await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")).status for _ in range(3)]

    assert run(body) == [200] * 3
    assert len(set(ports)) == 3


def test_what_comes_unasked_closes_the_connection_and_is_nobodys_answer():
    ports = []

    async def talk(writer, got):
        ports.append(writer.get_extra_info("peername")[1])
        writer.write(plain(b"answer %d" % len(got)))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(plain(b"unasked"))
        return True

    async def body(out):
        async with sink(talk) as (port, _):
            for number in (1, 2):
                assert (await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")).text == f"answer {number}"
                await asyncio.sleep(0.1)

    run(body)
    assert len(set(ports)) == 2


def test_a_connection_that_nobody_uses_is_closed_and_one_that_the_receiver_closed_is_not_tried(monkeypatch):
    monkeypatch.setattr(targets, "KEEP_ALIVE_S", 0.2)
    ended = []

    async def body(out):
        for keep in (True, False):
            async with sink(answer(plain(), keep=keep)) as (port, got):
                await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
                (kept,) = next(iter(out._kept.values()))
                await asyncio.sleep(0.1)
                ended.append(not kept.is_open)
                await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
                await asyncio.sleep(0.5)
                assert (len(got), out._kept) == (2, {})

    run(body)
    assert ended == [False, True]


def test_nothing_of_a_strangers_answer_waits_for_pythons_collector():
    found = []

    async def body(out):
        async with sink(answer(plain(b"s" * 60_000), keep=True)) as (port, _):
            for _ in range(3):
                await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
                found.append(sum(isinstance(each, line._Reading) for each in gc.get_objects()))

    gc.collect()
    gc.disable()
    try:
        run(body)
    finally:
        gc.enable()
    assert found == [0, 0, 0]


def test_what_is_under_way_at_the_close_is_answered_and_not_kept():
    async def talk(writer, got):
        await asyncio.sleep(0.2)
        writer.write(plain())
        return True

    async def body(out):
        async with sink(talk) as (port, _):
            sending = asyncio.create_task(out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}"))
            await asyncio.sleep(0.1)
            await out.close()
            assert (await sending).status == 200
            assert (out._kept, out._sweeping) == ({}, None)

    run(body)


def test_a_send_that_is_given_up_leaves_no_answer_to_the_next(quick):
    async def talk(writer, got):
        if len(got) == 1:
            await asyncio.sleep(0.7)
        writer.write(plain(b"answer %d" % len(got)))
        return True

    async def body(out):
        async with sink(talk) as (port, _):
            with pytest.raises(TargetFailed, match=r"no answer within 0\.5 s"):
                await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            return (await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")).text

    assert run(body) == "answer 2"


def test_what_stands_in_a_url_stays_one_line_of_a_request():
    _, got = post_to(answer(plain()), 'http://127.0.0.1:{}/a/../b%20c/{{x}}?q=%2F&r="<|>')
    assert got[0][0].split(b"\r\n")[0] == b"POST /a/../b%20c/%7Bx%7D?q=%2F&r=%22%3C%7C%3E HTTP/1.1"

    async def body(out):
        for value in ("1\r\nHost: other", "1\nX: y", "1\r", "\u20ac"):
            with pytest.raises(TargetFailed, match="not one line of ASCII"):
                await out.post("http://127.0.0.1:1/", {"Appid": value}, b"{}")

    run(body)


def drip(first, byte):
    async def talk(writer, got):
        writer.write(first)
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        drip(b"HTTP/1.1 200 O", b"K"),
        drip(b"HTTP/1.1 200 OK\r\n", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"s"),
        drip(b"", b""),
    ],
    ids=["status", "header", "body", "silence"],
)
def test_a_receiver_that_drips_is_left_when_the_time_is_over(quick, talk):
    started = time.monotonic()
    reason, _ = post_to(talk)
    assert reason == "no answer within 0.5 s"
    assert time.monotonic() - started < 3


NO_HTTP = {
    "closes at once": [],
    "closes within the body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsucc"],
    "closes within the chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked \r\n\r\n64\r\nsuccess"],
    "HTTP/0.9": [b"success"],
    "a chunk's endless extension": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7;", *[b"x" * 1_000] * 40],
    "trailers without end": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nsuccess\r\n0\r\n", *[b"X: y\r\n"] * 7_000],
    "garbage": [b"\x00\xff\r\n\r\n"],
    "a long header": [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"],
    "many headers": [b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5_000)) + b"\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\nsuccess!"],
}


@pytest.mark.parametrize("parts", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_answer_is_a_failure_in_plain_words(parts):
    reason, _ = post_to(answer(*parts))
    assert isinstance(reason, str), reason
    assert reason.startswith(("no HTTP answer (", "the connection was closed"))


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def body(out):
        with pytest.raises(TargetFailed, match=r"no connection \(Connection refused\)"):
            await out.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")

    run(body)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "2130706433", "0x7f.1", "127.1", "inside.example"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_without_the_setting_loopback_is_never_connected_to(host, scheme):
    result, got = post_to(
        answer(plain()), f"{scheme}://{host}:{{}}/", allow_private=False, lookup=lambda *_: [*LOOPBACK, (socket.AF_INET6, "::1")]
    )
    assert isinstance(result, str)
    assert got == []


def test_plain_http_to_a_public_address_is_never_sent_whatever_is_allowed():
    async def body(out):
        with pytest.raises(TargetFailed, match=r"not sent: 1\.1\.1\.1 is a public address"):
            await out.post("http://shop.example/", HEADERS, b"{}")
        with pytest.raises(TargetFailed, match="public address"):
            await out.post("http://1.1.1.1/", HEADERS, b"{}")

    run(body, lookup=lambda *_: [(socket.AF_INET, "1.1.1.1")])


def test_of_many_addresses_only_those_that_may_be_are_tried(monkeypatch):
    tried = []

    def watched(reach, info):
        tried.append(info[4][0])
        raise OSError(111, "Connection refused")

    async def body(out):
        with pytest.raises(TargetFailed, match="no connection"):
            await out.post("https://shop.example/", HEADERS, b"{}")

    monkeypatch.setattr(targets, "_socket", watched)
    mixed = ["10.0.0.1", "1.1.1.1", "64:ff9b::7f00:1", "127.0.0.1"]
    run(body, allow_private=False, lookup=lambda *_: [(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in mixed])
    assert set(tried) == {"1.1.1.1"}


def sent_to_shop_example(**options):
    """The reason why nothing was sent, and what the sink got all the same."""

    async def body(out):
        async with sink(answer(plain())) as (port, got):
            with pytest.raises(TargetFailed) as failed:
                await out.post(f"https://shop.example:{port}/", HEADERS, b"{}")
            await asyncio.sleep(0.05)
            return str(failed.value), got

    return run(body, allow_private=False, **options)


def test_a_name_that_changes_its_mind_between_check_and_connect_gets_nothing(monkeypatch):
    """Rebinding: the resolver is asked once; the socket judges again should anything slip between."""
    answers = iter([LOOPBACK, [(socket.AF_INET, "1.1.1.1")]])
    assert sent_to_shop_example(lookup=lambda *_: next(answers)) == ("not sent: 127.0.0.1 is not a public address", [])

    def slipped(found, port, reach):
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port)) for family, text in found]

    monkeypatch.setattr(targets, "judged", slipped)
    assert sent_to_shop_example(lookup=lambda *_: LOOPBACK) == ("not sent: 127.0.0.1 is not a public address", [])


def test_the_peer_is_judged_before_the_first_byte(monkeypatch):
    async def elsewhere(infos, **_):
        connected = socket.create_connection(("127.0.0.1", infos[0][4][1]))
        connected.setblocking(False)
        return connected

    monkeypatch.setattr(targets, "start_connection", elsewhere)
    reason, got = sent_to_shop_example(lookup=lambda *_: [(socket.AF_INET, "1.1.1.1")])
    assert (reason, got) == ("not sent: 127.0.0.1 is not a public address", [])


def test_names_that_do_not_resolve():
    def nowhere(*_):
        raise socket.gaierror(-2, "Name or service not known")

    async def body(out):
        with pytest.raises(TargetFailed, match="its name does not resolve"):
            await out.post("https://shop.example/", HEADERS, b"{}")

    run(body, lookup=nowhere)


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    reply, got = post_to(answer(plain()))
    assert reply.status == 200
    assert len(got) == 1


def certificate(folder, name, *, expired=False):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now - dt.timedelta(days=1) if expired else now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("name", "expired", "trusted", "reason"),
    [
        ("shop.example", False, True, None),
        ("shop.example", False, False, "its certificate is not valid"),
        ("shop.example", True, True, "its certificate is not valid"),
        ("other.example", False, True, "its certificate is not valid"),
    ],
    ids=["valid", "self-signed", "expired", "wrong name"],
)
def test_tls_is_verified_against_the_name_though_we_connect_to_an_address(tmp_path, monkeypatch, name, expired, trusted, reason):
    path = certificate(tmp_path, name, expired=expired)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if trusted:
        trusting = ssl.create_default_context(cafile=path)
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)

    async def hook(request):
        assert request.host.startswith("shop.example")
        return web.Response(text="success")

    async def body(out):
        application = web.Application()
        application.router.add_post("/hook", hook)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            return (await out.post(f"https://shop.example:{port}/hook", HEADERS, b"{}")).text
        except TargetFailed as error:
            return str(error)
        finally:
            await runner.cleanup()

    assert run(body, lookup=lambda *_: LOOPBACK) == (reason or "success")


def test_https_to_what_speaks_no_tls(quick):
    reason, got = post_to(answer(plain()), "https://127.0.0.1:{}/")
    assert isinstance(reason, str)
    assert got == []
