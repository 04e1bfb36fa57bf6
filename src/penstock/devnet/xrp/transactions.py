"""Signed bytes as a node takes them: decoded by xrpl-py, signature and id checked by ourselves.

https://xrpl.org/docs/references/protocol/binary-format
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

RAW_BYTES_MAX: Final = 1024 * 1024

_COMMON: Final = frozenset(
    {
        "Account",
        "Fee",
        "Flags",
        "LastLedgerSequence",
        "Memos",
        "NetworkID",
        "Sequence",
        "SigningPubKey",
        "SourceTag",
        "TicketSequence",
        "TransactionType",
        "TxnSignature",
    }
)
_NEEDED: Final = ("Account", "Fee", "Sequence", "SigningPubKey", "TxnSignature")
_FIELDS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "Payment": (("Amount", "Destination"), ("DestinationTag", "InvoiceID", "Paths", "SendMax", "DeliverMin")),
    "TrustSet": (("LimitAmount",), ("QualityIn", "QualityOut")),
    "AccountSet": ((), ("SetFlag", "ClearFlag", "TransferRate", "TickSize", "Domain", "EmailHash", "MessageKey")),
    "TicketCreate": (("TicketCount",), ()),
    "DepositPreauth": ((), ("Authorize", "Unauthorize")),
}
"""What each type must and may have besides the common fields; other types are not read here.
https://xrpl.org/docs/references/protocol/transactions/types
"""


class Unreadable(ValueError):
    """No transaction at all, or not signed by its key: the node answers `invalidTransaction`, and the text says why."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that is complete and signed by the key it names."""

    txid: str
    raw: bytes
    fields: Mapping[str, Any]

    @property
    def account(self) -> str:
        """Who sends it and pays its fee."""
        return str(self.fields["Account"])

    @property
    def type(self) -> str:
        """Payment, TrustSet, ..."""
        return str(self.fields["TransactionType"])

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

    @property
    def flags(self) -> int:
        """Its tf flags."""
        return int(self.fields.get("Flags", 0))

    @property
    def spends(self) -> int:
        """Drops that it may move besides its fee."""
        amount = self.fields.get("SendMax", self.fields.get("Amount", ""))
        return int(amount) if self.type == "Payment" and isinstance(amount, str) else 0


def half_sha512(data: bytes) -> bytes:
    """The first 32 bytes of SHA-512."""
    return hashlib.sha512(data).digest()[:32]


def transaction_id(raw: bytes) -> str:
    """https://xrpl.org/docs/references/protocol/data-types/basic-data-types#hashes"""
    return half_sha512(b"TXN\0" + raw).hex().upper()


def address_of(public_key: bytes) -> str:
    """The account of a key (33 bytes)."""
    return addresscodec.encode_classic_address(hashlib.new("ripemd160", hashlib.sha256(public_key).digest()).digest())


def read(raw: bytes) -> Transaction:
    """The transaction in these bytes. Raises Unreadable."""
    if not raw or len(raw) > RAW_BYTES_MAX:
        raise Unreadable("no transaction of a possible length")
    try:
        fields = binarycodec.decode(raw.hex().upper())
        canonical = binarycodec.encode(fields) == raw.hex().upper()
    except (XRPLBinaryCodecException, KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise Unreadable("these bytes cannot be read") from error
    if not canonical:
        raise Unreadable("these bytes are not the canonical ones of their fields")
    needed, more = _FIELDS.get(str(fields.get("TransactionType")), (None, ()))
    if needed is None:
        raise Unreadable("this box does not know this type of transaction")
    if missing := [name for name in (*_NEEDED, *needed) if name not in fields]:
        raise Unreadable(f"Field '{missing[0]}' is required but missing.")
    if extra := sorted(set(fields) - _COMMON - {*needed, *more}):
        raise Unreadable(f"Field '{extra[0]}' found in disallowed location.")
    _check_signature(fields)
    return Transaction(transaction_id(raw), raw, fields)


def _check_signature(fields: Mapping[str, Any]) -> None:
    """By the key that it names; whether that is the account's own is asked of the ledger. No multi-signatures here."""
    try:
        key, signature = bytes.fromhex(fields["SigningPubKey"]), bytes.fromhex(fields["TxnSignature"])
        message = bytes.fromhex(binarycodec.encode_for_signing(dict(fields)))
        if len(key) == 33 and key[0] == 0xED:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, message)
            return
        good = len(key) == 33 and coincurve.PublicKey(key).verify(signature, half_sha512(message), hasher=None)
    except (ValueError, InvalidSignature) as error:
        raise Unreadable("fails local checks: Invalid signature.") from error
    if not good:
        raise Unreadable("fails local checks: Invalid signature.")
