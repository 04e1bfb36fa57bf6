"""An EVM node for a benchmark: whatever it is given is in its next block.

It executes nothing, because a benchmark must not measure somebody else's node; what it was given it remembers. The rail's own checks meet
honest answers: receipts with the Transfer, balances that fall, a head that rises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import rlp
from Crypto.Hash import keccak

from penstock.bench.outside.rpc import Methods

CHAIN_ID: Final = 1_337
FUNDS: Final = 10**33
"""Of everything, for whoever asks."""
GAS: Final = 50_000
BASE_FEE: Final = 10**9


def _hash(data: bytes) -> str:
    return "0x" + keccak.new(digest_bits=256, data=data).hexdigest()


TRANSFER: Final = _hash(b"Transfer(address,address,uint256)")


@dataclass(frozen=True, slots=True)
class Paid:
    """One transaction: its place, and what its receipt says."""

    block: int
    contract: str
    recipient: str
    units: int
    price: int


@dataclass(slots=True)
class Chain:
    """A ledger of one sender's ERC-20 transfers, in blocks that are final when they are made."""

    sender: str = ""
    number: int = 1
    paid: dict[str, Paid] = field(default_factory=dict)
    pool: dict[int, tuple[str, Paid]] = field(default_factory=dict)
    nonces: list[int] = field(default_factory=lambda: [0, 0])
    """How many transactions are in each block and those before it."""
    spent: list[dict[str, int]] = field(default_factory=lambda: [{}, {}])
    """What they moved, by contract; "" is the native coin."""

    def take(self, raw: bytes) -> str:
        """A signed transaction of type 2; its id."""
        txid = _hash(raw)
        _, nonce, tip, most, _, to, _, data, *_ = rlp.decode(raw[1:])
        number = int.from_bytes(nonce, "big")
        if txid not in self.paid and number not in self.pool:
            price = min(int.from_bytes(most, "big"), BASE_FEE + int.from_bytes(tip, "big"))
            recipient, units = "0x" + data[16:36].hex(), int.from_bytes(data[36:68], "big")
            self.pool[number] = txid, Paid(0, "0x" + to.hex(), recipient, units, price)
        return txid

    def mine(self) -> None:
        """The next block: everything that is next in line."""
        self.number += 1
        used, spent = self.nonces[-1], dict(self.spent[-1])
        while used in self.pool:
            txid, p = self.pool.pop(used)
            self.paid[txid] = Paid(self.number, p.contract, p.recipient, p.units, p.price)
            spent[p.contract] = spent.get(p.contract, 0) + p.units
            spent[""] = spent.get("", 0) + GAS * p.price
            used += 1
        self.nonces.append(used)
        self.spent.append(spent)

    def block(self, tag: str) -> int:
        """The number that a tag or quantity means."""
        return min(int(tag, 16), self.number) if tag.startswith("0x") else self.number

    def receipt(self, txid: str) -> dict[str, Any] | None:
        """As a node gives it, None for what is in no block."""
        p = self.paid.get(txid)
        if p is None:
            return None
        topics = [TRANSFER, *("0x" + "0" * 24 + address[2:] for address in (self.sender, p.recipient))]
        return {
            "transactionHash": txid,
            "blockNumber": hex(p.block),
            "blockHash": block_hash(p.block),
            "from": self.sender,
            "status": "0x1",
            "gasUsed": hex(GAS),
            "effectiveGasPrice": hex(p.price),
            "logs": [{"address": p.contract, "topics": topics, "data": f"0x{p.units:064x}", "removed": False}],
        }


def block_hash(number: int) -> str:
    """Any hash will do, as long as it stays."""
    return f"0x{number + 1:064x}"


class EvmNode:
    """JSON-RPC over a chain."""

    def __init__(self) -> None:
        self._chain = chain = Chain()
        self.mine = chain.mine
        self.methods: Methods = {
            "eth_chainId": lambda _: hex(CHAIN_ID),
            "eth_sendRawTransaction": lambda p: chain.take(bytes.fromhex(p[0][2:])),
            "eth_getTransactionReceipt": lambda p: chain.receipt(p[0]),
            "eth_getTransactionByHash": lambda p: {"hash": p[0]} if self._knows(p[0]) else None,
            "eth_getTransactionCount": self._count,
            "eth_getBlockByNumber": self._block,
            "eth_getBalance": lambda p: hex(FUNDS - chain.spent[chain.block(p[1])].get("", 0)),
            "eth_call": lambda p: f"0x{FUNDS - chain.spent[chain.block(p[1])].get(p[0]['to'].lower(), 0):064x}",
            "eth_estimateGas": lambda _: hex(GAS),
            "eth_feeHistory": lambda _: {"baseFeePerGas": [hex(BASE_FEE)], "reward": [[hex(10**8)]]},
            "eth_getCode": lambda _: "0x",
        }

    def told(self) -> dict[str, Any]:
        """Transfers and units in blocks."""
        paid = self._chain.paid.values()
        return {"transfers": len(paid), "units": str(sum(p.units for p in paid))}

    def _knows(self, txid: str) -> bool:
        return txid in self._chain.paid or any(txid == waiting for waiting, _ in self._chain.pool.values())

    def _count(self, params: list[Any]) -> str:
        self._chain.sender = params[0]  # the only address that is ever asked about is the hot address
        return hex(self._chain.nonces[self._chain.block(params[1])])

    def _block(self, params: list[Any]) -> dict[str, Any]:
        number = self._chain.block(params[0])
        return {"number": hex(number), "hash": block_hash(number), "baseFeePerGas": hex(BASE_FEE)}
