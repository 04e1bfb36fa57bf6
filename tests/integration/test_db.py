"""One suite for both databases: what the rooms may rely on, and how each of them fails."""

import asyncio
import contextlib
import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

import penstock
from penstock.core.errors import InvariantBroken, Problem, Refused
from penstock.core.order import Order
from penstock.db import (
    CommitUnknown,
    Conflict,
    DatabaseRefused,
    DatabaseUnavailable,
    base,
    open_database,
    postgresql,
)
from penstock.ledger.book import balances
from penstock.runtime import SystemRuntime
from penstock.sql import amount_columns, migrations, translate
from tests.fixtures.databases import postgres_server
from tests.fixtures.processes import wait_until
from tests.fixtures.proxy import proxied
from tests.fixtures.rooms import USDT, Rooms, units


class Power(BaseException):
    """The machine dies: nothing catches this."""


class Labelled(SystemRuntime):
    """Notes every crash point; `at` runs where its label is visited."""

    def __init__(self) -> None:
        super().__init__()
        self.visited = []
        self.at = {}

    def crash_point(self, label):
        self.visited.append(label)
        if label in self.at:
            self.at.pop(label)()


@contextlib.asynccontextmanager
async def opened(url, runtime=None):
    runtime = runtime or SystemRuntime()
    database = open_database(runtime, url)
    try:
        yield database
    finally:
        await database.close()
        runtime.close()


def scenario(url, body, runtime=None):
    async def run():
        async with opened(url, runtime) as database:
            await body(database)

    asyncio.run(run())


def put(tx, row_id, available=0, reserved=0, holder=None):
    return tx.run(
        "INSERT INTO balance (id, holder, coin_id, available, reserved, version) VALUES (:id, :holder, 'c', :available, :reserved, 0)",
        id=row_id,
        holder=holder or f"m:{row_id}",
        available=available,
        reserved=reserved,
    )


async def stored(database):
    return {row["id"]: row["available"] for row in await database.read(lambda tx: tx.all("SELECT id, available FROM balance"))}


BIG = [0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 + 1, 10 * 10**18, 10**77 - 1]


def test_amounts_beyond_64_bits_are_integers_in_rows_and_parameters(migrated_url):
    async def body(database):
        await database.write("put", lambda tx: [put(tx, n, available=amount) for n, amount in enumerate(BIG)])
        rows = await database.read(lambda tx: tx.all("SELECT available, reserved FROM balance ORDER BY id"))
        assert [row["available"] for row in rows] == BIG
        assert {type(value) for row in rows for value in row.values()} == {int}
        for n, amount in enumerate(BIG):
            found = await database.read(lambda tx, a=amount: tx.one("SELECT id FROM balance WHERE available = :available", available=a))
            assert found == {"id": n}

    scenario(migrated_url, body)


def test_amounts_in_a_list_of_rows_are_integers_with_their_sign_or_null(migrated_url):
    async def body(database):
        amounts = [*BIG, *(-amount for amount in BIG), None]
        rows = [{"line": line, "amount": amount} for line, amount in enumerate(amounts)]
        sql = "SELECT r.line, r.amount FROM {ROWS r(line {INT}, amount {AMOUNT})} ORDER BY r.line"
        assert await database.read(lambda tx: tx.all(sql, r=rows)) == rows
        await database.write(
            "put",
            lambda tx: tx.run(
                "INSERT INTO posting (entry_id, line, account, coin_id, amount) "
                "SELECT 1, r.line, 'a', 'c', r.amount FROM {ROWS r(line {INT}, amount {AMOUNT})} WHERE r.amount IS NOT NULL",
                r=rows,
            ),
        )
        assert await database.read(lambda tx: tx.all("SELECT line, amount FROM posting ORDER BY line")) == rows[:-1]

    scenario(migrated_url, body)


def test_new_rows_by_name_and_in_the_order_of_their_columns_are_the_same_rows(migrated_url):
    into = "probe(id {INT}, gas_paid {AMOUNT}, name TEXT)"
    named = [
        {"name": f'it\'s "{n}"', "id": n, "gas_paid": amount, "more": object()}
        for n, amount in enumerate([*BIG, *(-amount for amount in BIG), None])
    ]

    async def body(database):
        await database.write("make", lambda tx: tx.run("CREATE TABLE probe (id {INT}, gas_paid {AMOUNT}, name TEXT)"))
        await database.write("put", lambda tx: tx.insert(into, named))
        first = await database.read(lambda tx: tx.all("SELECT id, gas_paid, name FROM probe ORDER BY id"))
        await database.write("empty", lambda tx: tx.run("DELETE FROM probe"))
        await database.write("put", lambda tx: tx.insert(into, [(row["id"], row["gas_paid"], row["name"]) for row in named]))
        await database.write("put", lambda tx: tx.insert(into, []))
        assert await database.read(lambda tx: tx.all("SELECT id, gas_paid, name FROM probe ORDER BY id")) == first
        assert [(row["id"], row["gas_paid"], row["name"]) for row in first] == [(row["id"], row["gas_paid"], row["name"]) for row in named]

    scenario(migrated_url, body)


def test_however_many_new_rows_there_are_each_is_there_once_and_as_it_was_given(migrated_url):
    async def body(database):
        await database.write("make", lambda tx: tx.run("CREATE TABLE probe (id {INT} PRIMARY KEY, name TEXT)"))
        for count in (1, 2, 15, 16, 17, 31, 127, 128, 129, 300, 1000):
            rows = [(n, f"{count}-{n}") for n in range(count)]
            await database.write("put", lambda tx, rows=rows: tx.insert("probe(id {INT}, name TEXT)", rows))
            found = await database.read(lambda tx: tx.all("SELECT id, name FROM probe ORDER BY id"))
            assert [(row["id"], row["name"]) for row in found] == rows
            with pytest.raises(Conflict):  # the last of them is there already
                await database.write(
                    "put", lambda tx, n=count: tx.insert("probe(id {INT}, name TEXT)", [(2 * n - 1 - k, "x") for k in range(n + 1)])
                )
            assert await database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM probe")) == {"n": count}
            await database.write("empty", lambda tx: tx.run("DELETE FROM probe"))

    scenario(migrated_url, body)


def test_of_rows_that_are_given_an_amount_is_what_the_statement_declares_so_whatever_it_is_called(migrated_url):
    async def body(database):
        rows = [(n, amount, "no amount") for n, amount in enumerate([*BIG, None])]
        sql = "SELECT r.line, r.lacking AS amount, r.units AS name FROM {ROWS r(line {INT}, lacking {AMOUNT}, units TEXT)} ORDER BY r.line"
        found = await database.read(lambda tx: tx.all(sql, r=rows))
        assert [(row["line"], row["amount"], row["name"]) for row in found] == rows

    scenario(migrated_url, body)


def test_new_rows_of_several_tables_are_there_for_the_next_statement_and_refused_with_it_or_at_the_end(migrated_url):
    parent, child = "parent(id {INT}, name TEXT)", "child(id {INT}, parent_id {INT})"

    def family(tx, first):
        tx.insert(parent, [(first, "a"), (first + 1, "b")])
        tx.insert(child, [(first, first), (first + 1, first + 2)])  # of one that comes
        tx.insert(parent, [(first + 2, "c")])
        return [row["name"] for row in tx.all("SELECT name FROM child JOIN parent ON parent.id = parent_id ORDER BY child.id")]

    async def body(database):
        await database.write("make", lambda tx: tx.run("CREATE TABLE parent (id {INT} PRIMARY KEY, name TEXT)"))
        await database.write("make", lambda tx: tx.run("CREATE TABLE child (id {INT} PRIMARY KEY, parent_id {INT} NOT NULL)"))
        assert await database.write("family", lambda tx: family(tx, 1)) == ["a", "c"]
        for first in (0, 1, 2):
            with pytest.raises(Conflict):
                await database.write("again", lambda tx, first=first: family(tx, first))
            with pytest.raises(Conflict):
                await database.write("again", lambda tx, first=first: tx.insert(parent, [(9, "d"), (first or 3, "e")]))
        assert await database.read(lambda tx: tx.one("SELECT COUNT(*) AS many, MAX(id) AS last FROM parent")) == {"many": 3, "last": 3}

    scenario(migrated_url, body)


def test_rows_carry_any_text_and_any_64_bit_integer(migrated_url):
    texts = [
        "",
        " ",
        "it's",
        '"',
        "\\",
        "%",
        "%s",
        "%(x)s",
        ":x",
        "{ROWS}",
        "0012",
        "1e5",
        "null",
        "true",
        "é漢\U0001f4b8\u2028",
        "\n\t",
        "'; --",
    ]
    rows = [{"id": n, "name": text} for n, text in enumerate(texts)]
    rows += [{"id": 2**63 - 1, "name": None}, {"id": -(2**63), "name": "low"}]

    async def body(database):
        found = await database.read(lambda tx: tx.all("SELECT r.id, r.name FROM {ROWS r(id {INT}, name TEXT)}", r=rows))
        assert sorted(found, key=lambda row: row["id"]) == sorted(rows, key=lambda row: row["id"])
        assert await database.read(lambda tx: tx.all("SELECT r.id FROM {ROWS r(id {INT})}", r=[])) == []
        for row in rows:
            assert await database.read(lambda tx, t=row["name"]: tx.one("SELECT CAST(:t AS TEXT) AS t", t=t)) == {"t": row["name"]}

    scenario(migrated_url, body)


def test_statement_text_may_hold_percent_signs_colons_and_names_in_quotes(migrated_url):
    async def body(database):
        sql = "SELECT '100%' AS a, ':name' AS b, '12:30 :x it''s :y' AS c, '%s %(x)s' AS d, id FROM balance WHERE holder LIKE '%:1' AND id = :id"
        await database.write("put", lambda tx: put(tx, 1))
        row = await database.read(lambda tx: tx.one(sql, id=1))
        assert row == {"a": "100%", "b": ":name", "c": "12:30 :x it's :y", "d": "%s %(x)s", "id": 1}
        bare = await database.read(lambda tx: tx.one("SELECT 'm:1 %' AS a"))
        assert bare == {"a": "m:1 %"}

    scenario(migrated_url, body)


def test_a_cast_is_no_parameter():
    assert translate("SELECT :v::text, '::v', a::bigint", "postgresql") == "SELECT %(v)s::text, '::v', a::bigint"
    assert translate("SELECT :v, ':v'", "sqlite") == "SELECT :v, ':v'"


def test_a_list_of_keys_goes_to_an_index_of_postgresql_as_an_array():
    keys = "SELECT id FROM orders WHERE id {} (SELECT k.id FROM {{ROWS k(id {{INT}})}})"
    array = "ARRAY(SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(%(k)s AS jsonb)) AS listed)"
    assert translate(keys.format("IN"), "postgresql") == f"SELECT id FROM orders WHERE id = ANY({array})"
    assert "NOT IN (SELECT k.id FROM (SELECT" in translate(keys.format("NOT IN"), "postgresql")
    assert "IN (SELECT k.id FROM (SELECT value AS id FROM json_each(:k)" in translate(keys.format("IN"), "sqlite")


def test_tuples_of_several_types_in_a_list_are_refused_since_sqlite_looks_up_their_first_half_alone():
    tuples = "SELECT id FROM balance WHERE (holder, number) IN (SELECT k.holder, k.number FROM {{ROWS k(holder TEXT, number {})}})"
    assert translate(tuples.format("TEXT"), "sqlite")
    for dialect in ("sqlite", "postgresql"):
        with pytest.raises(ValueError, match="join these rows"):
            translate(tuples.format("{INT}"), dialect)


def test_a_table_whose_rows_change_often_is_filled_by_half_where_that_means_something():
    assert translate("{HALF_FULL orders}", "postgresql") == "ALTER TABLE orders SET (fillfactor = 50)"
    assert translate("{HALF_FULL orders}", "sqlite") == "SELECT 1"


@pytest.mark.parametrize("column", ["available", "reserved"])
def test_a_balance_below_zero_is_refused_by_the_schema(migrated_url, column):
    async def body(database):
        await database.write("put", lambda tx: put(tx, 1, 10**20, 10**20))
        with pytest.raises(Conflict):
            await database.write("put", lambda tx: put(tx, 2, **{column: -1}))
        with pytest.raises(Conflict):
            await database.write("put", lambda tx: put(tx, 2, **{column: -(10**30)}))
        with pytest.raises(Conflict):
            await database.write(
                "rows",
                lambda tx: tx.run(
                    f"UPDATE balance SET {column} = b.{column} FROM {{ROWS b(id {{INT}}, {column} {{AMOUNT}})}} WHERE balance.id = b.id",
                    b=[{"id": 1, column: -1}],
                ),
            )
        assert await stored(database) == {1: 10**20}

    scenario(migrated_url, body)


def test_every_kind_of_constraint_is_a_conflict_and_rolls_back_the_whole_job(migrated_url):
    bad = [
        lambda tx: put(tx, 1),  # primary key
        lambda tx: put(tx, 9, holder="m:1"),  # unique
        lambda tx: tx.run("INSERT INTO merchant_secret VALUES (1, 5, 'sealed', 0, NULL)"),  # foreign key
        lambda tx: tx.run("INSERT INTO balance (id, holder, coin_id, available, reserved) VALUES (9, 'x', 'c', '0', '0')"),  # not null
        lambda tx: tx.run("INSERT INTO account VALUES (12, 'e', 'n', 0)"),  # check
    ]

    async def body(database):
        await database.write("put", lambda tx: put(tx, 1))
        for break_it in bad:

            def job(tx, break_it=break_it):
                put(tx, 2)
                break_it(tx)

            with pytest.raises(Conflict):
                await database.write("bad", job)
            assert await stored(database) == {1: 0}

    scenario(migrated_url, body)


@pytest.mark.parametrize("error", [ValueError("mine"), Refused(Problem.NOT_FOUND, "mine"), Conflict("mine"), Power("mine")])
def test_whatever_a_job_raises_rolls_back_and_comes_out_as_it_is(migrated_url, error):
    async def body(database):
        def job(tx):
            put(tx, 1)
            raise error

        with pytest.raises(type(error)) as caught:
            await database.write("bad", job)
        assert caught.value is error
        assert await stored(database) == {}
        await database.write("good", lambda tx: put(tx, 1))
        assert await stored(database) == {1: 0}

    scenario(migrated_url, body)


def test_a_wrong_statement_is_an_error_of_ours_and_not_a_database_that_is_away(migrated_url):
    async def body(database):
        for sql in ("SELECT * FROM nowhere", "SELEKT 1", "SELECT nothing FROM balance"):
            with pytest.raises((sqlite3.OperationalError, psycopg.ProgrammingError)):
                await database.write("bad", lambda tx, sql=sql: tx.run(sql))
        await database.write("good", lambda tx: put(tx, 1))

    scenario(migrated_url, body)


def test_a_read_sees_one_snapshot(migrated_url):
    async def body(database):
        await database.write("put", lambda tx: put(tx, 1))
        writer = open_database(SystemRuntime(), migrated_url)

        def job(tx):
            first = tx.all("SELECT id FROM balance")
            writer._write("put", lambda other: put(other, 2))
            return first, tx.all("SELECT id FROM balance")

        first, second = await database.read(job)
        assert first == second == [{"id": 1}]
        assert set(await stored(database)) == {1, 2}
        writer._close()

    scenario(migrated_url, body)


def test_a_read_cannot_write(migrated_url):
    async def body(database):
        with pytest.raises((sqlite3.OperationalError, psycopg.Error)):
            await database.read(lambda tx: put(tx, 1))
        assert await stored(database) == {}
        await database.write("put", lambda tx: put(tx, 1))
        assert await stored(database) == {1: 0}

    scenario(migrated_url, body)


def test_what_a_read_raises_comes_out_and_the_next_read_works(migrated_url):
    async def body(database):
        def job(tx):
            raise KeyError("mine")

        for _ in range(12):
            with pytest.raises(KeyError):
                await database.read(job)
        assert await stored(database) == {}

    scenario(migrated_url, body)


def test_a_write_visits_its_label_before_and_after_the_commit_and_a_read_visits_none(migrated_url):
    runtime = Labelled()

    async def body(database):
        await database.write("one", lambda tx: put(tx, 1))
        await stored(database)
        with pytest.raises(Conflict):
            await database.write("two", lambda tx: put(tx, 1))
        assert runtime.visited == ["one:before", "one:after"]

    scenario(migrated_url, body, runtime)


@pytest.mark.parametrize(("label", "kept"), [("put:before", {}), ("put:after", {1: 0})])
def test_a_crash_before_the_commit_loses_it_and_after_it_keeps_it(migrated_url, label, kept):
    runtime = Labelled()

    def die():
        raise Power

    runtime.at[label] = die

    async def body(database):
        with pytest.raises(Power):
            await database.write("put", lambda tx: put(tx, 1))

    scenario(migrated_url, body, runtime)

    async def after(database):
        assert await stored(database) == kept

    scenario(migrated_url, after)


def test_writers_side_by_side_lose_no_update(migrated_url):
    async def body(database):
        await database.write("put", lambda tx: put(tx, 1))

        def job(tx):
            row = tx.one("SELECT available FROM balance WHERE id = 1 {FOR_UPDATE}")
            tx.run("UPDATE balance SET available = :available WHERE id = 1", available=row["available"] + 10**19)

        async with opened(migrated_url) as other:
            await asyncio.gather(*(d.write("add", job) for d in (database, other) for _ in range(30)))
        assert await stored(database) == {1: 60 * 10**19}

    scenario(migrated_url, body)


# Migrations


def test_migrations_are_applied_once(database_url):
    names = [name for _, name, _ in migrations()]

    async def body(database):
        assert await database.pending_migrations() == names
        assert await database.migrate() == names
        assert await database.pending_migrations() == []
        assert await database.migrate() == []
        rows = await database.read(lambda tx: tx.all("SELECT name FROM schema_version ORDER BY number"))
        assert [row["name"] for row in rows] == names

    scenario(database_url, body)


MIGRATOR = """
import asyncio, sys
from penstock.db import open_database
from penstock.runtime import SystemRuntime
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    runtime = SystemRuntime()
    database = open_database(runtime, sys.argv[1])
    print(*await database.migrate(), flush=True)
    await database.close()
    runtime.close()
asyncio.run(main())
"""


def test_processes_that_migrate_at_once_apply_each_migration_once(database_url):
    env = {**os.environ, "PYTHONPATH": str(Path(penstock.__file__).parent.parent)}
    command = [sys.executable, "-c", MIGRATOR, database_url]
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env))
            for _ in range(4)
        ]
        for racer in racers:
            assert racer.stdout.readline() == b"ready\n"
        for racer in racers:
            racer.stdin.write(b"go\n")
            racer.stdin.flush()
        ends = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, ends
    applied = Counter(name for out, _ in ends for name in out.decode().split())
    assert applied == dict.fromkeys((name for _, name, _ in migrations()), 1)


def test_a_migration_that_fails_half_way_leaves_nothing_of_itself(database_url, monkeypatch):
    amount_columns()  # what the real migrations declare, before they are replaced
    table = "CREATE TABLE {} (id {{INT}} PRIMARY KEY) {{STRICT}}"
    broken = [(1, "0001_good.sql", table.format("one")), (2, "0002_bad.sql", f"{table.format('two')}; {table.format('two')}")]
    monkeypatch.setattr(base, "migrations", lambda: broken)

    async def body(database):
        with pytest.raises((DatabaseUnavailable, psycopg.Error, sqlite3.Error)):
            await database.migrate()
        assert await database.pending_migrations() == ["0002_bad.sql"]
        assert await database.read(lambda tx: tx.all("SELECT id FROM one")) == []
        with pytest.raises((psycopg.Error, sqlite3.Error)):
            await database.read(lambda tx: tx.all("SELECT id FROM two"))
        broken[1] = (2, "0002_mended.sql", table.format("two"))
        assert await database.migrate() == ["0002_mended.sql"]

    scenario(database_url, body)


def written_schema():
    """Table -> column -> (type word, may be null), as the migrations say it."""
    text = re.sub(r"--[^\n]*", "", ";".join(text for _, _, text in migrations()))
    schema = {}
    for table, inner in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\) \{STRICT\}", text, re.DOTALL):
        lines = [line.strip() for line in inner.splitlines() if re.match(r"\s+[a-z]", line)]
        schema[table] = {line.split()[0]: (line.split()[1].rstrip(","), not re.search("NOT NULL|PRIMARY KEY", line)) for line in lines}
        for key in re.findall(r"^\s+PRIMARY KEY \(([^)]*)\)", inner, re.MULTILINE):
            schema[table] |= {column: (schema[table][column][0], False) for column in key.split(", ")}
    for table, column, word, rest in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+) (\S+)([^;]*)", text):
        schema[table][column] = (word, "NOT NULL" not in rest)
    schema["schema_version"] = {"number": ("{INT}", False), "name": ("TEXT", False), "at_ms": ("{INT}", False)}
    return schema, set(re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)", text))


def found_schema(tx):
    columns, indexes = {}, set()
    if tx.dialect == "sqlite":
        words = {"INTEGER": {"{INT}"}, "TEXT": {"TEXT", "{AMOUNT}"}, "BLOB": {"{BYTES}"}}
        for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'table'"):
            listed = tx.all("SELECT * FROM pragma_table_info(:t)", t=row["name"])
            columns[row["name"]] = {c["name"]: (words[c["type"]], not c["notnull"] and not c["pk"]) for c in listed}
            strict = tx.one("SELECT strict FROM pragma_table_list(:t)", t=row["name"])
            assert strict == {"strict": 1}
        indexes = {row["name"] for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}
    else:
        words = {"bigint": {"{INT}"}, "text": {"TEXT"}, "numeric(78,0)": {"{AMOUNT}"}, "bytea": {"{BYTES}"}}
        listed = tx.all(
            "SELECT c.relname AS t, a.attname AS c, format_type(a.atttypid, a.atttypmod) AS kind, a.attnotnull AS needed "
            "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY c.relname, a.attnum"
        )
        for row in listed:
            columns.setdefault(row["t"], {})[row["c"]] = (words[row["kind"]], not row["needed"])
        indexes = {row["i"] for row in tx.all("SELECT indexname AS i FROM pg_indexes WHERE schemaname = 'public'")}
    return columns, indexes


def test_a_fresh_schema_is_what_the_migrations_say_in_the_words_of_each_database(migrated_url):
    tables, indexes = written_schema()

    async def body(database):
        found_tables, found_indexes = await database.read(found_schema)
        assert {t: list(columns) for t, columns in found_tables.items()} == {t: list(columns) for t, columns in tables.items()}
        for table, columns in tables.items():
            for name, (word, nullable) in columns.items():
                words, found_nullable = found_tables[table][name]
                assert (word in words, found_nullable) == (True, nullable), f"{table}.{name}"
        assert indexes <= found_indexes

    scenario(migrated_url, body)


ROWS_THAT_STAY = {
    "entry": {"id": 1, "batch_id": 1, "ref_kind": "x", "ref_id": "x", "posting_kind": "x", "note": "", "at_ms": 1},
    "posting": {"entry_id": 1, "line": 0, "account": "x", "coin_id": "x", "amount": 1},
    "batch": {"id": 1, "committer": "x", "number": 1, "previous_hash": "", "hash": "", "at_ms": 1},
    "order_history": {"id": 1, "order_id": 1, "at_ms": 1, "before": "", "after": "", "reason": ""},
    "operator_action": {"id": 1, "at_ms": 1, "action": "", "subject": "", "reason": ""},
    "audit_checkpoint": {"number": 1, "at_ms": 1, "heads": "", "previous_hash": "", "hash": ""},
}


@pytest.mark.parametrize("table", ROWS_THAT_STAY)
def test_what_was_booked_or_decided_is_edited_by_nobody(migrated_url, table):
    row = ROWS_THAT_STAY[table]

    async def body(database):
        names = ", ".join(row)
        insert = f"INSERT INTO {table} ({names}) VALUES ({', '.join(':' + name for name in row)})"
        await database.write("book", lambda tx: tx.run(insert, **row))
        column = list(row)[-1]
        statements = [f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"]
        for sql in statements + [f"TRUNCATE {table}"] * (database.dialect == "postgresql"):
            with pytest.raises(Conflict, match=f"{table} is append-only"):
                await database.write("edit", lambda tx, sql=sql: tx.run(sql))
        assert len(await database.read(lambda tx: tx.all(f"SELECT * FROM {table}"))) == 1

    scenario(migrated_url, body)


def test_every_amount_in_the_schema_is_known_by_name():
    declared = {name for columns in written_schema()[0].values() for name, (word, _) in columns.items() if word == "{AMOUNT}"}
    assert declared == amount_columns()
    other = {name for columns in written_schema()[0].values() for name, (word, _) in columns.items() if word != "{AMOUNT}"}
    assert not declared & other


# What money may not be kept in


def refused(url, match, error=DatabaseRefused):
    runtime = SystemRuntime()
    with pytest.raises(error, match=match):
        open_database(runtime, url)
    runtime.close()


@pytest.mark.parametrize("url", ["", "penstock.db", "mysql://a/b", "sqlite:penstock.db", "http://a/b"])
def test_a_url_of_another_kind_is_refused_and_told_what_would_be_right(url):
    refused(url, "begins with sqlite:/// or postgresql://")


def test_sqlite_without_a_write_ahead_log_is_refused():
    refused("sqlite:///:memory:", "journal mode 'memory'; only WAL")


def test_sqlite_that_does_not_sync_is_refused(tmp_path, monkeypatch):
    class Lazy(sqlite3.Connection):
        def execute(self, sql, *rest):
            return super().execute(sql.replace("synchronous = FULL", "synchronous = NORMAL"), *rest)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "factory": Lazy}))
    refused(f"sqlite:///{tmp_path / 'db'}", "synchronous=1; FULL")


def locked():
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@pytest.mark.parametrize(("times", "opens"), [(1, True), (7, True), (100, False)])
def test_sqlite_that_another_process_opens_at_the_same_moment_is_waited_for(tmp_path, monkeypatch, times, opens):
    left = [times]

    class Busy(sqlite3.Connection):
        def execute(self, sql, *rest):
            if "journal_mode" in sql and left[0]:
                left[0] -= 1
                raise locked()
            return super().execute(sql, *rest)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "factory": Busy}))
    if opens:
        scenario(f"sqlite:///{tmp_path / 'db'}", lambda database: database.migrate())
    else:
        refused(f"sqlite:///{tmp_path / 'db'}", "still locked by another process")


def test_sqlite_that_is_too_old_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    refused(f"sqlite:///{tmp_path / 'db'}", "too old")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "db").write_text("this is not a database, it is a letter to the auditor. " * 40)
    refused(f"sqlite:///{tmp_path / 'db'}", "not a database")


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    refused(f"sqlite:///{tmp_path / 'missing' / 'db'}", "unable to open", DatabaseUnavailable)


def test_a_disk_that_is_full_is_named_as_such(tmp_path):
    def fill(tx):
        tx.run("PRAGMA max_page_count = 1")
        tx.run("CREATE TABLE filler (content TEXT)")
        tx.run("INSERT INTO filler VALUES (:content)", content="x" * 1_000_000)

    with pytest.raises(DatabaseUnavailable, match="is there room on it"):
        scenario(f"sqlite:///{tmp_path / 'db'}", lambda database: database.write("fill", fill))


@pytest.mark.parametrize("password", ["se cret", "se@cret", "se/cret", "se%zzcret"])
def test_a_password_that_is_not_encoded_is_refused_and_no_part_of_it_is_named(password):
    """It ended in a traceback with a part of the password, or in a host of that name that could not be found."""
    runtime = SystemRuntime()
    with pytest.raises(DatabaseRefused, match="%40 for @") as caught:
        open_database(runtime, f"postgresql://penstock:{password}@127.0.0.1:1/penstock")
    runtime.close()
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "se" not in str(caught.value).replace("password", "").replace("user", "")


def test_a_server_that_is_not_there_is_unavailable():
    refused(
        "postgresql://penstock:secret@127.0.0.1:1/penstock", r"^PostgreSQL does not answer(?!.*secret).*127\.0\.0\.1", DatabaseUnavailable
    )


def with_option(url, setting, value):
    return f"{url}{'&' if urlsplit(url).query else '?'}options=-c%20{setting}%3D{value}"


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_postgresql_that_does_not_wait_for_the_disk_is_refused(postgres_database, value):
    refused(with_option(postgres_database, "synchronous_commit", value), f"synchronous_commit={value}; it must be on")


def test_postgresql_that_waits_for_its_standby_is_taken(postgres_database):
    scenario(
        with_option(postgres_database, "synchronous_commit", "remote_apply"),
        lambda database: database.read(lambda tx: tx.one("SELECT 1 AS n")),
    )


def test_postgresql_that_does_not_sync_or_tears_pages_is_refused():
    with postgres_server() as server, psycopg.connect(server.url, autocommit=True) as admin:

        def shown(setting):
            with psycopg.connect(server.url) as connection:
                return connection.execute(f"SHOW {setting}").fetchone()[0]

        for setting in ("fsync", "full_page_writes"):
            admin.execute(f"ALTER SYSTEM SET {setting} = off")
            admin.execute("SELECT pg_reload_conf()")
            wait_until(lambda setting=setting: shown(setting) == "off" or None, process=server.process, log=server.log)
            refused(server.url, f"{setting}=off; it must be on")
            admin.execute(f"ALTER SYSTEM RESET {setting}")


# How SQLite fails


@pytest.fixture
def sqlite_url(sqlite_template, tmp_path):
    copy = tmp_path / "penstock.sqlite3"
    copy.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{copy}"


def test_a_lock_that_somebody_holds_too_long_is_unavailable_and_changes_nothing(sqlite_url):
    async def body(database):
        database._writer.execute("PRAGMA busy_timeout = 0")
        with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match="locked"):
                await database.write("put", lambda tx: put(tx, 1))
            holder.execute("ROLLBACK")
        await database.write("put", lambda tx: put(tx, 1))
        assert await stored(database) == {1: 0}

    scenario(sqlite_url, body)


def test_a_file_at_which_writers_take_turns_that_is_none_is_refused(sqlite_url):
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.with_name(f"{path.name}-turn").symlink_to(path)
    refused(sqlite_url, "-turn: Too many levels of symbolic links")


HOLDER = """
import asyncio, sys
from penstock.db import open_database
from penstock.runtime import SystemRuntime

def job(tx):
    tx.run("UPDATE balance SET available = '7' WHERE id = 1")
    print("inside", flush=True)
    sys.stdin.read()

asyncio.run(open_database(SystemRuntime(), sys.argv[1]).write("hold", job))
"""


def test_writers_of_several_processes_take_turns_and_one_that_is_killed_in_its_own_leaves_the_next_one_well(sqlite_url):
    turn = os.open(f"{sqlite_url.removeprefix('sqlite:///')}-turn", os.O_RDONLY | os.O_CREAT)

    def is_taken():
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(turn, fcntl.LOCK_UN)
        return False

    async def body(database):
        database._writer.execute("PRAGMA busy_timeout = 0")  # SQLite itself does not wait
        await database.write("put", lambda tx: put(tx, 1))
        assert not is_taken()
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", HOLDER, sqlite_url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
            assert await asyncio.to_thread(holder.stdout.readline) == b"inside\n"
            assert is_taken()
            waiting = asyncio.create_task(database.write("next", lambda tx: put(tx, 2)))
            assert await stored(database) == {1: 0}, "who reads waits for nobody"
            assert not waiting.done()
            holder.kill()
            async with asyncio.timeout(20):
                await waiting
        assert await stored(database) == {1: 0, 2: 0}
        with pytest.raises(Conflict):
            await database.write("put", lambda tx: put(tx, 2))
        assert not is_taken(), "a transaction that fails gives its turn back"

    try:
        scenario(sqlite_url, body)
    finally:
        os.close(turn)


def test_a_full_disk_rolls_back_and_when_there_is_room_again_it_goes_on(sqlite_url):
    async def body(database):
        pages = database._writer.execute("PRAGMA page_count").fetchone()["page_count"]
        database._writer.execute(f"PRAGMA max_page_count = {pages}")

        def job(tx):
            for n in range(1, 2_000):
                put(tx, n)

        with pytest.raises(DatabaseUnavailable, match="full"):
            await database.write("put", job)
        assert await stored(database) == {}
        database._writer.execute("PRAGMA max_page_count = 1000000")
        await database.write("put", job)
        assert len(await stored(database)) == 1_999

    scenario(sqlite_url, body)


# How PostgreSQL fails


def kill_others(url):
    """End every other connection to this database, and wait until they are gone."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}")
        assert admin.execute(f"SELECT count(*) {others}").fetchone() == (0,)


def test_a_connection_killed_during_a_job_is_unavailable_and_the_next_write_connects_again(postgres_migrated):
    async def body(database):
        def job(tx):
            put(tx, 1)
            kill_others(postgres_migrated)
            put(tx, 2)

        with pytest.raises(DatabaseUnavailable):
            await database.write("put", job)
        assert await stored(database) == {}
        await database.write("put", lambda tx: put(tx, 3))
        assert await stored(database) == {3: 0}

    scenario(postgres_migrated, body)


def test_a_connection_killed_during_a_read_is_unavailable_and_the_next_read_connects_again(postgres_migrated):
    async def body(database):
        def job(tx):
            kill_others(postgres_migrated)
            return tx.all("SELECT id FROM balance")

        with pytest.raises(DatabaseUnavailable):
            await database.read(job)
        assert await stored(database) == {}

    scenario(postgres_migrated, body)


def test_connections_killed_while_idle_are_replaced_without_anybody_noticing(postgres_migrated):
    async def body(database):
        barrier = threading.Barrier(6)
        await asyncio.gather(*(database.write("warm", lambda _: barrier.wait(10)) for _ in range(6)))
        kill_others(postgres_migrated)
        await database.write("put", lambda tx: put(tx, 1))
        kill_others(postgres_migrated)
        assert await stored(database) == {1: 0}

    scenario(postgres_migrated, body)


def test_a_process_that_stops_in_a_transaction_keeps_its_locks_for_seconds_and_not_for_ever(postgres_migrated, monkeypatch):
    monkeypatch.setitem(postgresql._SESSION, "idle_in_transaction_session_timeout", "300ms")
    stopped, let_go = threading.Event(), threading.Event()

    def holds(tx):
        tx.one("SELECT id FROM balance WHERE id = 1 {FOR_UPDATE}")
        stopped.set()
        let_go.wait(20)
        tx.run("UPDATE balance SET available = 9 WHERE id = 1")

    async def body(database):
        await database.write("put", lambda tx: put(tx, 1))
        holder = asyncio.create_task(database.write("holder", holds))
        await asyncio.to_thread(stopped.wait, 10)
        async with asyncio.timeout(10):
            await database.write("other", lambda tx: tx.run("UPDATE balance SET available = 1 WHERE id = 1"))
        let_go.set()
        with pytest.raises(DatabaseUnavailable):
            await holder
        assert await stored(database) == {1: 1}

    scenario(postgres_migrated, body)


def test_a_read_may_think_longer_than_a_write_may_wait(postgres_migrated, monkeypatch):
    monkeypatch.setitem(postgresql._SESSION, "idle_in_transaction_session_timeout", "100ms")

    def job(tx):
        threading.Event().wait(0.4)
        return tx.all("SELECT id FROM balance")

    async def body(database):
        assert await database.read(job) == []

    scenario(postgres_migrated, body)


def test_two_jobs_that_deadlock_are_both_done(postgres_migrated):
    meet = threading.Barrier(2)
    runs = Counter()

    def crossing(first, second):
        def job(tx):
            runs[first] += 1
            for n in (first, second):
                row = tx.one("SELECT available FROM balance WHERE id = :id {FOR_UPDATE}", id=n)
                tx.run("UPDATE balance SET available = :available WHERE id = :id", available=row["available"] + 1, id=n)
                if n == first and runs[first] == 1:
                    meet.wait(10)

        return job

    async def body(database):
        await database.write("put", lambda tx: [put(tx, n) for n in (1, 2)])
        await asyncio.gather(database.write("a", crossing(1, 2)), database.write("b", crossing(2, 1)))
        assert await stored(database) == {1: 2, 2: 2}
        assert sum(runs.values()) >= 3

    scenario(postgres_migrated, body)


def test_conflicts_without_end_are_given_up_as_unavailable(postgres_migrated):
    runs = []

    def job(tx):
        runs.append(put(tx, 1))
        raise psycopg.errors.SerializationFailure("again")

    async def body(database):
        with pytest.raises(DatabaseUnavailable, match="put: 8 conflicts in a row"):
            await database.write("put", job)
        assert len(runs) == 8
        assert await stored(database) == {}

    scenario(postgres_migrated, body)


def test_a_job_that_goes_on_after_an_error_is_not_taken_for_committed(postgres_migrated):
    def job(tx):
        put(tx, 1)
        with contextlib.suppress(psycopg.Error):
            put(tx, 1)
        return "done"

    async def body(database):
        with pytest.raises(InvariantBroken, match="after an error"):
            await database.write("put", job)
        assert await stored(database) == {}
        await database.write("put", lambda tx: put(tx, 1))

    scenario(postgres_migrated, body)


@pytest.mark.parametrize(("what", "kept"), [("message", {}), ("answer", {1: 0})])
def test_a_commit_lost_on_the_wire_is_unknown_whether_or_not_it_happened(postgres_migrated, what, kept):
    runtime = Labelled()

    async def body(database):
        runtime.at["put:before"] = lambda: proxy.lose(what)
        with pytest.raises(CommitUnknown):
            await database.write("put", lambda tx: put(tx, 1))
        assert proxy.lost == 1
        assert runtime.visited == ["put:before"]
        await database.write("next", lambda tx: put(tx, 2))
        assert await stored(database) == {**kept, 2: 0}

    with proxied(postgres_migrated) as (url, proxy):
        scenario(url, body, runtime)


@pytest.mark.parametrize("what", ["message", "answer"])
def test_after_a_commit_lost_on_the_wire_the_intake_finds_its_own_orders(postgres_migrated, what):
    runtime = Labelled()

    async def body(database):
        r = Rooms(database, runtime)
        await r.credit("m:1", "10")
        runtime.at["intake:before"] = lambda: proxy.lose(what)
        drafts = [r.draft("a", "3", recipient=""), r.draft("a", "3", recipient=""), r.draft("b", "2"), r.draft("c", "6", recipient="")]
        drafts.append(r.draft("a", "4", recipient=""))
        answers = await r.submit_all(drafts)
        assert proxy.lost == 1
        assert [a.id for a in answers[:3]] == [drafts[0].wish.id, drafts[0].wish.id, drafts[2].wish.id]
        assert [a.problem for a in answers[3:]] == [Problem.BALANCE_INSUFFICIENT, Problem.ORDER_DUPLICATE]
        assert await balances(database, "m:1") == {USDT: (units("5"), units("3"))}
        report = await r.audit()
        assert (report.breaches, report.counts["orders"]) == ([], 2)
        again = Rooms(database, runtime, worker=2)
        assert (await again.submit_all([again.draft("a", "3", recipient="")]))[0].id == answers[0].id

    with proxied(postgres_migrated) as (url, proxy):
        scenario(url, body, runtime)


def test_a_connection_that_breaks_during_the_batch_costs_nobody_an_answer(postgres_migrated):
    runtime = Labelled()

    async def body(database):
        r = Rooms(database, runtime)
        await r.credit("m:1", "10")
        runtime.at["intake:before"] = lambda: kill_others(postgres_migrated)
        answers = await r.submit_all([r.draft(f"o{n}", recipient="") for n in range(5)])
        assert all(isinstance(a, Order) for a in answers)
        assert await balances(database, "m:1") == {USDT: (units("5"), units("5"))}
        assert (await r.audit()).breaches == []

    scenario(postgres_migrated, body, runtime)
