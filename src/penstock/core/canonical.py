"""JSON as one exact text, over which hashes are made: the same values are the same bytes, in every version and for ever."""

from __future__ import annotations

import msgspec


def canonical(value: object) -> bytes:
    """Compact, in raw UTF-8, keys as they come, integers of any size. Not for floats: nobody agrees on how to write them."""
    return msgspec.json.encode(value)


def canonical_sorted(value: object) -> bytes:
    """The same with the keys of every object in the order of their code points."""
    return msgspec.json.encode(value, order="sorted")
