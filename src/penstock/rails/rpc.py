"""Calls to nodes that are not believed: bounded answers, failover, and a check of who they are.

    nodes = Nodes(urls, EthereumTalk(Http(HttpPost()), chain_id=1, genesis="0xd4e5…"), runtime)
    head = await nodes.read(Call("eth_blockNumber"), lambda answer: quantity(answer, 63))
    for node in nodes.usable(): answers = await nodes.ask(node, calls)

How a family speaks is its `Talk`; `JsonRpc` is the talk that most share. A node's address may hold a key, so it is named by its place
in the list ("node 2") and what it says is cut and cleaned. https://www.jsonrpc.org/specification
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from penstock.core.nesting import is_deeper
from penstock.rails.base import NodeUnreachable, PostFailed, WrongNetwork
from penstock.rails.post import Post
from penstock.runtime import Runtime

T = TypeVar("T")

CALLS_MAX: Final = 50
"""Calls in one batch; public nodes take no more than some hundred."""
TIMEOUT_S: Final = 8.0
IDENTITY_S: Final = 60.0
"""How long what a node said of its network holds."""
BAD_S: Final = (1.0, 2.0, 5.0, 15.0)
"""How long a node is passed over after its first, second, ... failure in a row."""
WORDS_MAX: Final = 160
DEPTH_MAX: Final = 64
"""Nesting of an answer; a block with receipts has some ten."""

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


class BadAnswer(ValueError):
    """A node's answer is not what the call returns, or beyond any number that can be."""


class NodeRefused(NodeUnreachable):
    """Every node that could be asked answered with an error; the text is the last one's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: JSON-RPC's method and parameters, or what a family's talk makes of them. `path` follows the node's address. `size`: as many
    ordinary answers its answer may be as long as, so that those of one request stay within what we read.
    """

    method: str
    params: Sequence[Any] = ()
    path: str = ""
    size: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """A node's error answer: its code and its words, cut short and cleaned."""

    code: int
    words: str


@dataclass(slots=True, eq=False)
class Node:
    """One node and what we remember of it. `name` is all that is ever shown."""

    name: str
    url: str = field(repr=False)
    checked_at: float | None = None
    wrong: str = ""
    fault: str = ""
    failures: int = 0
    bad_until: float = 0.0
    takes_batches: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def address(self, path: str = "") -> str:
        """The node's URL with a path behind its own, before its query."""
        if not path:
            return self.url
        base, mark, query = self.url.partition("?")
        return base.rstrip("/") + path + mark + query


def quantity(value: object, bits: int) -> int:
    """A hexadecimal number of at most so many bits. Raises BadAnswer."""
    if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
        raise BadAnswer("not a hexadecimal number")
    number = int(value, 16)
    if number.bit_length() > bits:
        raise BadAnswer(f"a number of more than {bits} bits")
    return number


def hash32(value: object) -> str:
    """A hash of 32 bytes, in lower case. Raises BadAnswer."""
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise BadAnswer("not a hash")
    return value.lower()


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object. Raises BadAnswer."""
    if not isinstance(value, dict):
        raise BadAnswer("not an object")
    return value


class Http:
    """JSON over one `Post`: what every talk is made of."""

    def __init__(self, post: Post, *, timeout_s: float = TIMEOUT_S) -> None:
        self._post = post
        self._timeout_s = timeout_s

    async def json(
        self,
        node: Node,
        body: object = None,
        *,
        path: str = "",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        first_line: bool = False,
        statuses: Collection[int] = (200,),
        tls_cert: str = "",
    ) -> Any:
        """What a node answers to a JSON body (None: an empty one) at its address and `path`. Raises NodeUnreachable, also for a status
        that is not one of `statuses`: its words would prove nothing.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        more = {"tls_cert": tls_cert} if tls_cert else {}
        try:
            status, answer = await self._post(
                node.address(path), content, self._timeout_s, method=method, headers=headers, first_line=first_line, **more
            )
        except PostFailed as error:
            raise NodeUnreachable(f"{node.name}: {error}") from error
        if status not in statuses:
            raise NodeUnreachable(f"{node.name} answered HTTP {status}")
        try:
            return _parsed(answer)
        except (ValueError, RecursionError) as error:
            raise NodeUnreachable(f"{node.name} answered no JSON") from error


class Talk(Protocol):
    """How one family speaks to one node, and how it knows the network that the node serves."""

    async def mismatch(self, node: Node) -> str:
        """What is wrong with the node's network, "" when it is the configured one. Raises NodeUnreachable or ValueError."""
        ...

    async def calls(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """Answers in the order of the calls; an error that the node itself answers is a Fault. Raises NodeUnreachable."""
        ...


class JsonRpc:
    """Calls as JSON-RPC 2.0, many in one request where the node takes that. A family adds `mismatch`."""

    def __init__(self, http: Http, *, statuses: Collection[int] = (200,)) -> None:
        self._http = http
        self._statuses = statuses

    async def calls(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """Answers in the order of the calls. Raises NodeUnreachable."""
        answers: list[Any | Fault] = []
        for part in _requests(calls):
            if len(part) > 1 and node.takes_batches:
                found = await self._batch(node, part)
                if found is not None:
                    answers += found
                    continue
                node.takes_batches = False
            answers += [await self._single(node, call) for call in part]
        return answers

    async def _single(self, node: Node, call: Call) -> Any | Fault:
        return _answer(node, await self._http.json(node, _request(call, 1), path=call.path, statuses=self._statuses), 1)

    async def _batch(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault] | None:
        """None when the node answers a batch with one error: it takes none."""
        requests = [_request(call, number) for number, call in enumerate(calls, start=1)]
        answer = await self._http.json(node, requests, path=calls[0].path, statuses=self._statuses)
        if isinstance(answer, dict) and "error" in answer:
            return None
        items = answer if isinstance(answer, list) else []
        by_id = {item["id"]: item for item in items if isinstance(item, dict) and type(item.get("id")) is int}
        if len(items) != len(calls) or by_id.keys() != set(range(1, len(calls) + 1)):
            raise NodeUnreachable(f"{node.name} answered a batch of {len(calls)} calls with something else")
        return [_answer(node, by_id[number], number) for number in range(1, len(calls) + 1)]


class Nodes:
    """The configured nodes of one network, in the operator's order."""

    def __init__(self, urls: Sequence[str], talk: Talk, runtime: Runtime) -> None:
        if not urls:
            raise ValueError("a network that is on has at least one node")
        self._talk = talk
        self._runtime = runtime
        self._nodes = [Node(f"node {place} of {len(urls)}", url) for place, url in enumerate(urls, start=1)]

    def __len__(self) -> int:
        return len(self._nodes)

    def enough(self, said: Sequence[object]) -> bool:
        """Whether so many have said something that one of them alone did not."""
        return len(said) >= min(2, len(self._nodes))

    def usable(self) -> list[Node]:
        """Nodes in the order in which to ask them: those that failed lately come last."""
        now = self._runtime.monotonic()
        return sorted(self._nodes, key=lambda node: node.bad_until > now)

    def healthy(self) -> list[Node]:
        """Nodes that did not fail lately; all of them when every one did."""
        now = self._runtime.monotonic()
        return [node for node in self._nodes if node.bad_until <= now] or list(self._nodes)

    def faults(self) -> list[str]:
        """What is wrong with which node as last seen; for people."""
        return [f"{node.name}: {node.fault.removeprefix(f'{node.name}: ')}" for node in self._nodes if node.fault]

    async def read(self, call: Call, check: Callable[[Any], T]) -> T:
        """The first good answer. Raises NodeRefused when the nodes answer with errors, NodeUnreachable when none answers."""
        (answer,) = await self.read_many([call], [check])
        return answer  # type: ignore[no-any-return]

    async def read_many(self, calls: Sequence[Call], checks: Sequence[Callable[[Any], Any]]) -> list[Any]:
        """All calls answered by one and the same node. Each check turns an answer into a value or raises ValueError."""
        last: NodeUnreachable = NodeUnreachable("no node is configured")
        for node in self.usable():
            try:
                answers = await self.ask(node, calls)
            except NodeUnreachable as error:
                last = error
                continue
            fault = next(((call, answer) for call, answer in zip(calls, answers, strict=True) if isinstance(answer, Fault)), None)
            if fault is not None:
                last = NodeRefused(f"{node.name} refused {fault[0].method}: {fault[1].words}")
                continue
            try:
                return [check(answer) for check, answer in zip(checks, answers, strict=True)]
            except ValueError as error:
                last = NodeUnreachable(f"{node.name} gave no usable answer to {calls[0].method}: {error}")
        raise last

    async def ask(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """One node's answers, in the order of the calls. Raises WrongNetwork or NodeUnreachable; a Fault is an answer."""
        await self._identify(node)
        try:
            answers = await self._talk.calls(node, calls)
        except NodeUnreachable as error:
            self._failed(node, str(error))
            raise
        node.failures, node.bad_until, node.fault = 0, 0.0, ""
        return answers

    async def _identify(self, node: Node) -> None:
        """That the node serves our network: at first use, after an error, and once a minute. Raises WrongNetwork."""
        async with node.lock:
            if node.checked_at is None or self._runtime.monotonic() - node.checked_at > IDENTITY_S:
                try:
                    node.wrong = await self._talk.mismatch(node)
                except (NodeUnreachable, ValueError) as error:
                    self._failed(node, str(error))
                    raise NodeUnreachable(f"{node.name} did not say which network it serves: {error}") from error
                node.checked_at = self._runtime.monotonic()
            if node.wrong:
                node.bad_until = node.checked_at + IDENTITY_S
                node.fault = node.wrong
                raise WrongNetwork(f"{node.name} is not used: {node.wrong}")

    def _failed(self, node: Node, fault: str) -> None:
        wait = BAD_S[min(node.failures, len(BAD_S) - 1)]
        node.failures += 1
        node.bad_until = self._runtime.monotonic() + wait
        node.checked_at = None
        node.fault = fault

    async def agreed(self, call: Call, check: Callable[[Any], T], *, needed: int) -> T:
        """A value that cannot differ between honest nodes, when so many say it. Raises NodeUnreachable when they differ or too few answer."""
        values: list[T] = []
        last = NodeUnreachable("no node answers")
        for node in self.usable():
            try:
                (answer,) = await self.ask(node, [call])
                if isinstance(answer, Fault):
                    raise NodeRefused(f"{node.name} refused {call.method}: {answer.words}")
                value = check(answer)
            except NodeUnreachable as error:
                last = error
                continue
            except ValueError as error:
                last = NodeUnreachable(f"{node.name} gave no usable answer to {call.method}: {error}")
                continue
            values.append(value)
            if values.count(value) >= needed:
                return value
        if not values:
            raise last
        if any(value != values[0] for value in values):
            raise NodeUnreachable(f"the nodes differ on {call.method}")
        raise NodeUnreachable(f"{len(values)} of the {needed} nodes that must agree on {call.method} answers, and the others: {last}")

    async def each(self, call: Call, check: Callable[[Any], T]) -> list[T]:
        """What every node that did not fail lately says, in order. Raises as `each_many`."""
        return [answers[0] for answers in await self.each_many([call], [check])]

    async def each_many(self, calls: Sequence[Call], checks: Sequence[Callable[[Any], T]]) -> list[list[T]]:
        """The same of many calls, for each node that answers all of them. Raises NodeRefused or NodeUnreachable when none does."""
        found: list[list[T]] = []
        last = NodeUnreachable("no node answers")
        for node in self.healthy():
            try:
                answers = await self.ask(node, calls)
                fault = next((answer for answer in answers if isinstance(answer, Fault)), None)
                if fault is not None:
                    raise NodeRefused(f"{node.name} refused {calls[0].method}: {fault.words}")
                found.append([check(answer) for check, answer in zip(checks, answers, strict=True)])
            except NodeUnreachable as error:
                last = error
            except ValueError as error:
                last = NodeUnreachable(f"{node.name} gave no usable answer to {calls[0].method}: {error}")
        if not found:
            raise last
        return found

    async def reached(self, call: Call, check: Callable[[Any], int], *, needed: int) -> int:
        """The highest number that so many nodes have reached, of one that only grows: what one of them claims alone does not count. Raises
        NodeUnreachable when fewer answer.
        """
        values = await self.each(call, check)
        if len(values) < needed:
            raise NodeUnreachable(f"{len(values)} of the {needed} nodes that must agree on {call.method} answers")
        return sorted(values, reverse=True)[needed - 1]


def reached_by(heights: Iterable[int], needed: int) -> int | None:
    """The height that so many have reached, None where fewer have said one: neither one that lies high nor one that is late decides it."""
    highest = sorted(heights, reverse=True)
    return highest[needed - 1] if len(highest) >= needed else None


def _parsed(content: bytes) -> Any:
    """JSON of bounded depth. Raises ValueError."""
    if is_deeper(content, DEPTH_MAX):
        raise BadAnswer(f"no JSON of at most {DEPTH_MAX} levels")
    return msgspec.json.decode(content)


def _requests(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """As they go together, in order."""
    part: list[Call] = []
    size = 0
    for call in calls:
        if part and size + call.size > CALLS_MAX:
            yield part
            part, size = [], 0
        part.append(call)
        size += call.size
    if part:
        yield part


def _request(call: Call, number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": call.method, "params": list(call.params)}


def _answer(node: Node, answer: object, number: int) -> Any | Fault:
    if not isinstance(answer, dict) or answer.get("id") != number or ("result" not in answer and answer.get("error") is None):
        raise NodeUnreachable(f"{node.name} answered something that is no JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer["result"]
    said = error if isinstance(error, dict) else {}
    code = said.get("code")
    return Fault(code if type(code) is int else 0, clean(str(said.get("message", "")), node.url))


def clean(words: str, url: str) -> str:
    """A node's words without addresses, and without anything that stands in its own address as a key or password would."""
    parts = urlsplit(url)
    keys = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query)), parts.username or "", parts.password or ""]
    for key in sorted(keys, key=len, reverse=True):
        if len(key) >= 4:
            words = words.replace(key, "***")
    words = re.sub(r"[^\s\"'<>]*://[^\s\"'<>]*", "<address>", words)
    return "".join(c if " " <= c <= "~" else " " for c in words)[:WORDS_MAX]
