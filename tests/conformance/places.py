"""What differs between the networks that the suite runs on, and nothing else."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import coincurve

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.devnet.evm.box import network_of
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.specs import specs
from penstock.devnet.xrp.chain import address_of
from penstock.rails.lightning import codec as lightning
from tests.conformance.anvil import AnvilNetwork, anvil_network
from tests.fixtures.house import House, house_on


@dataclass(frozen=True)
class Place:
    """One network in a box, and how its people look.

    `pays` is an amount of each token, `funds` base units of each for the hot address. `recipient(house, n, value)` is a fresh address
    with its memo. `received(house, address, symbol)` is the truth about who got what;
    `fails` lets a payment of a token to an address fail on chain
    after it was given to the nodes, and may give back what mends that. `expires` is what follows when a transaction has expired: another "version" or another "attempt".
    `held_before` is what a recipient has in the beginning. `bumps` False: a transaction has one version, and a price
    that rises after it was made lets it fail. `own_node`: the coins are the node's, so there is one node behind every address,
    and what it loses of its own records is for a person. `company`: no order of a scenario is asked for alone.
    """

    chain: str
    pays: dict[str, str]
    funds: dict[str, int]
    recipient: Callable[[House, int, str], tuple[str, str]]
    wrong_addresses: tuple[str, ...]
    needs_memo: Callable[[House], str] | None = None
    reorgs: tuple[int, ...] = ()
    fails: Callable[[House, str, str], Callable[[], None] | None] | None = None
    expires: str = ""
    mempool: bool = True
    own_node: bool = False
    bumps: bool = True
    held_before: dict[str, int] = field(default_factory=dict)
    batches: bool = False
    company: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    truth: Callable[[House, str], int] | None = None
    born: Callable[[Callable[[], int]], Any] | None = None
    backend: Callable[[], Any] = contextlib.nullcontext

    @property
    def main(self) -> str:
        """The token that most scenarios pay in."""
        return next(iter(self.pays))

    @contextlib.contextmanager
    def house(self, home: Any) -> Iterator[House]:
        """A funded house on it."""
        with self.backend() as make, house_on(home, make or self.make, **self.settings) as built:
            self.open(built)
            yield built

    def make(self, now_ms: Callable[[], int]) -> Any:
        """The network in a box, born now."""
        if self.born is not None:
            return self.born(now_ms)
        (network,) = make_networks(Catalog.load(), [self.chain], now_ms=now_ms, seed=1)
        return network

    def open(self, house: House) -> None:
        """Funding, merchant and first estimates."""
        house.run(house.set_up(dict.fromkeys(self.pays, "1000000")))
        hot = house.run(house.all_hot())
        for native in (True, False):
            for symbol, units in self.funds.items():
                token = house.product.catalog.by_symbol(symbol, self.chain)
                if token.is_native is native:
                    for address in hot:
                        house.network.fund(address, units, token.contract)
            house.wait(10)
            house.run(house.product.treasury.refresh())
            house.run(Commands(house.product).open_tokens(self.chain))
            house.wait(10)
        house.run(house.product.treasury.refresh())

    def received(self, house: House, address: str, symbol: str) -> str:
        """Plain decimal text of what an address has."""
        from penstock.core.money import plain

        token = house.product.catalog.by_symbol(symbol, self.chain)
        if self.truth is not None:
            return plain(self.truth(house, address), token.decimals)
        return plain(house.network.holding(address, token.contract) - self.held_before.get(symbol, 0), token.decimals)


def evm_recipient(house: House, number: int, value: str) -> tuple[str, str]:
    from penstock.rails.evm import codec

    return codec.checksum("0x" + codec.keccak256(f"recipient {number}".encode())[12:].hex()), ""


REVERTS = bytes.fromhex("5f5ffd")


def broken_token(house: House, symbol: str, address: str) -> Callable[[], None]:
    """The token's code reverts whatever is asked of it, for a while."""
    del address
    contract = house.product.catalog.by_symbol(symbol, house.chain).contract
    if isinstance(house.network, AnvilNetwork):
        code = house.network.code(contract)
        house.network.set_code(contract, "0x" + REVERTS.hex())
        return lambda: house.network.set_code(contract, code)
    chain, account = house.network.chain, bytes.fromhex(contract[2:])
    whole = chain._world.accounts.newest(account)
    chain._world.accounts.write(chain.head.number, {account: whole._replace(code=REVERTS)})
    return lambda: chain._world.accounts.write(chain.head.number, {account: whole})


def deep_ethereum(now_ms: Callable[[], int]) -> Any:
    """Its finality is so far behind that forks of depth 6 can be."""
    spec = next(spec for spec in specs(Catalog.load()) if spec.name == "ETH")
    return network_of(EvmChain(replace(spec, finality_depth=10), now_ms=now_ms, seed=1))


ETHEREUM = Place(
    chain="ETH",
    pays={"USDT": "12.5", "ETH": "0.25"},
    funds={"USDT": 500 * 10**6, "ETH": 5 * 10**18},
    recipient=evm_recipient,
    wrong_addresses=("0x1234", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "0xdAC17F958D2ee523a2206206994597C13D831ec8"),
    reorgs=(1, 2, 3, 4, 5, 6),
    settings={"confirmations": 7},
    fails=broken_token,
    born=deep_ethereum,
)

ETHEREUM_MANY = replace(ETHEREUM, settings=ETHEREUM.settings | {"batch_max": 20, "batch_window_s": 3}, batches=True, company=True)
"""Token orders share transactions there: `open` lets the hot address allow PayMany its tokens, as an operator does."""


def bitcoin_recipient(house: House, number: int, value: str) -> tuple[str, str]:
    from penstock.rails.bitcoin.script import address_of_public_key

    key = coincurve.PrivateKey(hashlib.sha256(f"recipient {number}".encode()).digest())
    return address_of_public_key(key.public_key.format(compressed=False), house.network.settings["chain_id"]), ""


BITCOIN = Place(
    chain="BTC",
    pays={"BTC": "0.015"},
    funds={"BTC": 5 * 10**8},
    recipient=bitcoin_recipient,
    wrong_addresses=("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "bcrt1q"),
    reorgs=(1, 2, 3, 4, 5, 6),
    settings={"confirmations": 7},
    batches=True,
)


def paused(house: House, symbol: str, address: str) -> None:
    """The token's owner stops all transfers."""
    del address
    token = house.product.catalog.by_symbol(symbol, "TRX")
    control([house.network], {"do": "behave", "contract": token.contract, "behaviour": "paused"})


def tron_recipient(house: House, number: int, value: str) -> tuple[str, str]:
    from penstock.rails.tron import codec

    key = coincurve.PrivateKey(hashlib.sha256(f"recipient {number}".encode()).digest())
    return codec.address(key.public_key.format(compressed=False), house.network.settings["chain_id"]), ""


TRON = Place(
    chain="TRX",
    pays={"USDT": "12.5", "TRX": "3"},
    funds={"USDT": 500 * 10**6, "TRX": 5_000 * 10**6},
    recipient=tron_recipient,
    wrong_addresses=(
        "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6u",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
    ),
    reorgs=(1, 2, 3),
    bumps=False,
    fails=paused,
    expires="attempt",
)


def xrp_recipient(house: House, number: int, value: str) -> tuple[str, str]:
    tag = str(573_049 + number) if number % 2 else ""
    # A trust line costs a fee of 20 drops, and so does the setting of who demands a tag.
    wish = {"settings": "require_dest", "drops": 1_200_040} if tag else {"drops": 1_200_020}
    token = house.product.catalog.by_symbol("RLUSD", "XRP")
    answer = control([house.network], {"do": "account", "name": f"recipient {number}", "trusts": token.contract, **wish})
    return answer["address"], tag


def closed(house: House, symbol: str, address: str) -> None:
    """The recipient takes no deposits any more."""
    del symbol
    for number in range(3):
        key = coincurve.PrivateKey(hashlib.sha256(f"somebody called recipient {number}".encode()).digest())
        if address_of(key.public_key.format()) == address:
            house.network.chain.send(key, {"TransactionType": "AccountSet", "SetFlag": 9})


def xrp_that_demands_a_tag(house: House) -> str:
    return control([house.network], {"do": "account", "name": "exchange", "settings": "require_dest"})["address"]


XRP = Place(
    chain="XRP",
    pays={"XRP": "12.5", "RLUSD": "3.25"},
    funds={"XRP": 500 * 10**6, "RLUSD": 100 * 10**6},
    recipient=xrp_recipient,
    wrong_addresses=("rDsbeomae4FXwgQTJp9Rs64Qg9vDiTCdBw", "0x52908400098527886E0F7030069857D2E4169EE7"),
    needs_memo=xrp_that_demands_a_tag,
    reorgs=(1,),
    held_before={"XRP": 1_200_000},
    fails=closed,
    expires="version",
)


def invoice(house: House, number: int, value: str) -> tuple[str, str]:
    made = control([house.network], {"do": "invoice", "units": int(value) * 1_000 if number % 2 else 0, "expiry_s": 100_000})
    return made["invoice"], ""


def offline(house: House, symbol: str, address: str) -> None:
    """The recipient's node refuses what arrives."""
    del symbol, address
    control([house.network], {"do": "fail", "count": 1000, "reason": "INCORRECT_PAYMENT_DETAILS"})


def paid_invoice(house: House, text: str) -> int:
    return int(
        control([house.network], {"do": "settled", "payment_hash": lightning.parse(text, house.network.settings["chain_id"]).payment_hash})[
            "received"
        ]
    )


LIGHTNING = Place(
    chain="LIGHTNING",
    pays={"SATS": "1234"},
    funds={"SATS": 500_000_000},
    recipient=invoice,
    wrong_addresses=(
        "lnbc1",
        "lntb1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq",
    ),
    truth=paid_invoice,
    fails=offline,
    mempool=False,
    own_node=True,
)

PLACES = {
    "ETH": ETHEREUM,
    "ETH, many at once": ETHEREUM_MANY,
    "BTC": BITCOIN,
    "TRX": TRON,
    "XRP": XRP,
    "LIGHTNING": LIGHTNING,
    "anvil": replace(ETHEREUM, born=None, backend=anvil_network),
}
