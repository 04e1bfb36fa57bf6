"""One node of the XRP Ledger as rippled's JSON-RPC, API version 1: how it is asked, and who answers.

    {"method": m, "params": [{...}]} -> {"result": {..., "status": "success" or "error"}}

Several nodes may tell of one network, each with faults of its own. No socket here: the server and a simulation call the same `answer`.
https://xrpl.org/docs/references/http-websocket-apis/api-conventions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.devnet.box import Broken, Request, Response
from penstock.devnet.xrp import node_accounts, node_ledgers, node_server, node_transactions
from penstock.devnet.xrp.node_known import Known
from penstock.devnet.xrp.rpc import Params, Refused

_UNCONDITIONAL: Final = frozenset({"ping", "server_info", "server_state"})
"""What a node answers in any state it is in."""

_METHODS: Final[Mapping[str, Callable[[Known, Params], dict[str, Any]]]] = {
    **node_server.METHODS,
    **node_ledgers.METHODS,
    **node_accounts.METHODS,
    **node_transactions.METHODS,
}


class XrpNode(Known):
    """One node of a network."""

    def answer(self, request: Request) -> Response:
        """One JSON-RPC call over HTTP. Raises Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        if request.path or request.method != "POST":
            return _plain(b"Forbidden", 403)
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            return _plain(b"Unable to parse request", 400)
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _plain(b"Null method", 400)
        params = asked.get("params") or [{}]
        if not isinstance(params, list) or len(params) != 1 or not isinstance(params[0], dict):
            return _plain(b"params unparseable", 400)
        if params[0].get("api_version", 1) != 1:
            return _plain(b"invalid_API_version", 400)
        result = self.call(asked["method"], params[0])
        return Response(json.dumps({"result": result}, separators=(",", ":")).encode())

    def call(self, method: str, params: Params) -> dict[str, Any]:
        """The result of one call. Raises Broken when no answer comes."""
        self.chain.tick()
        blocked = self.faults.blocked and method not in _UNCONDITIONAL
        try:
            return {**(_blocked if blocked else _METHODS.get(method, _unknown))(self, params), "status": "success"}
        except Refused as refused:
            return {**refused.answer, "request": {"command": method, **params}, "status": "error"}


def _unknown(_: Known, __: Params) -> dict[str, Any]:
    raise Refused("unknownCmd", 32, "Unknown method.")


def _blocked(_: Known, __: Params) -> dict[str, Any]:
    raise Refused("amendmentBlocked", 14, "Amendment blocked, need upgrade.")


def _plain(text: bytes, status: int) -> Response:
    return Response(text, status=status, content_type="text/plain")
