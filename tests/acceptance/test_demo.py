"""`penstock demo`: devnet, gateway and merchant as three programs on loopback, and a payout on every family of networks."""

import json
import subprocess
import sys
from pathlib import Path

from penstock.catalog import Catalog
from penstock.listing import FAMILIES
from tests.fixtures.commands import base_environment


def test_the_demo_pays_on_every_family_and_its_books_are_sound(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "demo", "--json"]
    done = subprocess.run(command, env=base_environment(tmp_path), cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = json.loads(done.stdout)
    assert told["ok"] is True
    assert told["audit"]["breaches"] == []
    assert {payout["status"] for payout in told["payouts"]} == {"Successful"}
    assert all(payout["txid"] for payout in told["payouts"])
    networks = {network.chain: network.family for network in Catalog.load().networks()}
    assert {networks[payout["chain"]] for payout in told["payouts"]} == set(FAMILIES)
