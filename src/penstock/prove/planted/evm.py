"""Bugs that show on the EVM family's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

EVM: Final = (
    Bug(
        name="nonce-too-low-is-failure",
        room="evm",
        history='A node said "nonce too low", because it had mined this very transaction, and the order was failed and its money given back.',
        edits=(
            Edit(
                "penstock.rails.evm.rail:EvmRail.submit",
                "    return await self._submit(found.txid, raw)",
                "    said = await self._submit(found.txid, raw)\n"
                "    if 'nonce too low' in said.detail:\n"
                "        self.__dict__.setdefault('_failed', set()).add(found.txid)\n"
                "    return said",
            ),
            Edit(
                "penstock.rails.evm.rail:EvmRail.observe",
                "    return await self._watch.observe(versions)",
                "    seen = await self._watch.observe(versions)\n"
                "    if versions[-1].txid in self.__dict__.get('_failed', ()):\n"
                "        from penstock.core.event import FailedOnChain\n"
                "        seen = FailedOnChain(versions[-1].txid, 0, 0, 'nonce too low')\n"
                "    return seen",
            ),
        ),
        caught_by="",
        seed=0,
    ),
    Bug(
        name="cap-forgotten-by-a-bump",
        plan="M22",
        room="evm",
        history="Each bump paid what the market asked, whatever the cap of the order was.",
        edits=(
            Edit("penstock.rails.evm.fees:bumped", "if least > affordable:", "if False:"),
            Edit(
                "penstock.rails.evm.fees:bumped",
                "terms[name] = min(max(least, market.get(name, 0)), affordable)",
                "terms[name] = 10 * max(least, market.get(name, 0))",
            ),
        ),
        caught_by="",
        seed=0,
    ),
    Bug(
        name="bump-by-too-little",
        room="evm",
        history="A replacement raised the price by one wei, which every pool refuses: stuck transactions stayed stuck.",
        source="https://geth.ethereum.org/docs/fundamentals/command-line-options",
        edits=(Edit("penstock.rails.evm.fees:bumped", "max(-(-terms[name] * 9 // 8), terms[name] + 1)", "terms[name] + 1"),),
        caught_by="",
        seed=0,
    ),
    Bug(
        name="balance-by-one-node",
        room="bitcoin",
        network="BTC",
        history="One node that knew nothing, while the other was down, made the hot address look empty. (A storm on Bitcoin's box found it.)",
        edits=(
            Edit(
                "penstock.rails.bitcoin.rail:BitcoinRail.holdings_at",
                "if len(purses) < self._watch.needed:",
                "if not purses:",
            ),
        ),
        caught_by="",
        seed=0,
    ),
)
