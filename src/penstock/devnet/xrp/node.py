"""rippled's JSON-RPC as one node of the box tells it: {"method": m, "params": [{...}]} -> {"result": {..., "status": "success" or "error"}}.

Method by method as in https://xrpl.org/docs/references/http-websocket-apis/public-api-methods (API version 1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from xrpl.core import addresscodec

from penstock.devnet.box import CLIENT_VERSION, Broken, Faults, Request, Response
from penstock.devnet.xrp.chain import RIPPLE_EPOCH_MS, Applied, Ledger, XrpChain
from penstock.devnet.xrp.engine import BASE_RESERVE, OWNER_RESERVE, value_text
from penstock.devnet.xrp.state import DEPOSIT_AUTH, Account
from penstock.devnet.xrp.transactions import BASE_FEE, Transaction

LINES_MAX: Final = 400
_FLAGS: Final = {
    "requireDestinationTag": 0x00020000,
    "disallowIncomingXRP": 0x00080000,
    "globalFreeze": 0x00400000,
    "defaultRipple": 0x00800000,
    "depositAuth": DEPOSIT_AUTH,
}


@dataclass(slots=True)
class XrpFaults(Faults):
    """`gap`: so many of the newest validated ledgers but one are missing from what the node keeps, so no search is complete."""

    gap: int = 0


class Refused(Exception):
    """An answer of kind error: its token, number and words."""

    def __init__(self, token: str, code: int, words: str, **more: Any) -> None:
        super().__init__(token)
        self.answer = {"error": token, "error_code": code, "error_message": words, "status": "error", **more}


class XrpNode:
    """One node of a network."""

    def __init__(self, chain: XrpChain, faults: XrpFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or XrpFaults()
        self._methods: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "ping": lambda _: {},
            "server_info": self._server_info,
            "server_state": self._server_state,
            "fee": self._fee,
            "ledger": self._ledger,
            "ledger_current": lambda _: {"ledger_current_index": self._open},
            "ledger_closed": lambda _: {"ledger_index": self._closed, "ledger_hash": self.chain.ledgers[self._closed].hash},
            "ledger_accept": self._accept,
            "account_info": self._account_info,
            "account_lines": self._account_lines,
            "account_tx": self._account_tx,
            "tx": self._tx,
            "submit": self._submit,
            "deposit_authorized": self._deposit_authorized,
        }

    def answer(self, request: Request) -> Response:
        """One JSON-RPC call over HTTP. Raises Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        if request.path or request.method != "POST":
            return Response(b"Forbidden", status=403, content_type="text/plain")
        try:
            asked = json.loads(request.body)
            method, params = asked["method"], (asked.get("params") or [{}])[0]
        except (ValueError, RecursionError, KeyError, TypeError, IndexError):
            return Response(b"Unable to parse request", status=400, content_type="text/plain")
        result = self.call(str(method), params if isinstance(params, Mapping) else {})
        return Response(json.dumps({"result": result}, separators=(",", ":")).encode())

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one call. Raises Broken when no answer comes."""
        self.chain.tick()
        known = self._methods.get(method, _unknown)
        try:
            return {**known(params), "status": "success"}
        except Refused as refused:
            return {**refused.answer, "request": {"command": method, **params}}

    # What this node knows

    @property
    def _closed(self) -> int:
        return max(min(self.chain.ledgers), self.chain.closed - self.faults.lag)

    @property
    def _open(self) -> int:
        return self._closed + 1

    @property
    def _validated(self) -> int:
        return max(min(self.chain.ledgers), self.chain.validated - self.faults.lag)

    def _ranges(self) -> list[tuple[int, int]]:
        first, last = min(self.chain.ledgers), self._validated
        if not self.faults.gap or last - self.faults.gap <= first:
            return [(first, last)]
        return [(first, last - self.faults.gap - 1), (last, last)]

    def _has(self, first: int, last: int) -> bool:
        return any(low <= first and last <= high for low, high in self._ranges())

    def _index(self, params: Mapping[str, Any]) -> int:
        """Which ledger a call means; the open one by default."""
        wanted = params.get("ledger_index", "current")
        if params.get("ledger_hash") is not None:
            found = next((ledger for ledger in self.chain.ledgers.values() if ledger.hash == params["ledger_hash"]), None)
            wanted = found.index if found is not None else -1
        index = {"validated": self._validated, "closed": self._closed, "current": self._open}.get(str(wanted))
        if index is None:
            if not str(wanted).isdigit():
                raise Refused("invalidParams", 31, "ledgerIndexMalformed")
            index = int(wanted)
        if index > self._open or index < min(self.chain.ledgers):
            raise Refused("lgrNotFound", 21, "ledgerNotFound")
        return index

    def _where(self, index: int) -> dict[str, Any]:
        if index == self._open:
            return {"ledger_current_index": index, "validated": False}
        return {"ledger_hash": self.chain.ledgers[index].hash, "ledger_index": index, "validated": index <= self._validated}

    # About the server

    def _network_id(self) -> int:
        return self.faults.chain_id or self.chain.spec.network_id

    def _complete(self) -> str:
        return ",".join(f"{low}-{high}" for low, high in self._ranges())

    def _server_info(self, _: Mapping[str, Any]) -> dict[str, Any]:
        ledger = self.chain.ledgers[self._validated]
        return {
            "info": {
                "build_version": CLIENT_VERSION,
                "complete_ledgers": self._complete(),
                "network_id": self._network_id(),
                "server_state": "full",
                "load_factor": self.chain.open_fee // BASE_FEE,
                "peers": 1,
                "validated_ledger": {
                    "age": 1,
                    "base_fee_xrp": BASE_FEE / 10**6,
                    "hash": ledger.hash,
                    "reserve_base_xrp": BASE_RESERVE // 10**6,
                    "reserve_inc_xrp": OWNER_RESERVE / 10**6,
                    "seq": ledger.index,
                },
            }
        }

    def _server_state(self, _: Mapping[str, Any]) -> dict[str, Any]:
        ledger = self.chain.ledgers[self._validated]
        return {
            "state": {
                "build_version": CLIENT_VERSION,
                "complete_ledgers": self._complete(),
                "network_id": self._network_id(),
                "server_state": "full",
                "load_base": 256,
                "load_factor": 256 * (self.chain.open_fee // BASE_FEE),
                "validated_ledger": {
                    "base_fee": BASE_FEE,
                    "close_time": (ledger.closed_ms - RIPPLE_EPOCH_MS) // 1000,
                    "hash": ledger.hash,
                    "reserve_base": BASE_RESERVE,
                    "reserve_inc": OWNER_RESERVE,
                    "seq": ledger.index,
                },
            }
        }

    def _fee(self, _: Mapping[str, Any]) -> dict[str, Any]:
        drops = {
            "base_fee": str(BASE_FEE),
            "median_fee": "5000",
            "minimum_fee": str(BASE_FEE),
            "open_ledger_fee": str(self.chain.open_fee),
        }
        level = self.chain.open_fee // BASE_FEE * 256
        return {
            "current_ledger_size": str(self.chain.waiting_count),
            "current_queue_size": "0",
            "drops": drops,
            "expected_ledger_size": "1000",
            "ledger_current_index": self._open,
            "levels": {"median_level": "128000", "minimum_level": "256", "open_ledger_level": str(level), "reference_level": "256"},
            "max_queue_size": "20000",
        }

    # About ledgers

    def _ledger(self, params: Mapping[str, Any]) -> dict[str, Any]:
        index = self._index({"ledger_index": "validated", **params})
        if index == self._open:
            return {"ledger": {"closed": False, "ledger_index": str(index)}, **self._where(index)}
        if index <= self._validated and not self._has(index, index):
            raise Refused("lgrNotFound", 21, "ledgerNotFound")
        ledger = self.chain.ledgers[index]
        shown: dict[str, Any] = {
            "closed": True,
            "ledger_hash": ledger.hash,
            "parent_hash": ledger.parent,
            "ledger_index": str(index),
            "close_time": (ledger.closed_ms - RIPPLE_EPOCH_MS) // 1000,
        }
        if params.get("transactions"):
            shown["transactions"] = [a.transaction.txid for a in self._applied(ledger)]
        return {"ledger": shown, **self._where(index)}

    def _applied(self, ledger: Ledger) -> tuple[Applied, ...]:
        return () if self.faults.blind else ledger.applied

    def _accept(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self.chain.close()
        return {"ledger_current_index": self._open}

    # About accounts

    def _address(self, params: Mapping[str, Any], name: str = "account") -> str:
        text = params.get(name)
        if not isinstance(text, str) or not addresscodec.is_valid_classic_address(text):
            raise Refused("actMalformed", 35, "Account malformed.")
        return text

    def _account(self, address: str, index: int) -> Account:
        found = self.chain.state.accounts.at(address, index)
        if found is None:
            raise Refused("actNotFound", 19, "Account not found.", account=address, ledger_index=index, validated=index <= self._validated)
        return found

    def _account_info(self, params: Mapping[str, Any]) -> dict[str, Any]:
        address, index = self._address(params), self._index(params)
        account = self._account(address, index)
        data = {
            "Account": address,
            "Balance": str(account.balance),
            "Flags": account.flags,
            "LedgerEntryType": "AccountRoot",
            "OwnerCount": account.owner_count,
            "Sequence": account.sequence,
        }
        if account.tickets:
            data["TicketCount"] = len(account.tickets)
        flags = {name: bool(account.flags & bit) for name, bit in _FLAGS.items()}
        shown: dict[str, Any] = {"account_data": data, "account_flags": flags, **self._where(index)}
        if params.get("queue") and index == self._open:
            queued = self.chain.waiting_of(address)
            shown["queue_data"] = {
                "txn_count": len(queued),
                "transactions": [{"seq": t.sequence, "fee": str(t.fee), "LastLedgerSequence": t.last_ledger} for t in queued],
            }
        return shown

    def _account_lines(self, params: Mapping[str, Any]) -> dict[str, Any]:
        address, index = self._address(params), self._index(params)
        self._account(address, index)
        peer, lines = params.get("peer"), []
        for key in self.chain.state.lines.keys():  # noqa: SIM118  a table of ours, no dict
            holder, issuer, currency = key
            line = self.chain.state.lines.at(key, index)
            if line is None or address not in {holder, issuer} or peer not in {None, holder, issuer}:
                continue
            mine = holder == address
            lines.append(
                {
                    "account": issuer if mine else holder,
                    "balance": value_text(line.balance if mine else -line.balance),
                    "currency": currency,
                    "limit": value_text(line.limit) if mine else "0",
                    "limit_peer": "0" if mine else value_text(line.limit),
                    "quality_in": 0,
                    "quality_out": 0,
                    "freeze_peer": line.frozen and mine,
                }
            )
        return {"account": address, "lines": lines[:LINES_MAX], **self._where(index)}

    def _account_tx(self, params: Mapping[str, Any]) -> dict[str, Any]:
        address = self._address(params)
        first, last = int(params.get("ledger_index_min", -1)), int(params.get("ledger_index_max", -1))
        low = min(self.chain.ledgers) if first < 0 else first
        high = self._validated if last < 0 else min(last, self._validated)
        found = []
        for index in range(low, high + 1):
            if self._has(index, index):
                found += [a for a in self._applied(self.chain.ledgers[index]) if self._touches(a.transaction, address)]
        found = found if params.get("forward") else found[::-1]
        shown = [
            {"meta": _meta(a), "tx": _fields(a.transaction, a.index), "validated": True} for a in found[: int(params.get("limit", 200))]
        ]
        return {"account": address, "ledger_index_min": low, "ledger_index_max": high, "transactions": shown, "validated": True}

    @staticmethod
    def _touches(transaction: Transaction, address: str) -> bool:
        return address in {transaction.account, transaction.fields.get("Destination")}

    def _deposit_authorized(self, params: Mapping[str, Any]) -> dict[str, Any]:
        source, to = self._address(params, "source_account"), self._address(params, "destination_account")
        index = self._index({"ledger_index": "validated", **params})
        account = self.chain.state.accounts.at(to, index)
        if account is None:
            raise Refused("dstActNotFound", 51, "Destination account not found.")
        self._account(source, index)
        free = not account.flags & DEPOSIT_AUTH or source in account.preauthorized
        return {"deposit_authorized": free, "source_account": source, "destination_account": to, **self._where(index)}

    # About transactions

    def _tx(self, params: Mapping[str, Any]) -> dict[str, Any]:
        txid = str(params.get("transaction", "")).upper()
        applied = None if self.faults.blind else self.chain.applied(txid)
        if (
            applied is not None
            and applied.index <= self._closed
            and (applied.index > self._validated or self._has(applied.index, applied.index))
        ):
            ledger = self.chain.ledgers[applied.index]
            return {
                **_fields(applied.transaction, applied.index),
                "meta": _meta(applied),
                "date": (ledger.closed_ms - RIPPLE_EPOCH_MS) // 1000,
                "ledger_hash": ledger.hash,
                "validated": applied.index <= self._validated,
            }
        waiting = None if self.faults.blind or self.faults.lag else self.chain.waiting(txid)
        if waiting is not None:
            return {**_fields(waiting), "validated": False}
        more: dict[str, Any] = {}
        if "min_ledger" in params and "max_ledger" in params:
            more["searched_all"] = self._has(int(params["min_ledger"]), int(params["max_ledger"]))
        raise Refused("txnNotFound", 29, "Transaction not found.", **more)

    def _submit(self, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            raw = bytes.fromhex(str(params["tx_blob"]))
        except (KeyError, ValueError):
            raise Refused("invalidTransaction", 31, "invalid tx_blob") from None
        faults = self.faults
        if faults.drop:
            faults.drop -= 1
            return {"engine_result": "tesSUCCESS", "engine_result_code": 0, "accepted": True, "applied": True, "tx_blob": raw.hex().upper()}
        code, transaction = self.chain.submit(raw, delay_ms=faults.delay_ms)
        if faults.duplicate:
            faults.duplicate -= 1
            self.chain.submit(raw, delay_ms=faults.delay_ms)
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        taken = code.startswith(("tes", "tec", "ter"))
        answer: dict[str, Any] = {
            "engine_result": code,
            "engine_result_code": 0 if code.startswith("tes") else -1,
            "engine_result_message": code,
            "accepted": taken,
            "applied": code.startswith("tes"),
            "broadcast": taken,
            "kept": taken,
            "queued": code == "terQUEUED",
            "open_ledger_cost": str(self.chain.open_fee),
            "validated_ledger_index": self._validated,
            "tx_blob": raw.hex().upper(),
        }
        if transaction is not None:
            answer["tx_json"] = _fields(transaction)
        return answer


def _unknown(_: Mapping[str, Any]) -> dict[str, Any]:
    raise Refused("unknownCmd", 32, "Unknown method.")


def _fields(transaction: Transaction, index: int | None = None) -> dict[str, Any]:
    where = {} if index is None else {"ledger_index": index, "inLedger": index}
    return {**transaction.fields, "hash": transaction.txid, **where}


def _meta(applied: Applied) -> dict[str, Any]:
    meta: dict[str, Any] = {"AffectedNodes": [], "TransactionIndex": applied.place, "TransactionResult": applied.code}
    if applied.delivered is not None:
        meta["delivered_amount"] = applied.delivered.json()
    return meta
