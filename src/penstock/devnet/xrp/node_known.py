"""What one node knows of its network: which ledgers it has, and how it is wrong about them. What it is asked stands in the files beside this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.devnet.box import Faults
from penstock.devnet.xrp.chain import XrpChain
from penstock.devnet.xrp.rpc import Params, Refused, hash_of, invalid
from penstock.devnet.xrp.state import View


@dataclass(slots=True)
class XrpFaults(Faults):
    """`gap`: so many of the newest validated ledgers but one are missing from what the node keeps, so no search over them is complete.
    `blocked`: the node is too old for the network's rules, says so, and answers nothing else.
    """

    gap: int = 0
    blocked: bool = False


class Known:
    """A network as one node sees it."""

    def __init__(self, chain: XrpChain, faults: XrpFaults | None = None) -> None:
        self.chain = chain
        self.faults = faults or XrpFaults()

    @property
    def closed(self) -> int:
        """Its newest closed ledger."""
        return max(self.chain.first, self.chain.closed - self.faults.lag)

    @property
    def open_index(self) -> int:
        """The ledger that it takes to be in the making."""
        return self.closed + 1

    @property
    def validated(self) -> int:
        """Its newest validated ledger."""
        return max(self.chain.first, self.chain.validated - self.faults.lag)

    @property
    def network_id(self) -> int:
        """What it says that it serves."""
        return self.faults.chain_id or self.chain.spec.network_id

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The validated ledgers that it has."""
        first, last = self.chain.first, self.validated
        if not self.faults.gap or last - self.faults.gap <= first:
            return [(first, last)]
        return [(first, last - self.faults.gap - 1), (last, last)]

    def has(self, first: int, last: int) -> bool:
        """Whether it has all of these validated ledgers."""
        return any(low <= first and last <= high for low, high in self.ranges)

    def has_closed(self, index: int) -> bool:
        """Whether it has this ledger, validated or only closed."""
        return self.validated < index <= self.closed or self.has(index, index)

    def index(self, params: Params) -> int:
        """Which ledger a call means; the one in the making by default. Raises Refused."""
        wanted = params.get("ledger_index", "current")
        if params.get("ledger_hash") is not None:
            named = hash_of(params, "ledger_hash", "ledgerHashMalformed")
            wanted = next((ledger.index for ledger in self.chain.ledgers.values() if ledger.hash == named), 0)
        index = {"validated": self.validated, "closed": self.closed, "current": self.open_index}.get(str(wanted))
        if index is None:
            if type(wanted) is not int and not (isinstance(wanted, str) and wanted.isascii() and wanted.isdigit()):
                raise invalid("ledgerIndexMalformed")
            index = int(str(wanted)[:12])
        if index != self.open_index and not self.has_closed(index):
            raise Refused("lgrNotFound", 21, "ledgerNotFound")
        return index

    def view(self, index: int) -> View:
        """The state of a ledger that it has; its own newest closed one where it lags behind the one in the making."""
        if index <= self.closed:
            return self.chain.state.at(index)
        return self.chain.state.at(self.closed) if self.faults.lag else self.chain.current

    def where(self, index: int) -> dict[str, Any]:
        """How an answer names the ledger that it was read from."""
        if index == self.open_index:
            return {"ledger_current_index": index, "validated": False}
        return {"ledger_hash": self.chain.ledgers[index].hash, "ledger_index": index, "validated": index <= self.validated}
