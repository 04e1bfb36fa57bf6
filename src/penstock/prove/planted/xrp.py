"""Bugs that show on the XRP Ledger's network alone, or there first."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit
from penstock.prove.planted.rooms import DEAD_ORDERS_MAY_GO_ON

XRP: Final = (
    Bug(
        name="local-results-are-final",
        plan="M12",
        room="xrp",
        networks=("XRP",),
        history="tel, ter and tef are one server's word for now; taken for failures, they gave money back for payments that were validated.",
        source="https://xrpl.org/docs/references/protocol/transactions/transaction-results",
        edits=(
            Edit(
                "penstock.rails.xrp.rail:XrpRail.submit",
                "    return await self._submit(found.txid, raw)",
                "    said = await self._submit(found.txid, raw)\n"
                "    if any(code in said.detail for code in ('tel', 'ter', 'tef')):\n"
                "        self.__dict__.setdefault('_failed', set()).add(found.txid)\n"
                "    return said",
            ),
            Edit(
                "penstock.rails.xrp.rail:XrpRail.observe",
                "    return await self._watch.observe(versions)",
                "    seen = await self._watch.observe(versions)\n"
                "    if versions[-1].txid in self.__dict__.get('_failed', ()):\n"
                "        from penstock.core.event import FailedOnChain\n"
                "        seen = FailedOnChain(versions[-1].txid, 0, 0, 'refused')\n"
                "    return seen",
            ),
        ),
        seed=1,
    ),
    Bug(
        name="new-sequence-when-it-expired",
        plan="M13",
        room="xrp",
        networks=("XRP",),
        history="Past its last ledger by one server's word the payment was made again with a new sequence.",
        source="https://xrpl.org/docs/concepts/transactions/reliable-transaction-submission",
        edits=(
            Edit(
                "penstock.rails.xrp.rail:XrpRail.observe",
                "    return await self._watch.observe(versions)",
                "    seen = await self._watch.observe(versions)\n"
                "    if type(seen).__name__ in ('Absent', 'Pending') and await self._watch.tip() > versions[-1].intent.terms['last_ledger']:\n"
                "        from penstock.core.event import Dead\n"
                "        return Dead('past its last ledger')\n"
                "    return seen",
            ),
            DEAD_ORDERS_MAY_GO_ON,
        ),
        seed=5,
    ),
    Bug(
        name="gap-in-the-ledgers-ignored",
        plan="M14",
        room="xrp",
        networks=("XRP",),
        history="A server that lacks ledgers answered txnNotFound, and that was taken for absence: the reserve went back.",
        edits=(
            Edit(
                "penstock.rails.xrp.watch:judge",
                "    if all(view.validated > newest.terms",
                "    if any(view.validated > newest.terms['last_ledger'] and not view.waiting for view in views):\n"
                "        return FailedOnChain(versions[-1].txid, newest.terms['last_ledger'], 0, 'not found')\n"
                "    if all(view.validated > newest.terms",
            ),
        ),
        seed=1,
    ),
    Bug(
        name="tag-dropped",
        plan="M31",
        room="xrp",
        networks=("XRP",),
        history="The destination tag was left out of the payment: at an exchange it is nobody's money.",
        edits=(Edit("penstock.rails.xrp.transaction:build", "if payment.memo:", "if False:"),),
        seed=4,
    ),
    Bug(
        name="partial-payment",
        room="xrp",
        networks=("XRP",),
        history="Payments carried tfPartialPayment, so that a ledger may deliver any part of the amount and call it success.",
        source="https://xrpl.org/docs/concepts/payment-types/partial-payments",
        edits=(Edit("penstock.rails.xrp.transaction:build", '"Flags": FULLY_CANONICAL |', '"Flags": FULLY_CANONICAL | 0x00020000 |'),),
        seed=4,
    ),
    Bug(
        name="memo-never-reaches-the-payment",
        plan="M31",
        room="orders",
        networks=("XRP",),
        history="The memo was checked, stored and left out of what was signed.",
        edits=(Edit("penstock.orders.choose:payment_of", "order.destination, order.memo,", 'order.destination, "",'),),
        seed=4,
    ),
)
