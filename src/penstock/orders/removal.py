"""Takes out of the tables what a recorded archive has: each step one transaction, which may run again after any crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from penstock.core.errors import InvariantBroken
from penstock.db import Tx
from penstock.ledger import archive as archives
from penstock.ledger import archive_lines
from penstock.ledger.archive_lines import same

KINDS: Final = ("order", "attempt", "event", "batch")
"""In the order of the lines of a file: entries of orders and attempts go with these, batches when they are empty."""
_IDS: Final = "(SELECT k.id FROM {ROWS k(id {INT})})"
_OF_OTHERS: Final = ("order", "decision", "attempt")

Said = Mapping[str, Any]


def remove(tx: Tx, *, kind: str, archive: int, lines: Sequence[Said]) -> int:
    """What these lines of one kind say. Returns how many stay, because the tables say something else by now."""
    match kind:
        case "order":
            return _orders(tx, archive, lines)
        case "attempt":
            return _attempts(tx, archive, lines)
        case "event":
            return _events(tx, lines)
        case _:
            return _entries_of_batches(tx, lines)


def _orders(tx: Tx, archive: int, lines: Sequence[Said]) -> int:
    keys = _keys(line["id"] for line in lines)
    # Their rows stay, so that a repeat is answered as ever.
    rows = tx.all(f"SELECT id FROM orders WHERE archive IS NULL AND id IN {_IDS} ORDER BY id {{FOR_UPDATE}}", k=keys)
    here = [row["id"] for row in rows]
    have = {line["order"]["id"]: line["order"] for line in archive_lines.of_orders(tx, here)}
    go = [line for line in lines if line["id"] in have and same(_but_event(line), have[line["id"]])]
    gone = _keys(line["id"] for line in go)
    tx.run(f"UPDATE orders SET archive = :archive WHERE id IN {_IDS}", k=gone, archive=archive)
    tx.run(f"DELETE FROM order_history WHERE order_id IN {_IDS}", k=gone)
    archives.delete_entries(tx, (entry for line in go for entry in (*line["entries"], *line["decisions"])))
    return len(here) - len(go)


def _but_event(line: Said) -> Said:
    """An event can be sent again; it has a line of its own."""
    return {name: value for name, value in line.items() if name != "events"}


def _attempts(tx: Tx, archive: int, lines: Sequence[Said]) -> int:
    keys = _keys(line["id"] for line in lines)
    # Their rows and what they own stay: nothing of it is ever used again.
    rows = tx.all(f"SELECT id FROM attempt WHERE archive IS NULL AND id IN {_IDS} ORDER BY id {{FOR_UPDATE}}", k=keys)
    here = [row["id"] for row in rows]
    open_ones = tx.all(
        "SELECT DISTINCT attempt_id FROM attempt_order JOIN orders ON orders.id = attempt_order.order_id "
        f"WHERE orders.archive IS NULL AND attempt_id IN {_IDS}",
        k=keys,
    )
    stay = {row["attempt_id"] for row in open_ones}
    have = {line["attempt"]["id"]: line["attempt"] for line in archive_lines.of_attempts(tx, here)}
    go = [line for line in lines if line["id"] in have and line["id"] not in stay and same(line, have[line["id"]])]
    gone = _keys(line["id"] for line in go)
    tx.run(f"UPDATE attempt SET archive = :archive WHERE id IN {_IDS}", k=gone, archive=archive)
    tx.run(f"DELETE FROM version_order WHERE version_id IN {_IDS}", k=_keys(v["id"] for line in go for v in line["versions"]))
    tx.run(f"DELETE FROM version WHERE attempt_id IN {_IDS}", k=gone)
    archives.delete_entries(tx, (entry for line in go for entry in line["entries"]))
    return len(here) - len(go)


def _events(tx: Tx, lines: Sequence[Said]) -> int:
    keys = _keys(line["id"] for line in lines)
    rows = tx.all(
        "SELECT outbox.id, outbox.order_id FROM outbox JOIN orders ON orders.id = outbox.order_id WHERE orders.archive IS NOT NULL "
        f"AND outbox.id IN {_IDS} ORDER BY outbox.id",
        k=keys,
    )
    if rows:
        # A resend waits until we have looked, or we for it.
        tx.all(f"SELECT id FROM outbox WHERE id IN {_IDS} ORDER BY id {{FOR_UPDATE}}", k=_keys(row["id"] for row in rows))
    have = {line["event"]["id"]: line["event"] for line in archive_lines.of_events(tx, [row["order_id"] for row in rows])}
    gone = _keys(line["id"] for line in lines if line["id"] in have and same(line, have[line["id"]]))
    tx.run(f"DELETE FROM webhook_send WHERE outbox_id IN {_IDS}", k=gone)
    tx.run(f"DELETE FROM outbox WHERE id IN {_IDS}", k=gone)
    left = tx.one(f"SELECT COUNT(*) AS n FROM outbox WHERE id IN {_IDS}", k=keys)
    return int(left["n"]) if left is not None else 0


def _entries_of_batches(tx: Tx, lines: Sequence[Said]) -> int:
    """Entries that belong to no order or attempt. Raises InvariantBroken where one is not what the archive has."""
    told = {entry["id"]: entry for line in lines for entry in line["entries"] if entry["ref_kind"] not in _OF_OTHERS}
    have = tx.all(f"SELECT * FROM entry WHERE id IN {_IDS}", k=_keys(told))
    postings = tx.all(
        f"SELECT entry_id, line, account, coin_id, amount FROM posting WHERE entry_id IN {_IDS} ORDER BY entry_id, line", k=_keys(told)
    )
    for entry in have:
        if not same(told[entry["id"]], {**entry, "lines": [line for line in postings if line["entry_id"] == entry["id"]]}):
            raise InvariantBroken(f"entry {entry['id']} is not what it was when it was archived")
    archives.delete_entries(tx, have)
    return 0


def _keys(ids: Iterable[int]) -> list[dict[str, int]]:
    return [{"id": row_id} for row_id in ids]
