"""What a Bitcoin network binds, signs and checks: `core.intent.Codec` of the family. Pure: no I/O, no clock, no key.

Addresses are text in canonical form (bech32 in lower case), ids hex text as block explorers write them, amounts satoshi.
"""

from __future__ import annotations

from typing import Final

from penstock.core.intent import Intent
from penstock.rails.bitcoin.psbt import export_psbt, import_psbt
from penstock.rails.bitcoin.script import CHAINS, DUST, UNITS_MAX, Target, address_of_public_key, params_of, parse_address
from penstock.rails.bitcoin.transaction import (
    Decoded,
    InvalidTransaction,
    broken_rules,
    build,
    decode,
    decode_signed,
    sign,
    vsize_of,
    weight_of,
)

__all__ = [
    "CHAINS",
    "DUST",
    "UNITS_MAX",
    "Decoded",
    "InvalidTransaction",
    "Target",
    "address",
    "broken_rules",
    "build",
    "decode",
    "decode_signed",
    "expires_ms",
    "export_psbt",
    "import_psbt",
    "params_of",
    "parse_address",
    "path",
    "same_address",
    "sign",
    "vsize_of",
    "weight_of",
]

LANE_MAX: Final = 2**31 - 1


def path(chain_id: int, lane: int) -> str:
    """BIP-84; coin 0 on the main network and 1 on every test network (SLIP-44).

    https://github.com/bitcoin/bips/blob/master/bip-0084.mediawiki https://github.com/satoshilabs/slips/blob/master/slip-0044.md
    """
    if not 0 <= lane <= LANE_MAX:
        raise ValueError("a lane is from 0 to 2^31 - 1")
    return f"m/84'/{params_of(chain_id).coin_type}'/0'/0/{lane}"


def address(public_key: bytes, chain_id: int) -> str:
    """The P2WPKH address of a key."""
    return address_of_public_key(public_key, chain_id)


def same_address(one: str, other: str) -> bool:
    """Bech32 knows no case, base58 does."""
    return one == other or _folded(one) == _folded(other)


def _folded(text: str) -> str:
    known = any(text.lower().startswith(f"{params.hrp}1") for params in CHAINS.values())
    return text.lower() if known and text in (text.lower(), text.upper()) else text


def expires_ms(intent: Intent) -> int | None:
    """Never: a Bitcoin transaction may land as long as its coins are unspent."""
    del intent
    return None
