"""Every planted bug, and the network on which each is looked for."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.chains import BITCOIN, EVM, LIGHTNING, TRON, XRP
from penstock.prove.planted.door import DOOR
from penstock.prove.planted.rooms import ROOMS

BUGS: Final[tuple[Bug, ...]] = (*ROOMS, *DOOR, *EVM, *TRON, *XRP, *BITCOIN, *LIGHTNING)
