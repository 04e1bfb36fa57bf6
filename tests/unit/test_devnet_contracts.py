"""The bytes of our contracts are what their Solidity source compiles to."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.not_run import not_run

HERE = Path(__file__).parent.parent / "solidity"
PENSTOCK = Path(__file__).parents[2] / "src/penstock"


@pytest.mark.parametrize("folder", ["devnet/evm/tokens", "rails/evm/contracts"])
def test_the_committed_bytes_are_those_of_the_source(folder):
    done = subprocess.run([_node(), "compile.js", PENSTOCK / folder], cwd=HERE, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == json.loads((PENSTOCK / folder / "compiled.json").read_text())


def _node() -> str:
    """Node.js with the locked compiler installed beside compile.js, or NOT RUN."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        not_run("solc: Node.js with npm is missing (apt install npm)")
    if not (HERE / "node_modules/solc").exists():
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(install, cwd=HERE, check=False, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            not_run(f"solc: npm ci failed in tests/solidity: {done.stderr.strip()[-200:]}")
    return node
