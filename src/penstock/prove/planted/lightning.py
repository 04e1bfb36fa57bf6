"""Bugs that show on Lightning's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

LIGHTNING: Final = (
    Bug(
        name="no-answer-is-failure",
        plan="M15",
        room="lightning",
        networks=("LIGHTNING",),
        history="A status query that failed was taken for a payment that failed; the payment was under way and settled.",
        edits=(
            Edit(
                "penstock.rails.lightning.rail:LightningRail.observe",
                "    seen = await self._look(order, memory)",
                "    try:\n"
                "        seen = await self._look(order, memory)\n"
                "    except NodeUnreachable:\n"
                "        return FailedOnChain(order.payment_hash, self._runtime.now_ms(), 0, 'no answer')",
            ),
        ),
        test="tests/unit/test_lightning_rail.py::test_what_lnd_does_not_say_clearly_proves_nothing",
    ),
    Bug(
        name="expired-invoice-is-failure",
        plan="M16",
        room="lightning",
        networks=("LIGHTNING",),
        history="The invoice had expired while its payment was in flight, and was called failed; the recipient took it all the same.",
        edits=(
            Edit(
                "penstock.rails.lightning.rail:LightningRail.observe",
                "        case Fate.PENDING:\n            return Pending()",
                "        case Fate.PENDING:\n"
                "            if self._runtime.now_ms() > codec.parse(order.invoice, order.chain_id).expires_s * 1000 - 60_000:\n"
                "                return FailedOnChain(order.payment_hash, self._runtime.now_ms(), 0, 'expired')\n"
                "            return Pending()",
            ),
        ),
        seed=2,
    ),
    Bug(
        name="failure-believed-at-once",
        room="lightning",
        networks=("LIGHTNING",),
        history="FAILED was believed while a call of ours lay on its way to the node, which takes the hash of a failed payment again.",
        edits=(
            Edit(
                "penstock.rails.lightning.fates:Memory.certainly_failed", "sure = self.sent == 1", "return True\n    sure = self.sent == 1"
            ),
        ),
        test="tests/unit/test_lightning_rail.py::test_a_failure_that_was_seen_and_is_gone_begins_its_quiet_anew",
    ),
    Bug(
        name="lost-call-made-again-elsewhere",
        room="lightning",
        networks=("LIGHTNING",),
        history="A call that got no answer was made again at the node's second address and counted once. (A hundred seeded months found it.)",
        edits=(
            Edit(
                "penstock.rails.lightning.rail:LightningRail._submit",
                "(answer,) = await self._nodes.ask(self._nodes.usable()[0], [Call(SEND, (order,))])",
                "answer = await self._nodes.read(Call(SEND, (order,)), _is(Submission))",
            ),
        ),
        test="tests/integration/test_lightning_rail_on_box.py::test_a_call_without_an_answer_is_not_made_again_by_another_address_at_once",
    ),
    Bug(
        name="absence-after-its-time-is-failure",
        room="lightning",
        networks=("LIGHTNING",),
        history="What the node does not know after its time was called failed, though the call for it lay on the way to the node.",
        edits=(
            Edit(
                "penstock.rails.lightning.rail:LightningRail._unknown",
                "if not given and not memory.sent:",
                "if True:",
            ),
        ),
        test="tests/integration/test_lightning_rail_on_box.py::test_an_order_that_was_never_given_to_the_node_fails_by_itself_once_its_time_is_over",
    ),
    Bug(
        name="given-before-it-is-written",
        room="orders",
        networks=("LIGHTNING",),
        history="That an invoice is given to the node was committed afterwards only: whoever was killed between had given what nobody had.",
        edits=(
            Edit(
                "penstock.orders.stages:Stages._recorded",
                "    gate = asyncio.Semaphore(SUBMITS_AT_ONCE)",
                "    return list(versions)\n    gate = asyncio.Semaphore(SUBMITS_AT_ONCE)",
            ),
        ),
        test="tests/integration/test_families.py::test_bytes_that_are_given_for_a_time_are_known_to_be_given_before_they_are",
    ),
    Bug(
        name="look-ordered-by-the-wall-clock",
        room="orders",
        networks=("LIGHTNING",),
        history="Whether a payment ended while the treasury looked was told by the wall clock: a step back, and it looked like money that left.",
        edits=(
            Edit(
                "penstock.orders.treasury:Treasury._is_behind",
                "(SELECT COUNT(*) FROM entry WHERE chain = :chain AND block > :block) AS n",
                "(SELECT COUNT(*) FROM attempt WHERE lane_id = :lane_id AND seen_at_ms >= :began_ms) AS n",
            ),
            Edit("penstock.orders.treasury:Treasury._is_behind", "chain=lane.chain,", "began_ms=seen.began_ms,"),
            Edit("penstock.orders.treasury:Treasury._is_behind", "block=seen.held.block,\n        )\n    elif", ")\n    elif"),
        ),
        test="tests/integration/test_families.py::"
        "test_what_ended_while_a_node_with_a_clock_alone_was_looked_at_is_no_outflow_though_the_clock_was_set_back[sqlite]",
    ),
)
