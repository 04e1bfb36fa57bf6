"""Accounts of an EVM chain as text: the checksummed form (EIP-55) that everything here speaks, and Ethereum's hash, which makes it. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NoReturn

import coincurve
from Crypto.Hash import keccak as _keccak

from penstock.rails.base import InvalidDestination, check_characters

ZERO_ADDRESS: Final = "0x" + "00" * 20
"""Nobody's address: what is sent there is gone."""

_HEX_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


def keccak256(data: bytes) -> bytes:
    """The hash of Ethereum: Keccak-256 as submitted, not NIST's SHA3-256."""
    return _keccak.new(digest_bits=256, data=data).digest()


def checksum(address: str) -> str:
    """An address with the upper case letters that EIP-55 prescribes, whatever its case was.

    https://eips.ethereum.org/EIPS/eip-55. Raises ValueError when it is not 0x and 40 hexadecimal digits.
    """
    if _HEX_ADDRESS.fullmatch(address) is None:
        raise ValueError("an address is 0x and 40 hexadecimal digits")
    return _checksummed(address[2:].lower())


@lru_cache(maxsize=4096)
def _checksummed(digits: str) -> str:
    """The same few addresses come again and again: contracts, our own, and a payout's recipient on each step of its road."""
    marks = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(digit.upper() if mark >= "8" else digit for digit, mark in zip(digits, marks, strict=False))


def parse_address(text: str) -> str:
    """A destination as people write it, in its checksummed form (EIP-55).

    All lower and all upper case carry no checksum and are taken. Raises InvalidDestination with one sentence; the right
    checksum is never offered, since the mistake may as well be in the digits.
    """
    if _HEX_ADDRESS.fullmatch(text) is None:
        _refuse(text)
    canonical = checksum(text)
    digits = text[2:]
    if digits not in (canonical[2:], digits.lower(), digits.upper()):
        raise InvalidDestination("The address is mistyped: its upper and lower case letters do not match its checksum (EIP-55).")
    if canonical == ZERO_ADDRESS:
        raise InvalidDestination("The zero address belongs to nobody; give the recipient's own address.")
    return canonical


def _refuse(text: str) -> NoReturn:
    """Why this is no address at all."""
    if (not text.startswith(("0x", "0X")) and "." in text) or text.endswith(".eth"):
        raise InvalidDestination("This looks like a name, and names are not resolved; give the 0x address itself.")
    check_characters(text)
    if text.startswith("0X") or not text.startswith("0x"):
        raise InvalidDestination("The address must begin with 0x (small x), followed by 40 hexadecimal digits.")
    if len(text) != 42:
        raise InvalidDestination(f"The address has {len(text) - 2} digits after 0x where 40 are needed.")
    raise InvalidDestination("The address may hold only 0-9 and a-f after 0x.")


def address_of_public_key(public_key: bytes) -> str:
    """The account of a secp256k1 public key in SEC form (33 or 65 bytes). Raises ValueError when the bytes are no point of the curve."""
    return address_of(coincurve.PublicKey(public_key))


def address_of(key: coincurve.PublicKey) -> str:
    """The account of a public key: the last 20 bytes of its keccak. Ethereum Yellow Paper, appendix F."""
    return checksum("0x" + keccak256(key.format(compressed=False)[1:])[12:].hex())
