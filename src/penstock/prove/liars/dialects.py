"""What stands where in the answers of each family's nodes: the only thing that a lie has to know of a family.

A question is told as text, "METHOD PARAMETERS", so that one regular expression finds it; an answer is the whole JSON object that came for it.
Paths are names and indices with dots between, "*" for every item of a list.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from penstock.rails.bitcoin import codec as bitcoin
from penstock.rails.evm import codec as evm
from penstock.rails.lightning import codec as lightning
from penstock.rails.tron import codec as tron
from penstock.rails.xrp.transaction import decode_signed as decode_xrp

Answer = dict[str, Any]

NOWHERE: Final = "ab" * 32
"""A hash of nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a request. `text` is what a family's expressions are matched against."""

    method: str
    params: Any
    id: Any = None

    @property
    def text(self) -> str:
        """Method and parameters."""
        return f"{self.method} {json.dumps(self.params)}"


@dataclass(slots=True)
class Memory:
    """What one liar has seen: bytes given to it by their id, and the newest block as an honest node has it."""

    chain_id: int
    sent: dict[str, bytes] = field(default_factory=dict)
    tip: tuple[int, str] = (0, NOWHERE)
    pinned: dict[str, tuple[int, str]] = field(default_factory=dict)

    def block_of(self, txid: str) -> tuple[int, str]:
        """The block in which a transaction is said to be: always the same, or nobody would believe it."""
        return self.pinned.setdefault(txid, self.tip)


Forge = Callable[[Memory, Question, Answer, bool], Answer | None]
"""An answer of a transaction that was given to this liar as final, succeeded or failed; None where the truth will do."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One family's protocol. `rpc`: calls are JSON-RPC, many in one request; else the path is the method and the body its parameters.

    `fields` are (question, path) by topic; `absent` what is answered for a thing that the node does not know; `refused` a node's error.
    """

    rpc: bool
    submits: str
    named: str
    """Where the answer to a submission names the transaction."""
    fields: Mapping[str, Sequence[tuple[str, str]]]
    absent: Sequence[tuple[str, Answer]]
    refused: Callable[[str], Answer]
    taken: Callable[[str], Answer]
    bytes_of: Callable[[Question, int], tuple[str, bytes]]
    tip: tuple[str, str, str]
    """Question, and the paths of height and hash in its answer."""
    forge: Forge
    failed: str = ""
    """What stands at "status" when a transaction failed."""


def places(answer: Any, path: str) -> Iterator[tuple[Any, str | int]]:
    """Every (container, key) at a path."""
    name, _, rest = path.partition(".")
    if isinstance(answer, list):
        keys: list[str | int] = [*range(len(answer))] if name == "*" else [int(name)] if int(name) < len(answer) else []
    elif isinstance(answer, dict):
        keys = [*answer] if name == "*" else [name] if name in answer else []
    else:
        keys = []
    for key in keys:
        if rest:
            yield from places(answer[key], rest)
        else:
            yield answer, key


def value_at(answer: Any, path: str) -> Any:
    """The first value at a path, or None."""
    return next((container[key] for container, key in places(answer, path)), None)


def turned(value: Any, change: Callable[[int], int]) -> Any:
    """A number changed in the form in which it was written: integer, decimal text, hexadecimal with and without 0x, or bitcoin."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return max(0, change(round(value * 10**8))) / 10**8
    if isinstance(value, int):
        return max(0, change(value))
    if isinstance(value, str) and value.startswith("0x"):
        width = len(value) - 2 if len(value) == 66 else 1
        return f"0x{max(0, change(int(value, 16))):0{width}x}"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"{max(0, change(int(value, 16))) % 2**256:064x}"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return str(max(0, change(int(value))))
    return value


# EVM


def _evm_bytes(question: Question, chain_id: int) -> tuple[str, bytes]:
    raw = bytes.fromhex(question.params[0][2:])
    return evm.decode(raw, chain_id).txid, raw


def _evm_forge(memory: Memory, question: Question, answer: Answer, ok: bool) -> Answer | None:  # noqa: FBT001  a forger's only choice
    if question.method != "eth_getTransactionReceipt" or (raw := memory.sent.get(question.params[0])) is None:
        return None
    if answer.get("result"):
        return answer if ok else answer | {"result": answer["result"] | {"status": "0x0", "logs": []}}
    signed = evm.decode(raw)
    said = signed.unsigned
    height, hash_ = memory.block_of(signed.txid)
    number = hex(height)
    sender = "0x" + signed.sender[2:].lower()
    log = {
        "address": said.to,
        "topics": [evm_transfer_topic(), "0x" + sender[2:].rjust(64, "0"), "0x" + said.data[4:36].hex()],
        "data": "0x" + said.data[36:68].hex(),
        "blockNumber": number,
        "transactionHash": signed.txid,
        "blockHash": hash_,
        "removed": False,
    }
    receipt = {
        "transactionHash": signed.txid,
        "blockHash": hash_,
        "blockNumber": number,
        "from": sender,
        "to": said.to,
        "status": "0x1" if ok else "0x0",
        "gasUsed": hex(min(said.gas_limit, 21_000)),
        "effectiveGasPrice": hex(said.max_fee_per_gas),
        "logs": [log] if ok and said.data else [],
    }
    return answer | {"result": receipt}


def evm_transfer_topic() -> str:
    """The first topic of Transfer(address,address,uint256), ERC-20."""
    return "0x" + evm.keccak256(b"Transfer(address,address,uint256)").hex()


def _rpc_error(words: str) -> Answer:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": words}}


def _rpc_result(result: Any) -> Answer:
    return {"jsonrpc": "2.0", "id": 1, "result": result}


_EVM = Dialect(
    rpc=True,
    submits="eth_sendRawTransaction",
    named="result",
    fields={
        "head": [('eth_getBlockByNumber .*"(latest|finalized)"', "result.number")],
        "time": [("eth_getBlockByNumber", "result.timestamp")],
        "count": [("eth_getTransactionCount", "result")],
        "waiting": [('eth_getTransactionCount .*"latest"', "result")],
        "balance": [("eth_getBalance", "result"), ("eth_call .*0x70a08231", "result")],
        "fee": [
            ("eth_feeHistory", "result.baseFeePerGas.*"),
            ("eth_feeHistory", "result.reward.*.0"),
            ("eth_getBlockByNumber", "result.baseFeePerGas"),
        ],
        "work": [("eth_estimateGas", "result")],
        "status": [("eth_getTransactionReceipt", "result.status")],
        "event": [("eth_getTransactionReceipt", "result.logs")],
        "delivered": [("eth_getTransactionReceipt", "result.logs.*.data")],
        "identity": [("eth_chainId", "result")],
        "hash": [("eth_getBlockByNumber", "result.hash"), ("eth_getTransactionReceipt", "result.blockHash")],
    },
    absent=[("eth_getTransactionReceipt|eth_getTransactionByHash", _rpc_result(None))],
    refused=_rpc_error,
    taken=_rpc_result,
    bytes_of=_evm_bytes,
    tip=('eth_getBlockByNumber .*"latest"', "result.number", "result.hash"),
    forge=_evm_forge,
    failed="0x0",
)


# Bitcoin


def _bitcoin_bytes(question: Question, chain_id: int) -> tuple[str, bytes]:
    del chain_id
    raw = bytes.fromhex(question.params[0])
    return bitcoin.decode_signed(raw).txid, raw


def _bitcoin_forge(memory: Memory, question: Question, answer: Answer, ok: bool) -> Answer | None:  # noqa: FBT001  a forger's only choice
    """There is no failure in a block: to have failed is to be spent by a stranger."""
    if not memory.sent:
        return None
    if question.method == "gettxout":
        return answer | {"result": None}
    if question.method == "gettxspendingprevout" and not ok:
        return answer | {"result": [coin | {"spendingtxid": NOWHERE} for coin in question.params[0]]}
    if question.method in {"getrawtransaction", "gettransaction"} and ok and question.params[0] in memory.sent:
        return _rpc_result({"txid": question.params[0], "blockhash": memory.block_of(question.params[0])[1], "confirmations": 20})
    if question.method == "getblockheader" and ok and "result" in answer:
        return answer | {"result": answer["result"] | {"confirmations": 20}}
    return None


_BITCOIN = Dialect(
    rpc=True,
    submits="sendrawtransaction",
    named="result",
    fields={
        "head": [("getblockchaininfo", "result.blocks"), ("getblockchaininfo", "result.headers")],
        "time": [("getblockchaininfo", "result.time"), ("getblockheader", "result.time")],
        "balance": [("listunspent", "result.*.vout")],
        "fee": [
            ("estimatesmartfee", "result.feerate"),
            ("getmempoolinfo", "result.mempoolminfee"),
            ("getmempoolinfo", "result.minrelaytxfee"),
        ],
        "event": [("gettxspendingprevout", "result")],
        "identity": [("getblockchaininfo", "result.chain")],
        "hash": [("getblockhash", "result"), ("getbestblockhash", "result"), ("getblockheader", "result.hash")],
    },
    absent=[
        ("getrawtransaction|gettransaction", {"id": 1, "error": {"code": -5, "message": "No such mempool or blockchain transaction"}}),
        ("gettxout", _rpc_result(None)),
    ],
    refused=_rpc_error,
    taken=_rpc_result,
    bytes_of=_bitcoin_bytes,
    tip=("getblockchaininfo", "result.blocks", "result.bestblockhash"),
    forge=_bitcoin_forge,
)


# TRON


def _tron_bytes(question: Question, chain_id: int) -> tuple[str, bytes]:
    del chain_id
    raw = bytes.fromhex(question.params["transaction"])
    return tron.decode(raw).txid, raw


def _tron_forge(memory: Memory, question: Question, answer: Answer, ok: bool) -> Answer | None:  # noqa: FBT001  a forger's only choice
    txid = question.params.get("value", "") if isinstance(question.params, dict) else ""
    if (raw := memory.sent.get(txid)) is None:
        return None
    if question.method.endswith("/gettransactionbyid"):
        return answer | {"txID": txid, "ret": [{"contractRet": "SUCCESS" if ok else "OUT_OF_ENERGY"}]}
    if not question.method.endswith("/gettransactioninfobyid"):
        return None
    said = tron.decode(raw).unsigned
    token = said.data is not None
    log = {
        "address": tron.account_hex(said.to)[2:],
        "topics": [evm_transfer_topic()[2:], tron.account_hex(said.owner)[2:].rjust(64, "0"), (said.data or b"")[4:36].hex()],
        "data": (said.data or b"")[36:68].hex(),
    }
    result = {"receipt": {"result": "SUCCESS" if ok else "OUT_OF_ENERGY"}, "contractResult": [""]}
    receipt = {"id": txid, "fee": 1_000, "blockNumber": memory.block_of(txid)[0], "blockTimeStamp": said.expiration - 400_000} | result
    if not ok:
        receipt["result"] = "FAILED"
    return (answer if answer.get("id") and ok else receipt) | ({"log": [log]} if token and ok else {})


_TRON = Dialect(
    rpc=False,
    submits="wallet/broadcasthex",
    named="txid",
    fields={
        "head": [("/getblock ", "block_header.raw_data.number")],
        "time": [("/getblock ", "block_header.raw_data.timestamp")],
        "balance": [("/getaccount ", "balance"), ("triggerconstantcontract .*balanceOf", "constant_result.0")],
        "fee": [("getchainparameters", "chainParameter.*.value"), ("triggerconstantcontract .*transfer", "energy_used")],
        "work": [("triggerconstantcontract .*transfer", "energy_used")],
        "status": [("gettransactionbyid", "ret.0.contractRet"), ("gettransactioninfobyid", "receipt.result")],
        "event": [("gettransactioninfobyid", "log")],
        "delivered": [("gettransactioninfobyid", "log.*.data")],
        "identity": [("/getblockbynum .*0", "blockID")],
        "hash": [("/getblock ", "blockID")],
    },
    absent=[("gettransactioninfobyid|gettransactionbyid|gettransactionfrompending", {})],
    refused=lambda words: {"Error": f"class org.tron.core.exception.ContractValidateException : {words}"},
    taken=lambda txid: {"result": True, "code": "SUCCESS", "message": "", "txid": txid},
    bytes_of=_tron_bytes,
    tip=("walletsolidity/getblock ", "block_header.raw_data.number", "blockID"),
    forge=_tron_forge,
    failed="REVERT",
)


# XRP Ledger


def _xrp_bytes(question: Question, chain_id: int) -> tuple[str, bytes]:
    del chain_id
    raw = bytes.fromhex(question.params[0]["tx_blob"])
    return decode_xrp(raw).txid, raw


def _xrp_forge(memory: Memory, question: Question, answer: Answer, ok: bool) -> Answer | None:  # noqa: FBT001  a forger's only choice
    if question.method != "tx" or (raw := memory.sent.get(question.params[0]["transaction"])) is None:
        return None
    said = decode_xrp(raw).fields
    ledger = min(memory.block_of(question.params[0]["transaction"])[0], said["LastLedgerSequence"])
    meta = {"TransactionResult": "tesSUCCESS", "delivered_amount": said["Amount"]} if ok else {"TransactionResult": "tecPATH_DRY"}
    found = {"hash": question.params[0]["transaction"], "validated": True, "ledger_index": ledger, "meta": meta, "status": "success"}
    real = answer["result"]
    return {"result": real | {"meta": meta} if real.get("validated") else found}


_XRP = Dialect(
    rpc=True,
    submits="submit",
    named="result.tx_json.hash",
    fields={
        "head": [("ledger ", "result.ledger_index"), ("server_state", "result.state.validated_ledger.seq")],
        "time": [("ledger ", "result.ledger.close_time")],
        "count": [("account_info", "result.account_data.Sequence")],
        "balance": [("account_info", "result.account_data.Balance"), ("account_lines", "result.lines.*.balance")],
        "fee": [("fee ", "result.drops.*")],
        "status": [("tx ", "result.meta.TransactionResult")],
        "delivered": [("tx ", "result.meta.delivered_amount")],
        "identity": [("server_info", "result.info.network_id")],
        "hash": [("ledger ", "result.ledger_hash"), ("ledger ", "result.ledger.ledger_hash")],
    },
    absent=[("tx ", {"result": {"error": "txnNotFound", "error_code": 29, "searched_all": True, "status": "error"}})],
    refused=lambda words: {"result": {"error": "internal", "error_code": 73, "error_message": words, "status": "error"}},
    taken=lambda txid: {"result": {"engine_result": "tesSUCCESS", "status": "success", "tx_json": {"hash": txid}}},
    bytes_of=_xrp_bytes,
    tip=("ledger ", "result.ledger_index", "result.ledger_hash"),
    forge=_xrp_forge,
    failed="tecUNFUNDED_PAYMENT",
)


# Lightning


def _lnd_bytes(question: Question, chain_id: int) -> tuple[str, bytes]:
    invoice = question.params["payment_request"]
    return lightning.parse(invoice, chain_id).payment_hash, invoice.encode()


def _lnd_forge(memory: Memory, question: Question, answer: Answer, ok: bool) -> Answer | None:  # noqa: FBT001  a forger's only choice
    if "/router/track/" not in question.method:
        return None
    wanted = base64.urlsafe_b64decode(question.method.rpartition("/")[2]).hex()
    if (invoice := memory.sent.get(wanted)) is None:
        return None
    value = str(lightning.parse(invoice.decode(), memory.chain_id).amount_msat or 0)
    if not ok:
        return {"result": {"payment_hash": wanted, "status": "FAILED", "failure_reason": "FAILURE_REASON_NO_ROUTE", "htlcs": []}}
    paid = {"payment_hash": wanted, "status": "SUCCEEDED", "payment_preimage": "11" * 32, "value_msat": value, "fee_msat": "0", "htlcs": []}
    return answer if answer.get("result", {}).get("status") == "SUCCEEDED" else {"result": paid}


_LND = Dialect(
    rpc=False,
    submits="router/send",
    named="result.payment_hash",
    fields={
        "head": [("getinfo", "block_height")],
        "balance": [("v1/channels", "channels.*.capacity"), ("v1/channels", "channels.*.local_balance")],
        "fee": [("router/track", "result.fee_msat")],
        "status": [("router/track", "result.status")],
        "event": [("v1/channels", "channels")],
        "delivered": [("router/track", "result.value_msat")],
        "identity": [("getinfo", "identity_pubkey")],
    },
    absent=[("router/track", {"error": {"code": 5, "message": "payment isn't initiated"}})],
    refused=lambda words: {"error": {"code": 2, "message": words, "details": []}},
    taken=lambda txid: {"result": {"payment_hash": txid, "status": "IN_FLIGHT"}},
    bytes_of=_lnd_bytes,
    tip=("getinfo", "block_height", "block_hash"),
    forge=_lnd_forge,
    failed="FAILED",
)


DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType({"evm": _EVM, "bitcoin": _BITCOIN, "tron": _TRON, "xrp": _XRP, "lightning": _LND})
"""By chain family."""
