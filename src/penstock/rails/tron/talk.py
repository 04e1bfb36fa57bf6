"""The HTTP API of TRON's full nodes and of its solidified twin, and the chain id by which a network is known.

    Call("wallet/getblock", ({"detail": False},))          POST /wallet/getblock, the body being the one parameter
    Call("walletsolidity/getblock", ({"detail": False},))  the same of what is solidified

A node's address may say in its query what belongs to no request, and none of it is sent as query:
    ?solidity_port=8091        java-tron itself serves /walletsolidity/ on a port of its own
    ?tron_pro_api_key=KEY      TronGrid wants its key as the header TRON-PRO-API-KEY
https://tronprotocol.github.io/documentation-en/api/http/ https://developers.tron.network/reference/select-network#note
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from penstock.rails.base import NodeUnreachable
from penstock.rails.rpc import BadAnswer, Call, Fault, Http, Node, clean
from penstock.rails.tron.answers import block_of
from penstock.runtime import Runtime

AT_ONCE: Final = 8
"""Requests under way to one node; TronGrid counts requests a second."""

_SOLID: Final = "walletsolidity/"


@dataclass(frozen=True, slots=True)
class _Site:
    """Where one node's two halves are, and what goes with each request."""

    full: Node
    solid: Node
    headers: Mapping[str, str] | None


def _site(node: Node) -> _Site:
    parts = urlsplit(node.url)
    query = dict(parse_qsl(parts.query))
    port, key = query.pop("solidity_port", ""), query.pop("tron_pro_api_key", "")
    full = parts._replace(query=urlencode(query))
    solid = full
    if port.isascii() and port.isdigit():
        user, mark, _ = parts.netloc.rpartition("@")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        solid = full._replace(netloc=f"{user}{mark}{host}:{port}")
    headers = {"TRON-PRO-API-KEY": key, "Content-Type": "application/json"} if key else None
    return _Site(Node(node.name, full.geturl()), Node(node.name, solid.geturl()), headers)


class TronTalk:
    """`rails.rpc.Talk` of TRON's nodes. `genesis` (0x and the id of block 0) None: the chain id will do."""

    def __init__(self, http: Http, runtime: Runtime, *, chain_id: int, genesis: str | None = None) -> None:
        self._http = http
        self._runtime = runtime
        self._chain_id = chain_id
        self._genesis = genesis
        self._sites: dict[str, _Site] = {}

    async def mismatch(self, node: Node) -> str:
        """Another chain id or genesis than configured, on either half of the node. Raises NodeUnreachable or BadAnswer.

        The chain id is the last four bytes of the id of block 0 (TIP-474).
        """
        calls = [Call(f"{half}/getblockbynum", ({"num": 0},)) for half in ("wallet", "walletsolidity")]
        for call, answer in zip(calls, await self.calls(node, calls), strict=True):
            if isinstance(answer, Fault):
                raise BadAnswer(f"{call.method}: {answer.words}")
            found = block_of(answer)
            if found.number != 0:
                raise BadAnswer(f"{call.method}: another block than asked for")
            if (chain_id := int(found.id[-8:], 16)) != self._chain_id:
                return f"it serves chain id {chain_id}, and {self._chain_id} is configured"
            if self._genesis is not None and "0x" + found.id != self._genesis.lower():
                return f"its first block is 0x{found.id}, and {self._genesis} is configured"
        return ""

    async def calls(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """Answers in the order of the calls, some at a time. Raises NodeUnreachable."""
        site = self._sites.setdefault(node.url, _site(node))
        answers: list[Any | Fault] = []
        for start in range(0, len(calls), AT_ONCE):
            part = calls[start : start + AT_ONCE]
            if len(part) == 1:
                found = [await self._one(node, site, part[0])]
            else:
                tasks = [self._runtime.spawn(self._one(node, site, call), name="tron-call") for call in part]
                found = [await task for task in tasks]
            for answer in found:
                if isinstance(answer, NodeUnreachable):
                    raise answer
                answers.append(answer)
        return answers

    async def _one(self, node: Node, site: _Site, call: Call) -> Any | Fault | NodeUnreachable:
        half = site.solid if call.method.startswith(_SOLID) else site.full
        try:
            answer = await self._http.json(half, call.params[0] if call.params else {}, path="/" + call.method, headers=site.headers)
        except NodeUnreachable as error:
            return error
        if isinstance(answer, dict) and "Error" in answer:
            return Fault(0, clean(str(answer["Error"]), node.url))
        return answer
