"""An EVM network as the box knows it: the chain and the nodes that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.devnet.box import NODES_MAX, Arguments, Keep, Verb
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.mempool import Rejected
from penstock.devnet.evm.node import EvmNode
from penstock.rails.evm import codec


@dataclass(frozen=True, slots=True)
class EvmBox:
    """`devnet.box.BoxNetwork` for one EVM network."""

    chain: EvmChain
    nodes: tuple[EvmNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it: ETH, POLYGON, BSC."""
        return self.chain.spec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The chain id says all."""
        return {"chain_id": self.chain.spec.chain_id}

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Whose transactions no block takes."""
        return {"shun": lambda given: self._shun(given, take=False), "unshun": lambda given: self._shun(given, take=True)}

    def _shun(self, given: Arguments, *, take: bool) -> dict[str, Any]:
        address = bytes.fromhex(codec.checksum(given.only("address").text("address"))[2:])
        (self.chain.mempool.shunned.discard if take else self.chain.mempool.shunned.add)(address)
        return {"shunned": [codec.checksum("0x" + one.hex()) for one in sorted(self.chain.mempool.shunned)]}

    def tick(self) -> None:
        """Make the blocks that are due by now."""
        self.chain.tick()

    def status(self) -> dict[str, Any]:
        """Heights, prices, faucet, tokens."""
        chain = self.chain
        return {
            "chain_id": chain.spec.chain_id,
            "head": chain.head.number,
            "final": chain.final if chain.spec.finality_tag else None,
            "block_ms": chain.block_ms,
            "base_fee": str(chain.next_base_fee()),
            "waiting": len(chain.mempool),
            "faucet": chain.faucet,
            "tokens": {token.symbol: {"contract": address, "decimals": token.decimals} for address, token in chain.spec.tokens.items()},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Wei, or base units of a token. Raises ValueError."""
        try:
            return self.chain.fund(address, units) if contract is None else self.chain.fund_token(contract, address, units)
        except Rejected as error:
            raise ValueError(str(error)) from error

    def holding(self, address: str, contract: str | None = None) -> int:
        """Base units at the head."""
        truth = EvmNode(self.chain)
        if contract is None:
            return int(truth.call("eth_getBalance", address, "latest"), 16)
        call = {"to": contract, "data": "0x" + codec.balance_of_call_data(address).hex()}
        return int(truth.call("eth_call", call, "latest"), 16)

    def mine(self, count: int = 1) -> int:
        """Make blocks now."""
        return self.chain.mine(count).number

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.chain.set_block_time(block_ms)

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Let another branch win; never deeper than finality. Raises ValueError."""
        return self.chain.fork(depth, transactions).number

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the mempool."""
        return self.chain.forget(txid)

    def spike(self, factor: int) -> None:
        """The next block's base fee times this; it then falls by an eighth a block. Raises ValueError."""
        self.chain.spike(factor)


def network_of(chain: EvmChain, *, nodes: int = 2) -> EvmBox:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return EvmBox(chain, tuple(EvmNode(chain) for _ in range(nodes)))
