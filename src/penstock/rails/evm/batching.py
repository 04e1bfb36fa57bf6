"""Which payments of a token may share a transaction now: PayMany stands, may move the hot address's units, and pays them when it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from penstock.core.intent import Payment
from penstock.core.money import Network, Token
from penstock.rails.base import CannotOpen, FeeEstimate, NodeUnreachable
from penstock.rails.evm import codec
from penstock.rails.evm.fees import GAS_BITS
from penstock.rails.rpc import Call, NodeRefused, Nodes, mapping, quantity
from penstock.runtime import Runtime

log = structlog.get_logger()

PAYMENTS_MAX: Final = 500
HOLDS_S: Final = 60.0
"""How long it holds what a hot address allows, and how large a block is."""
TRIES_MAX: Final = 24
"""Of one lot of orders: how often nodes are asked to find those that keep the others from being paid."""
HEADROOM: Final = 2
"""Bumps must stay under the cap as well."""


class Batching:
    """Of one network. Nothing here decides what is paid: what nodes say wrongly costs company, or a transaction that reverts."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime, *, fee_max: int, needed: int) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._fee_max = fee_max
        self._needed = needed
        self._payments_max = min(PAYMENTS_MAX, int(network.param("batch_max", 1)))
        self._allowed: dict[tuple[str, str], float] = {}
        self._block_gas: tuple[float, int] | None = None

    @property
    def window_ms(self) -> int:
        """How long the oldest order waits for company, in milliseconds."""
        return int(self._network.param("batch_window_ms", 0))

    async def estimates(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate]:
        """`fees` for each payment, with how many may go together. Where nodes do not say that, each goes alone: company never costs a payment."""
        alone = [fees] * len(payments)
        if self._payments_max < 2 or (len(payments) < 2 and not self.window_ms):
            return alone
        try:
            most = self._together(fees, await self._gas_max())
            if most < 2 or not await self._is_allowed(token, sender):
                return alone
            trial = _Trial(self._nodes, token, sender, fees.terms["gas_limit"], needed=self._needed)
            small = [payment for payment in payments if payment.units <= codec.UNITS_MAX]
            lots = [await trial.fit(small[start : start + most]) for start in range(0, len(small), most)]
        except NodeUnreachable as error:
            log.info("batch.untried", chain=self._network.chain, detail=str(error))
            return alone
        fit = {payment.order_id for lot in lots for payment in lot}
        shared = replace(fees, together=most)
        return [shared if payment.order_id in fit else fees for payment in payments]

    def _together(self, fees: FeeEstimate, gas_max: int) -> int:
        """How many transfers a transaction has room for: gas, and the fee cap at the price to bind with and bumps above it."""
        terms = fees.terms
        dearest = terms["gas_limit"] * terms.get("max_fee_per_gas", terms.get("gas_price", 0)) + terms.get("l1_fee", 0)
        return min(self._payments_max, gas_max // terms["gas_limit"], self._fee_max // (HEADROOM * dearest) if dearest else 1)

    async def _gas_max(self) -> int:
        """Half a block by the node that says the least, and never more than a transaction may ask for. Raises NodeUnreachable."""
        known, now = self._block_gas, self._runtime.monotonic()
        if known is None or now - known[0] > HOLDS_S:
            limits = await self._nodes.each(Call("eth_getBlockByNumber", ("latest", False)), _gas_limit)
            known = self._block_gas = now, min(codec.GAS_MAX, *(limit // 2 for limit in limits))
        return known[1]

    async def _is_allowed(self, token: Token, sender: str) -> bool:
        """Raises NodeUnreachable."""
        if token.contract is None:
            return False
        seen, now = self._allowed.get((token.id, sender)), self._runtime.monotonic()
        if seen is not None and now - seen <= HOLDS_S:
            return True
        if found := await self._allowance(token.contract, sender):
            self._allowed[token.id, sender] = now
        return found

    async def _allowance(self, contract: str, sender: str) -> bool:
        data = {"to": contract, "data": "0x" + codec.allowance_call_data(sender, codec.PAY_MANY).hex()}
        try:
            return await self._nodes.agreed(Call("eth_call", (data, "latest")), _is_enough, needed=self._needed)
        except NodeRefused:
            return False  # no such contract here, or one that knows no allowances

    async def unopened(self, address: str, tokens: Sequence[Token]) -> list[Token]:
        """Tokens that the address holds and that PayMany may not move for it; none where each order has a transaction of its own. Raises
        NodeUnreachable, or CannotOpen with what is missing.
        """
        if self._payments_max < 2:
            return []
        chain = self._network.chain
        call = Call("eth_getCode", (codec.PAY_MANY, "latest"))
        if await self._nodes.agreed(call, str, needed=self._needed) != "0x" + codec.CODE.hex():
            raise CannotOpen(
                f"PayMany does not stand at {codec.PAY_MANY} on {chain} yet. Anybody may put it there, once: "
                f"a transaction to {codec.DEPLOYER}, without value, with these data: 0x{codec.DEPLOYMENT.hex()}"
            )
        self._allowed.clear()
        return [token for token in tokens if await self._holds(address, token) and not await self._is_allowed(token, address)]

    async def _holds(self, address: str, token: Token) -> bool:
        data = {"to": token.contract, "data": "0x" + codec.balance_of_call_data(address).hex()}
        try:
            return bool(await self._nodes.read(Call("eth_call", (data, "latest")), lambda answer: int(str(answer)[2:] or "0", 16)))
        except NodeRefused:
            return False


class _Trial:
    """Payments tried on as many nodes as must agree, without being made: one that the token refuses would take all others down with it."""

    def __init__(self, nodes: Nodes, token: Token, sender: str, gas_each: int, *, needed: int) -> None:
        self._nodes = nodes
        self._needed = needed
        self._contract = token.contract or ""
        self._sender = sender
        self._gas_each = gas_each
        self._tries = 0

    async def fit(self, payments: Sequence[Payment]) -> list[Payment]:
        """Those that can be paid together; who is refused is looked for by halves. Raises NodeUnreachable."""
        if await self._pays(payments):
            return list(payments)
        # What is paid by halves need not be paid at once: two may have coins for one.
        found = await self._halves(payments)
        return found if await self._pays(found) else []

    async def _halves(self, payments: Sequence[Payment]) -> list[Payment]:
        half, found = len(payments) // 2, list[Payment]()
        for part in (payments[:half], payments[half:]) if half else ():
            if self._tries < TRIES_MAX:
                found += part if await self._pays(part) else await self._halves(part)
        return found

    async def _pays(self, payments: Sequence[Payment]) -> bool:
        if not payments:
            return False
        self._tries += 1
        data = codec.pay_call_data(self._contract, [(payment.recipient, payment.units) for payment in payments])
        call = {"from": self._sender, "to": codec.PAY_MANY, "gas": hex(self._gas_each * max(2, len(payments))), "data": "0x" + data.hex()}
        try:
            said = await self._nodes.agreed(Call("eth_call", (call, "latest")), str, needed=self._needed)
        except NodeRefused:
            return False
        return said == f"0x{len(payments):064x}"


def _is_enough(answer: object) -> bool:
    return codec.decode_uint256(str(answer)) >= codec.ALLOWED_ENOUGH


def _gas_limit(answer: object) -> int:
    return quantity(mapping(answer).get("gasLimit"), GAS_BITS)
