"""Bugs that show on TRON's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

TRON: Final = (
    Bug(
        name="rebuilt-before-it-expired",
        plan="M9",
        room="tron",
        networks=("TRX",),
        history="Past its expiration by our own clock, and in no block that the only node that answered knew: paid again, beside the first.",
        source="https://developers.tron.network/docs/tron-protocol-transaction",
        edits=(
            Edit(
                "penstock.rails.tron.rail:TronRail.observe",
                "    return await self._watch.observe(versions[0])",
                "    seen = await self._watch.observe(versions[0])\n"
                "    if type(seen).__name__ in ('Absent', 'Pending') and self._runtime.now_ms() > versions[0].intent.terms['expiration']:\n"
                "        from penstock.core.event import Dead\n"
                "        return Dead('expired by our clock')\n"
                "    return seen",
            ),
        ),
        test="tests/integration/test_tron_lives.py::test_whatever_this_machines_clock_says_an_order_is_paid_at_most_once[edge-0]",
    ),
    Bug(
        name="absent-by-one-node",
        room="tron",
        networks=("TRX",),
        history="One node that listed no transactions was enough to call an expired payment dead.",
        edits=(
            Edit("penstock.rails.tron.watch:Watch.needed_for_absence", "return self.needed if self._network.is_test else 2", "return 1"),
        ),
        test="tests/unit/test_tron_watch.py::test_one_node_of_two_proves_no_death",
    ),
    Bug(
        name="return-value-believed",
        plan="M10",
        room="tron",
        networks=("TRX",),
        history="USDT on TRON returns false when it has paid; who believes the return value calls a payment failed and makes another.",
        edits=(
            Edit(
                "penstock.rails.tron.watch:read",
                '    payment, paid = intent.payments[0], status == "success"',
                "    if intent.contract is not None and (word := (info.get('contractResult') or [''])[0]) and not word.strip('0'):\n"
                '        status = "failed"\n'
                '    payment, paid = intent.payments[0], status == "success"',
            ),
        ),
        test="tests/unit/test_tron_watch.py::test_what_the_tokens_call_returned_means_nothing",
    ),
    Bug(
        name="success-without-an-event",
        plan="M11",
        room="tron",
        networks=("TRX",),
        history="A receipt that says SUCCESS was enough; the token had moved nothing and told of nothing.",
        edits=(Edit("penstock.rails.tron.watch:read", "if intent.contract is not None and paid:", "if False:"),),
        test="tests/unit/test_tron_watch.py::test_success_without_exactly_our_transfer_is_for_a_person_and_never_sent_again",
    ),
    Bug(
        name="settled-by-what-was-asked",
        plan="M37",
        room="tron",
        networks=("TRX",),
        history="Any Transfer of the token to the recipient was the payment, whatever it moved: a token that takes a fee delivered less.",
        edits=(
            Edit(
                "penstock.rails.tron.codec:exact_transfer_count",
                "_in_lower_case(log) == wanted",
                "[word for n, word in enumerate(_in_lower_case(log)) if n != 1] == [word for n, word in enumerate(wanted) if n != 1]",
            ),
        ),
        test="tests/unit/test_tron_watch.py::test_success_without_exactly_our_transfer_is_for_a_person_and_never_sent_again",
    ),
    Bug(
        name="wrong-digit-in-the-topic",
        room="tron",
        networks=("TRX",),
        history="One digit of Transfer's topic was wrong, in the rail and in its own tests alike. (The box, which runs real contracts, found it.)",
        edits=(
            Edit(
                "penstock.rails.tron.codec:exact_transfer_count",
                "TRANSFER_TOPIC,",
                'TRANSFER_TOPIC.replace("ddf2", "ddf3"),',
            ),
        ),
        seed=2,
    ),
    Bug(
        name="status-goes-back",
        room="core",
        networks=("TRX",),
        history="An order whose transaction had expired went from processing back to pending, in the merchant's eyes too.",
        edits=(Edit("penstock.core.order:wire_status", "max(_WIRE[state], shown)", "_WIRE[state]"),),
        test="tests/unit/test_core_order.py::test_the_wire_status_only_rises_on_any_legal_walk",
    ),
    Bug(
        name="death-not-told-to-the-signer",
        room="orders",
        networks=("TRX",),
        history="A dead attempt was forgotten by the database alone: the signer refused its order for ever.",
        edits=(Edit("penstock.orders.follow:Follower._buried", "if not deaths or await self._stages.bury(deaths):", "if True:"),),
        test="tests/integration/test_families.py::test_a_dead_attempt_is_buried_with_the_signer_before_its_order_gets_another[sqlite]",
    ),
    Bug(
        name="reserve-kept-after-failure",
        room="orders",
        networks=("TRX",),
        history="A failed order never gave its reserve back.",
        edits=(
            Edit(
                "penstock.orders.settle:Settler._failed",
                "changes.sheet.post(ledger.release(order.id, order.payer, order.coin_id, order.reserve))",
                "pass",
            ),
        ),
        test="tests/integration/test_road.py::test_failed_on_chain_gives_the_money_back_and_charges_no_fee[sqlite]",
    ),
    Bug(
        name="fork-believed-solid",
        room="tron",
        networks=("TRX",),
        history="A block that was merely mined was taken for solidified; the fork that dropped it came later.",
        edits=(Edit("penstock.rails.tron.watch:Watch._view", "solid=block <= tips.solid.number", "solid=block <= tips.head.number"),),
        test="tests/unit/test_tron_watch.py::test_before_it_is_solidified_it_is_only_included",
    ),
)
