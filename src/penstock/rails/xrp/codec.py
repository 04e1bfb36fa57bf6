"""What an XRP Ledger network binds, signs and checks: `core.intent.Codec` of the family. Pure: no I/O, no clock, no key.

Addresses are classic addresses (r...), ids 64 hexadecimal digits in upper case, a token is "CODE.rISSUER", a memo the decimal text of a
destination tag.
"""

from __future__ import annotations

from typing import Final

from penstock.core.intent import Intent
from penstock.rails.xrp.address import (
    NOBODYS,
    TAG_MAX,
    Issued,
    Target,
    account_of_public_key,
    is_classic,
    parse_address,
    parse_contract,
    parse_tag,
    same_address,
)
from penstock.rails.xrp.transaction import (
    DROPS_MAX,
    INDEX_MAX,
    ISSUED_DECIMALS,
    ISSUED_UNITS_MAX,
    Decoded,
    InvalidTransaction,
    amount,
    broken_rules,
    build,
    decode_signed,
    network_fits,
    sign,
    transaction_id,
    units_of,
)

__all__ = [
    "DROPS_MAX",
    "INDEX_MAX",
    "ISSUED_DECIMALS",
    "ISSUED_UNITS_MAX",
    "NOBODYS",
    "TAG_MAX",
    "Decoded",
    "InvalidTransaction",
    "Issued",
    "Target",
    "address",
    "amount",
    "broken_rules",
    "build",
    "decode_signed",
    "expires_ms",
    "is_classic",
    "network_fits",
    "parse_address",
    "parse_contract",
    "parse_tag",
    "path",
    "same_address",
    "sign",
    "transaction_id",
    "units_of",
]

LANE_MAX: Final = 2**31 - 1


def path(chain_id: int, lane: int) -> str:
    """BIP-44 with SLIP-44's coin 144, the same on every network of the family.

    https://github.com/satoshilabs/slips/blob/master/slip-0044.md
    """
    del chain_id
    if not 0 <= lane <= LANE_MAX:
        raise ValueError("a lane is from 0 to 2^31 - 1")
    return f"m/44'/144'/0'/0/{lane}"


def address(public_key: bytes, chain_id: int) -> str:
    """The classic address of a key, the same on every network of the family."""
    del chain_id
    return account_of_public_key(public_key)


def expires_ms(intent: Intent) -> int | None:
    """None: one transaction expires with its last ledger, but its sequence is never given up, and the next version takes it again."""
    del intent
    return None
