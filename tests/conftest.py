"""What every test may ask for. The fixtures live beside this file, one module a subject."""

import os

import hypothesis
import pytest

pytest_plugins = [
    "tests.fixtures.memory",
    "tests.fixtures.not_run",
    "tests.fixtures.databases",
    "tests.fixtures.nodes",
    "tests.fixtures.real_nodes",
    "tests.fixtures.simulation",
    "tests.fixtures.planted",
    "tests.fixtures.api",
    "tests.fixtures.commands",
    "tests.fixtures.networks",
    "tests.fixtures.gateway",
]

# No deadline: two busy cores would make a slow example a failure. CI prints what replays a failure.
hypothesis.settings.register_profile("penstock", deadline=None, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "penstock"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: whoever is ready while one of them still runs takes over the short ones, and no core waits at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


# The caller's own Penstock (its home, its node URLs) is no part of a test.
for name in [name for name in os.environ if name.startswith("PENSTOCK_") and not name.startswith("PENSTOCK_TEST_")]:
    del os.environ[name]
