"""Which URLs and addresses a webhook may go to: the nasty ways to write an address that is inside the house."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.webhooks import targets
from penstock.webhooks.targets import Reach, canonical, check_url, judge, system_lookup

OUTSIDE = Reach(public=True, private=False)
ANYWHERE = Reach(public=True, private=True)
HOUSE_ONLY = Reach(public=False, private=True)

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "100.63.255.255",
    "100.128.0.0",
    "172.32.0.1",
    "223.255.255.254",
    "2606:4700:4700::1111",
    "2a00::1",
]
INSIDE = [
    "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.1.1", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "::", "::127.0.0.1", "::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:db8::1", "2002:a9fe:a9fe::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fec0::1", "ff02::1", "ff0e::1",
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_ours(monkeypatch):
    monkeypatch.setattr(targets, "_is_ours", lambda _: False)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text):
    assert judge(canonical(text), OUTSIDE) is None
    assert judge(canonical(text), ANYWHERE) is None
    assert "use https" in judge(canonical(text), HOUSE_ONLY)


@pytest.mark.parametrize("text", INSIDE)
def test_addresses_inside_a_house(text):
    assert "not a public address" in judge(canonical(text), OUTSIDE)
    assert judge(canonical(text), ANYWHERE) is None
    assert judge(canonical(text), HOUSE_ONLY) is None


@pytest.mark.parametrize("text", NEVER)
def test_addresses_that_are_never_a_target(text):
    for reach in (OUTSIDE, ANYWHERE, HOUSE_ONLY):
        assert judge(canonical(text), reach) is not None


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_that_is_not_global_passes_and_mapped_is_judged_as_what_it_maps(address):
    passed = judge(canonical(str(address)), OUTSIDE) is None
    if passed:
        assert canonical(str(address)).is_global
    if address.version == 4:
        assert passed == (judge(canonical(f"::ffff:{address}"), OUTSIDE) is None)
        embedded = int(address)
        for carrier in (embedded, 0x64FF9B << 96 | embedded, 0x2002 << 112 | embedded << 80, 0x20010000 << 96 | embedded):
            assert judge(canonical(str(ipaddress.IPv6Address(carrier))), OUTSIDE) is not None


def test_every_bound_of_the_deny_list_is_denied():
    for network in targets.DENIED:
        for address in (network[0], network[-1]):
            assert judge(canonical(str(address)), OUTSIDE) is not None, address


def test_an_address_of_this_machine_is_no_target(monkeypatch):
    monkeypatch.setattr(targets, "_is_ours", lambda address: str(address) == "1.1.1.1")
    assert "own address" in judge(canonical("1.1.1.1"), OUTSIDE)
    assert judge(canonical("8.8.8.8"), OUTSIDE) is None
    assert judge(canonical("1.1.1.1"), ANYWHERE) is None


def test_own_addresses_are_told_by_what_can_be_bound(monkeypatch):
    monkeypatch.undo()
    assert targets._is_ours(ipaddress.ip_address("127.0.0.1"))
    assert not targets._is_ours(ipaddress.ip_address("8.8.8.8"))
    monkeypatch.setattr(targets, "_can_bind", lambda *_: True)
    assert not targets._is_ours(ipaddress.ip_address("8.8.8.8"))


GOOD = [
    "https://shop.example/webhook",
    "HTTPS://Shop.Example",
    "https://shop.example:8443/a?b=c&d=%20",
    "https://xn--bcher-kva.example/",
    "https://a_b.example./x",
    "https://1.1.1.1/hook",
    "https://[2606:4700:4700::1111]:443/hook",
    "https://127.0.0.1.nip.example/",
]


@pytest.mark.parametrize("url", GOOD)
def test_good_urls(url):
    assert check_url(url, allow_private=False) is None
    assert check_url(url, allow_private=True) is None


BAD = {
    "": "begin with https://",
    "ftp://shop.example/": "begin with https://",
    "file:///etc/passwd": "begin with https://",
    "//shop.example": "begin with https://",
    "https://": "begin with https://",
    "https:///x": "no host",
    "https://shop.example/a b": "without spaces",
    "https://shop.example/\r\nHost: x": "without spaces",
    "https://shop.example/\x00": "plain ASCII",
    "https://bücher.example/": "plain ASCII",
    "https://①②⑦.⓪.⓪.①/": "plain ASCII",
    "https://shop.example\\@127.0.0.1/": "plain ASCII",
    "https://user@shop.example/": "user name",
    "https://user:pass@shop.example/": "user name",
    "https://@shop.example/": "user name",
    "https://shop.example/#x": "fragment",
    "https://shop.example/#": "fragment",
    "https://shop.example:0/": "port 0",
    "https://shop.example:99999/": "malformed",
    "https://shop.example:x/": "malformed",
    "https://[::1/": "malformed",
    "https://[2606:4700::1]shop.example/": "malformed",
    "https://[::ffff:0:127.0.0.1]/": "not a public address",
    "https://[fe80::1%25eth0]/": "no host",
    "https://0x7f.1/": "usual form",
    "https://0x7f.0.0.0x1/": "usual form",
    "https://2130706433/": "usual form",
    "https://127.1/": "usual form",
    "https://0177.0.0.1/": "usual form",
    "https://127.0.0.1.:443/": "usual form",
    "https://017700000001/": "usual form",
    "https://1.1.1.0x1/": "usual form",
    "https://sh%6fp.example/": "no host",
    "https://-a.example/": "not a valid name",
    "https://a..example/": "not a valid name",
    "https://a!b.example/": "not a valid name",
    "https://" + "a" * 64 + ".example/": "not a valid name",
    "https://" + "a." * 130 + "example/": "not a valid name",
    "https://shop.example/" + "x" * 2048: "longer than",
    "https://169.254.169.254/latest": "metadata",
    "https://0.0.0.0/": "not a public address",
    "https://[64:ff9b::7f00:1]/": "not a public address",
    "https://[::ffff:169.254.169.254]/": "metadata",
    "http://1.1.1.1/": "https",
}


@pytest.mark.parametrize(("url", "why"), BAD.items())
def test_bad_urls_whatever_is_allowed(url, why):
    assert why in check_url(url, allow_private=False)
    assert check_url(url, allow_private=True) is not None


HOME = [
    "http://127.0.0.1:9000/webhook",
    "http://localhost/webhook",
    "http://shop.test:80/",
    "https://127.0.0.1/",
    "https://10.1.2.3:25/",
    "http://[::1]:9000/",
    "http://[::ffff:127.0.0.1]:9000/",
    "https://printer.local/",
    "https://localhost./",
    "http://192.168.1.5/",
]


@pytest.mark.parametrize("url", HOME)
def test_urls_that_need_allow_private_targets(url):
    assert check_url(url, allow_private=True) is None
    assert check_url(url, allow_private=False) is not None


def test_low_ports_are_no_place_for_a_webhook():
    assert "port 25" in check_url("https://shop.example:25/", allow_private=False)
    assert check_url("https://shop.example:1024/", allow_private=False) is None


@given(st.text(max_size=60))
def test_no_text_makes_it_fail(text):
    for url in (text, f"https://{text}", f"http://{text}/x", f"https://[{text}]/"):
        assert check_url(url, allow_private=False) is None or isinstance(check_url(url, allow_private=False), str)


@pytest.mark.parametrize("text", ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "localhost"])
def test_whatever_the_system_makes_of_a_text_the_result_is_judged(text):
    try:
        found = system_lookup(text, 443)
    except socket.gaierror:
        return
    assert found
    assert all(judge(canonical(address), OUTSIDE) is not None for _, address in found)
