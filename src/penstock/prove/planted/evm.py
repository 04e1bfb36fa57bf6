"""Bugs that show on the EVM family's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

EVM: Final = (
    Bug(
        name="nonce-too-low-is-failure",
        room="evm",
        history='A node said "nonce too low", because it had mined this very transaction, and it was taken for a refusal: the order was failed.',
        edits=(
            Edit(
                "penstock.rails.evm.rail:verdict_of",
                "Verdict.ACCEPTED if known else Verdict.UNKNOWN",
                'Verdict.ACCEPTED if known else Verdict.REFUSED if "nonce too low" in answer.words else Verdict.UNKNOWN',
            ),
        ),
        test="tests/unit/test_evm_rail.py::test_every_other_answer_is_unknown_and_the_next_node_is_asked",
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
        test="tests/unit/test_evm_rail.py::test_a_bump_raises_both_fields_by_an_eighth_and_keeps_all_else",
    ),
    Bug(
        name="bump-by-too-little",
        room="evm",
        history="A replacement raised the price by one wei, which every pool refuses: stuck transactions stayed stuck.",
        source="https://geth.ethereum.org/docs/fundamentals/command-line-options",
        edits=(Edit("penstock.rails.evm.fees:bumped", "max(-(-terms[name] * 9 // 8), terms[name] + 1)", "terms[name] + 1"),),
        test="tests/unit/test_evm_rail.py::test_a_bump_raises_both_fields_by_an_eighth_and_keeps_all_else",
    ),
    Bug(
        name="balance-by-one-node",
        room="bitcoin",
        networks=("BTC",),
        history="One node that knew nothing, while the other was down, made the hot address look empty. (A storm on Bitcoin's box found it.)",
        edits=(
            Edit(
                "penstock.rails.bitcoin.rail:BitcoinRail.holdings_at",
                "if len(purses) < self._watch.needed:",
                "if not purses:",
            ),
        ),
        test="tests/unit/test_bitcoin_rail.py::test_as_many_nodes_as_must_agree_keep_wallets",
    ),
    Bug(
        name="revert-believed-at-once",
        plan="M21",
        room="evm",
        history="A revert in the newest block was a failure at once, and paid again with a new nonce; a fork undid it, and both were paid.",
        edits=(
            Edit(
                "penstock.rails.evm.watch:judge",
                "return Included(landed.txid, landed.block, depth, landed.status and landed.paid)",
                "return (\n"
                "            Included(landed.txid, landed.block, depth, landed.paid)\n"
                "            if landed.status\n"
                '            else FailedOnChain(landed.txid, landed.block, landed.fee, "the transaction reverted")\n'
                "        )",
            ),
        ),
        test="tests/unit/test_evm_watch.py::test_a_receipt_in_a_later_block_is_included",
    ),
)
