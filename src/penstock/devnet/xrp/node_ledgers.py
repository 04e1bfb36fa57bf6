"""Methods that tell of ledgers and of single entries in them.

https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/ledger-methods
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.devnet.xrp.entries import (
    account_fields,
    account_key,
    line_fields,
    line_key,
    preauth_fields,
    preauth_key,
    ticket_fields,
    ticket_key,
)
from penstock.devnet.xrp.ledgers import RESOLUTION_S, Ledger
from penstock.devnet.xrp.node_known import Known
from penstock.devnet.xrp.node_transactions import json_of, meta_of
from penstock.devnet.xrp.rpc import Params, Refused, address_in, invalid, number_in
from penstock.devnet.xrp.state import View, line_between

_CURRENCY: Final = re.compile(r"[0-9A-F]{40}|[!-~]{3}", re.ASCII)
_Found = tuple[str, str, dict[str, Any] | None]
"""Type, id and fields of an entry; None where there is none."""


def ledger(node: Known, params: Params) -> dict[str, Any]:
    """A ledger's header, and its transactions when asked for."""
    if params.get("ledger_index") is None and params.get("ledger_hash") is None:
        closed = _header(node, node.chain.ledgers[node.closed], params)
        return {"closed": {"ledger": closed}, "open": {"ledger": _open(node)}}
    index = node.index(params)
    if index == node.open_index:
        return {"ledger": _open(node), **node.where(index)}
    return {"ledger": _header(node, node.chain.ledgers[index], params), **node.where(index)}


def _open(node: Known) -> dict[str, Any]:
    return {"closed": False, "ledger_index": str(node.open_index), "parent_hash": node.chain.ledgers[node.closed].hash}


def _header(node: Known, found: Ledger, params: Params) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "account_hash": found.state_hash,
        "close_flags": 0,
        "close_time": found.close_time,
        "close_time_resolution": RESOLUTION_S,
        "closed": True,
        "ledger_hash": found.hash,
        "ledger_index": str(found.index),
        "parent_close_time": found.parent_close_time,
        "parent_hash": found.parent,
        "total_coins": str(found.total_drops),
        "transaction_hash": found.transactions_hash,
    }
    if params.get("transactions"):
        applied = () if node.faults.blind else found.applied
        whole = params.get("expand")
        shown["transactions"] = [
            {**json_of(one.transaction), "metaData": meta_of(one)} if whole else one.transaction.txid for one in applied
        ]
    return shown


def ledger_entry(node: Known, params: Params) -> dict[str, Any]:
    """One entry: an account root, a ticket, a deposit authorisation, or a trust line."""
    index = node.index(params)
    kind, key, fields = _entry(node.view(index), params)
    if fields is None:
        raise Refused("entryNotFound", **node.where(index))
    return {"index": key, "node": {**fields, "LedgerEntryType": kind, "index": key}, **node.where(index)}


def _entry(view: View, params: Params) -> _Found:
    if "account_root" in params:
        address = address_in(params, "account_root")
        account = view.account(address)
        return "AccountRoot", account_key(address), account_fields(address, account) if account is not None else None
    if "ticket" in params:
        owner, number = address_in(_inner(params, "ticket"), "account"), number_in(_inner(params, "ticket"), "ticket_seq", 0)
        account = view.account(owner)
        known = account is not None and number in account.tickets
        return "Ticket", ticket_key(owner, number & 0xFFFFFFFF), ticket_fields(owner, number) if known else None
    if "deposit_preauth" in params:
        owner, friend = (address_in(_inner(params, "deposit_preauth"), name) for name in ("owner", "authorized"))
        account = view.account(owner)
        known = account is not None and friend in account.preauthorized
        return "DepositPreauth", preauth_key(owner, friend), preauth_fields(owner, friend) if known else None
    if "ripple_state" in params:
        return _line(view, _inner(params, "ripple_state"))
    raise Refused("unknownOption")


def _line(view: View, params: Params) -> _Found:
    accounts, currency = params.get("accounts"), params.get("currency")
    if not isinstance(accounts, list) or len(accounts) != 2 or not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise invalid("Invalid field 'ripple_state'.")
    pair = {"one": accounts[0], "other": accounts[1]}
    key = line_between(address_in(pair, "one"), address_in(pair, "other"), currency)
    found = view.line(key)
    return "RippleState", line_key(key), line_fields(key, found) if found is not None else None


def _inner(params: Params, name: str) -> Params:
    found = params[name]
    if not isinstance(found, dict):
        raise invalid(f"Invalid field '{name}'.")
    return found


def ledger_closed(node: Known, _: Params) -> dict[str, Any]:
    """The newest closed one."""
    return {"ledger_hash": node.chain.ledgers[node.closed].hash, "ledger_index": node.closed}


def ledger_current(node: Known, _: Params) -> dict[str, Any]:
    """The one in the making."""
    return {"ledger_current_index": node.open_index}


def ledger_accept(node: Known, _: Params) -> dict[str, Any]:
    """Close a ledger now, as a server does that stands alone."""
    node.chain.close()
    return {"ledger_current_index": node.open_index}


METHODS: Final[Mapping[str, Callable[[Known, Params], dict[str, Any]]]] = {
    "ledger": ledger,
    "ledger_accept": ledger_accept,
    "ledger_closed": ledger_closed,
    "ledger_current": ledger_current,
    "ledger_entry": ledger_entry,
}
