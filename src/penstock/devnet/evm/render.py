"""Blocks, transactions, receipts and logs as JSON-RPC writes them: https://ethereum.github.io/execution-apis/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.devnet.evm.blocks import EMPTY_UNCLES_HASH, Block, Receipt
from penstock.devnet.evm.execution import Log
from penstock.rails.evm.codec import SignedTransaction


def data(content: bytes) -> str:
    """Bytes as 0x text."""
    return "0x" + content.hex()


address = data


def word(number: int) -> str:
    """A number as 32 bytes."""
    return data(number.to_bytes(32, "big"))


def block(it: Block, *, full: bool) -> dict[str, Any]:
    """A block, with its transactions in full or as ids only."""
    header = it.header
    fields = {
        "number": hex(header.number),
        "hash": data(it.hash),
        "parentHash": data(header.parent_hash),
        "nonce": "0x" + "00" * 8,
        "sha3Uncles": data(EMPTY_UNCLES_HASH),
        "logsBloom": data(header.logs_bloom.to_bytes(256, "big")),
        "transactionsRoot": data(header.transactions_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipts_root),
        "miner": data(header.coinbase),
        "difficulty": "0x0",
        "extraData": data(header.extra),
        "size": hex(it.size),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "mixHash": data(header.mix_hash),
        "uncles": [],
        "transactions": [transaction(one.transaction, it, one) if full else one.transaction.txid for one in it.receipts],
    }
    if header.base_fee is not None:
        fields["baseFeePerGas"] = hex(header.base_fee)
    return fields


def pending_block(head: Block | None, base_fee: int, waiting: Sequence[SignedTransaction], *, full: bool) -> Any:
    """The block to come as far as one can know it: what waits, executable or not, and no hash."""
    if head is None:
        return None
    fields = block(head, full=False)
    fields |= {"number": hex(head.number + 1), "parentHash": data(head.hash), "hash": None, "nonce": None, "miner": None, "gasUsed": "0x0"}
    fields["transactions"] = [transaction(one) if full else one.txid for one in waiting]
    if head.header.base_fee is not None:
        fields["baseFeePerGas"] = hex(base_fee)
    return fields


def transaction(signed: SignedTransaction, within: Block | None = None, receipt: Receipt | None = None) -> dict[str, Any]:
    """A transaction; without block it waits in the mempool."""
    unsigned = signed.unsigned
    mined = within is not None and receipt is not None
    fields: dict[str, Any] = {
        "blockHash": data(within.hash) if within is not None and mined else None,
        "blockNumber": hex(within.number) if within is not None and mined else None,
        "transactionIndex": hex(receipt.index) if receipt is not None and mined else None,
        "from": signed.sender.lower(),
        "gas": hex(unsigned.gas_limit),
        "gasPrice": hex(receipt.price if receipt is not None else unsigned.max_fee_per_gas),
        "hash": signed.txid,
        "input": data(unsigned.data),
        "nonce": hex(unsigned.nonce),
        "to": unsigned.to.lower() if unsigned.to is not None else None,
        "value": hex(unsigned.value),
        "type": hex(unsigned.type),
        "chainId": hex(unsigned.chain_id),
        "v": hex(signed.y_parity if unsigned.type else unsigned.chain_id * 2 + 35 + signed.y_parity),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    if unsigned.type:
        fields |= {
            "maxFeePerGas": hex(unsigned.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(unsigned.max_priority_fee_per_gas),
            "accessList": [],
            "yParity": hex(signed.y_parity),
        }
    return fields


def receipt(within: Block, it: Receipt) -> dict[str, Any]:
    """What became of a transaction; on an OP-stack network with its L1 fee."""
    unsigned = it.transaction.unsigned
    fields: dict[str, Any] = {
        "transactionHash": it.transaction.txid,
        "transactionIndex": hex(it.index),
        "blockHash": data(within.hash),
        "blockNumber": hex(within.number),
        "from": it.transaction.sender.lower(),
        "to": unsigned.to.lower() if unsigned.to is not None else None,
        "contractAddress": data(it.created) if it.created is not None and it.success else None,
        "status": "0x1" if it.success else "0x0",
        "type": hex(unsigned.type),
        "gasUsed": hex(it.gas_used),
        "cumulativeGasUsed": hex(it.cumulative_gas),
        "effectiveGasPrice": hex(it.price),
        "logs": [log(within, it, position) for position in range(len(it.logs))],
        "logsBloom": data(it.logs_bloom.to_bytes(256, "big")),
    }
    if it.l1_fee is not None:
        fields["l1Fee"] = hex(it.l1_fee)
    return fields


def log(within: Block, of: Receipt, position: int) -> dict[str, Any]:
    """One event with its place."""
    it = of.logs[position]
    return {
        "address": data(it.address),
        "topics": [data(topic) for topic in it.topics],
        "data": data(it.data),
        "blockNumber": hex(within.number),
        "blockHash": data(within.hash),
        "blockTimestamp": hex(within.header.timestamp),
        "transactionHash": of.transaction.txid,
        "transactionIndex": hex(of.index),
        "logIndex": hex(of.first_log + position),
        "removed": False,
    }


def matching_logs(within: Block, addresses: set[bytes], topics: Sequence[set[bytes] | None]) -> list[dict[str, Any]]:
    """The block's events of these contracts (all, when none is named) whose topics are among the choices, position by position."""
    return [
        log(within, receipt, position)
        for receipt in within.receipts
        for position, event in enumerate(receipt.logs)
        if (not addresses or event.address in addresses) and _fits(event, topics)
    ]


def _fits(event: Log, topics: Sequence[set[bytes] | None]) -> bool:
    if len(topics) > len(event.topics):
        return False
    return all(choice is None or topic in choice for choice, topic in zip(topics, event.topics, strict=False))
