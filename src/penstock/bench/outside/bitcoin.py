"""A Bitcoin node for a benchmark: whatever it is given is in its next block, and every output of the house's address is in its one wallet.

It executes nothing and looks at no signature, because a benchmark must not measure somebody else's node; what it was given it remembers.
The rail's own checks meet honest answers: coins that are spent by what spends them, in blocks that grow older.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from embit.script import Script, address_to_scriptpubkey
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from penstock.bench.outside.rpc import Methods

CHAIN_ID: Final = 3_669_344_250
GENESIS: Final = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
"""Of regtest, in this node's own words: it is the other side of the wire."""
COINS: Final = 400
"""As many as the house looks at."""
COIN: Final = 1_000 * 10**8
RATE: Final = 0.0001
"""Bitcoin for 1,000 virtual bytes."""

Outpoint = tuple[str, int]


@dataclass(slots=True)
class Chain:
    """Blocks of transactions by id, what one address owns, and what spends it."""

    script: bytes = b""
    blocks: list[list[str]] = field(default_factory=lambda: [[]])
    pool: list[str] = field(default_factory=list)
    raw: dict[str, str] = field(default_factory=dict)
    block_of: dict[str, int] = field(default_factory=dict)
    unspent: dict[Outpoint, None] = field(default_factory=dict)
    spender: dict[Outpoint, str] = field(default_factory=dict)
    paid: dict[str, list[int]] = field(default_factory=dict)
    """What the address has paid to others, by transaction."""

    @property
    def head(self) -> int:
        """The newest block's height."""
        return len(self.blocks) - 1

    def own(self, address: str) -> None:
        """Whose coins the wallet is about; it has some already."""
        self.script = address_to_scriptpubkey(address).data
        coins = [TransactionOutput(COIN, Script(self.script)) for _ in range(COINS)]
        self.take(Transaction(2, [TransactionInput(bytes(32), 0)], coins, 0).serialize().hex())
        self.mine()

    def take(self, raw: str) -> str:
        """A signed transaction; its id."""
        transaction = Transaction.parse(bytes.fromhex(raw))
        txid: str = transaction.txid().hex()
        if txid in self.raw:
            return txid
        self.raw[txid] = raw
        self.pool.append(txid)
        spent = [(coin.txid.hex(), coin.vout) for coin in transaction.vin]
        ours = [coin for coin in spent if coin in self.unspent]
        for coin in ours:
            del self.unspent[coin]
            self.spender[coin] = txid
        outputs = [(output.script_pubkey.data == self.script, output.value) for output in transaction.vout]
        self.unspent |= {(txid, place): None for place, (back, _) in enumerate(outputs) if back}
        if ours:
            self.paid[txid] = [units for back, units in outputs if not back]
        return txid

    def mine(self) -> None:
        """The next block."""
        self.blocks.append(self.pool)
        self.block_of |= dict.fromkeys(self.pool, self.head)
        self.pool = []

    def since(self, height: int) -> list[str]:
        """What came after a block, in others or in none yet."""
        return [*chain.from_iterable(self.blocks[height + 1 :]), *self.pool]


class BitcoinNode:
    """Core's JSON-RPC over a chain, as far as the rail asks it. https://developer.bitcoin.org/reference/rpc/"""

    def __init__(self) -> None:
        self._chain = it = Chain()
        self.mine = it.mine
        self.methods: Methods = {
            "getblockchaininfo": lambda _: {"chain": "regtest", "blocks": it.head, "initialblockdownload": False, "pruned": False},
            "getbestblockhash": lambda _: _hash(it.head),
            "getblockhash": lambda p: _hash(p[0]),
            "getblockheader": lambda p: {"hash": p[0], "height": _height(p[0]), "confirmations": it.head - _height(p[0]) + 1, "time": 0},
            "estimatesmartfee": lambda _: {"feerate": RATE, "blocks": 1},
            "getmempoolinfo": lambda _: {"mempoolminfee": RATE / 10},
            "listwallets": lambda _: [],
            "loadwallet": lambda p: {"name": p[0]},
            "getwalletinfo": lambda _: {"private_keys_enabled": False, "scanning": False},
            "listdescriptors": lambda _: {"descriptors": []},
            "getdescriptorinfo": lambda p: {"descriptor": f"{p[0]}#00000000"},
            "importdescriptors": self._import,
            "listunspent": lambda _: [{"txid": txid, "vout": place} for txid, place in it.unspent if txid in it.block_of],
            "listsinceblock": lambda p: {"transactions": [*map(self._entry, it.since(_height(p[0])))], "lastblock": _hash(it.head)},
            "gettransaction": lambda p: {"hex": it.raw[p[0]], **self._in_block(p[0])},
            "getrawtransaction": lambda p: self._in_block(p[0]),
            "gettxout": lambda p: {} if self._is_there((p[0], p[1]), in_pool=p[2]) else None,
            "gettxspendingprevout": lambda p: [self._spending(coin) for coin in p[0]],
            "sendrawtransaction": lambda p: it.take(p[0]),
        }

    def told(self) -> dict[str, Any]:
        """Transfers and units in blocks."""
        units = [units for txid, all_units in self._chain.paid.items() if txid in self._chain.block_of for units in all_units]
        return {"transfers": len(units), "units": str(sum(units))}

    def _import(self, params: list[Any]) -> list[Any]:
        if not self._chain.script:
            self._chain.own(params[0][0]["desc"].removeprefix("addr(").partition(")")[0])
        return [{"success": True}]

    def _entry(self, txid: str) -> dict[str, Any]:
        return {"category": "send" if txid in self._chain.paid else "receive", "confirmations": 0, **self._in_block(txid)}

    def _in_block(self, txid: str) -> dict[str, Any]:
        """Raises LookupError for what nobody sent."""
        it = self._chain
        if txid not in it.raw:
            raise LookupError(txid)
        height = it.block_of.get(txid)
        where = {} if height is None else {"blockhash": _hash(height), "confirmations": it.head - height + 1}
        return {"txid": txid, **where}

    def _is_there(self, coin: Outpoint, *, in_pool: bool) -> bool:
        """Whether it is in a block and nothing has spent it; what only waits to spend it counts where the pool is looked at, too."""
        spender = self._chain.spender.get(coin)
        is_spent = spender is not None and (in_pool or spender in self._chain.block_of)
        return coin[0] in self._chain.block_of and not is_spent

    def _spending(self, coin: dict[str, Any]) -> dict[str, Any]:
        spender = self._chain.spender.get((coin["txid"], coin["vout"]))
        waits = spender is not None and spender not in self._chain.block_of
        return {"txid": coin["txid"], "vout": coin["vout"], **({"spendingtxid": spender} if waits else {})}


def _hash(height: int) -> str:
    """Any will do, as long as it stays; by the first one a network is known."""
    return f"{height:064x}" if height else GENESIS


def _height(hash_: str) -> int:
    return 0 if hash_ == GENESIS else int(hash_, 16)
