"""Bugs of the road itself: intake, books, sending, following, settling. They show on any network."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

DEAD_ORDERS_MAY_GO_ON: Final = Edit(
    "penstock.signer.local:LocalSigner._bury",
    'raise SignRefused(f"attempt {death.attempt_id}: what was signed for it never expires")',
    "pass",
)
"""The signer's own guard, taken out beside a defect that it would stop, so that what is shown is the payment and not the guard."""


def without(old: str, new: str = "") -> Edit:
    """The schema without the constraint that would have stopped a defect of the code above it."""
    return Edit(
        "penstock.sql:migrations",
        'f.read_text("utf-8")',
        f'(text if {old!r} not in (text := f.read_text("utf-8")) else text.replace({old!r}, {new!r}))',
    )


ROOMS: Final = (
    Bug(
        name="new-nonce-after-timeout",
        plan="M1",
        room="orders",
        history="No node knew the transaction, so it was given up as timed out and the order was sent again with a new nonce.",
        edits=(
            Edit(
                "penstock.orders.follow:Follower._observe",
                "    decision = advance(",
                '    seen = Dead("timed out") if type(seen).__name__ == "Absent" else seen\n    decision = advance(',
            ),
            DEAD_ORDERS_MAY_GO_ON,
        ),
        seed=10,
    ),
    Bug(
        name="pool-miss-is-failure",
        plan="M2",
        room="orders",
        history="A transaction that no node's pool had was called failed; the reserve went back to the merchant, and then it was mined.",
        edits=(
            Edit(
                "penstock.orders.follow:Follower._observe",
                "    decision = advance(",
                "    if type(seen).__name__ == 'Absent':\n"
                "        seen = FailedOnChain(attempt.signed[-1].txid, 0, 0, 'not in any pool')\n    decision = advance(",
            ),
        ),
        seed=1,
    ),
    Bug(
        name="balance-kept-in-memory",
        plan="M4",
        room="ledger",
        history="The balance was read once and kept: a check against what somebody else had changed meanwhile, and a write over it.",
        edits=(
            Edit(
                "penstock.ledger.book:Book._read",
                "    return {",
                "    kept = self.__dict__.setdefault('_kept', {})\n    return {key: kept.setdefault(key, balance) for key, balance in {",
            ),
            Edit("penstock.ledger.book:Book._read", "for r in rows}", "for r in rows}.items()}"),
            Edit("penstock.ledger.book:Book._write_balances", "AND balance.version = b.version", ""),
        ),
        seed=6,
    ),
    Bug(
        name="look-taken-for-a-lock",
        room="ledger",
        history="What had been looked at was written as if nobody had moved it until it was locked: two processes spent the same money.",
        edits=(
            Edit("penstock.ledger.book:Book._move_balances", "a.now - a.read, r.now - r.read", "a.now, r.now"),
            Edit("penstock.ledger.book:Book._move_balances", "balance.available + held.available", "held.available"),
            Edit("penstock.ledger.book:Book._move_balances", "balance.reserved + held.reserved", "held.reserved"),
        ),
        test="tests/integration/test_late_lock.py::test_what_others_took_meanwhile_stays_taken",
    ),
    Bug(
        name="reserve-not-checked",
        plan="M4",
        room="ledger",
        history="Whoever asked for more than there was got it: the balance was looked at, and written whatever it said.",
        edits=(
            Edit("penstock.ledger.book:Sheet.post", "if after < 0:", "if False:"),
            without("available {AMOUNT} NOT NULL CHECK ({NOT_NEGATIVE available})", "available {AMOUNT} NOT NULL"),
        ),
        seed=3,
    ),
    Bug(
        name="newest-version-only",
        plan="M6",
        room="orders",
        history="After a fee bump only the newest transaction id was watched; the older one was mined and nobody saw it.",
        edits=(
            Edit(
                "penstock.orders.follow:Follower._observe",
                "attempt.views()",
                "attempt.views()[-1:]",
            ),
        ),
        test="tests/integration/test_road.py::test_a_stuck_payment_is_bumped_on_the_same_slot_and_any_version_may_win[sqlite]",
    ),
    Bug(
        name="nonce-from-the-node",
        plan="M17",
        room="orders",
        history="The next nonce was whatever the node's count said, which does not know what is still on its way.",
        edits=(
            Edit(
                "penstock.orders.treasury:Treasury._open",
                "elif mined is not None and mined > lane.next_slot and self.comparable(chain, seen.began_ms):\n"
                "            self._strange_slots(tx, lane, mined, seen.held)",
                "elif mined is not None:\n            tx.run('UPDATE lane SET next_slot = :slot WHERE id = :id', slot=mined, id=lane.id)",
            ),
            without(",\n    UNIQUE (lane_id, slot)"),
        ),
        seed=7,
    ),
    Bug(
        name="gap-in-the-nonces",
        plan="M18",
        room="orders",
        history="An order that was held for want of coins took a nonce all the same; nothing behind the gap could ever land.",
        edits=(
            Edit(
                "penstock.orders.choose:Chooser._intent",
                "self._slots[len(choice.intents)]",
                "lane.next_slot + len(choice.intents) + len(choice.held)",
            ),
            Edit("penstock.orders.attempts:_take_slots", "for slot in range(lane.next_slot, end)]", "for slot in ()]"),
        ),
        seed=14,
    ),
    Bug(
        name="unrecorded-send-is-repeated",
        plan="M19",
        room="orders",
        history="What a crash left signed but not recorded as sent was taken for unsent, and its orders were paid by a new transaction.",
        edits=(
            Edit(
                "penstock.orders.attempts:take_over",
                '    tx.run("UPDATE attempt SET due_at_ms = :now_ms, lease',
                "    tx.run(\"UPDATE orders SET state = 'accepted', due_at_ms = :now_ms, lease = '' WHERE state = 'sending' AND id IN \"\n"
                "           \"(SELECT order_id FROM attempt_order JOIN attempt ON attempt.id = attempt_id WHERE attempt.state = 'signed')\",\n"
                "           now_ms=now_ms)\n"
                "    tx.run(\"UPDATE attempt_order SET live = 0 WHERE attempt_id IN (SELECT id FROM attempt WHERE state = 'signed')\")\n"
                "    tx.run(\"UPDATE attempt SET state = 'dead', due_at_ms = NULL, lease = '' WHERE state = 'signed'\")\n"
                '    tx.run("UPDATE attempt SET due_at_ms = :now_ms, lease',
            ),
        ),
        seed=3,
        crash="sign:after",
    ),
    Bug(
        name="settled-at-the-first-block",
        plan="M20",
        room="orders",
        history="One confirmation was final: the fork that dropped the block was never looked for.",
        edits=(
            Edit(
                "penstock.orders.follow:Follower._observe",
                "    decision = advance(",
                "    if isinstance(seen, Included) and seen.succeeded:\n"
                "        seen = FinalOnChain(seen.txid, seen.block, 21_000)\n    decision = advance(",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="reorg-ignored",
        room="core",
        history="Once in a block, always in a block: when a fork threw the payment out, nobody sent it again.",
        edits=(Edit("penstock.core.attempt:_not_in_a_block", "Decision(A.SENT, Outcome.UNDO)", "Decision(A.INCLUDED, Outcome.WAIT)"),),
        test="tests/integration/test_road.py::test_a_reorg_before_the_report_takes_the_order_back_but_never_its_wire_status[sqlite]",
    ),
    Bug(
        name="duplicates-known-in-memory-alone",
        plan="M23",
        room="orders",
        history="Repeats were recognised by a set in the process: after a restart the merchant's retry was a second order.",
        edits=(
            Edit(
                "penstock.orders.intake:Intake._take_keys",
                "for key in sorted(firsts)",
                "for key in sorted(firsts) if key not in self.__dict__.setdefault('_known', set())",
            ),
            Edit(
                "penstock.orders.intake:Intake._take_keys",
                "    return {(row[",
                "    self._known |= {(row['merchant_id'], row['merchant_order_id']) for row in taken}\n    return {(row[",
            ),
            without(",\n    PRIMARY KEY (merchant_id, merchant_order_id)"),
        ),
        seed=3,
    ),
    Bug(
        name="event-after-the-commit",
        plan="M25",
        room="orders",
        history="The event was written in a transaction of its own after the settlement: a crash between the two lost it.",
        edits=(
            Edit(
                "penstock.orders.settle:Settler._write",
                "self._outbox.enqueue(tx, events)",
                "self.__dict__.setdefault('_later', []).extend(events)",
            ),
            Edit(
                "penstock.orders.settle:Settler.apply",
                "    if count:",
                "    rows = self.__dict__.pop('_later', [])\n"
                "    if rows:\n"
                "        await self._database.write('events', lambda tx: self._outbox.enqueue(tx, rows))\n    if count:",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="event-forgotten",
        room="orders",
        history="The order was decided and nobody told the merchant.",
        edits=(Edit("penstock.orders.settle:Settler._write", "if decided:", "if not decided:"),),
        seed=3,
    ),
    Bug(
        name="webhook-retry-forgotten",
        room="webhooks",
        history="An event whose first delivery failed was parked at once; nobody tried again.",
        edits=(Edit("penstock.webhooks.deliver:Deliverer._what_next", "event.tries >= len(self._schedule)", "event.tries >= 0"),),
        seed=1,
    ),
    Bug(
        name="any-answer-is-delivery",
        room="webhooks",
        history="A send that got no answer counted as delivered.",
        edits=(
            Edit(
                "penstock.webhooks.deliver:Deliverer._outcome",
                "result = str(error)[:RESULT_MAX]",
                "result, delivered = str(error)[:RESULT_MAX], True",
            ),
        ),
        test="tests/integration/test_webhooks.py::test_every_way_to_fail_is_logged_and_the_next_send_can_succeed[sqlite]",
    ),
    Bug(
        name="claimed-event-lost-in-a-crash",
        room="webhooks",
        history="A claimed event was no longer due, so that a crash while it was being sent lost it.",
        edits=(
            Edit(
                "penstock.webhooks.outbox:claim",
                "tx.all(_TAKE_SAME,",
                "tx.all(_TAKE_SAME.replace('due_at_ms = :until_ms', 'due_at_ms = :until_ms + 1000000000'),",
            ),
            Edit("penstock.webhooks.outbox:Outbox.take_over", "SUBSTR(lease, 1, 1) = :seated", "lease = 'nobody' || :seated"),
            Edit("penstock.orders.clock:Clock._far", "due_at_ms IS NOT NULL AND", "due_at_ms IS NULL AND"),
        ),
        seed=3,
        crash="deliver.claim:after",
    ),
    Bug(
        name="value-paid-instead-of-net",
        room="orders",
        history="The recipient got the whole value although the fee was to come out of it.",
        edits=(Edit("penstock.orders.choose:payment_of", "CoinAmount(token.coin, order.net)", "CoinAmount(token.coin, order.value)"),),
        seed=3,
    ),
    Bug(
        name="gas-not-booked",
        room="orders",
        history="The network's fee was paid by the hot address and by nobody in the books.",
        edits=(
            Edit(
                "penstock.orders.settle:Settler._gas",
                "changes.sheet.post(",
                "str(",
            ),
        ),
        seed=3,
    ),
    Bug(
        name="bump-without-a-row",
        room="orders",
        history="A fee bump was signed and sent before its version was stored.",
        edits=(
            Edit(
                "penstock.orders.follow:Follower._bump",
                '        version = await self._database.write("bump", job)',
                "        (signed,) = await self._stages._signer.sign([intent])\n"
                "        await rail.submit(signed.raw)\n"
                "        version = None",
            ),
        ),
        seed=11,
    ),
    Bug(
        name="sent-before-it-is-stored",
        plan="M3",
        room="orders",
        history="The bytes went to a node first and into the database afterwards: a crash between left a payment that nobody had sent.",
        edits=(
            Edit(
                "penstock.orders.stages:Stages.sign",
                '    await self._database.write("sign",',
                "    for one in signed:\n"
                "        rail = self._board.rail(next(v.intent.chain for v in versions if v.attempt_id == one.attempt_id))\n"
                "        if rail is not None:\n"
                "            await rail.submit(one.raw)\n"
                '    await self._database.write("sign",',
            ),
        ),
        seed=3,
    ),
    Bug(
        name="treasury-forgets-the-last-look",
        room="orders",
        history="Each look at the hot address was booked as if it were the first: every coin arrived again and again.",
        edits=(Edit("penstock.orders.treasury:Treasury._expected", 'held = last["observed"] if last is not None else 0', "held = 0"),),
        seed=3,
    ),
    Bug(
        name="key-kept-by-a-refusal",
        room="orders",
        history="A refused request kept its id: the merchant who had topped up and asked again was told that the order existed.",
        edits=(Edit("penstock.orders.intake:Intake._drop_keys", "if keys:", "if False:"),),
        seed=3,
    ),
    Bug(
        name="never-sent-again",
        room="core",
        history="What the pools had lost was waited for, for ever: they would surely have it.",
        edits=(
            Edit(
                "penstock.core.attempt:advance",
                "return _not_in_a_block(state, Outcome.RESEND)",
                "return _not_in_a_block(state, Outcome.WAIT)",
            ),
        ),
        test="tests/unit/test_core_attempt.py::test_what_an_observation_means",
    ),
    Bug(
        name="two-batches-on-one-chain",
        room="orders",
        history="Two batches under way at once wrote the same link of one chain: the second was refused to its callers, with the first.",
        edits=(
            Edit(
                "penstock.orders.intake:Intake.run", "map(self._take_turns, self._books)", "map(self._take_turns, [*self._books][:1] * 2)"
            ),
        ),
        test="tests/integration/test_two_batches.py::test_a_batch_is_answered_while_the_one_before_waits_for_its_commit",
    ),
    Bug(
        name="unknown-commit-is-a-refusal",
        plan="M36",
        room="orders",
        history="A COMMIT whose answer was lost was taken for a rollback: the merchant was refused, and the order was there and was paid.",
        edits=(
            Edit(
                "penstock.orders.intake:Intake._apply_surely",
                '            log.warning("intake.commit.unknown", attempt=attempt)',
                "            return [Refused(Problem.DISABLED_WITHDRAW, 'rolled back') for _ in batch.drafts]",
            ),
        ),
        test="tests/integration/test_db.py::test_after_a_commit_lost_on_the_wire_the_intake_finds_its_own_orders[answer]",
    ),
    Bug(
        name="verdict-without-a-fence",
        plan="M33",
        room="orders",
        history="Who had slept over its claim wrote the outcome all the same, over what its successor had found.",
        edits=(
            Edit(
                "penstock.orders.settle:Settler._lock",
                "now.get(v.attempt.id) == (v.attempt.state.value, v.attempt.due_at_ms)",
                "v.attempt.id in now",
            ),
        ),
        test="tests/integration/test_road.py::test_a_worker_that_slept_while_another_looked_settles_nothing",
    ),
    Bug(
        name="commit-before-the-disk-has-it",
        plan="M34",
        room="db",
        history="PostgreSQL answered COMMIT before the disk had it (synchronous_commit off): a power cut took payments back that were sent.",
        source="https://www.postgresql.org/docs/current/wal-async-commit.html",
        edits=(
            Edit(
                "penstock.db.postgresql:PostgresDatabase._connect",
                '("fsync", "full_page_writes", "synchronous_commit")',
                '("fsync", "full_page_writes")',
            ),
        ),
        test="tests/integration/test_db.py::test_postgresql_that_does_not_wait_for_the_disk_is_refused",
    ),
    Bug(
        name="sqlite-that-does-not-sync",
        plan="M35",
        room="db",
        history="SQLite in WAL mode with synchronous=NORMAL does not sync at COMMIT: a power cut took payments back that were sent.",
        source="https://www.sqlite.org/pragma.html#pragma_synchronous",
        edits=(Edit("penstock.db.sqlite:SqliteDatabase._check", "if level != 2:", "if level < 1:"),),
        test="tests/integration/test_db.py::test_sqlite_that_does_not_sync_is_refused",
    ),
)
