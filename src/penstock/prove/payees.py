"""One place to pay on for each family, and whom: a fresh recipient there, with what it has received by the network's own word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import base58
import bech32
import coincurve

from penstock.core.money import Token
from penstock.devnet.box import BoxNetwork
from penstock.devnet.control import control

Recipient = tuple[str, Callable[[], int]]


@dataclass(frozen=True, slots=True)
class Place:
    """One network, what is paid there, and how a fresh recipient is made."""

    chain: str
    symbol: str
    value: str
    funds: Mapping[str, int]
    recipient: Callable[[BoxNetwork, int, Token, str], Recipient]


def _bytes_of(number: int) -> bytes:
    return hashlib.sha256(f"payee {number}".encode()).digest()


def _holder(network: BoxNetwork, address: str | None, token: Token) -> Recipient:
    if address is None:
        raise ValueError("the library made no address")
    before = network.holding(address, token.contract)
    return address, lambda: network.holding(address, token.contract) - before


def _evm(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    return _holder(network, "0x" + _bytes_of(number)[:20].hex(), token)


def _tron(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    return _holder(network, base58.b58encode_check(b"\x41" + _bytes_of(number)[:20]).decode(), token)


def _bitcoin(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    key = coincurve.PrivateKey(_bytes_of(number)).public_key.format()
    return _holder(network, bech32.encode("bcrt", 0, hashlib.new("ripemd160", hashlib.sha256(key).digest()).digest()), token)


def _xrp(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    made = control([network], {"do": "account", "name": f"payee {number}", "drops": 1_200_000})
    return _holder(network, made["address"], token)


def _lightning(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del token
    made = control([network], {"do": "invoice", "units": int(value) * 1_000 if number % 2 else 0, "expiry_s": 100_000})
    asked = {"do": "settled", "payment_hash": made["payment_hash"]}
    return made["invoice"], lambda: int(control([network], asked)["received"])


PLACES: Final = (
    Place("ETH", "USDT", "12.5", {"ETH": 5 * 10**18, "USDT": 500 * 10**6}, _evm),
    Place("TRX", "USDT", "12.5", {"TRX": 5_000 * 10**6, "USDT": 500 * 10**6}, _tron),
    Place("XRP", "XRP", "12.5", {"XRP": 500 * 10**6}, _xrp),
    Place("BTC", "BTC", "0.015", {"BTC": 5 * 10**8}, _bitcoin),
    Place("LIGHTNING", "SATS", "1234", {"SATS": 500_000_000}, _lightning),
)
