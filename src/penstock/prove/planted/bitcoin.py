"""Bugs that show on Bitcoin's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit
from penstock.prove.planted.rooms import DEAD_ORDERS_MAY_GO_ON

BITCOIN: Final = (
    Bug(
        name="other-coins-on-retry",
        plan="M7",
        room="bitcoin",
        networks=("BTC",),
        history="A transaction that nobody had was built again out of whatever coins were free; the two did not conflict, and both were mined.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.rail:BitcoinRail.observe",
                "    return await self._watch.observe(versions)",
                "    seen = await self._watch.observe(versions)\n"
                "    if type(seen).__name__ == 'Absent':\n"
                "        from penstock.core.event import Dead\n"
                "        return Dead('not found')\n"
                "    return seen",
            ),
            DEAD_ORDERS_MAY_GO_ON,
        ),
        seed=1,
    ),
    Bug(
        name="abandoned-comes-back",
        plan="M8",
        room="bitcoin",
        networks=("BTC",),
        history="What had waited too long was abandoned and called failed; the pools that still had it mined it when fees fell.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.rail:BitcoinRail.observe",
                "    return await self._watch.observe(versions)",
                "    seen = await self._watch.observe(versions)\n"
                "    if type(seen).__name__ == 'Pending' and seen.stuck:\n"
                "        from penstock.core.event import FailedOnChain\n"
                "        return FailedOnChain(versions[-1].txid, 1, 0, 'abandoned')\n"
                "    return seen",
            ),
        ),
        seed=10,
    ),
    Bug(
        name="bump-with-other-coins",
        room="bitcoin",
        networks=("BTC",),
        history="A bump left out the anchor, so that it replaced nothing.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.coins:bump",
                "return replace(intent, version=version,",
                "return replace(intent, resources=intent.resources[1:] or (Resource('00' * 32 + ':0', intent.resources[0].units),), version=version,",
            ),
        ),
        test="tests/unit/test_bitcoin_coins.py::test_whatever_is_bound_can_be_signed_and_bumped_to_its_cap",
    ),
    Bug(
        name="one-confirmation-on-bitcoin",
        plan="M20",
        room="bitcoin",
        networks=("BTC",),
        history="One confirmation was final.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.watch:Watch.depth_of",
                "return max(self._network.confirmations, LARGE_CONFIRMATIONS) if large else self._network.confirmations",
                "return 1 + bool(large)",
            ),
        ),
        test="tests/unit/test_bitcoin_watch.py::test_a_block_counts_from_one_and_is_not_final_before_its_depth",
    ),
)
