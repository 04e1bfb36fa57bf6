"""Signed bytes as this box takes them: decoded by xrpl-py, signature and id checked by ourselves.

https://xrpl.org/docs/references/protocol/binary-format https://xrpl.org/docs/concepts/transactions/transaction-cost
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from xrpl.core import addresscodec, binarycodec
from xrpl.core.binarycodec.exceptions import XRPLBinaryCodecException

from penstock.devnet.xrp.engine import Malformed, amount_of

BASE_FEE: Final = 10
"""Drops of a plain transaction when nobody else is there."""
FEE_MAX: Final = 10**17
RAW_BYTES_MAX: Final = 1024 * 1024
TYPES: Final = frozenset({"Payment", "TrustSet", "AccountSet", "TicketCreate", "DepositPreauth"})


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that is well formed and signed by its account."""

    txid: str
    raw: bytes
    fields: Mapping[str, Any]

    @property
    def account(self) -> str:
        """Who sends it and pays its fee."""
        return str(self.fields["Account"])

    @property
    def sequence(self) -> int:
        """0 where a ticket takes its place."""
        return int(self.fields["Sequence"])

    @property
    def ticket(self) -> int | None:
        """The ticket it uses up, if any."""
        return self.fields.get("TicketSequence")

    @property
    def fee(self) -> int:
        """Drops."""
        return int(self.fields["Fee"])

    @property
    def last_ledger(self) -> int | None:
        """The last ledger that may hold it."""
        return self.fields.get("LastLedgerSequence")


def half_sha512(data: bytes) -> bytes:
    """The first 32 bytes of SHA-512."""
    return hashlib.sha512(data).digest()[:32]


def read(raw: bytes, network_id: int) -> Transaction:
    """Raises Malformed with the code that a node answers."""
    if not raw or len(raw) > RAW_BYTES_MAX:
        raise Malformed("temMALFORMED")
    try:
        fields = binarycodec.decode(raw.hex().upper())
        if binarycodec.encode(fields) != raw.hex().upper():
            raise Malformed("temMALFORMED")
    except (XRPLBinaryCodecException, KeyError, ValueError, IndexError, TypeError) as error:
        raise Malformed("temMALFORMED") from error
    if fields.get("TransactionType") not in TYPES:
        raise Malformed("temDISABLED")
    _check_network(fields, network_id)
    _check_common(fields)
    _check_signature(fields)
    return Transaction(half_sha512(b"TXN\0" + raw).hex().upper(), raw, fields)


def _check_network(fields: Mapping[str, Any], network_id: int) -> None:
    """https://xrpl.org/docs/references/protocol/transactions/common-fields#networkid-field"""
    named = fields.get("NetworkID")
    if network_id <= 1024 and named is not None:
        raise Malformed("telNETWORK_ID_MAKES_TX_NON_CANONICAL")
    if network_id > 1024 and named is None:
        raise Malformed("telREQUIRES_NETWORK_ID")
    if network_id > 1024 and named != network_id:
        raise Malformed("telWRONG_NETWORK")


def _check_common(fields: Mapping[str, Any]) -> None:
    fee = fields.get("Fee")
    if not (isinstance(fee, str) and fee.isdigit() and 0 <= int(fee) <= FEE_MAX):
        raise Malformed("temBAD_FEE")
    if "Sequence" not in fields or (fields["Sequence"] == 0) != ("TicketSequence" in fields):
        raise Malformed("temSEQ_AND_TICKET" if "TicketSequence" in fields else "temBAD_SEQUENCE")
    if fields["TransactionType"] == "Payment":
        amount = amount_of(fields.get("Amount"))
        if amount.units <= 0:
            raise Malformed("temBAD_AMOUNT")
        if fields.get("Destination") == fields["Account"]:
            raise Malformed("temREDUNDANT")
        if "Paths" in fields or ("SendMax" in fields and not amount.currency):
            raise Malformed("temDISABLED")


def _check_signature(fields: Mapping[str, Any]) -> None:
    """By the account's master key: no regular keys and no multi-signatures here."""
    try:
        key, signature = bytes.fromhex(fields["SigningPubKey"]), bytes.fromhex(fields["TxnSignature"])
        account = hashlib.new("ripemd160", hashlib.sha256(key).digest()).digest()
        if addresscodec.encode_classic_address(account) != fields["Account"]:
            raise Malformed("tefBAD_AUTH")
        message = bytes.fromhex(binarycodec.encode_for_signing(dict(fields)))
        if key[0] == 0xED:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, message)
        elif not coincurve.PublicKey(key).verify(signature, half_sha512(message), hasher=None):
            raise Malformed("temBAD_SIGNATURE")
    except (KeyError, ValueError, InvalidSignature) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("temBAD_SIGNATURE") from error
