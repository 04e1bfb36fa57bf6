"""The mempool: what a node takes, what it throws out for it, and what it offers to the next block, by Core 29's rules.

Replacement: https://github.com/bitcoin/bitcoin/blob/29.x/doc/policy/mempool-replacements.md (full RBF, as is the default since 28).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from penstock.devnet.bitcoin import policy
from penstock.devnet.bitcoin.coins import made_by
from penstock.devnet.bitcoin.kernel import first_bad_input
from penstock.devnet.bitcoin.policy import Rejected, Tip, fee_at, money
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx

RELATIVES_MAX: Final = 25
RELATIVES_VSIZE_MAX: Final = 101_000
REPLACED_MAX: Final = 100
POOL_MAX: Final = 50_000
"""Transactions in one pool. Core holds 300 MB and evicts the cheapest; here the next one is refused."""

BLOCK_SIGOPS_MAX: Final = 80_000
RESERVED_WEIGHT: Final = 8_000
RESERVED_SIGOPS: Final = 400


@dataclass(slots=True)
class Terms:
    """What a node demands; satoshi per 1,000 virtual bytes. `minimum` is Core's mempoolminfee where a pool is full, else 0."""

    relay: int
    incremental: int
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction that waits. `vsize` counts signature checks too; `ready_ms` is when the network learns of it."""

    tx: Tx
    fee: int
    vsize: int
    sigops: int
    spent: tuple[Coin, ...] = field(repr=False)
    arrival: int
    height: int
    at_ms: int
    ready_ms: int


class ConfirmedCoins(Protocol):
    """The coins that blocks have made."""

    def get(self, outpoint: Outpoint) -> Coin | None:
        """The coin of this name, if it is unspent."""
        ...


class Mempool:
    """Waiting transactions, with who spends what of whom."""

    def __init__(self, terms: Terms, coins: ConfirmedCoins) -> None:
        self.terms = terms
        self._coins = coins
        self._entries: dict[str, Entry] = {}
        self._spender: dict[Outpoint, str] = {}
        self._made: dict[Outpoint, Coin] = {}
        self._children: dict[str, set[str]] = {}
        self._arrivals = 0

    # What is there

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, txid: str) -> Entry | None:
        """The entry of this id."""
        return self._entries.get(txid)

    def spender(self, outpoint: Outpoint) -> str | None:
        """Who spends this output here."""
        return self._spender.get(outpoint)

    def made(self, outpoint: Outpoint) -> Coin | None:
        """An output of a waiting transaction, spent here or not."""
        return self._made.get(outpoint)

    def parents(self, txid: str) -> list[str]:
        """Waiting transactions that it spends from."""
        return list(dict.fromkeys(one.outpoint[0] for one in self._entries[txid].tx.inputs if one.outpoint[0] in self._entries))

    def children(self, txid: str) -> list[str]:
        """Waiting transactions that spend from it, first come first."""
        return sorted(self._children.get(txid, ()), key=self._arrival)

    def ancestors(self, txid: str) -> set[str]:
        """Everything that must be mined before it, without itself."""
        return self._closure(self.parents(txid), self.parents)

    def descendants(self, txid: str) -> set[str]:
        """Everything that cannot be mined without it, without itself."""
        return self._closure(self._children.get(txid, ()), lambda one: self._children.get(one, ()))

    @staticmethod
    def _closure(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
        found: set[str] = set()
        waiting = list(start)
        while waiting:
            if (one := waiting.pop()) not in found:
                found.add(one)
                waiting += following(one)
        return found

    def _arrival(self, txid: str) -> int:
        return self._entries[txid].arrival

    # Taking one in

    def add(self, tx: Tx, tip: Tip, *, at_ms: int, ready_ms: int = 0, package: bool = False) -> Entry:
        """Take a transaction in, and throw out what it replaces. Raises Rejected, with nothing changed."""
        entry, replaced = self.judge(tx, tip, at_ms=at_ms, ready_ms=ready_ms, package=package)
        for txid in replaced:
            self.remove(txid)
        return self.keep(entry)

    def judge(self, tx: Tx, tip: Tip, *, at_ms: int, ready_ms: int = 0, package: bool = False) -> tuple[Entry, set[str]]:
        """What its entry would be and whom it would replace. Raises Rejected.

        In Core's order (MemPoolAccept): the bytes alone, its inputs, its fee, its relatives, whom it replaces, and scripts at last.
        `package`: the feerate is judged for the whole package, by the caller.
        """
        policy.check_alone(tx)
        policy.check_standard(tx)
        policy.check_final(tx, tip)
        self._check_unknown(tx)
        spent = self._spent(tx)
        policy.check_relative(tx, spent, tip)
        fee = policy.check_amounts(tx, spent, tip)
        policy.check_inputs_standard(tx, spent)
        vsize = policy.check_sigops(tx, spent)
        policy.check_dust_fee(tx, fee)
        if not package:
            self.check_feerate(fee, vsize)
        conflicts = {txid for one in tx.inputs if (txid := self._spender.get(one.outpoint)) is not None}
        ancestors = self._closure((one.outpoint[0] for one in tx.inputs if one.outpoint[0] in self._entries), self.parents)
        if crossed := sorted(conflicts & ancestors):
            raise Rejected("bad-txns-spends-conflicting-tx", f"{tx.txid} spends conflicting transaction {crossed[0]}")
        replaced = conflicts.union(*(self.descendants(txid) for txid in conflicts))
        self._check_relatives(vsize, ancestors, replaced)
        if conflicts:
            self._check_replacement(tx, fee, vsize, conflicts, replaced)
        elif len(self._entries) >= POOL_MAX:
            raise Rejected("mempool full")
        _check_scripts(tx, spent)
        entry = Entry(tx, fee, vsize, policy.sigops_cost(tx, spent), spent, self._arrivals + 1, tip.height, at_ms, ready_ms)
        return entry, replaced

    def check_feerate(self, fee: int, vsize: int) -> None:
        """That a fee is enough to be relayed. Raises Rejected."""
        if (least := fee_at(self.terms.minimum, vsize)) and fee < least:
            raise Rejected("mempool min fee not met", f"{fee} < {least}")
        if fee < (least := fee_at(self.terms.relay, vsize)):
            raise Rejected("min relay fee not met", f"{fee} < {least}")

    def _check_unknown(self, tx: Tx) -> None:
        known = self._entries.get(tx.txid)
        if known is not None:
            raise Rejected("txn-already-in-mempool" if known.tx.wtxid == tx.wtxid else "txn-same-nonwitness-data-in-mempool")

    def _spent(self, tx: Tx) -> tuple[Coin, ...]:
        found = []
        for one in tx.inputs:
            coin = self._made.get(one.outpoint) or self._coins.get(one.outpoint)
            if coin is None:
                if any(self._coins.get(tx.outpoint(number)) is not None for number in range(len(tx.outputs))):
                    raise Rejected("txn-already-known")
                raise Rejected("bad-txns-inputs-missingorspent", missing=True)
            found.append(coin)
        return tuple(found)

    def _check_relatives(self, vsize: int, ancestors: set[str], replaced: set[str]) -> None:
        """At most 25 in a chain of unconfirmed ones and 101,000 virtual bytes, seen from each end."""
        name = "too-long-mempool-chain"
        if len(ancestors) + 1 > RELATIVES_MAX:
            raise Rejected(name, f"too many unconfirmed ancestors [limit: {RELATIVES_MAX}]")
        if vsize + sum(self._entries[one].vsize for one in ancestors) > RELATIVES_VSIZE_MAX:
            raise Rejected(name, f"exceeds ancestor size limit [limit: {RELATIVES_VSIZE_MAX}]")
        for ancestor in sorted(ancestors, key=self._arrival):
            below = self.descendants(ancestor) - replaced
            if len(below) + 2 > RELATIVES_MAX:
                raise Rejected(name, f"too many descendants for tx {ancestor} [limit: {RELATIVES_MAX}]")
            if vsize + self._entries[ancestor].vsize + sum(self._entries[one].vsize for one in below) > RELATIVES_VSIZE_MAX:
                raise Rejected(name, f"exceeds descendant size limit for tx {ancestor} [limit: {RELATIVES_VSIZE_MAX}]")

    def _check_replacement(self, tx: Tx, fee: int, vsize: int, conflicts: set[str], replaced: set[str]) -> None:
        """Higher feerate than each that it conflicts with, no new unconfirmed input, more fee than all that goes, by its own relay."""
        for txid in sorted(conflicts, key=self._arrival):
            old = self._entries[txid]
            if fee * old.vsize <= old.fee * vsize:
                rates = f"new feerate {_rate(fee, vsize)} <= old feerate {_rate(old.fee, old.vsize)}"
                raise Rejected("insufficient fee", f"rejecting replacement {tx.txid}; {rates}")
        if len(replaced) > REPLACED_MAX:
            count = f"too many potential replacements ({len(replaced)} > {REPLACED_MAX})"
            raise Rejected("too many potential replacements", f"rejecting replacement {tx.txid}; {count}")
        known = {one.outpoint[0] for txid in conflicts for one in self._entries[txid].tx.inputs}
        for number, one in enumerate(tx.inputs):
            if one.outpoint[0] in self._entries and one.outpoint[0] not in known:
                raise Rejected("replacement-adds-unconfirmed", f"replacement {tx.txid} adds unconfirmed input, idx {number}")
        old_fees = sum(self._entries[txid].fee for txid in replaced)
        if fee < old_fees:
            raise Rejected(
                "insufficient fee", f"rejecting replacement {tx.txid}, less fees than conflicting txs; {money(fee)} < {money(old_fees)}"
            )
        least = fee_at(self.terms.incremental, vsize)
        if fee - old_fees < least:
            amounts = f"{money(fee - old_fees)} < {money(least)}"
            raise Rejected("insufficient fee", f"rejecting replacement {tx.txid}, not enough additional fees to relay; {amounts}")

    def keep(self, entry: Entry) -> Entry:
        """Put in an entry that was judged."""
        tx = entry.tx
        self._arrivals = entry.arrival
        self._entries[tx.txid] = entry
        for one in tx.inputs:
            self._spender[one.outpoint] = tx.txid
            if one.outpoint[0] in self._entries:
                self._children.setdefault(one.outpoint[0], set()).add(tx.txid)
        self._made.update(made_by(tx, None))
        return entry

    # Letting go

    def remove(self, txid: str, *, with_descendants: bool = True) -> list[Tx]:
        """Forget a transaction and what cannot be without it; what went, [] when it was not there."""
        if txid not in self._entries:
            return []
        gone = [txid, *(self.descendants(txid) if with_descendants else ())]
        return [self._drop(one).tx for one in gone]

    def _drop(self, txid: str) -> Entry:
        entry = self._entries.pop(txid)
        for one in entry.tx.inputs:
            del self._spender[one.outpoint]
            if (children := self._children.get(one.outpoint[0])) is not None:
                children.discard(txid)
        self._children.pop(txid, None)
        for outpoint, _ in made_by(entry.tx, None):
            del self._made[outpoint]
        return entry

    def swap(self, entry: Entry, twin: Tx) -> None:
        """Put a transaction that spends and pays the same in another's place, unjudged. Its descendants stay where the id does."""
        if twin.txid != entry.tx.txid:
            self.remove(entry.tx.txid)
            self.keep(replace(entry, tx=twin))
        else:
            self._entries[twin.txid] = replace(entry, tx=twin)

    def confirmed(self, transactions: Iterable[Tx]) -> None:
        """A block took these: they wait no more, and what conflicts with them is over."""
        for tx in transactions:
            self.remove(tx.txid, with_descendants=False)
            for one in tx.inputs:
                if (other := self._spender.get(one.outpoint)) is not None:
                    self.remove(other)

    def rebuild(self, first: Iterable[Tx], tip: Tip, *, at_ms: int) -> None:
        """After blocks were undone: `first` are theirs, in order; they and all that waited are judged again, without their fee."""
        waiting = sorted(self._entries.values(), key=lambda entry: entry.arrival)
        self._entries, self._spender, self._made, self._children = {}, {}, {}, {}
        for tx, ready_ms in [*((tx, 0) for tx in first), *((entry.tx, entry.ready_ms) for entry in waiting)]:
            try:
                self.add(tx, tip, at_ms=at_ms, ready_ms=ready_ms, package=True)
            except Rejected:
                continue  # as in Core: what is no longer valid, or conflicts, is forgotten

    def evict_below(self, per_kvb: int) -> None:
        """What a full pool does: everything cheaper than this goes, and is not taken again."""
        self.terms.minimum = per_kvb
        for entry in list(self._entries.values()):
            if entry.tx.txid in self._entries and entry.fee < fee_at(per_kvb, entry.vsize):
                self.remove(entry.tx.txid)

    # Offering

    def pick(self, *, at_ms: int, floor: int, weight_max: int, newest_first: bool = False) -> list[Entry]:
        """Transactions for a block, each after all that it spends from: best feerate first, a child's fee counting for its parents.

        `floor` (satoshi per 1,000 virtual bytes) is what the block's maker takes at least.
        """
        return _Selection(self, at_ms=at_ms, floor=floor, weight_left=weight_max - RESERVED_WEIGHT, newest_first=newest_first).run()


class _Selection:
    """One block being filled (Core's BlockAssembler::addPackageTxs)."""

    def __init__(self, pool: Mempool, *, at_ms: int, floor: int, weight_left: int, newest_first: bool) -> None:
        self._pool = pool
        self._at_ms, self._floor, self._newest_first = at_ms, floor, newest_first
        self._weight_left, self._sigops_left = weight_left, BLOCK_SIGOPS_MAX - RESERVED_SIGOPS
        self._taken: dict[str, Entry] = {}
        self._heap: list[tuple[int, int, str, int, int]] = []

    def run(self) -> list[Entry]:
        for entry in self._pool:
            self._push(entry.tx.txid)
        while self._heap:
            _, _, txid, fee, vsize = heapq.heappop(self._heap)
            if txid in self._taken:
                continue
            package = self._package(txid)
            now = (sum(entry.fee for entry in package), sum(entry.vsize for entry in package))
            if now == (fee, vsize):
                self._take(package, *now)
        return list(self._taken.values())

    def _package(self, txid: str) -> list[Entry]:
        """It and all of its ancestors that are not in the block yet, in an order that a block may have them."""
        members = [one for one in {txid, *self._pool.ancestors(txid)} if one not in self._taken]
        entries = [entry for one in members if (entry := self._pool.get(one)) is not None]
        return sorted(entries, key=lambda entry: (len(self._pool.ancestors(entry.tx.txid)), entry.arrival))

    def _push(self, txid: str) -> None:
        package = self._package(txid)
        if any(entry.ready_ms > self._at_ms for entry in package):
            return
        fee, vsize = sum(entry.fee for entry in package), sum(entry.vsize for entry in package)
        arrival = package[-1].arrival
        first = -arrival if self._newest_first else -(fee * 10**12 // vsize)
        heapq.heappush(self._heap, (first, arrival, txid, fee, vsize))

    def _take(self, package: list[Entry], fee: int, vsize: int) -> None:
        weight, sigops = sum(entry.tx.weight for entry in package), sum(entry.sigops for entry in package)
        if fee < fee_at(self._floor, vsize) or weight > self._weight_left or sigops > self._sigops_left:
            return
        self._weight_left -= weight
        self._sigops_left -= sigops
        self._taken.update((entry.tx.txid, entry) for entry in package)
        for changed in {one for entry in package for one in self._pool.descendants(entry.tx.txid)} - self._taken.keys():
            self._push(changed)


def _check_scripts(tx: Tx, spent: tuple[Coin, ...]) -> None:
    """By the kernel, which says only that a script fails, not why. Raises Rejected."""
    bad = first_bad_input(tx.raw, [(coin.script, coin.units) for coin in spent])
    if bad is not None:
        txid, number = tx.inputs[bad].outpoint
        where = f"input {bad} of {tx.txid} (wtxid {tx.wtxid}), spending {txid}:{number}"
        raise Rejected("mandatory-script-verify-flag-failed (unknown error)", where)


def _rate(fee: int, vsize: int) -> str:
    """A feerate as Core writes it in words."""
    per_kvb = fee * 1_000 // vsize
    return f"{per_kvb // 10**8}.{per_kvb % 10**8:08d} BTC/kvB"
