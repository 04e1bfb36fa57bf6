"""PayMany: the contract through which one transaction pays many holders of a token, all or none. Pure, but that it
reads the code of ours from beside it.

`contracts/PayMany.sol` says what it does. It stands at one address on every network, because that address is made of its own code
(CREATE2, EIP-1014) and of a deployer that stands everywhere: whatever has code there has this code. Anybody may deploy it, once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from typing import Final

from penstock.rails.evm.address import checksum, keccak256
from penstock.rails.evm.calls import address_word, selector, word

DEPLOYER: Final = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
"""Creates what it is given at an address made of that. https://github.com/Arachnid/deterministic-deployment-proxy"""

UNITS_MAX: Final = 2**96 - 1
"""The most that one of many payments can be, in base units: recipient and amount share a word of 32 bytes."""

GAS_MAX: Final = 2**24
"""The most gas that one transaction may ask for. https://eips.ethereum.org/EIPS/eip-7825"""

ALLOWED_ENOUGH: Final = 2**95
"""An allowance of so many base units lasts: we allow 2^256 - 1, and some tokens count no further than 2^96 - 1."""

_PAY: Final = selector("pay(address,bytes32[])")
_SALT: Final = bytes(32)


def _code() -> bytes:
    text = resources.files("penstock.rails.evm").joinpath("contracts/compiled.json").read_text(encoding="utf-8")
    return bytes.fromhex(json.loads(text)["contracts"]["PayMany"]["code"][2:])


CODE: Final = _code()
"""What stands at the address, compiled from the source (tests/unit/test_devnet_contracts.py compiles it again)."""

_INIT: Final = b"\x61" + len(CODE).to_bytes(2, "big") + bytes.fromhex("80600a3d393df3") + CODE
"""Ten bytes that return what is behind them."""

DEPLOYMENT: Final = _SALT + _INIT
"""The data of the transaction to DEPLOYER, without value, that puts the contract there."""

PAY_MANY: Final = checksum("0x" + keccak256(b"\xff" + bytes.fromhex(DEPLOYER[2:]) + _SALT + keccak256(_INIT))[12:].hex())
"""Its address on every network (EIP-1014)."""


def pay_call_data(token: str, payments: Iterable[tuple[str, int]]) -> bytes:
    """`pay(token, payments)`, each a recipient and base units of the token. Raises ValueError for an amount out of range."""
    words = []
    for recipient, units in payments:
        if not 0 < units <= UNITS_MAX:
            raise ValueError("one of many payments is from 1 to 2^96 - 1 base units")
        words.append(bytes.fromhex(checksum(recipient)[2:]) + units.to_bytes(12, "big"))
    return _PAY + address_word(token) + word(64) + word(len(words)) + b"".join(words)
