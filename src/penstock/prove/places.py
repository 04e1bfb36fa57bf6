"""What differs between the networks that one house can stand on: whom it pays, and what can go wrong there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import base58
import bech32
import coincurve

from penstock.core.money import Token
from penstock.devnet.box import BoxNetwork
from penstock.devnet.control import control


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is to be paid, and what it has by the network's own word."""

    address: str
    memo: str
    received: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Place:
    """One network in a box.

    `symbol` is what is paid, `values` its amounts, `funds` base units of each token for the hot address. `troubles` are those of this
    network beside the common ones; `lossy` False: there is one node behind every address, and what it forgets is for a person.
    """

    chain: str
    symbol: str
    values: tuple[str, ...]
    funds: Mapping[str, int]
    recipient: Callable[[BoxNetwork, int, Token, str], Recipient]
    settings: Mapping[str, Any] = field(default_factory=dict)
    reorgs: tuple[int, ...] = ()
    troubles: tuple[str, ...] = ()
    storm_s: float = 100.0
    lossy: bool = True
    spikes: bool = True


def _public_key(number: int) -> bytes:
    return coincurve.PrivateKey(hashlib.sha256(f"recipient {number}".encode()).digest()).public_key.format()


def _holder(network: BoxNetwork, address: str, token: Token, *, before: int = 0) -> Callable[[], int]:
    return lambda: network.holding(address, token.contract) - before


def _tron(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    address = base58.b58encode_check(b"\x41" + hashlib.sha256(f"recipient {number}".encode()).digest()[:20]).decode()
    return Recipient(address, "", _holder(network, address, token))


def _bitcoin(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del value
    program = hashlib.new("ripemd160", hashlib.sha256(_public_key(number)).digest()).digest()
    address = bech32.encode("bcrt", 0, program) or ""
    return Recipient(address, "", _holder(network, address, token))


def _xrp(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    """Every second one is an exchange, where a payment without its tag is nobody's."""
    del value
    tag = str(573_049 + number) if number % 2 else ""
    wish = {"settings": "require_dest", "drops": 1_200_020} if tag else {"drops": 1_200_000}
    address = control([network], {"do": "account", "name": f"recipient {number}", **wish})["address"]
    before = network.holding(address, token.contract)
    return Recipient(address, tag, _holder(network, address, token, before=before))


def _lightning(network: BoxNetwork, number: int, token: Token, value: str) -> Recipient:
    del token
    made = control([network], {"do": "invoice", "units": int(value) * 1_000 if number % 2 else 0, "expiry_s": 90 + 400 * (number % 3)})
    asked = {"do": "settled", "payment_hash": made["payment_hash"]}
    return Recipient(made["invoice"], "", lambda: int(control([network], asked)["received"]))


PLACES: Final[Mapping[str, Place]] = {
    place.chain: place
    for place in (
        Place(
            chain="TRX",
            symbol="USDT",
            values=("12.5", "3", "7.000001"),
            funds={"TRX": 5_000 * 10**6, "USDT": 500 * 10**6},
            recipient=_tron,
            reorgs=(1, 2, 3),
            troubles=("stall", "dark", "token"),
            storm_s=1_000.0,
            spikes=False,
        ),
        Place(
            chain="BTC",
            symbol="BTC",
            values=("0.015", "0.001"),
            funds={"BTC": 5 * 10**8},
            recipient=_bitcoin,
            settings={"confirmations": 5},
            reorgs=(1, 2, 3, 4),
        ),
        Place(
            chain="XRP",
            symbol="XRP",
            values=("12.5", "0.000001"),
            funds={"XRP": 500 * 10**6},
            recipient=_xrp,
            reorgs=(1,),
            troubles=("dark", "load"),
            storm_s=200.0,
        ),
        Place(
            chain="LIGHTNING",
            symbol="SATS",
            values=("1234", "20"),
            funds={"SATS": 500_000_000},
            recipient=_lightning,
            troubles=("hold", "fail", "partial", "latency", "offline"),
            storm_s=200.0,
            lossy=False,
        ),
    )
}
