"""Lightning, by the operator's own node.

Conflict resource: the payment hash, once for ever, bound to the identity of the node that sends it. Proof of success: a preimage whose SHA-256 is
the payment hash. Proof of failure: the node says FAILED, with no part in flight by its records and by its channels, and nothing of ours is
still on the way to it (`fates`). Treated as unknown: timeouts, errors, an expired invoice, and a hash that the node does not know.

A node pays a hash once by its own records, so the same order is sent again while nobody knows it. Records may be lost, therefore not for ever:
`send_by_ms` ends it. What was never given to the node by then has failed, for it never will be: that it is given is committed before (`withheld`).
A hash that was given and is not known after that time is for a person, alone: a call that was lost is the likely reason. One that was known and
is no longer stops the lane. A node whose records were replaced by older ones shows less in its channels than the books say, and the treasury
stops the lane as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from penstock.core.event import Absent, FailedOnChain, Observation, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import Network, Token, parse_units
from penstock.rails.base import (
    Destination,
    FeeEstimate,
    Heads,
    Holdings,
    LaneView,
    NodeUnreachable,
    OwnAddress,
    Rail,
    Submission,
    Unpayable,
    Verdict,
    VersionView,
)
from penstock.rails.lightning import codec
from penstock.rails.lightning.codec import MSAT, Invoice, PayOrder
from penstock.rails.lightning.electrum import Electrum
from penstock.rails.lightning.fates import QUIET_UNSURE_S, Memories, Memory
from penstock.rails.lightning.lnd import Lnd
from penstock.rails.lightning.talk import LOOK, PURSE, SEND, Fate, LightningTalk, Purse, Sighting
from penstock.rails.post import Post
from penstock.rails.rpc import BadAnswer, Call, Http, Nodes
from penstock.runtime import Runtime

T = TypeVar("T")

DECIMALS: Final = 3
"""The token counts millisatoshi: routing fees are finer than a satoshi."""
HOLDS_MS: Final = 60_000
EXPIRY_MARGIN_S: Final = 30
"""An invoice with less than this to run is not begun."""
TOO_LATE: Final = "its time to be sent is over"
NOT_KNOWN: Final = "the node does not know this payment, whose time to be sent is over: it never was, or the node's records are gone"
NEVER_GIVEN: Final = "its time to be sent was over before it could be given to the node, and it was not; an invoice of now can be paid"

_PREIMAGE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def talk(post: Post, *, chain_id: int, own: str) -> LightningTalk:
    """How the nodes of a network are spoken to: LND and Electrum. Raises ValueError for an identity that is none."""
    return LightningTalk({"lnd": Lnd(Http(post)), "electrum": Electrum(post)}, chain_id=chain_id, own=own)


class LightningRail(Rail):
    """`rails.base.Rail` for Lightning on one Bitcoin network; also `Prepares`, `Clocked` and `Withholds`.

    `own[0]` is the identity of the node that pays. `fee_max` is the most that routing one payment may cost, in millisatoshi; without it the
    catalogue's. Within it the limit is the larger of the parameters `fee_limit_sat` and `fee_limit_ppm` of the amount.
    """

    def __init__(
        self,
        network: Network,
        nodes: Nodes,
        runtime: Runtime,
        *,
        own: Sequence[str],
        contracts: Iterable[str] = (),
        fee_max: int | None = None,
    ) -> None:
        del contracts  # there are none on Lightning
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._node = codec.node_id(own[0])
        codec.chain_of(network.chain_id)
        self.fee_max = parse_units(str(network.param("fee_max", "0")), DECIMALS) if fee_max is None else fee_max
        self._memories = Memories()
        self._ahead_ms = runtime.now_ms() - int(runtime.monotonic() * 1000)

    @property
    def network(self) -> Network:
        """The network this rail serves."""
        return self._network

    def _moment_ms(self) -> int:
        """What stands in for a block: the wall clock as it was at the start, and from then on the one that only rises.

        Payments and looks at the balance are put in order by it, which a step of the wall clock must not change.
        """
        return self._ahead_ms + int(self._runtime.monotonic() * 1000)

    def begin_after(self, moment_ms: int) -> None:
        """The books know this moment: later ones follow it, though the wall clock was set back while nobody ran."""
        self._ahead_ms = max(self._ahead_ms, moment_ms + 1 - int(self._runtime.monotonic() * 1000))

    def _param(self, name: str, default: int) -> int:
        return int(self._network.param(name, default))

    def _earliest_and_latest_ms(self) -> tuple[int, int]:
        """Now by the wall clock and by the one that only rises, the earlier first. A step may be an error or mend one: what has to be over
        is over by both, and what may still begin may by both, so that a step makes no payment late and gives none more time.
        """
        moments = self._runtime.now_ms(), self._moment_ms()
        return min(moments), max(moments)

    def faults(self) -> list[str]:
        """What is wrong with which node, for people."""
        return self._nodes.faults()

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure: whether it has expired is asked later. A memo has no place here and is dropped. Raises InvalidDestination, also as OwnAddress."""
        del memo
        invoice = codec.parse(text, self._network.chain_id)
        if invoice.payee == self._node:
            raise OwnAddress("The invoice is this gateway's own node's; give one of the recipient's wallet.")
        return Destination(invoice.text, units=invoice.amount_msat, once=f"lightning:{invoice.payment_hash}")

    async def estimate(self, token: Token) -> FeeEstimate:
        """The house bears the routing, so a transfer costs 0 here. Raises NodeUnreachable when the node does not answer."""
        self._check(token)
        await self._purse()
        now_ms = self._runtime.now_ms()
        return FeeEstimate(token.id, 0, self.fee_max, self._terms(self.fee_max, 0), now_ms, now_ms + HOLDS_MS)

    def _terms(self, fee_limit_msat: int, send_by_ms: int) -> dict[str, int]:
        return {
            "fee_limit_msat": fee_limit_msat,
            "cltv_limit": self._param("cltv_limit", 1_008),
            "timeout_s": self._param("pay_timeout_s", 60),
            "send_by_ms": send_by_ms,
        }

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """For each payment its own fee limit and the time by which it must have been sent, or why it cannot be. Raises NodeUnreachable."""
        del sender
        self._check(token)
        purse, answers = await self._purse(), list[FeeEstimate | Unpayable]()
        left = purse.sendable_msat
        for payment in payments:
            answer = self._prepared(payment, fees, purse, left)
            answers.append(answer)
            if isinstance(answer, FeeEstimate):
                left -= payment.units + answer.fee_cap
        return answers

    def _prepared(self, payment: Payment, fees: FeeEstimate, purse: Purse, left: int) -> FeeEstimate | Unpayable:
        invoice, (earliest_ms, latest_ms) = codec.parse(payment.recipient, self._network.chain_id), self._earliest_and_latest_ms()
        limit = max(self._param("fee_limit_sat", 10) * MSAT, payment.units * self._param("fee_limit_ppm", 10_000) // 10**6)
        limit = min(limit, self.fee_max)
        floor = max(purse.fee_floor_msat, -(-payment.units * purse.fee_floor_ppm // 10**6))
        if problem := _mismatch(invoice, payment):
            return Unpayable(problem, for_ever=True)
        begin_by_ms = (invoice.expires_s - EXPIRY_MARGIN_S) * 1000
        if earliest_ms >= begin_by_ms:
            return Unpayable("the invoice has expired, or is about to", for_ever=True)
        if latest_ms >= begin_by_ms:
            return Unpayable("the invoice may have expired: this machine's clock was stepped, and was right either before or after that")
        if invoice.amount_msat is None and not purse.opens:
            return Unpayable("the node pays no invoice without an amount", for_ever=True)
        if floor > self.fee_max:
            return Unpayable(f"the node may pay up to {floor // MSAT} satoshi for routing, and fee_max is less")
        cap = max(limit, floor)
        if payment.units + cap > left:
            return Unpayable(
                f"the node's channels can send {max(0, left) // MSAT} satoshi now, and this takes {(payment.units + cap) // MSAT}",
                short=True,
            )
        send_by_ms = min(latest_ms + self._param("send_window_s", 3_600) * 1000, (invoice.expires_s - EXPIRY_MARGIN_S // 2) * 1000)
        return FeeEstimate(fees.token_id, 0, cap, self._terms(cap, send_by_ms), fees.at_ms, fees.holds_until_ms)

    def _check(self, token: Token) -> None:
        if not token.is_native or token.decimals != DECIMALS:
            raise ValueError(f"Lightning carries one coin, with {DECIMALS} decimals")

    async def heads(self) -> Heads:
        """The block height of the node, twice. Raises NodeUnreachable."""
        height = (await self._purse()).height
        return Heads(height, height, self._runtime.now_ms())

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """What is ours in the node's channels, no earlier than the moment that stands as block. Raises NodeUnreachable."""
        if address != self._node:
            raise ValueError("a Lightning lane's address is its node's identity")
        at_ms = self._moment_ms()
        purse = await self._purse()
        units = {token.id: purse.owned_msat for token in tokens if token.is_native}
        return Holdings(at_ms, units, clocked=True, steady=purse.steady)

    async def _purse(self) -> Purse:
        """Raises NodeUnreachable, also when addresses that lead to one node differ on what it owns."""
        purses = await self._of_addresses(Call(PURSE), Purse)
        if len({purse.owned_msat for purse in purses if purse.steady}) > 1:
            raise NodeUnreachable("the addresses of the node differ on what is in its channels")
        return next((purse for purse in purses if not purse.steady), purses[0])

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: one payment, which owns its payment hash. Raises Unpayable."""
        self._check(token)
        if len(payments) != 1:
            raise ValueError("a Lightning payment pays exactly one invoice")
        net = self._network
        invoice = codec.parse(payments[0].recipient, net.chain_id)
        if problem := _mismatch(invoice, payments[0]):
            raise Unpayable(problem, for_ever=True)
        if not fees.terms["send_by_ms"]:
            raise ValueError("a Lightning payment is bound on what `prepare` said of it")
        return Intent(
            attempt_id=attempt_id,
            version=1,
            kind="pay",
            chain=net.chain,
            family=net.family,
            chain_id=net.chain_id,
            sender=lane.address,
            slot=lane.slot,
            token_id=token.id,
            contract=None,
            payments=tuple(payments),
            terms=dict(fees.terms),
            fee_cap=fees.fee_cap,
            resources=(Resource(invoice.payment_hash),),
        )

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """None: a payment that is in flight can be neither changed nor called back."""
        del intent, fees, version, cancel
        return None

    async def withheld(self, raw: bytes) -> str:
        """Why these bytes are not given to the node: it does not answer, or their time is over. What it knows may be: `submit` only looks."""
        try:
            order = codec.decode(raw, self._network.chain_id)
        except codec.InvalidOrder:
            return ""  # for `submit` to refuse
        try:
            seen = await self._look(order, self._memories.of(order.payment_hash))
        except NodeUnreachable as error:
            return str(error)
        return TOO_LATE if seen.fate is Fate.UNKNOWN and self._is_too_late(order) else ""

    def _is_too_late(self, order: PayOrder) -> bool:
        return self._earliest_and_latest_ms()[1] >= order.send_by_ms

    async def submit(self, raw: bytes) -> Submission:
        """Once to the node, unless it knows the hash already. REFUSED by our own decoder alone."""
        try:
            order = codec.decode(raw, self._network.chain_id)
        except codec.InvalidOrder as error:
            return Submission(Verdict.REFUSED, f"these bytes can never be paid on {self._network.chain}: {error}")
        if order.node != self._node:
            return Submission(Verdict.UNKNOWN, f"they are for node {order.node}, and {self._node} is configured")
        memory = self._memories.of(order.payment_hash)
        async with memory.lock:
            try:
                return await self._submit(order, memory)
            except NodeUnreachable as error:
                return Submission(Verdict.UNKNOWN, str(error))
            finally:
                memory.last_call = self._runtime.monotonic()

    async def _submit(self, order: PayOrder, memory: Memory) -> Submission:
        """One at a time for a hash. Raises NodeUnreachable."""
        seen = await self._look(order, memory)
        if seen.fate is not Fate.UNKNOWN:
            return Submission(Verdict.ACCEPTED, f"the node knows it already: {seen.fate.value}")
        if memory.known:
            return Submission(Verdict.UNKNOWN, "the node knew this payment and does not know it any more; it is not sent again")
        if self._is_too_late(order):
            return Submission(Verdict.UNKNOWN, TOO_LATE)
        memory.sent += 1
        memory.unanswered += 1
        # To one address alone, the one that just answered: a call that stays without an answer there may still arrive, and has to be counted.
        (answer,) = await self._nodes.ask(self._nodes.usable()[0], [Call(SEND, (order,))])
        said = _is(Submission)(answer)
        if said.verdict is Verdict.ACCEPTED:
            memory.known = True
            memory.unanswered -= 1
        return said

    async def _look(self, order: PayOrder, memory: Memory) -> Sighting:
        seen = together(order, await self._of_addresses(Call(LOOK, (order.payment_hash, order.amount_msat)), Sighting), needed=self._needed)
        if seen.fate is not Fate.UNKNOWN:
            memory.known = True
        if seen.fate is not Fate.FAILED:
            memory.failed_since = None
        return seen

    @property
    def _needed(self) -> int:
        """How many addresses must say what ends a payment without a preimage."""
        return min(2, len(self._nodes))

    async def _of_addresses(self, call: Call, kind: type[T]) -> list[T]:
        """What each address of the node answers. Raises NodeUnreachable when none does."""
        found: list[T] = []
        last = NodeUnreachable("no address of the node answers")
        for node in self._nodes.healthy():
            try:
                (answer,) = await self._nodes.ask(node, [call])
                found.append(_is(kind)(answer))
            except NodeUnreachable as error:
                last = error
        if not found:
            raise last
        return found

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of a payment. Raises NodeUnreachable."""
        if not versions:
            raise ValueError("an attempt that is observed has at least one version")
        order = codec.decode(versions[-1].raw, self._network.chain_id)
        if order.node != self._node:
            return Suspicious(f"it was given to node {order.node}, and {self._node} is configured: only that one knows what became of it")
        memory = self._memories.of(order.payment_hash)
        seen = await self._look(order, memory)
        match seen.fate:
            case Fate.SETTLED:
                return self._settled(order, seen)
            case Fate.PENDING:
                return Pending()
            case Fate.FAILED if memory.certainly_failed(self._runtime.monotonic()):
                return FailedOnChain(order.payment_hash, self._moment_ms(), 0, f"the node could not pay it: {seen.detail}")
            case Fate.FAILED:
                return Pending()
            case Fate.UNKNOWN:
                return self._unknown(order, memory, given=versions[-1].given)

    def _settled(self, order: PayOrder, seen: Sighting) -> Observation:
        if not _opens(seen.preimage, order):
            return Suspicious("the node says paid, and its preimage does not hash to the payment hash")
        if seen.amount_msat != order.amount_msat:
            return Suspicious(f"the node paid {seen.amount_msat} millisatoshi, and {order.amount_msat} were ordered")
        if seen.fee_msat > order.fee_limit_msat:
            return Suspicious(f"routing cost {seen.fee_msat} millisatoshi, and the limit was {order.fee_limit_msat}")
        return FinalOnChain(order.payment_hash, self._moment_ms(), seen.fee_msat, "settled: the recipient gave the preimage for it")

    def _unknown(self, order: PayOrder, memory: Memory, *, given: bool) -> Observation:
        if memory.known:
            return Suspicious("the node knew this payment and does not know it any more: its records were lost or deleted")
        over_ms = self._earliest_and_latest_ms()[0] - order.send_by_ms
        if not given and not memory.sent:
            # A standby that took over may lack the last record: a call of before it did has arrived by then, and the node knows it.
            is_over = over_ms >= QUIET_UNSURE_S * 1000
            return FailedOnChain(order.payment_hash, self._moment_ms(), 0, NEVER_GIVEN) if is_over else Absent()
        if over_ms >= 0:
            return Suspicious(NOT_KNOWN, alone=True)
        return Absent()


def together(order: PayOrder, seen: Sequence[Sighting], *, needed: int) -> Sighting:
    """What the addresses of one node say together. A preimage is proof whoever brings it; all else they must say alike, and a failure as
    many of them as are needed: one that lies would let the order be paid again. Pure.
    """
    paid = [it for it in seen if it.fate is Fate.SETTLED and _opens(it.preimage, order)]
    if len({(it.amount_msat, it.fee_msat) for it in paid}) == 1:
        return paid[0]
    if len({it.fate for it in seen}) > 1 or paid:
        return Sighting(Fate.PENDING, detail="the addresses of the node differ on it")
    if seen[0].fate is Fate.FAILED and len(seen) < needed:
        return Sighting(Fate.PENDING, detail="called failed by one address of the node, and the others do not answer")
    return seen[0]


def _opens(preimage: str, order: PayOrder) -> bool:
    """Whether it is the preimage of the payment hash."""
    return _PREIMAGE.fullmatch(preimage) is not None and hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == order.payment_hash


def _mismatch(invoice: Invoice, payment: Payment) -> str:
    if invoice.amount_msat not in (None, payment.units):
        return f"the invoice asks for {(invoice.amount_msat or 0) // MSAT} satoshi, and {payment.units // MSAT} are to be paid"
    return "only whole satoshi can be paid" if payment.units % MSAT or not payment.units else ""


def _is(kind: type[T]) -> Callable[[object], T]:
    """A check that an answer is what the talk promised: its adapters have looked into it already."""

    def check(answer: object) -> T:
        if not isinstance(answer, kind):
            raise BadAnswer("not what was asked")
        return answer

    return check
