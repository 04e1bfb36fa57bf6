"""How a ledger is made of candidate transactions: order, retries, metadata, hashes.

https://xrpl.org/docs/concepts/consensus-protocol/consensus-structure
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.xrp import hashes
from penstock.devnet.xrp.amounts import Amount, amount_of
from penstock.devnet.xrp.engine import Outcome, apply
from penstock.devnet.xrp.entries import changes, metadata, thread
from penstock.devnet.xrp.state import Draft, account_id
from penstock.devnet.xrp.transactions import Transaction, half_sha512

RIPPLE_EPOCH_S: Final = 946_684_800
"""2000-01-01. https://xrpl.org/docs/references/protocol/data-types/basic-data-types#specifying-time"""
PASSES: Final = 3
RESOLUTION_S: Final = 10


@dataclass(frozen=True, slots=True)
class Applied:
    """A transaction in a ledger. `accounts` are those whose entries it changed."""

    transaction: Transaction
    index: int
    place: int
    code: str
    delivered: Amount | None
    metadata: Mapping[str, Any]
    accounts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ledger:
    """A closed ledger. `close_time` in seconds since 2000; `made_ms` when it was due (Unix ms)."""

    index: int
    hash: str
    parent: str
    transactions_hash: str
    state_hash: str
    total_drops: int
    parent_close_time: int
    close_time: int
    made_ms: int
    applied: tuple[Applied, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What came of candidates: those in the ledger, those that may be tried again, and fees burnt."""

    applied: tuple[Applied, ...]
    left: tuple[Transaction, ...]
    burnt: int


def in_order(candidates: Iterable[Transaction]) -> list[Transaction]:
    """An order that nobody can foresee before the set is known: by account under a salt, each account's by sequence, tickets last."""
    txids = sorted(one.txid for one in candidates)
    salt = int.from_bytes(half_sha512("".join(txids).encode())[:20], "big")

    def place(one: Transaction) -> tuple[int, bool, int, str]:
        return (int.from_bytes(account_id(one.account), "big") ^ salt, one.ticket is not None, one.ticket or one.sequence, one.txid)

    return sorted(candidates, key=place)


def make(draft: Draft, candidates: Iterable[Transaction], index: int) -> Made:
    """Apply candidates to the state of the new ledger. What fails with tec is tried once more before it costs its fee."""
    waiting, applied, burnt = in_order(list(candidates)), list[Applied](), 0
    for number in range(PASSES):
        left: list[Transaction] = []
        for transaction in waiting:
            outcome = apply(draft, transaction, index)
            if outcome.code.startswith("ter") or (number == 0 and outcome.code.startswith("tec")):
                left.append(transaction)
            elif outcome.applied:
                applied.append(_applied(transaction, outcome, index, len(applied)))
                draft.take(outcome.changes)
                burnt += outcome.fee
        if not left or (number and len(left) == len(waiting)):
            return Made(tuple(applied), tuple(left), burnt)
        waiting = left
    return Made(tuple(applied), tuple(waiting), burnt)


def _applied(transaction: Transaction, outcome: Outcome, index: int, place: int) -> Applied:
    found = list(changes(outcome.changes))
    less = outcome.delivered is not None and outcome.delivered != amount_of(transaction.fields["Amount"])
    partial = outcome.delivered.json() if outcome.delivered is not None and less else None
    meta = metadata(found, place=place, code=outcome.code, partial=partial)
    thread(outcome.changes, transaction.txid, index)
    owners = frozenset(owner for change in found for owner in change.owners)
    return Applied(transaction, index, place, outcome.code, outcome.delivered, meta, owners)


def sealed(parent: Ledger, draft: Draft, made: Made, *, made_ms: int, branch: int) -> Ledger:
    """The ledger after its parent. `branch` tells ledgers apart that hold the same."""
    total, close_time = parent.total_drops - made.burnt, max(made_ms // 1000 - RIPPLE_EPOCH_S, parent.close_time)
    transactions = hashes.tree_root(
        {one.transaction.txid: hashes.leaf(one.transaction.txid, one.transaction.raw, one.metadata) for one in made.applied}
    )
    state = _state_hash(bytes.fromhex(parent.state_hash), draft, branch)
    hash_ = hashes.header_hash(
        index=parent.index + 1,
        total_drops=total,
        parent=bytes.fromhex(parent.hash),
        transactions=transactions,
        state=state,
        parent_close_time=parent.close_time,
        close_time=close_time,
        resolution=RESOLUTION_S,
        flags=0,
    )
    return Ledger(
        index=parent.index + 1,
        hash=hash_.hex().upper(),
        parent=parent.hash,
        transactions_hash=transactions.hex().upper(),
        state_hash=state.hex().upper(),
        total_drops=total,
        parent_close_time=parent.close_time,
        close_time=close_time,
        made_ms=made_ms,
        applied=made.applied,
    )


def _state_hash(parent: bytes, draft: Draft, branch: int) -> bytes:
    """A running hash over what a ledger changed; stands where the real one has the root of its state tree."""
    lines = [f"{change.type} {change.key} {change.after}" for change in sorted(changes(draft), key=lambda change: change.key)]
    return half_sha512(parent + branch.to_bytes(4, "big") + "\n".join(lines).encode())
