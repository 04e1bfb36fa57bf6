"""What could not run is said, and fails CI."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SKIPPING = """
from tests.fixtures.not_run import not_run

def test_runs():
    pass

def test_does_not():
    not_run("the moon is missing")
"""


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("false", 0), ("true", 1)])
def test_a_skip_is_listed_and_fails_where_ci_is_set(tmp_path, monkeypatch, ci, code):
    (tmp_path / "test_moon.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [sys.executable, "-m", "pytest", "-p", "tests.fixtures.not_run", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "NOT RUN (1): the moon is missing" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]
