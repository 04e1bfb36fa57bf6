"""The whole road on a virtual clock: bad weather, a crash at every commit, and nothing paid twice or lost.

`make sim SEEDS=1000` runs more; a failure prints the seed that replays it.
"""

import logging

import pytest
import structlog

from penstock.core.attempt import Decision, Outcome
from penstock.core.event import Final, Included
from penstock.ledger import book
from penstock.orders import follow
from penstock.prove.simulation import Violation, run
from penstock.webhooks import outbox

LABELS = [
    f"{name}:{when}"
    for name in (
        "intake send.claim bind sign sent follow.claim settle lane treasury audit.claim audit.pass deliver.claim webhook.record ids.lease ids.renew".split()  # noqa: SIM905
    )
    for when in ("before", "after")
] + ["signer:journaled", "submit:after", "webhook:sent"]

crashed_at: set[str] = set()


@pytest.fixture(autouse=True)
def quiet():
    """What the rooms log in a storm is not what a test prints."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def label_of(seed):
    return LABELS[seed % len(LABELS)]


def test_nothing_is_paid_twice_or_lost(simulation_seed):
    outcome = run(simulation_seed, label=label_of(simulation_seed), visit=1 + simulation_seed // len(LABELS) % 3)
    crashed_at.update(outcome.crashes)
    assert outcome.paid > 0


def test_a_crash_was_survived_at_every_commit(request):
    if request.config.option.seeds < 100 or request.config.option.seed is not None:
        return  # too few seeds to say
    assert set(LABELS) - crashed_at == set()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_is_the_same_history(seed):
    first, second = (run(seed, label=label_of(seed)) for _ in range(2))
    assert first.trace == second.trace
    assert first.hash == second.hash


def test_other_seeds_are_other_histories():
    assert len({run(seed).hash for seed in (1, 2, 3)}) == 3


def first_caught(seeds=20):
    """The first of some seeds that tells that something is wrong; None when none does."""
    for seed in range(1, seeds + 1):
        try:
            run(seed, label=label_of(seed))
        except Violation:
            return seed
    return None


WAYS_BACK = (Outcome.RESEND, Outcome.UNDO, Outcome.BUMP)


def test_it_catches_a_payment_that_nobody_sends_again(monkeypatch):
    """A fork or a node forgets it, and it waits for ever."""
    real = follow.advance

    def careless(state, seen, *, report_depth):
        decision = real(state, seen, report_depth=report_depth)
        return Decision(decision.state, Outcome.WAIT) if decision.outcome in WAYS_BACK else decision

    monkeypatch.setattr(follow, "advance", careless)
    assert first_caught() is not None


def test_it_catches_success_that_is_reported_at_the_first_block(monkeypatch):
    """Settled at depth 1: a fork drops the block, and the next version or nobody pays."""
    real = follow.advance

    def hasty(state, seen, *, report_depth):
        if isinstance(seen, Included) and seen.succeeded:
            seen = Final(seen.txid, seen.block, 21_000)
        return real(state, seen, report_depth=report_depth)

    monkeypatch.setattr(follow, "advance", hasty)
    assert first_caught() is not None


def test_it_catches_an_event_that_is_written_outside_of_the_settlement(monkeypatch):
    monkeypatch.setattr(outbox.Outbox, "enqueue", lambda *_: None)
    assert first_caught() is not None


def test_it_catches_a_reserve_that_is_not_checked(monkeypatch):
    """Whoever asks for more than there is gets it."""
    monkeypatch.setattr(book.Sheet, "post", lambda self, entry: self.entries.append(entry))
    assert first_caught() is not None


def test_a_chain_without_a_block_to_undo_is_no_end_of_the_story():
    assert run(1042).paid > 0
