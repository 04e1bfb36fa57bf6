"""BOLT 11 invoices as destinations: decoded by the bolt11 package, and held to what it leaves open. Pure: no clock, no node.

Where readers of invoices differ the invoice is refused, since our node's reading must be ours: Electrum takes the last of two payment
hashes, LND the first. https://github.com/lightning/bolts/blob/master/11-payment-encoding.md
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import bolt11
from bech32 import CHARSET

from penstock.rails.base import InvalidDestination

MSAT: Final = 1_000
"""Millisatoshi in a satoshi."""
AMOUNT_MSAT_MAX: Final = 21_000_000 * 10**11
TEXT_MAX: Final = 2_000
CLTV_FINAL_MAX: Final = 576
"""Blocks (four days) that a recipient may ask us to wait for the last hop at most."""
EXPIRES_S_MAX: Final = 2**53
FEATURES_KNOWN: Final = frozenset({8, 14, 16, 48})
"""Even bits that a payer must understand and ours do: variable onion, payment secret, multi-part, metadata (BOLT 9)."""
AMP_BITS: Final = frozenset({30, 31})
"""Such an invoice is paid under hashes that the payer makes up, so nothing would say that it was paid once."""

_MULTIPLIERS: Final[Mapping[str, int]] = MappingProxyType({"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1})
"""Pico-bitcoin in one unit of the amount; ten of them are a millisatoshi."""
_PREFIX: Final = re.compile(r"ln(bcrt|tbs|bc|tb)(?:([1-9][0-9]{0,19})([munp]?))?", re.ASCII)
_TIMESTAMP_WORDS: Final = 7
_SIGNATURE_WORDS: Final = 104


@dataclass(frozen=True, slots=True)
class Chain:
    """A Bitcoin network as Lightning names it: the invoice's prefix, and what LND and Electrum call it."""

    prefix: str
    lnd: str
    electrum: str


CHAINS: Final[Mapping[int, Chain]] = MappingProxyType(
    {
        0xD9B4BEF9: Chain("bc", "mainnet", "mainnet"),
        0x0709110B: Chain("tb", "testnet", "testnet"),
        0x40CF030A: Chain("tbs", "signet", "signet"),
        0xDAB5BFFA: Chain("bcrt", "regtest", "regtest"),
    }
)
"""By P2P magic, read as a little-endian number. https://github.com/bitcoin/bitcoin/blob/master/src/kernel/chainparams.cpp"""


@dataclass(frozen=True, slots=True)
class Invoice:
    """What an invoice says, its signature checked. `amount_msat` None: the payer chooses. `expires_s` is Unix seconds."""

    text: str
    payment_hash: str
    amount_msat: int | None
    payee: str
    expires_s: int
    cltv_final: int


def chain_of(chain_id: int) -> Chain:
    """Raises ValueError for what is no Bitcoin network."""
    if chain_id not in CHAINS:
        raise ValueError(f"chain id {chain_id} is no Bitcoin network that Lightning runs on")
    return CHAINS[chain_id]


def parse(text: str, chain_id: int) -> Invoice:
    """An invoice of this network, alone or behind "lightning:". Raises InvalidDestination."""
    body = text[10:] if text[:10].lower() == "lightning:" else text
    lower = body.lower()
    if not 1 <= len(body) <= TEXT_MAX or not body.isascii():
        raise InvalidDestination("This is no Lightning invoice; on this network an invoice of the recipient's wallet is needed (lnbc…).")
    if lower.startswith("lnurl") or "@" in body:
        raise InvalidDestination("LNURLs and Lightning addresses are not paid here; ask the recipient's wallet for an invoice (lnbc…).")
    if lower.startswith(("lno1", "lni1")):
        raise InvalidDestination("BOLT 12 offers are not paid here; ask the recipient's wallet for a BOLT 11 invoice (lnbc…).")
    if body not in (lower, body.upper()):
        raise InvalidDestination("The invoice has capital and small letters mixed, so something in it was changed.")
    return _parsed(lower, chain_id)


@lru_cache(maxsize=4096)
def _parsed(text: str, chain_id: int) -> Invoice:
    """Decoding takes some 2 ms, and one payment is looked at in a handful of places."""
    head, _, tail = text.rpartition("1")
    amount_msat = _amount(head, chain_of(chain_id))
    try:
        said = bolt11.decode(text)
        payee, payment_hash, secret = said.payee, said.payment_hash, said.payment_secret
        expires_s, cltv_final = said.date + said.expiry, said.min_final_cltv_expiry
    except Exception as error:  # foreign, mapped once: bitstring, coincurve and bolt11 raise what they like
        raise InvalidDestination(f"The invoice cannot be read, or its signature is not right ({type(error).__name__}).") from error
    if payee is None or secret is None:
        raise InvalidDestination("The invoice has no payment secret; a newer wallet makes one that has.")
    _check_fields([CHARSET.index(letter) for letter in tail[:-6]])
    if expires_s > EXPIRES_S_MAX:
        raise InvalidDestination("The invoice's expiry is beyond any date.")
    if cltv_final > CLTV_FINAL_MAX:
        raise InvalidDestination(f"The invoice lets the recipient wait {cltv_final} blocks; up to {CLTV_FINAL_MAX} is accepted.")
    return Invoice(text, payment_hash, amount_msat, payee, expires_s, cltv_final)


def _amount(head: str, chain: Chain) -> int | None:
    """Millisatoshi of the human-readable part, in integers. Raises InvalidDestination."""
    match = _PREFIX.fullmatch(head)
    if match is None:
        raise InvalidDestination("This is no Lightning invoice; on this network an invoice of the recipient's wallet is needed (lnbc…).")
    prefix, digits, multiplier = match.groups()
    if prefix != chain.prefix:
        raise InvalidDestination(
            f"The invoice is for another network: it begins with ln{prefix}, and here one with ln{chain.prefix} is right."
        )
    if digits is None:
        return None
    pico = int(digits) * _MULTIPLIERS[multiplier]
    if pico % 10 or pico // 10 > AMOUNT_MSAT_MAX:
        raise InvalidDestination("The invoice's amount is no number of millisatoshi that can exist.")
    if pico // 10 % MSAT:
        raise InvalidDestination("The invoice asks for a fraction of a satoshi; whole satoshi can be paid.")
    return pico // 10


def _check_fields(words: list[int]) -> None:
    """No field twice, but for those of which there may be many, and no feature that we lack. Raises InvalidDestination."""
    fields = words[_TIMESTAMP_WORDS:-_SIGNATURE_WORDS]
    seen: Counter[str] = Counter()
    features = 0
    while fields:
        tag, size = CHARSET[fields[0]], fields[1] * 32 + fields[2]
        seen[tag] += 1
        if tag == "9":
            for word in fields[3 : 3 + size]:
                features = features << 5 | word
        fields = fields[3 + size :]
    if twice := [tag for tag in "pshdnxcm9" if seen[tag] > 1]:
        raise InvalidDestination(f"The invoice has its field '{twice[0]}' more than once, so wallets may read it differently.")
    bits = {bit for bit in range(features.bit_length()) if features >> bit & 1}
    if bits & AMP_BITS:
        raise InvalidDestination("The invoice wants AMP, which has no single payment hash; ask for a plain invoice.")
    if unknown := sorted(bit for bit in bits if bit % 2 == 0 and bit not in FEATURES_KNOWN):
        raise InvalidDestination(f"The invoice demands a feature that is not known here (bit {unknown[0]}).")
