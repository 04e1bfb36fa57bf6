"""Bitcoin's networks, addresses, output scripts, and what they weigh. Pure.

A recipient is whatever today's consensus can spend: P2PKH, P2SH, P2WPKH, P2WSH and P2TR. Later witness versions are refused: until a soft
fork gives them a meaning, anybody may take what is sent there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import coincurve
from embit import base58, bech32
from embit.hashes import hash160
from embit.script import Script

from penstock.rails.base import InvalidDestination, check_characters

UNITS_MAX: Final = 21_000_000 * 10**8
"""All satoshis that can ever be (MAX_MONEY)."""

_SCRIPT_BYTES: Final = {"p2pkh": 25, "p2sh": 23, "p2wpkh": 22, "p2wsh": 34, "p2tr": 34}
_SEGWIT: Final = {("q", 39): "p2wpkh", ("q", 59): "p2wsh", ("p", 59): "p2tr"}
"""By the witness version's letter and how many letters stand behind the 1, checksum and all. BIP-173, BIP-350"""

DUST: Final = MappingProxyType({"p2pkh": 546, "p2sh": 540, "p2wpkh": 294, "p2wsh": 330, "p2tr": 330})
"""Fewest satoshis that nodes relay in an output of a kind: three times the fee of spending it at Core's default -dustrelayfee.

https://github.com/bitcoin/bitcoin/blob/master/src/policy/policy.cpp (GetDustThreshold)
"""

WEIGHT: Final = MappingProxyType({kind: 4 * (8 + 1 + script) for kind, script in _SCRIPT_BYTES.items()})
"""Weight units of a whole output. https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki#transaction-size-calculations"""

_KINDS: Final = {0x00: "p2pkh", 0x05: "p2sh"}
_TEST_KINDS: Final = {0x6F: "p2pkh", 0xC4: "p2sh"}


@dataclass(frozen=True, slots=True)
class Params:
    """What tells one Bitcoin network from another. `genesis` is the hash of block 0, `node_name` what getblockchaininfo calls it."""

    node_name: str
    hrp: str
    p2pkh: int
    p2sh: int
    coin_type: int
    genesis: str


CHAINS: Final[Mapping[int, Params]] = MappingProxyType(
    {
        3652501241: Params("main", "bc", 0x00, 0x05, 0, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
        118034699: Params("test", "tb", 0x6F, 0xC4, 1, "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"),
        675223068: Params("testnet4", "tb", 0x6F, 0xC4, 1, "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
        1087308554: Params("signet", "tb", 0x6F, 0xC4, 1, "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
        3669344250: Params("regtest", "bcrt", 0x6F, 0xC4, 1, "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
    }
)
"""By chain id: the P2P magic, read as a little-endian number (ADR 0003). Values of Core's src/kernel/chainparams.cpp."""


def params_of(chain_id: int) -> Params:
    """Raises ValueError for a chain id that is no Bitcoin network's."""
    try:
        return CHAINS[chain_id]
    except KeyError:
        raise ValueError(f"chain id {chain_id} is no Bitcoin network; known are {', '.join(map(str, CHAINS))}") from None


@dataclass(frozen=True, slots=True)
class Target:
    """Where an output goes: the canonical address, its kind and its script."""

    address: str
    kind: str
    script: bytes

    @property
    def dust(self) -> int:
        """Fewest satoshis that this output may hold."""
        return DUST[self.kind]

    @property
    def weight(self) -> int:
        """Weight units of the whole output."""
        return WEIGHT[self.kind]


def kind_of(address: str, chain_id: int) -> str:
    """Of an address that `parse_address` gave, by its form: enough for what an output weighs. Whoever builds one reads the address."""
    prefix, _, program = address.rpartition("1")
    kind = _SEGWIT.get((program[:1], len(program))) if prefix == params_of(chain_id).hrp else None
    return kind or parse_address(address, chain_id).kind


@lru_cache(maxsize=4_096)  # asked at each step of an order's way, and in Python alone it takes 35 us
def parse_address(text: str, chain_id: int) -> Target:
    """A destination as people write it. Raises InvalidDestination with one sentence.

    https://github.com/bitcoin/bips/blob/master/bip-0350.mediawiki https://en.bitcoin.it/wiki/Base58Check_encoding
    """
    params = params_of(chain_id)
    _check_form(text)
    lower = text.lower()
    hrp = lower.rpartition("1")[0]
    if hrp in {other.hrp for other in CHAINS.values()}:
        if hrp != params.hrp:
            raise InvalidDestination(f"The address is one of another Bitcoin network ({hrp}1...); here they begin with {params.hrp}1.")
        return _segwit(text, params)
    if lower.startswith(("bc1", "tb1", "bcrt1")):
        raise InvalidDestination("The address is mistyped: something in it is no character of a bech32 address.")
    return _base58(text, params)


def _check_form(text: str) -> None:
    check_characters(text)
    if ":" in text or "?" in text:
        raise InvalidDestination("This looks like a payment link; give the address alone.")
    if text.lower().startswith(("lnbc", "lntb", "lnurl", "lno1")):
        raise InvalidDestination("This is for Lightning; on Bitcoin itself an address is needed.")
    if not 14 <= len(text) <= 90:
        raise InvalidDestination(f"The address has {len(text)} characters, and no Bitcoin address is that long or short.")


def _segwit(text: str, params: Params) -> Target:
    version, program = bech32.decode(params.hrp, text)
    if version is None:
        raise InvalidDestination(
            "The address is mistyped: its checksum does not match (bech32 for bc1q..., bech32m for bc1p...), or its case is mixed."
        )
    data = bytes(program)
    if version == 0:
        kind = "p2wpkh" if len(data) == 20 else "p2wsh"
    elif version == 1 and len(data) == 32:
        _check_point(data)
        kind = "p2tr"
    else:
        raise InvalidDestination(f"The address is of witness version {version} with {len(data)} bytes, which protects nothing yet.")
    opcode = 0 if version == 0 else 0x50 + version
    return Target(text.lower(), kind, bytes([opcode, len(data)]) + data)


def _check_point(x_only: bytes) -> None:
    """Coins sent to an output key off the curve can never be spent. https://github.com/bitcoin/bips/blob/master/bip-0341.mediawiki"""
    try:
        coincurve.PublicKey(b"\x02" + x_only)
    except ValueError:
        raise InvalidDestination("The address holds no taproot key: what is sent there could never be spent.") from None


def _base58(text: str, params: Params) -> Target:
    try:
        payload = base58.decode_check(text)
    except ValueError:
        raise InvalidDestination("The address is mistyped, or is no Bitcoin address: its checksum does not match.") from None
    if len(payload) != 21 or base58.encode_check(payload) != text:
        raise InvalidDestination("This is no Bitcoin address: it has not 20 bytes behind its first one.")
    kind = {params.p2pkh: "p2pkh", params.p2sh: "p2sh"}.get(payload[0])
    if kind is None:
        if payload[0] in _KINDS or payload[0] in _TEST_KINDS:
            raise InvalidDestination("The address is one of another Bitcoin network than this one.")
        raise InvalidDestination("The address belongs to another coin than Bitcoin.")
    data = payload[1:]
    script = b"\x76\xa9\x14" + data + b"\x88\xac" if kind == "p2pkh" else b"\xa9\x14" + data + b"\x87"
    return Target(text, kind, script)


def address_of_public_key(public_key: bytes, chain_id: int) -> str:
    """The P2WPKH address (BIP-84) of a key in SEC form, 33 or 65 bytes. Raises ValueError when it is no point of the curve."""
    compressed = coincurve.PublicKey(public_key).format(compressed=True)
    address: str = Script(b"\x00\x14" + hash160(compressed)).address({"bech32": params_of(chain_id).hrp})
    return address


def script_of_sender(address: str, chain_id: int) -> bytes:
    """The script of a hot address. Raises ValueError when it is no P2WPKH of this network."""
    target = parse_address(address, chain_id)
    if target.kind != "p2wpkh":
        raise ValueError("a hot address is a P2WPKH one")
    return target.script
