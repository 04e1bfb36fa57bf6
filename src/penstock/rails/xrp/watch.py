"""What became of transactions on the XRP Ledger, by the word of as many nodes as are needed.

Proof of success: every needed node has the transaction in a validated ledger with tesSUCCESS, and it delivered exactly the amount.
Proof of failure: the same with a tec code, which took the fee and moved nothing.
Proof that a version expired: every needed node has validated past its last ledger and the account's sequence is still unused there; and it
has every ledger in which the version could be, and none holds it (or it remembers the version as one that no ledger took). That it has
them all it says by `searched_all` or by `complete_ledgers`: rippled denies the first where one of the ledgers is empty
(https://github.com/XRPLF/rippled/issues/3750). Then a new version takes the same sequence; of an attempt itself there is no death.
https://xrpl.org/docs/concepts/transactions/reliable-transaction-submission
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from penstock.core.event import Absent, FailedOnChain, Included, Observation, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.latest import Latest
from penstock.core.money import Network
from penstock.rails.base import NodeUnreachable, VersionView
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes
from penstock.rails.xrp.answers import (
    FEE_CALL,
    INFO_CALL,
    TIP_CALL,
    Account,
    Missing,
    Tip,
    Validated,
    Waiting,
    account_call,
    account_of,
    open_fee_of,
    ranges_of,
    tip_of,
    transaction_call,
    transaction_of,
)
from penstock.rails.xrp.codec import units_of
from penstock.rails.xrp.fees import born
from penstock.runtime import Runtime
from penstock.together import Together

log = structlog.get_logger()

NODES_ASKED_MAX: Final = 4
ATTEMPTS_AT_ONCE: Final = 50
REMEMBERED_MAX: Final = 10_000
STRANGER_S: Final = 30.0
"""How long a used sequence without a transaction of ours must be seen; a node may know an account before it finds its transactions."""
STUCK_LEDGERS: Final = 3
"""A version that is this old and below the price of the open ledger asks for a higher fee."""

TAKES_WHAT_IS_LEFT: Final = "tecINSUFF_FEE"
"""The only result whose fee is not the one that the transaction names."""


@dataclass(frozen=True, slots=True)
class Tips:
    """What one node says of itself: its newest validated ledger, the price of its open one, and the rows of ledgers that it keeps."""

    validated: int
    open_fee: int
    complete: tuple[tuple[int, int], ...] = ()

    def has(self, first: int, last: int) -> bool:
        """Whether it keeps all of these ledgers, but for those that are older than any it keeps: that nothing of ours is in them the
        account says, whose sequence is unused in a later one.
        """
        if not self.complete:
            return False
        oldest = min(low for low, _ in self.complete)
        first = max(first, oldest)
        return last < oldest or any(low <= first and last <= high for low, high in self.complete)


@dataclass(frozen=True, slots=True)
class Landed:
    """A version in a validated ledger, as one node has it; `done`: it did exactly what it says."""

    txid: str
    ledger: int
    result: str
    done: bool


@dataclass(frozen=True, slots=True)
class View:
    """One attempt as one node shows it; `expired`: every version is past its last ledger, and this node can tell that none landed."""

    validated: int
    open_fee: int
    landed: Landed | None = None
    waiting: bool = False
    expired: bool = False
    first_in_line: bool = False
    slot_used: bool = False


class Watch:
    """Looks at the attempts of one network, many at a time."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._stranger_since: Latest[str, float] = Latest(REMEMBERED_MAX)
        self.observe: Together[Sequence[VersionView], Observation] = Together(
            runtime, self._observe, name=f"observe-{network.chain}", most=ATTEMPTS_AT_ONCE, broken=NodeUnreachable
        )
        """One attempt's versions -> Observation. Raises NodeUnreachable."""

    @property
    def needed(self) -> int:
        """How many nodes must agree."""
        return min(2, len(self._nodes))

    async def tip(self) -> int:
        """The newest ledger that as many nodes as are needed have validated, or those that answer. Raises NodeUnreachable."""
        tasks = [self._runtime.spawn(self._tip(node), name="tip") for node in self._asked()]
        looks = [await task for task in tasks]
        tips = sorted((look.index for look in looks if isinstance(look, Tip)), reverse=True)
        if not tips:
            raise next(look for look in looks if isinstance(look, NodeUnreachable))
        return tips[min(self.needed, len(tips)) - 1]

    def _asked(self) -> list[Node]:
        return self._nodes.healthy()[:NODES_ASKED_MAX]

    async def _tip(self, node: Node) -> Tip | NodeUnreachable:
        try:
            (answer,) = await self._nodes.ask(node, [TIP_CALL])
            return tip_of(_answered(answer))
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable ledger: {error}")

    async def _observe(self, items: list[Sequence[VersionView]]) -> list[Observation | NodeUnreachable]:
        tasks = [self._runtime.spawn(self._look(node, items), name="look") for node in self._asked()]
        looks = [await task for task in tasks]
        faults = [look for look in looks if isinstance(look, NodeUnreachable)]
        alone = len(self._nodes) < 2 and not self._network.is_test
        found: list[Observation | NodeUnreachable] = []
        for place, versions in enumerate(items):
            views = [view for look in looks if not isinstance(look, NodeUnreachable) and (view := look[place]) is not None]
            if not views:
                found.append(NodeUnreachable(str(faults[-1]) if faults else "no node gave a usable answer"))
                continue
            stranger = self._stranger(versions[0].txid, views)
            seen = judge(versions, views, needed=self.needed, stranger=stranger, alone=alone)
            if len({view.landed for view in views if view.landed is not None}) > 1:
                log.warning("attempt.nodes.differ", chain=self._network.chain, txid=versions[-1].txid, nodes=len(views))
            found.append(seen)
        return found

    def _stranger(self, txid: str, views: Sequence[View]) -> bool:
        """Whether enough nodes have shown for a while that the sequence is used, and no node has a transaction of ours."""
        if sum(view.slot_used for view in views) < self.needed or any(view.landed is not None for view in views):
            self._stranger_since.pop(txid, None)
            return False
        now = self._runtime.monotonic()
        return now - self._stranger_since.setdefault(txid, now) >= STRANGER_S

    async def _look(self, node: Node, items: Sequence[Sequence[VersionView]]) -> list[View | None] | NodeUnreachable:
        """Two questions to one node: ledger, price and accounts; only then the transactions, so that none lands in between unseen."""
        senders = sorted({versions[0].intent.sender for versions in items})
        asked = [_call(version) for versions in items for version in versions]
        try:
            first = [_answered(a) for a in await self._nodes.ask(node, [TIP_CALL, FEE_CALL, INFO_CALL, *map(account_call, senders)])]
            tips = Tips(tip_of(first[0]).index, open_fee_of(first[1]), ranges_of(first[2]))
            accounts = {sender: account_of(sender, answer) for sender, answer in zip(senders, first[3:], strict=True)}
            rest = iter(await self._nodes.ask(node, asked))
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable answer: {error}")
        views: list[View | None] = []
        for versions in items:
            answers = [next(rest) for _ in versions]
            views.append(self._view(versions, answers, tips, accounts[versions[0].intent.sender]))
        return views

    def _view(self, versions: Sequence[VersionView], answers: Sequence[Any], tips: Tips, account: Account | None) -> View | None:
        """None: what this node says of this attempt is unusable."""
        try:
            return view_of(versions, answers, tips, account)
        except ValueError as error:
            log.warning("node.answer.refused", chain=self._network.chain, txid=versions[-1].txid, reason=str(error)[:200])
            return None


def _answered(answer: Any) -> Any:
    if isinstance(answer, Fault):
        raise BadAnswer(answer.words)
    return answer


def _life(version: VersionView) -> tuple[int, int]:
    """The ledgers in which a version could be."""
    return max(1, born(version.intent)), version.intent.terms["last_ledger"]


def _call(version: VersionView) -> Call:
    return transaction_call(version.txid, *_life(version))


def _kept(version: VersionView, tips: Tips) -> bool:
    return tips.has(*_life(version))


def view_of(versions: Sequence[VersionView], answers: Sequence[Any], tips: Tips, account: Account | None) -> View:
    """What one node says of one attempt, from its answers to `tx` for each version. Raises BadAnswer. Pure."""
    found = [(version, transaction_of(version.txid, _answered(answer))) for version, answer in zip(versions, answers, strict=True)]
    landed = [_landed(version, it) for version, it in found if isinstance(it, Validated)]
    if len(landed) > 1:
        raise BadAnswer("two transactions on one sequence")
    if account is None:
        raise BadAnswer("it does not know the hot address")
    slot, last_ledger = versions[0].intent.slot, max(version.intent.terms["last_ledger"] for version in versions)
    nowhere = all(isinstance(it, Waiting) or (isinstance(it, Missing) and (it.searched or _kept(version, tips))) for version, it in found)
    return View(
        validated=tips.validated,
        open_fee=tips.open_fee,
        landed=landed[0] if landed else None,
        waiting=any(isinstance(it, Waiting) for _, it in found),
        expired=account.ledger > last_ledger and account.sequence <= slot and nowhere,
        first_in_line=account.sequence == slot,
        slot_used=account.sequence > slot,
    )


def _landed(version: VersionView, it: Validated) -> Landed:
    intent = version.intent
    if it.ledger > intent.terms["last_ledger"]:
        raise BadAnswer("a ledger after the transaction's last one")
    done = it.result == "tesSUCCESS" and intent.kind != "cancel"
    if intent.kind == "pay":
        done = done and units_of(intent.contract, it.delivered) == intent.payments[0].units
    return Landed(version.txid, it.ledger, it.result, done)


def judge(versions: Sequence[VersionView], views: Sequence[View], *, needed: int, stranger: bool, alone: bool) -> Observation:
    """What the nodes' views of one attempt mean together. `alone`: a real network by the word of one node. Pure."""
    groups = Counter(view.landed for view in views if view.landed is not None)
    if groups:
        landed, count = groups.most_common(1)[0]
        if len(groups) == 1 and count >= needed:
            return _verdict(versions, landed)
        # Depth 0: validated by the word of fewer nodes than are needed, or of nodes that differ.
        return Included(landed.txid, landed.ledger, 0, landed.done)
    newest = versions[-1].intent
    if stranger:
        return Suspicious(f"sequence {newest.slot} of {newest.sender} was used by a transaction that is none of ours")
    if sum(view.expired for view in views) >= needed:
        if alone:
            return Suspicious(
                f"one node says that {versions[-1].txid} expired in ledger {newest.terms['last_ledger']}, and it takes two to believe it: "
                "configure a second node"
            )
        return Pending(stuck=True)
    if all(view.validated > newest.terms["last_ledger"] for view in views):
        return Pending()  # some of these nodes lack ledgers in which it could be: wait until they have them
    if _underpriced(newest.terms, views, born(newest)):
        return Pending(stuck=True)
    holding = sum(view.waiting for view in views)
    return Pending(thin=holding < needed) if holding else Absent()


def _underpriced(terms: Mapping[str, int], views: Sequence[View], since: int) -> bool:
    """Whether the fee is what holds the newest version, and nothing before it in line."""
    return all(
        view.first_in_line and terms["fee"] < view.open_fee and since + STUCK_LEDGERS <= view.validated <= terms["last_ledger"]
        for view in views
    )


def _verdict(versions: Sequence[VersionView], landed: Landed) -> Observation:
    """Of a version in a validated ledger."""
    version = next(version for version in versions if version.txid == landed.txid)
    fee = version.intent.terms["fee"]
    if landed.result == TAKES_WHAT_IS_LEFT:
        return Suspicious(f"{landed.txid} took what the hot address had left for its fee in ledger {landed.ledger} ({landed.result})")
    if version.intent.kind == "cancel":
        return FailedOnChain(landed.txid, landed.ledger, fee, "our own cancel used the sequence")
    if landed.result != "tesSUCCESS":
        return FailedOnChain(landed.txid, landed.ledger, fee, f"the ledger refused it: {landed.result}")
    if not landed.done:
        return Suspicious(f"{landed.txid} succeeded in validated ledger {landed.ledger} and did not deliver exactly its amount")
    return FinalOnChain(landed.txid, landed.ledger, fee)
