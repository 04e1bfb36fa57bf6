"""Bitcoin and its test networks.

Conflict resource: the coins that an attempt spends, the first of them its anchor; every version spends them all. Treated as unknown, whatever
the words: timeouts, HTTP errors, "missing inputs" (our own payment may have spent them), "insufficient fee", "txn-mempool-conflict", and
every error but those that say that the node has these very bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from penstock.core.event import Observation
from penstock.core.intent import Intent, Payment
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
    TooLittle,
    Unpayable,
    Verdict,
    VersionView,
)
from penstock.rails.bitcoin import codec, coins
from penstock.rails.bitcoin.fees import Fees
from penstock.rails.bitcoin.talk import block_hash, height
from penstock.rails.bitcoin.transaction import PAYMENTS_MAX
from penstock.rails.bitcoin.wallet import NoWallet, Purse, Wallets
from penstock.rails.bitcoin.watch import NODES_ASKED_MAX, Watch
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, mapping
from penstock.rails.submitter import Submitter
from penstock.runtime import Runtime

SUBMITS_AT_ONCE: Final = 20
ALREADY_IN_CHAIN: Final = -27
_ALREADY: Final = (
    "txn-already-in-mempool",
    "txn-already-known",
    "txn-same-nonwitness-data-in-mempool",
    "already in block chain",
    "already in utxo set",
    "outputs already in",
)
"""How a node says that it has this transaction already. https://github.com/bitcoin/bitcoin/blob/master/src/validation.cpp"""


class BitcoinRail(Rail):
    """`rails.base.Rail` for one Bitcoin network; also `Prepares` and `Batches`.

    `own` are the hot addresses of this house: none is a destination. `fee_max` is the most that one transaction may cost, however many it
    pays, in satoshi; without it the catalogue's.
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
        del contracts  # there are none on Bitcoin
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._own = frozenset(codec.parse_address(address, network.chain_id).script for address in own)
        self.fee_max = parse_units(str(network.param("fee_max", "0")), 8) if fee_max is None else fee_max
        self._fees = Fees(network, nodes, runtime, fee_max=self.fee_max)
        self._watch = Watch(network, nodes, runtime)
        self._wallets = Wallets(network, nodes)
        self._submit = Submitter(
            nodes,
            runtime,
            name=f"submit-{network.chain}",
            call=lambda raw: Call("sendrawtransaction", (raw.hex(),)),
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
        return int(self._network.param("batch_window_ms", 20_000))

    def faults(self) -> list[str]:
        """What is wrong with which node, for people."""
        return self._nodes.faults()

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure. A memo has no place here and is dropped. Raises InvalidDestination, also as OwnAddress."""
        del memo
        target = codec.parse_address(text, self._network.chain_id)
        if target.script in self._own:
            raise OwnAddress("The address is this gateway's own hot address; give the recipient's.")
        return Destination(target.address)

    async def look_up(self, destination: Destination, token: Token, units: int) -> None:
        """Pure. Raises TooLittle for dust."""
        del token
        if (dust := coins.dust(units, destination.address, self._network)) is not None:
            raise TooLittle(dust)

    async def estimate(self, token: Token) -> FeeEstimate:
        """What a transaction with one payment costs now. Raises NodeUnreachable."""
        return await self._fees.estimate(token)

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """`fees` for each payment, all of which may go together, but for dust, which can never be paid. Asks nobody."""
        del token, sender
        shared = replace(fees, together=min(PAYMENTS_MAX, int(self._network.param("batch_max", 100))))
        return [coins.problem_of(payment, self._network) or shared for payment in payments]

    async def heads(self) -> Heads:
        """The heights that as many nodes as are needed have reached, or those that answer. Raises NodeUnreachable."""
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._head(node), name="heads") for node in nodes]
        looks = [await task for task in tasks]
        found = sorted((look for look in looks if isinstance(look, int)), reverse=True)
        if not found:
            raise next(look for look in looks if isinstance(look, NodeUnreachable))
        head = found[min(self._watch.needed, len(found)) - 1]
        return Heads(head, max(0, head - self._network.confirmations + 1), self._runtime.now_ms())

    async def _head(self, node: Node) -> int | NodeUnreachable:
        try:
            (answer,) = await self._nodes.ask(node, [Call("getblockchaininfo")])
            chain = mapping(answer)
            if chain.get("initialblockdownload") is True and not self._network.is_test:
                return NodeUnreachable(f"{node.name} still downloads old blocks")
            return height(chain.get("blocks"))
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable height: {error}")

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """At the newest final block, by as many nodes with a wallet as are needed. Raises NodeUnreachable."""
        block = (await self.heads()).final
        return await self.holdings_at(address, tokens, block)

    async def holdings_at(self, address: str, tokens: Sequence[Token], block: int) -> Holdings:
        """At the end of any recent block. Raises NodeUnreachable, also when nodes differ."""
        hash_ = await self._nodes.agreed(Call("getblockhash", (block,)), block_hash, needed=self._watch.needed)
        purses: list[Purse] = []
        last = NodeUnreachable("no node is configured")
        for node in self._nodes.usable():
            if len(purses) == self._watch.needed:
                break
            try:
                purses.append(await self._wallets.purse(node, address, block, hash_))
            except NoWallet as error:
                last = last if purses else error
            except NodeUnreachable as error:
                last = error
        if any(purse.coins != purses[0].coins for purse in purses):
            raise NodeUnreachable("the nodes differ on the coins of the hot address")
        if len(purses) < self._watch.needed:
            raise last
        free = frozenset.intersection(*(purse.free for purse in purses))
        units = {token.id: purses[0].units for token in tokens if token.is_native}
        return Holdings(block, units, coins=tuple(sorted(free, key=lambda coin: (-coin.units, coin.name))))

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: one transaction for all payments, on coins that cover them and the fee cap. Raises NotEnough or Unpayable."""
        if not token.is_native:
            raise ValueError("Bitcoin carries one coin")
        return coins.bind(payments, token, lane, fees, attempt_id=attempt_id, network=self._network, fee_max=self.fee_max)

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """Pure: the same coins at a fee that nodes must take, or None when the cap forbids it."""
        return coins.bump(intent, fees, version=version, cancel=cancel)

    async def submit(self, raw: bytes) -> Submission:
        """To the first node that takes them; what was submitted before goes to every node. REFUSED by our own decoder alone."""
        try:
            found = codec.decode_signed(raw)
        except codec.InvalidTransaction as error:
            return Submission(Verdict.REFUSED, f"these bytes can never land on {self._network.chain}: {error}")
        return await self._submit(found.txid, raw)

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. Calls that come together share their questions. Raises NodeUnreachable."""
        if not versions:
            raise ValueError("an attempt that is observed has at least one version")
        return await self._watch.observe(versions)


def verdict_of(node: Node, answer: object, txid: str) -> Submission:
    """A node's answer to bytes with this id, mapped whole. Its words are never proof that the bytes cannot land."""
    if isinstance(answer, Fault):
        known = answer.code == ALREADY_IN_CHAIN or any(words in answer.words.lower() for words in _ALREADY)
        return Submission(Verdict.ACCEPTED if known else Verdict.UNKNOWN, f"{node.name}: {answer.words}")
    try:
        named = block_hash(answer)
    except BadAnswer as error:
        return Submission(Verdict.UNKNOWN, f"{node.name}: {error}")
    if named != txid:
        return Submission(Verdict.UNKNOWN, f"{node.name} named another transaction id, {named}; ours counts")
    return Submission(Verdict.ACCEPTED)
