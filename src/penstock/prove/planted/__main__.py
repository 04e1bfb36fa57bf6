"""Look for one planted bug by hand: `python -m penstock.prove.planted NAME [SEEDS]` says which of the first seeds find it, and what they say."""

from __future__ import annotations

import sys

from penstock.prove.planted.lane import caught
from penstock.prove.planted.lists import ALL


def main(name: str, seeds: int) -> None:
    """Print a line for each seed that finds the bug."""
    bug = next((bug for bug in ALL if bug.name == name), None)
    if bug is None:
        sys.exit(f"there is no planted bug {name}; there are {', '.join(bug.name for bug in ALL)}")
    for seed in [*([bug.seed] if bug.seed else []), *range(1, seeds + 1)]:
        said, reached = caught(bug, seed)
        print(f"seed {seed}, line reached {reached} times: {said or 'not found'}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", int(sys.argv[2]) if len(sys.argv) > 2 else 0)
