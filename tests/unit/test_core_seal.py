"""The exact text that a seal is over: orders that were sealed by an older version must still carry the right one."""

import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.intent import Payment
from penstock.core.seal import OrderSeal

KEY = bytes(range(32))
TEXTS = st.text(st.one_of(st.sampled_from('ab"\\/ ~\x1f\x7f\x80é\ud800\udfff😀'), st.characters(exclude_categories=[])), max_size=8)


def of(recipient="0xabc", memo="", key="1/order-1", chain="ETH", token_id="usdt"):
    return OrderSeal(KEY).of(Payment(7, recipient, memo, 25 * 10**18, key=key), chain=chain, token_id=token_id)


def as_first_written(recipient, memo, key, chain, token_id):
    said = ["penstock order seal 1", 7, key, chain, token_id, recipient, memo, 25 * 10**18]
    return hmac.digest(KEY, json.dumps(said, separators=(",", ":")).encode(), "sha256").hex()


@pytest.mark.parametrize(
    ("key", "memo", "seal"),
    [
        ("1/order-1", "", "a665bb27971e66d310f7d953c345f744ed4e509252da747e67ad786bfb007fee"),
        ("1/Zürich ¥ 🪙", "573049", "2bc616e8da48f4cc7e8a2fd3d692aa78487e30024f0d81a1b86093c06bf75ea5"),
        ('1/"\\/\x7f\x1f', "", "47ebf8fe4c3c63e92a9f6340dc40bf25d7976b5a728f165e2edf998dc0b5788c"),
    ],
)
def test_a_seal_of_the_first_version_is_the_seal_of_today(key, memo, seal):
    assert of(key=key, memo=memo) == seal


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
def test_any_texts_are_sealed_as_the_first_version_sealed_them(recipient, memo, key, chain, token_id):
    """Lone surrogates too: whoever checks a row must get an answer, whatever somebody wrote into it."""
    assert of(recipient, memo, key, chain, token_id) == as_first_written(recipient, memo, key, chain, token_id)


def test_every_character_there_is_is_sealed_as_the_first_version_sealed_it():
    for block in range(0, 0x110000, 256):
        text = "".join(map(chr, range(block, block + 256)))
        assert of(key=text) == as_first_written("0xabc", "", text, "ETH", "usdt")
    for point in range(256):
        assert of(key=chr(point)) == as_first_written("0xabc", "", chr(point), "ETH", "usdt")
