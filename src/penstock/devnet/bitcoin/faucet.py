"""The faucet's key and its transactions: P2WPKH, signed like anybody's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import coincurve
from embit.hashes import hash160
from embit.script import Script, Witness, p2pkh_from_p2wpkh
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from penstock.devnet.bitcoin.policy import dust_limit, fee_at
from penstock.devnet.bitcoin.transaction import UNITS_MAX, Coin, Outpoint, address_of

_SIGHASH_ALL: Final = b"\x01"
_SEQUENCE: Final = 0xFFFFFFFD
_INPUTS_MAX: Final = 500


class Faucet:
    """Pays from the coins of one key."""

    def __init__(self, secret: str) -> None:
        self._key = coincurve.PrivateKey(hashlib.sha256(secret.encode()).digest())
        self._public = self._key.public_key.format(compressed=True)
        self.script = b"\x00\x14" + hash160(self._public)
        self.address = address_of(self.script) or ""

    def pay(self, script: bytes, units: int, coins: Iterable[tuple[Outpoint, Coin]], *, per_kvb: int) -> bytes:
        """A signed transaction that pays satoshis to an output script, with change back. Raises ValueError."""
        if not dust_limit(script) <= units <= UNITS_MAX:
            raise ValueError(f"an amount here is from {dust_limit(script)} to {UNITS_MAX} satoshi")
        taken: list[tuple[Outpoint, Coin]] = []
        for one in coins:
            taken.append(one)
            fee = fee_at(per_kvb, 11 + 68 * len(taken) + 31 + 9 + len(script))
            change = sum(coin.units for _, coin in taken) - units - fee
            if change >= dust_limit(self.script):
                return self._signed(taken, [TransactionOutput(units, Script(script)), TransactionOutput(change, Script(self.script))])
            if len(taken) == _INPUTS_MAX:
                break
        held = sum(coin.units for _, coin in taken)
        raise ValueError(f"the faucet has {held} satoshi ready now; blocks bring more")

    def _signed(self, taken: list[tuple[Outpoint, Coin]], outputs: list[TransactionOutput]) -> bytes:
        inputs = [TransactionInput(bytes.fromhex(txid), number, sequence=_SEQUENCE) for (txid, number), _ in taken]
        transaction = Transaction(version=2, vin=inputs, vout=outputs, locktime=0)
        code = p2pkh_from_p2wpkh(Script(self.script))
        for number, (_, coin) in enumerate(taken):
            digest = transaction.sighash_segwit(number, code, coin.units)
            signature = self._key.sign(digest, hasher=None) + _SIGHASH_ALL
            transaction.vin[number].witness = Witness([signature, self._public])
        raw: bytes = transaction.serialize()
        return raw
