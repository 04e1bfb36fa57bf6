"""What became of attempts: each node is looked at by itself, and `judge` weighs what they show.

Proof of success: a receipt with status 1 and exactly the Transfer of the pinned contract (native: our own bytes say the value), in a
block that stays, by as many nodes as are needed. Proof of failure: the same with status 0, or our own cancel. Everything else proves
nothing: a missing receipt, a hash nobody knows, an error.
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
from penstock.rails.evm import codec
from penstock.rails.evm.fees import GAS_BITS, WEI_BITS
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, hash32, mapping, quantity
from penstock.runtime import Runtime
from penstock.together import Together

log = structlog.get_logger()

HEIGHT_BITS: Final = 53
NODES_ASKED_MAX: Final = 4
ATTEMPTS_AT_ONCE: Final = 100
STUCK_BLOCKS: Final = 10
STUCK_S: Final = 60.0
"""Waiting for so many blocks and so long, first in its line, says that the terms are too low whatever the base fee says."""
STRANGER_S: Final = 10.0
"""How long a nonce must look used by a stranger: nodes behind one address may be a block apart, and receipts come late."""
REMEMBERED_MAX: Final = 20_000
INVALID_PARAMS: Final = -32602
"""https://www.jsonrpc.org/specification#error_object"""


@dataclass(frozen=True, slots=True)
class Tips:
    """One node's newest block and its newest final one."""

    head: int
    final: int
    base_fee: int


@dataclass(frozen=True, slots=True)
class Landed:
    """A version in a block, as one node has it. Nodes agree when all but depth and finality are the same."""

    txid: str
    block: int
    block_hash: str
    status: bool
    paid: bool
    fee: int


@dataclass(frozen=True, slots=True)
class View:
    """One attempt as one node shows it."""

    tips: Tips
    landed: Landed | None
    newest_known: bool
    first_in_line: bool
    slot_used_finally: bool

    @property
    def depth(self) -> int:
        """Of the block it landed in; 1 is the newest."""
        return max(1, self.tips.head - self.landed.block + 1) if self.landed is not None else 0

    @property
    def final(self) -> bool:
        """Whether this node says that the block stays."""
        return self.landed is not None and self.landed.block <= self.tips.final


class Watch:
    """Looks at the attempts of one network, many at a time."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._has_tag = bool(network.param("has_finality_tag", False)) and not network.is_test
        self._since: Latest[str, tuple[int, float]] = Latest(REMEMBERED_MAX)
        self._stranger_since: Latest[str, float] = Latest(REMEMBERED_MAX)
        self.observe: Together[Sequence[VersionView], Observation] = Together(
            runtime, self._observe, name=f"observe-{network.chain}", most=ATTEMPTS_AT_ONCE, broken=NodeUnreachable
        )
        """One attempt's versions -> Observation. Raises NodeUnreachable."""

    @property
    def needed(self) -> int:
        """How many nodes must agree."""
        return min(2, len(self._nodes))

    def tips_calls(self) -> list[Call]:
        """What `tips_of` reads."""
        finalized = [Call("eth_getBlockByNumber", ("finalized", False))] if self._has_tag else []
        return [Call("eth_getBlockByNumber", ("latest", False)), *finalized]

    def tips_of(self, answers: Sequence[Any]) -> Tips:
        """Raises BadAnswer."""
        latest = mapping(answers[0])
        head = quantity(latest.get("number"), HEIGHT_BITS)
        if not self._has_tag:
            final = self._by_depth(head)
        elif isinstance(answers[1], Fault):
            final = self._without_tag(answers[1], head)
        elif answers[1] is None:
            final = 0  # the chain is too young to have a final block
        else:
            final = min(head, quantity(mapping(answers[1]).get("number"), HEIGHT_BITS))
        return Tips(head, final, quantity(latest.get("baseFeePerGas", "0x0"), WEI_BITS))

    def _by_depth(self, head: int) -> int:
        return max(0, head - self._network.confirmations + 1)

    def _without_tag(self, fault: Fault, head: int) -> int:
        """A node that cannot know the tag counts by depth; one that merely failed to answer must not make anything final."""
        words = fault.words.lower()
        if "not found" in words or "unknown block" in words:
            return 0  # geth and Erigon while the chain is too young to have one
        if fault.code == INVALID_PARAMS or "not supported" in words:
            return self._by_depth(head)
        raise BadAnswer(f"no final block: {fault.words}")

    async def _observe(self, items: list[Sequence[VersionView]]) -> list[Observation | NodeUnreachable]:
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._look(node, items), name="look") for node in nodes]
        looks = [await task for task in tasks]
        faults = [look for look in looks if isinstance(look, NodeUnreachable)]
        found: list[Observation | NodeUnreachable] = []
        for place, versions in enumerate(items):
            views = [view for look in looks if not isinstance(look, NodeUnreachable) and (view := look[place]) is not None]
            if not views:
                found.append(NodeUnreachable(str(faults[-1]) if faults else "no node gave a usable answer"))
                continue
            waited, stranger = self._waited(versions[-1].txid, views), self._stranger(versions[0].txid, views)
            seen = judge(versions, views, needed=self.needed, waited=waited, stranger=stranger)
            if isinstance(seen, Included) and not seen.depth:
                log.warning("attempt.nodes.differ", chain=self._network.chain, txid=seen.txid, nodes=len(views))
            found.append(seen)
        return found

    def _waited(self, txid: str, views: Sequence[View]) -> bool:
        """Whether the newest version has been in no block for long; remembered in this process alone."""
        if any(view.landed is not None for view in views):
            self._since.pop(txid, None)
            return False
        # One node that stands still among enough others keeps no price from being raised.
        head = sorted((view.tips.head for view in views), reverse=True)[min(self.needed, len(views)) - 1]
        now = self._runtime.monotonic()
        first_head, first = self._since.setdefault(txid, (head, now))
        return head - first_head >= STUCK_BLOCKS and now - first >= STUCK_S

    def _stranger(self, txid: str, views: Sequence[View]) -> bool:
        """Whether enough nodes have shown for a while that the nonce is used, finally, and no node has a receipt of ours."""
        if sum(view.slot_used_finally for view in views) < self.needed or any(view.landed is not None for view in views):
            self._stranger_since.pop(txid, None)
            return False
        now = self._runtime.monotonic()
        return now - self._stranger_since.setdefault(txid, now) >= STRANGER_S

    async def _look(self, node: Node, items: Sequence[Sequence[VersionView]]) -> list[View | None] | NodeUnreachable:
        """Two questions to one node: receipts and heads; then the blocks they are in, and what else is known of those without."""
        tips_calls = self.tips_calls()
        senders = sorted({versions[0].intent.sender for versions in items})
        counts = [Call("eth_getTransactionCount", (sender, "latest")) for sender in senders]
        receipts = [_receipt(version) for versions in items for version in versions]
        try:
            answers = await self._nodes.ask(node, [*tips_calls, *counts, *receipts])
            tips = self.tips_of(answers)
            used = [quantity(answer, 64) for answer in answers[len(tips_calls) : len(tips_calls) + len(counts)]]
            first = _First(tips, dict(zip(senders, used, strict=True)), [])
            rest = iter(answers[len(tips_calls) + len(counts) :])
            for versions in items:
                first.landed.append(self._landed(versions, [next(rest) for _ in versions]))
            return await self._second(node, items, first)
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable answer: {error}")

    def _landed(self, versions: Sequence[VersionView], answers: Sequence[Any]) -> Landed | BadAnswer | None:
        """The version that has a receipt here. What this node says of one attempt may be unusable, and of another not."""
        try:
            if any(isinstance(answer, Fault) for answer in answers):
                raise BadAnswer("an error for a receipt")
            pairs = zip(versions, answers, strict=True)
            found = [read_receipt(version, mapping(answer), self._network) for version, answer in pairs if answer is not None]
            if len(found) > 1:
                raise BadAnswer("receipts for two transactions on one nonce")
        except ValueError as error:
            log.warning("node.answer.refused", chain=self._network.chain, txid=versions[-1].txid, reason=str(error)[:200])
            return BadAnswer(str(error))
        return found[0] if found else None

    async def _second(self, node: Node, items: Sequence[Sequence[VersionView]], first: _First) -> list[View | None]:
        blocks = sorted({landed.block for landed in first.landed if isinstance(landed, Landed)})
        missing = [versions for versions, landed in zip(items, first.landed, strict=True) if landed is None]
        passed = sorted({v[0].intent.sender for v in missing if first.used[v[0].intent.sender] > v[0].intent.slot})
        calls = [Call("eth_getBlockByNumber", (hex(block), False)) for block in blocks]
        calls += [Call("eth_getTransactionByHash", (versions[-1].txid,)) for versions in missing]
        calls += [Call("eth_getTransactionCount", (sender, hex(first.tips.final))) for sender in passed]
        answers = iter(await self._nodes.ask(node, calls) if calls else [])
        hashes = {block: _block_hash(next(answers), block) for block in blocks}
        known = {versions[-1].txid: _knows(next(answers), versions[-1].txid) for versions in missing}
        used_finally = {sender: _count(next(answers)) for sender in passed}
        views: list[View | None] = []
        for versions, landed in zip(items, first.landed, strict=True):
            intent, newest = versions[0].intent, versions[-1].txid
            if isinstance(landed, BadAnswer) or (landed is not None and hashes[landed.block] != landed.block_hash):
                views.append(None)  # unusable, or a reorg came between the two questions: ask again
                continue
            views.append(
                View(
                    tips=first.tips,
                    landed=landed,
                    newest_known=landed is None and known[newest],
                    first_in_line=first.used[intent.sender] >= intent.slot,
                    slot_used_finally=landed is None and used_finally.get(intent.sender, 0) > intent.slot,
                )
            )
        return views


@dataclass(frozen=True, slots=True)
class _First:
    """A node's answers to the first question."""

    tips: Tips
    used: Mapping[str, int]
    landed: list[Landed | BadAnswer | None]


def judge(versions: Sequence[VersionView], views: Sequence[View], *, needed: int, waited: bool, stranger: bool) -> Observation:
    """What the nodes' views of one attempt mean together. Pure."""
    groups = Counter(view.landed for view in views if view.landed is not None)
    if groups:
        final = Counter(view.landed for view in views if view.landed is not None and view.final)
        certain = [landed for landed, count in final.items() if count >= needed]
        if len(certain) == 1:
            return _verdict(versions, certain[0])
        landed, _ = groups.most_common(1)[0]
        depths = sorted((view.depth for view in views if view.landed == landed), reverse=True)
        # Depth 0: in a block by the word of fewer nodes than are needed, or of nodes that differ.
        depth = depths[needed - 1] if len(depths) >= needed and len(groups) == 1 else 0
        return Included(landed.txid, landed.block, depth, landed.status and landed.paid)
    if stranger:
        slot, sender = versions[0].intent.slot, versions[0].intent.sender
        return Suspicious(f"nonce {slot} of {sender} was used, finally, by a transaction that is none of ours")
    price = versions[-1].intent.terms
    too_low = price.get("max_fee_per_gas", price.get("gas_price", 0)) < min(view.tips.base_fee for view in views)
    if (too_low or waited) and sum(view.first_in_line for view in views) >= min(needed, len(views)):
        return Pending(stuck=True)  # also when the pools have thrown it out: at this price they take it no more
    holding = sum(view.newest_known for view in views)
    return Pending(thin=holding < needed) if holding else Absent()


def _verdict(versions: Sequence[VersionView], landed: Landed) -> Observation:
    """Of a version in a block that stays."""
    version = next(version for version in versions if version.txid == landed.txid)
    if landed.fee > version.intent.fee_cap:
        return Suspicious(f"{landed.txid} is final in block {landed.block} and cost {landed.fee} wei, above its cap")
    if version.intent.kind == "cancel":
        return FailedOnChain(landed.txid, landed.block, landed.fee, "our own cancel used the nonce")
    if not landed.status:
        return FailedOnChain(landed.txid, landed.block, landed.fee, "the transaction reverted")
    if not landed.paid:
        contract = version.intent.contract
        return Suspicious(
            f"{landed.txid} succeeded in final block {landed.block} without exactly one matching Transfer event of {contract} for each payment"
        )
    return FinalOnChain(landed.txid, landed.block, landed.fee)


def read_receipt(version: VersionView, receipt: Mapping[str, Any], network: Network) -> Landed:
    """A receipt that fits our own bytes. Raises ValueError for one that cannot be this transaction's."""
    intent = version.intent
    if hash32(receipt.get("transactionHash")) != version.txid or codec.checksum(str(receipt.get("from"))) != intent.sender:
        raise BadAnswer("a receipt of another transaction")
    gas = quantity(receipt.get("gasUsed"), GAS_BITS)
    price = quantity(receipt.get("effectiveGasPrice"), WEI_BITS)
    price_most = intent.terms.get("max_fee_per_gas", intent.terms.get("gas_price", 0))
    if gas > intent.terms["gas_limit"] or price > price_most:
        raise BadAnswer("a receipt that costs more than the transaction allows")
    l1_fee = 0
    if network.param("op_stack", False) and not (network.is_test and "l1Fee" not in receipt):
        l1_fee = quantity(receipt.get("l1Fee"), WEI_BITS)
    status = quantity(receipt.get("status"), 1) == 1
    return Landed(
        txid=version.txid,
        block=quantity(receipt.get("blockNumber"), HEIGHT_BITS),
        block_hash=hash32(receipt.get("blockHash")),
        status=status,
        paid=status and _paid(version, receipt.get("logs")),
        fee=gas * price + l1_fee,
    )


def _paid(version: VersionView, logs: object) -> bool:
    intent = version.intent
    if intent.contract is None or intent.kind != "pay":
        return True
    if not isinstance(logs, list) or not all(isinstance(entry, dict) for entry in logs):
        raise BadAnswer("a receipt without logs")
    return codec.exact_transfers(logs, intent.contract, intent.sender, [(paid.recipient, paid.units) for paid in intent.payments])


def _receipt(version: VersionView) -> Call:
    """A log takes a twentieth of what a receipt with one may take."""
    return Call("eth_getTransactionReceipt", (version.txid,), size=1 + len(version.intent.payments) // 20)


def _block_hash(answer: object, block: int) -> str:
    if not isinstance(answer, dict) or quantity(answer.get("number"), HEIGHT_BITS) != block:
        return ""
    return hash32(answer.get("hash"))


def _knows(answer: object, txid: str) -> bool:
    return isinstance(answer, dict) and hash32(answer.get("hash")) == txid


def _count(answer: object) -> int:
    """A nonce count at a final block; a node that has thrown that state away says nothing."""
    return 0 if isinstance(answer, Fault) else quantity(answer, 64)
