"""How every command speaks: one JSON value or a table on stdout, everything else on stderr, and one clear sentence for what was anticipated."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from penstock.config import Settings, SettingWrong, load

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]

out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Say what is wrong on stderr and end."""
    err.print(Text.assemble(("penstock:", "red"), " ", text), highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def note(text: str) -> None:
    """Something to know on stderr; no failure."""
    err.print(Text.assemble(("penstock:", "yellow"), " ", text), highlight=False, soft_wrap=True)


def settings(**overrides: Any) -> Settings:
    """The settings of this call, or an exit that says which one is wrong."""
    try:
        return load(**overrides)
    except SettingWrong as error:
        fail(str(error), 2)


def guarded(work: Awaitable[T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run to the end; every anticipated failure is one clear sentence."""

    async def body() -> T:
        return await work

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(body())
    except Exception as error:
        from penstock.failures import sentence_of  # noqa: PLC0415  it knows every room, and a start of `serve` should not wait for them

        if (said := sentence_of(error)) is None:
            raise
        fail(*said)


def emit(value: Any, as_json: bool, table: Callable[[Any], Any]) -> None:
    """One JSON value, or what people read."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        out.print(table(value), crop=False)  # what must not be folded may run past the edge; it is never cut off
