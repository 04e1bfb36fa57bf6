"""Watch-only descriptor wallets: they hold no key and send nothing; they say what is on addresses. Shapes as in Core's wallet RPCs.

Descriptors: https://github.com/bitcoin/bitcoin/blob/29.x/doc/descriptors.md. addr(), raw(), pkh(), wpkh(), sh(wpkh()) and tr() with public keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from embit.base import EmbitError
from embit.descriptor import Descriptor
from embit.descriptor.checksum import checksum

from penstock.devnet.bitcoin.blocks import COINBASE_MATURITY, Block
from penstock.devnet.bitcoin.render import transaction
from penstock.devnet.bitcoin.rpc import INVALID_ADDRESS_OR_KEY, RpcError, btc
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx, address_of, script_of
from penstock.devnet.bitcoin.view import Found, View

RESCAN_SLACK_S: Final = 7_200
"""Core rescans from two hours before a descriptor's birth, for the clocks of miners (TIMESTAMP_WINDOW)."""

RANGE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Watched:
    """One output script of a wallet. `since` is the height of the oldest block that the wallet has looked at for it."""

    descriptor: str
    label: str
    since: int
    solvable: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    """A descriptor without its checksum, and what it stands for."""

    text: str
    scripts: tuple[bytes, ...]
    ranged: bool
    solvable: bool
    private: bool

    @property
    def full(self) -> str:
        """With its checksum."""
        return f"{self.text}#{checksum(self.text)}"


@dataclass(slots=True)
class Wallet:
    """What one wallet watches."""

    name: str
    loaded: bool = True
    watched: dict[bytes, Watched] = field(default_factory=dict)
    birth: int = 0

    def watch(self, parsed: Parsed, view: View, *, timestamp: int, label: str) -> None:
        """Watch the scripts of a descriptor from the first block that may be younger than the timestamp (Unix seconds)."""
        since = first_height(view, timestamp - RESCAN_SLACK_S)
        for script in parsed.scripts:
            known = self.watched.get(script)
            start = since if known is None else min(since, known.since)
            self.watched[script] = Watched(parsed.full, label, start, parsed.solvable)
        self.birth = min(self.birth or timestamp, timestamp)

    def holds(self, coin: Coin) -> bool:
        """Whether the wallet knows that a coin is its own."""
        one = self.watched.get(coin.script)
        return one is not None and (coin.height is None or coin.height >= one.since)

    def coins(self, view: View) -> Iterator[tuple[Outpoint, Coin]]:
        """Its coins that nothing spends, waiting ones last."""
        for script, one in self.watched.items():
            for outpoint, coin in view.coins.of(script).items():
                if coin.height is not None and coin.height >= one.since and view.spender(outpoint) is None:
                    yield outpoint, coin
        for entry in view.waiting():
            for number, output in enumerate(entry.tx.outputs):
                outpoint = entry.tx.outpoint(number)
                if output.script in self.watched and view.spender(outpoint) is None:
                    yield outpoint, Coin(output.units, output.script, None, coinbase=False)

    # Transactions

    def debits(self, view: View, tx: Tx) -> int:
        """Satoshis of its own that a transaction spends."""
        if tx.coinbase:
            return 0
        return sum(
            coin.units for one in tx.inputs if (coin := self._source(view, one.outpoint)) is not None and coin.script in self.watched
        )

    @staticmethod
    def _source(view: View, outpoint: Outpoint) -> Coin | None:
        """What an input spends, whatever became of it since."""
        made = view.chain.blocks.find(outpoint[0])
        tx = made[0].transactions[made[1]] if made is not None else view.chain.seen.get(outpoint[0])
        if tx is None or outpoint[1] >= len(tx.outputs):
            return None
        output = tx.outputs[outpoint[1]]
        return Coin(output.units, output.script, None, coinbase=tx.coinbase)

    def concerns(self, view: View, tx: Tx) -> bool:
        """Whether a transaction pays or spends its own."""
        return any(output.script in self.watched for output in tx.outputs) or self.debits(view, tx) > 0

    def find(self, view: View, txid: str) -> Found | None:
        """A transaction of its own: confirmed, waiting, or once seen and forgotten by the network."""
        if view.blind:
            return None
        found = view.find(txid)
        if found is None and view.chain.blocks.find(txid) is None and (tx := view.chain.seen.get(txid)) is not None:
            found = Found(tx, None)
        return found if found is not None and self.concerns(view, found.tx) else None

    def since(self, view: View, height: int) -> Iterator[Found]:
        """Its transactions in blocks above a height, oldest first, and those in no block."""
        start = min((one.since for one in self.watched.values()), default=0)
        for number in range(max(height + 1, start), view.height + 1):
            block = view.chain.blocks.at(number)
            if block is not None:
                yield from self.in_block(view, block)
        for entry in view.waiting():
            if self.concerns(view, entry.tx):
                yield Found(entry.tx, None)
        if not view.blind:
            yield from (Found(tx, None) for tx in list(view.chain.seen) if self._lost(view, tx))

    def in_block(self, view: View, block: Block) -> Iterator[Found]:
        """Its transactions in one block."""
        for place, tx in enumerate(block.transactions):
            if self.concerns(view, tx):
                yield Found(tx, block, place)

    def _lost(self, view: View, tx: Tx) -> bool:
        return view.chain.blocks.find(tx.txid) is None and view.chain.mempool.get(tx.txid) is None and self.concerns(view, tx)


def first_height(view: View, timestamp: int) -> int:
    """The first block with which all later ones are, by their headers, at least as young; the next one where none is."""
    height = view.height + 1
    while height > 0 and (block := view.chain.blocks.at(height - 1)) is not None and block.time >= timestamp:
        height -= 1
    return height


def parse_descriptor(text: str, *, need_checksum: bool, span: tuple[int, int] = (0, RANGE_MAX)) -> Parsed:
    """A descriptor in words of its own. Raises RpcError."""
    body, mark, given = text.partition("#")
    if "#" in given:
        raise RpcError(INVALID_ADDRESS_OR_KEY, "Multiple '#' symbols")
    try:
        right = checksum(body)
    except EmbitError as error:
        raise RpcError(INVALID_ADDRESS_OR_KEY, "Invalid characters in payload") from error
    if not mark and need_checksum:
        raise RpcError(INVALID_ADDRESS_OR_KEY, "Missing checksum")
    if mark and len(given) != len(right):
        raise RpcError(INVALID_ADDRESS_OR_KEY, f"Expected {len(right)} character checksum, not {len(given)} characters")
    if mark and given != right:
        raise RpcError(INVALID_ADDRESS_OR_KEY, f"Provided checksum '{given}' does not match computed checksum '{right}'")
    if body.startswith(("addr(", "raw(")) and body.endswith(")"):
        return Parsed(body, (_plain(body),), ranged=False, solvable=False, private=False)
    try:
        parsed = Descriptor.from_string(body)
        ranged = bool(parsed.is_wildcard)
        places = range(*span) if ranged else range(1)
        scripts = tuple((parsed.derive(place) if ranged else parsed).script_pubkey().data for place in places)
        private = any(key.is_private for key in parsed.keys)
    except (EmbitError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise RpcError(INVALID_ADDRESS_OR_KEY, f"'{body[:100]}' is not a valid descriptor function") from error
    return Parsed(body, scripts, ranged=ranged, solvable=True, private=private)


def _plain(body: str) -> bytes:
    name, _, inner = body[:-1].partition("(")
    try:
        return script_of(inner) if name == "addr" else bytes.fromhex(inner)
    except ValueError as error:
        words = "Address is not valid" if name == "addr" else "Raw script is not hex"
        raise RpcError(INVALID_ADDRESS_OR_KEY, words) from error


# Answers


def unspent(wallet: Wallet, view: View, outpoint: Outpoint, coin: Coin) -> dict[str, Any]:
    """One entry of listunspent."""
    one = wallet.watched[coin.script]
    fields: dict[str, Any] = {"txid": outpoint[0], "vout": outpoint[1]}
    if (address := address_of(coin.script)) is not None:
        fields |= {"address": address, "label": one.label}
    confirmations = 0 if coin.height is None else view.height - coin.height + 1
    fields |= {"scriptPubKey": coin.script.hex(), "amount": btc(coin.units), "confirmations": confirmations}
    if (entry := view.entry(outpoint[0])) is not None and coin.height is None:
        above = (
            [found for txid in view.chain.mempool.ancestors(outpoint[0]) if (found := view.entry(txid))] if _pooled(view, entry.tx) else []
        )
        fields |= {
            "ancestorcount": len(above) + 1,
            "ancestorsize": entry.vsize + sum(found.vsize for found in above),
            "ancestorfees": entry.fee + sum(found.fee for found in above),
        }
    fields |= {"spendable": True, "solvable": one.solvable}
    if one.solvable:
        fields["desc"] = one.descriptor
    return fields | {"parent_descs": [one.descriptor], "safe": is_safe(wallet, view, outpoint, coin)}


def _pooled(view: View, tx: Tx) -> bool:
    return view.chain.mempool.get(tx.txid) is not None


def is_safe(wallet: Wallet, view: View, outpoint: Outpoint, coin: Coin) -> bool:
    """Confirmed, or waiting and all the wallet's own."""
    if coin.height is not None:
        return True
    entry = view.entry(outpoint[0])
    return entry is not None and all(source.script in wallet.watched for source in entry.spent)


def is_ripe(view: View, coin: Coin) -> bool:
    """Whether a coin may be spent in the next block."""
    return not coin.coinbase or coin.height is None or view.height + 1 - coin.height >= COINBASE_MATURITY


def place_of(wallet: Wallet, view: View, found: Found) -> dict[str, Any]:
    """Where a transaction of the wallet is: WalletTxToJSON."""
    tx, block = found.tx, found.block
    fields: dict[str, Any] = {"confirmations": _confirmations(view, found)}
    if tx.coinbase:
        fields["generated"] = True
    if block is not None:
        fields |= {"blockhash": block.hash, "blockheight": block.height, "blockindex": found.position, "blocktime": block.time}
    else:
        entry = view.entry(tx.txid)
        fields["trusted"] = entry is not None and all(coin.script in wallet.watched for coin in entry.spent)
    entry = view.entry(tx.txid)
    seen_s = entry.at_ms // 1_000 if entry is not None else block.time if block is not None else view.tip.time
    conflicts = view.chain.seen.conflicts(tx)
    return fields | {
        "txid": tx.txid,
        "wtxid": tx.wtxid,
        "walletconflicts": conflicts,
        "mempoolconflicts": [txid for txid in conflicts if view.chain.mempool.get(txid) is not None],
        "time": seen_s,
        "timereceived": seen_s,
        "bip125-replaceable": "no" if block is not None else "yes" if tx.replaceable else "unknown" if entry is None else "no",
    }


def _confirmations(view: View, found: Found) -> int:
    """Depth of its block; 0 in none; below 0 where a transaction with the same coins is so deep in the chain."""
    if found.block is not None:
        return view.depth(found.block)
    depths = [view.depth(block) for txid in view.chain.seen.conflicts(found.tx) if (block := _block_of(view, txid)) is not None]
    return -max(depths, default=0)


def _block_of(view: View, txid: str) -> Block | None:
    found = view.find(txid)
    return None if found is None else found.block


def movements(wallet: Wallet, view: View, found: Found, *, change: bool = False) -> list[dict[str, Any]]:
    """What a transaction sent and received, output by output: ListTransactions."""
    tx, rows = found.tx, []
    debit = wallet.debits(view, tx)
    fee = sum(output.units for output in tx.outputs) - debit if debit else 0
    for number, output in enumerate(tx.outputs):
        mine = wallet.watched.get(output.script)
        named = {} if (address := address_of(output.script)) is None else {"address": address}
        if debit and (mine is None or change):
            rows.append({**named, "category": "send", "amount": btc(-output.units), "vout": number, "fee": btc(fee), "abandoned": False})
        if mine is not None and (not debit or change):
            category = "receive"
            if tx.coinbase:
                ripe = found.block is not None and is_ripe(view, Coin(0, b"", found.block.height, coinbase=True))
                category = "generate" if ripe else "immature"
            descriptors = [mine.descriptor]
            row = {**named, "parent_descs": descriptors, "category": category, "amount": btc(output.units), "label": mine.label}
            rows.append({**row, "vout": number, "abandoned": False})
    return rows


def detail(wallet: Wallet, view: View, found: Found, *, verbose: bool) -> dict[str, Any]:
    """What gettransaction says of one of its own."""
    tx = found.tx
    debit = wallet.debits(view, tx)
    credit = sum(output.units for output in tx.outputs if output.script in wallet.watched)
    paid = sum(output.units for output in tx.outputs)
    fields: dict[str, Any] = {"amount": btc(credit - debit + (debit - paid if debit else 0))}
    if debit:
        fields["fee"] = btc(paid - debit)
    fields |= place_of(wallet, view, found) | {"details": movements(wallet, view, found), "hex": tx.raw.hex()}
    if verbose:
        fields["decoded"] = {key: value for key, value in transaction(tx).items() if key != "hex"}
    return fields | {"lastprocessedblock": {"hash": view.tip.hash, "height": view.height}}
