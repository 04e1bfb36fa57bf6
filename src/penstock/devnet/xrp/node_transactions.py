"""Methods that take transactions and tell what became of them.

https://xrpl.org/docs/references/http-websocket-apis/public-api-methods/transaction-methods
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from xrpl.core import binarycodec
from xrpl.core.binarycodec.definitions.definitions import get_transaction_result_code

from penstock.devnet.box import Broken
from penstock.devnet.xrp.ledgers import Applied
from penstock.devnet.xrp.node_known import Known
from penstock.devnet.xrp.rpc import Params, Refused, address_in, hash_of, invalid, limit_in, number_in
from penstock.devnet.xrp.transactions import Transaction, Unreadable

RANGE_MAX: Final = 1_000


def json_of(transaction: Transaction) -> dict[str, Any]:
    """Its fields and its id."""
    return {**transaction.fields, "hash": transaction.txid}


def meta_of(applied: Applied) -> dict[str, Any]:
    """Its metadata, with what it delivered as nodes add it."""
    if applied.delivered is None:
        return dict(applied.metadata)
    return {**applied.metadata, "delivered_amount": applied.delivered.json()}


def submit(node: Known, params: Params) -> dict[str, Any]:
    """Takes signed bytes, and forecasts what will become of them. Raises Broken where that is what the node does."""
    text = params.get("tx_blob")
    if text is None:
        raise Refused("notSupported", 75, "Signing is not supported by this server.")
    try:
        raw = bytes.fromhex(str(text))
    except ValueError:
        raw = b""
    if not raw:
        raise invalid("Invalid parameters.")
    faults = node.faults
    lose = faults.drop > 0
    try:
        code, transaction = node.chain.submit(raw, delay_ms=faults.delay_ms, lose=lose)
        faults.drop -= lose
        if faults.duplicate and not lose:
            faults.duplicate -= 1
            node.chain.submit(raw, delay_ms=faults.delay_ms)
    except Unreadable as error:
        raise Refused("invalidTransaction", error_exception=str(error)) from error
    if faults.break_after:
        faults.break_after -= 1
        raise Broken(faults.breakage)
    return _submitted(node, code, transaction)


def _submitted(node: Known, code: str, transaction: Transaction) -> dict[str, Any]:
    applied, queued, kept = code.startswith(("tes", "tec")), code == "terQUEUED", code.startswith("ter")
    account = node.chain.current.account(transaction.account)
    following = account.sequence if account is not None else 0
    return {
        "accepted": applied or kept,
        "account_sequence_available": node.chain.queue.next_sequence(transaction.account, following),
        "account_sequence_next": following,
        "applied": applied,
        "broadcast": applied or queued,
        "engine_result": code,
        "engine_result_code": get_transaction_result_code(code),
        "engine_result_message": code,
        "kept": applied or kept,
        "open_ledger_cost": str(node.chain.open_fee),
        "queued": queued,
        "tx_blob": transaction.raw.hex().upper(),
        "tx_json": json_of(transaction),
        "validated_ledger_index": node.validated,
    }


def tx(node: Known, params: Params) -> dict[str, Any]:
    """One transaction by its id: in a closed ledger, or in the one that is being made. What only waits is not found."""
    if params.get("transaction") is None:
        raise invalid("Invalid parameters.")
    try:
        txid = hash_of(params, "transaction", "")
    except Refused:
        raise Refused("notImpl", 74, "Not implemented.") from None
    searched = _searched(node, params)
    applied = None if node.faults.blind else node.chain.applied(txid)
    if applied is not None and node.has_closed(applied.index):
        return _found(node, applied, binary=params.get("binary") is True)
    opened = None if node.faults.blind or node.faults.lag else node.chain.opened(txid)
    if opened is not None:
        return {**json_of(opened), "validated": False}
    raise Refused("txnNotFound", 29, "Transaction not found.", **searched)


def _searched(node: Known, params: Params) -> dict[str, bool]:
    """Whether the ledgers that are asked for were all there to be searched. Raises Refused."""
    if "min_ledger" not in params or "max_ledger" not in params:
        return {}
    first, last = params["min_ledger"], params["max_ledger"]
    if type(first) is not int or type(last) is not int or not 0 <= first <= last:
        raise Refused("invalidLgrRange", 79, "Ledger range is invalid.")
    if last - first > RANGE_MAX:
        raise Refused("excessiveLgrRange", 78, "Ledger range exceeds 1000.")
    return {"searched_all": node.has(first, last)}


def _found(node: Known, applied: Applied, *, binary: bool = False) -> dict[str, Any]:
    ledger = node.chain.ledgers[applied.index]
    where = {"date": ledger.close_time, "inLedger": applied.index, "ledger_index": applied.index}
    more = {"ledger_hash": ledger.hash, "validated": applied.index <= node.validated}
    if binary:
        meta = binarycodec.encode(dict(applied.metadata))
        return {"hash": applied.transaction.txid, "meta": meta, "tx": applied.transaction.raw.hex().upper(), **where, **more}
    return {**_shown(applied), **where, "meta": meta_of(applied), **more}


def _shown(applied: Applied) -> dict[str, Any]:
    shown = json_of(applied.transaction)
    return {**shown, "DeliverMax": shown["Amount"]} if "Amount" in shown else shown


def account_tx(node: Known, params: Params) -> dict[str, Any]:
    """What changed something of an account, newest first, in the newest range of ledgers without a gap."""
    address, limit = address_in(params, "account"), limit_in(params)
    first, last = number_in(params, "ledger_index_min", -1), number_in(params, "ledger_index_max", -1)
    lowest, highest = node.ranges[-1]
    low, high = (lowest if first < 0 else max(first, lowest)), (highest if last < 0 else min(last, highest))
    if low > high:
        raise Refused("lgrIdxsInvalid", 57, "Ledger indexes invalid.")
    everything = [] if node.faults.blind else node.chain.of_account(address)
    rows = [one for one in everything if low <= one.index <= high]
    rows = rows if params.get("forward") is True else rows[::-1]
    start = _start(rows, params.get("marker"))
    shown = [
        {
            "meta": meta_of(one),
            "tx": {
                **_shown(one),
                "date": node.chain.ledgers[one.index].close_time,
                "inLedger": one.index,
                "ledger_index": one.index,
            },
            "validated": True,
        }
        for one in rows[start : start + limit]
    ]
    answer = {
        "account": address,
        "ledger_index_max": high,
        "ledger_index_min": low,
        "limit": limit,
        "transactions": shown,
        "validated": True,
    }
    if start + limit < len(rows):
        following = rows[start + limit]
        answer["marker"] = {"ledger": following.index, "seq": following.place}
    return answer


def _start(rows: list[Applied], marker: Any) -> int:
    """Where a marker says to go on. Raises Refused."""
    if marker is None:
        return 0
    for number, one in enumerate(rows):
        if marker == {"ledger": one.index, "seq": one.place}:
            return number
    raise invalid("invalid marker. Provide ledger index via ledger field, and transaction sequence number via seq field")


METHODS: Final[Mapping[str, Callable[[Known, Params], dict[str, Any]]]] = {
    "account_tx": account_tx,
    "submit": submit,
    "tx": tx,
}
