"""How deep JSON nests, before a decoder sees it. RecursionError is no bound: a package that raises the interpreter's limit (py_ecc: 100,000)
turns deep nesting into a crash of the process.
"""

from __future__ import annotations

from typing import Final

_OPEN: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))


def is_deeper(content: bytes, levels: int) -> bool:
    """Whether JSON nests deeper than so many levels. Of what is no JSON, such as a bracket that nothing closes, it may say either.

    All of it in steps that look at the whole text at once: a look at each bracket would cost several times what decoding does.
    """
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotes begins or ends a text
    outside = b"".join(content.split(b'"')[::2])
    brackets = outside.translate(_OPEN, _NO_BRACKET)
    for _ in range(levels):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # the innermost of each place
    return bool(brackets)
