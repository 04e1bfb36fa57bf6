"""SHA-256 continued from any state: what an attacker runs who knows a digest and a length, and no secret.

No library offers this, because nobody but an attacker wants it; the product never does. Source: FIPS 180-4, sections 4.2.2 and 6.2.
"""

from __future__ import annotations

import struct
from typing import Final

_WORD: Final = 0xFFFFFFFF


def _constants() -> list[int]:
    """The first 32 bits of the fractional parts of the cube roots of the first 64 primes."""
    primes, n = list[int](), 2
    while len(primes) < 64:
        if all(n % p for p in primes):
            primes.append(n)
        n += 1
    roots = []
    for prime in primes:
        low, high = 0, 1 << 40
        while high - low > 1:  # the cube root in units of 2^-32, exactly
            middle = (low + high) // 2
            low, high = (middle, high) if middle**3 <= prime << 96 else (low, middle)
        roots.append(low & _WORD)
    return roots


_K: Final = _constants()


def _turn(value: int, by: int) -> int:
    return (value >> by | value << 32 - by) & _WORD


def _compress(state: list[int], block: bytes) -> list[int]:
    words = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = _turn(words[i - 15], 7) ^ _turn(words[i - 15], 18) ^ words[i - 15] >> 3
        s1 = _turn(words[i - 2], 17) ^ _turn(words[i - 2], 19) ^ words[i - 2] >> 10
        words.append((words[i - 16] + s0 + words[i - 7] + s1) & _WORD)
    a, b, c, d, e, f, g, h = state
    for k, word in zip(_K, words, strict=True):
        one = h + (_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)) + (e & f ^ ~e & g) + k + word
        two = (_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (one + two) & _WORD, a, b, c, (d + one) & _WORD, e, f, g
    return [(x + y) & _WORD for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def padding(length: int) -> bytes:
    """What SHA-256 puts behind a text of `length` bytes."""
    return b"\x80" + b"\x00" * ((55 - length) % 64) + struct.pack(">Q", length * 8)


def extend(digest: str, length: int, suffix: bytes) -> str:
    """The digest of (unknown text of `length` bytes, its padding, suffix), from the digest of the text alone. Hex."""
    state = list(struct.unpack(">8I", bytes.fromhex(digest)))
    done = length + len(padding(length))
    tail = suffix + padding(done + len(suffix))
    for start in range(0, len(tail), 64):
        state = _compress(state, tail[start : start + 64])
    return struct.pack(">8I", *state).hex()
