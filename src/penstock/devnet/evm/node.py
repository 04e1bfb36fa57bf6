"""A node: the network as it is told over JSON-RPC, truly or, where `Faults` say so, falsely.

Several nodes may serve one network, each with faults of its own. No socket here: the server and a simulation call the same `handle`.
Method by method as in https://ethereum.github.io/execution-apis/, error texts and codes as geth has them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.box import CLIENT_VERSION, Broken, Faults, Request, Response
from penstock.devnet.evm import render
from penstock.devnet.evm.blocks import Block
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.execution import Call, Outcome, floor_gas, intrinsic_gas
from penstock.devnet.evm.mempool import Rejected, effective_price
from penstock.devnet.evm.state import Snapshot

BATCH_MAX: Final = 1_000
LOGS_MAX: Final = 10_000
FEE_HISTORY_MAX: Final = 1_024


@dataclass(slots=True)
class EvmFaults(Faults):
    """`nonce_shift` is added to every transaction count."""

    nonce_shift: int = 0


class RpcError(Exception):
    """An answer of kind `error`."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


def _invalid(text: str) -> RpcError:
    return RpcError(-32602, text)


class EvmNode:
    """One node of a network."""

    def __init__(self, chain: EvmChain, faults: EvmFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or EvmFaults()
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(self.faults.chain_id or chain.spec.chain_id),
            "net_version": lambda: str(self.faults.chain_id or chain.spec.chain_id),
            "web3_clientVersion": lambda: CLIENT_VERSION,
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: hex(self._head),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getTransactionCount": self._transaction_count,
            "eth_getBalance": lambda address, at="latest": hex(self._state(at).account(_address(address)).balance),
            "eth_getCode": lambda address, at="latest": render.data(self._state(at).account(_address(address)).code),
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate_gas,
            "eth_gasPrice": lambda: hex(chain.next_base_fee() + chain.spec.tip),
            "eth_maxPriorityFeePerGas": self._priority_fee,
            "eth_feeHistory": self._fee_history,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getLogs": self._logs,
        }

    def answer(self, request: Request) -> Response:
        """JSON-RPC over HTTP. Raises Broken when no answer comes."""
        if request.path or request.method != "POST":
            return Response(b'{"error": "POST JSON-RPC to the address itself"}', status=404)
        try:
            payload = json.loads(request.body)
        except (ValueError, RecursionError):
            found: Any = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "parse error"}}
        else:
            found = self.handle(payload)
        return Response(json.dumps(found, separators=(",", ":")).encode())

    def handle(self, payload: Any) -> Any:
        """The answer to a decoded JSON-RPC request or batch. Raises Broken when none comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        self.chain.tick()
        if not isinstance(payload, list):
            return self._answer(payload)
        if not payload:
            return _error(None, RpcError(-32600, "empty batch"))
        if len(payload) > BATCH_MAX:
            return _error(None, RpcError(-32600, "batch too large"))
        return [self._answer(request) for request in payload]

    def call(self, method: str, *params: Any) -> Any:
        """The result of one call. Raises RpcError, or Broken when no answer comes."""
        if self.faults.down:
            raise Broken(self.faults.down)
        self.chain.tick()
        return self._dispatch(method, list(params))

    def _answer(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, RpcError(-32600, "invalid request"))
        try:
            result = self._dispatch(request["method"], request.get("params", []))
        except RpcError as error:
            return _error(request.get("id"), error)
        return {"jsonrpc": "2.0", "id": request.get("id"), "result": result}

    def _dispatch(self, method: str, params: Any) -> Any:
        function = self._methods.get(method)
        if function is None:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        if not isinstance(params, list):
            raise _invalid("non-array args")
        least, most = _arity(function)
        if len(params) < least:
            raise _invalid(f"missing value for required argument {len(params)}")
        if len(params) > most:
            raise _invalid(f"too many arguments, want at most {most}")
        while len(params) > least and params[-1] is None:
            params = params[:-1]
        return function(*params)

    # Blocks and state

    @property
    def _head(self) -> int:
        return max(0, self.chain.head.number - self.faults.lag)

    def _height(self, tag: Any) -> int:
        """The height of a tag or number, which may lie above the head. Raises RpcError."""
        chain, head = self.chain, self._head
        if isinstance(tag, dict):
            return self._height_of_hash(tag)
        if not isinstance(tag, str):
            raise _invalid("invalid argument: a block number or tag is due")
        if tag in {"latest", "pending"}:
            return head
        if tag == "earliest":
            return 0
        if tag in {"finalized", "safe"}:
            if not chain.spec.finality_tag:
                raise RpcError(-32000, f"{tag} block not found")
            return min(head, chain.final if tag == "finalized" else chain.safe)
        return _quantity(tag)

    def _height_of_hash(self, reference: Mapping[str, Any]) -> int:
        """https://eips.ethereum.org/EIPS/eip-1898"""
        if "blockHash" not in reference:
            return self._height(reference.get("blockNumber", "latest"))
        block = self.chain.block_by_hash(_bytes(reference["blockHash"], 32))
        if block is None or block.number > self._head:
            raise RpcError(-32000, "header not found")
        return block.number

    def _block(self, tag: Any) -> Block | None:
        height = self._height(tag)
        return self.chain.block(height) if height <= self._head else None

    def _state(self, tag: Any) -> Snapshot:
        height = self._height(tag)
        if height > self._head:
            raise RpcError(-32000, "header not found")
        state = self.chain.state(height)
        if state is None:
            raise RpcError(-32000, f"missing trie node: state of block {height} is no longer kept")
        return state

    def _block_by_number(self, tag: Any, full: Any = False) -> Any:  # noqa: FBT002  JSON-RPC passes it by position
        if tag == "pending":
            waiting = [entry.transaction for entry in self.chain.mempool]
            return render.pending_block(self.chain.block(self._head), self.chain.next_base_fee(), waiting, full=full is True)
        block = self._block(tag)
        return None if block is None else render.block(block, full=full is True)

    def _block_by_hash(self, block_hash: Any, full: Any = False) -> Any:  # noqa: FBT002
        block = self.chain.block_by_hash(_bytes(block_hash, 32))
        return None if block is None or block.number > self._head else render.block(block, full=full is True)

    def _transaction_count(self, address: Any, tag: Any = "latest") -> str:
        account = _address(address)
        count = self.chain.pending_nonce(account) if tag == "pending" else self._state(tag).account(account).nonce
        return hex(max(0, count + self.faults.nonce_shift))

    def _storage(self, address: Any, index: Any, tag: Any = "latest") -> str:
        return render.word(self._state(tag).slot((_address(address), int(_bytes(index, None).hex() or "0", 16))))

    # Calls

    def _message(self, fields: Any, tag: Any) -> tuple[Call, int]:
        if not isinstance(fields, dict):
            raise _invalid("invalid argument 0: json: cannot unmarshal non-object into Go value of type ethapi.TransactionArgs")
        height = self._height(tag)
        sender = _address(fields.get("from") or "0x" + "00" * 20)
        to = None if fields.get("to") is None else _address(fields["to"])
        value = _quantity(fields.get("value") or "0x0")
        if self._state(tag).account(sender).balance < value:
            raise RpcError(-32000, f"insufficient funds for transfer: address {render.address(sender)}")
        data = _bytes(fields.get("input") or fields.get("data") or "0x", None)
        limit = self.chain.spec.gas_limit
        gas = min(_quantity(fields["gas"]) if fields.get("gas") else limit, limit)
        price = _quantity(fields.get("gasPrice") or fields.get("maxFeePerGas") or "0x0")
        return Call(sender, to, value, data, gas, price, self._state(tag).account(sender).nonce), height

    def _run(self, call: Call, height: int) -> Outcome:
        needed = _least_gas(call)
        if call.gas < needed:
            raise RpcError(-32000, f"err: intrinsic gas too low: have {call.gas}, want {needed} (supplied gas {call.gas})")
        outcome = self.chain.call(call, height)
        if outcome is None:
            raise RpcError(-32000, f"missing trie node: state of block {height} is no longer kept")
        return outcome

    def _call(self, fields: Any, tag: Any = "latest") -> str:
        outcome = self._run(*self._message(fields, tag))
        if not outcome.success:
            raise _failure(outcome)
        return render.data(outcome.output)

    def _estimate_gas(self, fields: Any, tag: Any = "latest") -> str:
        """The least gas limit that succeeds, as geth searches for it; bounded by what the sender can pay at the price it names."""
        call, height = self._message(fields, tag)
        if call.gas_price:
            balance = self._state(tag).account(call.sender).balance - call.value
            call = _with_gas(call, min(call.gas, balance // call.gas_price))
        if call.gas < _least_gas(call):
            raise RpcError(-32000, f"gas required exceeds allowance ({call.gas})")
        outcome = self._run(call, height)
        if not outcome.success:
            raise _failure(outcome) if outcome.reverted else RpcError(-32000, f"gas required exceeds allowance ({call.gas})")
        low, high, guess = outcome.gas_peak - 1, call.gas, outcome.gas_peak
        while low + 1 < high:
            if self._run(_with_gas(call, guess), height).success:
                high = guess
            else:
                low = guess
            guess = (low + high) // 2
        return hex(high)

    # Fees

    def _priority_fee(self) -> str:
        spec = self.chain.spec
        return hex(self.chain.next_base_fee() + spec.tip if spec.legacy else spec.tip)

    def _fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        number = count if isinstance(count, int) else _quantity(count)
        last = min(self._height(newest), self._head)
        blocks = [
            block for height in range(max(0, last - min(number, FEE_HISTORY_MAX) + 1), last + 1) if (block := self.chain.block(height))
        ]
        if not blocks or number < 1:
            return {"oldestBlock": "0x0", "gasUsedRatio": None}
        spec = self.chain.spec
        following = self.chain.block(last + 1)
        after = self.chain.next_base_fee() if following is None else following.floor
        fees = [0] * (len(blocks) + 1) if spec.legacy else [*(block.floor for block in blocks), after]
        history: dict[str, Any] = {
            "oldestBlock": hex(blocks[0].number),
            "baseFeePerGas": [hex(fee) for fee in fees],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            shares = _percentiles(percentiles)
            history["reward"] = [[hex(tip) for tip in _tips(block, shares, legacy=spec.legacy)] for block in blocks]
        return history

    # Transactions

    def _send(self, raw: Any) -> str:
        faults, data = self.faults, _bytes(raw, None)
        try:
            if faults.drop:
                transaction = self.chain.read(data)
                faults.drop -= 1
                return transaction.txid
            txid = self.chain.submit(data, delay_ms=faults.delay_ms)
            if faults.duplicate:
                faults.duplicate -= 1
                with contextlib.suppress(Rejected):
                    self.chain.submit(data, delay_ms=faults.delay_ms)
        except Rejected as error:
            raise RpcError(-32000, str(error)) from error
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        return txid

    def _mined(self, txid: Any) -> tuple[Block, Any] | None:
        found = None if self.faults.blind else self.chain.receipt(render.data(_bytes(txid, 32)))
        return found if found is not None and found[0].number <= self._head else None

    def _transaction(self, txid: Any) -> Any:
        found = self._mined(txid)
        if found is not None:
            block, receipt = found
            return render.transaction(receipt.transaction, block, receipt)
        if self.faults.blind:
            return None
        entry = self.chain.mempool.get(render.data(_bytes(txid, 32)))
        if entry is not None:
            return render.transaction(entry.transaction)
        lagging = self.chain.receipt(render.data(_bytes(txid, 32)))
        return None if lagging is None else render.transaction(lagging[1].transaction)

    def _receipt(self, txid: Any) -> Any:
        found = self._mined(txid)
        return None if found is None else render.receipt(*found)

    def _block_receipts(self, tag: Any) -> Any:
        block = None if self.faults.blind else self._block(tag)
        return None if block is None else [render.receipt(block, receipt) for receipt in block.receipts]

    def _logs(self, fields: Any) -> list[dict[str, Any]]:
        if not isinstance(fields, dict):
            raise _invalid("invalid argument 0: a filter object is due")
        if "blockHash" in fields:
            first = last = self._height_of_hash(fields)
        else:
            first, last = self._height(fields.get("fromBlock", "latest")), self._height(fields.get("toBlock", "latest"))
        if first > last:
            raise _invalid("invalid block range params")
        wanted = fields.get("address") or []
        addresses = {_address(address) for address in (wanted if isinstance(wanted, list) else [wanted])}
        topics = [_topic_choice(topic) for topic in fields.get("topics") or []]
        found: list[dict[str, Any]] = []
        for height in range(first, min(last, self._head) + 1):
            block = self.chain.block(height)
            if block is not None and block.header.logs_bloom:
                found += render.matching_logs(block, addresses, topics)
            if len(found) > LOGS_MAX:
                raise RpcError(-32005, f"query returned more than {LOGS_MAX} results")
        return found


def _error(request_id: Any, error: RpcError) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


def _arity(function: Callable[..., Any]) -> tuple[int, int]:
    """The least and most arguments that a method takes; `list` stands for one that takes none."""
    if function is list:
        return 0, 0
    code: Any = getattr(function, "__func__", function)
    most = code.__code__.co_argcount - (1 if hasattr(function, "__self__") else 0)
    return most - len(code.__defaults__ or ()), most


def _least_gas(call: Call) -> int:
    return max(intrinsic_gas(call.data, creates=call.to is None), floor_gas(call.data))


def _with_gas(call: Call, gas: int) -> Call:
    return Call(call.sender, call.to, call.value, call.data, gas, call.gas_price, call.nonce)


def _failure(outcome: Outcome) -> RpcError:
    """What geth answers to a call that failed: code 3 with the revert data, and the reason in words where Solidity gave one."""
    if not outcome.reverted:
        return RpcError(-32000, outcome.error)
    output, reason = outcome.output, ""
    if output[:4] == bytes.fromhex("08c379a0") and len(output) >= 68:
        length = int.from_bytes(output[36:68], "big")
        reason = ": " + output[68 : 68 + length].decode("utf-8", "replace")
    return RpcError(3, f"execution reverted{reason}", render.data(output))


def _tips(block: Block, shares: list[float], *, legacy: bool) -> list[int]:
    """The tip at each percentile of the block's gas, cheapest first, as feeHistory wants it."""
    floor = 0 if legacy else block.floor
    tips = sorted((effective_price(receipt.transaction, floor) - floor, receipt.gas_used) for receipt in block.receipts)
    result = []
    for share in shares:
        threshold, used, tip = share * block.header.gas_used / 100, 0, 0
        for candidate, gas in tips:
            tip, used = candidate, used + gas
            if used >= threshold:
                break
        result.append(tip)
    return result


def _percentiles(percentiles: Any) -> list[float]:
    if not isinstance(percentiles, list) or any(not isinstance(share, int | float) or not 0 <= share <= 100 for share in percentiles):
        raise RpcError(-32000, "invalid reward percentile")
    return [float(share) for share in percentiles]


def _topic_choice(topic: Any) -> set[bytes] | None:
    if topic is None:
        return None
    return {_bytes(choice, 32) for choice in (topic if isinstance(topic, list) else [topic])}


def _bytes(text: Any, length: int | None) -> bytes:
    if not isinstance(text, str) or re.fullmatch(r"0x([0-9a-fA-F]{2})*", text, re.ASCII) is None:
        raise _invalid("invalid argument: 0x and an even number of hex digits are due")
    data = bytes.fromhex(text[2:])
    if length is not None and len(data) != length:
        raise _invalid(f"invalid argument: hex has invalid length {len(data) * 2}, want {length * 2}")
    return data


def _address(text: Any) -> bytes:
    return _bytes(text, 20)


def _quantity(text: Any) -> int:
    if not isinstance(text, str) or re.fullmatch(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})", text, re.ASCII) is None:
        raise _invalid("invalid argument: a hex number with 0x and without leading zeros is due")
    return int(text, 16)
