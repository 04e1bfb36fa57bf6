"""Blocks, transactions and mempool entries in Core's JSON: https://bitcoincore.org/en/doc/29.0.0/."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from embit.descriptor.checksum import add_checksum

from penstock.devnet.bitcoin.blocks import BITS, TARGET, VERSION, Block
from penstock.devnet.bitcoin.mempool import Entry, Mempool
from penstock.devnet.bitcoin.rpc import Number, btc
from penstock.devnet.bitcoin.transaction import Coin, Tx, address_of, kind_of, opcodes
from penstock.devnet.bitcoin.view import View

DIFFICULTY: Final = Number("4.656542373906925e-10")
_NAMES: Final = {
    0x4F: "-1", 0x61: "OP_NOP", 0x69: "OP_VERIFY", 0x6A: "OP_RETURN", 0x75: "OP_DROP", 0x76: "OP_DUP", 0x87: "OP_EQUAL",
    0x88: "OP_EQUALVERIFY", 0xA9: "OP_HASH160", 0xAC: "OP_CHECKSIG", 0xAD: "OP_CHECKSIGVERIFY", 0xAE: "OP_CHECKMULTISIG",
    0xB1: "OP_CHECKLOCKTIMEVERIFY", 0xB2: "OP_CHECKSEQUENCEVERIFY", 0xFF: "[error]",
}  # fmt: skip


def script_asm(script: bytes) -> str:
    """A script in words."""
    words = []
    for code, data in opcodes(script):
        if data:
            words.append(_small_number(data) if len(data) <= 4 else data.hex())
        elif code == 0:
            words.append("0")
        elif 0x51 <= code <= 0x60:
            words.append(str(code - 0x50))
        else:
            words.append(_NAMES.get(code, f"OP_UNKNOWN_{code:02x}"))
    return " ".join(words)


def _small_number(data: bytes) -> str:
    """Up to four pushed bytes are written as the number that they are."""
    number = int.from_bytes(data[:-1] + bytes([data[-1] & 0x7F]), "little")
    return str(-number if data[-1] & 0x80 else number)


def script_pub_key(script: bytes) -> dict[str, Any]:
    """An output script."""
    address = address_of(script)
    fields: dict[str, Any] = {"asm": script_asm(script), "desc": descriptor_of(script), "hex": script.hex(), "type": kind_of(script)}
    return fields if address is None else {**fields, "address": address}


@lru_cache(maxsize=4096)
def descriptor_of(script: bytes) -> str:
    """The descriptor of a script of which no key is known."""
    address = address_of(script)
    text: str = add_checksum(f"raw({script.hex()})" if address is None else f"addr({address})")
    return text


def transaction(tx: Tx, *, spent: Sequence[Coin] = (), fee: int | None = None, prevouts: bool = False) -> dict[str, Any]:
    """A transaction alone; with its fee where that is known, and with what it spends where that is asked for."""
    fields: dict[str, Any] = {
        "txid": tx.txid,
        "hash": tx.wtxid,
        "version": tx.version,
        "size": tx.size,
        "vsize": tx.vsize,
        "weight": tx.weight,
        "locktime": tx.locktime,
        "vin": [_input(tx, number, spent[number] if prevouts and spent else None) for number in range(len(tx.inputs))],
        "vout": [
            {"value": btc(output.units), "n": number, "scriptPubKey": script_pub_key(output.script)}
            for number, output in enumerate(tx.outputs)
        ],
    }
    if fee is not None:
        fields["fee"] = btc(fee)
    return fields | {"hex": tx.raw.hex()}


def _input(tx: Tx, number: int, coin: Coin | None) -> dict[str, Any]:
    one = tx.inputs[number]
    fields: dict[str, Any] = {"coinbase": one.script.hex()}
    if not tx.coinbase:
        txid, vout = one.outpoint
        fields = {"txid": txid, "vout": vout, "scriptSig": {"asm": script_asm(one.script), "hex": one.script.hex()}}
    if one.witness:
        fields["txinwitness"] = [item.hex() for item in one.witness]
    if coin is not None:
        script = script_pub_key(coin.script)
        fields["prevout"] = {"generated": coin.coinbase, "height": coin.height, "value": btc(coin.units), "scriptPubKey": script}
    return fields | {"sequence": one.sequence}


def header(view: View, block: Block) -> dict[str, Any]:
    """A header with its place in the chain."""
    confirmations = view.depth(block)
    fields: dict[str, Any] = {
        "hash": block.hash,
        "confirmations": confirmations,
        "height": block.height,
        "version": VERSION if block.height else 1,
        "versionHex": f"{VERSION if block.height else 1:08x}",
        "merkleroot": block.header[36:68][::-1].hex(),
        "time": block.time,
        "mediantime": block.median_time,
        "nonce": int.from_bytes(block.header[76:80], "little"),
        "bits": f"{BITS:08x}",
        "target": f"{TARGET:064x}",
        "difficulty": DIFFICULTY,
        "chainwork": f"{block.work:064x}",
        "nTx": len(block.transactions),
    }
    if block.height:
        fields["previousblockhash"] = block.parent
    if confirmations > 1:
        fields["nextblockhash"] = view.chain.blocks.hash_at(block.height + 1)
    return fields


def block_of(view: View, block: Block, verbosity: int) -> dict[str, Any]:
    """A block: 1 with ids, 2 with transactions and their fees, 3 with what they spend too."""
    if verbosity == 1:
        listed: list[Any] = [tx.txid for tx in block.transactions]
    else:
        listed = [
            transaction(tx, spent=block.spent[place], fee=block.fee(place) if place else None, prevouts=verbosity >= 3)
            for place, tx in enumerate(block.transactions)
        ]
    stripped = block.size - sum(tx.size - tx.base_size for tx in block.transactions)
    return header(view, block) | {"strippedsize": stripped, "size": block.size, "weight": block.weight, "tx": listed}


def mempool_entry(pool: Mempool, entry: Entry) -> dict[str, Any]:
    """What the mempool knows of a transaction, its relatives counted with itself."""
    known = pool.get(entry.tx.txid) is not None
    above = [found for one in pool.ancestors(entry.tx.txid) if (found := pool.get(one))] if known else []
    below = [found for one in pool.descendants(entry.tx.txid) if (found := pool.get(one))] if known else []
    return {
        "vsize": entry.vsize,
        "weight": entry.tx.weight,
        "time": entry.at_ms // 1_000,
        "height": entry.height,
        "descendantcount": len(below) + 1,
        "descendantsize": entry.vsize + sum(one.vsize for one in below),
        "ancestorcount": len(above) + 1,
        "ancestorsize": entry.vsize + sum(one.vsize for one in above),
        "wtxid": entry.tx.wtxid,
        "fees": {
            "base": btc(entry.fee),
            "modified": btc(entry.fee),
            "ancestor": btc(entry.fee + sum(one.fee for one in above)),
            "descendant": btc(entry.fee + sum(one.fee for one in below)),
        },
        "depends": pool.parents(entry.tx.txid) if known else [],
        "spentby": pool.children(entry.tx.txid) if known else [],
        "bip125-replaceable": entry.tx.replaceable or any(one.tx.replaceable for one in above),
        "unbroadcast": False,
    }
