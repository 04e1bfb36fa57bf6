"""What a start reads before it can begin: measured in seconds, so pinned by name."""

import json
import subprocess
import sys

import pytest


def modules_after(code):
    """Modules of a fresh process that has run this."""
    words = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_serve_gives_the_signer_its_process_before_it_reads_its_own_rooms():
    read = modules_after("import penstock.__main__")
    assert "penstock.signer.child" in read
    assert read.isdisjoint(
        {"penstock.gateway", "penstock.wiring", "penstock.commands", "penstock.db", "aiohttp", "uvicorn", "psycopg", "cryptography"}
    )


@pytest.mark.parametrize("process", ["penstock.gateway", "penstock.signer.program"])
def test_a_house_without_the_xrp_ledger_does_not_read_its_library(process, tmp_path):
    code = f"""import {process}
from penstock.config import load
from penstock.signer.policy import load_catalog
load_catalog(load(environment={{"PENSTOCK_HOME": {str(tmp_path)!r}}}))"""
    read = modules_after(code)
    assert "penstock.rails.xrp.codec" in read
    assert "xrpl" not in read
