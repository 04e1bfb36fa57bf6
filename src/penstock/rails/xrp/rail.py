"""The XRP Ledger and its sidechains.

Conflict resource: the sequence of the hot address; tickets are not used. Every version names a last ledger; when it has passed, the next
version takes the same sequence, so that at most one of them can ever land. Treated as unknown, whatever the words: timeouts, HTTP errors,
and every tel, tem, tef and ter code of `submit` but those that say that the node has these very bytes; only validated ledgers count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from penstock.core.event import Observation
from penstock.core.intent import Intent, Kind, Payment
from penstock.core.money import Network, Token, parse_units, plain
from penstock.rails.base import (
    Destination,
    FeeEstimate,
    Heads,
    Holdings,
    InvalidDestination,
    LaneView,
    NodeUnreachable,
    NotEnough,
    OwnAddress,
    Rail,
    Submission,
    TooLittle,
    Unpayable,
    Verdict,
    VersionView,
)
from penstock.rails.rpc import BadAnswer, Call, Fault, Node, Nodes
from penstock.rails.submitter import Submitter
from penstock.rails.xrp import codec
from penstock.rails.xrp.answers import account_call, account_of, line_call, line_of, result_of
from penstock.rails.xrp.fees import Fees, bumped
from penstock.rails.xrp.recipients import XRP_DECIMALS, Recipients, makes_no_account, unusable
from penstock.rails.xrp.watch import Watch
from penstock.runtime import Runtime

SUBMITS_AT_ONCE: Final = 20
LOOK_UP_S: Final = 1.5
"""How long a request waits for the ledger's word on its recipient."""

_TAKEN: Final = frozenset({"tesSUCCESS", "terQUEUED", "terPRE_SEQ", "tefALREADY"})
"""Results by which a node says that it has these bytes: applied, queued, kept for later, or applied before.
https://xrpl.org/docs/references/protocol/transactions/transaction-results
"""


class XrpRail(Rail):
    """`rails.base.Rail` for one network of the family; also `Prepares` and `Opens`.

    `own` are the hot addresses of this house (at least one), `contracts` every token of the catalogue here ("CODE.rISSUER"): neither they
    nor issuers are destinations. `fee_max` is the most that one transaction may cost, in drops; without it the catalogue's.
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
        self._own = frozenset(own)
        self._issuers = frozenset(codec.parse_contract(contract).issuer for contract in contracts)
        self.fee_max = parse_units(str(network.param("fee_max", "0")), XRP_DECIMALS) if fee_max is None else fee_max
        self._watch = Watch(network, nodes, runtime)
        self._fees = Fees(nodes, runtime, sender=own[0], fee_max=self.fee_max, validated=self._watch.tip)
        self._recipients = Recipients(nodes, runtime, sender=own[0])
        self._submit = Submitter(
            nodes,
            runtime,
            name=f"submit-{network.chain}",
            call=lambda raw: Call("submit", ({"tx_blob": raw.hex().upper()},)),
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
        """Pure: the classic address, and the tag from the memo or the X-address. Raises InvalidDestination, also as OwnAddress."""
        target, tag = codec.parse_address(text, is_test=self._network.is_test), codec.parse_tag(memo)
        if target.tag is not None and tag is not None and target.tag != tag:
            raise InvalidDestination("The X-address holds another destination tag than the memo; give one of them, or the same twice.")
        if target.address in self._own:
            raise OwnAddress("The address is this gateway's own hot address; give the recipient's.")
        if target.address in self._issuers:
            raise OwnAddress("The address is a token's issuer, where tokens end; give the recipient's own address.")
        tag = target.tag if tag is None else tag
        return Destination(target.address, "" if tag is None else str(tag))

    async def look_up(self, destination: Destination, token: Token, units: int) -> None:
        """What the recipient demands, and what makes its account. Raises InvalidDestination, MemoRequired, TooLittle, or NodeUnreachable
        after LOOK_UP_S.
        """
        try:
            async with asyncio.timeout(LOOK_UP_S):
                if await self._recipients.look_up(destination, token):
                    return
                market = await self._fees.market()
        except TimeoutError as error:
            raise NodeUnreachable(f"no node told of the recipient within {LOOK_UP_S:g} s") from error
        if units < market.base_reserve:
            raise TooLittle(makes_no_account(market.base_reserve))

    async def estimate(self, token: Token) -> FeeEstimate:
        """What one payment costs now: the fee that it will name, to the drop. Raises NodeUnreachable."""
        return await self._fees.estimate(token)

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """`fees` with a last ledger as of now, or what keeps the recipient from being paid. Raises NodeUnreachable."""
        market = await self._fees.market(sender)
        problems = await self._recipients.problems(payments, token, sender, base_reserve=market.base_reserve)
        terms = {**fees.terms, "last_ledger": self._fees.terms(market)["last_ledger"], "reserve": market.reserve}
        fresh = replace(fees, terms=terms)
        return [problem or fresh for problem in problems]

    async def heads(self) -> Heads:
        """The newest validated ledger twice: nothing that is not validated counts, and nothing validated is undone. Raises NodeUnreachable."""
        validated = await self._watch.tip()
        return Heads(validated, validated, self._runtime.now_ms())

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: one payment on the lane's sequence. Raises NotEnough where the account's reserve would be spent, Unpayable for a token
        that the catalogue describes wrongly.
        """
        if len(payments) != 1:
            raise ValueError("a transaction of the XRP Ledger carries exactly one payment")
        if (wrong := unusable(token)) is not None:
            raise wrong
        network, terms = self._network, dict(fees.terms)
        reserve = terms.pop("reserve", 0)
        if lane.spendable is not None:
            needed = fees.fee_cap + (payments[0].units if token.is_native else 0) + reserve
            if (lacking := needed - lane.spendable.get(network.native_token_id, 0)) > 0:
                short, kept = plain(lacking, XRP_DECIMALS), plain(reserve, XRP_DECIMALS)
                raise NotEnough(f"the treasury lacks {short} XRP on {network.chain}, where the account itself must keep {kept} XRP")
        return self._intent("pay", payments, token, lane, terms, fees.fee_cap, attempt_id)

    async def unopened(self, address: str, tokens: Sequence[Token]) -> list[Token]:
        """Tokens for which the address has no trust line with room; none whose issuer this network does not know. Raises NodeUnreachable."""
        issued = [(token, codec.parse_contract(token.contract)) for token in tokens if token.contract is not None]
        if not issued:
            return []
        calls = [line_call(address, one) for _, one in issued] + [account_call(one.issuer) for _, one in issued]
        checks: list[Callable[[object], object]] = [partial(line_of, address, one, codec.ISSUED_DECIMALS) for _, one in issued]
        checks += [partial(account_of, one.issuer) for _, one in issued]
        found = await self._nodes.read_many(calls, checks)
        rows = zip(issued, found[: len(issued)], found[len(issued) :], strict=True)
        return [token for (token, _), line, issuer in rows if issuer is not None and (line is None or not line.units_max)]

    def open(self, token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: a trust line to the token's issuer, on the lane's sequence."""
        terms = {name: number for name, number in fees.terms.items() if name != "reserve"}
        return self._intent("open", (), token, lane, terms, fees.fee_cap, attempt_id)

    def _intent(
        self, kind: Kind, payments: Sequence[Payment], token: Token, lane: LaneView, terms: dict[str, int], fee_cap: int, attempt_id: int
    ) -> Intent:
        net = self._network
        return Intent(
            attempt_id=attempt_id,
            version=1,
            kind=kind,
            chain=net.chain,
            family=net.family,
            chain_id=net.chain_id,
            sender=lane.address,
            slot=lane.slot,
            token_id=token.id,
            contract=token.contract,
            payments=tuple(payments),
            terms=terms,
            fee_cap=fee_cap,
        )

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """Pure: the same sequence with a later last ledger, at a higher fee where the older version may still wait; None when the cap
        forbids it.
        """
        return bumped(intent, fees, version=version, cancel=cancel)

    async def submit(self, raw: bytes) -> Submission:
        """To the first node that takes them; what was submitted before goes to every node. REFUSED by our own decoder alone."""
        try:
            found = codec.decode_signed(raw)
        except codec.InvalidTransaction as error:
            return Submission(Verdict.REFUSED, f"these bytes can never land on {self._network.chain}: {error}")
        if not codec.network_fits(found.fields, self._network.chain_id):
            return Submission(Verdict.REFUSED, f"these bytes are for another network than {self._network.chain}")
        return await self._submit(found.txid, raw)

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. Calls that come together share their questions. Raises NodeUnreachable."""
        if not versions:
            raise ValueError("an attempt that is observed has at least one version")
        return await self._watch.observe(versions)

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """At the newest validated ledger, by as many nodes as are needed, or those that answer. Raises NodeUnreachable."""
        return await self.holdings_at(address, tokens, await self._watch.tip())

    async def holdings_at(self, address: str, tokens: Sequence[Token], ledger: int) -> Holdings:
        """At the end of a validated ledger: the whole balance, reserve included. Raises NodeUnreachable, also while the account does not
        exist, since its first sequence is not known before.
        """
        needed = self._watch.needed
        account = await self._nodes.agreed(account_call(address, ledger), lambda answer: account_of(address, answer), needed=needed)
        if account is None:
            raise NodeUnreachable(
                f"the hot address {address} does not exist on {self._network.chain} yet: send it its reserve and what it is to pay with"
            )
        units = {token.id: account.drops if token.is_native else await self._issued(address, token, ledger) for token in tokens}
        return Holdings(ledger, units, slots_used=account.sequence, slots_mined=account.sequence)

    async def _issued(self, address: str, token: Token, ledger: int) -> int:
        """Whole units, rounded down: what others may have sent in finer parts stays uncounted, and payments in whole units do not touch it."""
        issued = codec.parse_contract(str(token.contract))

        def check(answer: object) -> int:
            line = line_of(address, issued, token.decimals, answer)
            units = line.units if line is not None else 0
            if not 0 <= units <= codec.ISSUED_UNITS_MAX:
                raise BadAnswer("a balance that the ledger does not hold exactly, or a debt of ours")
            return units

        return await self._nodes.agreed(line_call(address, issued, ledger), check, needed=self._watch.needed)


def verdict_of(node: Node, answer: object, txid: str) -> Submission:
    """A node's answer to bytes with this id, mapped whole. Its words are never proof that the bytes cannot land."""
    if isinstance(answer, Fault):
        return Submission(Verdict.UNKNOWN, f"{node.name}: {answer.words}")
    try:
        result, named = result_of(answer)
    except BadAnswer as error:
        return Submission(Verdict.UNKNOWN, f"{node.name}: {error}")
    if named and named != txid:
        return Submission(Verdict.UNKNOWN, f"{node.name} named another transaction id, {named}; ours counts")
    # A tec code here is a forecast for the open ledger, which has taken the transaction.
    taken = result in _TAKEN or result.startswith("tec")
    return Submission(Verdict.ACCEPTED if taken else Verdict.UNKNOWN, "" if result == "tesSUCCESS" else f"{node.name}: {result}")
