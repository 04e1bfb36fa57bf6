"""Watch-only wallets of the box's Bitcoin nodes: https://bitcoincore.org/en/doc/29.0.0/ (Wallet)."""

import pytest
from embit.descriptor.checksum import add_checksum

from penstock.devnet.bitcoin.rpc import RpcError
from tests.fixtures.bitcoin_box import ALICE, BOB, CAROL, COIN, VECTORS, Town, outputs_of

XPUB = "tpubDDnGNapGEY6AZAdQbfRJgMg9fvz8pUBrLwvyvUqEgcUfgzM6zc2eVK4vY9x9L5FJWdX8WumXuLEDV5zDZnTfbn87vLe9XceCFwTu9so9Kks"


def error(town, method, *params, **where):
    with pytest.raises(RpcError) as caught:
        town.call(method, *params, **where)
    return caught.value.code, caught.value.message


@pytest.fixture
def town():
    """Alice is watched from the first block on."""
    made = Town()
    made.call("createwallet", "pay/out", True, True)
    assert imported(made, f"addr({ALICE.address})") == {"success": True}
    return made


def imported(town, body, timestamp=0, **more):
    (told,) = town.call("importdescriptors", [{"desc": add_checksum(body), "timestamp": timestamp, **more}])
    return told


def test_wallets_are_made_loaded_and_named_in_the_path(town):
    assert town.call("createwallet", "two", True) == {"name": "two"}
    assert town.call("listwallets") == ["pay/out", "two"]
    assert error(town, "getwalletinfo")[0] == -19
    assert town.call("getwalletinfo", wallet="two")["walletname"] == "two"
    status, told = town.post({"method": "getwalletinfo", "id": 1}, path="/wallet/pay%2Fout")
    assert (status, told["result"]["walletname"]) == (200, "pay/out")
    assert error(town, "getwalletinfo", wallet="x") == (-18, "Requested wallet does not exist or is not loaded")
    code, words = error(town, "createwallet", "two", True)
    assert (code, words.endswith("Database already exists.")) == (-4, True)
    assert error(town, "loadwallet", "two") == (-35, 'Wallet "two" is already loaded.')
    assert error(town, "loadwallet", "x")[0] == -18
    town.call("unloadwallet", "two")
    assert town.call("listwallets") == ["pay/out"]
    assert town.call("loadwallet", "two") == {"name": "two"}
    assert town.call("listwallets", node=1) == [], "a wallet is one node's own"
    assert error(town, "getwalletinfo", node=1)[0] == -18


def test_a_wallet_here_never_holds_a_key(town):
    assert error(town, "createwallet", "hot")[0] == -4
    assert town.call("getwalletinfo")["private_keys_enabled"] is False
    told = imported(town, "wpkh(cRez45VGSp5EXNqm89K3NJJPSKKapJg5Kbw3atxr2337x2gtgYed)")
    assert (told["success"], told["error"]["code"]) == (False, -4)


def test_descriptors_are_told_and_their_checksums_judged(town):
    assert town.call("getdescriptorinfo", "raw(deadbeef)") == {
        "descriptor": VECTORS["bip380"]["valid"], "checksum": "89f8spxm", "isrange": False, "issolvable": False, "hasprivatekeys": False,
    }  # fmt: skip
    for bad in VECTORS["bip380"]["invalid"]:
        (told,) = town.call("importdescriptors", [{"desc": bad, "timestamp": "now"}])
        assert (told["success"], told["error"]["code"]) == (False, -5)
    assert imported(town, "addr(bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv)")["error"] == {"code": -5, "message": "Address is not valid"}
    assert imported(town, "nope(1)")["error"]["code"] == -5
    (told,) = town.call("importdescriptors", [{"desc": VECTORS["bip380"]["valid"]}])
    assert told["error"] == {"code": -3, "message": "Missing required timestamp field for key"}
    ranged = town.call("getdescriptorinfo", f"wpkh({XPUB}/0/*)")
    assert (ranged["isrange"], ranged["issolvable"]) == (True, True)
    assert imported(town, f"wpkh({XPUB}/0/*)", range=[0, 2]) == {"success": True}
    assert len(town.call("listdescriptors")["descriptors"]) == 2


def test_a_public_key_and_its_address_are_the_same_coins(town):
    town.call("createwallet", "keys", True)
    (told,) = town.call("importdescriptors", [{"desc": add_checksum(f"wpkh({ALICE.public.hex()})"), "timestamp": 0}], wallet="keys")
    assert told == {"success": True}
    by_key, by_address = (town.call("listunspent", wallet=name) for name in ("keys", "pay/out"))
    assert [one["txid"] for one in by_key] == [one["txid"] for one in by_address]
    assert (by_key[0]["solvable"], by_key[0]["desc"], by_address[0]["solvable"]) == (
        True,
        add_checksum(f"wpkh({ALICE.public.hex()})"),
        False,
    )


def test_coins_are_listed_with_what_one_needs_to_spend_them(town):
    (((txid, number), _),) = town.coins()
    (told,) = town.call("listunspent")
    assert told == {
        "txid": txid, "vout": number, "address": ALICE.address, "label": "", "scriptPubKey": ALICE.script.hex(), "amount": 1.0,
        "confirmations": 1, "spendable": True, "solvable": False, "parent_descs": [add_checksum(f"addr({ALICE.address})")], "safe": True,
    }  # fmt: skip
    raw = town.pay()
    spender = town.chain.submit(raw).tx.txid
    assert town.call("listunspent") == [], "what waits spends it already"
    (change,) = town.call("listunspent", 0)
    assert (change["txid"], change["confirmations"], change["safe"], change["ancestorcount"]) == (spender, 0, True, 1)
    town.box.fund(ALICE.address, 5_000)
    assert [(one["amount"], one["safe"]) for one in town.call("listunspent", 0, 0)] == [(0.99989, True), (0.00005, False)]
    assert [one["txid"] for one in town.call("listunspent", 0, 0, [], False)] == [spender]
    assert town.call("listunspent", 0, 99, [BOB.address]) == []
    assert len(town.call("listunspent", 0, 99, [], True, {"minimumAmount": "0.5"})) == 1
    assert error(town, "listunspent", 0, 99, ["x"])[0] == -5
    balances = town.call("getbalances")["mine"]
    assert (balances["trusted"], balances["untrusted_pending"], balances["immature"]) == (0.99989, 0.00005, 0.0)


def test_the_subsidy_of_a_block_is_immature_at_first(town):
    town.call("generatetoaddress", 1, ALICE.address)
    assert (town.call("getbalances")["mine"]["immature"], len(town.call("listunspent"))) == (25.0, 1)
    (row,) = [row for row in town.call("listsinceblock")["transactions"] if row["category"] == "immature"]
    assert (row["generated"], row["confirmations"]) == (True, 1)
    town.mine(100)
    assert len(town.call("listunspent")) == 2


def test_what_came_before_a_descriptors_birth_is_not_known(town):
    for _ in range(20):
        town.mine()
    town.call("createwallet", "late", True)
    (told,) = town.call("importdescriptors", [{"desc": add_checksum(f"addr({ALICE.address})"), "timestamp": "now"}], wallet="late")
    assert told == {"success": True}
    assert town.call("listunspent", wallet="late") == []
    town.box.fund(ALICE.address, 5_000)
    town.mine()
    assert [one["amount"] for one in town.call("listunspent", wallet="late")] == [0.00005]
    assert len(town.call("listunspent", wallet="pay/out")) == 2


def test_a_payment_is_told_by_what_it_sent_and_what_it_cost(town):
    txid = town.send(BOB, 10_000, fee=1_500)
    told = town.call("gettransaction", txid)
    assert (told["amount"], told["fee"], told["confirmations"], told["trusted"]) == (-0.0001, -0.000015, 0, True)
    (row,) = told["details"]
    assert (row["category"], row["amount"], row["fee"], row["address"], row["vout"]) == ("send", -0.0001, -0.000015, BOB.address, 0)
    town.mine(3)
    told = town.call("gettransaction", txid, True, True)
    block = town.chain.blocks.at(town.chain.blocks.head.height - 2)
    assert (told["confirmations"], told["blockhash"], told["blockheight"], told["blockindex"]) == (3, block.hash, block.height, 1)
    assert told["decoded"]["txid"] == txid
    assert told["lastprocessedblock"] == {"hash": town.chain.blocks.head.hash, "height": town.chain.blocks.head.height}
    other = town.send(purse=BOB, to=CAROL, units=5_000)
    assert error(town, "gettransaction", other) == (-5, "Invalid or non-wallet transaction id")


def test_a_replaced_payment_is_remembered_with_what_replaced_it(town):
    old = town.send(fee=1_000)
    new = town.send(CAROL, fee=5_000)
    told = town.call("gettransaction", old)
    assert (told["confirmations"], told["walletconflicts"], told["mempoolconflicts"], told["trusted"]) == (0, [new], [new], False)
    town.mine(2)
    told = town.call("gettransaction", old)
    assert (told["confirmations"], told["walletconflicts"], told["mempoolconflicts"]) == (-2, [new], [])
    assert town.call("gettransaction", new)["confirmations"] == 2


def test_a_forgotten_payment_is_neither_confirmed_nor_dead(town):
    txid = town.send()
    town.box.forget(txid)
    told = town.call("gettransaction", txid)
    assert (told["confirmations"], told["trusted"], "blockhash" in told) == (0, False, False)
    assert len(town.call("listunspent")) == 1


def test_what_happened_since_a_block_is_listed_and_what_a_fork_removed(town):
    start = town.chain.blocks.head.hash
    first = town.send(fee=1_000)
    town.mine()
    told = town.call("listsinceblock", start)
    assert ([row["txid"] for row in told["transactions"]], told["removed"], told["lastblock"]) == ([first], [], town.chain.blocks.head.hash)
    old = town.chain.blocks.head.hash
    town.box.fork(1, "drop")
    told = town.call("listsinceblock", old)
    assert [row["txid"] for row in told["removed"]] == [first]
    assert [(row["txid"], row["confirmations"]) for row in told["transactions"]] == [(first, 0)], "in no block, and not forgotten"
    assert town.call("listsinceblock", "", 6)["lastblock"] == town.call("getblockhash", town.chain.blocks.head.height - 5)
    everything = town.call("listsinceblock")
    assert {row["category"] for row in everything["transactions"]} == {"receive", "send"}
    assert error(town, "listsinceblock", "00" * 32) == (-5, "Block not found")
    assert error(town, "listsinceblock", "", 0)[0] == -8


def test_change_is_listed_where_it_is_asked_for(town):
    txid = town.send()
    rows = [
        row for row in town.call("listsinceblock", town.chain.blocks.head.hash, 1, True, True, True)["transactions"] if row["txid"] == txid
    ]
    assert [(row["category"], row["vout"]) for row in rows] == [("send", 0), ("send", 1), ("receive", 1)]


def test_a_lagging_nodes_wallet_lags_with_it(town):
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    town.mine()
    town.node.faults.lag = 1
    assert town.call("gettransaction", txid)["confirmations"] == 0
    assert town.call("listunspent") == []
    assert [one["txid"] for one in town.call("listunspent", 0)] == [txid]
    town.node.faults.lag = 0
    assert [one["txid"] for one in town.call("listunspent")] == [txid] == [name for (name, _), _ in outputs_of(raw, txid, ALICE)]
    assert town.box.holding(ALICE.address) == COIN - 11_000
