"""The real program with defects in it, for the lanes that come from outside: `python -m penstock.prove.planted.serving NAME,NAME ... serve`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from penstock.prove.installed import crashing
from penstock.prove.planted.patch import Edit, planted

_LATER: Final = """answers = []
            class Back(Exception): pass
            def look(tx):
                answers.extend(self._apply(tx, batch))
                raise Back
            try: await self._database.write("intake", look)
            except Back: pass
            async def later():
                await self._runtime.sleep(0.3)
                await self._database.write("intake", lambda tx: self._apply(tx, batch))
            self.__dict__.setdefault("_later", []).append(self._runtime.spawn(later(), name="later"))
            return answers"""

FLAWS: Final[Mapping[str, Sequence[Edit]]] = MappingProxyType(
    {
        "any-body-will-do": (Edit("penstock.orders.intake:_repeat", "if fingerprint in (draft.fingerprint, draft.former):", "if True:"),),
        "answered-before-the-commit": (
            Edit(
                "penstock.orders.intake:Intake._apply_surely",
                'return await self._database.write("intake", lambda tx: self._apply(tx, batch))',
                _LATER,
            ),
        ),
        "balances-from-memory": (
            Edit(
                "penstock.ledger.book:Balances.of",
                "owned = await balances(self._database, holder)",
                "kept = self.__dict__.setdefault('_kept', {})\n"
                "    owned = kept.pop(holder, None)\n"
                "    if owned is None: owned = kept[holder] = await balances(self._database, holder)",
            ),
        ),
    }
)
"""Defects by name that show in what merchants are told, and in nothing else."""


def main() -> None:
    """Serve until killed."""
    names = sys.argv.pop(1).split(",")
    with planted([edit for name in names for edit in FLAWS[name]]):
        crashing.main()


if __name__ == "__main__":
    main()
