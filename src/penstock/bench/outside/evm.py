"""An EVM node for a benchmark: whatever it is given is in its next block.

It executes nothing, because a benchmark must not measure somebody else's node; what it was given it remembers. The rail's own checks meet
honest answers: receipts with their Transfers, balances that fall, allowances that were given, a head that rises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Final

import rlp
from Crypto.Hash import keccak

from penstock.bench.outside.rpc import Methods

CHAIN_ID: Final = 1_337
FUNDS: Final = 10**33
"""Of everything, for whoever asks."""
GAS: Final = 50_000
"""Of a transaction that pays one; each payment of one that pays many takes as much."""
BASE_FEE: Final = 10**9
GAS_LIMIT: Final = 60_000_000
"""Of a block."""


def _hash(data: bytes) -> str:
    return "0x" + keccak.new(digest_bits=256, data=data).hexdigest()


TRANSFER: Final = _hash(b"Transfer(address,address,uint256)")
PAY: Final = _hash(b"pay(address,bytes32[])")[2:10]
APPROVE: Final = _hash(b"approve(address,uint256)")[2:10]
ALLOWANCE: Final = _hash(b"allowance(address,address)")[2:10]


@dataclass(frozen=True, slots=True)
class Paid:
    """One transaction: its place, and what its receipt says. Whoever is paid, in 20 bytes, gets so many units of the contract; nobody is where
    it allows somebody else to move them.
    """

    block: int
    contract: str
    payments: list[tuple[bytes, int]]
    price: int

    @classmethod
    def of(cls, to: bytes, data: bytes, price: int) -> Paid:
        """A call of a token, or of the contract that pays many."""
        what = data[:4].hex()
        if what == PAY:
            words = [data[at : at + 32] for at in range(100, len(data), 32)]
            return cls(0, "0x" + data[16:36].hex(), [(word[:20], int.from_bytes(word[20:], "big")) for word in words], price)
        payments = [] if what == APPROVE else [(data[16:36], int.from_bytes(data[36:68], "big"))]
        return cls(0, "0x" + to.hex(), payments, price)

    @property
    def gas(self) -> int:
        """What it used."""
        return GAS * max(1, len(self.payments))


@dataclass(slots=True)
class Chain:
    """A ledger of one sender's ERC-20 transfers, in blocks that are final when they are made. `allowed` are contracts whose units another
    contract may move for the sender.
    """

    sender: str = ""
    number: int = 1
    paid: dict[str, Paid] = field(default_factory=dict)
    pool: dict[int, tuple[str, Paid]] = field(default_factory=dict)
    nonces: list[int] = field(default_factory=lambda: [0, 0])
    """How many transactions are in each block and those before it."""
    spent: list[dict[str, int]] = field(default_factory=lambda: [{}, {}])
    """What they moved, by contract; "" is the native coin."""
    allowed: set[str] = field(default_factory=set)

    def take(self, raw: bytes) -> str:
        """A signed transaction of type 2; its id."""
        txid = _hash(raw)
        _, nonce, tip, most, _, to, _, data, *_ = rlp.decode(raw[1:])
        number = int.from_bytes(nonce, "big")
        if txid not in self.paid and number not in self.pool:
            price = min(int.from_bytes(most, "big"), BASE_FEE + int.from_bytes(tip, "big"))
            self.pool[number] = txid, Paid.of(to, data, price)
        return txid

    def mine(self) -> None:
        """The next block: everything that is next in line."""
        self.number += 1
        used, spent = self.nonces[-1], dict(self.spent[-1])
        while used in self.pool:
            txid, p = self.pool.pop(used)
            self.paid[txid] = replace(p, block=self.number)
            spent[p.contract] = spent.get(p.contract, 0) + sum(units for _, units in p.payments)
            spent[""] = spent.get("", 0) + p.gas * p.price
            if not p.payments:
                self.allowed.add(p.contract)
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
        sender = "0x" + "0" * 24 + self.sender[2:]
        return {
            "transactionHash": txid,
            "blockNumber": hex(p.block),
            "blockHash": block_hash(p.block),
            "from": self.sender,
            "status": "0x1",
            "gasUsed": hex(p.gas),
            "effectiveGasPrice": hex(p.price),
            "logs": [
                {
                    "address": p.contract,
                    "topics": [TRANSFER, sender, "0x" + "0" * 24 + recipient.hex()],
                    "data": f"0x{units:064x}",
                    "removed": False,
                }
                for recipient, units in p.payments
            ],
        }


def block_hash(number: int) -> str:
    """Any hash will do, as long as it stays."""
    return f"0x{number + 1:064x}"


class EvmNode:
    """JSON-RPC over a chain on which whoever is asked about is the contract that pays many."""

    def __init__(self) -> None:
        contracts = resources.files("penstock").joinpath("rails/evm/contracts/compiled.json").read_text("utf-8")
        code = json.loads(contracts)["contracts"]["PayMany"]["code"]
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
            "eth_call": lambda p: f"0x{self._called(p[0]['to'].lower(), p[0]['data'], p[1]):064x}",
            "eth_estimateGas": lambda _: hex(GAS),
            "eth_feeHistory": lambda _: {"baseFeePerGas": [hex(BASE_FEE)], "reward": [[hex(10**8)]]},
            "eth_getCode": lambda _: code,
        }

    def told(self) -> dict[str, Any]:
        """Transfers and units in blocks."""
        paid = self._chain.paid.values()
        moved = [units for p in paid for _, units in p.payments]
        return {"transfers": len(moved), "units": str(sum(moved))}

    def _called(self, to: str, data: str, tag: str) -> int:
        """An allowance, how many would be paid, or a balance."""
        what = data[2:10]
        if what == ALLOWANCE:
            return 2**256 - 1 if to in self._chain.allowed else 0
        if what == PAY:
            return int(data[138:202], 16)
        return FUNDS - self._chain.spent[self._chain.block(tag)].get(to, 0)

    def _knows(self, txid: str) -> bool:
        return txid in self._chain.paid or any(txid == waiting for waiting, _ in self._chain.pool.values())

    def _count(self, params: list[Any]) -> str:
        self._chain.sender = params[0]  # the only address that is ever asked about is the hot address
        return hex(self._chain.nonces[self._chain.block(params[1])])

    def _block(self, params: list[Any]) -> dict[str, Any]:
        number = self._chain.block(params[0])
        return {"number": hex(number), "hash": block_hash(number), "baseFeePerGas": hex(BASE_FEE), "gasLimit": hex(GAS_LIMIT)}
