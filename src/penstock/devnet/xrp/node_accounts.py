"""Methods that tell of accounts: balances, trust lines, deposits.

https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/account-methods
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.devnet.xrp.amounts import value_text
from penstock.devnet.xrp.entries import account_fields, account_key, line_key
from penstock.devnet.xrp.node_known import Known
from penstock.devnet.xrp.queue import level_of
from penstock.devnet.xrp.rpc import Params, Refused, address_in, invalid, limit_in
from penstock.devnet.xrp.state import (
    DEFAULT_RIPPLE,
    DEPOSIT_AUTH,
    DISALLOW_XRP,
    GLOBAL_FREEZE,
    NO_FREEZE,
    NO_TRUST_LINES,
    REQUIRE_AUTH,
    REQUIRE_DEST,
    Account,
    Draft,
    Line,
    TrustLine,
    View,
)
from penstock.devnet.xrp.transactions import Transaction

_FLAGS: Final = {
    "allowTrustLineClawback": 0,
    "defaultRipple": DEFAULT_RIPPLE,
    "depositAuth": DEPOSIT_AUTH,
    "disableMasterKey": 0,
    "disallowIncomingCheck": 0,
    "disallowIncomingNFTokenOffer": 0,
    "disallowIncomingPayChan": 0,
    "disallowIncomingTrustline": NO_TRUST_LINES,
    "disallowIncomingXRP": DISALLOW_XRP,
    "globalFreeze": GLOBAL_FREEZE,
    "noFreeze": NO_FREEZE,
    "passwordSpent": 0,
    "requireAuthorization": REQUIRE_AUTH,
    "requireDestinationTag": REQUIRE_DEST,
}
"""0: what no account here can have."""


def account_info(node: Known, params: Params) -> dict[str, Any]:
    """An account root, and what the account has queued when asked for."""
    address, index = address_in(params, "account"), node.index(params)
    account = _account(node, address, index)
    data = {**account_fields(address, account), "LedgerEntryType": "AccountRoot", "index": account_key(address)}
    shown: dict[str, Any] = {
        "account_data": data,
        "account_flags": {name: bool(account.flags & bit) for name, bit in _FLAGS.items()},
        **node.where(index),
    }
    if params.get("queue"):
        if index != node.open_index:
            raise invalid("Invalid parameters.")
        shown["queue_data"] = _queue_data([] if node.faults.lag else node.chain.queue.of(address))
    return shown


def _account(node: Known, address: str, index: int) -> Account:
    found = node.view(index).account(address)
    if found is None:
        raise Refused("actNotFound", 19, "Account not found.", account=address, **node.where(index))
    return found


def _queue_data(queued: list[Transaction]) -> dict[str, Any]:
    if not queued:
        return {"txn_count": 0}
    shown = []
    for one in queued:
        entry: dict[str, Any] = {
            "auth_change": False,
            "fee": str(one.fee),
            "fee_level": str(level_of(one.fee)),
            "max_spend_drops": str(one.fee + one.spends),
        }
        entry |= {"seq": one.sequence} if one.ticket is None else {"ticket": one.ticket}
        if one.last_ledger is not None:
            entry["LastLedgerSequence"] = one.last_ledger
        shown.append(entry)
    sequences = [one.sequence for one in queued if one.ticket is None]
    ends = {"lowest_sequence": min(sequences), "highest_sequence": max(sequences)} if sequences else {}
    total = str(sum(one.fee + one.spends for one in queued))
    return {"auth_change_queued": False, **ends, "max_spend_drops_total": total, "transactions": shown, "txn_count": len(shown)}


def account_lines(node: Known, params: Params) -> dict[str, Any]:
    """Trust lines as the account sees them, those to one peer when asked for."""
    address, index, limit = address_in(params, "account"), node.index(params), limit_in(params)
    _account(node, address, index)
    peer = address_in(params, "peer") if params.get("peer") is not None else None
    view = node.view(index)
    keys = {key for key in node.chain.state.lines_of(address) if peer is None or peer in key}
    if isinstance(view, Draft):
        keys |= {key for key in view.lines if address in key[:2] and (peer is None or peer in key)}
    found = sorted(((line_key(key), key, line) for key in keys if (line := view.line(key)) is not None), key=lambda row: row[0])
    marker = params.get("marker")
    if marker is not None:
        if not isinstance(marker, str) or not any(marker == row[0] for row in found):
            raise invalid("Invalid field 'marker'.")
        found = [row for row in found if row[0] > marker]
    shown = {"account": address, "lines": [_line(view, address, key, line) for _, key, line in found[:limit]], **node.where(index)}
    return {**shown, "limit": limit, "marker": found[limit - 1][0]} if len(found) > limit else shown


def _line(view: View, address: str, key: Line, line: TrustLine) -> dict[str, Any]:
    low = key[0] == address
    peer, mine, theirs = key[1] if low else key[0], line.side(low=low), line.side(low=not low)
    shown: dict[str, Any] = {
        "account": peer,
        "balance": value_text(line.held(low=low)),
        "currency": key[2],
        "limit": value_text(mine.limit),
        "limit_peer": value_text(theirs.limit),
        "quality_in": 0,
        "quality_out": 0,
    }
    for end, side, owner in (("", mine, address), ("_peer", theirs, peer)):
        account = view.account(owner)
        if side.no_ripple or (account is not None and not account.flags & DEFAULT_RIPPLE):
            shown[f"no_ripple{end}"] = side.no_ripple
        if side.freeze:
            shown[f"freeze{end}"] = True
    if mine.authorized:
        shown["authorized"] = True
    if theirs.authorized:
        shown["peer_authorized"] = True
    return shown


def deposit_authorized(node: Known, params: Params) -> dict[str, Any]:
    """Whether one account takes deposits of another."""
    source, target = address_in(params, "source_account"), address_in(params, "destination_account")
    index = node.index(params)
    view = node.view(index)
    if view.account(source) is None:
        raise Refused("srcActNotFound", 67, "Source account not found.")
    account = view.account(target)
    if account is None:
        raise Refused("dstActNotFound", 50, "Destination account not found.")
    free = source == target or not account.flags & DEPOSIT_AUTH or source in account.preauthorized
    return {"deposit_authorized": free, "destination_account": target, "source_account": source, **node.where(index)}


METHODS: Final[Mapping[str, Callable[[Known, Params], dict[str, Any]]]] = {
    "account_info": account_info,
    "account_lines": account_lines,
    "deposit_authorized": deposit_authorized,
}
