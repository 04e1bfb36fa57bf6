"""Who is paid and in what on the XRP Ledger: classic and X-addresses, destination tags, issued tokens. Pure.

Encodings are xrpl-py's (base58 with the ledger's own alphabet and a checksum). What a decoder takes is encoded again and must give the same
text, so that no address has two spellings. https://xrpl.org/docs/references/protocol/data-types/base58-encodings

xrpl-py is imported where it is used, here and in `transaction`: its package reads all of itself, a third of a second and 30 MB that a house
which pays nothing on this ledger does not spend.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import coincurve
from Crypto.Hash import RIPEMD160

from penstock.rails.base import InvalidDestination, check_characters

TAG_MAX: Final = 2**32 - 1

NOBODYS: Final = {
    "rrrrrrrrrrrrrrrrrrrrrhoLvTp": "ACCOUNT_ZERO",
    "rrrrrrrrrrrrrrrrrrrrBZbvji": "ACCOUNT_ONE",
    "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh": "the genesis account",
    "rrrrrrrrrrrrrrrrrNAMEtxvNvQ": "the black hole of name reservations",
    "rrrrrrrrrrrrrrrrrrrn5RM1rHd": "the NaN address",
}
"""Accounts to which nobody has a key, or everybody. https://xrpl.org/docs/concepts/accounts/addresses#special-addresses"""

_CLASSIC: Final = re.compile(r"r[1-9A-HJ-NP-Za-km-z]{24,34}", re.ASCII)
_EXTENDED: Final = re.compile(r"[XT][1-9A-HJ-NP-Za-km-z]{45,47}", re.ASCII)
_TAG: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_STANDARD_CODE: Final = re.compile(r"[A-Za-z0-9?!@#$%^&*<>(){}\[\]|]{3}", re.ASCII)
_HEX_CODE: Final = re.compile(r"(?!00)[0-9A-F]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A recipient: its classic address, and the tag that its X-address held, if any."""

    address: str
    tag: int | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A token: currency code (three characters, or 40 hex digits in upper case) and the classic address of its issuer."""

    currency: str
    issuer: str


def account_of_public_key(public_key: bytes) -> str:
    """The classic address of a secp256k1 key in SEC form (33 or 65 bytes). Raises ValueError when the bytes are no point of the curve.

    https://xrpl.org/docs/concepts/accounts/addresses#address-encoding
    """
    from xrpl.core.addresscodec import encode_classic_address

    compressed = coincurve.PublicKey(public_key).format(compressed=True)
    return encode_classic_address(RIPEMD160.new(hashlib.sha256(compressed).digest()).digest())


def is_classic(text: str) -> bool:
    """Whether this is a classic address, in its only spelling."""
    if _CLASSIC.fullmatch(text) is None:
        return False
    from xrpl.constants import XRPLException
    from xrpl.core.addresscodec import decode_classic_address, encode_classic_address

    try:
        return encode_classic_address(decode_classic_address(text)) == text
    except (ValueError, XRPLException):
        return False


def parse_extended(text: str) -> tuple[Target, bool] | None:
    """An X-address and whether it is of a test network; None when it is none. https://github.com/XRPLF/XRPL-Standards/discussions/28"""
    if _EXTENDED.fullmatch(text) is None:
        return None
    from xrpl.constants import XRPLException
    from xrpl.core.addresscodec import classic_address_to_xaddress, xaddress_to_classic_address

    try:
        address, tag, is_test = xaddress_to_classic_address(text)
        again = classic_address_to_xaddress(address, tag, is_test)
    except (ValueError, IndexError, XRPLException):
        return None
    return (Target(address, tag), is_test) if again == text else None


def parse_address(text: str, *, is_test: bool) -> Target:
    """A destination as people write it. Raises InvalidDestination with one sentence, which never repeats the text: it may be a secret."""
    check_characters(text)
    if text.startswith("r"):
        if not is_classic(text):
            raise InvalidDestination(
                "The address is mistyped: it begins like an XRP Ledger address (r...) and its checksum does not match."
            )
        target = Target(text)
    elif text.startswith(("X", "T")):
        target = _extended(text, is_test=is_test)
    else:
        raise InvalidDestination("An XRP Ledger address begins with r, or as an X-address with X; this one does not.")
    if target.address in NOBODYS:
        raise InvalidDestination(f"The address is {NOBODYS[target.address]} and belongs to nobody; give the recipient's own address.")
    return target


def _extended(text: str, *, is_test: bool) -> Target:
    found = parse_extended(text)
    if found is None:
        raise InvalidDestination("The address is no X-address: it is mistyped, or of another network.")
    target, of_test = found
    if of_test != is_test:
        raise InvalidDestination(
            "The address is an X-address of a test network; give one of the main network."
            if of_test
            else "The address is an X-address of the main network, and this is a test network."
        )
    return target


def parse_tag(memo: str) -> int | None:
    """A destination tag from the text of a memo, None for "". Raises InvalidDestination.

    https://xrpl.org/docs/concepts/transactions/source-and-destination-tags
    """
    if not memo:
        return None
    if _TAG.fullmatch(memo) is None or int(memo) > TAG_MAX:
        raise InvalidDestination(f"The memo of an XRP Ledger address is a destination tag: a whole number from 0 to {TAG_MAX}.")
    return int(memo)


def same_address(one: str, other: str) -> bool:
    """Whether both name one account, X-address or classic, whatever their tags."""
    return one == other or _account(one) == _account(other)


def _account(text: str) -> str:
    found = parse_extended(text)
    return found[0].address if found is not None else text


def parse_contract(text: str) -> Issued:
    """A token of the catalogue, "CODE.rISSUER". Raises ValueError, saying what would be right.

    The hexadecimal form is for codes of another length than three; one that begins with 00 would be a standard code in disguise.
    https://xrpl.org/docs/references/protocol/data-types/currency-formats#currency-codes
    """
    currency, _, issuer = text.rpartition(".")
    if not (_HEX_CODE.fullmatch(currency) or _STANDARD_CODE.fullmatch(currency)) or currency.upper() == "XRP":
        raise ValueError(
            "the currency code is three characters other than XRP, or 40 hexadecimal digits in upper case that do not begin with 00"
        )
    if not is_classic(issuer) or issuer in NOBODYS:
        raise ValueError("the issuer is a classic address (r...)")
    return Issued(currency, issuer)
