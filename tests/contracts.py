"""A contract type for import-linter: like `forbidden`, but a room that does not exist yet is no error.

The design draws more rooms than are built. With the stock type each contract could only be written down after the last room it names;
with this one it holds from a room's first line. tests/unit/test_repository.py catches names that no layer knows.
"""

from grimp import ImportGraph
from importlinter import ContractCheck
from importlinter.contracts.forbidden import ForbiddenContract


class ForbiddenRoomsContract(ForbiddenContract):
    type_name = "forbidden_rooms"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        for side in ("source_modules", "forbidden_modules"):
            setattr(self, side, {module for module in getattr(self, side) if _is_there(graph, str(module))})
        if not self.source_modules or not self.forbidden_modules:
            return ContractCheck(kept=True)
        return super().check(graph, verbose)


def _is_there(graph: ImportGraph, expression: str) -> bool:
    return not expression.startswith("penstock.") or "*" in expression or expression in graph.modules
