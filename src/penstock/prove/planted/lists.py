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

BUGS: Final[tuple[Bug, ...]] = (*ROOMS, *DOOR, *EVM, *TRON, *XRP, *BITCOIN, *LIGHTNING)
