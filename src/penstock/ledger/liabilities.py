"""What the house owes everybody at one moment, as trees that holders can check (core.liabilities)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from penstock.core.liabilities import Liability, ProofWrong, SumTree, check
from penstock.db import Tx
from penstock.ledger import chain
from penstock.ledger.audit import balances

FORM: Final = 1
SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Liabilities:
    """Everybody's leaves at one moment. `public` may be published; the leaves are the house's secret, and what proofs are made from."""

    public: Mapping[str, Any]
    leaves: list[Liability]

    def secret(self) -> dict[str, Any]:
        """All of it as plain values, to be kept until the next one is published."""
        leaves = [{**asdict(owed), "available": str(owed.available), "reserved": str(owed.reserved)} for owed in self.leaves]
        return {"public": dict(self.public), "leaves": leaves}

    @classmethod
    def restored(cls, secret: Mapping[str, Any]) -> Liabilities:
        """The inverse of `secret`. Raises KeyError, TypeError or ValueError."""
        leaves = [
            Liability(**{**owed, "available": int(owed["available"]), "reserved": int(owed["reserved"])}) for owed in secret["leaves"]
        ]
        return cls(secret["public"], leaves)

    def proof(self, holder: str) -> dict[str, Any]:
        """One holder's proof for each coin they own. Raises KeyError for somebody who owns nothing."""
        coins = {owed.coin_id for owed in self.leaves if owed.holder == holder}
        if not coins:
            raise KeyError(holder)
        proofs = [SumTree([owed for owed in self.leaves if owed.coin_id == coin_id]).proof(holder) for coin_id in sorted(coins)]
        return {"form": FORM, "at_ms": self.public["at_ms"], "proofs": proofs}


def take(tx: Tx, symbols: Mapping[str, str], *, random_bytes: Callable[[int], bytes], now_ms: int) -> Liabilities:
    """All that is owed in one snapshot."""
    owed: defaultdict[str, list[Liability]] = defaultdict(list)
    for (holder, coin_id), available, reserved in balances(tx):
        if available or reserved:
            owed[coin_id].append(Liability(coin_id, holder, random_bytes(SALT_BYTES).hex(), available, reserved))
    coins = []
    for coin_id in sorted(owed):
        root = SumTree(owed[coin_id]).root
        symbol = symbols.get(coin_id, coin_id)
        coins.append({"coin_id": coin_id, "coin": symbol, "total": str(root.units), "root": root.hash.hex(), "holders": len(owed[coin_id])})
    public = {"form": FORM, "at_ms": now_ms, "chain_head": chain.head(tx), "coins": coins}
    return Liabilities(public, [liability for coin_id in sorted(owed) for liability in owed[coin_id]])


def verify(proof: Mapping[str, Any], public: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a holder's proof shows, coin by coin. Raises ProofWrong."""
    try:
        if (proof["form"], proof["at_ms"]) != (public["form"], public["at_ms"]):
            raise ProofWrong("the proof is of another day than what was published")
        roots = {coin["coin_id"]: coin for coin in public["coins"]}
        shown = []
        for one in proof["proofs"]:
            coin = roots[one["coin_id"]]
            check(one, coin["root"], coin["total"])
            shown.append({"coin": coin["coin"], "holder": one["holder"], "available": one["available"], "reserved": one["reserved"]})
    except (KeyError, TypeError) as error:
        raise ProofWrong(f"the proof cannot be read: {error}") from error
    return shown
