"""Which coins an attempt takes, how its change is cut, and what it pays: `bind` and `bump`. Pure.

An attempt takes coins for its payments, its whole fee cap and change above dust. So every later version pays its higher fee out of the
change, spends the very same coins, and conflicts with every other version; and no version is ever without change.

A parent is never helped by a child (CPFP) here. Every version is ours and replaceable, so a higher fee on the same coins buys the same rate
for fewer bytes than a child would; a child would spend a coin that is in no block, would be a transaction of no attempt, and would die
with the version it hangs on. Where replacement ends, a child would end too, because the cap bounds both: at the cap the newest version stays
with the nodes, is sent again when they drop it, and lands when the market comes down to it. What an outsider can do is to hang heavy children on an
output of ours, so that a replacement has to outbid them all (BIP-125, rule 3); the fee then climbs step by step to the cap, and rests there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import Network, Token, plain
from penstock.rails.base import FeeEstimate, LaneView, NotEnough, Unpayable
from penstock.rails.bitcoin.script import DUST, WEIGHT, kind_of
from penstock.rails.bitcoin.transaction import CHANGE_WEIGHT, INPUT_WEIGHT, INPUTS_MAX, PAYMENTS_MAX, vsize_of, weight_of

COINS_WANTED: Final = 8
"""So many free coins let as many transactions be under way at once, since change may be spent only when it is final."""
CUT_MAX: Final = 4
"""Most change outputs of one transaction."""
CUT_WORTH: Final = 100
"""A coin is made only where it holds so many times what making and spending it costs."""
RELAY_RATE: Final = 1_000
"""Satoshi for 1,000 virtual bytes by which a replacement must pay more than what it replaces (-incrementalrelayfee).

https://github.com/bitcoin/bitcoin/blob/master/doc/policy/mempool-replacements.md
"""
TARGET_WEIGHT_MAX: Final = max(WEIGHT.values())
"""The heaviest output: P2WSH or P2TR."""


def fee_at(rate: int, weight: int) -> int:
    """Satoshi of so many weight units at a rate for 1,000 virtual bytes, rounded up."""
    return -(-rate * vsize_of(weight) // 1000)


def single_weight() -> int:
    """The transaction that is quoted: one coin, one payment of the heaviest kind, one change."""
    return weight_of(1, [TARGET_WEIGHT_MAX, CHANGE_WEIGHT])


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a transaction needs, whatever coins it takes."""

    targets: tuple[int, ...]
    paid: int
    rate: int
    rate_cap: int
    fee_max: int

    def weight(self, inputs: int, change: int) -> int:
        """Weight units with so many inputs and change outputs."""
        return weight_of(inputs, [*self.targets, *[CHANGE_WEIGHT] * change])

    def cap(self, inputs: int, change: int) -> int:
        """The most that the whole transaction may cost, in satoshi."""
        return min(self.fee_max, self.rate_cap * self.weight(inputs, change) // 4000)

    def need(self, inputs: int, change: int = 1) -> int:
        """What so many coins must hold together."""
        return self.paid + self.cap(inputs, change) + change * DUST["p2wpkh"]


def bind(
    payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int, network: Network, fee_max: int
) -> Intent:
    """One transaction for all these payments. Raises NotEnough, or Unpayable for a single one."""
    if not 1 <= len(payments) <= PAYMENTS_MAX:
        raise ValueError(f"a Bitcoin transaction makes 1 to {PAYMENTS_MAX} payments")
    targets = _targets(payments, network)
    plan = _Plan(targets, sum(p.units for p in payments), fees.terms["fee_rate"], fees.terms["fee_rate_cap"], fee_max)
    coins = select(lane.coins, plan.need, worth=fee_at(plan.rate_cap, INPUT_WEIGHT))
    change = _cuts(plan, coins, spare=len(lane.coins) - len(coins))
    weight, cap = plan.weight(len(coins), change), plan.cap(len(coins), change)
    fee = fee_at(plan.rate, weight)
    if fee > cap:
        text = f"the transaction would cost {plain(fee, 8)}, and its cap is {plain(cap, 8)}"
        raise Unpayable(text) if len(payments) == 1 else NotEnough(text)
    share = (weight - sum(targets)) // len(payments)
    return Intent(
        attempt_id=attempt_id,
        version=1,
        kind="pay",
        chain=network.chain,
        family=network.family,
        chain_id=network.chain_id,
        sender=lane.address,
        slot=lane.slot,
        token_id=token.id,
        contract=None,
        payments=tuple(replace(p, weight=target + share) for p, target in zip(payments, targets, strict=True)),
        terms={"fee": fee, "change": change},
        fee_cap=cap,
        resources=tuple(coins),
    )


def _targets(payments: Sequence[Payment], network: Network) -> tuple[int, ...]:
    """Weight of each payment's output."""
    weights = []
    for payment in payments:
        problem = problem_of(payment, network)
        if problem is not None:
            raise problem if len(payments) == 1 else NotEnough(str(problem))
        weights.append(WEIGHT[kind_of(payment.recipient, network.chain_id)])
    return tuple(weights)


def problem_of(payment: Payment, network: Network) -> Unpayable | None:
    """Why a payment can never be made."""
    text = dust(payment.units, payment.recipient, network)
    return None if text is None else Unpayable(text, for_ever=True)


def dust(units: int, recipient: str, network: Network) -> str | None:
    """What is said of less than nodes relay to an address, None of enough."""
    least = DUST[kind_of(recipient, network.chain_id)]
    return None if units >= least else f"{plain(units, 8)} is dust, which no node relays; {plain(least, 8)} is the least to this address"


def select(coins: Sequence[Resource], need: Callable[[int], int], *, worth: int) -> list[Resource]:
    """The smallest coin that is enough alone, else the fewest, largest first, the last of them as small as it may be; the same coins give
    the same choice. A coin that holds no more than `worth` is not worth its place. `need` tells what so many must hold. Raises NotEnough.
    """
    useful = sorted((coin for coin in coins if coin.units > worth), key=lambda coin: (-coin.units, coin.name))
    taken: list[Resource] = []
    held = 0
    for place, coin in enumerate(useful[:INPUTS_MAX]):
        wanted = need(len(taken) + 1) - held
        if coin.units >= wanted:
            last = next(other for other in reversed(useful[place:]) if other.units >= wanted)
            return [*taken, last]
        taken.append(coin)
        held += coin.units
    missing = max(1, need(max(1, len(taken))) - held)
    raise NotEnough(f"the coins that are free and final lack {plain(missing, 8)}; change counts again when it is final")


def _cuts(plan: _Plan, coins: Sequence[Resource], *, spare: int) -> int:
    """Into how many coins the change is cut: as many as are wanted, each worth making and as large as what is paid here."""
    least = max(plan.paid, CUT_WORTH * fee_at(plan.rate, CHANGE_WEIGHT + INPUT_WEIGHT))
    held = sum(coin.units for coin in coins)
    for count in range(min(CUT_MAX, COINS_WANTED - spare), 1, -1):
        if held - plan.paid - plan.cap(len(coins), count) >= count * least:
            return count
    return 1


def bump(intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool) -> Intent | None:
    """A version that replaces all earlier ones: at least a quarter and the relay step more, or the market where that is more; None when
    the cap forbids the step. Rules 3 and 4 of BIP-125 count absolute fees. https://github.com/bitcoin/bips/blob/master/bip-0125.mediawiki
    """
    targets = [] if cancel else [WEIGHT[kind_of(p.recipient, intent.chain_id)] for p in intent.payments]
    change, fee = intent.terms["change"], intent.terms["fee"]
    weight = weight_of(len(intent.resources), [*targets, *[CHANGE_WEIGHT] * change])
    least = fee + fee_at(RELAY_RATE, weight)
    if least > intent.fee_cap:
        return None
    market = fee_at(fees.terms["fee_rate"], weight) if fees is not None else 0
    terms = {"fee": min(max(least, -(-fee * 5 // 4), market), intent.fee_cap), "change": change}
    return replace(intent, version=version, kind="cancel" if cancel else "pay", terms=terms)
