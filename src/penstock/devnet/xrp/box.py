"""The XRP Ledger as the box knows it, and what other people do on it: recipients with rules of their own, and issuers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import coincurve
from xrpl.core import addresscodec

from penstock.devnet.box import COUNT_MAX, NODES_MAX, Arguments, BadCommand, Keep, Verb
from penstock.devnet.xrp.amounts import PAR, Amount
from penstock.devnet.xrp.chain import FAUCET_TOKENS, Decree, Issued, XrpChain, open_line
from penstock.devnet.xrp.lines import put
from penstock.devnet.xrp.node import XrpNode
from penstock.devnet.xrp.preflight import RATE_MAX
from penstock.devnet.xrp.settings import BASE_RESERVE
from penstock.devnet.xrp.state import DEFAULT_RIPPLE, GLOBAL_FREEZE, REQUIRE_AUTH, Draft, line_between
from penstock.devnet.xrp.transactions import address_of

_SETTINGS: Final = {"require_dest": 1, "disallow_xrp": 3, "default_ripple": 8, "deposit_auth": 9}
"""asf flags that an account of somebody else may set."""
_ISSUER_FLAGS: Final = {"require_auth": REQUIRE_AUTH, "global_freeze": GLOBAL_FREEZE, "default_ripple": DEFAULT_RIPPLE}
_ACCOUNT_DROPS: Final = 20_000_000


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
        """Accounts of other people, what issuers do to their token, and how ledgers are filled and validated."""
        return {
            "account": self._account,
            "issuer": self._issuer,
            "validation": self._validation,
            "ledger_size": self._ledger_size,
            "load": self._load,
        }

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
            "minimum_fee": str(chain.minimum_fee),
            "validation_lag": chain.validation_lag,
            "waiting": len(chain.waiting),
            "faucet": chain.faucet,
            "tokens": {token.currency: {"contract": name, "decimals": token.decimals} for name, token in chain.spec.tokens.items()},
        }

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Drops, or base units of a token, whose trust line is made on the way. Raises ValueError."""
        if not addresscodec.is_valid_classic_address(address):
            raise ValueError("an address here is a classic one, r...")
        there = self.chain.current.account(address)
        if contract is None:
            if there is None and units < BASE_RESERVE:
                raise ValueError(f"an account begins with {BASE_RESERVE} drops or more")
            return self.chain.pay(address, Amount(units))
        token = self._token(contract)
        if there is None:
            raise ValueError("an account begins with XRP: fund it with that first")
        self.chain.decree(lambda draft: open_line(draft, address, token))
        return self.chain.pay(address, Amount(units * token.scale, token.currency, token.issuer))

    def holding(self, address: str, contract: str | None = None) -> int:
        """Base units in the newest closed ledger. Raises ValueError."""
        view = self.chain.state.at(self.chain.closed)
        if contract is None:
            account = view.account(address)
            return account.balance if account is not None else 0
        token = self._token(contract)
        key = line_between(address, token.issuer, token.currency)
        line = view.line(key)
        return line.held(low=key[0] == address) // token.scale if line is not None else 0

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
        """Drop a transaction from the open ledger, the queue, or what is kept for later."""
        return self.chain.forget(txid.upper())

    def spike(self, factor: int) -> None:
        """What the open ledger asks times this; it halves with every ledger. Raises ValueError."""
        self.chain.spike(factor)

    def _token(self, contract: str) -> Issued:
        token = self.chain.spec.tokens.get(contract)
        if token is None:
            raise ValueError(f"there is no token {contract} here; there are {', '.join(self.chain.spec.tokens)}")
        return token

    def _account(self, given: Arguments) -> dict[str, Any]:
        """A funded account of somebody else: by name, with settings such as "require_dest deposit_auth", trust lines by contract, and
        those whose deposits it takes.
        """
        given.only("name settings trusts drops friends")
        wanted, trusted = given.text("settings", "").split(), [self._token(one) for one in given.text("trusts", "").split()]
        if unknown := sorted(set(wanted) - set(_SETTINGS)):
            raise BadCommand(f"'settings' are of {', '.join(_SETTINGS)}, not {unknown[0]}")
        key = coincurve.PrivateKey(hashlib.sha256(f"somebody called {given.text('name')}".encode()).digest())
        address = address_of(key.public_key.format())
        if self.chain.current.account(address) is None:
            self.fund(address, given.number("drops", _ACCOUNT_DROPS))
            self.chain.close()
        for name in wanted:
            self.chain.send(key, {"TransactionType": "AccountSet", "SetFlag": _SETTINGS[name]})
        for token in trusted:
            limit = {"currency": token.currency, "issuer": token.issuer, "value": str(FAUCET_TOKENS)}
            self.chain.send(key, {"TransactionType": "TrustSet", "LimitAmount": limit})
        for friend in given.text("friends", "").split():
            self.chain.send(key, {"TransactionType": "DepositPreauth", "Authorize": friend})
        self.chain.close(2)
        return {"address": address}

    def _issuer(self, given: Arguments) -> dict[str, Any]:
        """What a token's issuer says from the next ledger on; what is not named stays. No transaction: the box has not his key."""
        given.only("contract settings transfer_rate freeze thaw authorize no_ripple")
        token = self._token(given.text("contract"))
        decrees: list[Decree] = []
        settings = given.text("settings", "-")
        if settings != "-":
            decrees.append(_flags(token, settings.split()))
        rate = given.number("transfer_rate", 0, most=RATE_MAX)
        if rate and rate < PAR:
            raise BadCommand(f"'transfer_rate' is from {PAR} (none) to {RATE_MAX}")
        if rate:
            decrees.append(_rate(token, rate))
        for name, change in _LINE_CHANGES.items():
            decrees += [_line(token, holder, change) for holder in given.text(name, "").split()]
        for decree in decrees:
            self.chain.decree(decree)
        return {"issuer": token.issuer, "changes": len(decrees)}

    def _validation(self, given: Arguments) -> dict[str, Any]:
        self.chain.validation_lag = given.only("ledgers").number("ledgers", most=COUNT_MAX)
        return self.status()

    def _ledger_size(self, given: Arguments) -> dict[str, Any]:
        self.chain.expected = max(1, given.only("transactions").number("transactions", most=COUNT_MAX))
        return self.status()

    def _load(self, given: Arguments) -> dict[str, Any]:
        self.chain.load = max(1, given.only("factor").number("factor", most=COUNT_MAX))
        return self.status()


def _flags(token: Issued, names: list[str]) -> Decree:
    if unknown := sorted(set(names) - set(_ISSUER_FLAGS)):
        raise BadCommand(f"an issuer's 'settings' are of {', '.join(_ISSUER_FLAGS)}, not {unknown[0]}")
    flags = sum(_ISSUER_FLAGS[name] for name in set(names))

    def decree(draft: Draft) -> None:
        account = draft.account(token.issuer)
        if account is not None:
            draft.accounts[token.issuer] = replace(account, flags=flags)

    return decree


def _rate(token: Issued, rate: int) -> Decree:
    def decree(draft: Draft) -> None:
        account = draft.account(token.issuer)
        if account is not None:
            draft.accounts[token.issuer] = replace(account, transfer_rate=0 if rate == PAR else rate)

    return decree


_LINE_CHANGES: Final[Mapping[str, Mapping[str, bool]]] = {
    "freeze": {"freeze": True},
    "thaw": {"freeze": False},
    "authorize": {"authorized": True},
    "no_ripple": {"no_ripple": True},
}


def _line(token: Issued, holder: str, change: Mapping[str, bool]) -> Decree:
    if not addresscodec.is_valid_classic_address(holder):
        raise BadCommand("holders are classic addresses, r...")
    key = line_between(holder, token.issuer, token.currency)

    def decree(draft: Draft) -> None:
        line = draft.line(key)
        if line is not None:
            low = key[0] == token.issuer
            side = line.side(low=low)
            put(draft, key, line.with_side(replace(side, **change), low=low))

    return decree


def network_of(chain: XrpChain, *, nodes: int = 2) -> XrpBox:
    """A network whose nodes tell the truth for now. Raises ValueError for a number of nodes out of bounds."""
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a network has from 1 to {NODES_MAX} nodes")
    return XrpBox(chain, tuple(XrpNode(chain) for _ in range(nodes)))
