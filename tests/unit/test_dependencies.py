"""tools/audit-dependencies: what it lets pass, what it does not, and what it says when nobody answers."""

import importlib.util
import io
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LOADER = SourceFileLoader("audit_dependencies", str(ROOT / "tools" / "audit-dependencies"))
SPEC = importlib.util.spec_from_loader("audit_dependencies", LOADER)
audit = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(audit)

GOOD = "aiohttp==3.14.5 \\\n    --hash=sha256:00\n    # via penstock\n"


def test_this_repository_passes_without_asking_anybody(capsys, monkeypatch):
    monkeypatch.setattr(audit.urllib.request, "urlopen", None)
    assert audit.main([]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "entry",
    [
        "aiohttp==3.14.5\n",
        "aiohttp>=3 \\\n    --hash=sha256:00\n",
        "aiohttp @ git+https://code.example/aiohttp \\\n    --hash=sha256:00\n",
        "https://files.example/aiohttp.whl \\\n    --hash=sha256:00\n",
        "-e ../aiohttp\n",
        "--find-links ../wheels\n",
    ],
)
def test_what_is_no_version_with_hashes_from_the_index_is_named(entry):
    assert list(audit.wrong_locks("x.lock", GOOD)) == []
    assert list(audit.wrong_locks("x.lock", GOOD + entry)) != []


@pytest.mark.parametrize(
    "told", ["MIT", "BSD License", "Apache-2.0 AND MIT", "LGPL-3.0-only", "Mozilla Public License 2.0 (MPL 2.0)", None]
)
def test_licences_that_fit(told):
    assert list(audit.wrong_licences({"x": told})) == []


@pytest.mark.parametrize(
    "told", ["", "GPL-3.0-only", "MIT AND GPL-2.0-or-later", "GNU Affero General Public License v3", "Commons Clause", "Secret"]
)
def test_licences_that_do_not(told):
    assert len(list(audit.wrong_licences({"x": told}))) == 1


def test_the_signer_imports_few_packages_and_none_of_the_network():
    found = audit.signer_dependencies()
    assert {"coincurve", "cryptography", "bip_utils", "embit", "xrpl-py"} <= set(found)
    assert not {"aiohttp", "uvicorn", "psycopg", "requests", "urllib3"} & set(found)
    assert len(found) <= audit.SIGNER_DEPENDENCIES_MAX


def test_known_vulnerabilities_fail_and_withdrawn_ones_do_not(monkeypatch, capsys, tmp_path):
    known = {"vulnerabilities": [{"id": "PYSEC-1", "withdrawn": None}, {"id": "PYSEC-2", "withdrawn": "2026-01-01"}]}

    def answer(url, timeout):
        return io.BytesIO(json.dumps(known if "/aiohttp/" in url else {"vulnerabilities": []}).encode())

    monkeypatch.setattr(audit.urllib.request, "urlopen", answer)
    monkeypatch.setattr(audit, "PAGE", tmp_path / "page.md")
    assert audit.main(["--ask", "https://index.example/pypi", "--write"]) == 1
    said = capsys.readouterr().out
    assert "has known vulnerabilities: PYSEC-1\n" in said
    assert "PYSEC-2" not in said
    assert "1 with known vulnerabilities" in audit.checked_line((tmp_path / "page.md").read_text())


def test_when_nobody_answers_it_says_so_and_goes_on(monkeypatch, capsys):
    def nobody(url, timeout):
        raise OSError

    monkeypatch.setattr(audit.urllib.request, "urlopen", nobody)
    assert audit.main(["--ask", "https://index.example/pypi"]) == 0
    assert "NOT CHECKED for known vulnerabilities: " in capsys.readouterr().out
