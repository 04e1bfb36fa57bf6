"""How transactions come in: sendrawtransaction, testmempoolaccept, submitpackage, with the faults of the node they are given to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from penstock.devnet.bitcoin import rpc
from penstock.devnet.bitcoin.chain import BitcoinChain
from penstock.devnet.bitcoin.mempool import Entry
from penstock.devnet.bitcoin.policy import Rejected, fee_at
from penstock.devnet.bitcoin.rpc import Function, RpcError, btc, listed, units_of
from penstock.devnet.bitcoin.transaction import COIN, Tx, is_unspendable
from penstock.devnet.bitcoin.view import View
from penstock.devnet.box import Broken, Faults

FEERATE_MAX: Final = "0.10"
"""What -maxfeerate is by default, in bitcoin per 1,000 virtual bytes."""

PACKAGE_MAX: Final = 25
_FEE_WORDS: Final = frozenset({"min relay fee not met", "mempool min fee not met"})


class Taker(Protocol):
    """The node that is asked."""

    chain: BitcoinChain
    faults: Any
    """A `Faults`."""

    @property
    def view(self) -> View:
        """The network as it knows it."""
        ...

    @staticmethod
    def decoded(hexstring: Any) -> Tx:
        """The transaction in hexadecimal text. Raises RpcError."""
        ...


class Sending:
    """The methods that take transactions."""

    def __init__(self, node: Taker) -> None:
        self._node = node

    @property
    def methods(self) -> dict[str, Function]:
        """By name."""
        return {"sendrawtransaction": self.send, "testmempoolaccept": self.test, "submitpackage": self.submit_package}

    def send(self, hexstring: Any, maxfeerate: Any = FEERATE_MAX, maxburnamount: Any = 0) -> str:
        """The id of a transaction that the node has by now. Raises RpcError, or Broken."""
        tx = self._node.decoded(hexstring)
        burnt = units_of(maxburnamount)
        if any(is_unspendable(output.script) and output.units > burnt for output in tx.outputs):
            raise RpcError(rpc.VERIFY_ERROR, "Unspendable output exceeds maximum configured by user (maxburnamount)")
        rate = _rate(maxfeerate)
        faults: Faults = self._node.faults
        if faults.drop:
            faults.drop -= 1
            return tx.txid
        self._hand_in(tx, rate)
        if faults.duplicate:
            faults.duplicate -= 1
            self._hand_in(tx, rate)
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        return tx.txid

    def _hand_in(self, tx: Tx, rate: int) -> None:
        """BroadcastTransaction: what is in the chain is an error, what waits already is not."""
        chain, view = self._node.chain, self._node.view
        if any(view.coins.get(tx.outpoint(number)) is not None for number in range(len(tx.outputs))):
            raise RpcError(rpc.VERIFY_ALREADY_IN_UTXO_SET, "Transaction outputs already in utxo set")
        found = View(chain, lag=self._node.faults.lag).find(tx.txid)
        if found is not None and found.block is None:
            return
        try:
            if rate and (entry := chain.judge(tx)).fee > fee_at(rate, entry.vsize):
                raise RpcError(rpc.VERIFY_ERROR, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)")
            chain.submit_tx(tx, delay_ms=self._node.faults.delay_ms)
        except Rejected as error:
            raise RpcError(rpc.VERIFY_ERROR if error.missing else rpc.VERIFY_REJECTED, str(error)) from error

    # Many at once

    def test(self, rawtxs: Any, maxfeerate: Any = FEERATE_MAX) -> list[dict[str, Any]]:
        """What would become of transactions, of which later ones may spend from earlier ones. Raises RpcError."""
        txs = self._package(rawtxs)
        rate, pool, told = _rate(maxfeerate), self._node.chain.mempool, []
        added: list[str] = []
        try:
            for tx in txs:
                fields, entry = self._tested(tx, rate, alone=len(txs) == 1)
                told.append({"txid": tx.txid, "wtxid": tx.wtxid, **fields})
                if entry is not None and len(txs) > 1:
                    pool.keep(entry)
                    added.append(tx.txid)
        finally:
            for txid in reversed(added):
                pool.remove(txid)
        return told

    def _tested(self, tx: Tx, rate: int, *, alone: bool) -> tuple[dict[str, Any], Entry | None]:
        if not alone and any(self._node.chain.mempool.spender(one.outpoint) is not None for one in tx.inputs):
            return {"allowed": False, "reject-reason": "bip125-replacement-disallowed"}, None
        try:
            entry = self._node.chain.judge(tx)
        except Rejected as error:
            reason = "missing-inputs" if error.missing else error.reason
            return {"allowed": False, "reject-reason": reason, "reject-details": str(error)}, None
        if rate and entry.fee > fee_at(rate, entry.vsize):
            return {"allowed": False, "reject-reason": "max-fee-exceeded"}, None
        return {"allowed": True, "vsize": entry.vsize, "fees": _fees(entry, entry.fee, entry.vsize, [tx])}, entry

    def submit_package(self, package: Any, maxfeerate: Any = FEERATE_MAX, maxburnamount: Any = 0) -> dict[str, Any]:
        """A child with its parents, each after those that it spends from; a child may pay for parents that pay too little. Raises RpcError."""
        txs, rate, pool = self._package(package), _rate(maxfeerate), self._node.chain.mempool
        units_of(maxburnamount)
        parents = {one.outpoint[0] for one in txs[-1].inputs}
        if any(tx.txid not in parents for tx in txs[:-1]):
            raise RpcError(rpc.VERIFY_ERROR, "package topology disallowed. not child-with-parents or parents depend on each other.")
        before = {entry.tx.txid for entry in pool}
        results: dict[str, dict[str, Any]] = {}
        poor: list[Tx] = []
        for tx in txs:
            try:
                if pool.get(tx.txid) is None:
                    self._take(tx, rate, poor, last=tx is txs[-1])
            except Rejected as error:
                if error.reason in _FEE_WORDS and tx is not txs[-1]:
                    poor.append(tx)
                    continue
                results[tx.wtxid] = {"txid": tx.txid, "error": str(error)}
        results |= self._accepted(txs, poor, results)
        gone = sorted(before - {entry.tx.txid for entry in pool})
        failed = any("error" in one for one in results.values())
        return {"package_msg": "transaction failed" if failed else "success", "tx-results": results, "replaced-transactions": gone}

    def _take(self, tx: Tx, rate: int, poor: list[Tx], *, last: bool) -> None:
        """One of a package; the child together with the parents that were too poor to come alone. Raises Rejected."""
        chain = self._node.chain
        if not (last and poor):
            entry = chain.judge(tx)
            if rate and entry.fee > fee_at(rate, entry.vsize):
                raise Rejected("max feerate exceeded")
            chain.submit_tx(tx, delay_ms=self._node.faults.delay_ms)
            return
        entries: list[Entry] = []
        try:
            for one in [*poor, tx]:
                entries += [chain.submit_tx(one, delay_ms=self._node.faults.delay_ms, package=True)]
            chain.mempool.check_feerate(sum(entry.fee for entry in entries), sum(entry.vsize for entry in entries))
        except Rejected:
            for entry in entries:
                chain.mempool.remove(entry.tx.txid)
            raise

    def _accepted(self, txs: Sequence[Tx], poor: Sequence[Tx], results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        pool = self._node.chain.mempool
        told: dict[str, dict[str, Any]] = {}
        shared = [*poor, txs[-1]] if poor else []
        entries = [entry for one in shared if (entry := pool.get(one.txid)) is not None]
        for tx in txs:
            entry = pool.get(tx.txid)
            if tx.wtxid in results:
                continue
            if entry is None:
                told[tx.wtxid] = {"txid": tx.txid, "error": "min relay fee not met"}
                continue
            members = entries if entry in entries else [entry]
            fee, vsize = sum(one.fee for one in members), sum(one.vsize for one in members)
            fees = _fees(entry, fee, vsize, [one.tx for one in members])
            told[tx.wtxid] = {"txid": tx.txid, "vsize": entry.vsize, "fees": fees}
        return told

    def _package(self, rawtxs: Any) -> list[Tx]:
        if not 1 <= len(listed(rawtxs)) <= PACKAGE_MAX:
            raise RpcError(rpc.INVALID_PARAMETER, f"Array must contain between 1 and {PACKAGE_MAX} transactions.")
        return [self._node.decoded(one) for one in rawtxs]


def _fees(entry: Entry, fee: int, vsize: int, members: Sequence[Tx]) -> dict[str, Any]:
    """Its own fee, and the rate at which it was judged together with others."""
    return {"base": btc(entry.fee), "effective-feerate": btc(fee * 1_000 // vsize), "effective-includes": [tx.wtxid for tx in members]}


def _rate(maxfeerate: Any) -> int:
    """Satoshi per 1,000 virtual bytes; 0 for any. Raises RpcError."""
    rate = units_of(maxfeerate)
    if rate >= COIN:
        raise RpcError(rpc.INVALID_PARAMETER, "Fee rates larger than or equal to 1BTC/kvB are not accepted")
    return rate
