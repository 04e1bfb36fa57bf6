"""What a planted bug is: the defect, where it comes from, and the seed that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.prove.planted.patch import Edit


@dataclass(frozen=True, slots=True)
class Bug:
    """One realistic defect.

    `history` is a sentence on what it is and does, `source` where the field knows it from, `plan` its number in the test plan, `room` the
    room or chain family whose code is patched. `network` is where it is looked for. `caught_by` is what it shows as where no guard of the product stops it first; `seed` is the lowest seed known to catch
    it, 0 where none is known yet: then only fresh seeds look for it.
    """

    name: str
    room: str
    history: str
    edits: tuple[Edit, ...]
    caught_by: str
    seed: int
    source: str = ""
    plan: str = ""
    network: str = "ETH"
