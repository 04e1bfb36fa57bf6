"""Every planted bug."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.door import DOOR
from penstock.prove.planted.rooms import ROOMS

BUGS: Final[tuple[Bug, ...]] = (*ROOMS, *DOOR)
