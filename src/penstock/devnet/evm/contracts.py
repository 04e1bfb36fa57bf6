"""The contracts that a box is born with, compiled from `tokens/*.sol` (tests/unit/test_devnet_contracts.py recompiles them)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from penstock.devnet.evm.state import Draft, Slot
from penstock.rails.evm.codec import CODE, GAS_PRICE_ORACLE, PAY_MANY, keccak256

SIGNATURE_BYTES: Final = 68
"""What the oracle adds to an unsigned transaction for the signature to come, as the real one does."""

FAUCET_TOKENS: Final = 10**15
"""Whole tokens that the faucet owns at genesis."""


@dataclass(frozen=True, slots=True)
class BoxToken:
    """A token that a box carries at the catalogue's address."""

    symbol: str
    decimals: int


@lru_cache(maxsize=1)
def _compiled() -> dict[str, Any]:
    text = resources.files("penstock.devnet.evm").joinpath("tokens/compiled.json").read_text(encoding="utf-8")
    contracts: dict[str, Any] = json.loads(text)["contracts"]
    return contracts


def code_of(contract: str) -> bytes:
    """The runtime code of one of our contracts."""
    return bytes.fromhex(_compiled()[contract]["code"][2:])


def _slot(contract: str, variable: str) -> int:
    return slots_of(contract)[variable]


def slots_of(contract: str) -> Mapping[str, int]:
    """Where one of our contracts keeps each of its variables."""
    slots: Mapping[str, int] = _compiled()[contract]["slots"]
    return slots


def balance_slot(token: bytes, owner: bytes) -> Slot:
    """Where PlainToken keeps an owner's balance (Solidity's layout of a mapping)."""
    return token, int.from_bytes(keccak256(owner.rjust(32, b"\0") + _slot("PlainToken", "balanceOf").to_bytes(32, "big")), "big")


def place_token(draft: Draft, address: bytes, token: BoxToken, *, owner: bytes) -> None:
    """Write a token into the genesis; its whole supply belongs to `owner`."""
    supply = FAUCET_TOKENS * 10**token.decimals
    draft.accounts[address] = draft.account(address)._replace(nonce=1, code=code_of("PlainToken"))
    draft.slots[balance_slot(address, owner)] = supply
    draft.slots[address, _slot("PlainToken", "totalSupply")] = supply
    draft.slots[address, _slot("PlainToken", "decimals")] = token.decimals
    draft.slots[address, _slot("PlainToken", "symbol")] = short_text(token.symbol)
    draft.slots[address, _slot("PlainToken", "name")] = short_text(f"{token.symbol} of a devnet")


def short_text(text: str) -> int:
    """Solidity's form of a string of up to 31 bytes: the bytes, then twice their number in the last one."""
    data = text.encode()[:31]
    return int.from_bytes(data.ljust(31, b"\0") + bytes([2 * len(data)]), "big")


def place_oracle(draft: Draft, *, fixed: int, per_byte: int) -> None:
    """Write the OP-stack's GasPriceOracle into the genesis; wei a transaction and wei a byte."""
    address = bytes.fromhex(GAS_PRICE_ORACLE[2:])
    draft.accounts[address] = draft.account(address)._replace(nonce=1, code=code_of("GasPriceOracle"))
    draft.slots[address, _slot("GasPriceOracle", "l1FeeFixed")] = fixed
    draft.slots[address, _slot("GasPriceOracle", "l1FeePerByte")] = per_byte


def place_pay_many(draft: Draft) -> None:
    """Write PayMany into the genesis, as if somebody had deployed it."""
    address = bytes.fromhex(PAY_MANY[2:])
    draft.accounts[address] = draft.account(address)._replace(nonce=1, code=CODE)


def l1_fee(unsigned: bytes, *, fixed: int, per_byte: int) -> int:
    """Wei that L1 costs for a transaction of these unsigned bytes; what GasPriceOracle.sol answers."""
    return fixed + per_byte * (len(unsigned) + SIGNATURE_BYTES)
