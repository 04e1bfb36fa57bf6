"""The intent goes to text and back unchanged, and the same intent is the same bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.core.intent import Intent, Payment

texts = st.text(max_size=40)
ids = st.integers(0, (1 << 63) - 1)
units = st.integers(0, 10**78)
payments = st.builds(Payment, order_id=ids, recipient=texts, memo=texts, units=units)
intents = st.builds(
    Intent,
    attempt_id=ids,
    version=st.integers(1, 20),
    kind=st.sampled_from(["pay", "cancel"]),
    chain=texts,
    family=texts,
    chain_id=st.integers(0, 1 << 64),
    sender=texts,
    slot=st.integers(0, 1 << 64),
    token_id=texts,
    contract=st.one_of(st.none(), texts),
    payments=st.lists(payments, max_size=5).map(tuple),
    terms=st.dictionaries(texts, units, max_size=5),
    fee_cap=units,
)

INTENT = Intent(1, 1, "pay", "ETH", "evm", 1, "0xa", 0, "t", None, (Payment(5, "0xb", "", 10**19),), {"gas_limit": 21_000}, 10**16)
TEXT = INTENT.to_json()


@given(intents)
def test_an_intent_goes_to_text_and_back(intent):
    assert Intent.from_json(intent.to_json()) == intent


@pytest.mark.parametrize(
    "text", ["", "7", "{}", TEXT[:-1], TEXT.replace('"slot":0', '"slot":"0"'), TEXT.replace('"slot":0', '"more":1,"slot":0')]
)
def test_a_text_that_is_no_intent_or_one_of_a_later_version_is_refused(text):
    assert Intent.from_json(TEXT) == INTENT
    with pytest.raises(ValueError, match=r"."):
        Intent.from_json(text)


@given(intents)
def test_the_same_intent_is_the_same_bytes_in_whatever_order_its_terms_were_written(intent):
    again = replace(intent, terms=dict(reversed(list(intent.terms.items()))))
    assert again.to_json() == intent.to_json()


@given(intents)
def test_it_holds_plain_values_alone(intent):
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return value is None or (isinstance(value, int | str) and not isinstance(value, bool))

    assert plain(json.loads(intent.to_json()))


def test_any_other_value_is_another_text():
    changes = {"attempt_id": 2, "version": 2, "kind": "cancel", "chain_id": 5, "sender": "0xc", "slot": 1, "contract": "0xd", "fee_cap": 1}
    changes |= {"payments": (Payment(5, "0xb", "", 10**19 + 1),), "terms": {"gas_limit": 21_001}, "token_id": "u"}
    texts = {replace(INTENT, **{name: value}).to_json() for name, value in changes.items()}
    assert len(texts | {TEXT}) == len(changes) + 1
