"""Every EVM network, by configuration: Ethereum, its roll-ups and its look-alikes.

Conflict resource: the nonce of the hot address. Treated as unknown, whatever the words: timeouts, HTTP errors, "nonce too low" (it may be
our own payment), "replacement transaction underpriced", and every error that is not "already known".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from penstock.core.event import Observation
from penstock.core.intent import Intent, Kind, Payment
from penstock.core.money import LEDGER_DECIMALS, Network, Token, parse_units
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
from penstock.rails.evm import codec
from penstock.rails.evm.batching import Batching
from penstock.rails.evm.fees import Fees, bumped
from penstock.rails.evm.watch import NODES_ASKED_MAX, Tips, Watch
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, hash32, quantity
from penstock.rails.submitter import Submitter
from penstock.runtime import Runtime

T = TypeVar("T")

SUBMITS_AT_ONCE: Final = 50

_ALREADY: Final = ("already known", "alreadyknown", "known transaction", "already imported", "already exists", "already in the")
"""How nodes say that they have these very bytes: geth and reth, Nethermind, Besu, anvil, Erigon, pools."""


class EvmRail(Rail):
    """`rails.base.Rail` for one EVM network; also `Prepares`, and where PayMany is used `Batches` and `Opens`.

    `own` are the hot addresses of this house (at least one), `contracts` every token contract of the catalogue here: neither is a
    destination. `fee_max` is the most that one transaction may cost, in wei; without it the catalogue's.
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
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._own = frozenset(codec.checksum(address) for address in own)
        self._contracts = frozenset(codec.checksum(address) for address in (*contracts, codec.PAY_MANY))
        self.fee_max = parse_units(str(network.param("fee_max", "0")), LEDGER_DECIMALS) if fee_max is None else fee_max
        self._fees = Fees(network, nodes, runtime, sender=codec.checksum(own[0]), fee_max=self.fee_max)
        self._watch = Watch(network, nodes, runtime)
        self._batching = Batching(network, nodes, runtime, fee_max=self.fee_max, needed=self._watch.needed)
        self._submit = Submitter(
            nodes,
            runtime,
            name=f"submit-{network.chain}",
            call=lambda raw: Call("eth_sendRawTransaction", ("0x" + raw.hex(),)),
            verdict=verdict_of,
            at_once=SUBMITS_AT_ONCE,
        )

    @property
    def network(self) -> Network:
        """The network this rail serves."""
        return self._network

    @property
    def window_ms(self) -> int:
        """How long the oldest order waits for company, in milliseconds."""
        return self._batching.window_ms

    def faults(self) -> list[str]:
        """What is wrong with which node, for people."""
        return self._nodes.faults()

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure. A memo has no place here and is dropped. Raises InvalidDestination, also as OwnAddress."""
        del memo
        address = codec.parse_address(text)
        if address in self._own:
            raise OwnAddress("The address is this gateway's own hot address; give the recipient's.")
        if address in self._contracts:
            raise OwnAddress("The address is a token's contract, where coins are lost; give the recipient's own address.")
        return Destination(address)

    async def estimate(self, token: Token) -> FeeEstimate:
        """What one transfer costs now. Raises NodeUnreachable."""
        return await self._fees.estimate(token)

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """`fees` for each payment, with the gas that its own recipient needs, or with how many may go together. Raises NodeUnreachable, but not
        for company's sake.
        """
        if token.is_native:
            return list(await self._fees.for_recipients(payments, token, sender, fees))
        return list(await self._batching.estimates(payments, token, sender, fees))

    async def heads(self) -> Heads:
        """The heights that as many nodes as are needed have reached, or those that answer. Raises NodeUnreachable."""
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._tips(node), name="heads") for node in nodes]
        looks = [await task for task in tasks]
        tips = [look for look in looks if isinstance(look, Tips)]
        if not tips:
            raise next(look for look in looks if isinstance(look, NodeUnreachable))
        place = min(self._watch.needed, len(tips)) - 1
        head = sorted((t.head for t in tips), reverse=True)[place]
        final = sorted((t.final for t in tips), reverse=True)[place]
        return Heads(head, min(head, final), self._runtime.now_ms())

    async def _tips(self, node: Node) -> Tips | NodeUnreachable:
        try:
            return self._watch.tips_of(await self._nodes.ask(node, self._watch.tips_calls()))
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable block: {error}")

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: one payment on the lane's nonce, or as many as the estimate says. What each would need alone is more than it needs in company."""
        many = len(payments)
        if not 1 <= many <= max(1, fees.together):
            raise ValueError(f"an EVM transaction carries from 1 to {fees.together} such payments")
        terms = {name: number * many if name in ("gas_limit", "l1_fee") else number for name, number in fees.terms.items()}
        fee_cap = fees.fee_cap if many == 1 else min(self.fee_max, many * fees.fee_cap)
        return self._intent("pay", payments, token, lane, terms, fee_cap, attempt_id)

    async def unopened(self, address: str, tokens: Sequence[Token]) -> list[Token]:
        """Tokens that the address holds and could pay to many at once, if PayMany were allowed to. Raises NodeUnreachable or CannotOpen."""
        return await self._batching.unopened(address, tokens)

    def open(self, token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: an allowance for PayMany, on the lane's nonce."""
        return self._intent("open", (), token, lane, dict(fees.terms), fees.fee_cap, attempt_id)

    def _intent(
        self, kind: Kind, payments: Sequence[Payment], token: Token, lane: LaneView, terms: dict[str, int], fee_cap: int, attempt_id: int
    ) -> Intent:
        net = self._network
        return Intent(
            attempt_id=attempt_id,
            version=1,
            kind=kind,
            chain=net.chain,
            family=net.family,
            chain_id=net.chain_id,
            sender=lane.address,
            slot=lane.slot,
            token_id=token.id,
            contract=token.contract,
            payments=tuple(payments),
            terms=terms,
            fee_cap=fee_cap,
        )

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """Pure: the same nonce at a fee that nodes must take, or None when the cap forbids it."""
        plain_gas = not self._network.param("gas_varies", False)
        return bumped(intent, fees, version=version, cancel=cancel, plain_gas=plain_gas)

    async def submit(self, raw: bytes) -> Submission:
        """To the first node that takes them; what was submitted before goes to every node. REFUSED by our own decoder alone.

        Whose signature it is was checked where it was made, by the signer on the very bytes; bytes that somebody has put into the
        database instead have another id than the version's, and no receipt is looked for under it.
        """
        try:
            codec.read(raw, self._network.chain_id)
        except codec.InvalidTransaction as error:
            return Submission(Verdict.REFUSED, f"these bytes can never land on {self._network.chain}: {error}")
        return await self._submit(codec.transaction_id(raw), raw)

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. Calls that come together share their questions. Raises NodeUnreachable."""
        if not versions:
            raise ValueError("an attempt that is observed has at least one version")
        return await self._watch.observe(versions)

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """At the newest final block, by as many nodes as are needed. Raises NodeUnreachable."""
        final = (await self.heads()).final
        return await self.holdings_at(address, tokens, final)

    async def holdings_at(self, address: str, tokens: Sequence[Token], block: int) -> Holdings:
        """At the end of any block that nodes still know. Raises NodeUnreachable."""
        # A count that one node claims alone would halt the lane: a stranger seems to use the key.
        mined = await self._nodes.reached(Call("eth_getTransactionCount", (address, "latest")), _nonces, needed=self._watch.needed)
        used = await self._nodes.agreed(Call("eth_getTransactionCount", (address, hex(block))), _nonces, needed=self._watch.needed)
        units = {token.id: await self._balance(address, token, block) for token in tokens}
        return Holdings(block, units, slots_used=used, slots_mined=max(used, mined))

    async def _balance(self, address: str, token: Token, block: int) -> int:
        needed = self._watch.needed
        if token.contract is None:
            call = Call("eth_getBalance", (address, hex(block)))
            return await self._nodes.agreed(call, lambda answer: quantity(answer, 128), needed=needed)
        data = {"to": token.contract, "data": "0x" + codec.balance_of_call_data(address).hex()}
        return await self._nodes.agreed(Call("eth_call", (data, hex(block))), self._units, needed=needed)

    def _units(self, answer: object) -> int:
        if answer == "0x" and self._network.is_test:
            return 0  # a test chain need not have every contract of the catalogue
        return codec.decode_uint256(str(answer))


def verdict_of(node: Node, answer: object, txid: str) -> Submission:
    """A node's answer to bytes with this id, mapped whole. Its words are never proof that the bytes cannot land."""
    if isinstance(answer, Fault):
        known = any(words in answer.words.lower() for words in _ALREADY)
        return Submission(Verdict.ACCEPTED if known else Verdict.UNKNOWN, f"{node.name}: {answer.words}")
    try:
        named = hash32(answer)
    except BadAnswer as error:
        return Submission(Verdict.UNKNOWN, f"{node.name}: {error}")
    if named != txid:
        return Submission(Verdict.UNKNOWN, f"{node.name} named another transaction id, {named}; ours counts")
    return Submission(Verdict.ACCEPTED)


def _nonces(answer: object) -> int:
    return quantity(answer, 64)
