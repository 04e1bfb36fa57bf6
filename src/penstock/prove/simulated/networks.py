"""What differs between the networks that one simulated house can stand on: how they are born, whom they pay, and what can go wrong there."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import base58
import bech32
import coincurve

from penstock.catalog import Catalog
from penstock.core.money import Token
from penstock.devnet.box import BoxNetwork
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.devnet.evm import box as evm_box
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.specs import specs

NowMs = Callable[[], int]

NODE_KEY: Final = "key-of-an-account-with-a-node-provider"
"""Part of a node's address, as providers have it; a secret."""
SEVERAL_FROM: Final = 100
"""From this seed on every third house pays from three addresses; smaller seeds are those that planted bugs were found with."""
MANY_FROM: Final = 15
"""From this seed on most houses pay many token orders in one EVM transaction; smaller ones find planted bugs, too, and stay as they were."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is to be paid, and what it has by the network's own word."""

    address: str
    memo: str
    received: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Place:
    """One network in a box.

    `pays` are amounts of each token that is paid, `funds` base units of each for the hot address. `wrong` are addresses that must be
    refused, by the code of the refusal. `troubles` are those of this network beside the common ones; `lossy` False: there is one node
    behind every address, and what it forgets is for a person. `reorgs` is how deep its blocks may be undone, less than what is final.
    """

    chain: str
    pays: Mapping[str, tuple[str, ...]]
    funds: Mapping[str, int]
    recipient: Callable[[BoxNetwork, str, Token, str], Recipient]
    wrong: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    depths: tuple[int, ...] = ()
    slow_ms: int = 1_000
    lossy: bool = True
    spikes: bool = True
    family: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """A place as one seed has it: its box, how deep its blocks may be undone, and how long until they are final."""

    place: Place
    network: BoxNetwork
    reorg_max: int
    block_ms: int
    settings: Mapping[str, Any]

    @property
    def finality_s(self) -> float:
        """Virtual seconds until what is sent is final in good weather, generously."""
        return (self.reorg_max + 20) * self.block_ms / 1000


def build(place: Place, source: random.Random, now_ms: NowMs, *, seed: int, slow: bool) -> Site:
    """The network as this seed has it."""
    depth = source.choice(place.depths) if place.depths else 0
    if place.family == "evm":
        network = _evm_network(place.chain, now_ms, seed, depth)
    else:
        (network,) = make_networks(Catalog.load(), [place.chain], now_ms=now_ms, seed=seed)
    settings: dict[str, Any] = {"confirmations": depth + 1} if depth and place.family in {"evm", "bitcoin"} else {}
    if seed >= SEVERAL_FROM and seed % 3 == 2 and place.family in {"evm", "tron", "xrp"}:
        settings["hot_addresses"] = 3
    block_ms = place.slow_ms if slow else 1_000
    settings["block_ms"] = block_ms
    if place.family == "evm":
        settings["rpc_url"] = f"{{url}}?key={NODE_KEY}"
        settings |= _many(place.chain, seed) if seed >= MANY_FROM else {}
    return Site(place, network, depth, block_ms, settings)


def _many(chain: str, seed: int) -> dict[str, int]:
    """Drawn apart, so that everything else of a seed is what it would be without."""
    source = random.Random(f"many {chain} {seed}")
    batch_max = source.choice((1, 3, 20))
    return {"batch_max": batch_max, "batch_window_s": source.choice((0, 20, 60))} if batch_max > 1 else {}


def _evm_network(chain: str, now_ms: NowMs, seed: int, depth: int) -> BoxNetwork:
    """Its blocks can be undone a little deeper than the house takes for final, and never are."""
    spec = next(spec for spec in specs(Catalog.load()) if spec.name == chain)
    return evm_box.network_of(EvmChain(replace(spec, finality_depth=depth + 2), now_ms=now_ms, seed=seed), nodes=2)


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"recipient {name}".encode()).digest()


def _holder(network: BoxNetwork, address: str, token: Token, *, before: int = 0) -> Callable[[], int]:
    return lambda: network.holding(address, token.contract) - before


def _evm(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    del value
    address = "0x" + _digest(name)[:20].hex()
    return Recipient(address, "", _holder(network, address, token))


def _tron(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    del value
    address = base58.b58encode_check(b"\x41" + _digest(name)[:20]).decode()
    return Recipient(address, "", _holder(network, address, token))


def _bitcoin(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    del value
    public_key = coincurve.PrivateKey(_digest(name)).public_key.format()
    program = hashlib.new("ripemd160", hashlib.sha256(public_key).digest()).digest()
    address = bech32.encode("bcrt", 0, program)
    if address is None:
        raise ValueError(name)
    return Recipient(address, "", _holder(network, address, token))


def _xrp(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    """Every second one is an exchange, where a payment without its tag is nobody's."""
    del value
    tag = str(573_049 + _digest(name)[1]) if _digest(name)[0] % 2 else ""
    wish: dict[str, Any] = {"settings": "require_dest"} if tag else {}
    if token.contract is not None:
        wish["trusts"] = token.contract
    address = control([network], {"do": "account", "name": name, **wish})["address"]
    return Recipient(address, tag, _holder(network, address, token, before=network.holding(address, token.contract)))


def _lightning(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    """Every second invoice leaves the amount open; they live for minutes or hours."""
    del token
    one, two, *_ = _digest(name)
    made = control([network], {"do": "invoice", "units": int(value) * 1_000 if one % 2 else 0, "expiry_s": (90, 500, 4_000)[two % 3]})
    asked = {"do": "settled", "payment_hash": made["payment_hash"]}
    return Recipient(made["invoice"], "", lambda: int(control([network], asked)["received"]))


PLACES: Final[Mapping[str, Place]] = {
    place.chain: place
    for place in (
        Place(
            chain="ETH",
            pays={"USDT": ("12.5", "7.000001", "40"), "ETH": ("0.01", "0.25"), "USDC": ("3",)},
            funds={"ETH": 5 * 10**18, "USDT": 300 * 10**6, "USDC": 300 * 10**6},
            recipient=_evm,
            wrong=("0x1234", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "0xdAC17F958D2ee523a2206206994597C13D831ec8"),
            depths=(4, 4, 8, 40, 256),
            slow_ms=12_000,
            family="evm",
        ),
        Place(
            chain="OPTIMISM",
            pays={"ETH": ("0.02", "0.1"), "USDC": ("3", "11.25")},
            funds={"ETH": 5 * 10**18, "USDC": 300 * 10**6},
            recipient=_evm,
            wrong=("0x12",),
            depths=(4, 8, 40),
            slow_ms=12_000,
            family="evm",
        ),
        Place(
            chain="TRX",
            pays={"USDT": ("12.5", "3", "7.000001"), "TRX": ("3", "25")},
            funds={"TRX": 5_000 * 10**6, "USDT": 300 * 10**6},
            recipient=_tron,
            wrong=("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6u", "0x52908400098527886E0F7030069857D2E4169EE7"),
            troubles=("stall", "dark", "miss", "busy", "solid", "logless", "omit", "token"),
            depths=(1, 3, 8),
            slow_ms=12_000,
            spikes=False,
            family="tron",
        ),
        Place(
            chain="XRP",
            pays={"XRP": ("12.5", "0.000001", "7"), "RLUSD": ("3.25",)},
            funds={"XRP": 500 * 10**6, "RLUSD": 100 * 10**6},
            recipient=_xrp,
            wrong=("rDsbeomae4FXwgQTJp9Rs64Qg9vDiTCdBw", "0x52908400098527886E0F7030069857D2E4169EE7"),
            troubles=("dark", "load", "gap", "blocked", "validation"),
            depths=(1,),
            slow_ms=12_000,
            family="xrp",
        ),
        Place(
            chain="BTC",
            pays={"BTC": ("0.015", "0.001")},
            funds={"BTC": 5 * 10**8},
            recipient=_bitcoin,
            wrong=("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "bcrt1q"),
            troubles=("evict", "estimate", "syncing", "dark"),
            depths=(4, 6, 12),
            slow_ms=600_000,
            family="bitcoin",
        ),
        Place(
            chain="LIGHTNING",
            pays={"SATS": ("1234", "20", "900")},
            funds={"SATS": 500_000_000},
            recipient=_lightning,
            wrong=("lnbc1",),
            troubles=("hold", "fail", "partial", "latency", "offline", "restart", "says_failed", "hides_parts"),
            lossy=False,
            spikes=True,
            family="lightning",
        ),
    )
}
"""Every network that a simulation may have."""
