"""The paying node as LND's REST interface shows it. https://lightning.engineering/api-docs/api/lnd/

Streams (`send`, `track`) give their first line and end; a real LND would go on with later states of the payment.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import bolt11

from penstock.devnet.box import CLIENT_VERSION, Broken, Faults, Request, Response
from penstock.devnet.lightning.channel import MSAT
from penstock.devnet.lightning.render import balance_of, channel_of, payment_of
from penstock.devnet.lightning.world import CHAIN_ID, PREFIX, LightningWorld, Order, Payment, Refused

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND = 2, 3, 5
STATUSES: Final[Mapping[int, int]] = {INVALID_ARGUMENT: 400, NOT_FOUND: 404, 6: 409}
"""How a gateway writes gRPC's codes. https://github.com/grpc-ecosystem/grpc-gateway/blob/main/runtime/errors.go"""
CLTV_MAX: Final = 2_016
PAYMENTS_MAX: Final = 100
_NAMES: Final[Mapping[int, str]] = {CHAIN_ID: "regtest", 3652501241: "mainnet"}


@dataclass(slots=True)
class LightningFaults(Faults):
    """`says_failed`: it calls payments failed that are in flight. `hides_parts`: it lists no parts of a payment. `other_node`: it has
    another identity.
    """

    says_failed: bool = False
    hides_parts: bool = False
    other_node: bool = False


class LightningNode:
    """One address of the one node; its faults are its own."""

    def __init__(self, world: LightningWorld) -> None:
        self._world = world
        self.faults = LightningFaults()

    def answer(self, request: Request) -> Response:
        """One HTTP request. Raises Broken."""
        world = self._world
        world.tick()
        if self.faults.down:
            raise Broken(self.faults.down)
        if world.now_ms < world.down_until_ms:
            raise Broken("reset")
        streams = request.path.startswith("/v2/router/")
        try:
            said = self._answer(request)
            return _json({"result": said} if streams else said)
        except Refused as error:
            words = {"code": error.code, "message": str(error), "details": []}
            return _json({"error": words} if streams else words, STATUSES.get(error.code, 500))

    def _answer(self, request: Request) -> dict[str, Any]:
        if request.headers.get("grpc-metadata-macaroon") != self._world.macaroon:
            raise Refused(UNKNOWN, "verification failed: signature mismatch after caveat verification")
        path, rest = request.path, request.path.rpartition("/")[2]
        if request.method == "POST" and path == "/v2/router/send":
            return self._send(request.body)
        if request.method != "GET":
            raise Refused(12, "Method Not Allowed")
        match path:
            case "/v1/state":
                return {"state": "SERVER_ACTIVE"}
            case "/v1/getinfo":
                return self._info()
            case "/v1/balance/channels":
                return balance_of(self._world.channels)
            case "/v1/channels":
                return {"channels": [channel_of(channel, self._world.peer) for channel in self._world.channels]}
            case "/v1/payments":
                return self._payments()
            case _ if path.startswith("/v2/router/track/"):
                return self._track(rest)
            case _ if path.startswith("/v1/payreq/"):
                return self._payreq(rest)
            case _:
                raise Refused(NOT_FOUND, "Not Found")

    def _info(self) -> dict[str, Any]:
        world = self._world
        height = max(0, world.height - self.faults.lag)
        identity = world.peer if self.faults.other_node else world.identity
        network = _NAMES.get(self.faults.chain_id or CHAIN_ID, "simnet")
        return {
            "version": CLIENT_VERSION,
            "identity_pubkey": identity,
            "alias": "a box",
            "num_active_channels": len(world.channels),
            "num_peers": 1,
            "block_height": height,
            "block_hash": f"{height:064x}",
            "synced_to_chain": True,
            "synced_to_graph": True,
            "chains": [{"chain": "bitcoin", "network": network}],
            "uris": [],
        }

    def _send(self, body: bytes) -> dict[str, Any]:
        """Taken, and then whatever the faults make of the answer."""
        world, faults = self._world, self.faults
        order = self._order(body)
        if faults.drop:
            faults.drop -= 1
            return self._shown(Payment(order, 0, world.now_ms))
        if faults.delay_ms:
            world.pay_later(order, faults.delay_ms)
            raise Broken("timeout")
        payment = world.pay(order)
        if faults.duplicate:
            faults.duplicate -= 1
            world.pay_later(order, 0)
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        return self._shown(payment)

    def _order(self, body: bytes) -> Order:
        """LND's checks of a request, in its order and words. Raises Refused."""
        try:
            asked = json.loads(body)
            numbers = {name: int(asked.get(name, 0)) for name in ("fee_limit_msat", "cltv_limit", "amt_msat", "timeout_seconds")}
            text = str(asked["payment_request"])
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise Refused(INVALID_ARGUMENT, f"proto: syntax error ({type(error).__name__})") from error
        if numbers["cltv_limit"] > CLTV_MAX:
            raise Refused(UNKNOWN, f"total time lock of {numbers['cltv_limit']} exceeds max allowed {CLTV_MAX}")
        said = self._decoded(text)
        if said.amount_msat and numbers["amt_msat"]:
            raise Refused(UNKNOWN, "amount must not be specified when paying a non-zero amount invoice")
        if not said.amount_msat and not numbers["amt_msat"]:
            raise Refused(UNKNOWN, "amount must be specified when paying a zero amount invoice")
        return Order(
            payment_hash=said.payment_hash,
            invoice=text,
            payee=str(said.payee),
            amount_msat=int(said.amount_msat or numbers["amt_msat"]),
            fee_limit_msat=numbers["fee_limit_msat"],
            cltv_limit=numbers["cltv_limit"] or CLTV_MAX,
            expires_ms=said.expiry_time * 1000,
        )

    @staticmethod
    def _decoded(text: str) -> bolt11.Bolt11:
        try:
            said = bolt11.decode(text)
        except Exception as error:  # the package and those below it raise what they like
            raise Refused(UNKNOWN, f"invoice cannot be decoded ({type(error).__name__})") from error
        if said.currency != PREFIX:
            raise Refused(UNKNOWN, "invoice not for current active network 'regtest'")
        return said

    def _track(self, place: str) -> dict[str, Any]:
        try:
            payment_hash = base64.b64decode(place, altchars=b"-_", validate=True).hex()
        except (binascii.Error, ValueError) as error:
            raise Refused(INVALID_ARGUMENT, "type mismatch, parameter: payment_hash") from error
        payment = None if self.faults.blind else self._world.payments.get(payment_hash)
        if payment is None:
            raise Refused(NOT_FOUND, "payment isn't initiated")
        return self._shown(payment)

    def _shown(self, payment: Payment) -> dict[str, Any]:
        shown = payment_of(payment)
        if self.faults.says_failed and shown["status"] in {"IN_FLIGHT", "INITIATED"}:
            shown |= {"status": "FAILED", "failure_reason": "FAILURE_REASON_TIMEOUT"}
        if self.faults.hides_parts:
            shown["htlcs"] = []
        return shown

    def _payments(self) -> dict[str, Any]:
        records = sorted(self._world.payments.values(), key=lambda payment: payment.index)[-PAYMENTS_MAX:]
        shown = [] if self.faults.blind else [self._shown(payment) for payment in records]
        ends = (shown[0]["payment_index"], shown[-1]["payment_index"]) if shown else ("0", "0")
        return {"payments": shown, "first_index_offset": ends[0], "last_index_offset": ends[1], "total_num_payments": "0"}

    def _payreq(self, text: str) -> dict[str, Any]:
        said = self._decoded(text)
        amount_msat = int(said.amount_msat or 0)
        return {
            "destination": said.payee,
            "payment_hash": said.payment_hash,
            "num_satoshis": str(amount_msat // MSAT),
            "num_msat": str(amount_msat),
            "timestamp": str(said.date),
            "expiry": str(said.expiry),
            "description": said.description or "",
            "cltv_expiry": str(said.min_final_cltv_expiry),
        }


def _json(said: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(said).encode() + b"\n", status)
