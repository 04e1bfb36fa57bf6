"""The bytes of the XRP Ledger: payments, trust lines and our own cancels, signed with secp256k1, read again as a stranger would. Pure.

Serialisation is xrpl-py's, signatures are libsecp256k1's through the Key. Amounts are drops (10^-6 XRP) or, of issued tokens,
10^-6 of the token: with at most 15 digits, which the ledger holds exactly. https://xrpl.org/docs/references/protocol/binary-format
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from penstock.core.intent import Intent, Key, Signed
from penstock.core.money import MoneyError, parse_units, plain
from penstock.rails.xrp.address import TAG_MAX, account_of_public_key, is_classic, parse_contract

FAMILY: Final = "xrp"
DROPS_MAX: Final = 10**17
"""All XRP that ever was: 100 billion. https://xrpl.org/docs/references/protocol/data-types/basic-data-types#specifying-currency-amounts"""
ISSUED_DECIMALS: Final = 6
"""Decimals that every issued token has here, so that the signer needs no catalogue to know what an amount is."""
ISSUED_UNITS_MAX: Final = 10**15 - 1
"""15 significant digits are exact. https://xrpl.org/docs/references/protocol/data-types/currency-formats#token-precision"""
INDEX_MAX: Final = 2**32 - 1
"""Greatest Sequence and ledger index (both are UInt32)."""
NETWORK_ID_FIELD_MIN: Final = 1025
"""From here on the transaction names its network, below it must not. https://xrpl.org/docs/references/protocol/transactions/common-fields"""
RAW_BYTES_MAX: Final = 4096
"""Ours have some 250 bytes."""

FULLY_CANONICAL: Final = 0x80000000
"""tfFullyCanonicalSig, the only flag of a payment: on a sidechain too, nobody can give our bytes another id."""
SET_NO_RIPPLE: Final = 0x00020000
"""tfSetNoRipple of a trust line: nobody else's payments pass through our balance. Of a payment the same bit would mean a partial one."""

_ID_PREFIX: Final = b"TXN\x00"
_TYPES: Final = {"pay": "Payment", "cancel": "AccountSet", "open": "TrustSet"}
_COMMON: Final = frozenset(
    {"TransactionType", "Account", "Flags", "Sequence", "Fee", "LastLedgerSequence", "SigningPubKey", "TxnSignature"}
)


class InvalidTransaction(ValueError):
    """Bytes that are no transaction which a node could take; the text says why."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A signed transaction as a stranger reads it: every field in the ledger's JSON form, its signer, and its id."""

    fields: Mapping[str, Any]
    signer: str
    txid: str


def half_sha512(data: bytes) -> bytes:
    """The first 32 bytes of SHA-512. https://xrpl.org/docs/references/protocol/data-types/basic-data-types#hashes"""
    return hashlib.sha512(data).digest()[:32]


def transaction_id(raw: bytes) -> str:
    """As explorers write it: 64 hexadecimal digits in upper case."""
    return half_sha512(_ID_PREFIX + raw).hex().upper()


# Building


def build(intent: Intent) -> dict[str, Any]:
    """The one transaction that this intent means, unsigned, in the ledger's JSON form.

    `terms`: fee (drops) and last_ledger (LastLedgerSequence). A payment has no paths, no SendMax and no flag but the canonical one: it delivers
    exactly what it says, or nothing. Cancel: an AccountSet that sets nothing, which uses the sequence up. Open: a trust line to the token's
    issuer, for as much as we count exactly. Raises ValueError.
    """
    _check(intent)
    fields: dict[str, Any] = {
        "TransactionType": _TYPES[intent.kind],
        "Account": intent.sender,
        "Flags": FULLY_CANONICAL | (SET_NO_RIPPLE if intent.kind == "open" else 0),
        "Sequence": intent.slot,
        "Fee": str(intent.terms["fee"]),
        "LastLedgerSequence": intent.terms["last_ledger"],
    }
    if intent.chain_id >= NETWORK_ID_FIELD_MIN:
        fields["NetworkID"] = intent.chain_id
    if intent.kind == "open":
        fields["LimitAmount"] = amount(intent.contract, ISSUED_UNITS_MAX)
    if intent.kind == "pay":
        payment = intent.payments[0]
        fields["Destination"] = payment.recipient
        fields["Amount"] = amount(intent.contract, payment.units)
        if payment.memo:
            fields["DestinationTag"] = int(payment.memo)
    return fields


def _check(intent: Intent) -> None:
    if intent.family != FAMILY or intent.kind not in _TYPES or intent.resources:
        raise ValueError("a transaction of the XRP Ledger pays, cancels or opens a token in the family xrp")
    if not 0 <= intent.chain_id <= INDEX_MAX or not 1 <= intent.slot <= INDEX_MAX:
        raise ValueError("network id and sequence have 32 bits, and a sequence is 1 or more: tickets are not used")
    terms = dict(intent.terms)
    if set(terms) != {"fee", "last_ledger"} or any(type(number) is not int for number in terms.values()):
        raise ValueError("terms are fee (drops) and last_ledger")
    if not 0 < terms["fee"] <= intent.fee_cap:
        raise ValueError(f"the fee is {terms['fee']} drops, and its cap {intent.fee_cap}")
    if not 1 <= terms["last_ledger"] <= INDEX_MAX:
        raise ValueError("last_ledger is a ledger index: without it nothing would ever expire")
    if not is_classic(intent.sender):
        raise ValueError("the sender is a classic address")
    if len(intent.payments) not in {"pay": (1,), "cancel": (0, 1), "open": (0,)}[intent.kind]:
        raise ValueError(f"{len(intent.payments)} payments in a transaction of the XRP Ledger of kind {intent.kind}")
    if intent.kind == "open" and intent.contract is None:
        raise ValueError("XRP needs no trust line")
    for payment in intent.payments:
        if not is_classic(payment.recipient) or payment.recipient == intent.sender:
            raise ValueError("the recipient is a classic address, and not the sender's")
        if payment.memo and (str(_number(payment.memo)) != payment.memo or int(payment.memo) > TAG_MAX):
            raise ValueError("the memo is a destination tag in plain digits")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1


def amount(contract: str | None, units: int) -> str | dict[str, str]:
    """An amount in the ledger's JSON form: text of drops, or a token's decimal value. Raises ValueError for what it cannot hold exactly."""
    if contract is None:
        if type(units) is not int or not 1 <= units <= DROPS_MAX:
            raise ValueError("an amount of XRP is from 1 drop to 100 billion XRP")
        return str(units)
    if type(units) is not int or not 1 <= units <= ISSUED_UNITS_MAX:
        raise ValueError(f"an amount of a token has from 1 to {ISSUED_UNITS_MAX} units of 10^-{ISSUED_DECIMALS}")
    token = parse_contract(contract)
    return {"currency": token.currency, "issuer": token.issuer, "value": plain(units, ISSUED_DECIMALS)}


def units_of(contract: str | None, said: object) -> int | None:
    """The units of an amount in the ledger's JSON form, None when it is of another token or not whole units; the inverse of `amount`."""
    text = said
    if contract is not None:
        token = parse_contract(contract)
        if not isinstance(said, dict) or set(said) != {"currency", "issuer", "value"}:
            return None
        if (str(said["currency"]), said["issuer"]) != (token.currency, token.issuer):
            return None
        text = said["value"]
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        return parse_units(text, 0 if contract is None else ISSUED_DECIMALS)
    except MoneyError:
        return None


# Signing: https://xrpl.org/docs/concepts/transactions#signing-and-verifying-transactions


def sign(intent: Intent, key: Key) -> Signed:
    """Build and sign; the same intent gives the same bytes. Raises ValueError when the intent cannot be this family's, or the key not
    the sender's.
    """
    from xrpl.core import binarycodec

    if account_of_public_key(key.public_key) != intent.sender:
        raise ValueError("the key is not the sender's")
    fields = build(intent)
    fields["SigningPubKey"] = coincurve.PublicKey(key.public_key).format(compressed=True).hex().upper()
    _, r, s = key.sign(_digest(fields))
    fields["TxnSignature"] = bytes(cdata_to_der(deserialize_compact(r.to_bytes(32, "big") + s.to_bytes(32, "big")))).hex().upper()
    raw = bytes.fromhex(binarycodec.encode(fields))
    return Signed(intent.attempt_id, intent.version, transaction_id(raw), raw)


def _digest(fields: Mapping[str, Any]) -> bytes:
    from xrpl.core import binarycodec

    return half_sha512(bytes.fromhex(binarycodec.encode_for_signing(dict(fields))))


# Reading


def decode_signed(raw: bytes) -> Decoded:
    """A transaction of our kinds signed by one secp256k1 key, in the only bytes that it has. Raises InvalidTransaction."""
    from xrpl.core import binarycodec

    if not 0 < len(raw) <= RAW_BYTES_MAX:
        raise InvalidTransaction(f"a transaction has 1 to {RAW_BYTES_MAX} bytes here")
    try:
        fields = binarycodec.decode(raw.hex())
        again = bytes.fromhex(binarycodec.encode(fields))
        digest = _digest(fields)
    except Exception as error:  # the library raises whatever it stumbles over
        raise InvalidTransaction("the bytes are no serialised transaction") from error
    if again != raw:
        raise InvalidTransaction("the bytes are not in canonical form")
    if fields.get("TransactionType") not in _TYPES.values() or "Signers" in fields:
        raise InvalidTransaction("it is no transaction of our kinds with one signature")
    try:
        public_key = coincurve.PublicKey(bytes.fromhex(str(fields.get("SigningPubKey"))))
        # libsecp256k1 takes only low s: what it verifies is canonical.
        holds = public_key.verify(bytes.fromhex(str(fields.get("TxnSignature"))), digest, hasher=None)
    except ValueError as error:
        raise InvalidTransaction("its key or signature is none of secp256k1") from error
    if not holds:
        raise InvalidTransaction("its signature is not its key's")
    return Decoded(fields, account_of_public_key(public_key.format()), transaction_id(raw))


def network_fits(fields: Mapping[str, Any], chain_id: int) -> bool:
    """Whether a node of this network could take it: NetworkID above 1024, and none below."""
    return fields.get("NetworkID") == (chain_id if chain_id >= NETWORK_ID_FIELD_MIN else None)


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not what the intent says. Raises InvalidTransaction for bytes that cannot be read."""
    found = decode_signed(signed.raw)
    it, (kind, flags, names, content) = found.fields, _meant(intent, found.fields)
    rules = {
        "transaction id": found.txid == signed.txid,
        "sender": it.get("Account") == intent.sender == found.signer,
        "kind": it.get("TransactionType") == kind,
        "fields": set(it) - {"NetworkID"} == _COMMON | names,
        "flags": it.get("Flags") == flags,
        "network id": network_fits(it, intent.chain_id),
        "sequence": it.get("Sequence") == intent.slot and intent.slot > 0,
        "fee cap": 0 < _number(str(it.get("Fee"))) <= intent.fee_cap,
        "fee": it.get("Fee") == str(intent.terms.get("fee")),
        "expiry": it.get("LastLedgerSequence") == intent.terms.get("last_ledger"),
        **content,
    }
    return [name for name, holds in rules.items() if not holds]


def _meant(intent: Intent, it: Mapping[str, Any]) -> tuple[str, int, set[str], dict[str, bool]]:
    """Type, flags, further fields, and the rules of each kind, written down apart from `build`."""
    if intent.kind == "cancel":
        return "AccountSet", FULLY_CANONICAL, set(), {}
    if intent.kind == "open":
        limit = {"limit": units_of(intent.contract, it.get("LimitAmount")) == ISSUED_UNITS_MAX and intent.contract is not None}
        return "TrustSet", FULLY_CANONICAL | SET_NO_RIPPLE, {"LimitAmount"}, limit
    payment = intent.payments[0]
    content = {
        "recipient": it.get("Destination") == payment.recipient,
        "tag": str(it.get("DestinationTag", "")) == payment.memo,
        "amount": units_of(intent.contract, it.get("Amount")) == payment.units,
    }
    return "Payment", FULLY_CANONICAL, {"Destination", "Amount"} | ({"DestinationTag"} if payment.memo else set()), content
