"""Every planted bug, and what sees it."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.archive import ARCHIVE
from penstock.prove.planted.audit import AUDIT
from penstock.prove.planted.bitcoin import BITCOIN
from penstock.prove.planted.bug import Bug
from penstock.prove.planted.door import DOOR
from penstock.prove.planted.evm import EVM
from penstock.prove.planted.lightning import LIGHTNING
from penstock.prove.planted.rooms import ROOMS
from penstock.prove.planted.tron import TRON
from penstock.prove.planted.workers import WORKERS
from penstock.prove.planted.xrp import XRP

ALL: Final[tuple[Bug, ...]] = (*ROOMS, *DOOR, *EVM, *TRON, *XRP, *BITCOIN, *LIGHTNING, *WORKERS, *ARCHIVE, *AUDIT)

BUGS: Final = tuple(bug for bug in ALL if bug.seed)
"""Those that the simulation sees."""

TESTED: Final = tuple(bug for bug in ALL if bug.test)
"""Those that it does not, and a named test does."""

UNSEEN: Final = tuple(bug for bug in ALL if bug.unseen)
"""Those that nothing has seen yet, each with the reason. They prove nothing and are counted apart."""
