"""What can be said of a transaction without any ledger: tem codes, and tel codes of another network.

https://xrpl.org/docs/references/protocol/transactions/transaction-results/tem-codes
"""

from __future__ import annotations

from typing import Any, Final

from penstock.devnet.xrp.amounts import DROPS_MAX, EXPONENT_MAX, ISSUED_SCALE, PAR, Amount, NotAnAmount, amount_of
from penstock.devnet.xrp.transactions import Transaction

PARTIAL: Final = 0x00020000
NO_DIRECT: Final = 0x00010000
LIMIT_QUALITY: Final = 0x00040000
SET_AUTH: Final = 0x00010000
SET_NO_RIPPLE: Final = 0x00020000
CLEAR_NO_RIPPLE: Final = 0x00040000
SET_FREEZE: Final = 0x00100000
CLEAR_FREEZE: Final = 0x00200000
"""tf flags. https://xrpl.org/docs/references/protocol/transactions/types"""

_CANONICAL: Final = 0x80000000
_FLAGS: Final = {
    "Payment": PARTIAL | NO_DIRECT | LIMIT_QUALITY,
    "TrustSet": SET_AUTH | SET_NO_RIPPLE | CLEAR_NO_RIPPLE | SET_FREEZE | CLEAR_FREEZE,
    "AccountSet": 0,
    "TicketCreate": 0,
    "DepositPreauth": 0,
}
"""Those of an AccountSet that say the same as its SetFlag and ClearFlag are refused here."""

NETWORK_ID_NAMED: Final = 1024
"""Networks above name their id in each transaction, the others in none."""
TICKETS_MAX: Final = 250
RATE_MAX: Final = 2 * PAR


def preflight(transaction: Transaction, network_id: int) -> str:
    """The code that a node answers whatever its ledgers hold, or tesSUCCESS."""
    fields = transaction.fields
    if (code := _network(fields.get("NetworkID"), network_id)) != "tesSUCCESS":
        return code
    fee = fields["Fee"]
    if not (isinstance(fee, str) and fee.isascii() and fee.isdigit() and int(fee) <= DROPS_MAX):
        return "temBAD_FEE"
    if transaction.flags & ~(_CANONICAL | _FLAGS[transaction.type]):
        return "temINVALID_FLAG"
    match transaction.type:
        case "Payment":
            return _payment(transaction)
        case "TrustSet":
            return _trust(transaction)
        case "AccountSet":
            return _settings(transaction)
        case "TicketCreate":
            return "tesSUCCESS" if 1 <= int(fields["TicketCount"]) <= TICKETS_MAX else "temINVALID_COUNT"
        case _:
            return _preauth(transaction)


def _network(named: Any, network_id: int) -> str:
    """https://xrpl.org/docs/references/protocol/transactions/common-fields#networkid-field"""
    if network_id <= NETWORK_ID_NAMED:
        return "tesSUCCESS" if named is None else "telNETWORK_ID_MAKES_TX_NON_CANONICAL"
    if named is None:
        return "telREQUIRES_NETWORK_ID"
    return "tesSUCCESS" if named == network_id else "telWRONG_NETWORK"


def _positive(given: Any) -> Amount | None:
    try:
        amount = amount_of(given)
    except NotAnAmount:
        return None
    return amount if 0 < amount.units < 10 ** (ISSUED_SCALE + EXPONENT_MAX + 16) else None


def _payment(transaction: Transaction) -> str:
    """In rippled's order: amounts, then what is redundant, then what only tokens have."""
    fields, flags = transaction.fields, transaction.flags
    amount = _positive(fields["Amount"])
    most = _positive(fields["SendMax"]) if "SendMax" in fields else amount
    if amount is None or most is None:
        return "temBAD_AMOUNT"
    if "XRP" in {amount.currency, most.currency}:
        return "temBAD_CURRENCY"
    if fields["Destination"] == transaction.account and amount.currency == most.currency and "Paths" not in fields:
        return "temREDUNDANT"
    if not amount.currency and not most.currency:
        for name, code in (("SendMax", "temBAD_SEND_XRP_MAX"), ("Paths", "temBAD_SEND_XRP_PATHS")):
            if name in fields:
                return code
        for flag, code in (
            (PARTIAL, "temBAD_SEND_XRP_PARTIAL"),
            (LIMIT_QUALITY, "temBAD_SEND_XRP_LIMIT"),
            (NO_DIRECT, "temBAD_SEND_XRP_NO_DIRECT"),
        ):
            if flags & flag:
                return code
    if "DeliverMin" in fields:
        least = _positive(fields["DeliverMin"])
        same = least is not None and (least.currency, least.issuer) == (amount.currency, amount.issuer)
        if not flags & PARTIAL or least is None or not same or least.units > amount.units:
            return "temBAD_AMOUNT"
    return "tesSUCCESS"


def _trust(transaction: Transaction) -> str:
    try:
        limit = amount_of(transaction.fields["LimitAmount"])
    except NotAnAmount:
        return "temBAD_LIMIT"
    if not limit.currency or limit.units < 0:
        return "temBAD_LIMIT"
    if limit.currency == "XRP":
        return "temBAD_CURRENCY"
    if any(transaction.fields.get(name, 0) not in {0, PAR} for name in ("QualityIn", "QualityOut")):
        return "temDISABLED"  # of this box; on the real network a line may count above or below par
    return "temDST_IS_SRC" if limit.issuer == transaction.account else "tesSUCCESS"


def _settings(transaction: Transaction) -> str:
    fields = transaction.fields
    if fields.get("SetFlag", 0) and fields.get("SetFlag") == fields.get("ClearFlag"):
        return "temINVALID_FLAG"
    rate = int(fields.get("TransferRate", 0))
    return "tesSUCCESS" if rate == 0 or PAR <= rate <= RATE_MAX else "temBAD_TRANSFER_RATE"


def _preauth(transaction: Transaction) -> str:
    fields = transaction.fields
    if ("Authorize" in fields) == ("Unauthorize" in fields):
        return "temMALFORMED"
    return "temCANNOT_PREAUTH_SELF" if fields.get("Authorize") == transaction.account else "tesSUCCESS"
