"""Every planted bug, and the network on which each is looked for."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bitcoin import BITCOIN
from penstock.prove.planted.bug import Bug
from penstock.prove.planted.door import DOOR
from penstock.prove.planted.evm import EVM
from penstock.prove.planted.lightning import LIGHTNING
from penstock.prove.planted.rooms import ROOMS
from penstock.prove.planted.tron import TRON
from penstock.prove.planted.xrp import XRP

_ALL: Final[tuple[Bug, ...]] = (*ROOMS, *DOOR, *EVM, *TRON, *XRP, *BITCOIN, *LIGHTNING)

BUGS: Final = tuple(bug for bug in _ALL if bug.seed)
"""Those that the simulation sees."""

UNSEEN: Final = tuple(bug for bug in _ALL if not bug.seed)
"""Those that it has not seen yet: what its weather still lacks. They prove nothing and are counted apart."""
