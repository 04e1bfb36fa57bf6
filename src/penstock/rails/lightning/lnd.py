"""LND by its REST interface, 0.17 or later. https://lightning.engineering/api-docs/api/lnd/

Address: lnd+https://host:8080?macaroon=HEX&tls_cert=/path/tls.cert; `macaroon_file` instead of `macaroon` reads the file. The macaroon needs
info:read, offchain:read and offchain:write, and nothing on chain.

Proof of failure: FAILED, every attempt failed, and no HTLC with this hash on any channel. LND takes the hash of a failed payment again, so
the rail never sends one twice. Treated as unknown: everything else, and 404 without LND's own words (a wallet that is locked answers so too).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from penstock.rails.base import NodeUnreachable, Submission, Verdict
from penstock.rails.lightning.codec import MSAT, PayOrder, chain_of, node_id, parse
from penstock.rails.lightning.talk import HEIGHT_MAX, Endpoint, Endpoints, Fate, Identity, Purse, Sighting, items, whole
from penstock.rails.rpc import BadAnswer, Fault, Http, Node, clean, mapping

STATUSES: Final = (200, 400, 401, 403, 404, 409, 412, 429, 500, 501, 503, 504)
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6
"""https://grpc.io/docs/guides/status-codes/"""
NEVER_SENT: Final = "isn't initiated"
_ALREADY: Final = ("already paid", "in transition", "already exists", "already succeeded")
"""https://github.com/lightningnetwork/lnd/blob/master/payments/db/errors.go"""
HTLCS_MAX: Final = 2_000
_WEIGHTS: Final[Mapping[str, tuple[int, int]]] = {
    "LEGACY": (724, 0),
    "STATIC_REMOTE_KEY": (724, 0),
    "ANCHORS": (1124, 660),
    "SCRIPT_ENFORCED_LEASE": (1124, 660),
    "SIMPLE_TAPROOT": (968, 660),
}
"""Weight of a commitment without HTLCs and satoshi of its two anchors. https://github.com/lightningnetwork/lnd/blob/master/input/size.go"""


class Lnd:
    """`rails.lightning.talk.Adapter` of LND."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._endpoints = Endpoints()
        self._macaroons: dict[str, str] = {}

    def network(self, chain_id: int) -> str:
        """mainnet, testnet, signet, regtest."""
        return chain_of(chain_id).lnd

    async def identity(self, node: Node) -> Identity:
        """Raises NodeUnreachable or BadAnswer."""
        info = _good(await self._ask(node, "/v1/getinfo"))
        chains = items(info.get("chains"), 8)
        if len(chains) != 1 or chains[0].get("chain") != "bitcoin":
            raise BadAnswer("it serves another chain than bitcoin")
        return Identity(node_id(str(info.get("identity_pubkey"))), str(chains[0].get("network")))

    async def look(self, node: Node, payment_hash: str, amount_msat: int) -> Sighting:
        """Raises NodeUnreachable or BadAnswer."""
        del amount_msat
        place = base64.urlsafe_b64encode(bytes.fromhex(payment_hash)).decode()
        said = await self._ask(node, f"/v2/router/track/{place}", first_line=True)
        if isinstance(said, Fault):
            if said.code != NOT_FOUND or NEVER_SENT not in said.words:
                raise BadAnswer(said.words)
            seen = Sighting(Fate.UNKNOWN, detail=said.words)
        else:
            seen = sighting_of(said, payment_hash)
        if seen.fate in {Fate.UNKNOWN, Fate.FAILED} and await self._in_flight(node, payment_hash):
            return Sighting(Fate.PENDING, detail=f"{seen.fate.value} by its records, and in flight on a channel")
        return seen

    async def _in_flight(self, node: Node, payment_hash: str) -> bool:
        wanted = bytes.fromhex(payment_hash)
        return any(
            _bytes(htlc.get("hash_lock")) == wanted
            for channel in await self._channels(node)
            for htlc in items(channel.get("pending_htlcs"), HTLCS_MAX)
        )

    async def send(self, node: Node, order: PayOrder) -> Submission:
        """Raises NodeUnreachable."""
        body: dict[str, Any] = {
            "payment_request": order.invoice,
            "fee_limit_msat": str(order.fee_limit_msat),
            "cltv_limit": order.cltv_limit,
            "timeout_seconds": order.timeout_s,
            "no_inflight_updates": False,
            "allow_self_payment": False,
        }
        if parse(order.invoice, order.chain_id).amount_msat is None:
            body["amt_msat"] = str(order.amount_msat)
        said = await self._ask(node, "/v2/router/send", body, first_line=True)
        if isinstance(said, Fault):
            known = said.code == ALREADY_EXISTS or any(words in said.words for words in _ALREADY)
            return Submission(Verdict.ACCEPTED if known else Verdict.UNKNOWN, f"{node.name}: {said.words}")
        if said.get("payment_hash") != order.payment_hash:
            return Submission(Verdict.UNKNOWN, f"{node.name} named another payment hash; ours counts")
        return Submission(Verdict.ACCEPTED)

    async def purse(self, node: Node) -> Purse:
        """Raises NodeUnreachable or BadAnswer, also while channels move between two answers."""
        height = whole(_good(await self._ask(node, "/v1/getinfo")).get("block_height"), HEIGHT_MAX)
        before = _good(await self._ask(node, "/v1/balance/channels"))
        channels = await self._channels(node)
        balance = _good(await self._ask(node, "/v1/balance/channels"))
        names = ("local_balance", "remote_balance", "unsettled_local_balance", "unsettled_remote_balance")
        local, remote, *unsettled = (_msat(balance, name) for name in names)
        still = all(_msat(before, name) == _msat(balance, name) for name in names)
        steady = still and not any(unsettled) and not any(items(channel.get("pending_htlcs"), HTLCS_MAX) for channel in channels)
        owned = owned_msat(channels, local, remote) if steady else local
        return Purse(owned, sum(map(_sendable_msat, channels)), steady, height)

    async def _channels(self, node: Node) -> list[Mapping[str, Any]]:
        return items(_good(await self._ask(node, "/v1/channels")).get("channels"))

    async def _ask(self, node: Node, path: str, body: object = None, *, first_line: bool = False) -> Mapping[str, Any] | Fault:
        """An answer, taken out of its stream, or LND's own error. Raises NodeUnreachable."""
        endpoint = self._endpoints.of(node)
        answer = await self._http.json(
            endpoint.node,
            body,
            path=path,
            method="GET" if body is None else "POST",
            headers={"Grpc-Metadata-macaroon": self._macaroon(endpoint)},
            first_line=first_line,
            statuses=STATUSES,
            tls_cert=endpoint.options.get("tls_cert", ""),
        )
        said = mapping(answer)
        error = said.get("error", said if "code" in said and "message" in said else None)
        if isinstance(error, dict):
            code = error.get("code", error.get("grpc_code"))
            return Fault(code if type(code) is int else 0, clean(str(error.get("message", "")), node.url))
        return mapping(said.get("result")) if first_line else said

    def _macaroon(self, endpoint: Endpoint) -> str:
        """Raises NodeUnreachable when its file cannot be read."""
        path = endpoint.options.get("macaroon_file", "")
        if not path:
            return endpoint.options.get("macaroon", "")
        if path not in self._macaroons:
            try:
                self._macaroons[path] = Path(path).read_bytes().hex()
            except OSError as error:
                raise NodeUnreachable(f"{endpoint.node.name}: its macaroon_file cannot be read ({type(error).__name__})") from error
        return self._macaroons[path]


def sighting_of(payment: Mapping[str, Any], payment_hash: str) -> Sighting:
    """LND's payment, its status mapped whole. Raises BadAnswer.

    https://lightning.engineering/api-docs/api/lnd/router/track-payment-v2
    """
    if payment.get("payment_hash") != payment_hash:
        raise BadAnswer("it told of another payment")
    attempts = {str(attempt.get("status")) for attempt in items(payment.get("htlcs", []), HTLCS_MAX)}
    reason = str(payment.get("failure_reason", ""))[:60]
    match payment.get("status"):
        case "SUCCEEDED":
            preimage = str(payment.get("payment_preimage"))[:64]
            return Sighting(Fate.SETTLED, preimage, whole(payment.get("value_msat")), whole(payment.get("fee_msat")))
        case "FAILED" if attempts <= {"FAILED"}:
            return Sighting(Fate.FAILED, detail=reason)
        case "FAILED":
            return Sighting(Fate.PENDING, detail="called failed, with parts that are not")
        case "IN_FLIGHT" | "INITIATED":
            return Sighting(Fate.PENDING)
        case _:
            return Sighting(Fate.PENDING, detail="of a status that is not known here")


def owned_msat(channels: list[Mapping[str, Any]], local: int, remote: int) -> int:
    """What is ours in open channels without HTLCs, exactly: the same before and after any change of commitment fees.

    LND's local balance is after the commitment's fee and anchors where we opened the channel, and those move with the fee market; the other
    side's balance is not touched by them. Sums come in millisatoshi, single channels in whole satoshi. Raises BadAnswer.
    """
    ours = [channel for channel in channels if channel.get("initiator") is True]
    if len(ours) == len(channels):
        return sum(whole(channel.get("capacity")) for channel in ours) * MSAT - remote
    return local + sum(map(_overhead_sat, ours)) * MSAT


def _overhead_sat(channel: Mapping[str, Any]) -> int:
    """Fee and anchors of our commitment: what the capacity lacks, or one satoshi less where both balances have fractions of one."""
    capacity, local, remote = (whole(channel.get(name)) for name in ("capacity", "local_balance", "remote_balance"))
    weight, anchors = _WEIGHTS.get(str(channel.get("commitment_type")), (0, 0))
    overhead = whole(channel.get("fee_per_kw")) * weight // 1000 + anchors
    if weight and overhead in {capacity - local - remote, capacity - local - remote - 1}:
        return overhead
    raise BadAnswer("the fee of a channel's commitment cannot be told exactly, so neither can what is ours")


def _sendable_msat(channel: Mapping[str, Any]) -> int:
    if channel.get("active") is not True:
        return 0
    reserve = whole(mapping(channel.get("local_constraints", {})).get("chan_reserve_sat", 0))
    return max(0, whole(channel.get("local_balance")) - reserve) * MSAT


def _msat(balance: Mapping[str, Any], name: str) -> int:
    return whole(mapping(balance.get(name)).get("msat"))


def _bytes(value: object) -> bytes:
    """Raises BadAnswer."""
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadAnswer("not bytes in base64") from error


def _good(said: Mapping[str, Any] | Fault) -> Mapping[str, Any]:
    if isinstance(said, Fault):
        raise BadAnswer(said.words)
    return said
