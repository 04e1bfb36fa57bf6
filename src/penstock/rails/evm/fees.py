"""What a transfer costs now, and the fee terms to bind it with. Every number of a node is bounded before it counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from penstock.core.intent import Intent, Kind, Payment
from penstock.core.money import Network, Token
from penstock.rails.base import FeeEstimate
from penstock.rails.evm import codec
from penstock.rails.rpc import BadAnswer, Call, NodeRefused, Nodes, mapping, quantity
from penstock.runtime import Runtime

HISTORY_BLOCKS: Final = 20
MARKET_S: Final = 1.0
GAS_S: Final = 60.0
"""How long the gas that a transfer uses holds; it hardly ever changes."""
HOLDS_MS: Final = 60_000
BASE_FEE_HEADROOM: Final = 2
"""Six full blocks in a row double the base fee (EIP-1559)."""
CAP_MULTIPLE: Final = 10
CAP_FLOOR_PART: Final = 50
"""The cap of a cheap moment is not below this part of `fee_max`: a price that was near nothing may rise a hundredfold."""

WEI_BITS: Final = 96
GAS_BITS: Final = 40


@dataclass(frozen=True, slots=True)
class Gas:
    """What a transfer uses, and the limit to give it."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class GasRules:
    """Bounds and headroom of gas on one network; networks where L1 data are charged as gas need more of both."""

    margin_percent: int
    native_max: int
    token_max: int
    token_unknown: Gas
    contract_max: int
    contract_unknown: Gas


PLAIN_GAS: Final = GasRules(130, 21_000, 300_000, Gas(65_000, 100_000), 300_000, Gas(60_000, 100_000))
VARYING_GAS: Final = GasRules(150, 3_000_000, 5_000_000, Gas(300_000, 1_000_000), 5_000_000, Gas(300_000, 1_000_000))


@dataclass(frozen=True, slots=True)
class Market:
    """Prices per gas in wei: what is paid at least right now, and the fee fields to bind with."""

    now: int
    terms: Mapping[str, int]


class Fees:
    """Estimates of one network."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime, *, sender: str, fee_max: int) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._sender = sender
        self._fee_max = fee_max
        self._rules = VARYING_GAS if network.param("gas_varies", False) else PLAIN_GAS
        self._price_max = int(network.param("gas_price_max_wei", 10**13))
        self._priority_min = int(network.param("priority_fee_min_wei", 0))
        self._market: tuple[float, Market] | None = None
        self._gas: dict[str, tuple[float, Gas]] = {}

    async def estimate(self, token: Token) -> FeeEstimate:
        """Raises NodeUnreachable, also when a node asks for more than is believed."""
        market = await self._prices()
        gas = await self._gas_of(token)
        return self._fitted(token.id, market, gas, await self._l1_fee(token, market, gas))

    async def for_recipients(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate]:
        """An estimate for each payment of the native coin: a recipient that is a contract may need more gas than a plain account."""
        codes = await self._nodes.read_many(
            [Call("eth_getCode", (payment.recipient, "latest")) for payment in payments], [_is_code] * len(payments)
        )
        if not any(codes):
            return [fees] * len(payments)
        market = await self._prices()
        found = []
        for payment, is_contract in zip(payments, codes, strict=True):
            gas = await self._gas_of_contract(payment, sender) if is_contract else None
            l1_fee = fees.terms.get("l1_fee", 0) // 2
            found.append(fees if gas is None else self._fitted(token.id, market, gas, l1_fee))
        return found

    def _fitted(self, token_id: str, market: Market, gas: Gas, l1_fee: int) -> FeeEstimate:
        """Cost, cap and terms that keep within the cap. A cost above the cap says that nothing can be sent now."""
        cost = gas.used * market.now + l1_fee
        cap = min(self._fee_max, max(CAP_MULTIPLE * cost, self._fee_max // CAP_FLOOR_PART))
        terms = {"gas_limit": gas.limit, **market.terms}
        l1_most = 2 * l1_fee
        if self._network.param("op_stack", False):
            terms["l1_fee"] = l1_most
        field = "gas_price" if "gas_price" in terms else "max_fee_per_gas"
        affordable = (cap - l1_most) // gas.limit
        if affordable < market.now:
            cost = max(cost, gas.limit * market.now + l1_most)
        elif affordable < terms[field]:
            terms[field] = affordable
        now_ms = self._runtime.now_ms()
        return FeeEstimate(token_id, cost, cap, terms, now_ms, now_ms + HOLDS_MS)

    async def _prices(self) -> Market:
        now = self._runtime.monotonic()
        if self._market is None or now - self._market[0] > MARKET_S:
            self._market = now, await (self._legacy() if self._network.param("fee_model") == "legacy" else self._dynamic())
        return self._market[1]

    async def _legacy(self) -> Market:
        asked = await self._nodes.read(Call("eth_gasPrice"), lambda answer: self._believed(quantity(answer, WEI_BITS)))
        price = max(asked, self._priority_min)
        return Market(price, {"gas_price": min(self._price_max, -(-price * 11 // 10))})

    async def _dynamic(self) -> Market:
        call = Call("eth_feeHistory", (hex(HISTORY_BLOCKS), "latest", [50]))
        base, offered = await self._nodes.read(call, self._history)
        priority = min(max(offered, self._priority_min), max(self._priority_min, self._price_max - base))
        most = min(max(self._price_max, base + priority), BASE_FEE_HEADROOM * base + priority)
        return Market(base + priority, {"max_fee_per_gas": most, "max_priority_fee_per_gas": priority})

    def _history(self, answer: object) -> tuple[int, int]:
        """Base fee of the next block, and the median tip of blocks that had any. https://ethereum.github.io/execution-apis/"""
        history = mapping(answer)
        bases, rewards = history.get("baseFeePerGas"), history.get("reward") or []
        if not isinstance(bases, list) or not 1 <= len(bases) <= HISTORY_BLOCKS + 1:
            raise BadAnswer("no base fees")
        if not isinstance(rewards, list) or any(not isinstance(row, list) or len(row) != 1 for row in rewards):
            raise BadAnswer("no tips")
        tips = [tip for row in rewards[:HISTORY_BLOCKS] if (tip := quantity(row[0], WEI_BITS))]
        return self._believed(quantity(bases[-1], WEI_BITS)), int(statistics.median_low(tips)) if tips else 0

    def _believed(self, price: int) -> int:
        if price > self._price_max:
            raise BadAnswer(f"it asks {price} wei per gas, and no more than {self._price_max} is believed")
        return price

    async def _gas_of(self, token: Token) -> Gas:
        if token.is_native and self._rules is PLAIN_GAS:
            return Gas(codec.GAS_PLAIN, codec.GAS_PLAIN)
        known = self._gas.get(token.id)
        if known is None or self._runtime.monotonic() - known[0] > GAS_S:
            known = self._gas[token.id] = self._runtime.monotonic(), await self._ask_gas(token)
        return known[1]

    async def _ask_gas(self, token: Token) -> Gas:
        """Paying somebody new costs the most: a storage slot is filled for the first time. Whoever could tell which address is asked about
        could give it a base unit, and then every payment to somebody new would run out of gas.
        """
        nobody = _somebody_new(f"{self._sender} {self._runtime.now_ms()}")
        data = "" if token.contract is None else "0x" + codec.transfer_call_data(nobody, 1).hex()
        transfer = {"from": self._sender, "to": token.contract or nobody} | ({"data": data} if data else {})
        most = self._rules.native_max if token.is_native else self._rules.token_max
        try:
            # The most that any node names: one that names too little would let the payment run out of gas.
            said = await self._nodes.each(Call("eth_estimateGas", (transfer,)), _at_most(most))
        except NodeRefused:
            # The treasury has no such token yet, so the call reverts.
            return self._rules.token_unknown
        limit = min(most, max(said) * self._rules.margin_percent // 100)
        return Gas(max(said), limit if self._nodes.enough(said) else max(limit, self._rules.token_unknown.limit))

    async def _gas_of_contract(self, payment: Payment, sender: str) -> Gas:
        transfer = {"from": sender, "to": payment.recipient, "value": hex(payment.units)}
        most = self._rules.contract_max
        try:
            said = await self._nodes.each(Call("eth_estimateGas", (transfer,)), lambda answer: quantity(answer, GAS_BITS))
        except NodeRefused:
            # It would refuse the coins now, or the treasury is short; what the chain says at last is what counts.
            return self._rules.contract_unknown
        used = min(max(*said, codec.GAS_PLAIN), most)
        limit = min(most, used * self._rules.margin_percent // 100)
        return Gas(used, limit if self._nodes.enough(said) else max(limit, self._rules.contract_unknown.limit))

    async def _l1_fee(self, token: Token, market: Market, gas: Gas) -> int:
        """What the L1 part costs now; on OP-stack networks alone. https://docs.optimism.io/stack/transactions/fees"""
        if not self._network.param("op_stack", False):
            return 0
        data = "0x" + codec.get_l1_fee_call_data(codec.encode_unsigned(self._sample(token, market, gas))).hex()
        call = Call("eth_call", ({"to": codec.GAS_PRICE_ORACLE, "data": data}, "latest"))
        return await self._nodes.read(call, self._oracle_answer)

    def _oracle_answer(self, answer: object) -> int:
        if answer == "0x" and self._network.is_test:
            return 0  # a test chain without the predeploy has no L1 either
        fee = codec.decode_uint256(str(answer))
        if fee.bit_length() > WEI_BITS:
            raise BadAnswer("an L1 fee beyond any that can be")
        return fee

    def _sample(self, token: Token, market: Market, gas: Gas) -> codec.UnsignedTransaction:
        """A transfer as long in bytes as a real one."""
        payment = Payment(0, _somebody_new("a sample"), "", 10**18 if token.is_native else 123_456_789)
        terms = {"gas_limit": gas.limit, **market.terms}
        net = self._network
        intent = Intent(
            0, 1, "pay", net.chain, net.family, net.chain_id, self._sender, 10_000, token.id, token.contract, (payment,), terms, 2**255
        )
        return codec.build(intent)


def _somebody_new(of: str) -> str:
    """An address that nobody has the key of."""
    return codec.checksum("0x" + codec.keccak256(f"penstock: a recipient that holds nothing yet, {of}".encode())[12:].hex())


def bumped(intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool, plain_gas: bool) -> Intent | None:
    """Both fee fields raised by an eighth or to the market, whichever is more; None when the cap forbids the eighth.

    Nodes want 10 % on both fields and strictly more (geth, pricebump).
    """
    market = fees.terms if fees is not None else {}
    terms = dict(intent.terms)
    if cancel and plain_gas:
        terms["gas_limit"] = codec.GAS_PLAIN
    if "l1_fee" in terms:
        terms["l1_fee"] = max(terms["l1_fee"], market.get("l1_fee", 0) * (1 if cancel else max(1, len(intent.payments))))
    affordable = (intent.fee_cap - terms.get("l1_fee", 0)) // terms["gas_limit"]
    for name in ("gas_price", "max_fee_per_gas", "max_priority_fee_per_gas"):
        if name in terms:
            least = max(-(-terms[name] * 9 // 8), terms[name] + 1)
            if least > affordable:
                return None
            terms[name] = min(max(least, market.get(name, 0)), affordable)
    kind: Kind = "cancel" if cancel else "pay" if intent.payments else "open"
    return replace(intent, version=version, kind=kind, terms=terms)


def _at_most(most: int) -> Callable[[Any], int]:
    def check(answer: Any) -> int:
        used = quantity(answer, GAS_BITS)
        if not codec.GAS_PLAIN <= used <= most:
            raise BadAnswer(f"a plain transfer that takes {used} gas")
        return used

    return check


def _is_code(answer: object) -> bool:
    if not isinstance(answer, str) or not answer.startswith("0x"):
        raise BadAnswer("no code")
    return answer != "0x"
