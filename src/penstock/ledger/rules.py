"""The invariants of the failure model, section 4, as rules on facts: the one place where they are written.

Each rule takes values and adds what it finds to a report; who reads the facts, all or the new ones, is not its concern.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from penstock.core import attempt as attempt_states
from penstock.core import covers, ledger
from penstock.core.money import LEDGER_DECIMALS, Token, plain
from penstock.core.order import MOVES, TERMINAL, OrderState, WireStatus, wire_status
from penstock.db import Row
from penstock.ledger.book import batch_hash
from penstock.ledger.facts import AttemptFacts, Head, Link, OrderFacts
from penstock.ledger.report import Report

Key = tuple[str, str]
Totals = dict[Key, int]

HOUSE: Final = ("house:", "treasury:", "payout_in_transit:", "move_in_transit")
"""What accounts that are nobody's begin with."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the database does not say: symbols of coins for people, tokens by id, and the time (None: nothing is called late)."""

    symbols: Mapping[str, str]
    tokens: Mapping[str, Token] = field(default_factory=dict)
    now_ms: int | None = None
    natives: Mapping[str, Token] = field(init=False, compare=False)
    """By network, the token that pays gas."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "natives", {token.chain: token for token in self.tokens.values() if token.is_native})

    def amount(self, units: int, coin_id: str) -> str:
        """For people."""
        return f"{plain(units, LEDGER_DECIMALS)} {self.symbols.get(coin_id, coin_id)}"


# ------------------------------------------------------------------------------------------------------------ batches and entries


def check_link(report: Report, head: Head, link: Link) -> Head:
    """I15, I1: the batch follows the one before it, holds what it was sealed over, and every entry sums to zero. Returns the new head."""
    batch = link.batch
    name = f"batch {batch['number']} of {batch['committer']}"
    if batch["number"] != head.number + 1 or batch["previous_hash"] != head.hash:
        report.add("I15", f"{name} does not follow batch {head.number}")
    elif batch_hash(head.hash, link.entries, link.postings) != batch["hash"]:
        report.add("I15", f"{name} does not hold the rows it was sealed over")
    sums: defaultdict[tuple[int, str], int] = defaultdict(int)
    for line in link.postings:
        sums[line["entry_id"], line["coin_id"]] += line["amount"]
    strange = {a for a in {line["account"] for line in link.postings} if not ledger.is_stored(a) and not a.startswith(HOUSE)}
    for line in link.postings if strange else ():
        if line["account"] in strange:
            report.add(
                "I11", f"entry {line['entry_id']} moves {line['account']}, which is no account of these books", coin_id=line["coin_id"]
            )
    for (entry_id, coin_id), units in sums.items():
        if units:
            report.add("I1", f"entry {entry_id} does not sum to zero", coin_id=coin_id)
    return Head(batch["number"], batch["hash"])


# ------------------------------------------------------------------------------------------------------------------------- orders


def check_order(report: Report, facts: OrderFacts, terms: Terms) -> None:
    """I5, I6, I12, I13, I14 and I15 for one order."""
    row = facts.row
    if row is None:
        report.add("I5", f"entries of order {facts.id} have no order")
        return
    where = {"chain": row["chain"], "coin_id": row["coin_id"]}
    have = sorted(entry["posting_kind"] for entry in facts.entries)
    want = _entries_of(row)
    if set(have) != set(want):
        report.add("I5", f"order {facts.id} is {row['state']} with entries {have}; it should have {sorted(want)}", **where)
    for entry in facts.entries:
        expected = want.get(entry["posting_kind"])
        if expected is not None and not _moves(entry, expected):
            report.add("I5", f"entry {entry['posting_kind']} of order {facts.id} does not move what the order says", **where)
        if entry["covers"] and entry["covers"] != _cover_of(entry, facts):
            report.add("I15", f"order {facts.id} is not what entry {entry['posting_kind']} was written for", **where)
    if row["key_order_id"] != facts.id:
        report.add("I5", f"order {facts.id} is not the one that its merchant's id {row['merchant_order_id']!r:.80} stands for", **where)
    _check_steps(report, facts, where)
    _check_attempts_of(report, facts, where)
    _check_event(report, facts, where)
    paid = row["value"] if row["recipient"] or row["merchant_pays_fee"] else row["value"] - row["fee"]
    if row["net"] != paid:
        report.add(
            "I13",
            f"order {facts.id} pays {terms.amount(row['net'], row['coin_id'])} where {plain(paid, LEDGER_DECIMALS)} was promised",
            **where,
        )


def _entries_of(row: Row) -> dict[str, ledger.Entry]:
    """The entries that an order in this state has, each by its kind."""
    order_id, payer, coin_id = row["id"], row["payer"], row["coin_id"]
    if row["recipient"]:
        return {"internal": ledger.internal(order_id, payer, row["recipient"], coin_id, row["value"])}
    want = {"reserve": ledger.reserve(order_id, payer, coin_id, row["reserve"])}
    if row["state"] == OrderState.SUCCEEDED:
        want["settle"] = ledger.settle(order_id, payer, row["token_id"], coin_id, net=row["net"], fee=row["fee"])
    elif row["state"] == OrderState.FAILED:
        want["release"] = ledger.release(order_id, payer, coin_id, row["reserve"])
    return want


def _moves(entry: Row, expected: ledger.Entry) -> bool:
    have = sorted([(line["account"], line["coin_id"], line["amount"]) for line in entry["lines"]])
    return have == sorted([(posting.account, posting.coin_id, posting.units) for posting in expected.postings])


def _cover_of(entry: Row, facts: OrderFacts) -> str:
    """What the entry would cover if it were written over the rows as they are now."""
    assert facts.row is not None  # noqa: S101  the caller has looked
    mark = facts.row["fingerprint"] or ""
    body = facts.events[0]["body"] if facts.events else ""
    match entry["posting_kind"]:
        case "internal":
            return covers.internal(facts.row, mark, body)
        case "reserve":
            return covers.accepted(facts.row, mark)
        case _:
            return covers.decided(facts.row, facts.history, body)


def _check_steps(report: Report, facts: OrderFacts, where: Mapping[str, str]) -> None:
    """I5, I14: the steps lead by legal moves from the first state to the present one, and the wire status is the highest on the way."""
    row = facts.row
    assert row is not None  # noqa: S101  the caller has looked
    first = OrderState.SUCCEEDED if row["recipient"] else OrderState.ACCEPTED
    way = _way(first, row["state"], tuple([(step["before"], step["after"]) for step in facts.history]))
    if way.stray is not None:
        report.add("I5", f"order {facts.id} went from {way.stray[0]} to {way.stray[1]}, and there is no such move", **where)
        return
    if not way.leads:
        report.add("I5", f"the steps of order {facts.id} do not lead from {first} to {row['state']}", **where)
    if row["wire"] != way.shown:
        report.add("I14", f"order {facts.id} shows {WireStatus(row['wire']).text} and has been {way.shown.text}", **where)


class _Way(NamedTuple):
    """What the steps of an order come to: a move that there is none of, whether they lead to its state, what merchants have seen on them."""

    stray: tuple[str, str] | None
    leads: bool
    shown: WireStatus


@lru_cache(maxsize=1024)
def _way(first: OrderState, last: str, steps: tuple[tuple[str, str], ...]) -> _Way:
    # Few ways are gone, and most orders go the same.
    ways: Counter[str] = Counter({first.value: 1})
    states = {first, OrderState(last)}
    for before, after in steps:
        if before == after:
            continue  # another reason for the same state
        if (before, after) not in MOVES:
            return _Way((before, after), leads=False, shown=WireStatus.PENDING)
        ways[before] -= 1
        ways[after] += 1
        states.add(OrderState(after))
    shown = WireStatus.PENDING
    for state in states:
        shown = max(shown, wire_status(state, shown))
    # Whatever the order of the rows: who entered each state left it, but for the last one.
    return _Way(None, {state: n for state, n in ways.items() if n} == {last: 1}, shown)


def _check_attempts_of(report: Report, facts: OrderFacts, where: Mapping[str, str]) -> None:
    """I6: at most one live attempt and one final transfer, and a decision that fits them."""
    row = facts.row
    assert row is not None  # noqa: S101  the caller has looked
    paid = [attempt for attempt in facts.attempts if attempt["paid"]]
    live = [attempt for attempt in facts.attempts if attempt["state"] in attempt_states.LIVE]
    if row["recipient"]:
        if facts.attempts:
            report.add("I6", f"order {facts.id} stays in the house and {len(facts.attempts)} attempts pay it", **where)
    elif len(paid) > 1 or len(live) > 1:
        report.add("I6", f"order {facts.id} has {len(paid)} final transfers and {len(live)} live attempts", **where)
    elif row["state"] == OrderState.SUCCEEDED and not paid and not live and not facts.decisions:
        report.add("I6", f"order {facts.id} succeeded and nothing pays it", **where)
    elif row["state"] == OrderState.FAILED and (paid or live):
        report.add("I6", f"order {facts.id} failed and {len(paid) + len(live)} attempts pay it", **where)
    elif row["state"] in (OrderState.SENDING, OrderState.CONFIRMING) and not live:
        report.add("I6", f"order {facts.id} is {row['state']} and nothing is under way for it", **where)
    elif row["state"] in (OrderState.ACCEPTED, OrderState.HELD) and (paid or live):
        report.add("I6", f"order {facts.id} is {row['state']} and {len(paid) + len(live)} attempts pay it", **where)
    elif paid and row["txid"] != paid[0]["txid"]:
        report.add("I6", f"order {facts.id} names another transaction than the one that paid it", **where)
    for attempt in facts.attempts:
        if bool(attempt["live"]) != (attempt["state"] in attempt_states.LIVE):
            report.add("I6", f"attempt {attempt['id']} is {attempt['state']} and its link to order {facts.id} says otherwise", **where)


def _check_event(report: Report, facts: OrderFacts, where: Mapping[str, str]) -> None:
    """I12: a decided order has one event, and what is called delivered was."""
    row = facts.row
    assert row is not None  # noqa: S101  the caller has looked
    decided = row["state"] in TERMINAL
    if decided and len(facts.events) != 1:
        report.add("I12", f"order {facts.id} is decided and has {len(facts.events) or 'no'} event{'s' * (len(facts.events) > 1)}", **where)
    elif not decided and facts.events:
        report.add("I12", f"order {facts.id} has an event and is not decided", **where)
    for event in facts.events:
        if event["merchant_id"] != row["merchant_id"]:
            report.add("I12", f"the event of order {facts.id} goes to another merchant", **where)
        if event["state"] == "delivered" and not event["accepted"]:
            report.add("I12", f"the event of order {facts.id} is called delivered and no send of it succeeded", **where)


# ----------------------------------------------------------------------------------------------------------------------- attempts


def check_attempt(report: Report, facts: AttemptFacts, terms: Terms) -> None:
    """I6, I7, I8, I13 and I15 for one attempt."""
    row = facts.row
    if row is None:
        report.add("I6", f"entries of attempt {facts.id} have no attempt")
        return
    chain = row["chain"] or ""
    _check_owned(report, facts, chain)
    _check_ended(report, facts, terms, chain)
    failed = row["state"] == "final" and not any(entry["posting_kind"] == "final" for entry in facts.entries)
    takes = 0 if failed or not facts.versions else sum(_payments(facts.versions[0]).values())
    if row["outflow"] != takes:
        report.add("I13", f"attempt {facts.id} is counted with {row['outflow']} base units and pays {takes}", chain=chain)
    for version in facts.versions:
        if version["sends"] and not version["stored"]:
            report.add("I8", f"version {version['id']} was sent and its bytes are not stored", chain=chain)
    if row["state"] not in ("bound", "dead") and not any(version["stored"] for version in facts.versions):
        report.add("I8", f"attempt {facts.id} is {row['state']} and no signed bytes are stored", chain=chain)
    if row["gas_paid"] is not None and row["gas_paid"] > row["fee_cap"]:
        report.add("I13", f"attempt {facts.id} paid {row['gas_paid']} for gas over its cap of {row['fee_cap']}", chain=chain)


def _check_owned(report: Report, facts: AttemptFacts, chain: str) -> None:
    """I7, I13: every version says the slot, resources, recipients and amounts that the rows say."""
    row = facts.row
    assert row is not None  # noqa: S101  the caller has looked
    for version in facts.versions:
        intent = version["says"]
        names = {resource.get("name") for resource in intent.get("resources", ())}
        owns = (intent.get("attempt_id"), intent.get("chain"), intent.get("slot"), names)
        # What died without ever being signed has given back what it owned.
        given_back = row["state"] == "dead" and row["slot"] < 0 and not version["stored"] and not facts.resources
        if owns != (facts.id, chain, row["slot"], facts.resources) and not given_back:
            report.add(
                "I7",
                f"version {version['number']} of attempt {facts.id} is for another slot or resource than the attempt owns",
                chain=chain,
            )
        if intent.get("fee_cap") != row["fee_cap"] or intent.get("token_id") != row["token_id"]:
            report.add(
                "I13", f"version {version['number']} of attempt {facts.id} has another fee cap or token than the attempt", chain=chain
            )
        if version["kind"] != "pay":
            continue
        payments = {payment.get("order_id"): payment for payment in intent.get("payments", ())}
        # An order that a restored database has forgotten is paid by the intent alone (orders/adopt names it).
        told = {order_id: payment.get("units") for order_id, payment in payments.items() if order_id in facts.orders}
        if told != version["pays"]:
            report.add("I13", f"version {version['number']} of attempt {facts.id} pays other amounts than its orders are told", chain=chain)
        for order_id, order in facts.orders.items():
            payment = payments.get(order_id, {})
            if (payment.get("recipient"), payment.get("memo")) != (order["destination"], order["memo"]):
                report.add(
                    "I13",
                    f"version {version['number']} of attempt {facts.id} pays another recipient than order {order_id} names",
                    chain=chain,
                )


def _payments(version: Row) -> dict[int, int]:
    """Base units by order, as the intent says them."""
    return {payment.get("order_id"): payment.get("units", 0) for payment in version["says"].get("payments", ())}


def _check_ended(report: Report, facts: AttemptFacts, terms: Terms, chain: str) -> None:
    """I6, I13, I15: the entries of an attempt are those of its state and amounts, and what it paid is what its orders promised."""
    row = facts.row
    assert row is not None  # noqa: S101  the caller has looked
    entries = {entry["posting_kind"]: entry for entry in facts.entries}
    final = row["state"] == "final"
    if final != ("gas" in entries) or ("final" in entries and not final) or final != (row["gas_paid"] is not None):
        report.add("I6", f"attempt {facts.id} is {row['state']} with entries {sorted(entries)}", chain=chain)
    gas = entries.get("gas")
    if gas is not None:
        native = terms.natives.get(chain)
        if gas["covers"] and gas["covers"] != covers.retired(row):
            report.add("I15", f"attempt {facts.id} is not what its entry for gas was written for", chain=chain)
        if native is not None and row["gas_paid"] is not None:
            expected = ledger.gas(facts.id, native.id, native.coin.id, row["gas_paid"] * native.scale, chain=chain, block=row["block"] or 0)
            if not _moves(gas, expected) or (gas["chain"], gas["block"]) != (chain, row["block"]):
                report.add("I10", f"the books charge other gas for attempt {facts.id} than it took", chain=chain)
    paid = entries.get("final")
    if paid is None:
        return
    landed = next((version for version in facts.versions if version["txid"] == row["txid"]), None)
    token = terms.tokens.get(row["token_id"])
    if landed is None:
        report.add("I13", f"attempt {facts.id} was paid by a transaction that is none of its versions", chain=chain)
        return
    if (paid["chain"], paid["block"]) != (chain, row["block"]):
        report.add("I10", f"the books let the coins of attempt {facts.id} leave in another block than the chain", chain=chain)
    if token is None:
        return
    if {o: units * token.scale for o, units in landed["pays"].items()} != {o: order["net"] for o, order in facts.orders.items()}:
        report.add("I13", f"attempt {facts.id} delivered other amounts than its orders promise", chain=chain)
    # Out of the treasury goes what the transaction delivered; it was in transit, or the house bears it.
    treasury, others = ledger.treasury(token.id), {ledger.in_transit(token.id), ledger.FUNDING}
    left = sum(line["amount"] for line in paid["lines"] if (line["account"], line["coin_id"]) == (treasury, token.coin.id))
    stray = [line for line in paid["lines"] if line["account"] not in {treasury, *others} or line["coin_id"] != token.coin.id]
    if left != sum(_payments(landed).values()) * token.scale or stray:
        report.add("I10", f"the books let other coins leave for attempt {facts.id} than it delivered", chain=chain)


# ------------------------------------------------------------------------------------------------------------------------- totals


def check_balances(report: Report, stored: Iterable[tuple[Key, int, int]], computed: Totals, terms: Terms) -> None:
    """I2, I3: nobody owns less than nothing, and each balance is the sum of its postings. `computed` loses what it was compared with."""
    for (holder, coin_id), available, reserved in stored:
        for account, have in ((ledger.available(holder), available), (ledger.reserved(holder), reserved)):
            _check_balance(report, account, coin_id, have, computed.pop((account, coin_id), 0), terms)
    for account, coin_id in sorted(key for key in computed if ledger.is_stored(key[0])):
        _check_balance(report, account, coin_id, 0, computed.pop((account, coin_id)), terms)


def _check_balance(report: Report, account: str, coin_id: str, have: int, want: int, terms: Terms) -> None:
    if have != want:
        text = f"{account} stores {terms.amount(have, coin_id)} and its postings sum to {plain(want, LEDGER_DECIMALS)}"
        report.add("I3", text, coin_id=coin_id, mark=f"{account} {have - want}")
    if want < 0 or have < 0:
        report.add("I2", f"{account} owns {terms.amount(min(want, have), coin_id)}", coin_id=coin_id)


def check_reserves(report: Report, held: Totals, open_orders: Totals, terms: Terms) -> None:
    """I4: what is held back is what open orders need, by (holder, coin)."""
    for holder, coin_id in sorted(held.keys() | open_orders.keys()):
        have, want = held.get((holder, coin_id), 0), open_orders.get((holder, coin_id), 0)
        if have != want:
            text = f"{ledger.reserved(holder)} holds {terms.amount(have, coin_id)}, open orders need {plain(want, LEDGER_DECIMALS)}"
            report.add("I4", text, coin_id=coin_id, mark=f"{holder} {have - want}")


def check_house(report: Report, house: Totals, under_way: Mapping[str, int], terms: Terms) -> None:
    """I10, I11: in transit is what attempts under way pay; the house's own equity covers what is not on the chain."""
    prefix = ledger.in_transit("")
    have = {account.removeprefix(prefix): units for (account, _), units in house.items() if account.startswith(prefix)}
    for token_id in sorted(have.keys() | under_way.keys()):
        if (in_books := have.get(token_id, 0)) != (paying := under_way.get(token_id, 0)):
            token = terms.tokens.get(token_id)
            text = (
                f"{plain(in_books, LEDGER_DECIMALS)} of token {token_id} is in transit in the books, "
                f"attempts under way pay {plain(paying, LEDGER_DECIMALS)}"
            )
            report.add("I10", text, chain=token.chain if token else "", mark=f"{token_id} {in_books - paying}")
    for coin_id in sorted({coin_id for _, coin_id in house}):
        funding = house.get((ledger.FUNDING, coin_id), 0)
        if funding < 0:
            report.add("I11", f"{terms.amount(-funding, coin_id)} of declared funding has not been seen on chain", coin_id=coin_id)
        own = sum(units for (account, coin), units in house.items() if coin == coin_id and account.startswith("house:"))
        if own < min(funding, 0):
            report.add(
                "I11", f"the house has spent {terms.amount(min(funding, 0) - own, coin_id)} more on gas than it owns", coin_id=coin_id
            )


def check_looks(report: Report, token_id: str, looks: Sequence[Row], in_books: int, terms: Terms) -> None:
    """I10: at the blocks of the last looks the books hold what the chain showed, to the base unit. `in_books` are coin units."""
    token = terms.tokens.get(token_id)
    if token is None:
        return
    observed = sum(look["observed"] for look in looks)
    drift = in_books - observed * token.scale
    if drift:
        where = "the hot address" if len(looks) == 1 else f"the {len(looks)} hot addresses"
        text = (
            f"at block {max(look['block'] for look in looks)} of {token.chain} {where} held {plain(observed, token.decimals)} "
            f"{token.coin.symbol}, and the books say {plain(in_books, LEDGER_DECIMALS)}"
        )
        report.add("I10", text, chain=token.chain, coin_id=token.coin.id, mark=f"{token.id} {drift}")
