"""Nodes are asked in order, believed within bounds, and never named by their address."""

import asyncio
import json

import pytest

from penstock.rails.base import NodeUnreachable, WrongNetwork
from penstock.rails.rpc import (
    CALLS_MAX,
    BadAnswer,
    Call,
    Fault,
    NodeRefused,
    clean,
    hash32,
    quantity,
)
from penstock.together import Together
from tests.fixtures.scripted import Error, ManualRuntime, ScriptedNode, block_hash, network_of, nodes_of

HEAD = Call("eth_blockNumber")


def number(answer):
    return quantity(answer, 53)


def made(*scripted, runtime=None, **options):
    for node in scripted:
        node.eth_blockNumber = lambda node=node: hex(node.head)
    network = network_of(scripted)
    return nodes_of(network.urls, network.post, runtime or ManualRuntime(), **options)


def read(nodes, call=HEAD, check=number):
    return asyncio.run(nodes.read(call, check))


@pytest.mark.parametrize(("text", "bits", "value"), [("0x0", 1, 0), ("0x00", 8, 0), ("0xff", 8, 255), ("0xFF", 8, 255), ("0x1", 1, 1)])
def test_a_quantity_is_a_hexadecimal_number(text, bits, value):
    assert quantity(text, bits) == value


@pytest.mark.parametrize(
    "value", ["", "0x", "1", 1, 1.0, None, True, "0xg", "0x-1", " 0x1", "0x1\n", "0x1_0", "0x\uff11", "0x" + "1" * 65, "0x100", [], {}]
)
def test_what_is_no_quantity_or_too_large_is_refused(value):
    with pytest.raises(BadAnswer):
        quantity(value, 8)


@pytest.mark.parametrize("value", ["0x" + "1" * 63, "0x" + "1" * 65, "1" * 64, None, "0x" + "g" * 64, "0x" + "1" * 64 + "\n"])
def test_what_is_no_hash_is_refused(value):
    with pytest.raises(BadAnswer):
        hash32(value)


def test_reads_go_to_the_first_node_and_over_to_the_next():
    one, two = ScriptedNode(), ScriptedNode()
    two.head = 200
    nodes = made(one, two)
    assert read(nodes) == 100
    one.down = "refused"
    assert read(nodes) == 200
    assert [node.name for node in nodes.healthy()] == ["node 2 of 2"]
    assert nodes.faults() == ["node 1 of 2: refused"]


def test_a_bad_node_is_remembered_shortly_and_longer_each_time():
    one, two, runtime = ScriptedNode(), ScriptedNode(), ManualRuntime()
    nodes = made(one, two, runtime=runtime)
    one.down = "refused"
    pauses = []
    for _ in range(5):
        read(nodes)
        before, posts = runtime.seconds, one.posts
        while one.posts == posts:
            runtime.seconds += 0.5
            read(nodes)
        pauses.append(runtime.seconds - before)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1, 15)
    one.down = ""
    runtime.seconds += 20
    assert read(nodes) == 100
    assert nodes.faults() == []


def test_a_bad_node_is_better_than_none():
    one = ScriptedNode()
    nodes = made(one)
    one.down = "refused"
    with pytest.raises(NodeUnreachable, match="node 1 of 1"):
        read(nodes)
    one.down = ""
    assert read(nodes) == 100


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"),
        (401, b"SECRETKEY1 is not allowed"),
        (302, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b"1" * 5000),
        (200, b"[" * 100_000),
        (200, b'["]]]",' * 100_000),
        (200, b'["\\"]]",' * 100_000),
        (200, ("[" * 100_000).encode("utf-16")),
        (200, b"\xff\xfe"),
        (200, b'{"id": 2, "result": "0x1"}'),
        (200, b'{"id": [], "result": "0x1"}'),
        (200, b'{"id": 1}'),
        (200, b'{"id": 1, "result": 5}'),
        (200, b'{"id": 1, "result": "0xfffffffffffffffff"}'),
        (200, b'{"id": 1, "error": {"code": -1, "message": "no"}}'),
        (200, b'{"id": 1, "error": "no"}'),
    ],
)
def test_an_unusable_answer_goes_over_to_the_next_node(answer):
    two = ScriptedNode()
    two.eth_blockNumber = lambda: "0x64"
    network = network_of([ScriptedNode(), two])

    async def post(url, body, timeout_s, **_):
        if url == network.urls[0] and b"eth_blockNumber" in body:
            return answer
        return await network.post(url, body, timeout_s)

    assert read(nodes_of(network.urls, post, ManualRuntime())) == 100
    with pytest.raises(NodeUnreachable) as caught:
        read(nodes_of(network.urls[:1], post, ManualRuntime()))
    assert "SECRET" not in str(caught.value)
    assert "example" not in str(caught.value)


def test_many_brackets_that_are_not_deep_are_fine():
    node = ScriptedNode()
    node.answers["eth_call"] = [["[[[{{{"] * 50] * 2_000
    assert len(read(made(node), Call("eth_call"), list)) == 2_000


def test_an_error_is_told_from_silence():
    one, two = ScriptedNode(), ScriptedNode()
    nodes = made(one, two)
    one.answers["eth_call"] = two.answers["eth_call"] = Error("execution reverted: no", 3)
    with pytest.raises(NodeRefused, match="node 2 of 2 refused eth_call: execution reverted"):
        read(nodes, Call("eth_call", ({}, "latest")))
    two.down = "timeout"
    with pytest.raises(NodeUnreachable):
        read(nodes, Call("eth_call", ({}, "latest")))


def test_a_node_of_another_network_is_never_used():
    wrong, right, runtime = ScriptedNode(chain_id=1), ScriptedNode(), ManualRuntime()
    wrong.head = 999
    nodes = made(wrong, right, runtime=runtime)
    for _ in range(5):
        assert read(nodes) == 100
        runtime.seconds += 30
    assert {method for method, _ in wrong.calls} == {"eth_chainId"}
    assert nodes.faults() == ["node 1 of 2: it serves chain id 1, and 31337 is configured"]
    with pytest.raises(WrongNetwork, match="chain id 1, and 31337"):
        read(made(wrong))


def test_the_pinned_first_block_is_checked_too():
    node = ScriptedNode()
    assert read(made(node, genesis=block_hash(0))) == 100
    node.fork = 7
    with pytest.raises(WrongNetwork, match="its first block is"):
        read(made(node, genesis=block_hash(0)))


def test_the_network_is_checked_again_after_a_minute_and_after_an_error():
    node, runtime = ScriptedNode(), ManualRuntime()
    nodes = made(node, runtime=runtime)
    read(nodes)
    node.chain_id = 5
    assert read(nodes) == 100
    runtime.seconds += 61
    with pytest.raises(WrongNetwork):
        read(nodes)
    node.chain_id = 31337
    runtime.seconds += 61
    assert read(nodes) == 100
    node.chain_id, node.down = 5, "reset"
    with pytest.raises(NodeUnreachable):
        read(nodes)
    node.down = ""
    with pytest.raises(WrongNetwork):
        read(nodes)


@pytest.mark.parametrize("answer", [Error("starting up"), "0x", None, "0x" + "f" * 65])
def test_a_node_that_does_not_say_which_network_it_serves_is_not_used(answer):
    node = ScriptedNode()
    node.answers["eth_chainId"] = answer
    with pytest.raises(NodeUnreachable, match="did not say which network"):
        read(made(node))


@pytest.mark.parametrize("takes_batches", [True, False])
def test_many_calls_are_answered_in_their_order(takes_batches):
    node = ScriptedNode()
    node.takes_batches = takes_batches
    nodes = made(node)
    node.answers["eth_getTransactionCount"] = lambda params: Error("odd") if int(params[0], 16) % 2 else params[0]

    async def ask():
        await nodes.read(HEAD, number)
        posts = node.posts
        (only,) = nodes.usable()
        return await nodes.ask(only, [Call("eth_getTransactionCount", (hex(n), "latest")) for n in range(120)]), node.posts - posts

    answers, posts = asyncio.run(ask())
    assert answers == [Fault(-32000, "odd") if n % 2 else hex(n) for n in range(120)]
    assert posts == (3 if takes_batches else 121)


@pytest.mark.parametrize(
    ("sizes", "requests"),
    [
        ([1] * 50, [50]),
        ([1] * 51, [50, 1]),
        ([25, 25, 1], [2, 1]),
        ([26, 25, 1], [1, 2]),
        ([1, 50, 1], [1, 1, 1]),
        ([51, 1, 1], [1, 2]),
        ([1, 400, 400, 49, 1, 1], [1, 1, 1, 2, 1]),
        ([26] * 100, [1] * 100),
    ],
)
def test_calls_with_long_answers_go_in_smaller_requests_in_their_order(sizes, requests):
    """What is too long for any company goes alone."""
    node, sent = ScriptedNode(), []
    node.answers["eth_getTransactionReceipt"] = lambda params: params[0]
    network = network_of([node])

    async def post(url, body, timeout_s, **_):
        said = json.loads(body)
        sent.append([int(call["params"][0], 16) for call in (said if isinstance(said, list) else [said]) if call["params"]])
        return await network.post(url, body, timeout_s)

    nodes = nodes_of(network.urls, post, ManualRuntime())
    calls = [Call("eth_getTransactionReceipt", (hex(n),), size=size) for n, size in enumerate(sizes)]
    answers = asyncio.run(nodes.read_many(calls, [number] * len(calls)))
    assert answers == list(range(len(sizes)))
    assert sent[0] == []  # who it is
    assert [len(part) for part in sent[1:]] == requests
    assert [n for part in sent for n in part] == answers
    assert all(len(part) == 1 or sum(sizes[n] for n in part) <= CALLS_MAX for part in sent)


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items[:1],
        lambda items: [*items, items[0]],
        lambda items: [items[0], items[0]],
        lambda items: [items[0] | {"id": []}, items[1]],
        lambda items: [items[0] | {"id": True}, items[1]],
        lambda _: "two",
        lambda _: [1, 2],
    ],
)
def test_a_batch_answered_with_something_else_is_no_answer(change):
    network = network_of([ScriptedNode()])

    async def post(url, body, timeout_s, **_):
        status, content = await network.post(url, body, timeout_s)
        said = json.loads(content)
        return status, json.dumps(change(said) if isinstance(said, list) else said).encode()

    nodes = nodes_of(network.urls, post, ManualRuntime())
    with pytest.raises(NodeUnreachable, match="a batch of 2 calls"):
        asyncio.run(nodes.read_many([Call("eth_chainId")] * 2, [number] * 2))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/v3/0123456789abcdef",
        "https://user:0123456789abcdef@example.org/",
        "https://example.org/rpc?key=0123456789abcdef",
    ],
)
def test_a_nodes_words_carry_no_address_and_no_key(url):
    words = clean(f"key 0123456789abcdef has no rights at {url}, see wss://x.example/y \n\x1b[31m" + "z" * 500, url)
    assert "0123456789abcdef" not in words
    assert "example" not in words
    assert words.isprintable()
    assert len(words) <= 160


def test_a_node_prints_without_its_address():
    assert "SECRET" not in repr(made(ScriptedNode()).usable())


# Together


def test_those_who_come_together_go_together_and_get_their_own():
    batches = []

    async def work(items):
        batches.append(items)
        await asyncio.sleep(0)
        return [NodeUnreachable("seven") if item == 7 else item * 10 for item in items]

    async def main():
        together = Together(ManualRuntime(), work, name="test", most=10, broken=NodeUnreachable)
        return await asyncio.gather(*(together(n) for n in range(25)), return_exceptions=True)

    results = asyncio.run(main())
    assert str(results[7]) == "seven"
    assert [r for n, r in enumerate(results) if n != 7] == [n * 10 for n in range(25) if n != 7]
    assert batches == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


def test_nobody_waits_for_ever_when_the_work_breaks():
    async def work(items):
        raise KeyError(items)

    async def main():
        together = Together(ManualRuntime(), work, name="test", most=1, broken=NodeUnreachable)
        results = await asyncio.gather(together(1), together(2), return_exceptions=True)
        return [*results, await asyncio.gather(together(3), return_exceptions=True)]

    one, two, (three,) = asyncio.run(main())
    assert str(one) == str(two) == str(three) == "test broke off"
