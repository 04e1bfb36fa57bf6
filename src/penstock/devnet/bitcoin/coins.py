"""Which outputs are unspent, whose they are, and how that was some blocks ago."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.devnet.bitcoin.blocks import Block
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx, is_unspendable


def made_by(transaction: Tx, height: int | None) -> Iterator[tuple[Outpoint, Coin]]:
    """The coins that a transaction makes; what nobody can spend is none."""
    own = transaction.coinbase
    for number, output in enumerate(transaction.outputs):
        if not is_unspendable(output.script):
            yield (transaction.txid, number), Coin(output.units, output.script, height, own)


class Coins:
    """Unspent outputs at the end of the newest block, by name and by script."""

    def __init__(self) -> None:
        self._coins: dict[Outpoint, Coin] = {}
        self._of_script: dict[bytes, dict[Outpoint, None]] = {}

    def __len__(self) -> int:
        return len(self._coins)

    def __iter__(self) -> Iterator[Coin]:
        return iter(self._coins.values())

    def get(self, outpoint: Outpoint) -> Coin | None:
        """The coin of this name, if it is unspent."""
        return self._coins.get(outpoint)

    def of(self, script: bytes) -> dict[Outpoint, Coin]:
        """All coins of an output script."""
        return {outpoint: self._coins[outpoint] for outpoint in self._of_script.get(script, ())}

    def connect(self, block: Block) -> None:
        """What a new block spends and makes. Raises KeyError for a coin that is not there."""
        for transaction in block.transactions:
            if not transaction.coinbase:
                for one in transaction.inputs:
                    self._remove(one.outpoint)
            for outpoint, coin in made_by(transaction, block.height):
                self._add(outpoint, coin)

    def disconnect(self, block: Block) -> None:
        """Take back the newest block."""
        for transaction, spent in zip(reversed(block.transactions), reversed(block.spent), strict=True):
            for outpoint, _ in made_by(transaction, None):
                self._remove(outpoint)
            for one, coin in zip(transaction.inputs, spent, strict=False):
                self._add(one.outpoint, coin)

    def _add(self, outpoint: Outpoint, coin: Coin) -> None:
        self._coins[outpoint] = coin
        self._of_script.setdefault(coin.script, {})[outpoint] = None

    def _remove(self, outpoint: Outpoint) -> None:
        coin = self._coins.pop(outpoint)
        of_script = self._of_script[coin.script]
        del of_script[outpoint]
        if not of_script:
            del self._of_script[coin.script]


class EarlierCoins:
    """The coins as they were before the newest blocks, given oldest first: what a node knows that lags behind."""

    def __init__(self, coins: Coins, unseen: Sequence[Block]) -> None:
        self._coins = coins
        self._made: set[Outpoint] = set()
        self._spent: dict[Outpoint, Coin] = {}
        for block in unseen:
            for transaction, spent in zip(block.transactions, block.spent, strict=True):
                for one, coin in zip(transaction.inputs, spent, strict=False):
                    if one.outpoint not in self._made:
                        self._spent[one.outpoint] = coin
                self._made.update(outpoint for outpoint, _ in made_by(transaction, None))

    def get(self, outpoint: Outpoint) -> Coin | None:
        """The coin of this name, if it was unspent then."""
        if outpoint in self._made:
            return None
        return self._spent.get(outpoint) or self._coins.get(outpoint)

    def of(self, script: bytes) -> dict[Outpoint, Coin]:
        """All coins of an output script then."""
        now = {outpoint: coin for outpoint, coin in self._coins.of(script).items() if outpoint not in self._made}
        return now | {outpoint: coin for outpoint, coin in self._spent.items() if coin.script == script}
