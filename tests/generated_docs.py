"""Pages of docs/ that are made from the code: `python -m tests.generated_docs --write`, and `--check` in `make check`.

A room that has a table worth a page adds one line to PAGES.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import enum
import inspect
import itertools
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock import config
from penstock.core import attempt, order
from penstock.core.errors import Problem
from penstock.http.answers import NOT_FOUND, NOT_VERIFIED, OUT_OF_ORDER, OVERLOADED, TOO_LARGE, TOO_MANY, TOO_SLOW

DOCS: Final = Path(__file__).parent.parent / "docs"

MADE: Final = "<!-- Made by tests/generated_docs.py. Do not edit: change the table in the code, then run it with --write. -->\n"


def errors_page() -> str:
    """docs/errors.md, from core/errors.py."""
    rows = "".join(
        f"| {problem.code} | `{problem.reason}` | {problem.when} |\n" for problem in sorted(Problem, key=lambda problem: problem.code)
    )
    constants = "".join(
        f"| {answer.status} | {answer.code} | {when} |\n"
        for answer, when in (
            (NOT_VERIFIED, "The signature does not fit, the app id is unknown, or a header is missing, malformed or there twice."),
            (TOO_MANY, "The source address asks too often; `Retry-After` says when to come back."),
            (NOT_FOUND, "No such path, or not POST."),
            (TOO_SLOW, "The body did not arrive in time."),
            (TOO_LARGE, "The body has more than 64 KiB."),
            (
                OVERLOADED,
                "More requests are at work than the server can hold, so this one was not read; `Retry-After` says when to come back.",
            ),
            (OUT_OF_ORDER, "Credentials cannot be looked up now; `Retry-After` says when to come back."),
        )
    )
    return f"""{MADE}
# Errors of the merchant API

A failure is HTTP 200 with `{{"code":…,"reason":"…","msg":"…","data":null}}`. Test `code`: 10000 is success, everything else is not.
`msg` is a sentence for people, which says what is wrong and what would be right; it may change.

| code | reason | when |
| --- | --- | --- |
{rows}
## Answers without a signature

Every answer to a request whose own signature was right is signed, failures too. These are not, because whoever gets them proved nothing.
Each is a constant.

| HTTP | code | when |
| --- | --- | --- |
{constants}
An answer whose signature does not fit, or none at all, means *unknown*, not *failed*: ask `bill/info`, or repeat the same
`merchant_order_id`. Never send a new one for the same payout.
"""


def states_page() -> str:
    """docs/states.md, from the tables of moves in core/order.py and core/attempt.py."""
    shown = "".join(f"| {state} | `{order.wire_status(state, order.WireStatus.PENDING).text}` |\n" for state in order.OrderState)
    return f"""{MADE}
# States

One table each says which moves exist; a move that is not in it raises, and the schema's CHECK comes from the same names.

## Order

A merchant's wish. It begins as accepted, or as succeeded when it is paid inside the house.

{_diagram(order.MOVES, order.TERMINAL, (order.OrderState.ACCEPTED, order.OrderState.SUCCEEDED))}
{_table(order.MOVES)}
What merchants see. It only rises: an order that goes back to accepted stays `Processing`.

| state | status |
| --- | --- |
{shown}
## Attempt

One conflict resource (a nonce, a sequence, an anchor input, a payment hash) for ever. Final and dead retire it.

{_diagram(attempt.MOVES, frozenset(attempt.AttemptState) - attempt.LIVE, (attempt.AttemptState.BOUND,))}
{_table(attempt.MOVES)}"""


def settings_page() -> str:
    """docs/settings.md, from the dataclasses of config.py and the sentence under each field."""
    told = _sentences(inspect.getsource(config))
    parts = []
    for section in dataclasses.fields(config.Settings):
        kind = config.NetworkSettings if section.name == "networks" else typing.get_type_hints(config.Settings)[section.name]
        if not dataclasses.is_dataclass(kind):
            continue
        title = "networks.CHAIN" if section.name == "networks" else section.name
        rows = "".join(
            f"| `{f.name}` | `{_variable(title, f, typing.get_type_hints(kind)[f.name])}` | {_default(f)} | {told[kind.__name__, f.name]} |\n"
            for f in dataclasses.fields(kind)
        )
        parts.append(f"## [{title}]\n\n{kind.__doc__}\n\n| key | environment | default | meaning |\n| --- | --- | --- | --- |\n{rows}")
    sections = "\n".join(parts)
    return f"""{MADE}
# Settings

`penstock.toml` in `PENSTOCK_HOME` (default `./penstock-home`), or the environment, which wins. Lists are comma-separated there; tables
(`policy.minimum`, `prices.ids`) take the coin as one more part: `PENSTOCK_POLICY__MINIMUM__USDT=1`. `PENSTOCK_PASSPHRASE` unlocks the keys
when `init` was given a passphrase; without one they are unlocked by the key file in the home.

{sections}"""


def _sentences(source: str) -> dict[tuple[str, str], str]:
    told = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for line, after in itertools.pairwise(node.body):
                if isinstance(line, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    told[node.name, ast.unparse(line.target)] = str(after.value.value)
    return told


def _variable(title: str, field: dataclasses.Field[typing.Any], kind: object) -> str:
    """A table has a variable for each coin, and none of its own."""
    coin = "__COIN" if typing.get_origin(kind) is Mapping else ""
    return f"PENSTOCK_{title.upper().replace('.', '__')}__{field.name.upper()}{coin}"


def _default(field: dataclasses.Field[typing.Any]) -> str:
    """As it is written in the file; below zero stands for what cannot be written."""
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    if value in ("", (), {}):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "unset" if isinstance(value, int) and value < 0 else f"`{value}`"


def _diagram(
    moves: Mapping[tuple[enum.StrEnum, enum.StrEnum], str], ends: frozenset[enum.StrEnum], starts: tuple[enum.StrEnum, ...]
) -> str:
    lines = [f"    [*] --> {state}" for state in starts]
    lines += [f"    {before} --> {after}" for before, after in moves]
    lines += [f"    {state} --> [*]" for state in type(starts[0]) if state in ends]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def _table(moves: Mapping[tuple[enum.StrEnum, enum.StrEnum], str]) -> str:
    rows = "".join(f"| {before} | {after} | {why} |\n" for (before, after), why in moves.items())
    return f"| from | to | when |\n| --- | --- | --- |\n{rows}"


PAGES: Final[Mapping[str, Callable[[], str]]] = {"errors.md": errors_page, "states.md": states_page, "settings.md": settings_page}


def stale() -> list[str]:
    """Names of pages that are not what the code says now."""
    return [name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != page()]


def main() -> int:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    if parser.parse_args().write:
        for name, page in PAGES.items():
            (DOCS / name).write_text(page(), encoding="utf-8")
        return 0
    for name in stale():
        print(f"docs/{name} is not what the code says: run python -m tests.generated_docs --write", file=sys.stderr)
    return 1 if stale() else 0


if __name__ == "__main__":
    sys.exit(main())
