"""Random histories of intake, books and settlement against a model in plain Python, on both databases.

The model knows balances, orders and house accounts as dictionaries and nothing of SQL, batches or versions. After every step the
database must say the same, and the audit must find nothing.

HYPOTHESIS_PROFILE=thorough makes it long (see tests/conftest.py).
"""

import asyncio
import json
from collections import defaultdict
from decimal import Decimal

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from penstock.core.errors import Problem, Refused
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import Order, fingerprint
from penstock.db import open_database
from penstock.ledger.audit import Terms, audit
from penstock.orders.auditor import Auditor
from penstock.prove.lanes.tamper import as_an_intruder
from penstock.runtime import SystemRuntime
from tests.fixtures.chain import Road
from tests.fixtures.rooms import USDT, Rooms, units
from tests.integration.test_audit import of_rows

EXAMPLES = settings.default.max_examples // 3
STEPS = 30 if EXAMPLES < 1_000 else 60
TABLES = [
    "webhook_send", "outbox", "version_order", "version", "attempt_order", "attempt", "treasury_seen", "lane", "order_history", "orders",
    "order_key", "posting", "entry", "batch", "balance", "audit_checkpoint", "audit_head", "audit_balance", "audit_total", "audit_finding",
]  # fmt: skip
PAYERS = ["m:1", "m:2", "u:1000001"]
RECIPIENTS = ["", "", "u:1000001", "u:1000002"]
FEE, GAS, FEE_CAP = "1", 21_000 * 10**9, 10**16
TERMINAL = {"succeeded", "failed"}
REPORT_DEPTH = 3


class World:
    """One database for all examples of a test; each example starts with it empty."""

    def __init__(self, url):
        self.runtime = SystemRuntime()
        self.runner = asyncio.Runner()
        self.database = open_database(self.runtime, url)

    def run(self, work):
        return self.runner.run(work)

    def close(self):
        self.run(self.database.close())
        self.runner.close()
        self.runtime.close()


class Model:
    """What should be."""

    def __init__(self):
        self.available = defaultdict(int)
        self.reserved = defaultdict(int)
        self.house = defaultdict(int)
        self.orders = {}
        self.halted = False
        self.dear = False

    def credit(self, holder, amount):
        self.available[holder] += amount
        self.house["house:funding", "USDT"] -= amount

    def judge(self, wishes):
        """Answers in order. What was refused may be tried with another body, but only when the batch is through."""
        answers = {}
        waiting = list(enumerate(wishes))
        while waiting:
            refused, later = {}, []
            for at, wish in waiting:
                known = self.orders.get(wish["key"])
                if known is not None:
                    answers[at] = known["id"] if known["mark"] == wish["mark"] else Problem.ORDER_DUPLICATE
                elif wish["key"] in refused:
                    if refused[wish["key"]] == wish["mark"]:
                        answers[at] = Problem.BALANCE_INSUFFICIENT
                    else:
                        later.append((at, wish))
                elif wish["problem"] is not None:
                    answers[at] = wish["problem"]
                elif self.available[wish["payer"]] < wish["needs"]:
                    refused[wish["key"]] = wish["mark"]
                    answers[at] = Problem.BALANCE_INSUFFICIENT
                else:
                    answers[at] = self._accept(wish)
            waiting = later
        return [answers[at] for at in range(len(wishes))]

    def _accept(self, wish):
        self.available[wish["payer"]] -= wish["needs"]
        if wish["recipient"]:
            self.available[wish["recipient"]] += wish["needs"]
        else:
            self.reserved[wish["payer"]] += wish["needs"]
        state = "succeeded" if wish["recipient"] else "accepted"
        self.orders[wish["key"]] = {**wish, "state": state, "wire": 2 if wish["recipient"] else 0, "attempt": None, "attempts": 0}
        return wish["id"]

    def move(self, order, state):
        order["state"] = state
        order["wire"] = max(order["wire"], {"accepted": 0, "held": 0, "succeeded": 2, "failed": 3}.get(state, 1))

    def send(self):
        for order in self.orders.values():
            if order["state"] in {"accepted", "held"}:
                if self.halted or self.dear:
                    self.move(order, "held")
                else:
                    self.move(order, "sending")
                    order["attempt"] = "sent"
                    order["attempts"] += 1

    def cancel(self, order):
        possible = order["state"] in {"accepted", "held"}
        if possible:
            self.release(order)
        return possible

    def release(self, order):
        self.reserved[order["payer"]] -= order["needs"]
        self.available[order["payer"]] += order["needs"]
        self.move(order, "failed")

    def succeed(self, order):
        self.reserved[order["payer"]] -= order["needs"]
        self.house["in transit", "USDT"] += order["net"]
        self.house["house:fee_income", "USDT"] += order["needs"] - order["net"]
        self.move(order, "succeeded")

    def burn_gas(self):
        self.house["house:network_cost", "ETH"] -= GAS
        self.house["native", "ETH"] += GAS

    def see(self, order, kind):
        done = order["state"] == "succeeded"
        match kind:
            case "absent" | "pending" | "stuck":
                order["attempt"] = "sent"
                if order["state"] == "confirming":
                    self.move(order, "sending")
            case "included" | "reverted" | "deep":
                order["attempt"] = "included"
                if kind == "deep" and not done:
                    self.succeed(order)
                elif order["state"] == "sending":
                    self.move(order, "confirming")
            case "final":
                if not done:
                    self.succeed(order)
                self.house["in transit", "USDT"] -= order["net"]
                self.house["token", "USDT"] += order["net"]
                self.burn_gas()
                order["attempt"] = None
            case "failed":
                self.release(order)
                self.burn_gas()
                order["attempt"] = None
            case "dead":
                if order["state"] != "quarantined":
                    self.move(order, "accepted")
                order["attempt"] = None
            case "suspicious":
                self.halted = True
                if not done:
                    self.move(order, "quarantined")


KINDS = ["absent", "pending", "stuck", "included", "included", "reverted", "deep", "final", "final", "failed", "dead", "suspicious"]
cents = st.integers(101, 5_000)
wishes = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]),
        "payer": st.sampled_from(PAYERS),
        "recipient": st.sampled_from(RECIPIENTS),
        "cents": st.one_of(st.sampled_from([200, 1_000]), cents),
        "flag": st.booleans(),
        "stale": st.sampled_from([False, False, False, False, True]),
    }
)


class Machine(RuleBasedStateMachine):
    world: World

    def __init__(self):
        super().__init__()
        self.run = self.world.run

    @initialize()
    def begin(self):
        self.steps = 0
        self.model = Model()
        self.rooms = Rooms(self.world.database, self.world.runtime)
        self.road = Road(self.rooms, report_depth=REPORT_DEPTH, in_flight_max=10_000)
        self.road.rail.funds = {"USDT": 10**9 * 10**6, "ETH": 10**6 * 10**18}
        self.token, self.native = self.road.catalog.by_symbol("USDT", "ETH"), self.road.catalog.native("ETH")
        self.symbols = {USDT: "USDT", self.native.coin.id: "ETH"}
        self.run(self._begin())
        for holder in PAYERS:
            self.credit(holder, 6_000)

    async def _begin(self):
        await self.world.database.write("intrude", as_an_intruder)
        await self.world.database.write("empty", lambda tx: [tx.run(f"DELETE FROM {table}") for table in TABLES])
        await self.road.board.refresh()
        await self.road.treasury.refresh()
        self.base = (await audit(self.world.database, self.symbols)).balances

    @rule(holder=st.sampled_from(PAYERS), amount=st.integers(1, 5_000))
    def credit(self, holder, amount):
        self.run(self.rooms.credit(holder, plain(amount, 2)))
        self.model.credit(holder, units(plain(amount, 2)))

    @rule(batch=st.lists(wishes, min_size=1, max_size=8))
    def withdraw(self, batch):
        drafts, answers = self.run(self._submit(batch))
        expected = self.model.judge([wish for _, wish in drafts])
        assert [a.id if isinstance(a, Order) else a.problem for a in answers] == expected

    async def _submit(self, batch):
        drafts = [self._draft(wish) for wish in batch]
        self.rooms.renew_intake()
        return drafts, await self.rooms.submit_all([draft for draft, _ in drafts])

    def _draft(self, wish):
        value = units(plain(wish["cents"], 2))
        recipient = "" if wish["recipient"] == wish["payer"] else wish["recipient"]
        fee = 0 if recipient else units(FEE)
        net = value if recipient or wish["flag"] else value - fee
        merchant = int(wish["payer"].removeprefix("m:")) if wish["payer"].startswith("m:") else 0
        draft = self.rooms.draft(wish["name"], plain(wish["cents"], 2), recipient=recipient, merchant=merchant, payer=wish["payer"])
        draft.fingerprint = fingerprint(address=recipient, token_id="token", value=str(value), memo="", merchant_pays_fee=wish["flag"])
        order = replace(
            draft.wish, token_id=self.token.id, fee=fee, net=net, reserve=0 if recipient else net + fee, merchant_pays_fee=wish["flag"]
        )
        problem = Problem.SERVICE_ERROR if wish["stale"] else None
        draft.wish = Refused(problem, "the price is stale") if problem else order
        expected = {
            "key": draft.key, "mark": draft.fingerprint, "problem": problem, "payer": wish["payer"], "recipient": recipient,
            "needs": net + fee, "net": net, "id": order.id,
        }  # fmt: skip
        return draft, expected

    @precondition(lambda self: any(order["state"] in {"accepted", "held"} for order in self.model.orders.values()))
    @rule()
    def send(self):
        self.run(self._send())
        self.model.send()

    async def _send(self):
        await self.road.board.refresh()
        await self.road.make_orders_due()
        while await self.road.send():
            pass

    @rule()
    def the_network_becomes_too_dear_or_cheap_again(self):
        self.model.dear = not self.model.dear
        self.road.rail.cost = FEE_CAP + 1 if self.model.dear else GAS

    @rule(payer=st.sampled_from(PAYERS), flags=st.lists(st.booleans(), min_size=1, max_size=3))
    def pay_out(self, payer, flags):
        """Orders that have money and go straight to the chain: most histories should get there."""
        self.credit(payer, 500 * len(flags))
        fresh = len(self.model.orders)
        self.withdraw(
            [
                {"name": f"p{fresh + n}", "payer": payer, "recipient": "", "cents": 300 + n, "flag": flag, "stale": False}
                for n, flag in enumerate(flags)
            ]
        )
        self.send()

    @precondition(lambda self: any(order["attempt"] for order in self.model.orders.values()))
    @rule(plan=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), newest=st.booleans())
    def look_at_the_chain(self, plan, newest):
        live = sorted((order for order in self.model.orders.values() if order["attempt"]), key=lambda order: order["id"])
        kinds = {}
        for n, order in enumerate(live):
            kind = plan[n % len(plan)]
            # What was reported as paid and then fails is a breach by itself (see test_settle).
            kinds[order["id"]] = "absent" if kind in {"failed", "dead"} and order["state"] == "succeeded" else kind
        self.road.rail.answer = lambda versions: self._seen(
            kinds[versions[0].intent.payments[0].order_id], versions[-1 if newest else 0].txid
        )
        assert self.run(self.road.follow()) == len(live)
        for order in live:
            self.model.see(order, kinds[order["id"]])

    def _seen(self, kind, txid):
        return {
            "absent": Absent(),
            "pending": Pending(),
            "stuck": Pending(stuck=True),
            "included": Included(txid, 101, 1, succeeded=True),
            "reverted": Included(txid, 101, REPORT_DEPTH, succeeded=False),
            "deep": Included(txid, 101, REPORT_DEPTH, succeeded=True),
            "final": Final(txid, 101, GAS),
            "failed": FailedOnChain(txid, 101, GAS, "reverted"),
            "dead": Dead("expired"),
            "suspicious": Suspicious("a stranger"),
        }[kind]

    @precondition(lambda self: self.model.halted)
    @rule()
    def a_person_opens_the_lane_again(self):
        self.run(self.world.database.write("open", lambda tx: tx.run("UPDATE lane SET halted = ''")))
        self.model.halted = False

    @precondition(lambda self: self.model.orders)
    @rule(which=st.integers(0, 100))
    def cancel(self, which):
        order = self.model.orders[sorted(self.model.orders)[which % len(self.model.orders)]]
        cancelled = self.run(self.road.settler.cancel(order["id"], "changed their mind"))
        assert (cancelled is not None) == self.model.cancel(order)

    @invariant()
    def the_database_says_what_the_model_says(self):
        self.run(self._compare())

    async def _compare(self):
        balances, orders, events, attempts = await self.world.database.read(
            lambda tx: (
                tx.all("SELECT holder, available, reserved FROM balance WHERE coin_id = :c", c=USDT),
                tx.all("SELECT id, merchant_id, merchant_order_id, state, wire FROM orders"),
                tx.all("SELECT order_id, body FROM outbox"),
                tx.all("SELECT order_id, COUNT(*) AS n, SUM(live) AS live FROM attempt_order GROUP BY order_id"),
            )
        )
        have = {row["holder"]: (row["available"], row["reserved"]) for row in balances}
        holders = have.keys() | self.model.available.keys() | self.model.reserved.keys()
        assert {h: have.get(h, (0, 0)) for h in holders} == {h: (self.model.available[h], self.model.reserved[h]) for h in holders}
        assert {(row["merchant_id"], row["merchant_order_id"]): (row["id"], row["state"], row["wire"]) for row in orders} == {
            key: (order["id"], order["state"], order["wire"]) for key, order in self.model.orders.items()
        }
        assert {row["order_id"]: json.loads(row["body"])["pay_status"] for row in events} == {
            order["id"]: {"succeeded": "success", "failed": "failed"}[order["state"]]
            for order in self.model.orders.values()
            if order["state"] in TERMINAL
        }
        assert len(events) == len({row["order_id"] for row in events})
        assert {row["order_id"]: (row["n"], row["live"]) for row in attempts} == {
            order["id"]: (order["attempts"], int(order["attempt"] is not None)) for order in self.model.orders.values() if order["attempts"]
        }
        terms = Terms(self.symbols, {token.id: token for token in self.road.catalog.tokens()})
        report = await audit(self.world.database, {}, terms)
        assert report.breaches == []
        if self.steps % 2:
            # What is new since the step before the last, by the same rules, from sums that go on.
            passed = await Auditor(
                runtime=self.world.runtime, database=self.world.database, catalog=self.road.catalog, terms=lambda: terms
            ).turn()
            assert passed.breaches == []
            assert {warning.invariant for warning in of_rows(passed) if warning.level == "alert"} <= {"I11"}
        self.steps += 1
        assert {warning.invariant for warning in of_rows(report) if warning.level == "alert"} <= {"I11", "I16"}
        self._compare_house(report.balances)

    def _compare_house(self, found):
        def flat(balances):
            return {(account, coin): Decimal(text) for account, coins in balances.items() for coin, text in coins.items()}

        names = {
            "in transit": f"payout_in_transit:{self.token.id}",
            "token": f"treasury:{self.token.id}",
            "native": f"treasury:{self.native.id}",
        }
        expected = defaultdict(Decimal, flat(self.base))
        for (account, coin), amount in self.model.house.items():
            expected[names.get(account, account), coin] += Decimal(plain(amount, LEDGER_DECIMALS))
        assert {k: v for k, v in flat(found).items() if v} == {k: v for k, v in expected.items() if v}


def test_any_history_leaves_the_books_as_the_model_has_them(migrated_url):
    world = World(migrated_url)
    machine = type("Machine", (Machine,), {"world": world})
    examples = EXAMPLES if migrated_url.startswith("sqlite") else EXAMPLES // 3  # its commits take longer
    wanted = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        phases=set(Phase) - {Phase.explain},
    )
    try:
        run_state_machine_as_test(machine, settings=wanted)
    finally:
        world.close()
