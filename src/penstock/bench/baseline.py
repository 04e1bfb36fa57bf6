"""The baseline: pgbench on the same PostgreSQL, one transaction an order, writing the same rows under the same indexes, prepared."""

from __future__ import annotations

import contextlib
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ACCOUNTS_MAX: Final = 1_000

# Seven statements: what a straightforward service does for one order, in the product's own schema. pgbench ends a statement at its
# semicolon, and a \\set at the end of its line.
SCRIPT: Final = r"""
\set account random(1, :accounts)
\set id random(1, 9000000000000000000)
BEGIN;
INSERT INTO order_key (merchant_id, merchant_order_id, fingerprint, order_id, created_at_ms)
  VALUES (:account, 'o' || CAST(:id AS text), 'v1:0000000000000000000000000000000000000000000000000000000000000000', :id, 1790000000000);
UPDATE balance SET available = available - 25, reserved = reserved + 25, version = version + 1 WHERE id = :account AND available >= 25
  RETURNING available;
INSERT INTO orders (id, record_id, merchant_id, merchant_order_id, payer, recipient, address, destination, memo, token_id, coin_id, crypto, chain,
    contract, merchant_pays_fee, value, fee, net, reserve, fee_usd, token_rate, native_rate, gas_quoted, state, wire, hold_reason,
    fail_reason, txid, decided_at_ms, due_at_ms, lease, lease_until_ms, seal)
  VALUES (:id, :id, :account, 'o' || CAST(:id AS text), 'm:' || CAST(:account AS text), '', '0x70997970c51812dc3a010c7d01b50e0d17dc79c8',
    '0x70997970C51812dc3A010C7d01b50e0d17dc79C8', '', '264f4725-3cfd-4ff6-bc80-ff9d799d5fb2', '8e5741cf-6e51-4892-9d04-3d40e1dd0128', 'USDT', 'ETH',
    '0xdAC17F958D2ee523a2206206994597C13D831ec7', 0, 25, 1, 24, 25, '0.07', '1', '3000', 21000, 'accepted', 0, '', '', '', NULL, 1790000000000, '', 0,
    '0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO entry (id, batch_id, ref_kind, ref_id, posting_kind, chain, block, note, at_ms, covers)
  VALUES (:id, 1, 'order', CAST(:id AS text), 'reserve', NULL, NULL, '', 1790000000000,
    '0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO posting (entry_id, line, account, coin_id, amount) VALUES
  (:id, 0, 'm:' || CAST(:account AS text) || E'\x3aavailable', '8e5741cf-6e51-4892-9d04-3d40e1dd0128', -25),
  (:id, 1, 'm:' || CAST(:account AS text) || E'\x3areserved', '8e5741cf-6e51-4892-9d04-3d40e1dd0128', 25);
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Orders a second with so many clients over so many accounts."""

    clients: int
    accounts: int
    per_second: float


@contextlib.contextmanager
def own_database(server: str) -> Iterator[str]:
    """The URL of an empty database on the server, dropped at the end; its user may create databases."""
    name, parts = f"penstock_bench_{uuid.uuid4().hex[:12]}", urlsplit(server)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield parts._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(drop)


def prepare(url: str) -> None:
    """Accounts with money in a database that has the product's schema."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            "INSERT INTO balance (id, holder, coin_id, available, reserved, version) "
            "SELECT n, 'm:' || n, '8e5741cf-6e51-4892-9d04-3d40e1dd0128', 1000000000000000000000000, 0, 0 FROM generate_series(1, %s) AS n",
            (ACCOUNTS_MAX,),
        )


def measure(pgbench: Path, url: str, folder: Path, *, clients: int, accounts: int, seconds: int) -> Baseline:
    """One run. Raises ChildProcessError with what pgbench said when it failed."""
    script = folder / "order.sql"
    script.write_text(SCRIPT, "utf-8")
    parts = urlsplit(url)
    done = subprocess.run(  # noqa: S603  the pgbench that was named
        [
            pgbench,
            *("--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={min(2, clients)}", f"--time={seconds}"),
            *(f"--define=accounts={accounts}", f"--file={script}", f"--host={parts.hostname}", f"--port={parts.port}"),
            *(f"--username={parts.username}", parts.path.removeprefix("/")),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={"PGPASSWORD": parts.password or "", "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise ChildProcessError(f"pgbench ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        # On a machine so busy that the time was over before the first transaction pgbench names no rate.
        return measure(pgbench, url, folder, clients=clients, accounts=accounts, seconds=2 * seconds)
    return Baseline(clients, accounts, round(float(found[1]), 1))
