"""A node: the network as it is told over java-tron's HTTP API, truly or, where `Faults` say so, falsely.

Several nodes may serve one network, each with faults of its own. No socket here: the server and a simulation call the same `answer`.
Method by method as in https://tronprotocol.github.io/documentation-en/api/http/
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import base58
from google.protobuf.message import DecodeError

from penstock.devnet.box import CLIENT_VERSION, Broken, Faults, Request, Response
from penstock.devnet.tron import render, schema, wire
from penstock.devnet.tron.blocks import Block, with_result
from penstock.devnet.tron.calls import Calls
from penstock.devnet.tron.chain import TronChain
from penstock.devnet.tron.process import Receipt, Rejected
from penstock.devnet.tron.resources import SLOT_MS, parameters
from penstock.devnet.tron.state import Account, View
from penstock.devnet.tron.transaction import PREFIX, Transaction, Unreadable, text_of
from penstock.devnet.tron.wire import Unparsable, to_json

BLOCKS_MAX: Final = 100
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
NULL_POINTER: Final = "class java.lang.NullPointerException : null"


@dataclass(slots=True)
class TronFaults(Faults):
    """`busy_after`: so many of the next submissions are taken, and then answered SERVER_BUSY. `solid_lag`: the newest solidified blocks
    that the solidified half does not have yet. `omit`: blocks are shown without their transactions. `logless`: receipts without events.
    """

    busy_after: int = 0
    solid_lag: int = 0
    omit: bool = False
    logless: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: its fields, and which half of the node it asks."""

    fields: Mapping[str, Any]
    visible: bool
    solid: bool

    def number(self, name: str) -> int:
        """A number, 0 when it is left out. Raises Unparsable."""
        return wire.number(self.fields.get(name, 0))

    def text(self, name: str) -> str:
        """A text, empty when it is left out."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def hex(self, name: str) -> bytes:
        """Hexadecimal, empty when it is left out. Raises Unparsable."""
        return wire.hex_bytes(self.text(name))

    def account(self, name: str) -> bytes | None:
        """An account's 20 bytes; None for bytes that are no address. Raises Unparsable."""
        text = self.text(name)
        raw = wire.base58_bytes(text) if self.visible and text else wire.hex_bytes(text)
        return raw[1:] if len(raw) == 21 and raw[:1] == PREFIX else None


class TronNode:
    """One node of a network."""

    def __init__(self, chain: TronChain, faults: TronFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or TronFaults()
        calls = Calls(chain)
        both: dict[str, Callable[[Asked], Any]] = {
            "getnowblock": lambda asked: self._show(self._top(asked), asked),
            "getblockbynum": lambda asked: self._show(asked.number("num"), asked),
            "getblockbyid": lambda asked: self._show(self._height_of(asked.hex("value")), asked),
            "getblockbylimitnext": self._blocks,
            "getblock": self._block,
            "gettransactionbyid": self._transaction,
            "gettransactioninfobyid": self._info,
            "gettransactioninfobyblocknum": self._infos,
            "getaccount": self._account,
            "triggerconstantcontract": lambda asked: calls.trigger(
                asked.fields, self._view(asked), self._top(asked), visible=asked.visible
            ),
            "estimateenergy": lambda asked: calls.estimate(asked.fields, self._view(asked), self._top(asked), visible=asked.visible),
            "getnodeinfo": self._node_info,
        }
        full: dict[str, Callable[[Asked], Any]] = {
            "broadcasttransaction": self._broadcast,
            "broadcasthex": self._broadcast_hex,
            "getaccountresource": lambda asked: self._resources(asked, render.resources),
            "getaccountnet": lambda asked: self._resources(asked, render.net),
            "getchainparameters": lambda _: self._parameters(),
            "getcontract": self._contract,
            "validateaddress": lambda asked: validate(asked.text("address")),
            "getpendingsize": lambda _: {"pendingSize": len(chain.pool)},
            "gettransactionfrompending": self._from_pending,
            "gettransactionlistfrompending": lambda _: to_json(
                schema.TransactionIdList(txId=[] if self.faults.blind else [it.transaction.txid for it in chain.pool]), visible=False
            ),
        }
        self._methods = {f"/walletsolidity/{name}": function for name, function in both.items()}
        self._methods |= {f"/wallet/{name}": function for name, function in (both | full).items()}

    def answer(self, request: Request) -> Response:
        """One HTTP request. Raises Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        function = self._methods.get(request.path)
        if function is None or request.method not in {"GET", "POST"}:
            return Response(b"<html><body><h2>HTTP ERROR 404 Not Found</h2></body></html>", 404, "text/html")
        if len(request.body) > BODY_BYTES_MAX:
            return Response(b"Payload Too Large", 413, "text/plain")
        self.chain.tick()
        try:
            found = function(_asked(request))
        except Unparsable as error:
            found = {"Error": str(error)}
        return Response(json.dumps(found, separators=(",", ":")).encode())

    def call(self, method: str, **fields: Any) -> Any:
        """What a POST to wallet/... or walletsolidity/... answers. Raises Broken when no answer comes."""
        return json.loads(self.answer(Request(json.dumps(fields).encode(), f"/{method}")).body)

    # Blocks

    @property
    def _head(self) -> int:
        return max(0, self.chain.head.number - self.faults.lag)

    def _top(self, asked: Asked) -> int:
        """The newest block of the half that is asked."""
        if not asked.solid:
            return self._head
        known = min(self.chain.solid, max(0, self._head - self.chain.spec.solid_depth))
        return max(0, known - self.faults.solid_lag)

    def _found(self, number: int, asked: Asked) -> Block | None:
        return self.chain.block(number) if 0 <= number <= self._top(asked) else None

    def _height_of(self, block_id: bytes) -> int:
        block = self.chain.block_by_id(block_id)
        if block is None and self.faults.chain_id and len(block_id) == 32 and block_id == self._genesis_id():
            return 0
        return -1 if block is None else block.number

    def _genesis_id(self) -> bytes:
        return self.chain.genesis.id[:28] + (self.faults.chain_id or self.chain.spec.chain_id).to_bytes(4, "big")

    def _show(self, number: int, asked: Asked, *, detail: bool = True) -> dict[str, Any]:
        block = self._found(number, asked)
        if block is None:
            return {}
        if number == 0:
            block = replace(block, id=self._genesis_id())
        return render.block(block, visible=asked.visible, detail=detail and not self.faults.omit)

    def _block(self, asked: Asked) -> dict[str, Any]:
        wanted, detail = asked.text("id_or_num"), wire.flag(asked.fields.get("detail"))
        number = self._top(asked)
        if wanted:
            with contextlib.suppress(Unparsable):
                number = wire.number(wanted)
                if number < 0:
                    return {"Error": "num must be non-positive number."}
                return self._show(number, asked, detail=detail)
            try:
                block_id = wire.hex_bytes(wanted)
            except Unparsable:
                block_id = b""
            if len(block_id) != 32 or int.from_bytes(block_id[:8], "big") > self._top(asked):
                return {"Error": "id must be legal block hash."}
            number = self._height_of(block_id)
        return self._show(number, asked, detail=detail)

    def _blocks(self, asked: Asked) -> dict[str, Any]:
        start, end = asked.number("startNum"), asked.number("endNum")
        if not 0 < end - start <= BLOCKS_MAX or end <= 0:
            return {}
        blocks = [block for number in range(start, end) if (block := self._show(number, asked))]
        return {"block": blocks} if blocks else {}

    # Transactions

    def _mined(self, asked: Asked) -> tuple[Block, Receipt] | None:
        txid = asked.hex("value")
        found = None if self.faults.blind else self.chain.receipt(txid)
        return found if found is not None and found[0].number <= self._top(asked) else None

    def _transaction(self, asked: Asked) -> dict[str, Any]:
        """In a block; the full half also shows what waits, with the result that it would have."""
        found = self._mined(asked)
        if found is not None:
            return render.transaction(with_result(found[1]), visible=asked.visible)
        return {} if asked.solid else self._from_pending(asked)

    def _from_pending(self, asked: Asked) -> dict[str, Any]:
        waiting = None if self.faults.blind else self.chain.pool.get(asked.hex("value").hex())
        return {} if waiting is None else render.transaction(with_result(waiting), visible=asked.visible)

    def _info(self, asked: Asked) -> dict[str, Any]:
        found = self._mined(asked)
        return {} if found is None else render.info(*found, visible=asked.visible, logs=not self.faults.logless)

    def _infos(self, asked: Asked) -> Any:
        number = asked.number("num")
        if number <= 0:
            return {}
        block = self._found(number, asked)
        receipts = () if block is None or self.faults.omit or self.faults.blind else block.receipts
        return [render.info(block, it, visible=asked.visible, logs=not self.faults.logless) for it in receipts if block is not None]

    # Accounts

    def _view(self, asked: Asked) -> View | None:
        """The state that a half of the node shows: the full one has what waits on top of its newest block. None: no longer kept."""
        if not asked.solid and not self.faults.lag and not self.faults.blind:
            return self.chain.state_with_waiting
        return self.chain.state(self._top(asked))

    def _slot(self, asked: Asked) -> int:
        block = self.chain.block(self._top(asked))
        return 0 if block is None else (block.time_ms - self.chain.genesis_ms) // SLOT_MS

    def _known(self, asked: Asked, name: str = "address") -> tuple[bytes, Account] | None:
        address, view = asked.account(name), self._view(asked)
        if address is None or view is None:
            return None
        account = view.account(address)
        return (address, account) if account.exists else None

    def _account(self, asked: Asked) -> dict[str, Any]:
        found = self._known(asked)
        if found is None:
            return {}
        return render.account(*found, slot=self._slot(asked), genesis_ms=self.chain.genesis_ms, visible=asked.visible)

    def _resources(self, asked: Asked, show: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        found = self._known(asked)
        return {} if found is None else show(found[1], slot=self._slot(asked), free_limit=self.chain.prices.free_bandwidth)

    def _contract(self, asked: Asked) -> dict[str, Any]:
        found = self._known(asked, "value")
        if found is None or not found[1].code:
            return {}
        token = self.chain.spec.tokens.get(text_of(found[0]))
        name = "" if token is None else f"{token.symbol} of a devnet"
        return render.contract(*found, owner=self.chain.faucet_account, name=name, visible=asked.visible)

    # The network

    def _parameters(self) -> dict[str, Any]:
        message = schema.ChainParameters()
        for key, value in parameters(self.chain.prices).items():
            message.chainParameter.add(key=key, value=value)
        return to_json(message, visible=False)

    def _node_info(self, asked: Asked) -> dict[str, Any]:
        full, solid = (self.chain.block(self._top(replace(asked, solid=half))) for half in (False, True))
        blocks = [f"Num:{block.number},ID:{block.id.hex()}" if block is not None else "" for block in (full, solid)]
        config = {"codeVersion": CLIENT_VERSION, "supportConstant": True, "p2pVersion": str(self.chain.spec.chain_id)}
        return {
            "beginSyncNum": self.chain.solid,
            "block": blocks[0],
            "solidityBlock": blocks[1],
            "currentConnectCount": 0,
            "activeConnectCount": 0,
            "passiveConnectCount": 0,
            "totalFlow": 0,
            "peerList": [],
            "configNodeInfo": config,
            "cheatWitnessInfoMap": {},
        }

    # Submission

    def _broadcast(self, asked: Asked) -> dict[str, Any]:
        transaction = _packed(asked)
        if transaction is None:
            return {"Error": NULL_POINTER}
        code, words = self._submit(transaction)
        answer = schema.Return(result=code == "SUCCESS", code=schema.RESPONSE_CODES[code], message=words.encode())
        return {**to_json(answer, visible=asked.visible), "txid": transaction.txid}

    def _broadcast_hex(self, asked: Asked) -> dict[str, Any]:
        try:
            raw = wire.hex_bytes(asked.text("transaction"))
        except Unparsable:
            words = "exception decoding Hex string: invalid characters encountered in Hex string"
            return {"Error": f"class org.bouncycastle.util.encoders.DecoderException : {words}"}
        try:
            transaction = Transaction.parse(raw)
        except Unreadable as error:
            return {"Error": f"class com.google.protobuf.InvalidProtocolBufferException : {error}"}
        code, words = self._submit(transaction)
        shown = json.dumps(to_json(transaction.message, visible=True), separators=(",", ":"))
        return {"result": code == "SUCCESS", "code": code, "message": words, "transaction": shown, "txid": transaction.txid}

    def _submit(self, transaction: Transaction) -> tuple[str, str]:
        """The code and words of the answer. Raises Broken when none comes."""
        faults = self.faults
        if faults.drop:
            faults.drop -= 1
            return "SUCCESS", ""
        try:
            self.chain.submit(transaction, delay_ms=faults.delay_ms)
        except Rejected as error:
            return error.code, error.message
        if faults.duplicate:
            faults.duplicate -= 1
            with contextlib.suppress(Rejected):
                self.chain.submit(transaction, delay_ms=faults.delay_ms)
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        if faults.busy_after:
            faults.busy_after -= 1
            return "SERVER_BUSY", "Server busy."
        return "SUCCESS", ""


def _asked(request: Request) -> Asked:
    """Fields of a request, from the query of a GET or the JSON of a POST. Raises Unparsable."""
    solid = request.path.startswith("/walletsolidity/")
    fields: Mapping[str, Any] = request.query
    if request.method == "POST" and request.body.strip():
        try:
            fields = wire.json_object(json.loads(request.body))
        except (ValueError, RecursionError) as error:
            raise Unparsable("class org.tron.json.JSONException : the body is no JSON object") from error
    return Asked(fields, wire.flag(fields.get("visible")), solid)


def _packed(asked: Asked) -> Transaction | None:
    """The transaction that `raw_data` and `signature` say; `raw_data_hex` is not looked at. None where a node stumbles."""
    raw = asked.fields.get("raw_data")
    if not isinstance(raw, dict) or not isinstance(raw.get("contract"), list):
        return None
    contracts = [packed for contract in raw["contract"] if (packed := _packed_contract(contract, asked)) is not None]
    fields = {**asked.fields, "raw_data": {**raw, "contract": contracts}, "ret": None}
    try:
        return Transaction(wire.from_json(schema.Transaction, fields, visible=asked.visible))
    except Unparsable:
        return None


def _packed_contract(contract: Any, asked: Asked) -> dict[str, Any] | None:
    """A contract with its parameter as bytes; None for one that a node drops without a word."""
    try:
        number = schema.CONTRACT_TYPES[contract["type"]]
        value = wire.from_json(schema.CONTRACTS[number], contract["parameter"]["value"], visible=asked.visible)
    except (Unparsable, KeyError, TypeError, DecodeError):
        return None
    parameter = {"type_url": f"type.googleapis.com/protocol.{contract['type']}", "value": value.SerializeToString().hex()}
    return {**contract, "parameter": parameter}


def validate(text: str) -> dict[str, Any]:
    """What validateaddress says of a text: hexadecimal, base58check or base64, told apart by length."""
    forms: dict[int, tuple[str, Callable[[str], bytes]]] = {
        42: ("Hex string format", bytes.fromhex),
        34: ("Base58check format", base58.b58decode_check),
        28: ("Base64 format", lambda it: base64.b64decode(it, validate=True)),
    }
    if len(text) not in forms:
        return {"result": False, "message": "Length error"}
    words, decode = forms[len(text)]
    try:
        raw = decode(text)
    except ValueError as error:
        return {"result": False, "message": str(error)}
    fits = len(raw) == 21 and raw[:1] == PREFIX
    return {"result": fits, "message": words if fits else "Invalid address"}
