"""TRC-20 tokens of a box: the code of `evm/tokens/OddToken.sol` at the catalogue's addresses, each behaving as it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.devnet.evm.contracts import FAUCET_TOKENS, balance_slot, code_of, short_text, slots_of
from penstock.devnet.tron.state import Account, Draft
from penstock.devnet.tron.transaction import keccak256

CONTRACT: Final = "OddToken"

BEHAVIOURS: Final = ("usual", "false", "nothing", "silent", "short", "lying", "twice", "paused", "broken", "endless")
"""What a token can do, by the numbers of OddToken.sol."""


@dataclass(frozen=True, slots=True)
class BoxToken:
    """A token that a box carries. `energy_factor` in ten-thousandths: what a much used contract asks on top of its instructions."""

    symbol: str
    decimals: int
    behaviour: str = "usual"
    energy_factor: int = 0


def selector(signature: str) -> bytes:
    """The first four bytes of a call: https://docs.soliditylang.org/en/latest/abi-spec.html#function-selector"""
    return keccak256(signature.encode())[:4]


def transfer_call(to: bytes, units: int) -> bytes:
    """`transfer` of TRC-20 to an account of 20 bytes."""
    return selector("transfer(address,uint256)") + to.rjust(32, b"\0") + units.to_bytes(32, "big")


def balance_call(owner: bytes) -> bytes:
    """`balanceOf` of TRC-20."""
    return selector("balanceOf(address)") + owner.rjust(32, b"\0")


def behave_call(behaviour: str) -> bytes:
    """Tell a token of a box how to behave. Raises ValueError."""
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"a token behaves in one of these ways: {', '.join(BEHAVIOURS)}")
    return selector("behave(uint8)") + BEHAVIOURS.index(behaviour).to_bytes(32, "big")


def place_token(draft: Draft, address: bytes, token: BoxToken, *, owner: bytes, at_ms: int) -> None:
    """Write a token into the genesis; its whole supply belongs to `owner`."""
    supply, at = FAUCET_TOKENS * 10**token.decimals, slots_of(CONTRACT)
    draft.put(address, Account(exists=True, created_ms=at_ms, code=code_of(CONTRACT)))
    draft.slots[balance_slot(address, owner)] = supply  # OddToken keeps balances where PlainToken does
    draft.slots[address, at["totalSupply"]] = supply
    draft.slots[address, at["decimals"]] = token.decimals
    draft.slots[address, at["symbol"]] = short_text(token.symbol)
    draft.slots[address, at["name"]] = short_text(f"{token.symbol} of a devnet")
    draft.slots[address, at["behaviour"]] = BEHAVIOURS.index(token.behaviour)


def behaviour_of(word: int) -> str:
    """The name of what a token's slot `behaviour` says."""
    return BEHAVIOURS[word] if word < len(BEHAVIOURS) else "usual"
