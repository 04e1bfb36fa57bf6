"""Two addresses that lead to one Lightning node, and what they say together; the first that answered was believed once, also when it lied."""

import pytest

from penstock.rails.lightning import codec
from penstock.rails.lightning.rail import together
from penstock.rails.lightning.talk import Fate, Sighting
from tests.fixtures.lightning_bench import REGTEST, hash_of, intent_of, preimage_of, version_of

ORDER = codec.decode(version_of(intent_of()).raw, REGTEST)
PAID = Sighting(Fate.SETTLED, preimage_of(1).hex(), ORDER.amount_msat, 7)
FORGED = Sighting(Fate.SETTLED, "11" * 32, ORDER.amount_msat, 0)
FAILED, UNKNOWN, PENDING = Sighting(Fate.FAILED), Sighting(Fate.UNKNOWN), Sighting(Fate.PENDING)


def test_the_preimage_here_is_that_of_the_order():
    assert hash_of(1) == ORDER.payment_hash


@pytest.mark.parametrize("other", [FAILED, UNKNOWN, PENDING, FORGED])
def test_a_preimage_is_proof_whoever_brings_it(other):
    assert together(ORDER, [other, PAID], needed=2) == PAID
    assert together(ORDER, [PAID, other], needed=2) == PAID
    assert together(ORDER, [PAID], needed=2) == PAID


def test_a_failure_needs_both_addresses():
    assert together(ORDER, [FAILED, FAILED], needed=2).fate is Fate.FAILED
    assert together(ORDER, [FAILED], needed=1).fate is Fate.FAILED
    assert together(ORDER, [FAILED], needed=2).fate is Fate.PENDING
    assert together(ORDER, [FAILED, UNKNOWN], needed=2).fate is Fate.PENDING


def test_what_addresses_say_differently_waits():
    dearer = Sighting(Fate.SETTLED, PAID.preimage, PAID.amount_msat, PAID.fee_msat + 1)
    assert together(ORDER, [PAID, dearer], needed=2).fate is Fate.PENDING
    assert together(ORDER, [UNKNOWN, PENDING], needed=2).fate is Fate.PENDING
    assert together(ORDER, [FORGED, UNKNOWN], needed=2).fate is Fate.PENDING


def test_what_all_say_is_what_is_so():
    assert together(ORDER, [UNKNOWN], needed=2) == UNKNOWN
    assert together(ORDER, [FORGED, FORGED], needed=2) == FORGED
