"""What a chain may be seen to have done with an attempt. Everything else a node says is one of these, or unknown.

`through` is the block that as many nodes as must agree had reached when they were asked; None where fewer looked, or where they differ, so that
what is seen may not be all there is. Only chains without numbered slots need it, and it changes nothing of what is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Absent:
    """No node knows any version. Proves nothing."""

    through: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """A node holds a version that is in no block yet. `stuck` asks for a bump: the terms are below the market. `thin`: fewer nodes than must
    agree hold it, and one that keeps it to itself would keep it for ever.
    """

    stuck: bool = False
    thin: bool = field(default=False, compare=False)
    through: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Included:
    """A version is in a block that may still be undone. `depth` counts that block: 1 is the newest."""

    txid: str
    block: int
    depth: int
    succeeded: bool
    through: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Final:
    """A version is in a block that stays, and paid exactly what it says. `fee` in native base units, L1 part included.

    `detail` says it in the network's own words where "final in block N" is not what happened (Lightning: settled).
    """

    txid: str
    block: int
    fee: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FailedOnChain:
    """A version is in a block that stays and moved nothing: reverted, or it was our own cancel."""

    txid: str
    block: int
    fee: int
    detail: str


@dataclass(frozen=True, slots=True)
class Dead:
    """No version can ever land any more; `proof` says why, in words a person can check."""

    proof: str


@dataclass(frozen=True, slots=True)
class Suspicious:
    """What only a person may judge: slot used by a stranger, success without the exact event, nodes that differ.

    `alone`: it says nothing of other payments, which go on meanwhile.
    """

    detail: str
    alone: bool = False
    through: int | None = field(default=None, compare=False)


Observation = Absent | Pending | Included | Final | FailedOnChain | Dead | Suspicious
