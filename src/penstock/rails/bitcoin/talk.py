"""JSON-RPC as Bitcoin Core speaks it, the magic and genesis by which a network is known, and checks of what nodes answer.

User and password stand in the node's address. Core answers errors with HTTP 500 or 404 and JSON in them. Needs Core 24 or later
(`gettxspendingprevout`). https://developer.bitcoin.org/reference/rpc/ https://github.com/bitcoin/bitcoin/blob/master/doc/JSON-RPC-interface.md
"""

from __future__ import annotations

import re
from typing import Any, Final

from penstock.core.money import MoneyError, parse_units
from penstock.rails.bitcoin.codec import UNITS_MAX, params_of
from penstock.rails.rpc import BadAnswer, Call, Fault, Http, JsonRpc, Node, mapping

HEIGHT_MAX: Final = 2**31 - 1
STATUSES: Final = (200, 404, 500)
NOT_FOUND: Final = -5
METHOD_UNKNOWN: Final = -32601

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)


class BitcoinTalk(JsonRpc):
    """`rails.rpc.Talk` of Bitcoin nodes. `genesis` None: that of the chain id."""

    def __init__(self, http: Http, *, chain_id: int, genesis: str | None = None) -> None:
        super().__init__(http, statuses=STATUSES)
        self._params = params_of(chain_id)
        self._genesis = (genesis or self._params.genesis).removeprefix("0x")

    async def mismatch(self, node: Node) -> str:
        """Another network or first block than configured. Raises NodeUnreachable or BadAnswer."""
        answers = await self.calls(node, [Call("getblockchaininfo"), Call("getblockhash", (0,))])
        for answer in answers:
            if isinstance(answer, Fault):
                raise BadAnswer(answer.words)
        chain = mapping(answers[0]).get("chain")
        if chain != self._params.node_name:
            return f"it serves the network {str(chain)[:20]!r}, and {self._params.node_name!r} is configured"
        if (found := block_hash(answers[1])) != self._genesis:
            return f"its first block is {found}, and {self._genesis} is configured"
        return ""


def block_hash(value: object) -> str:
    """A hash or id as Core writes it: 64 digits in lower case. Raises BadAnswer."""
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise BadAnswer("not a hash")
    return value


def height(value: object) -> int:
    """A block's height. Raises BadAnswer."""
    if type(value) is not int or not 0 <= value <= HEIGHT_MAX:
        raise BadAnswer("not a height")
    return value


def raw_bytes(value: object) -> bytes:
    """Bytes in hexadecimal. Raises BadAnswer."""
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        raise BadAnswer("not hexadecimal bytes")
    return bytes.fromhex(value)


def rate(value: object) -> int:
    """A fee rate in satoshi for 1,000 virtual bytes, from Core's bitcoin for 1,000 virtual bytes. Raises BadAnswer.

    JSON brings such numbers as floats: eight decimals of one below 2^53 satoshi are exactly what the node wrote. No amount of money ever comes
    this way; those are read from transactions themselves.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= UNITS_MAX // 10**8:
        raise BadAnswer("not a fee rate")
    try:
        return parse_units(f"{value:.8f}", 8)
    except MoneyError as error:
        raise BadAnswer("not a fee rate") from error


def found(answer: Any) -> Any | None:
    """The answer, or None where the node says that it knows no such thing. Raises BadAnswer for any other error."""
    if not isinstance(answer, Fault):
        return answer
    if answer.code == NOT_FOUND:
        return None
    raise BadAnswer(answer.words)
