"""What must be true of the repository itself."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted((ROOT / "src" / "penstock").rglob("*.py"))
LOCKS = ["requirements-build.lock", "requirements.lock", "requirements-test.lock"]
LOCK_OF_NODES = "requirements-nodes.lock"
NPM_LOCKS = ["tests/nodes/package-lock.json", "tests/real_nodes/package-lock.json"]


def committed_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", [*LOCKS, LOCK_OF_NODES])
def test_a_lock_file_names_no_index(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", text)


@pytest.mark.parametrize("name", [*LOCKS, LOCK_OF_NODES])
def test_each_locked_package_has_one_version_and_hashes(name):
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_the_locks_agree():
    build, product, tests = (
        {line.split("==")[0]: line for line in re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE)} for name in LOCKS
    )
    assert build.items() <= product.items() <= tests.items()


@pytest.mark.parametrize("name", NPM_LOCKS)
def test_an_npm_lock_has_hashes_and_no_addresses(name):
    packages = {name: package for name, package in json.loads((ROOT / name).read_text())["packages"].items() if name}
    assert packages
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "://" not in str({key: value for key, value in package.items() if key != "funding"})


def test_no_committed_file_names_the_machine_it_was_written_on():
    here = Path(__file__).relative_to(ROOT)
    places = re.compile(rb"/(?:work|root|home/[a-z][a-z0-9_-]*|Users/[A-Za-z]\w*)/[A-Za-z.]")
    told = [f"{path.relative_to(ROOT)}: {found[0].decode()}" for path in committed_files() if (found := places.search(path.read_bytes()))]
    assert [line for line in told if not line.startswith(f"{here}:")] == []


def test_the_product_imports_only_what_it_declares():
    declared = {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in PROJECT["project"]["dependencies"]}
    owners = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"penstock"}:
                if not declared & {normal(owner) for owner in owners.get(top, [])}:
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert not undeclared


def test_each_dependency_has_its_reason():
    reasons = (ROOT / "docs/adr/0002-dependencies.md").read_text()
    groups = PROJECT["dependency-groups"]
    for line in [*PROJECT["project"]["dependencies"], *groups["test"], *groups["build"], *groups["nodes"]]:
        name = re.match(r"[A-Za-z0-9._-]+", line)[0]
        assert f"| {name} |" in reasons, f"{name} has no line in docs/adr/0002-dependencies.md"


def test_no_function_is_longer_than_70_lines():
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 70
    ]
    assert long == []


def test_each_contract_names_rooms_that_a_layer_knows():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    rooms = set(re.findall(r"\w+", " ".join(layers)))
    named = {
        module.split(".")[1]
        for contract in contracts
        for module in [*contract.get("source_modules", []), *contract.get("forbidden_modules", [])]
        if module.startswith("penstock.")
    }
    assert named <= rooms
    only_networks = next(contract for contract in contracts if contract["name"] == "Only networks names a concrete rail")
    assert {module.split(".")[1] for module in only_networks["source_modules"]} == rooms - {
        "networks",
        "rails",
        "signer",
        "devnet",
        "prove",
    }
    product = next(contract for contract in contracts if contract["name"].startswith("No product room"))
    assert {module.split(".")[1] for module in product["source_modules"]} == rooms - {
        "__main__",
        "workbench",
        "bench",
        "prove",
        "demo",
        "devnet",
    }


def test_the_wheel_carries_every_file_of_the_package(tmp_path):
    for path in committed_files():
        name = path.relative_to(ROOT)
        if name.parts[0] == "src" or len(name.parts) == 1:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(path.read_bytes())
    build = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        carried = set(wheel.namelist())
    expected = {str(path.relative_to(ROOT / "src")) for path in committed_files() if path.is_relative_to(ROOT / "src")}
    assert expected - carried == set()


def test_each_test_that_the_reliability_page_names_is_there():
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs" / "reliability.md").read_text()))
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= there
