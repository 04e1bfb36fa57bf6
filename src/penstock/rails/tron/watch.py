"""What became of attempts: each node is looked at by itself, and `judge` weighs what they show.

Proof of success: a solidified receipt that succeeded, with exactly the Transfer of the pinned contract (TRX: our own bytes say the value,
and their result is SUCCESS), by as many nodes as are needed. What a token's call returned means nothing.
Proof of failure: a solidified receipt that failed, likewise.
Proof of death: a transaction may only be in a block whose predecessor is older than the expiration. So once a block at or past the
expiration is solidified, every block that could hold it is too: those after the reference block, to the first at or past the expiration,
this one included. Two nodes must list all of these blocks, hash-linked and ending in the same block, without the transaction.
Everything else proves nothing: a missing receipt, an id that nobody knows, an expiration that passed by any clock, an error.
https://developers.tron.network/docs/tron-protocol-transaction
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from penstock.core.event import Absent, Dead, FailedOnChain, Included, Observation, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.latest import Latest
from penstock.core.money import Network
from penstock.rails.base import NodeUnreachable, VersionView
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, mapping, reached_by
from penstock.rails.tron import codec
from penstock.rails.tron.answers import Block, Status, block_of, blocks_of, contract_result_of, hash_of, receipt_of, status_of
from penstock.runtime import Runtime
from penstock.together import Together

log = structlog.get_logger()

NODES_ASKED_MAX: Final = 4
ATTEMPTS_AT_ONCE: Final = 100
SEARCH_BLOCKS: Final = 5
"""Blocks in one answer: a full one of the real network is some 400 KB of JSON."""
SEARCH_CALLS: Final = 8
WINDOW_BLOCKS_MAX: Final = 20_000
"""Longer than any window: ten minutes and a stall of half a day."""
REMEMBERED_MAX: Final = 20_000

HEAD_CALLS: Final = (Call("wallet/getblock", ({"detail": False},)), Call("walletsolidity/getblock", ({"detail": False},)))


@dataclass(frozen=True, slots=True)
class Tips:
    """One node's newest block and its newest solidified one."""

    head: Block
    solid: Block


def tips_of(answers: Sequence[Any]) -> Tips:
    """Answers to HEAD_CALLS. Raises BadAnswer."""
    head, solid = (block_of(_no_fault(answer)) for answer in answers)
    # The two halves of a node, or nodes behind one address, may be a block apart.
    return Tips(head if head.number >= solid.number else solid, solid)


def _no_fault(answer: Any) -> Any:
    if isinstance(answer, Fault):
        raise BadAnswer(answer.words)
    return answer


@dataclass(frozen=True, slots=True)
class Landed:
    """The transaction in a block, as one node has it. Nodes agree when all of it is the same."""

    txid: str
    block: int
    status: Status
    result: str
    paid: bool
    fee: int


@dataclass(frozen=True, slots=True)
class View:
    """One attempt as one node shows it. `edge` is the last block that could have held it, when it is in none by this node's history."""

    tips: Tips
    landed: Landed | None = None
    solid: bool = False
    known: bool = False
    edge: Block | None = None

    @property
    def depth(self) -> int:
        """Of the block it landed in; 1 is the newest."""
        return max(1, self.tips.head.number - self.landed.block + 1) if self.landed is not None else 0


class Watch:
    """Looks at the attempts of one network, many at a time."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._edges: Latest[tuple[str, str], Block] = Latest(REMEMBERED_MAX)
        self.observe: Together[VersionView, Observation] = Together(
            runtime, self._observe, name=f"observe-{network.chain}", most=ATTEMPTS_AT_ONCE, broken=NodeUnreachable
        )
        """One attempt's version -> Observation. Raises NodeUnreachable."""

    @property
    def needed(self) -> int:
        """How many nodes must agree that a transaction is in a block that stays."""
        return min(2, len(self._nodes))

    @property
    def needed_for_absence(self) -> int:
        """How many nodes must agree that it is in none; a test network may have one."""
        return self.needed if self._network.is_test else 2

    async def tips(self, node: Node) -> Tips:
        """Raises NodeUnreachable."""
        try:
            return tips_of(await self._nodes.ask(node, HEAD_CALLS))
        except ValueError as error:
            raise NodeUnreachable(f"{node.name} gave no usable block: {error}") from error

    async def _observe(self, versions: list[VersionView]) -> list[Observation | NodeUnreachable]:
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._look(node, versions), name="look") for node in nodes]
        looks = [await task for task in tasks]
        faults = [look for look in looks if isinstance(look, NodeUnreachable)]
        found: list[Observation | NodeUnreachable] = []
        for place, version in enumerate(versions):
            views = [view for look in looks if not isinstance(look, NodeUnreachable) and (view := look[place]) is not None]
            if not views:
                found.append(NodeUnreachable(str(faults[-1]) if faults else "no node gave a usable answer"))
                continue
            seen = judge(version, views, needed=self.needed, needed_for_absence=self.needed_for_absence, nodes=len(self._nodes))
            if isinstance(seen, Included) and not seen.depth:
                # Nothing says how much of the chain is shown by nodes that differ on the block.
                log.warning("attempt.nodes.differ", chain=self._network.chain, txid=seen.txid, nodes=len(views))
            elif isinstance(seen, Absent | Pending | Included | Suspicious):
                seen = replace(seen, through=reached_by((view.tips.solid.number for view in views), self.needed))
            found.append(seen)
        return found

    async def _look(self, node: Node, versions: Sequence[VersionView]) -> list[View | None] | NodeUnreachable:
        """Heads and receipts; then what is solidified of those, and what else is known of the others; at last the search."""
        try:
            answers = await self._nodes.ask(node, [*HEAD_CALLS, *(_by_id("wallet/gettransactioninfobyid", v) for v in versions)])
            tips = tips_of(answers[: len(HEAD_CALLS)])
            blocks = [self._block_of(version, answer) for version, answer in zip(versions, answers[len(HEAD_CALLS) :], strict=True)]
            calls = [call for version, block in zip(versions, blocks, strict=True) for call in _second(version, block, tips)]
            rest = iter(await self._nodes.ask(node, calls) if calls else [])
            views = [self._view(version, block, tips, rest) for version, block in zip(versions, blocks, strict=True)]
            await self._search(node, tips, versions, views)
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable answer: {error}")
        return views

    def _block_of(self, version: VersionView, answer: Any) -> int | BadAnswer | None:
        """The block it is in, solidified or not. What a node says of one attempt may be unusable, and of another not."""
        try:
            receipt = receipt_of(_no_fault(answer), version.txid)
        except ValueError as error:
            return self._unusable(version, error)
        return None if receipt is None else receipt.block

    def _unusable(self, version: VersionView, error: ValueError) -> BadAnswer:
        log.warning("node.answer.refused", chain=self._network.chain, txid=version.txid, reason=str(error)[:200])
        return BadAnswer(str(error))

    def _view(self, version: VersionView, block: int | BadAnswer | None, tips: Tips, rest: Iterator[Any]) -> View | None:
        """One attempt out of the answers to `_second`."""
        if isinstance(block, BadAnswer):
            return None
        if block is None:
            return View(tips, known=_knows(next(rest), version.txid))
        info, transaction = next(rest), next(rest)
        try:
            landed = read(version, _no_fault(info), _no_fault(transaction))
        except ValueError as error:
            self._unusable(version, error)
            return None
        if landed is None or landed.block != block:
            return None  # one half of the node is behind, or a fork came between the two questions: ask again
        return View(tips, landed, solid=block <= tips.solid.number)

    async def _search(self, node: Node, tips: Tips, versions: Sequence[VersionView], views: list[View | None]) -> None:
        """Give views their edge, where the solidified history is complete and without the transaction."""
        expired = [
            (place, version)
            for place, version in enumerate(versions)
            if (view := views[place]) is not None and view.landed is None and tips.solid.time_ms >= version.intent.terms["expiration"]
        ]
        fresh = [version for _, version in expired if (node.name, version.txid) not in self._edges]
        for group in _windows(fresh):
            try:
                await self._search_window(node, tips, group)
            except (NodeUnreachable, ValueError) as error:
                # No proof yet; what this node shows of other attempts stands.
                log.warning("node.history.incomplete", chain=self._network.chain, node=node.name, reason=str(error)[:200])
        for place, version in expired:
            edge = self._edges.get((node.name, version.txid))
            views[place] = View(tips, known=edge is None, edge=edge)

    async def _search_window(self, node: Node, tips: Tips, versions: Sequence[VersionView]) -> None:
        """Read the blocks after the earliest reference block, until the last expiration is passed. History that is solidified never changes,
        so what a node has shown once is remembered.
        """
        place = min(version.intent.terms["ref_block"] for version in versions) + 1
        left = {version.txid: version.intent.terms for version in versions}
        before: Block | None = None
        seen = 0
        while left and place <= tips.solid.number:
            if seen > WINDOW_BLOCKS_MAX:
                raise BadAnswer("more blocks than any window has")
            starts = range(place, min(place + SEARCH_BLOCKS * SEARCH_CALLS, tips.solid.number + 1), SEARCH_BLOCKS)
            ends = [min(start + SEARCH_BLOCKS, tips.solid.number + 1) for start in starts]
            calls = [Call("walletsolidity/getblockbylimitnext", ({"startNum": s, "endNum": e},)) for s, e in zip(starts, ends, strict=True)]
            answers = await self._nodes.ask(node, calls)
            for start, end, answer in zip(starts, ends, answers, strict=True):
                for block, ids in blocks_of(_no_fault(answer), start, end - start):
                    if before is not None and block.parent != before.id:
                        raise BadAnswer("blocks that do not follow each other")
                    before = block
                    for txid in [txid for txid in left if txid in ids]:
                        del left[txid]  # it is there after all; the receipt will come
                    for txid in [txid for txid, terms in left.items() if _ends(block, terms)]:
                        del left[txid]
                        self._edges[node.name, txid] = block
            place, seen = ends[-1], seen + ends[-1] - starts[0]


def _by_id(method: str, version: VersionView) -> Call:
    return Call(method, ({"value": version.txid},))


def _second(version: VersionView, block: int | BadAnswer | None, tips: Tips) -> list[Call]:
    """What to ask of an attempt once its block is known or not."""
    if isinstance(block, BadAnswer):
        return []
    if block is None:
        return [_by_id("wallet/gettransactionfrompending", version)]
    half = "walletsolidity" if block <= tips.solid.number else "wallet"
    return [_by_id(f"{half}/gettransactioninfobyid", version), _by_id(f"{half}/gettransactionbyid", version)]


def _windows(versions: Sequence[VersionView]) -> list[list[VersionView]]:
    """Attempts whose blocks overlap are searched for together."""
    groups: list[list[VersionView]] = []
    ends = 0
    for version in sorted(versions, key=lambda version: version.intent.terms["ref_block"]):
        if groups and version.intent.terms["ref_block"] <= ends:
            groups[-1].append(version)
        else:
            groups.append([version])
        ends = groups[-1][0].intent.terms["ref_block"] + 1_000
    return groups


def _ends(block: Block, terms: Mapping[str, int]) -> bool:
    """Whether no block after this one can hold a transaction with these terms."""
    return block.number > terms["ref_block"] and block.time_ms >= terms["expiration"]


def _knows(answer: Any, txid: str) -> bool:
    """Whether a node's pool holds it; an error or {} says nothing."""
    try:
        return hash_of(mapping(answer).get("txID")) == txid
    except BadAnswer:
        return False


def read(version: VersionView, info: Any, transaction: Any) -> Landed | None:
    """A receipt with its transaction's result, that fit our own bytes; None when the node has one of them not yet. Raises BadAnswer."""
    receipt, result = receipt_of(info, version.txid), contract_result_of(transaction, version.txid)
    if receipt is None or not result:
        return None
    intent = version.intent
    status = status_of(receipt, result, native=intent.contract is None)
    payment, paid = intent.payments[0], status == "success"
    if intent.contract is not None and paid:
        paid = codec.exact_transfer_count(receipt.logs, intent.contract, intent.sender, payment.recipient, payment.units) == 1
    return Landed(version.txid, receipt.block, status, result, paid, receipt.fee)


def judge(version: VersionView, views: Sequence[View], *, needed: int, needed_for_absence: int, nodes: int) -> Observation:
    """What the nodes' views of one attempt mean together. Pure."""
    groups = Counter(view.landed for view in views if view.landed is not None)
    edges = Counter(view.edge for view in views if view.edge is not None)
    if groups:
        final = Counter(view.landed for view in views if view.landed is not None and view.solid)
        certain = [landed for landed, count in final.items() if count >= needed]
        if len(certain) == 1:
            return _verdict(version, certain[0])
        if final and edges:
            return Suspicious(f"the nodes differ: {version.txid} is in a solidified block, and in none")
        landed, _ = groups.most_common(1)[0]
        depths = sorted((view.depth for view in views if view.landed == landed), reverse=True)
        # Depth 0: in a block by the word of fewer nodes than are needed, or of nodes that differ.
        depth = depths[needed - 1] if len(depths) >= needed and len(groups) == 1 else 0
        return Included(landed.txid, landed.block, depth, landed.paid)
    if len(edges) > 1:
        ids = " and ".join(sorted(edge.id for edge in edges))
        return Suspicious(f"the nodes differ on what is solidified: {ids} both end the life of {version.txid}")
    for edge, count in edges.items():
        if count >= needed_for_absence:
            return Dead(_proof(version, edge, count))
        if nodes < needed_for_absence:
            return Suspicious(f"{_proof(version, edge, count)}; one node alone cannot prove it: configure a second one")
    # Where one node has proved it absent the bytes have expired: to send them again would be in vain.
    holding = sum(view.known for view in views)
    return Pending(thin=not edges and holding < needed) if edges or holding else Absent()


def _proof(version: VersionView, edge: Block, count: int) -> str:
    first, expiration = version.intent.terms["ref_block"] + 1, version.intent.terms["expiration"]
    return (
        f"block {edge.number} ({edge.id}) of {edge.time_ms} is solidified, at or past the expiration {expiration}, "
        f"and none of the blocks {first} to {edge.number} holds {version.txid}, by {count} node{'s' if count > 1 else ''}"
    )


def _verdict(version: VersionView, landed: Landed) -> Observation:
    """Of a transaction in a block that stays."""
    if landed.fee > version.intent.fee_cap:
        return Suspicious(f"{landed.txid} is final in block {landed.block} and cost {landed.fee} sun, above its cap")
    if landed.status == "failed":
        return FailedOnChain(landed.txid, landed.block, landed.fee, f"the transaction failed: {landed.result}")
    if landed.status == "unknown":
        return Suspicious(f"{landed.txid} is final in block {landed.block} with the result {landed.result!r}, which says neither")
    if not landed.paid:
        contract = version.intent.contract
        return Suspicious(
            f"{landed.txid} succeeded in final block {landed.block} without exactly one matching Transfer event of {contract}"
        )
    return FinalOnChain(landed.txid, landed.block, landed.fee)


def needed_tips(tips: Sequence[Tips], needed: int) -> tuple[int, int]:
    """The heights, newest and solidified, that as many nodes as are needed have reached, or those that answer."""
    place = min(needed, len(tips)) - 1
    head = sorted((tip.head.number for tip in tips), reverse=True)[place]
    return head, min(head, sorted((tip.solid.number for tip in tips), reverse=True)[place])
