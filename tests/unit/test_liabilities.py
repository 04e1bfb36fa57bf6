"""The proof of liabilities: every holder finds exactly what they own below the published root, and nobody can be left out of it unseen."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.liabilities import Liability, ProofWrong, SumTree, check, leaf
from penstock.ledger.liabilities import Liabilities, verify

amounts = st.integers(0, 2**200)
houses = st.lists(st.tuples(amounts, amounts), min_size=1, max_size=40).map(
    lambda pairs: [Liability("coin", f"m:{n}", f"{n:032x}", have, held) for n, (have, held) in enumerate(pairs)]
)


def published(tree):
    return tree.root.hash.hex(), str(tree.root.units)


@given(houses)
def test_every_holder_finds_what_they_own_and_the_total_is_the_sum(house):
    tree = SumTree(house)
    assert tree.root.units == sum(owed.available + owed.reserved for owed in house)
    for owed in house:
        proof = tree.proof(owed.holder)
        assert (proof["available"], proof["reserved"]) == (str(owed.available), str(owed.reserved))
        check(proof, *published(tree))


@given(houses, st.data())
def test_a_lowered_balance_breaks_its_holders_proof(house, data):
    place = data.draw(st.integers(0, len(house) - 1))
    owed = house[place]
    lower = data.draw(st.integers(0, owed.available))
    if lower == owed.available:
        lower += 1  # raising it is no better
    bent = SumTree([*house[:place], replace(owed, available=lower), *house[place + 1 :]])
    for tree in (bent, SumTree(house)):
        mine = tree.proof(owed.holder) | {"available": str(owed.available)}
        if tree is bent:
            with pytest.raises(ProofWrong):
                check(mine, *published(bent))
        else:
            check(mine, *published(tree))


@given(houses, st.data())
def test_a_holder_who_was_left_out_gets_no_path_to_the_root(house, data):
    place = data.draw(st.integers(0, len(house) - 1))
    honest = SumTree(house)
    without = SumTree([*house[:place], *house[place + 1 :]])
    with pytest.raises(KeyError):
        without.proof(house[place].holder)
    with pytest.raises(ProofWrong):
        check(honest.proof(house[place].holder), *published(without))


@given(houses, st.data())
def test_no_sum_on_a_path_can_be_moved_to_the_other_side(house, data):
    """Maxwell's first form hashed only the total of both children: then this passed."""
    tree = SumTree(house)
    owed = house[data.draw(st.integers(0, len(house) - 1))]
    proof = tree.proof(owed.holder)
    if not proof["path"]:
        return
    level = data.draw(st.integers(0, len(proof["path"]) - 1))
    step = proof["path"][level]
    moved = data.draw(st.integers(1, 10**9))
    bent = [*proof["path"][:level], step | {"units": str(int(step["units"]) + moved)}, *proof["path"][level + 1 :]]
    for change in ({"path": bent}, {"path": bent, "available": str(max(0, owed.available - moved))}):
        with pytest.raises(ProofWrong):
            check(proof | change, *published(tree))


def test_amounts_below_zero_cannot_hide_what_is_owed():
    with pytest.raises(ValueError, match="below zero"):
        leaf(Liability("coin", "m:1", "00", -5, 10))
    honest = SumTree([Liability("coin", "m:1", "00", 5, 0), Liability("coin", "m:2", "01", 7, 0)])
    proof = honest.proof("m:1")
    with pytest.raises(ProofWrong, match="digits"):
        check(proof | {"available": "-5"}, *published(honest))


@pytest.mark.parametrize("broken", [{}, {"path": 5}, {"salt": "zz"}, {"available": 5}, {"path": [{}]}, {"holder": None}])
def test_what_is_no_proof_is_one_clear_error(broken):
    tree = SumTree([Liability("coin", "m:1", "00", 5, 0)])
    proof = {} if not broken else tree.proof("m:1") | broken
    with pytest.raises(ProofWrong, match="cannot be read"):
        check(proof, *published(tree))


def test_nobody_stands_in_a_tree_twice():
    twice = [Liability("coin", "m:1", "00", 5, 0), Liability("coin", "m:1", "01", 5, 0)]
    with pytest.raises(ValueError, match="twice"):
        SumTree(twice)


def a_house():
    owed = [Liability(coin, f"m:{n}", f"{n:032x}", n * 10**18, 5) for coin in ("a", "b") for n in range(1, 8)]
    coins = []
    for coin in ("a", "b"):
        root = SumTree([one for one in owed if one.coin_id == coin]).root
        coins.append({"coin_id": coin, "coin": coin.upper(), "total": str(root.units), "root": root.hash.hex(), "holders": 7})
    return Liabilities({"form": 1, "at_ms": 17, "chain_head": "0" * 64, "coins": coins}, owed)


def test_a_proof_survives_being_kept_and_is_of_its_day():
    taken = Liabilities.restored(json.loads(json.dumps(a_house().secret())))
    proof = json.loads(json.dumps(taken.proof("m:3")))
    shown = verify(proof, taken.public)
    assert [(one["coin"], one["available"], one["reserved"]) for one in shown] == [("A", str(3 * 10**18), "5"), ("B", str(3 * 10**18), "5")]
    with pytest.raises(ProofWrong, match="another day"):
        verify(proof | {"at_ms": 18}, taken.public)
    with pytest.raises(KeyError):
        taken.proof("m:99")


def test_the_procedure_in_the_documentation_checks_a_proof_without_us(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "liabilities.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "check.py").write_text(script)
    taken = a_house()
    proof = taken.proof("m:3")
    (tmp_path / "owed.json").write_text(json.dumps(taken.public))

    def verdict(given):
        (tmp_path / "proof.json").write_text(json.dumps(given))
        command = [sys.executable, "-I", "check.py", "proof.json", "owed.json"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = verdict(proof)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "A available 3.0 reserved 5e-18")
    bent = json.loads(json.dumps(proof))
    bent["proofs"][1]["available"] = "1"
    assert verdict(bent).returncode == 1


def test_a_path_whose_sums_make_another_total_than_was_published_is_no_proof():
    tree = SumTree([Liability("coin", "m:1", "0" * 32, 5, 0), Liability("coin", "m:2", "1" * 32, 7, 0)])
    root, total = published(tree)
    with pytest.raises(ProofWrong, match="another total"):
        check(tree.proof("m:1"), root, str(int(total) - 1))
