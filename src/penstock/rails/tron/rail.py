"""TRON: TRX and TRC-20 tokens, from one hot address.

There is no nonce and no bump: an attempt is one transaction that lands or expires, and its bytes are its own because they carry the
attempt's id (see `codec`). Treated as unknown, whatever the words: timeouts, HTTP errors, SERVER_BUSY, TAPOS_ERROR,
TRANSACTION_EXPIRATION_ERROR and every other code but SUCCESS and DUP_TRANSACTION_ERROR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from penstock.core.event import Observation
from penstock.core.intent import Intent, Payment
from penstock.core.money import Network, Token, parse_units
from penstock.rails.base import (
    Destination,
    FeeEstimate,
    Heads,
    Holdings,
    LaneView,
    NodeUnreachable,
    OwnAddress,
    Rail,
    Submission,
    Unpayable,
    Verdict,
    VersionView,
)
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes, clean, mapping
from penstock.rails.submitter import Submitter
from penstock.rails.tron import codec
from penstock.rails.tron.answers import Called, balance_of, called_of, hash_of
from penstock.rails.tron.fees import Fees, balance_call
from penstock.rails.tron.watch import HEAD_CALLS, NODES_ASKED_MAX, Tips, Watch, needed_tips, tips_of
from penstock.runtime import Runtime

DECIMALS: Final = 6
SUBMITS_AT_ONCE: Final = 8
HOLDINGS_TRIES: Final = 6
HOLDINGS_WAIT_S: Final = 0.5

_CODES: Final[Mapping[str, Verdict]] = MappingProxyType(
    {
        "SUCCESS": Verdict.ACCEPTED,
        "DUP_TRANSACTION_ERROR": Verdict.ACCEPTED,
        "SIGERROR": Verdict.UNKNOWN,
        "CONTRACT_VALIDATE_ERROR": Verdict.UNKNOWN,
        "CONTRACT_EXE_ERROR": Verdict.UNKNOWN,
        "BANDWITH_ERROR": Verdict.UNKNOWN,
        "TAPOS_ERROR": Verdict.UNKNOWN,
        "TOO_BIG_TRANSACTION_ERROR": Verdict.UNKNOWN,
        "TRANSACTION_EXPIRATION_ERROR": Verdict.UNKNOWN,
        "SERVER_BUSY": Verdict.UNKNOWN,
        "NO_CONNECTION": Verdict.UNKNOWN,
        "NOT_ENOUGH_EFFECTIVE_CONNECTION": Verdict.UNKNOWN,
        "BLOCK_UNSOLIDIFIED": Verdict.UNKNOWN,
        "OTHER_ERROR": Verdict.UNKNOWN,
    }
)
"""`response_code` of the protocol, whole; a duplicate is one that the node has, or has seen.
https://github.com/tronprotocol/protocol/blob/master/api/api.proto"""


class TronRail(Rail):
    """`rails.base.Rail` for one network of TRON.

    `own` are the hot addresses of this house (at least one), `contracts` every token contract of the catalogue here: neither is a
    destination. `fee_max` is the most that one transaction may cost, in sun; without it the catalogue's.
    """

    def __init__(
        self,
        network: Network,
        nodes: Nodes,
        runtime: Runtime,
        *,
        own: Sequence[str],
        contracts: Iterable[str] = (),
        fee_max: int | None = None,
    ) -> None:
        self._network = network
        self._nodes = nodes
        self._runtime = runtime
        self._own = frozenset(codec.parse_address(address) for address in own)
        self._contracts = frozenset(codec.parse_address(address) for address in contracts)
        self.fee_max = parse_units(str(network.param("fee_max", "0")), DECIMALS) if fee_max is None else fee_max
        self._fees = Fees(network, nodes, runtime, sender=codec.parse_address(own[0]), fee_max=self.fee_max)
        self._watch = Watch(network, nodes, runtime)
        self._submit = Submitter(
            nodes,
            runtime,
            name=f"submit-{network.chain}",
            call=lambda raw: Call("wallet/broadcasthex", ({"transaction": raw.hex()},)),
            verdict=verdict_of,
            at_once=SUBMITS_AT_ONCE,
        )

    @property
    def network(self) -> Network:
        """The network this rail serves."""
        return self._network

    def faults(self) -> list[str]:
        """What is wrong with which node, for people."""
        return self._nodes.faults()

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure. A memo has no place here and is dropped. Raises InvalidDestination, also as OwnAddress."""
        del memo
        address = codec.parse_address(text)
        if address in self._own:
            raise OwnAddress("The address is this gateway's own hot address; give the recipient's.")
        if address in self._contracts:
            raise OwnAddress("The address is a token's contract, where coins are lost; give the recipient's own address.")
        return Destination(address)

    async def estimate(self, token: Token) -> FeeEstimate:
        """What one transfer costs now. Raises NodeUnreachable."""
        return await self._fees.estimate(token)

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """For each payment an estimate of its own: energy by trying the call, a new account, a fresh reference block and expiration."""
        del fees
        return await self._fees.for_recipients(payments, token, sender)

    async def heads(self) -> Heads:
        """The heights that as many nodes as are needed have reached, or those that answer. Raises NodeUnreachable."""
        nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
        tasks = [self._runtime.spawn(self._tips(node), name="heads") for node in nodes]
        looks = [await task for task in tasks]
        tips = [look for look in looks if isinstance(look, Tips)]
        if not tips:
            raise next(look for look in looks if isinstance(look, NodeUnreachable))
        head, final = needed_tips(tips, self._watch.needed)
        return Heads(head, final, self._runtime.now_ms())

    async def _tips(self, node: Node) -> Tips | NodeUnreachable:
        try:
            return await self._watch.tips(node)
        except NodeUnreachable as error:
            return error

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: one payment; the slot is our own count, and nothing on the chain."""
        if len(payments) != 1:
            raise ValueError("a transaction of TRON carries exactly one payment")
        net = self._network
        return Intent(
            attempt_id=attempt_id,
            version=1,
            kind="pay",
            chain=net.chain,
            family=net.family,
            chain_id=net.chain_id,
            sender=lane.address,
            slot=lane.slot,
            token_id=token.id,
            contract=token.contract,
            payments=tuple(payments),
            terms=dict(fees.terms),
            fee_cap=fees.fee_cap,
        )

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> None:
        """Never: nothing on TRON replaces a transaction, so a second one could be mined beside it. It lands or expires."""
        del intent, fees, version, cancel

    async def submit(self, raw: bytes) -> Submission:
        """To the first node that takes them; what was submitted before goes to every node. REFUSED by our own decoder alone."""
        try:
            found = codec.decode(raw)
        except codec.InvalidTransaction as error:
            return Submission(Verdict.REFUSED, f"these bytes can never land on {self._network.chain}: {error}")
        return await self._submit(found.txid, raw)

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. Calls that come together share their questions. Raises NodeUnreachable."""
        if len(versions) != 1:
            raise ValueError("an attempt on TRON has exactly one version")
        return await self._watch.observe(versions[0])

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """At one solidified block that as many nodes as are needed agree on; asked again while it moves. Raises NodeUnreachable."""
        last: NodeUnreachable = NodeUnreachable("no node is configured")
        for tried in range(HOLDINGS_TRIES):
            if tried:
                await self._runtime.sleep(HOLDINGS_WAIT_S)
            nodes = self._nodes.healthy()[:NODES_ASKED_MAX]
            tasks = [self._runtime.spawn(self._held(node, address, tokens), name="holdings") for node in nodes]
            looks = [await task for task in tasks]
            found = Counter(look for look in looks if isinstance(look, tuple))
            faults = [look for look in looks if isinstance(look, NodeUnreachable)]
            agreed = [look for look, count in found.items() if count >= self._watch.needed]
            if len(agreed) == 1:
                block, _, units = agreed[0]
                return Holdings(block, dict(units))
            if len(looks) - len(faults) < self._watch.needed:
                raise faults[-1] if faults else NodeUnreachable("fewer nodes answer than must agree on what the hot address holds")
            last = NodeUnreachable("the nodes differ on what the hot address holds")
        raise last

    async def _held(
        self, node: Node, address: str, tokens: Sequence[Token]
    ) -> tuple[int, str, tuple[tuple[str, int], ...]] | NodeUnreachable | None:
        """Block and amounts as one node has them; None when the block moved while we read."""
        account = Call("walletsolidity/getaccount", ({"address": codec.account_hex(address)},))
        calls = [account if token.contract is None else balance_call("walletsolidity", token.contract, address) for token in tokens]
        try:
            before = tips_of(await self._nodes.ask(node, HEAD_CALLS)).solid
            answers = await self._nodes.ask(node, calls) if calls else []
            after = tips_of(await self._nodes.ask(node, HEAD_CALLS)).solid
            units = tuple((token.id, self._units(address, token, answer)) for token, answer in zip(tokens, answers, strict=True))
        except NodeUnreachable as error:
            return error
        except ValueError as error:
            return NodeUnreachable(f"{node.name} did not say what the hot address holds: {error}")
        return (before.number, before.id, units) if before == after else None

    def _units(self, address: str, token: Token, answer: Any) -> int:
        if isinstance(answer, Fault):
            raise BadAnswer(answer.words)
        if token.contract is None:
            return balance_of(answer, address)
        called: Called = called_of(answer)
        if called.missing and self._network.is_test:
            return 0  # a test chain need not have every contract of the catalogue
        if not called.ran or called.word is None:
            raise BadAnswer("balanceOf failed")
        return called.word


def verdict_of(node: Node, answer: object, txid: str) -> Submission:
    """A node's answer to bytes with this id, mapped whole. Its words are never proof that the bytes cannot land."""
    if isinstance(answer, Fault):
        return Submission(Verdict.UNKNOWN, f"{node.name}: {answer.words}")
    try:
        fields = mapping(answer)
        named = hash_of(fields.get("txid", txid))
    except BadAnswer as error:
        return Submission(Verdict.UNKNOWN, f"{node.name}: {error}")
    code = str(fields.get("code", "SUCCESS" if fields.get("result") is True else "OTHER_ERROR"))[:40]
    words = clean(f"{node.name}: {code} {fields.get('message', '')}", node.url)
    if named != txid:
        return Submission(Verdict.UNKNOWN, f"{node.name} named another transaction id, {named}; ours counts")
    if code == "SUCCESS" and fields.get("result") is not True:
        return Submission(Verdict.UNKNOWN, words)
    return Submission(_CODES.get(code, Verdict.UNKNOWN), "" if code == "SUCCESS" else words)
