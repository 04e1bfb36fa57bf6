"""A Bitcoin network as the box knows it: the chain and the nodes that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.bitcoin.chain import BitcoinChain
from penstock.devnet.bitcoin.node import BitcoinNode
from penstock.devnet.bitcoin.policy import Rejected
from penstock.devnet.bitcoin.transaction import script_of
from penstock.devnet.box import NODES_MAX, Arguments, Keep, Verb

RATE_MAX: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class BitcoinBox:
    """`devnet.box.BoxNetwork` for one Bitcoin network."""

    chain: BitcoinChain
    nodes: tuple[BitcoinNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it: BTC."""
        return self.chain.spec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Blocks come every second, so orders need not wait long for company."""
        return {"chain_id": self.chain.spec.chain_id, "batch_window_s": 2}

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Full blocks, a full mempool, what nodes ask for relay, and a twin with another signature."""
        return {
            "block_weight": self._block_weight,
            "mempool_min": self._mempool_min,
            "relay_fee": self._relay_fee,
            "malleate": lambda given: {"txid": self.chain.malleate(given.only("txid").text("txid"))},
        }

    def tick(self) -> None:
        """Make the blocks that are due by now."""
        self.chain.tick()

    def status(self) -> dict[str, Any]:
        """Height, fees, faucet."""
        chain = self.chain
        return {
            "chain_id": chain.spec.chain_id,
            "head": chain.blocks.head.height,
            "final": None,
            "block_ms": chain.block_ms,
            "fee_sat_per_kvb": chain.market_fee(1),
            "block_fee_min_sat_per_kvb": chain.block_fee_min,
            "waiting": len(chain.mempool),
            "faucet": chain.faucet,
            "tokens": {},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Satoshis. Raises ValueError."""
        if contract is not None:
            raise ValueError("there are no tokens on this network")
        try:
            return self.chain.fund(address, units)
        except Rejected as error:
            raise ValueError(str(error)) from error

    def holding(self, address: str, contract: str | None = None) -> int:
        """Satoshis in unspent outputs at the head. Raises ValueError."""
        if contract is not None:
            raise ValueError("there are no tokens on this network")
        return sum(coin.units for coin in self.chain.blocks.coins.of(script_of(address)).values())

    def mine(self, count: int = 1) -> int:
        """Make blocks now."""
        self.chain.mine(count)
        return self.chain.blocks.head.height

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.chain.set_block_time(block_ms)

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Let a longer branch win, of any depth. Raises ValueError."""
        return self.chain.fork(depth, transactions).height

    def forget(self, txid: str) -> bool:
        """Drop a transaction and its descendants from the mempool."""
        return self.chain.forget(txid)

    def spike(self, factor: int) -> None:
        """What blocks take at least, and fee estimates, times this until another spike. Raises ValueError."""
        self.chain.spike(factor)

    def _block_weight(self, given: Arguments) -> dict[str, Any]:
        self.chain.set_block_weight(given.only("weight").number("weight"))
        return self.status()

    def _mempool_min(self, given: Arguments) -> dict[str, Any]:
        self.chain.mempool.evict_below(given.only("sat_per_kvb").number("sat_per_kvb", most=RATE_MAX))
        return self.status()

    def _relay_fee(self, given: Arguments) -> dict[str, Any]:
        rate = given.only("sat_per_kvb").number("sat_per_kvb", most=RATE_MAX)
        self.chain.mempool.terms.relay = self.chain.mempool.terms.incremental = rate
        return self.status()


def network_of(chain: BitcoinChain, *, nodes: int = 2) -> BitcoinBox:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return BitcoinBox(chain, tuple(BitcoinNode(chain) for _ in range(nodes)))
