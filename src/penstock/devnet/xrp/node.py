"""One node of the XRP Ledger as rippled's JSON-RPC, API version 1: what it is asked, which ledgers it has, and how it can be wrong.

    {"method": m, "params": [{...}]} -> {"result": {..., "status": "success" or "error"}}

Several nodes may tell of one network, each with faults of its own. No socket here: the server and a simulation call the same `answer`.
https://xrpl.org/docs/references/http-websocket-apis/api-conventions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.box import Broken, Faults, Request, Response
from penstock.devnet.xrp import node_accounts, node_ledgers, node_server, node_transactions
from penstock.devnet.xrp.chain import XrpChain
from penstock.devnet.xrp.rpc import Params, Refused, hash_of, invalid
from penstock.devnet.xrp.state import View

_UNCONDITIONAL: Final = frozenset({"ping", "server_info", "server_state"})
"""What a node answers in any state it is in."""

_METHODS: Final[Mapping[str, Callable[[XrpNode, Params], dict[str, Any]]]] = {
    **node_server.METHODS,
    **node_ledgers.METHODS,
    **node_accounts.METHODS,
    **node_transactions.METHODS,
}


@dataclass(slots=True)
class XrpFaults(Faults):
    """`gap`: so many of the newest validated ledgers but one are missing from what the node keeps, so no search over them is complete.
    `blocked`: the node is too old for the network's rules, says so, and answers nothing else.
    """

    gap: int = 0
    blocked: bool = False


class XrpNode:
    """One node of a network."""

    def __init__(self, chain: XrpChain, faults: XrpFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or XrpFaults()

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

    # What this node knows

    @property
    def closed(self) -> int:
        """Its newest closed ledger."""
        return max(self.chain.first, self.chain.closed - self.faults.lag)

    @property
    def open_index(self) -> int:
        """The ledger that it takes to be in the making."""
        return self.closed + 1

    @property
    def validated(self) -> int:
        """Its newest validated ledger."""
        return max(self.chain.first, self.chain.validated - self.faults.lag)

    @property
    def network_id(self) -> int:
        """What it says that it serves."""
        return self.faults.chain_id or self.chain.spec.network_id

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The validated ledgers that it has."""
        first, last = self.chain.first, self.validated
        if not self.faults.gap or last - self.faults.gap <= first:
            return [(first, last)]
        return [(first, last - self.faults.gap - 1), (last, last)]

    def has(self, first: int, last: int) -> bool:
        """Whether it has all of these validated ledgers."""
        return any(low <= first and last <= high for low, high in self.ranges)

    def has_closed(self, index: int) -> bool:
        """Whether it has this ledger, validated or only closed."""
        return self.validated < index <= self.closed or self.has(index, index)

    def index(self, params: Params) -> int:
        """Which ledger a call means; the one in the making by default. Raises Refused."""
        wanted = params.get("ledger_index", "current")
        if params.get("ledger_hash") is not None:
            named = hash_of(params, "ledger_hash", "ledgerHashMalformed")
            wanted = next((ledger.index for ledger in self.chain.ledgers.values() if ledger.hash == named), 0)
        index = {"validated": self.validated, "closed": self.closed, "current": self.open_index}.get(str(wanted))
        if index is None:
            if type(wanted) is not int and not (isinstance(wanted, str) and wanted.isascii() and wanted.isdigit()):
                raise invalid("ledgerIndexMalformed")
            index = int(str(wanted)[:12])
        if index != self.open_index and not self.has_closed(index):
            raise Refused("lgrNotFound", 21, "ledgerNotFound")
        return index

    def view(self, index: int) -> View:
        """The state of a ledger that it has; its own newest closed one where it lags behind the one in the making."""
        if index <= self.closed:
            return self.chain.state.at(index)
        return self.chain.state.at(self.closed) if self.faults.lag else self.chain.current

    def where(self, index: int) -> dict[str, Any]:
        """How an answer names the ledger that it was read from."""
        if index == self.open_index:
            return {"ledger_current_index": index, "validated": False}
        return {"ledger_hash": self.chain.ledgers[index].hash, "ledger_index": index, "validated": index <= self.validated}


def _unknown(_: XrpNode, __: Params) -> dict[str, Any]:
    raise Refused("unknownCmd", 32, "Unknown method.")


def _blocked(_: XrpNode, __: Params) -> dict[str, Any]:
    raise Refused("amendmentBlocked", 14, "Amendment blocked, need upgrade.")


def _plain(text: bytes, status: int) -> Response:
    return Response(text, status=status, content_type="text/plain")
