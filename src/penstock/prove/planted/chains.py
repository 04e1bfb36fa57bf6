"""Bugs of the chain families, each to be caught on that family's network."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit
from penstock.prove.planted.rooms import DEAD_ORDERS_MAY_GO_ON

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
        seed=1,
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
        seed=1,
    ),
    Bug(
        name="bump-by-too-little",
        room="evm",
        history="A replacement raised the price by one wei, which every pool refuses: stuck transactions stayed stuck.",
        source="https://geth.ethereum.org/docs/fundamentals/command-line-options",
        edits=(Edit("penstock.rails.evm.fees:bumped", "max(-(-terms[name] * 9 // 8), terms[name] + 1)", "terms[name] + 1"),),
        caught_by="",
        seed=1,
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
        seed=1,
    ),
)

TRON: Final = (
    Bug(
        name="rebuilt-before-it-expired",
        plan="M9",
        room="tron",
        network="TRX",
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
        caught_by="",
        seed=3,
    ),
    Bug(
        name="absent-by-one-node",
        room="tron",
        network="TRX",
        history="One node that listed no transactions was enough to call an expired payment dead.",
        edits=(
            Edit("penstock.rails.tron.watch:Watch.needed_for_absence", "return self.needed if self._network.is_test else 2", "return 1"),
        ),
        caught_by="",
        seed=3,
    ),
    Bug(
        name="return-value-believed",
        plan="M10",
        room="tron",
        network="TRX",
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
        caught_by="should have arrived",
        seed=1,
    ),
    Bug(
        name="success-without-an-event",
        plan="M11",
        room="tron",
        network="TRX",
        history="A receipt that says SUCCESS was enough; the token had moved nothing and told of nothing.",
        edits=(Edit("penstock.rails.tron.watch:read", "if intent.contract is not None and paid:", "if False:"),),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="settled-by-what-was-asked",
        plan="M37",
        room="tron",
        network="TRX",
        history="Any Transfer of the token to the recipient was the payment, whatever it moved: a token that takes a fee delivered less.",
        edits=(
            Edit(
                "penstock.rails.tron.codec:exact_transfer_count",
                "parse_transfer_log(log) == (contract, sender, recipient, units)",
                "(parse_transfer_log(log) or ('', '', '', units))[:3] == (contract, sender, recipient)",
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="wrong-digit-in-the-topic",
        room="tron",
        network="TRX",
        history="One digit of Transfer's topic was wrong, in the rail and in its own tests alike. (The box, which runs real contracts, found it.)",
        edits=(
            Edit(
                "penstock.rails.tron.codec:parse_transfer_log",
                "topics[0] != TRANSFER_TOPIC",
                'topics[0] != TRANSFER_TOPIC.replace("ddf2", "ddf3")',
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="status-goes-back",
        room="core",
        network="TRX",
        history="An order whose transaction had expired went from processing back to pending, in the merchant's eyes too.",
        edits=(Edit("penstock.core.order:wire_status", "max(_WIRE[state], shown)", "_WIRE[state]"),),
        caught_by="went back",
        seed=1,
    ),
    Bug(
        name="death-not-told-to-the-signer",
        room="orders",
        network="TRX",
        history="A dead attempt was forgotten by the database alone: the signer refused its order for ever.",
        edits=(Edit("penstock.orders.follow:Follower._buried", "if not deaths or await self._stages.bury(deaths):", "if True:"),),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="reserve-kept-after-failure",
        room="orders",
        network="TRX",
        history="A failed order never gave its reserve back.",
        edits=(
            Edit(
                "penstock.orders.settle:Settler._failed",
                "changes.sheet.post(ledger.release(order.id, order.payer, order.coin_id, order.reserve))",
                "pass",
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="fork-believed-solid",
        room="tron",
        network="TRX",
        history="A block that was merely mined was taken for solidified; the fork that dropped it came later.",
        edits=(Edit("penstock.rails.tron.watch:Watch._view", "solid=block <= tips.solid.number", "solid=block <= tips.head.number"),),
        caught_by="",
        seed=1,
    ),
)

XRP: Final = (
    Bug(
        name="local-results-are-final",
        plan="M12",
        room="xrp",
        network="XRP",
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
        caught_by="should have arrived",
        seed=2,
    ),
    Bug(
        name="new-sequence-when-it-expired",
        plan="M13",
        room="xrp",
        network="XRP",
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
        caught_by="should have arrived",
        seed=1,
    ),
    Bug(
        name="gap-in-the-ledgers-ignored",
        plan="M14",
        room="xrp",
        network="XRP",
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
        caught_by="should have arrived",
        seed=2,
    ),
    Bug(
        name="tag-dropped",
        plan="M31",
        room="xrp",
        network="XRP",
        history="The destination tag was left out of the payment: at an exchange it is nobody's money.",
        edits=(Edit("penstock.rails.xrp.transaction:build", "if payment.memo:", "if False:"),),
        caught_by="a lane stands",
        seed=1,
    ),
    Bug(
        name="partial-payment",
        room="xrp",
        network="XRP",
        history="Payments carried tfPartialPayment, so that a ledger may deliver any part of the amount and call it success.",
        source="https://xrpl.org/docs/concepts/payment-types/partial-payments",
        edits=(Edit("penstock.rails.xrp.transaction:build", '"Flags": FULLY_CANONICAL |', '"Flags": FULLY_CANONICAL | 0x00020000 |'),),
        caught_by="a lane stands",
        seed=1,
    ),
    Bug(
        name="memo-never-reaches-the-payment",
        plan="M31",
        room="orders",
        network="XRP",
        history="The memo was checked, stored and left out of what was signed.",
        edits=(Edit("penstock.orders.choose:payment_of", "order.destination, order.memo,", 'order.destination, "",'),),
        caught_by="not everything finished",
        seed=1,
    ),
)

BITCOIN: Final = (
    Bug(
        name="other-coins-on-retry",
        plan="M7",
        room="bitcoin",
        network="BTC",
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
        caught_by="",
        seed=1,
    ),
    Bug(
        name="abandoned-comes-back",
        plan="M8",
        room="bitcoin",
        network="BTC",
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
        caught_by="",
        seed=1,
    ),
    Bug(
        name="bump-with-other-coins",
        room="bitcoin",
        network="BTC",
        history="A bump left out the anchor, so that it replaced nothing.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.coins:bump",
                "return replace(intent, version=version,",
                "return replace(intent, resources=intent.resources[1:] or (Resource('00' * 32 + ':0', intent.resources[0].units),), version=version,",
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="one-confirmation-on-bitcoin",
        plan="M20",
        room="bitcoin",
        network="BTC",
        history="One confirmation was final.",
        edits=(
            Edit(
                "penstock.rails.bitcoin.watch:Watch.depth_of",
                "return max(self._network.confirmations, LARGE_CONFIRMATIONS) if large else self._network.confirmations",
                "return 1 + bool(large)",
            ),
        ),
        caught_by="",
        seed=1,
    ),
)

LIGHTNING: Final = (
    Bug(
        name="no-answer-is-failure",
        plan="M15",
        room="lightning",
        network="LIGHTNING",
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
        caught_by="",
        seed=1,
    ),
    Bug(
        name="expired-invoice-is-failure",
        plan="M16",
        room="lightning",
        network="LIGHTNING",
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
        caught_by="should have arrived",
        seed=1,
    ),
    Bug(
        name="failure-believed-at-once",
        room="lightning",
        network="LIGHTNING",
        history="FAILED was believed while a call of ours lay on its way to the node, which takes the hash of a failed payment again.",
        edits=(
            Edit(
                "penstock.rails.lightning.fates:Memory.certainly_failed", "sure = self.sent == 1", "return True\n    sure = self.sent == 1"
            ),
        ),
        caught_by="should have arrived",
        seed=8,
    ),
    Bug(
        name="lost-call-made-again-elsewhere",
        room="lightning",
        network="LIGHTNING",
        history="A call that got no answer was made again at the node's second address and counted once. (A hundred seeded months found it.)",
        edits=(
            Edit(
                "penstock.rails.lightning.rail:LightningRail._submit",
                "(answer,) = await self._nodes.ask(self._nodes.usable()[0], [Call(SEND, (order,))])",
                "answer = await self._nodes.read(Call(SEND, (order,)), _is(Submission))",
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="look-dated-too-early",
        room="orders",
        network="LIGHTNING",
        history="A look at what the node owns was dated when it began: a payment that began and ended meanwhile looked like money that left.",
        edits=(
            Edit(
                "penstock.orders.treasury:Treasury.look",
                "Look(chain, address, began_ms, self._runtime.now_ms(), held)",
                "Look(chain, address, began_ms, began_ms, held)",
            ),
        ),
        caught_by="",
        seed=1,
    ),
    Bug(
        name="invoice-paid-twice",
        room="orders",
        network="LIGHTNING",
        history="Nobody noted which invoices had been given before: two orders for one payment hash, and the second never ends.",
        edits=(Edit("penstock.orders.accept:Accept._outside", "), destination.once", '), ""'),),
        caught_by="",
        seed=1,
    ),
)
