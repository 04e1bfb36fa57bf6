"""A defect as a patch of the product's own source text, compiled in its place while one run lasts, and taken out again without a trace.

A function keeps its identity: only its code is exchanged, so whoever holds a reference to it runs the defect, and nobody does afterwards.
Everything that does not fit any more is an error: a function that is gone, words that are not there exactly once, and a run that ends
without having come by the planted line.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any, Final

MARK: Final = "__planted__"


class Moved(Exception):
    """The product has changed and the patch does not fit it any more; the text says where. Write the defect anew."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` in the source of one function becomes `new`. `where` is "module:Class.method"; `old` stands there exactly once."""

    where: str
    old: str
    new: str


@dataclass(slots=True)
class Reached:
    """How often the run came by a planted line."""

    times: int = 0

    def __call__(self) -> None:
        """Once more."""
        self.times += 1


@contextlib.contextmanager
def planted(edits: Sequence[Edit]) -> Iterator[Reached]:
    """The product with these edits in it. Raises Moved."""
    reached = Reached()
    codes: dict[FunctionType, CodeType] = {}
    for where in dict.fromkeys(edit.where for edit in edits):
        function = resolve(where)
        codes[function] = _compiled(function, [edit for edit in edits if edit.where == where])
    sound = {function: function.__code__ for function in codes}
    try:
        for function, code in codes.items():
            function.__globals__[MARK] = reached
            function.__code__ = code
        yield reached
    finally:
        for function, code in sound.items():
            function.__code__ = code
            function.__globals__.pop(MARK, None)


def resolve(where: str) -> FunctionType:
    """The function of that name. Raises Moved."""
    module, _, path = where.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
    except (ImportError, AttributeError) as error:
        raise Moved(f"there is no {where} any more") from error
    if isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(getattr(found, "__func__", found))
    if not isinstance(found, FunctionType):
        raise Moved(f"{where} is no function any more")
    return found


def _compiled(function: FunctionType, edits: Sequence[Edit]) -> CodeType:
    text = textwrap.dedent(inspect.getsource(function))
    lines = []
    for edit in edits:
        if text.count(edit.old) != 1:
            raise Moved(f"{edit.where} has {text.count(edit.old)} times, and not once: {edit.old!r}")
        lines.append(text[: text.index(edit.old)].count("\n") + 1)
        text = text.replace(edit.old, edit.new)
    tree = ast.parse(text)
    for line in lines:
        _mark(tree, line)
    ast.fix_missing_locations(tree)
    name, flags = function.__code__.co_name, __future__.annotations.compiler_flag
    whole = compile(tree, f"<planted in {edits[0].where}>", "exec", flags=flags, dont_inherit=True)
    (code,) = [const for const in whole.co_consts if isinstance(const, CodeType) and const.co_name == name]
    if code.co_freevars != function.__code__.co_freevars:
        raise Moved(f"{edits[0].where} holds variables of the function around it")
    return code


def _mark(tree: ast.Module, line: int) -> None:
    """Before the innermost statement on this line comes a call that counts."""
    (function,) = tree.body
    block, place, depth = _innermost(function, line, 0) or (None, 0, 0)
    if block is None or not depth:
        raise Moved(f"the patch is in no statement of {ast.unparse(function)[:60]!r}")
    block.insert(place, ast.copy_location(ast.Expr(ast.Call(ast.Name(MARK, ast.Load()), [], [])), block[place]))


def _innermost(node: ast.AST, line: int, depth: int) -> tuple[list[ast.stmt], int, int] | None:
    found: tuple[list[ast.stmt], int, int] | None = None
    for value in ast.iter_fields(node):
        parts = value[1] if isinstance(value[1], list) else [value[1]]
        for place, part in enumerate(parts):
            if not isinstance(part, ast.stmt | ast.excepthandler | ast.match_case):
                continue
            if isinstance(part, ast.stmt) and not part.lineno <= line <= (part.end_lineno or 0):
                continue
            inner = _innermost(part, line, depth + 1)
            here = (value[1], place, depth + 1) if isinstance(part, ast.stmt) else None
            candidate = inner or here
            if candidate is not None and (found is None or candidate[2] > found[2]):
                found = candidate
    return found
