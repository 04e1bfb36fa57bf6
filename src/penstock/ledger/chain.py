"""Tamper evidence: the chains of all committers tied together by checkpoints, and the chain of operator actions.

A committer's batches form one chain, and each checkpoint writes down the heads that moved and the hash of the checkpoint before. So a
chain cannot lose its end, be exchanged for another or be made anew without the hash of the last checkpoint becoming a different one:
whoever wrote that down elsewhere can tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.core.errors import InvariantBroken
from penstock.db import Row, Tx
from penstock.ledger.book import GENESIS
from penstock.ledger.facts import Head, Link
from penstock.ledger.report import Report
from penstock.ledger.rules import Totals


@dataclass(slots=True)
class Witness:
    """Notes of a reading from the first row: what moved after the last checkpoint."""

    heads: Mapping[str, Head]
    later: Totals = field(default_factory=dict)

    def see(self, link: Link) -> None:
        """One more batch."""
        committer, number = link.batch["committer"], link.batch["number"]
        if number > (self.heads[committer].number if committer in self.heads else 0):
            for line in link.postings:
                key = line["account"], line["coin_id"]
                self.later[key] = self.later.get(key, 0) + line["amount"]


def check(tx: Tx, report: Report, wanted_head: str = "") -> str:
    """I15: every checkpoint follows the one before and names batches as they are. Returns the last one's hash.

    `wanted_head` is a hash that somebody wrote down elsewhere: it must be among them.
    """
    number, previous, found, after = 0, GENESIS, wanted_head == "", 0
    tied: dict[str, Head] = {}
    # Batches below these are in files, and compared with their checkpoints there.
    archived = {
        row["committer"]: row["number"] for row in tx.all("SELECT committer, MAX(number) AS number FROM archive_head GROUP BY committer")
    }
    while page := tx.all("SELECT * FROM audit_checkpoint WHERE number > :after ORDER BY number LIMIT 1000", after=after):
        seen = _batches_named(tx, page)
        for row in page:
            name = f"checkpoint {row['number']}"
            if row["number"] != number + 1 or row["previous_hash"] != previous:
                report.add("I15", f"{name} does not follow checkpoint {number}")
            elif row["hash"] != checkpoint_hash(row["number"], row["at_ms"], row["heads"], previous):
                report.add("I15", f"{name} is not what it was when it was written")
            else:
                _check_heads(report, name, row["heads"], seen, tied, archived)
            number, previous = row["number"], row["hash"]
            found = found or row["hash"] == wanted_head
        after = page[-1]["number"]
    if not found:
        report.add("I15", f"no checkpoint has the hash {wanted_head}: the history behind it was cut off or written anew")
    kept = {row["committer"]: Head(row["number"], row["hash"]) for row in tx.all("SELECT committer, number, hash FROM audit_head")}
    if kept != tied:
        report.add("I15", "the last pass has read to other heads than the last checkpoint names: one of them was changed or cut off")
    _check_actions(tx, report)
    return previous


def _batches_named(tx: Tx, checkpoints: Sequence[Row]) -> dict[tuple[str, int], str]:
    """The hashes of the batches that these checkpoints name, as they are now."""
    keys: list[dict[str, Any]] = []
    for row in checkpoints:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # what cannot be read is not what was written, and is named for that
            keys += [{"committer": name, "number": head[0]} for name, head in json.loads(row["heads"])["batches"].items()]
    named = "FROM {ROWS k(committer TEXT, number {INT})} JOIN %s AS seen ON seen.committer = k.committer AND seen.number = k.number"
    rows = [
        row
        for table in ("batch", "archive_head")
        for row in tx.all(f"SELECT seen.committer, seen.number, seen.hash {named % table}", k=keys)
    ]
    return {(row["committer"], row["number"]): row["hash"] for row in rows}


def _check_heads(
    report: Report, name: str, text: str, seen: Mapping[tuple[str, int], str], tied: dict[str, Head], archived: Mapping[str, int]
) -> None:
    heads = json.loads(text)
    for committer, (number, link) in heads["batches"].items():
        tied[committer] = Head(number, link)
        if seen.get((committer, number)) != link and (number > archived.get(committer, 0) or (committer, number) in seen):
            report.add("I15", f"{name} has seen another batch {number} of {committer}")


def checkpoint_hash(number: int, at_ms: int, heads: str, previous: str) -> str:
    """The link of a checkpoint."""
    return _hash("checkpoint", [number, at_ms, heads, previous])


def append_checkpoint(tx: Tx, moved: Mapping[str, Head], at_ms: int) -> None:
    """Tie the heads that moved together with all that was before."""
    last = tx.one("SELECT number, hash FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
    number, previous = (last["number"] + 1, last["hash"]) if last else (1, GENESIS)
    action = tx.one("SELECT number, hash FROM operator_action WHERE number IS NOT NULL ORDER BY number DESC LIMIT 1")
    said = {
        "batches": {name: list(head) for name, head in sorted(moved.items())},
        "action": [action["number"], action["hash"]] if action else [],
    }
    heads = json.dumps(said, separators=(",", ":"), sort_keys=True)
    tx.run(
        "INSERT INTO audit_checkpoint (number, at_ms, heads, previous_hash, hash) VALUES (:number, :at_ms, :heads, :previous_hash, :hash)",
        number=number,
        at_ms=at_ms,
        heads=heads,
        previous_hash=previous,
        hash=checkpoint_hash(number, at_ms, heads, previous),
    )


def head(tx: Tx) -> str:
    """The hash of the last checkpoint: what somebody should write down elsewhere."""
    row = tx.one("SELECT hash FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
    return str(row["hash"]) if row else GENESIS


# --------------------------------------------------------------------------------------------------------------- operator actions


def record_action(tx: Tx, action_id: int, *, action: str, subject: str, reason: str, at_ms: int) -> None:
    """What a person did by command and why, as the next link of their chain. The only writer of operator_action."""
    # Two commands at once take their numbers one after the other.
    if tx.one("SELECT id FROM audit_run WHERE id = 1 {FOR_UPDATE}") is None:
        raise InvariantBroken("the row under which operator actions are numbered is gone")
    last = tx.one("SELECT number, hash FROM operator_action WHERE number IS NOT NULL ORDER BY number DESC LIMIT 1")
    number, previous = (last["number"] + 1, last["hash"]) if last else (1, GENESIS)
    row = {"id": action_id, "at_ms": at_ms, "action": action, "subject": subject, "reason": reason, "number": number}
    tx.run(
        "INSERT INTO operator_action (id, at_ms, action, subject, reason, number, previous_hash, hash) "
        "VALUES (:id, :at_ms, :action, :subject, :reason, :number, :previous_hash, :hash)",
        **row,
        previous_hash=previous,
        hash=_action_hash(row, previous),
    )


def _action_hash(row: Mapping[str, Any], previous: str) -> str:
    return _hash("action", [row["id"], row["at_ms"], row["action"], row["subject"], row["reason"], row["number"], previous])


def _check_actions(tx: Tx, report: Report) -> None:
    """I15: operator actions are one chain, as far as the checkpoints have seen it, and none stands outside of it."""
    number, previous, after = 0, GENESIS, 0
    hashes = {0: GENESIS}
    while page := tx.all("SELECT * FROM operator_action WHERE number > :after ORDER BY number LIMIT 1000", after=after):
        for row in page:
            if row["number"] != number + 1 or row["previous_hash"] != previous:
                report.add("I15", f"operator action {row['number']} does not follow action {number}")
            elif row["hash"] != _action_hash(row, previous):
                report.add("I15", f"operator action {row['number']} is not what it was when it was written")
            number, previous = row["number"], row["hash"]
            hashes[number] = previous
        after = page[-1]["number"]
    last: Row | None = tx.one("SELECT number, heads FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
    seen = _seen_action(last)
    if seen is not None and hashes.get(seen[0]) != seen[1]:
        report.add("I15", f"operator action {seen[0]} is another one than the last checkpoint has seen")
    began = tx.one("SELECT at_ms FROM schema_version WHERE number = 4")
    for row in tx.all(
        "SELECT id FROM operator_action WHERE number IS NULL AND at_ms > :began ORDER BY id LIMIT 100", began=began["at_ms"] if began else 0
    ):
        report.add("I15", f"operator action with id {row['id']} stands outside of the chain")


def _seen_action(last: Row | None) -> tuple[int, str] | None:
    try:
        number, link = json.loads(last["heads"])["action"] if last is not None else (0, GENESIS)
    except (KeyError, TypeError, ValueError):
        return None
    return int(number), str(link)


def _hash(domain: str, said: list[Any]) -> str:
    text = json.dumps([f"penstock {domain} 1", *said], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
