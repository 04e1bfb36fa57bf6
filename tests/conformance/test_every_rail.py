"""The same scenarios on every network: what a merchant sees, and what the chain, the books and the signer say at the end."""

import contextlib
from decimal import Decimal

import pytest

from tests.conformance.places import PLACES

CRASHES = [
    (f"{name}:{when}", visit) for name in ("bind", "sign", "sent", "settle", "treasury") for when in ("before", "after") for visit in (1, 2)
] + [("signer:journaled", 1), ("submit:after", 1), ("send.claim:after", 1), ("follow.claim:after", 1), ("follow.claim:after", 2)]


def having(what):
    """The networks that have this: a scenario is not run where it has no meaning."""
    return pytest.mark.parametrize("place", [name for name, place in PLACES.items() if what(place)], indirect=True)


@pytest.fixture(params=list(PLACES))
def place(request):
    return PLACES[request.param]


@pytest.fixture
def house(place, tmp_path):
    with place.house(tmp_path) as built:
        built.company = {}
        yield built


def pay(house, place, name="a", symbol=None, value=None, number=1):
    """One accepted order, and where transactions pay many another one that goes with it; the recipient of the first."""
    address = house.run(asked(house, place, name, number, symbol, value))
    if place.company:
        house.company[name] = house.run(asked(house, place, f"{name}'s company", -number - 1))
    return address


async def asked(house, place, name, number, symbol=None, value=None):
    """One accepted order; its recipient."""
    symbol = symbol or place.main
    value = value or place.pays[symbol]
    address, memo = place.recipient(house, number, value)
    answer = await house.withdraw(name, symbol, value, address, memo)
    assert answer["code"] == 10000, answer
    return address


def paid(house, place, name, address, symbol=None, value=None):
    """It succeeded with one event, and exactly once and to the last unit it arrived; so did what goes with it."""
    if name in house.company:
        paid(house, place, f"{name}'s company", house.company.pop(name))
    symbol = symbol or place.main
    order = house.run(house.until(name, "succeeded", "failed", "quarantined"))
    assert order["state"] == "succeeded", order["states"]
    assert place.received(house, address, symbol) == (value or place.pays[symbol])
    house.wait(5)
    assert len(set(house.events[name])) == 1
    assert order["txid"]
    return order


def test_each_token_is_paid_to_the_last_unit_and_the_books_agree_with_the_chain(house, place):
    for number, symbol in enumerate(place.pays):
        address = pay(house, place, symbol, symbol, number=number)
        paid(house, place, symbol, address, symbol)
    house.judge()


def test_many_are_paid_once_each(house, place):
    recipients = {f"o{number}": pay(house, place, f"o{number}", number=number) for number in range(12)}
    for name, address in recipients.items():
        paid(house, place, name, address)
    house.judge()


@having(lambda place: place.batches)
def test_many_share_a_transaction_and_see_what_it_saved_them(house, place):
    recipients = {f"o{number}": house.run(asked(house, place, f"o{number}", number)) for number in range(12)}
    orders = [paid(house, place, name, address) for name, address in recipients.items()]
    assert len({order["txid"] for order in orders}) < len(orders) / 2
    shared = [order["attempts"][-1] for order in orders if order["attempts"][-1].get("shared_by", 1) > 1]
    assert all(Decimal(attempt["gas_saved"].split()[0]) > 0 for attempt in shared)
    by_transaction = {order["txid"]: order["attempts"][-1] for order in orders}
    for txid, attempt in by_transaction.items():
        parts = [Decimal(o["attempts"][-1].get("gas_part", o["attempts"][-1]["gas_paid"]).split()[0]) for o in orders if o["txid"] == txid]
        whole = Decimal(attempt["gas_paid"].split()[0])
        assert whole - len(parts) * Decimal("0.00000001") < sum(parts) <= whole  # each part is rounded down to a base unit
    house.judge()


@having(lambda place: place.batches)
def test_those_who_come_in_one_window_go_together_at_its_end(house, place):
    house.wait(60)
    window_ms = house.product.rails[place.chain].window_ms
    house.wait((window_ms - house.now_ms() % window_ms) / 1_000)
    recipients = {}
    for number in range(4):
        recipients[f"o{number}"] = house.run(asked(house, place, f"o{number}", number))
        house.wait(window_ms / 5_000)
    assert len({paid(house, place, name, address)["txid"] for name, address in recipients.items()}) == 1
    house.judge()


def test_the_fee_that_was_quoted_is_the_fee_that_is_charged(house, place):
    symbol, value = place.main, place.pays[place.main]
    token = house.product.catalog.by_symbol(symbol, place.chain)
    address, memo = place.recipient(house, 1, value)
    before = balance(house, token)
    quoted = house.run(house.ask("/network/fee", token_id=token.id, address=address))["data"]["fee"]
    house.network.spike(3)
    house.run(house.withdraw("a", symbol, value, address, memo))
    order = paid(house, place, "a", address)
    assert order["network_fee"] == quoted
    assert before - balance(house, token) == Decimal(value) + Decimal(quoted)


def balance(house, token):
    (asset,) = house.run(house.ask("/assets", coin_id=token.coin.id))["data"]["list"]
    return Decimal(asset["value"])


def test_wrong_addresses_are_refused_and_reserve_nothing(house, place):
    for number, address in enumerate(place.wrong_addresses):
        answer = house.run(house.withdraw(f"w{number}", place.main, place.pays[place.main], address))
        assert answer["code"] in (14007, 14008), (address, answer)
    house.judge()


@having(lambda place: place.needs_memo)
def test_a_destination_that_demands_a_memo_is_refused_without_one(house, place):
    answer = house.run(house.withdraw("a", place.main, place.pays[place.main], place.needs_memo(house)))
    assert answer["code"] == 14003, answer


def test_too_little_in_the_treasury_holds_the_order_until_it_is_refilled(house, place):
    token = house.product.catalog.by_symbol(place.main, place.chain)
    held = house.network.holding(house.run(house.hot()), token.contract)
    value = str(held * 3 // 2 // 10**token.decimals)
    address = pay(house, place, "a", value=value)
    order = house.run(house.until("a", "held"))
    assert (order["hold_reason"], order["status"]) == ("liquidity", "Pending"), order
    house.network.fund(house.run(house.hot()), held * 2, token.contract)
    paid(house, place, "a", address, value=value)
    house.judge()


def test_a_reply_that_is_lost_after_the_node_accepted_changes_nothing(house, place):
    for how in ("500", "reset", "timeout"):
        for node in house.network.nodes:
            node.faults.break_after, node.faults.breakage = 1, how
        address = pay(house, place, how, number=hash(how) % 1000)
        paid(house, place, how, address)
    house.judge()


@having(lambda place: not place.own_node)
def test_what_a_node_takes_and_loses_is_sent_again(house, place):
    for node in house.network.nodes:
        node.faults.drop = 1
    address = pay(house, place)
    paid(house, place, "a", address)
    house.judge()


def test_what_reaches_the_network_twice_is_paid_once(house, place):
    for node in house.network.nodes:
        node.faults.duplicate = 3
    address = pay(house, place)
    paid(house, place, "a", address)
    house.judge()


@having(lambda place: place.mempool)
def test_what_falls_out_of_the_mempool_is_sent_again(house, place):
    house.network.set_block_time(0)
    address = pay(house, place)
    order = house.run(house.until("a", "sending"))
    house.wait(20)
    order = house.run(house.order("a"))
    assert house.network.forget(order["attempts"][-1]["versions"][-1]["txid"])
    house.wait(20)
    house.network.set_block_time(1_000)
    paid(house, place, "a", address)
    house.judge()


@having(lambda place: place.bumps)
def test_a_price_that_rises_is_met_on_the_same_resource(house, place):
    house.network.set_block_time(0)
    address = pay(house, place)
    house.run(house.until("a", "sending"))
    house.wait(5)
    with contextlib.suppress(ValueError):
        house.network.spike(4)
    house.network.set_block_time(1_000)
    paid(house, place, "a", address)
    order = house.run(house.order("a"))
    assert len(order["attempts"]) == 1
    house.judge()


@pytest.mark.parametrize("fate", ["keep", "drop", "reorder"])
@pytest.mark.parametrize(
    ("place", "depth"), [(name, depth) for name, place in PLACES.items() for depth in place.reorgs], indirect=["place"]
)
def test_a_reorg_is_undone_and_done_again(house, place, depth, fate):
    address = pay(house, place)
    for _ in range(600):
        state = house.run(house.order("a"))["state"]
        if state in {"confirming", "succeeded"}:
            break
        house.wait(0.3)
    for _ in range(depth):
        with contextlib.suppress(ValueError):
            house.network.fork(depth, fate)
            break
        house.wait(1)
    paid(house, place, "a", address)
    house.judge()


def test_two_nodes_that_disagree_are_not_believed_until_they_agree(house, place):
    liar = house.network.nodes[1]
    liar.faults.blind = True
    address = pay(house, place)
    house.wait(30)
    liar.faults.blind = False
    paid(house, place, "a", address)
    house.judge()


def test_a_node_that_is_far_behind_settles_nothing_alone(house, place):
    house.network.nodes[1].faults.lag = 3
    address = pay(house, place)
    house.wait(15)
    house.network.nodes[1].faults.lag = 0
    paid(house, place, "a", address)
    house.judge()


@having(lambda place: place.fails)
def test_what_fails_on_chain_for_good_fails_the_order_and_gives_the_money_back(house, place):
    token = house.product.catalog.by_symbol(place.main, place.chain)
    before = balance(house, token)
    for node in house.network.nodes:
        node.faults.delay_ms = 6_000
    house.network.set_block_time(0)
    mend = place.fails(house, place.main, "") if place.own_node else None
    address = pay(house, place)
    if not place.own_node:
        house.run(house.until("a", "sending"))
        house.wait(2)
        mend = place.fails(house, place.main, address)
    house.network.set_block_time(1_000)
    order = house.run(house.until("a", "failed", "succeeded", "quarantined"))
    assert (order["state"], order["status"]) == ("failed", "Failed"), order["states"]
    if mend is not None:
        mend()
    assert Decimal(place.received(house, address, place.main)) <= 0
    assert balance(house, token) == before
    house.judge()


@having(lambda place: not place.own_node)
def test_what_no_node_passes_on_for_a_quarter_of_an_hour_is_paid_once_at_last(house, place):
    for node in house.network.nodes:
        node.faults.drop = 10**6
    address = pay(house, place)
    house.wait(900)
    for node in house.network.nodes:
        node.faults.drop = 0
    attempts = paid(house, place, "a", address)["attempts"]
    if place.expires == "attempt":
        assert [attempt["state"] for attempt in attempts][-2:] == ["dead", "final"]
    elif place.expires == "version":
        assert len(attempts) == 1 and len(attempts[0]["versions"]) > 1
    house.judge()


@having(lambda place: not place.own_node)
def test_a_node_of_another_network_is_not_used_and_one_alone_decides_nothing(house, place):
    house.network.nodes[0].faults.chain_id = 1
    house.restart()
    address = pay(house, place)
    house.wait(60)
    assert house.run(house.order("a"))["state"] in {"accepted", "held", "sending", "confirming"}
    house.network.nodes[0].faults.chain_id = 0
    paid(house, place, "a", address)
    house.judge()


def test_while_all_nodes_are_down_orders_wait_and_none_fails(house, place):
    address = pay(house, place)
    for node in house.network.nodes:
        node.faults.down = "reset"
    house.wait(60)
    assert house.run(house.order("a"))["state"] not in {"failed", "quarantined"}
    for node in house.network.nodes:
        node.faults.down = ""
    paid(house, place, "a", address)
    house.judge()


@pytest.mark.parametrize(("label", "visit"), CRASHES)
def test_a_crash_between_any_two_steps_pays_once(house, place, label, visit):
    wished = {name: place.recipient(house, number, place.pays[place.main]) for number, name in enumerate("ab" if place.company else "a")}

    async def story():
        for name, (address, memo) in wished.items():
            answer = await house.withdraw(name, place.main, place.pays[place.main], address, memo)
            assert answer["code"] == 10000, answer
        return [await house.until(name, "succeeded", "failed", "quarantined") for name in wished]

    house.surviving(story, crash_at=(label, visit))
    for name, (address, _) in wished.items():
        paid(house, place, name, address)
    house.judge()
