"""One SQL text for SQLite and PostgreSQL: the words in which they differ, the migrations, and which columns are amounts.

Words the text may use, replaced once per statement:

    {INT} {BYTES} {AMOUNT} {STRICT}     column types; amounts are NUMERIC(78,0), or canonical TEXT on SQLite
    {NOT_NEGATIVE column}               a CHECK expression on an amount
    {FOR_UPDATE} {SKIP_LOCKED} {FOR_KEY_SHARE}    row locks; empty on SQLite, where BEGIN IMMEDIATE holds the one write lock
    {ROWS name(column TYPE, ...)}       the JSON parameter `:name` as a table called `name`; `tx.insert` is the short way for new rows
    {APPEND_ONLY} {REFUSE UPDATE table}    a trigger for UPDATE, DELETE or TRUNCATE, and what PostgreSQL needs before the first of them
    {REFUSE DELETE table UNLESS condition} {ALLOW DELETE table}    one with an exception (OLD is the row), and no trigger any more

A column declared {AMOUNT} anywhere is an `int` in every row and parameter of that name (64 bits cannot hold 10 ETH in wei).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import msgspec

_PARAMETER: Final = re.compile(r"'[^']*'|(?<![:\w]):([a-z_][a-z0-9_]*)")
_ROWS: Final = re.compile(r"\{ROWS (\w+)\(([^)]*)\)\}")
_NOT_NEGATIVE: Final = re.compile(r"\{NOT_NEGATIVE (\w+)\}")
_REFUSE: Final = re.compile(r"\{REFUSE (\w+) (\w+)(?: UNLESS ([^{}]+))?\}")
_ALLOW: Final = re.compile(r"\{ALLOW (\w+) (\w+)\}")
_AMOUNT_COLUMN: Final = re.compile(r"^\s*(?:ADD COLUMN\s+)?(\w+) \{AMOUNT\}", re.MULTILINE)
_WORDS: Final = {
    "sqlite": {
        "{INT}": "INTEGER",
        "{BYTES}": "BLOB",
        "{AMOUNT}": "TEXT",
        "{STRICT}": "STRICT",
        "{FOR_UPDATE}": "",
        "{SKIP_LOCKED}": "",
        "{FOR_KEY_SHARE}": "",
        "{APPEND_ONLY}": "SELECT 1",
    },
    "postgresql": {
        "{INT}": "BIGINT",
        "{BYTES}": "BYTEA",
        "{AMOUNT}": "NUMERIC(78,0)",
        "{STRICT}": "",
        "{FOR_UPDATE}": "FOR UPDATE",
        "{SKIP_LOCKED}": "FOR UPDATE SKIP LOCKED",
        "{FOR_KEY_SHARE}": "FOR KEY SHARE",
        "{APPEND_ONLY}": "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''% is append-only'', "
        "TG_TABLE_NAME USING ERRCODE = ''integrity_constraint_violation''; END'",
    },
}


def migrations() -> list[tuple[int, str, str]]:
    """Number, name and text of every migration, in order."""
    folder = resources.files("penstock") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(int(f.name[:4]), f.name, f.read_text("utf-8")) for f in files]


@lru_cache(maxsize=1)
def amount_columns() -> frozenset[str]:
    """Names of all columns declared {AMOUNT}."""
    return frozenset(name for _, _, text in migrations() for name in _AMOUNT_COLUMN.findall(text))


@lru_cache(maxsize=1024)
def translate(sql: str, dialect: str) -> str:
    """The statement in the words of one database."""

    def rows(match: re.Match[str]) -> str:
        name, columns = match[1], match[2]
        if dialect == "postgresql":
            return f"json_to_recordset(CAST(:{name} AS json)) AS {name}({columns})"
        names = [column.split()[0] for column in columns.split(",")]
        picked = ", ".join(f"value ->> '$.{column}' AS {column}" for column in names)
        return f"(SELECT {picked} FROM json_each(:{name})) AS {name}"

    sql = _REFUSE.sub(lambda match: _refusal(match[1], match[2], dialect, match[3]), _ROWS.sub(rows, sql))
    sql = _ALLOW.sub(lambda match: _allowance(match[1], match[2], dialect), sql)
    sql = _NOT_NEGATIVE.sub(r"\1 >= 0" if dialect == "postgresql" else r"\1 GLOB '[0-9]*' AND \1 NOT GLOB '*[^0-9]*'", sql)
    for word, meaning in _WORDS[dialect].items():
        sql = sql.replace(word, meaning)
    if dialect == "postgresql":
        sql = _PARAMETER.sub(lambda match: f"%({match[1]})s" if match[1] else match[0], sql.replace("%", "%%"))
    return sql


def _refusal(verb: str, table: str, dialect: str, unless: str | None) -> str:
    trigger = f"CREATE TRIGGER append_only_{table}_{verb.lower()} BEFORE {verb} ON {table}"
    if dialect == "postgresql":
        if unless is not None:  # the condition of a trigger may not ask other tables there, that of a function may
            return (
                f"DO $do$ BEGIN CREATE FUNCTION append_only_{table}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN IF {unless} THEN "
                f"RETURN OLD; END IF; RAISE EXCEPTION '{table} is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $f$; "
                f"{trigger} FOR EACH ROW EXECUTE FUNCTION append_only_{table}(); END $do$"
            )
        return f"{trigger} FOR EACH {'STATEMENT' if verb == 'TRUNCATE' else 'ROW'} EXECUTE FUNCTION append_only()"
    if verb == "TRUNCATE":
        return "SELECT 1"  # SQLite has none
    when = f"WHEN NOT ({unless}) " if unless is not None else ""
    return f"{trigger} {when}BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"


def _allowance(verb: str, table: str, dialect: str) -> str:
    return f"DROP TRIGGER append_only_{table}_{verb.lower()}" + (f" ON {table}" if dialect == "postgresql" else "")


@lru_cache(maxsize=256)
def sqlite_insert(into: str) -> tuple[str, list[tuple[str, bool]]]:
    """The statement, and its columns with whether they hold amounts."""
    names = [column.split()[0] for column in into.partition("(")[2].rstrip(")").split(",")]
    table, amounts = into.partition("(")[0], amount_columns()
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", [(name, name in amounts) for name in names]


@lru_cache(maxsize=256)
def postgresql_insert(into: str) -> str:
    """The statement; its rows are the parameter that is called as the table."""
    names = ", ".join(column.split()[0] for column in into.partition("(")[2].rstrip(")").split(","))
    return f"INSERT INTO {into.partition('(')[0]} ({names}) SELECT {names} FROM {{ROWS {into}}}"


def json_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the value of a {ROWS ...} parameter; amounts as text, which both databases read exactly."""
    amounts = [name for name in rows[0] if name in amount_columns()] if rows else []
    if amounts:
        rows = [{**row, **{name: str(row[name]) for name in amounts if row[name] is not None}} for row in rows]
    return msgspec.json.encode(rows).decode()
