"""JSON-RPC as rippled and Clio speak it, and the network id by which a network is known.

    Call("tx", ({"transaction": txid, "min_ledger": 90, "max_ledger": 130},))

One request a call; answers stand in "result" with a status, and errors have HTTP status 200. The two errors that answer a question
("there is no such account", "I know no such transaction") are given on as the answers they are, everything else is a Fault.
https://xrpl.org/docs/references/http-websocket-apis/api-conventions/request-formatting
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.rails.base import NodeUnreachable
from penstock.rails.rpc import BadAnswer, Call, Fault, Http, Node, clean, mapping
from penstock.rails.xrp.codec import INDEX_MAX
from penstock.runtime import Runtime

AT_ONCE: Final = 8
"""Requests under way to one node; public servers count them."""

NO_ACCOUNT: Final = "actNotFound"
NO_TRANSACTION: Final = "txnNotFound"


class XrpTalk:
    """`rails.rpc.Talk` of the XRP Ledger's nodes."""

    def __init__(self, http: Http, runtime: Runtime, *, chain_id: int) -> None:
        self._http = http
        self._runtime = runtime
        self._chain_id = chain_id

    async def mismatch(self, node: Node) -> str:
        """Another network id than configured; a node that names none is on network 0. Raises NodeUnreachable or BadAnswer.

        https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/server-info-methods/server_info
        """
        (answer,) = await self.calls(node, [Call("server_info", ({},))])
        if isinstance(answer, Fault):
            raise BadAnswer(answer.words)
        found = mapping(mapping(answer).get("info")).get("network_id", 0)
        if type(found) is not int or not 0 <= found <= INDEX_MAX:
            raise BadAnswer("not a network id")
        return "" if found == self._chain_id else f"it serves network id {found}, and {self._chain_id} is configured"

    async def calls(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """Answers in the order of the calls, some at a time; transactions one after another, lowest sequence first. Raises NodeUnreachable."""
        at_once = 1 if any(call.method == "submit" for call in calls) else AT_ONCE
        answers: list[Any | Fault] = []
        for start in range(0, len(calls), at_once):
            part = calls[start : start + at_once]
            if len(part) == 1:
                found = [await self._one(node, part[0])]
            else:
                tasks = [self._runtime.spawn(self._one(node, call), name="xrp-call") for call in part]
                found = [await task for task in tasks]
            for answer in found:
                if isinstance(answer, NodeUnreachable):
                    raise answer
                answers.append(answer)
        return answers

    async def _one(self, node: Node, call: Call) -> Any | Fault | NodeUnreachable:
        try:
            answer = await self._http.json(node, {"method": call.method, "params": list(call.params)})
        except NodeUnreachable as error:
            return error
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict) or result.get("status") not in ("success", "error"):
            return NodeUnreachable(f"{node.name} answered something that is no JSON-RPC of the XRP Ledger")
        if result["status"] == "success" or result.get("error") in (NO_ACCOUNT, NO_TRANSACTION):
            return result
        code = result.get("error_code")
        words = f"{result.get('error', '')}: {result.get('error_message', '')}"
        return Fault(code if type(code) is int else 0, clean(words, node.url))
