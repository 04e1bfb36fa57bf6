"""What a transfer costs now, and the terms to bind it with: energy, bandwidth, a new account, and how long it lives.

TRX is burnt for what staking and the day's free bandwidth do not cover. Where a recipient is not known yet, one that holds nothing is
taken: filling an empty balance of USDT costs twice the energy. `fee_limit` bounds the energy of a call whether it is burnt or staked,
so it is set by what the call needs; the cap is that and what its bytes and a new account may cost.
https://developers.tron.network/docs/resource-model https://developers.tron.network/docs/set-feelimit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock.core.intent import Intent, Payment
from penstock.core.money import Network, Token
from penstock.rails.base import FeeEstimate, Unpayable
from penstock.rails.rpc import BadAnswer, Call, NodeRefused, Nodes
from penstock.rails.tron import codec
from penstock.rails.tron.answers import Block, Called, Prices, Resources, account_kind_of, block_of, called_of, prices_of, resources_of
from penstock.rails.tron.watch import HEAD_CALLS
from penstock.runtime import Runtime

LIFE_MS: Final = 480_000
"""Eight minutes from the newest block: long enough for a node to come back, short enough to try again (failure model, section 5)."""
HOLDS_MS: Final = 60_000
"""An intent is bound within this, so that it has at least five minutes left."""
CLOCK_DIFFERENCE_MAX_MS: Final = 3_600_000
"""A node whose newest block is further from this machine's clock is not believed: what it says would live for hours, or be dead at once."""
PRICES_S: Final = 60.0
ENERGY_S: Final = 60.0
ENERGY_MARGIN_PERCENT: Final = 130
"""A contract that is much used asks more energy from one maintenance period to the next (dynamic energy model)."""
ENERGY_UNKNOWN: Final = 135_000
"""A transfer of USDT to somebody new, when no call could be tried: the treasury holds none yet."""
ENERGY_LEAST: Final = 10_000
"""No transfer of a token runs on less, whatever a node says."""
NET_MARGIN_PERCENT: Final = 150
FLOOR: Final = Prices(energy=100, byte=1_000, account=1_000_000, account_bandwidth=100_000, fee_limit_max=10**9)
"""What the network asked in 2026. Bytes and accounts are burnt whatever the transaction says, so that a cap below this would not hold."""
TRANSFER: Final = "transfer(address,uint256)"

_PROBE: Final = codec.address_of_hex("41" + codec.transaction_id(b"penstock: a recipient that holds nothing yet")[:40])
_ATTEMPT_LONGEST: Final = codec.INT64_MAX


@dataclass(frozen=True, slots=True)
class Market:
    """What one node said at one moment: the reference block, the newest block, prices, and what the sender need not burn. `dearest` is the
    most that any node asks: limits are made of it, so that they hold also where a node names less than the network takes.
    """

    anchor: Block
    head: Block
    prices: Prices
    dearest: Prices
    resources: Resources


@dataclass(frozen=True, slots=True)
class Need:
    """What one payment uses: energy, and sun for a new account."""

    energy: int = 0
    new_account: bool = False


class Fees:
    """Estimates of one network."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime, *, sender: str, fee_max: int) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._sender = sender
        self._fee_max = fee_max
        self._prices: tuple[float, Prices, Prices] | None = None
        self._energy: dict[str, tuple[float, int]] = {}

    async def estimate(self, token: Token) -> FeeEstimate:
        """Raises NodeUnreachable, also when a node asks for more than is believed."""
        market = await self._market(self._sender)
        need = Need() if token.contract is None else Need(await self._energy_of(token.id, token.contract))
        return self._fitted(token, Payment(0, _PROBE, "", 10**12), self._sender, market, need)

    async def for_recipients(self, payments: Sequence[Payment], token: Token, sender: str) -> list[FeeEstimate | Unpayable]:
        """An estimate for each payment, with a fresh reference block, today's prices and what its own recipient needs. Raises
        NodeUnreachable.
        """
        self._prices = None  # a transaction has one version: what it may cost is decided here
        market = await self._market(sender)
        needs = await (self._native(payments) if token.contract is None else self._calls(payments, token.contract, sender))
        return [
            need if isinstance(need, Unpayable) else self._fitted(token, payment, sender, market, need)
            for payment, need in zip(payments, needs, strict=True)
        ]

    async def _market(self, sender: str) -> Market:
        prices, dearest = await self._prices_now()
        resources = Call("wallet/getaccountresource", ({"address": codec.account_hex(sender)},))

        def checked(answer: object) -> Block:
            block = block_of(answer)
            if abs(block.time_ms - self._runtime.now_ms()) > CLOCK_DIFFERENCE_MAX_MS:
                raise BadAnswer("its newest block is more than an hour away from this machine's clock")
            return block

        head, anchor, left = await self._nodes.read_many([*HEAD_CALLS, resources], [checked, block_of, resources_of])
        return Market(anchor, head, prices, dearest, left)

    async def _prices_now(self) -> tuple[Prices, Prices]:
        """Those of the first node with a usable answer, and the dearest of all that answer. Raises NodeUnreachable."""
        now = self._runtime.monotonic()
        if self._prices is None or now - self._prices[0] > PRICES_S:
            found = await self._nodes.each(Call("wallet/getchainparameters", ({},)), prices_of)
            self._prices = now, found[0], _dearest([*found, FLOOR])
        return self._prices[1], self._prices[2]

    def _fitted(self, token: Token, payment: Payment, sender: str, market: Market, need: Need) -> FeeEstimate:
        """Cost, cap and terms that keep within the cap. A cost above the cap says that nothing can be sent now."""
        prices, dearest, left = market.prices, market.dearest, market.resources
        terms = {
            "ref_block": market.anchor.number,
            "ref_block_hash": int(market.anchor.id[16:32], 16),
            "expiration": market.head.time_ms + LIFE_MS,
            "net_fee_max": 0,
        }
        if token.contract is not None:
            terms["fee_limit"] = 1
        points = codec.bandwidth(codec.build(self._sample(token, payment, sender, terms)))
        net_most = points * dearest.byte
        if need.new_account:
            net = prices.account + (0 if points <= left.bandwidth else prices.account_bandwidth)
            net_most = dearest.account + max(dearest.account_bandwidth, net_most)
        else:
            net = 0 if points <= max(left.bandwidth, left.bandwidth_free) else points * prices.byte
        terms["net_fee_max"] = net_most * NET_MARGIN_PERCENT // 100
        cost = net + max(0, need.energy - left.energy) * prices.energy
        cap = terms["net_fee_max"]
        if token.contract is not None:
            least = need.energy * prices.energy
            limit = min(need.energy * ENERGY_MARGIN_PERCENT // 100 * dearest.energy, dearest.fee_limit_max, self._fee_max - cap)
            if limit < least:
                cost = max(cost, least + cap)  # above any cap: it would run out of energy
            terms["fee_limit"] = max(1, limit)
            cap += terms["fee_limit"]
        if cap > self._fee_max:
            cost = max(cost, cap)
        now_ms = self._runtime.now_ms()
        return FeeEstimate(token.id, cost, min(cap, self._fee_max), terms, now_ms, now_ms + HOLDS_MS)

    def _sample(self, token: Token, payment: Payment, sender: str, terms: Mapping[str, int]) -> Intent:
        """A transfer at least as long in bytes as the real one."""
        net, longest = self._network, dict(terms) | ({"fee_limit": self._fee_max} if token.contract is not None else {})
        payments, cap = (payment,), 2**62
        return Intent(
            _ATTEMPT_LONGEST, 1, "pay", net.chain, net.family, net.chain_id, sender, 0, token.id, token.contract, payments, longest, cap
        )

    async def _native(self, payments: Sequence[Payment]) -> list[Need | Unpayable]:
        """Who has no account yet pays for one; a contract takes no TRX by a plain transfer.

        https://developers.tron.network/docs/account#account-activation
        """
        said = await self._nodes.each_many(
            [_account(payment.recipient) for payment in payments],
            [partial(account_kind_of, address=payment.recipient) for payment in payments],
        )
        # New by the word of one is new: the cap has to hold where an account is made and a node said that it was there.
        kinds = ["new" if "new" in of_one else of_one[0] for of_one in zip(*said, strict=True)]
        return [
            Unpayable("the recipient is a contract, and TRON takes no plain transfer of TRX to one")
            if kind == "contract"
            else Need(new_account=kind == "new")
            for kind in kinds
        ]

    async def _calls(self, payments: Sequence[Payment], contract: str, sender: str) -> list[Need | Unpayable]:
        """The energy of each payment, by trying it; what the contract refuses, though the treasury has enough, is not sent."""
        calls = [_transfer(contract, sender, payment.recipient, payment.units) for payment in payments]
        answers = await self._nodes.each_many(calls, [called_of] * len(calls))
        tried = [_most_used(said) for said in zip(*answers, strict=True)]
        # One node alone may name too little: the payment would run out of energy.
        least = ENERGY_LEAST if self._nodes.enough(answers) else ENERGY_UNKNOWN
        if all(call.ran for call in tried):
            return [Need(max(call.energy, least)) for call in tried]
        held = await self._nodes.read(balance_call("wallet", contract, sender), called_of)
        return [
            Need(max(call.energy, least))
            if call.ran
            else Unpayable("the token's contract refuses this transfer")
            if held.word is not None and held.word >= payment.units and not call.missing
            else Need(ENERGY_UNKNOWN)  # the treasury is short: that is for the order room to see
            for payment, call in zip(payments, tried, strict=True)
        ]

    async def _energy_of(self, token_id: str, contract: str) -> int:
        """Of a transfer to somebody who holds nothing; it hardly ever changes."""
        known = self._energy.get(token_id)
        if known is None or self._runtime.monotonic() - known[0] > ENERGY_S:
            try:
                called = _most_used(await self._nodes.each(_transfer(contract, self._sender, _PROBE, 1), called_of))
            except NodeRefused:
                called = Called(ran=False, energy=0, word=None)
            # A call that was refused shows nothing: the treasury has no such token yet.
            energy = max(called.energy, ENERGY_LEAST) if called.ran else ENERGY_UNKNOWN
            known = self._energy[token_id] = self._runtime.monotonic(), energy
        return known[1]


def _most_used(said: Sequence[Called]) -> Called:
    """The call that took most, of those that ran: a node that names too little would let the payment run out of energy."""
    return max((call for call in said if call.ran), key=lambda call: call.energy, default=said[0])


def _dearest(prices: Sequence[Prices]) -> Prices:
    """The most of each price."""
    return Prices(
        energy=max(one.energy for one in prices),
        byte=max(one.byte for one in prices),
        account=max(one.account for one in prices),
        account_bandwidth=max(one.account_bandwidth for one in prices),
        fee_limit_max=max(one.fee_limit_max for one in prices),
    )


def _account(address: str) -> Call:
    # Solidified: who makes an account pays for it, and a block that is undone may leave that to another of our payments.
    return Call("walletsolidity/getaccount", ({"address": codec.account_hex(address)},))


def _transfer(contract: str, sender: str, recipient: str, units: int) -> Call:
    parameter = codec.transfer_call_data(recipient, units)[4:].hex()
    return Call("wallet/triggerconstantcontract", (_constant(contract, sender, TRANSFER, parameter),))


def balance_call(half: str, contract: str, owner: str) -> Call:
    """`balanceOf(owner)` on one half of a node, "wallet" or "walletsolidity"; see `called_of`."""
    parameter = codec.balance_of_call_data(owner)[4:].hex()
    return Call(f"{half}/triggerconstantcontract", (_constant(contract, owner, "balanceOf(address)", parameter),))


def _constant(contract: str, owner: str, selector: str, parameter: str) -> dict[str, str]:
    return {
        "owner_address": codec.account_hex(owner),
        "contract_address": codec.account_hex(contract),
        "function_selector": selector,
        "parameter": parameter,
    }
