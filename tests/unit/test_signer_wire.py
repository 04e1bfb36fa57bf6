"""What travels over the signer's socket: the same intents on both sides, nothing else taken for a request, and no stranger answered."""

import asyncio
import contextlib
import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs, to_builtins

from penstock.core.intent import Death, Resource, Signed
from penstock.runtime import SystemRuntime
from penstock.signer import wire
from penstock.signer.server import SignerServer
from tests.unit.test_signer import pay

INTENT = pay(resources=(Resource("a" * 64 + ":1", 7),))


def over(value):
    """As it comes out on the other side."""
    return wire.request_of(wire.framed(value)[4:])


def test_intents_deaths_and_signatures_come_out_as_they_went_in():
    intents = [INTENT, structs.replace(INTENT, contract=None, fee_cap=10**77)]
    (batch,) = wire.batches(intents)
    assert wire.intents_of(over({"x": batch})["x"]) == intents
    assert wire.intents_of(over({"op": "sign", "intents": batch})["intents"]) == intents
    deaths = [Death(7, 'proof "é" \U0001f600')]
    (batch,) = wire.batches(deaths)
    assert wire.deaths_of(over({"x": batch})["x"]) == deaths
    signed = Signed(1, 2, "0xab", b"\0\xff")
    assert wire.signed_of(wire.answer_of(wire.framed({"ok": [wire.shown(signed)]})[4:]).ok) == [signed]


def test_what_is_too_much_for_one_frame_goes_in_several_in_order():
    long = [structs.replace(INTENT, attempt_id=n, sender="x" * 300_000) for n in range(8)]
    batches = [[json.loads(bytes(item))["attempt_id"] for item in batch] for batch in wire.batches(long)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [len(batch) for batch in wire.batches([Death(n, "") for n in range(2_500)])] == [1_000, 1_000, 500]
    with pytest.raises(wire.Malformed, match="at most"):
        wire.framed({"x": "x" * wire.FRAME_BYTES_MAX})


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_the_bytes_are_they_are_an_object_or_malformed(body):
    with contextlib.suppress(wire.Malformed):
        assert isinstance(wire.request_of(body), dict)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":' + b"9" * 80 + b"}",
        b'{"a":"\\ud800"}',
        b'{"a":1}{}',
        b'\xef\xbb\xbf{"a":1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":[[[[[[[[1]]]]]]]]}',
        b"7",
    ],
)
def test_loose_json_is_malformed(body):
    with pytest.raises(wire.Malformed):
        wire.request_of(body)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("`$[0]`", {"raw": "00"}),
        ("`$[0]`", {"a name - at will": "00"}),
        ("`$[0].attempt_id`", {"attempt_id": True}),
        ("`$[0].slot`", {"slot": "0"}),
        ("`$[0].slot`", {"slot": 1.0}),
        ("`$[0].chain`", {"chain": 1}),
        ("`$[0].kind`", {"kind": "drain"}),
        ("`$[0].contract`", {"contract": 1}),
        ("`$[0].terms[...]`", {"terms": {"gas": "1"}}),
        ("`$[0].terms`", {"terms": []}),
        ("`$[0].payments`", {"payments": {}}),
        ("`$[0].payments[0]`", {"payments": [{"order_id": 1}]}),
        ("`$[0].payments[0].units`", {"payments": [to_builtins(INTENT.payments[0]) | {"units": False}]}),
        ("`$[0].payments[0].seal`", {"payments": [to_builtins(INTENT.payments[0]) | {"seal": None}]}),
        ("`$[0].resources[0].name`", {"resources": [{"name": 1, "units": 1}]}),
    ],
)
def test_an_intent_of_wrong_kinds_is_malformed_and_says_where_alone(place, change):
    with pytest.raises(wire.Malformed) as caught:
        wire.intents_of([to_builtins(INTENT) | change])
    assert str(caught.value) == f"intents have other fields or kinds of values than they must, at {place}"


@pytest.mark.parametrize(
    "value", [None, {}, [1], [INTENT, None], [to_builtins(INTENT)] * (wire.RECORDS_MAX + 1), [to_builtins(INTENT) | {"slot": 10**78}]]
)
def test_what_is_no_list_of_intents_is_malformed(value):
    with pytest.raises(wire.Malformed):
        wire.intents_of(value)


@pytest.mark.parametrize("name", ["resources", "weight", "key", "seal"])
def test_what_old_journals_may_lack_is_left_out_of_no_request(name):
    record = to_builtins(INTENT)
    without = [{key: value for key, value in it.items() if key != name} for it in (record, *record["payments"])]
    with pytest.raises(wire.Malformed, match="all their fields"):
        wire.intents_of([without[0] | {"payments": without[1:]}])


BODY = wire.framed({"op": "sign", "intents": [INTENT, structs.replace(INTENT, contract=None, fee_cap=10**78 - 1)]})[4:]


def read(road, body):
    try:
        request = road(body)
        return request.keys(), request.get("op"), wire.intents_of(request.get("intents"))
    except wire.Malformed as error:
        return str(error)


def test_more_intents_than_a_request_may_have_are_refused_on_either_way():
    few, many = (wire.framed({"op": "sign", "intents": [INTENT] * count})[4:] for count in (wire.RECORDS_MAX, wire.RECORDS_MAX + 1))
    assert wire._plain(few) is not None and wire._plain(many) is None
    assert read(wire.request_of, many) == "intents must be a list of at most 1000"


def test_a_plain_request_takes_the_short_way_and_is_the_same_as_by_the_long_one():
    assert wire._plain(BODY) is not None
    assert read(wire.request_of, BODY) == read(wire._strict, BODY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"slot":0', b'"slot":0,"slot":0'),
        (b'"slot":0', b'"slot":1,"slot":0'),
        (b'"slot":0', b'"slot":0.0'),
        (b'"slot":0', b'"slot":-0'),
        (b'"slot":0', b'"slot":false'),
        (b'"slot":0', b'"slot": 0'),
        (b'"slot":0,', b""),
        (b',"weight":1', b""),
        (b'"slot":0', b'"slot":0,"more":0'),
        (b'"gas_limit":60000', b'"gas_limit":60000,"gas_limit":60000'),
        (b'"gas_limit":60000', b'"gas_limit":6e4'),
        (b'"gas_limit":60000', b'"gas_limit":' + b"9" * 79),
        (b'"units":5', b'"units":' + b"9" * 79),
        (b'"units":5', b'"units":' + b"9" * 5_000),
        (b'"units":7', b'"units":-' + b"9" * 79),
        (b'"kind":"pay"', b'"kind":"p\\u0061y"'),
        (b'"kind":"pay"', b'"kind":"drain"'),
        (b'"chain":"ETH"', b'"chain":"\\ud800"'),
        (b'"chain":"ETH"', b'"chain":"\xff"'),
        (b',"resources":[', b',"resources":[],"resources":['),
        (b'"op":"sign"', b'"op":"sign","op":"sign"'),
        (b'"op":"sign"', b'"op":"bury"'),
        (b'"intents":[', b'"intents":[{},'),
        (b'"payments":[', b'"payments":[[],'),
        (b"]}]}", b"]}]} "),
    ],
)
def test_what_is_written_in_any_other_way_takes_the_long_one(old, new):
    body = BODY.replace(old, new, 1)
    assert body != BODY
    assert wire._plain(body) is None
    assert read(wire.request_of, body) == read(wire._strict, body)


class Surprised:
    """A signer that fails as none should, with a secret in its mouth."""

    async def standing(self):
        raise RuntimeError("the seed is abandon abandon about")


def asked(server, request):
    """One request over a real pair of sockets, and all that comes back."""

    async def scenario():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        talking = asyncio.ensure_future(server.talk(reader, writer))
        our_reader, our_writer = await asyncio.open_connection(sock=ours)
        our_writer.write(b"" if request is None else wire.framed(request))
        answer = await wire.read_frame(our_reader, body_s=10)
        await wire.hang_up(our_writer)
        await talking
        return answer and json.loads(answer)

    return asyncio.run(scenario())


def test_a_user_that_may_not_ask_is_turned_away_before_it_asks():
    answer = asked(SignerServer(Surprised(), frozenset({2**31 - 5}), broken=lambda: None), None)
    assert answer["error"]["code"] == "stranger"


def test_a_surprise_is_one_constant_sentence_and_tells_nothing():
    answer = asked(SignerServer(Surprised(), frozenset({os.geteuid()}), broken=lambda: None), {"op": "standing"})
    assert answer == {"error": {"code": "internal", "text": "the signer failed at this request; its log names the kind of failure"}}


def test_where_the_sockets_queue_is_full_a_connection_waits_for_its_turn(tmp_path):
    """A crowd once made the gateway write into a connection that was none, and take its signer for gone."""

    async def scenario(listener, runtime):
        crowd = []
        with contextlib.suppress(BlockingIOError):
            while True:
                crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                crowd[-1].connect(str(tmp_path / "s"))
        waiting = runtime.spawn(wire.connected(tmp_path / "s", runtime), name="honest")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        accepted = [listener.accept()[0] for _ in crowd[:-1]]
        _, writer = await waiting
        accepted.append(listener.accept()[0])
        writer.write(b"here")
        await writer.drain()
        assert await asyncio.get_running_loop().sock_recv(accepted[-1], 4) == b"here"
        await wire.hang_up(writer)
        for each in crowd + accepted:
            each.close()

    runtime = SystemRuntime()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        asyncio.run(scenario(listener, runtime))
    runtime.close()
