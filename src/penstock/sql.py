"""One SQL text for SQLite and PostgreSQL: the words in which they differ, the migrations, and which columns are amounts.

Words the text may use, replaced once per statement:

    {INT} {BYTES} {AMOUNT} {STRICT}     column types; amounts are NUMERIC(78,0), or canonical TEXT on SQLite
    {NOT_NEGATIVE column}               a CHECK expression on an amount
    {FOR_UPDATE} {SKIP_LOCKED} {FOR_KEY_SHARE}    row locks; empty on SQLite, where BEGIN IMMEDIATE holds the one write lock
    {ROWS name(column TYPE, ...)}       the list of rows `:name` as a table called `name`: the columns that are named, of rows that may have more,
                                        or tuples of just these; `tx.insert` is the short way for new rows
    {APPEND_ONLY} {REFUSE UPDATE table}    a trigger for UPDATE, DELETE or TRUNCATE, and what PostgreSQL needs before the first of them
    {REFUSE DELETE table UNLESS condition} {ALLOW DELETE table}    one with an exception (OLD is the row), and no trigger any more
    {ROW}                               where a row is stored, for `DELETE ... WHERE {ROW} IN (SELECT table.{ROW} FROM {ROWS ...} JOIN table ON ...)`
    {HALF_FULL table}    new rows fill its pages by half and leave the rest to what they become; SQLite writes a row where it was anyway

A column declared {AMOUNT} in the schema is an `int` in every row that is read and in every single parameter of that name (64 bits cannot hold
10 ETH in wei); of rows that are given it is what the statement declares so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

_PARAMETER: Final = re.compile(r"'[^']*'|(?<![:\w]):([a-z_][a-z0-9_]*)")
_ROWS: Final = re.compile(r"\{ROWS (\w+)\(([^)]*)\)\}")
_AMONG: Final = re.compile(r"(?<!NOT )IN \(SELECT (\w+)\.(\w+) FROM \{ROWS \1\(\2 ([^()]+)\)\}\)")
_TUPLES: Final = re.compile(r"\(\w+(?:, \w+)+\) (?:NOT )?IN \(SELECT [^()]* FROM \{ROWS \w+\(([^()]*)\)\}")
_NOT_NEGATIVE: Final = re.compile(r"\{NOT_NEGATIVE (\w+)\}")
_REFUSE: Final = re.compile(r"\{REFUSE (\w+) (\w+)(?: UNLESS ([^{}]+))?\}")
_ALLOW: Final = re.compile(r"\{ALLOW (\w+) (\w+)\}")
_HALF_FULL: Final = re.compile(r"\{HALF_FULL (\w+)\}")
_AMOUNT_COLUMN: Final = re.compile(r"^\s*(?:ADD COLUMN\s+)?(\w+) \{AMOUNT\}", re.MULTILINE)
_REFUSES: Final = "BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END"
_WORDS: Final = {
    "sqlite": {
        "{INT}": "INTEGER",
        "{BYTES}": "BLOB",
        "{AMOUNT}": "TEXT",
        "{STRICT}": "STRICT",
        "{ROW}": "rowid",
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
        "{ROW}": "ctid",
        "{FOR_UPDATE}": "FOR UPDATE",
        "{SKIP_LOCKED}": "FOR UPDATE SKIP LOCKED",
        "{FOR_KEY_SHARE}": "FOR KEY SHARE",
        "{APPEND_ONLY}": f"CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $f${_REFUSES}$f$",
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
    """The statement in the words of one database. Raises ValueError for a tuple of several types that is IN rows: SQLite looks such a one up
    by its first column alone, which is a walk past everything of one merchant. Join the rows instead.
    """
    if any(len({column.split(maxsplit=1)[1] for column in columns.split(",")}) > 1 for columns in _TUPLES.findall(sql)):
        raise ValueError(f"join these rows, do not look for a tuple IN them: {sql}")

    def rows(match: re.Match[str]) -> str:
        name, columns = match[1], [column.split(maxsplit=1) for column in match[2].split(",")]
        lite = dialect == "sqlite"
        if len(columns) == 1:
            picked = "value" if lite else f"CAST(value AS {columns[0][1]})"
            listed = f"json_each(:{name})" if lite else f"jsonb_array_elements_text(CAST(:{name} AS jsonb))"
            return f"(SELECT {picked} AS {columns[0][0]} FROM {listed} AS listed) AS {name}"
        if lite:
            picked = ", ".join(f"value ->> {place} AS {column}" for place, (column, _) in enumerate(columns))
            return f"(SELECT {picked} FROM json_each(:{name})) AS {name}"
        picked = ", ".join(f"CAST(value ->> {place} AS {kind}) AS {column}" for place, (column, kind) in enumerate(columns))
        return f"(SELECT {picked} FROM jsonb_array_elements(CAST(:{name} AS jsonb)) AS listed(value)) AS {name}"

    if dialect == "postgresql":
        # An array goes to an index. Of a subquery the planner knows no more than of a table without statistics, and reads whole tables.
        sql = _AMONG.sub(r"= ANY(ARRAY(SELECT CAST(value AS \3) FROM jsonb_array_elements_text(CAST(:\1 AS jsonb)) AS listed))", sql)
    sql = _REFUSE.sub(lambda match: _refusal(match[1], match[2], dialect, match[3] or ""), _ROWS.sub(rows, sql))
    sql = _ALLOW.sub(lambda match: _allowance(match[1], match[2], dialect), sql)
    sql = _HALF_FULL.sub(r"ALTER TABLE \1 SET (fillfactor = 50)" if dialect == "postgresql" else "SELECT 1", sql)
    sql = _NOT_NEGATIVE.sub(r"\1 >= 0" if dialect == "postgresql" else r"\1 GLOB '[0-9]*' AND \1 NOT GLOB '*[^0-9]*'", sql)
    for word, meaning in _WORDS[dialect].items():
        sql = sql.replace(word, meaning)
    if dialect == "postgresql":
        sql = _PARAMETER.sub(lambda match: f"%({match[1]})s" if match[1] else match[0], sql.replace("%", "%%"))
    return sql


def _refusal(verb: str, table: str, dialect: str, unless: str) -> str:
    trigger, function = _trigger(verb, table, dialect, unless)
    if dialect == "postgresql" and unless:
        created = f"CREATE FUNCTION append_only_{table}() RETURNS trigger LANGUAGE plpgsql AS $f${function}$f$"
        return f"DO $do$ BEGIN {created}; {trigger}; END $do$"
    return trigger or "SELECT 1"


def _trigger(verb: str, table: str, dialect: str, unless: str) -> tuple[str, str]:
    """The statement that makes it, and the source of the function that it calls where there is one. "" where the database needs none."""
    trigger = f"CREATE TRIGGER append_only_{table}_{verb.lower()} BEFORE {verb} ON {table}"
    if dialect == "sqlite":
        when = f"WHEN NOT ({unless}) " if unless else ""
        return ("" if verb == "TRUNCATE" else f"{trigger} {when}BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"), ""
    if not unless:
        return f"{trigger} FOR EACH {'STATEMENT' if verb == 'TRUNCATE' else 'ROW'} EXECUTE FUNCTION append_only()", _REFUSES
    # The condition of a trigger may not ask other tables there, that of a function may.
    source = f"BEGIN IF {unless} THEN RETURN OLD; END IF; {_REFUSES.removeprefix('BEGIN ')}"
    return f"{trigger} FOR EACH ROW EXECUTE FUNCTION append_only_{table}()", source


def _allowance(verb: str, table: str, dialect: str) -> str:
    return f"DROP TRIGGER append_only_{table}_{verb.lower()}" + (f" ON {table}" if dialect == "postgresql" else "")


def refusals(dialect: str) -> dict[str, tuple[str, str]]:
    """The triggers by which the database refuses to edit rows: how each is made and what its function says, by its name."""
    made: dict[str, tuple[str, str]] = {}
    for _, _, text in migrations():
        for verb, table in _ALLOW.findall(text):
            made.pop(f"append_only_{table}_{verb.lower()}", None)
        made |= {
            f"append_only_{table}_{verb.lower()}": _trigger(verb, table, dialect, unless) for verb, table, unless in _REFUSE.findall(text)
        }
    return {name: (statement, source) for name, (statement, source) in made.items() if statement}


class Columns(NamedTuple):
    """Columns of rows that are given, and the places of those declared {AMOUNT}."""

    names: tuple[str, ...]
    amounts: tuple[int, ...]


@lru_cache(maxsize=1024)
def columns_of(declared: str) -> Columns:
    """Of "column TYPE, ..."."""
    columns = [column.split(maxsplit=1) for column in declared.split(",")]
    return Columns(tuple(name for name, _ in columns), tuple(place for place, (_, kind) in enumerate(columns) if kind == "{AMOUNT}"))


@lru_cache(maxsize=512)
def sqlite_insert(into: str, count: int) -> tuple[str, Columns]:
    """The statement for so many rows, and its columns."""
    table, _, declared = into.rstrip(")").partition("(")
    columns = columns_of(declared)
    row = f"({', '.join('?' * len(columns.names))})"
    return f"INSERT INTO {table} ({', '.join(columns.names)}) VALUES {', '.join([row] * count)}", columns


@lru_cache(maxsize=256)
def postgresql_insert(*into: str) -> str:
    """One statement for new rows of one table or several; those of each are the parameter that is called as the table."""
    *before, last = [_insertion(table) for table in into]
    named = ", ".join(f"new_{table.partition('(')[0]} AS ({inserted})" for table, inserted in zip(into, before, strict=False))
    return f"WITH {named} {last}" if named else last


def _insertion(into: str) -> str:
    names = ", ".join(column.split()[0] for column in into.partition("(")[2].rstrip(")").split(","))
    return f"INSERT INTO {into.partition('(')[0]} ({names}) SELECT {names} FROM {{ROWS {into}}}"


@lru_cache(maxsize=1024)
def row_columns(sql: str) -> dict[str, Columns]:
    """The columns of each {ROWS ...} of a statement."""
    return {match[1]: columns_of(match[2]) for match in _ROWS.finditer(sql)}


Given = Mapping[str, Any] | tuple[Any, ...]
"""A row by the names of its columns, or its values in their order."""


def plain_rows(rows: Sequence[Given], columns: Columns) -> Sequence[Any]:
    """Rows as values in the order of two or more columns, with amounts as text, which both databases read exactly."""
    picked: Sequence[Any] = rows if rows and isinstance(rows[0], tuple) else list(map(itemgetter(*columns.names), rows))
    if columns.amounts:
        picked = list(map(list, picked))
        for row in picked:
            for place in columns.amounts:
                if row[place] is not None:
                    row[place] = str(row[place])
    return picked


def json_rows(rows: Sequence[Given], columns: Columns) -> str:
    """Rows as the value of a {ROWS ...} parameter: each a list in the order of the columns, or its only value. Without their names
    both databases read them at a third to a half of the cost.
    """
    if len(columns.names) > 1:
        return msgspec.json.encode(plain_rows(rows, columns)).decode()
    values = list(map(itemgetter(*columns.names), rows))
    if columns.amounts:
        values = [str(value) if value is not None else None for value in values]
    return msgspec.json.encode(values).decode()
