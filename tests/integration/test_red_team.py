"""G11: whoever has the whole gateway process gets nothing signed that the signer's own rules do not allow."""

import asyncio
from pathlib import Path

import penstock
from penstock.prove.lane import Budget
from penstock.prove.lanes import redteam


def test_the_red_team_gets_nothing_signed_and_honest_payments_go_on(tmp_path):
    tried = asyncio.run(redteam.run(Budget(seconds=20, seed=11, folder=tmp_path)))
    assert tried.found == ()
    assert tried.counts["attacks"] >= 500
    assert tried.counts["honest_signed"] >= 8
    assert tried.counts["kinds_of_attack"] >= 50


def test_the_red_team_sees_what_a_signer_without_one_of_its_rules_lets_through(tmp_path, monkeypatch):
    """The lane can fail: a signer that never looks at the first version's payments is caught by many attacks at once."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if '--child' in sys.orig_argv:\n"
        "    from penstock.signer.local import LocalSigner\n"
        "    LocalSigner._check_first = lambda self, intent: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(penstock.__file__).parent.parent}")
    tried = asyncio.run(redteam.run(Budget(seconds=20, seed=11, folder=tmp_path)))
    said = " ".join(found.text for found in tried.found)
    for attack in ("recipient changed after the seal", "no seal", "more than an order may pay", "a fee cap above the network's"):
        assert f"the signer signed {attack}" in said
