"""The XRP Ledger as the box knows it, and the accounts that tests pay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import coincurve

from penstock.devnet.box import NODES_MAX, Arguments, BadCommand, Keep, Verb
from penstock.devnet.xrp.chain import XrpChain, address_of
from penstock.devnet.xrp.engine import BASE_RESERVE, Amount
from penstock.devnet.xrp.node import XrpNode

_SETTINGS: Final = {"require_dest": 1, "disallow_xrp": 3, "default_ripple": 8, "deposit_auth": 9}


@dataclass(frozen=True, slots=True)
class XrpBox:
    """`devnet.box.BoxNetwork` for the XRP Ledger."""

    chain: XrpChain
    nodes: tuple[XrpNode, ...]

    @property
    def name(self) -> str:
        """As the wire calls it."""
        return self.chain.spec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The network id says all."""
        return {"chain_id": self.chain.spec.network_id}

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Accounts of other people, with settings of their own."""
        return {"account": self._account}

    def tick(self) -> None:
        """Close the ledgers that are due by now."""
        self.chain.tick()

    def status(self) -> dict[str, Any]:
        """Heights, price, faucet, tokens."""
        chain = self.chain
        return {
            "chain_id": chain.spec.network_id,
            "head": chain.closed,
            "final": chain.validated,
            "block_ms": chain.block_ms,
            "open_ledger_fee": str(chain.open_fee),
            "waiting": chain.waiting_count,
            "faucet": chain.faucet,
            "tokens": {token.currency: {"contract": name, "decimals": token.decimals} for name, token in chain.spec.tokens.items()},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Drops, or base units of a token, whose trust line is made on the way. Raises ValueError."""
        if contract is None:
            there = self.chain.state.accounts.at(address, self.chain.closed)
            if there is None and units < BASE_RESERVE:
                raise ValueError(f"an account begins with {BASE_RESERVE} drops or more")
            return self.chain.pay(address, Amount(units))
        token = self.chain.spec.tokens.get(contract)
        if token is None:
            raise ValueError(f"there is no token {contract} here")
        return self.chain.pay(address, Amount(units * token.scale, token.currency, token.issuer))

    def holding(self, address: str, contract: str | None = None) -> int:
        """Base units at the head."""
        if contract is None:
            account = self.chain.state.accounts.at(address, self.chain.closed)
            return account.balance if account is not None else 0
        token = self.chain.spec.tokens[contract]
        line = self.chain.state.lines.at((address, token.issuer, token.currency), self.chain.closed)
        return line.balance // token.scale if line is not None else 0

    def mine(self, count: int = 1) -> int:
        """Close ledgers now."""
        return self.chain.close(count)

    def set_block_time(self, block_ms: int) -> None:
        """Another pace; 0 for only on demand."""
        self.chain.set_block_time(block_ms)

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Undo what is closed and not validated. Raises ValueError."""
        return self.chain.fork(depth, transactions)

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the open ledger or the queue."""
        return self.chain.forget(txid)

    def spike(self, factor: int) -> None:
        """What the open ledger asks times this; it halves with every ledger. Raises ValueError."""
        self.chain.spike(factor)

    def _account(self, given: Arguments) -> dict[str, Any]:
        """A funded account of somebody else: by name, with settings such as "require_dest deposit_auth", and trust lines by contract."""
        given.only("name settings trusts drops")
        key = coincurve.PrivateKey(hashlib.sha256(f"somebody called {given.text('name')}".encode()).digest())
        address = address_of(key.public_key.format())
        if self.chain.state.accounts.at(address, self.chain.closed) is None:
            self.fund(address, given.number("drops", 20_000_000))
            self.chain.close()
        for name in given.text("settings", "").split():
            if name not in _SETTINGS:
                raise BadCommand(f"'settings' are of {', '.join(_SETTINGS)}")
            self.chain.send(key, {"TransactionType": "AccountSet", "SetFlag": _SETTINGS[name]})
        for contract in given.text("trusts", "").split():
            token = self.chain.spec.tokens.get(contract)
            if token is None:
                raise BadCommand(f"'trusts' are of {', '.join(self.chain.spec.tokens)}")
            limit = {"currency": token.currency, "issuer": token.issuer, "value": "1000000000"}
            self.chain.send(key, {"TransactionType": "TrustSet", "LimitAmount": limit})
        self.chain.close(2)
        return {"address": address}


def network_of(chain: XrpChain, *, nodes: int = 2) -> XrpBox:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return XrpBox(chain, tuple(XrpNode(chain) for _ in range(nodes)))
