"""Proof of liabilities: a Merkle sum tree in which every holder can find what the house owes them, without seeing who else is in it.

The house publishes root and total of each coin. A holder gets the path from their leaf to the root, and makes it again: were their balance
lowered or left out, no path would lead to the published root. What a sum tree has to get right, from the literature:

* each node hashes the sums of *both* children, not their total alone: under Maxwell's first form different holders can be shown
  different sums below one hash, and a house may leave out all but one of them (Hu, Zhang, Guo, "Breaking the Binding", 2018,
  https://eprint.iacr.org/2018/1139; Chalkias, Lewi, Mohassel, Nikolaenko, "Distributed Auditing Proofs of Liabilities", 2020,
  https://eprint.iacr.org/2020/468);
* no sum is negative, and none can wrap around: amounts are whole numbers of 32 bytes;
* a leaf cannot be taken for a node: each kind has a prefix of its own (RFC 6962, section 2.1);
* an odd node goes up as it is, nothing is doubled;
* a leaf carries a random salt, and leaves are in the order of their hashes, so that a path tells nothing of names.

What it does not do: a path shows the sums of its siblings, and a balance that nobody checks is not missed by anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_LEAF: Final = b"\x00penstock liability 1"
_NODE: Final = b"\x01penstock liability 1"
_UNITS_MAX: Final = 2**256 - 1


class ProofWrong(Exception):
    """The proof does not lead to the published root; the text says where it fails."""


@dataclass(frozen=True, slots=True)
class Liability:
    """What the house owes one holder in one coin, in coin units of 10^-18; `salt` is random, hexadecimal, known to house and holder."""

    coin_id: str
    holder: str
    salt: str
    available: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Node:
    """A hash and the sum below it."""

    units: int
    hash: bytes


def leaf(liability: Liability) -> Node:
    """Raises ValueError for an amount below zero or beyond 32 bytes."""
    parts = [liability.coin_id.encode(), liability.holder.encode(), bytes.fromhex(liability.salt)]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = hashlib.sha256(_LEAF + text + _units(liability.available) + _units(liability.reserved)).digest()
    return Node(liability.available + liability.reserved, digest)


def parent(left: Node, right: Node) -> Node:
    """Both sums are hashed, each on its own."""
    units = left.units + right.units
    return Node(units, hashlib.sha256(_NODE + _units(left.units) + left.hash + _units(right.units) + right.hash).digest())


class SumTree:
    """The tree over all liabilities in one coin."""

    def __init__(self, liabilities: Sequence[Liability]) -> None:
        made = sorted(((leaf(liability), liability) for liability in liabilities), key=lambda pair: pair[0].hash)
        self._places = {liability.holder: place for place, (_, liability) in enumerate(made)}
        self._liabilities = [liability for _, liability in made]
        self._levels = [[node for node, _ in made]]
        if len(self._places) != len(made):
            raise ValueError("a holder stands in the tree twice")
        while len(level := self._levels[-1]) > 1:
            pairs = [parent(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            self._levels.append([*pairs, *([level[-1]] if len(level) % 2 else [])])

    @property
    def root(self) -> Node:
        """What is published; a tree of nobody owes nothing."""
        return self._levels[-1][0] if self._places else Node(0, hashlib.sha256(_NODE).digest())

    def proof(self, holder: str) -> dict[str, Any]:
        """A holder's leaf and path, as plain values. Raises KeyError."""
        place = self._places[holder]
        owed = self._liabilities[place]
        steps = []
        for level in self._levels[:-1]:
            sibling = place ^ 1
            if sibling < len(level):
                node = level[sibling]
                steps.append({"side": "left" if sibling < place else "right", "units": str(node.units), "hash": node.hash.hex()})
            place //= 2
        return {
            "coin_id": owed.coin_id,
            "holder": owed.holder,
            "salt": owed.salt,
            "available": str(owed.available),
            "reserved": str(owed.reserved),
            "path": steps,
        }


def check(proof: Mapping[str, Any], root: str, total: str) -> None:
    """Follow a proof up to the published root and total of its coin. Raises ProofWrong."""
    try:
        owed = Liability(proof["coin_id"], proof["holder"], proof["salt"], _amount(proof["available"]), _amount(proof["reserved"]))
        node = leaf(owed)
        for step in proof["path"]:
            sibling = Node(_amount(step["units"]), bytes.fromhex(step["hash"]))
            node = parent(sibling, node) if step["side"] == "left" else parent(node, sibling)
        published = Node(_amount(total), bytes.fromhex(root))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProofWrong(f"the proof cannot be read: {error}") from error
    if node.hash != published.hash:
        raise ProofWrong("the path leads to another root than the one that was published")
    if node.units != published.units:
        raise ProofWrong("the sums on the path make another total than the one that was published")


def _amount(text: object) -> int:
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()):
        raise ValueError("an amount is a text of digits")
    return int(text)


def _units(units: int) -> bytes:
    if not 0 <= units <= _UNITS_MAX:
        raise ValueError("an amount is below zero or too large")
    return units.to_bytes(32, "big")
