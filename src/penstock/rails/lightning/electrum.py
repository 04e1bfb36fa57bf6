"""Electrum by its JSON-RPC, 4.3 or later, as docs/electrum-rpc.md found it. https://electrum.readthedocs.io/en/latest/jsonrpc.html

Address: electrum+http://user:password@127.0.0.1:7777. No fee limit can be given: Electrum takes up to 5 satoshi or 1 %, and no invoice without
an amount. `lnpay` answers when the payment has ended, so silence is the usual answer and says nothing.

Proof of failure: a status that is neither paid nor in flight, nothing of it in the history, and nothing in flight on any channel (Electrum does
not say to which payment that belongs). It takes a failed invoice again, so the rail never sends one twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from penstock.rails.base import NodeUnreachable, Submission, Verdict
from penstock.rails.lightning.codec import AMOUNT_MSAT_MAX, MSAT, PayOrder, chain_of, node_id
from penstock.rails.lightning.talk import HEIGHT_MAX, Endpoints, Fate, Identity, Purse, Sighting, items, whole
from penstock.rails.post import Post
from penstock.rails.rpc import BadAnswer, Fault, Http, Node, clean, mapping

PAY_S: Final = 3.0
"""How long an answer to `lnpay` is waited for; it goes on without us."""
FEE_FLOOR_MSAT: Final = 5_000
FEE_FLOOR_PPM: Final = 10_000
ROWS_MAX: Final = 100_000
NEVER_SENT: Final = "Request not found"
_ALREADY: Final = ("previous attempt to pay this invoice", "already initiated", "has been paid already")
UNPAID, EXPIRED, PAID, FAILED = 0, 1, 3, 5
SENT: Final = 0
_SPENDABLE: Final = ("OPEN", "GOOD")


class Electrum:
    """`rails.lightning.talk.Adapter` of Electrum's daemon."""

    def __init__(self, post: Post) -> None:
        self._http = Http(post)
        self._brief = Http(post, timeout_s=PAY_S)
        self._endpoints = Endpoints()

    def network(self, chain_id: int) -> str:
        """mainnet, testnet, signet, regtest."""
        return chain_of(chain_id).electrum

    async def identity(self, node: Node) -> Identity:
        """Raises NodeUnreachable or BadAnswer."""
        name = str(_good(await self._ask(node, "nodeid"))).partition("@")[0]
        return Identity(node_id(name), str(mapping(_good(await self._ask(node, "getinfo"))).get("network")))

    async def look(self, node: Node, payment_hash: str, amount_msat: int) -> Sighting:
        """Raises NodeUnreachable or BadAnswer."""
        said = await self._ask(node, "get_invoice", payment_hash)
        if isinstance(said, Fault):
            if NEVER_SENT not in said.words:
                raise BadAnswer(said.words)
            return Sighting(Fate.UNKNOWN, detail=said.words)
        # In this order: what left the channels since the status was told is in the history by then.
        status = mapping(said).get("status")
        channels = await self._channels(node)
        settled = _settled(await self._history(node), payment_hash, amount_msat)
        if settled is not None:
            return settled
        if status not in (UNPAID, EXPIRED, FAILED):
            return Sighting(Fate.PENDING)
        if any(whole(channel.get("local_unsettled_sent", 0)) for channel in channels):
            return Sighting(Fate.PENDING, detail="not paid by its records, and something is in flight on a channel")
        return Sighting(Fate.FAILED, detail=f"status {status}")

    async def send(self, node: Node, order: PayOrder) -> Submission:
        """Raises NodeUnreachable."""
        try:
            said = await self._ask(node, "lnpay", order.invoice, http=self._brief)
        except NodeUnreachable as error:
            return Submission(Verdict.UNKNOWN, str(error))
        if isinstance(said, Fault):
            known = any(words in said.words for words in _ALREADY)
            return Submission(Verdict.ACCEPTED if known else Verdict.UNKNOWN, f"{node.name}: {said.words}")
        if mapping(said).get("payment_hash") != order.payment_hash:
            return Submission(Verdict.UNKNOWN, f"{node.name} named another payment hash; ours counts")
        return Submission(Verdict.ACCEPTED)

    async def purse(self, node: Node) -> Purse:
        """Raises NodeUnreachable or BadAnswer.

        Balances are in whole satoshi, so what is ours is the sum of the history, which has channels and payments to the millisatoshi.
        """
        height = whole(mapping(_good(await self._ask(node, "getinfo"))).get("blockchain_height"), HEIGHT_MAX)
        before, history, channels = await self._channels(node), await self._history(node), await self._channels(node)
        owned = sum(_signed(row.get("amount_msat")) for row in history)
        if owned < 0:
            raise BadAnswer("its history adds up to less than nothing")
        steady = before == channels and not any(_unsettled(channel) for channel in channels)
        sendable = sum(map(_sendable_msat, channels))
        return Purse(owned, sendable, steady, height, FEE_FLOOR_MSAT, FEE_FLOOR_PPM, opens=False)

    async def _channels(self, node: Node) -> list[Mapping[str, Any]]:
        """Without backups, and without channels that are closed and swept: their last numbers stay, and nothing can settle there."""
        listed = items(_good(await self._ask(node, "list_channels")))
        return [channel for channel in listed if channel.get("type") == "CHANNEL" and channel.get("state") != "REDEEMED"]

    async def _history(self, node: Node) -> list[Mapping[str, Any]]:
        return items(_good(await self._ask(node, "lightning_history")), ROWS_MAX)

    async def _ask(self, node: Node, method: str, *params: str, http: Http | None = None) -> Any | Fault:
        """Raises NodeUnreachable."""
        endpoint = self._endpoints.of(node)
        secret = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        said = mapping(await (http or self._http).json(endpoint.node, body, headers={"Authorization": f"Basic {secret}"}))
        error = said.get("error")
        if error is not None:
            words = error.get("message", "") if isinstance(error, dict) else error
            return Fault(0, clean(str(words), node.url))
        if "result" not in said:
            raise BadAnswer("no JSON-RPC")
        return said["result"]


def _settled(history: list[Mapping[str, Any]], payment_hash: str, amount_msat: int) -> Sighting | None:
    """The row of a payment that was sent: its amount is negative and has the fee in it. Raises BadAnswer."""
    for row in history:
        if row.get("type") == "payment" and row.get("payment_hash") == payment_hash and row.get("direction") == SENT:
            spent = -_signed(row.get("amount_msat"))
            fee = spent - amount_msat
            told = row.get("fee_msat")
            if fee < 0 or (told is not None and told != fee):
                raise BadAnswer("amount and fee of a payment do not add up")
            return Sighting(Fate.SETTLED, str(row.get("preimage"))[:64], amount_msat, fee)
    return None


def _sendable_msat(channel: Mapping[str, Any]) -> int:
    if (channel.get("state"), channel.get("peer_state")) != _SPENDABLE:
        return 0
    local, unsettled, reserve = (whole(channel.get(name)) for name in ("local_balance", "local_unsettled_sent", "local_reserve"))
    return max(0, local - unsettled - reserve) * MSAT


def _unsettled(channel: Mapping[str, Any]) -> bool:
    return bool(whole(channel.get("local_unsettled_sent", 0)) or whole(channel.get("remote_unsettled_sent", 0)))


def _signed(value: object) -> int:
    if type(value) is not int or abs(value) > AMOUNT_MSAT_MAX:
        raise BadAnswer("not an amount")
    return value


def _good(said: Any | Fault) -> Any:
    if isinstance(said, Fault):
        raise BadAnswer(said.words)
    return said
