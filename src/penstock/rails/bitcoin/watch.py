"""What became of an attempt. What is followed are the coins that all of its versions spend; ids only tell which one did it.

Proof of success: enough nodes have one of our versions in the same block, deep enough. Proof of failure: the same of our own cancel. Nothing
else proves anything: not in the pool, evicted, abandoned and "not found" are Absent, and the same bytes are sent again. A block is found by the
node's transaction index, by the watch-only wallet, or by its hash as another node names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from penstock.core.event import Absent, FailedOnChain, Included, Observation, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.latest import Latest
from penstock.core.money import Network, parse_units
from penstock.rails.base import NodeUnreachable, VersionView
from penstock.rails.bitcoin.codec import decode, vsize_of
from penstock.rails.bitcoin.talk import block_hash, height, rate
from penstock.rails.bitcoin.transaction import outpoint
from penstock.rails.bitcoin.wallet import wallet_path
from penstock.rails.rpc import BadAnswer, Call, Node, Nodes, mapping, reached_by
from penstock.runtime import Runtime
from penstock.together import Together

log = structlog.get_logger()

NODES_ASKED_MAX: Final = 4
ATTEMPTS_AT_ONCE: Final = 100
STUCK_BLOCKS: Final = 4
STUCK_S: Final = 60.0
"""A version that so many blocks and seconds passed over is bumped."""
STRANGER_S: Final = 10.0
"""A version may come into a block between two questions; a coin that a stranger spent stays spent."""
REMEMBERED_MAX: Final = 20_000
LARGE_CONFIRMATIONS: Final = 6


@dataclass(frozen=True, slots=True)
class Landed:
    """A version in a block of the best chain, as one node has it."""

    txid: str
    block: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class View:
    """One attempt as one node shows it.

    `rate_min` is what its pool takes at least, in satoshi for 1,000 virtual bytes. `spender` is what spends a coin of ours in its pool, `gone`
    that a block has spent one (or that it was never there), `searched` that the node would know of any transaction of ours.
    """

    head: int
    rate_min: int
    gone: bool
    spender: str = ""
    landed: Landed | None = None
    depth: int = 0
    searched: bool = False


class Watch:
    """Looks at the attempts of one network, many at a time."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._large = parse_units(str(network.param("large_amount", "0")) or "0", 8)
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

    def depth_of(self, version: VersionView) -> int:
        """How deep an attempt must be to stay: a large amount is worth a longer wait."""
        large = self._large and sum(payment.units for payment in version.intent.payments) >= self._large
        return max(self._network.confirmations, LARGE_CONFIRMATIONS) if large else self._network.confirmations

    async def _observe(self, items: list[Sequence[VersionView]]) -> list[Observation | NodeUnreachable]:
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._look(node, items), name="look") for node in nodes]
        looks = [await task for task in tasks]
        faults = [look for look in looks if isinstance(look, NodeUnreachable)]
        seen = [(node, look) for node, look in zip(nodes, looks, strict=True) if not isinstance(look, NodeUnreachable)]
        answers: list[Observation | NodeUnreachable] = []
        for place, versions in enumerate(items):
            views = await self._by_hash([(node, look[place]) for node, look in seen if look[place] is not None], versions)
            if not views:
                answers.append(NodeUnreachable(str(faults[-1]) if faults else "no node gave a usable answer"))
                continue
            answers.append(self._judged(versions, views, through=reached_by((view.head for view in views), self.needed)))
        return answers

    def _judged(self, versions: Sequence[VersionView], views: Sequence[View], *, through: int | None) -> Observation:
        seen = judge(
            versions,
            views,
            needed=self.needed,
            depth=self.depth_of(versions[-1]),
            waited=self._waited(versions[-1].txid, views),
            stranger=self._stranger(versions, views),
        )
        if isinstance(seen, Absent) and all(view.gone and not view.searched for view in views):
            log.warning("attempt.search.incomplete", chain=self._network.chain, txid=versions[-1].txid)
        if isinstance(seen, Included) and not seen.depth:
            # Nothing says how much of the chain is shown by nodes that differ on the block.
            log.warning("attempt.nodes.differ", chain=self._network.chain, txid=seen.txid, nodes=len(views))
        elif isinstance(seen, Absent | Pending | Included | Suspicious):
            seen = replace(seen, through=through)
        return seen

    def _waited(self, txid: str, views: Sequence[View]) -> bool:
        """Whether the newest version has been in no block for long; remembered in this process alone."""
        if any(view.landed is not None for view in views):
            self._since.pop(txid, None)
            return False
        # One node that stands still among enough others keeps no price from being raised.
        head = sorted((view.head for view in views), reverse=True)[min(self.needed, len(views)) - 1]
        now = self._runtime.monotonic()
        first_head, first = self._since.setdefault(txid, (head, now))
        return head - first_head >= STUCK_BLOCKS and now - first >= STUCK_S

    def _stranger(self, versions: Sequence[VersionView], views: Sequence[View]) -> str:
        """What spent a coin of the attempt and is none of ours, as enough nodes have shown for a while; "" when nothing did."""
        anchor = versions[0].intent.resources[0].name
        said = stranger_of(versions, views, needed=self.needed)
        if not said:
            self._stranger_since.pop(anchor, None)
            return ""
        now = self._runtime.monotonic()
        return said if now - self._stranger_since.setdefault(anchor, now) >= STRANGER_S else ""

    # Asking one node

    async def _look(self, node: Node, items: Sequence[Sequence[VersionView]]) -> list[View | None] | NodeUnreachable:
        """Whether and by what the coins of each attempt are spent; where a block has spent one, which version did it."""
        coins = [[outpoint(resource.name) for resource in versions[0].intent.resources] for versions in items]
        asked = [{"txid": txid.hex(), "vout": index} for of_one in coins for txid, index in of_one]
        calls = [Call("getblockchaininfo"), Call("getmempoolinfo"), Call("gettxspendingprevout", (asked,))]
        calls += [Call("gettxout", (coin["txid"], coin["vout"], False)) for coin in asked]
        try:
            answers = await self._nodes.ask(node, calls)
            head, least = height(mapping(answers[0]).get("blocks")), rate(mapping(answers[1]).get("mempoolminfee"))
            shown = zip(_spenders(answers[2], asked), map(_gone, answers[3:]), strict=True)
            views: list[View | None] = []
            for versions, of_one in zip(items, coins, strict=True):
                spenders, gone = zip(*(next(shown) for _ in of_one), strict=True)
                view = View(head, least, gone=any(gone), spender=max(spenders))
                views.append(await self._search(node, versions, view) if view.gone else view)
            return views
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} gave no usable answer: {error}")

    async def _search(self, node: Node, versions: Sequence[VersionView], view: View) -> View | None:
        """The block that has one of the versions, by the node's index or else its wallet. None when its answers cannot be used."""
        try:
            answers = await self._nodes.ask(node, [Call("getrawtransaction", (version.txid, True)) for version in versions])
            blocks = _blocks(versions, answers)
            searched = False
            if not blocks:
                path = wallet_path(versions[0].intent.sender)
                calls = [Call("getwalletinfo", path=path), *(Call("gettransaction", (v.txid, True), path) for v in versions)]
                info, *answers = await self._nodes.ask(node, calls)
                blocks = _blocks(versions, answers)
                searched = isinstance(info, dict) and info.get("scanning") is False
            return await self._in_block(node, replace(view, searched=searched), blocks)
        except ValueError as error:
            log.warning("node.answer.refused", chain=self._network.chain, txid=versions[-1].txid, reason=str(error)[:200])
            return None

    async def _in_block(self, node: Node, view: View, blocks: Mapping[str, str]) -> View | None:
        """The view with the block, when that is on the node's best chain."""
        if not blocks:
            return view
        if len(blocks) > 1:
            raise BadAnswer("two transactions in blocks that spend one coin")
        ((txid, hash_),) = blocks.items()
        (answer,) = await self._nodes.ask(node, [Call("getblockheader", (hash_,))])
        header = mapping(answer)
        confirmations = header.get("confirmations")
        if block_hash(header.get("hash")) != hash_ or type(confirmations) is not int:
            raise BadAnswer("no header of the block it named")
        if confirmations < 1:
            return None  # a reorg came between the questions: ask again
        return replace(view, landed=Landed(txid, height(header.get("height")), hash_), depth=height(confirmations))

    async def _by_hash(self, pairs: Sequence[tuple[Node, View | None]], versions: Sequence[VersionView]) -> list[View]:
        """A node without index and wallet still knows a transaction of a block that another node names."""
        views = []
        hints = {view.landed for _, view in pairs if view is not None and view.landed is not None}
        for node, view in pairs:
            if view is not None and view.gone and view.landed is None and len(hints) == 1:
                views.append(await self._confirmed(node, view, versions, next(iter(hints))))
            elif view is not None:
                views.append(view)
        return views

    async def _confirmed(self, node: Node, view: View, versions: Sequence[VersionView], hint: Landed) -> View:
        try:
            answers = await self._nodes.ask(node, [Call("getrawtransaction", (hint.txid, True, hint.block_hash))])
            version = [version for version in versions if version.txid == hint.txid]
            return await self._in_block(node, view, _blocks(version, answers)) or view
        except (NodeUnreachable, ValueError):
            return view


def _gone(answer: object) -> bool:
    if answer is not None and not isinstance(answer, dict):
        raise BadAnswer("no output")
    return answer is None


def _spenders(answer: object, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """https://developer.bitcoin.org/reference/rpc/ (gettxspendingprevout)"""
    if not isinstance(answer, list) or len(answer) != len(asked):
        raise BadAnswer("not one answer for each coin: Bitcoin Core 24 or later is needed")
    spenders = []
    for said, coin in zip(map(mapping, answer), asked, strict=True):
        if (said.get("txid"), said.get("vout")) != (coin["txid"], coin["vout"]):
            raise BadAnswer("an answer for another coin")
        spender = said.get("spendingtxid")
        spenders.append("" if spender is None else block_hash(spender))
    return spenders


def _blocks(versions: Sequence[VersionView], answers: Sequence[Any]) -> dict[str, str]:
    """Block hash by txid, of those that the node has in a block. An error is no answer: there may be no index, and no wallet."""
    blocks = {}
    for version, answer in zip(versions, answers, strict=True):
        if isinstance(answer, dict) and answer.get("blockhash") is not None:
            if block_hash(answer.get("txid")) != version.txid:
                raise BadAnswer("another transaction than was asked for")
            confirmations = answer.get("confirmations", 0)
            if type(confirmations) is int and confirmations > 0:
                blocks[version.txid] = block_hash(answer["blockhash"])
    return blocks


# Judging


def stranger_of(versions: Sequence[VersionView], views: Sequence[View], *, needed: int) -> str:
    """What spends a coin of the attempt and is none of our versions, by as many nodes as are needed. Pure."""
    own = {version.txid for version in versions}
    if any(view.landed is not None or view.spender in own for view in views):
        return ""
    spenders = Counter(view.spender for view in views if view.spender)
    for txid, count in spenders.items():
        if count >= needed:
            return f"transaction {txid}, which waits in the nodes' pools,"
    if sum(view.gone and view.searched for view in views) >= needed:
        return "a transaction in a block, or an undone block that had made it,"
    return ""


def judge(versions: Sequence[VersionView], views: Sequence[View], *, needed: int, depth: int, waited: bool, stranger: str) -> Observation:
    """What the nodes' views of one attempt mean together. Pure."""
    groups = Counter(view.landed for view in views if view.landed is not None)
    if groups:
        (landed, count), *others = groups.most_common(2)
        # Depth 0: in a block by the word of fewer nodes than are needed, or of as many for two.
        agreed = count >= needed and not any(other >= needed for _, other in others)
        certain = sorted((view.depth for view in views if view.landed == landed), reverse=True)[needed - 1] if agreed else 0
        paid = next(version for version in versions if version.txid == landed.txid).intent.kind == "pay"
        # What gives money back waits longest: were its block undone, an older version could still pay.
        if certain >= (depth if paid else max(depth, LARGE_CONFIRMATIONS)):
            return _verdict(versions, landed)
        return Included(landed.txid, landed.block, certain, paid)
    newest = versions[-1]
    if stranger:
        anchor = newest.intent.resources[0].name
        return Suspicious(f"{stranger} spends a coin of the attempt anchored at {anchor}, and is none of our versions")
    if waited or rate_of(newest) < min(view.rate_min for view in views):
        return Pending(stuck=True)  # also when the pools have thrown it out: at this rate they take it no more
    holding = sum(view.spender == newest.txid for view in views)
    return Pending(thin=holding < needed) if holding else Absent()


def _verdict(versions: Sequence[VersionView], landed: Landed) -> Observation:
    """Of a version in a block that stays: its bytes say what it paid and cost."""
    version = next(version for version in versions if version.txid == landed.txid)
    intent, outputs = version.intent, decode(version.raw).outputs()
    fee = sum(resource.units for resource in intent.resources) - sum(units for _, units in outputs)
    if not 0 <= fee <= intent.fee_cap:
        return Suspicious(f"{landed.txid} is final in block {landed.block} and cost {fee} satoshi, above its cap")
    if intent.kind == "cancel":
        return FailedOnChain(landed.txid, landed.block, fee, "our own cancel spent the coins")
    return FinalOnChain(landed.txid, landed.block, fee)


def rate_of(version: VersionView) -> int:
    """Satoshi that a version pays for 1,000 virtual bytes."""
    transaction = decode(version.raw).transaction
    witness = sum(len(spent.witness.serialize()) for spent in transaction.vin) + 2
    weight = 4 * (len(version.raw) - witness) + witness
    return version.intent.terms["fee"] * 1000 // vsize_of(weight)
