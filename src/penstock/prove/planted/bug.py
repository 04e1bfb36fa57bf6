"""What a planted bug is: the defect, where it comes from, and the seed that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.prove.planted.patch import Edit


@dataclass(frozen=True, slots=True)
class Bug:
    """One realistic defect.

    `history` is a sentence on what it is and does, `source` where the field knows it from, `plan` its number in the test plan, `room` the
    room or chain family whose code is patched. `networks` are those that it needs; fewer are sooner played. `seed` is a known one that
    shows it, `crash` the commit at which its first crash is planned where only that shows it. Without a seed either `test` names the test that fails with it, or `unseen` says why nothing does.
    """

    name: str
    room: str
    history: str
    edits: tuple[Edit, ...]
    seed: int = 0
    crash: str = ""
    test: str = ""
    unseen: str = ""
    source: str = ""
    plan: str = ""
    networks: tuple[str, ...] = ("ETH",)
