"""What may be signed, from catalogue and settings: networks, tokens, fee caps, and caps on amounts. The signer reads it by itself."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from penstock.catalog import Catalog
from penstock.config import NetworkSettings, Settings, SettingWrong
from penstock.core.intent import Intent
from penstock.core.money import LEDGER_DECIMALS, Network, Token, parse_units, plain
from penstock.rails.evm import codec as evm
from penstock.rails.tron import codec as tron
from penstock.rails.xrp import codec as xrp
from penstock.signer.families import FAMILIES, KEYED

DAY_MS: Final = 24 * 3600 * 1000
MINUTE_MS: Final = 60 * 1000
_OPENS: Final = "open "


@dataclass(frozen=True, slots=True)
class AllowedNetwork:
    """What may be signed on one network: its chain id, its tokens' contracts (None: native), and the greatest fee cap.

    `node` is the identity of the node that keeps the coins itself (Lightning), "" where our own keys do.
    """

    family: str
    chain_id: int
    contracts: Mapping[str, str | None]
    fee_max: int
    node: str = ""


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that one order may pay, and all orders within 24 hours, by coin symbol in ledger units; no entry means no cap.

    `coins` says of each token which coin it is and how many ledger units one of its base units is.
    """

    order_max: Mapping[str, int] = field(default_factory=dict)
    day_max: Mapping[str, int] = field(default_factory=dict)
    coins: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def in_coin(self, what: str, units: int) -> tuple[str, int]:
        """Coin symbol and ledger units of what `counted` says; "" for a token that the catalogue does not have any more."""
        if what.startswith(_OPENS):
            return what, units
        symbol, scale = self.coins.get(what, ("", 0))
        return symbol, units * scale

    def order_too_large(self, intent: Intent) -> str:
        """Which cap of an order is broken, "" for none."""
        symbol, scale = self.coins.get(intent.token_id, ("", 0))
        cap = self.order_max.get(symbol)
        if cap is None or all(payment.units * scale <= cap for payment in intent.payments):
            return ""
        return f"one order may pay {plain(cap, LEDGER_DECIMALS)} {symbol} (signer.order_max)"

    def day_full(self, intent: Intent, spent: int) -> str:
        """Which cap of 24 hours this would break after `spent`, "" for none."""
        symbol, units = self.in_coin(intent.token_id, _paid(intent))
        cap = self.day_max.get(symbol)
        if cap is None or spent + units <= cap:
            return ""
        return f"{plain(spent, LEDGER_DECIMALS)} of {plain(cap, LEDGER_DECIMALS)} {symbol} were signed within 24 hours (signer.day_max)"


def counted(intent: Intent) -> tuple[str, int]:
    """What an attempt counts as, and how much of it, whatever the settings are: base units of its token, or that it opens one for its sender,
    which pays nobody but costs a fee.
    """
    opens = f"{_OPENS}{intent.chain} {intent.token_id} {intent.sender}"
    return (opens, 1) if intent.kind == "open" else (intent.token_id, _paid(intent))


def _paid(intent: Intent) -> int:
    return sum(payment.units for payment in intent.payments)


class Spent:
    """What was signed lately, by coin, a sum for each minute: an amount counts for 24 hours and at most a minute longer.

    A clock that stepped back makes it count longer as well, never shorter.
    """

    def __init__(self) -> None:
        self._lately: defaultdict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self._totals: defaultdict[str, int] = defaultdict(int)

    def note(self, symbol: str, units: int, at_ms: int) -> None:
        """One attempt, at the time its first version was recorded."""
        lately, before = self._lately[symbol], 0
        if lately and lately[-1][0] // MINUTE_MS == at_ms // MINUTE_MS:
            newest_ms, before = lately.pop()
            at_ms = max(at_ms, newest_ms)
        lately.append((at_ms, before + units))
        self._totals[symbol] += units
        self.within_a_day(symbol, at_ms)  # no more than a day stays in memory

    def within_a_day(self, symbol: str, now_ms: int) -> int:
        """Ledger units of the last 24 hours."""
        lately = self._lately[symbol]
        while lately and lately[0][0] <= now_ms - DAY_MS:
            self._totals[symbol] -= lately.popleft()[1]
        return self._totals[symbol]


def allow(network: Network, tokens: Iterable[Token], *, fee_max: int | None = None, node: str = "") -> AllowedNetwork:
    """The pin of one network as catalogue and settings have it; `fee_max` in native base units, else the catalogue's."""
    here = {token.id: token for token in tokens if token.chain == network.chain}
    if fee_max is None:
        native = here.get(network.native_token_id)
        fee_max = parse_units(str(network.param("fee_max", "0")), native.decimals) if native is not None else 0
    contracts = {token.id: token.contract for token in here.values()}
    return AllowedNetwork(network.family, network.chain_id, contracts, fee_max, node)


def allowed_networks(settings: Settings, catalog: Catalog, *, every: bool = False) -> dict[str, AllowedNetwork]:
    """What the signer may sign for: the networks that are on, or every one that has keys."""
    found = {}
    for network in catalog.networks():
        wanted = settings.networks.get(network.chain, NetworkSettings())
        if network.family not in FAMILIES or not (wanted.rpc_urls or every) or not (wanted.node_id or network.family in KEYED):
            continue
        fee_max = fee_max_of(settings, catalog, network)
        found[network.chain] = allow(network, catalog.tokens_on(network.chain), fee_max=fee_max, node=wanted.node_id)
    return found


def caps_of(settings: Settings, catalog: Catalog) -> Caps:
    """The caps of `[signer]`. Raises SettingWrong for a coin that is not there."""

    def units(values: Mapping[str, str], name: str) -> dict[str, int]:
        return {symbol: parse_units(text, LEDGER_DECIMALS) for symbol, text in of_coins(catalog, values, f"signer.{name}").items()}

    coins = {token.id: (token.coin.symbol, token.scale) for token in catalog.tokens()}
    return Caps(units(settings.signer.order_max, "order_max"), units(settings.signer.day_max, "day_max"), coins)


def fee_max_of(settings: Settings, catalog: Catalog, network: Network) -> int | None:
    """The operator's own cap of one transaction in the network's base units; None keeps the catalogue's."""
    text = settings.networks.get(network.chain, NetworkSettings()).fee_max
    return parse_units(text, catalog.native(network.chain).decimals) if text else None


def of_coins(catalog: Catalog, values: Mapping[str, str], where: str) -> dict[str, str]:
    """Settings a coin, by the catalogue's own symbols; the environment knows no case. Raises SettingWrong for a coin that is not there."""
    found = {}
    for symbol, value in values.items():
        coin = catalog.coin_by_symbol(symbol)
        if coin is None:
            raise SettingWrong(f"{where}.{symbol}: there is no such coin; `penstock catalog` shows all")
        found[coin.symbol] = value
    return found


def load_catalog(settings: Settings) -> Catalog:
    """The shipped catalogue with the operator's own file over it and the settings of each network. Raises CatalogError."""
    own = settings.home / "catalog.toml"
    catalog = Catalog.load(overrides=own if own.exists() else None, check_contract=_check_contract)
    for chain, wanted in settings.networks.items():
        params = {"batch_max": wanted.batch_max} if wanted.batch_max else {}
        params |= {"batch_window_ms": wanted.batch_window_s * 1000} if wanted.batch_window_s >= 0 else {}
        catalog = catalog.with_network(
            chain,
            chain_id=wanted.chain_id or None,
            confirmations=wanted.confirmations or None,
            block_ms=wanted.block_ms or None,
            params=params,
        )
    return catalog


_CONTRACTS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"evm": evm.parse_address, "tron": tron.account_bytes, "xrp": xrp.parse_contract}
)
"""What each family takes for a token's contract; raises ValueError."""


def _check_contract(family: str, contract: str) -> str | None:
    try:
        _CONTRACTS.get(family, str)(contract)
    except ValueError as error:
        return str(error)
    return None
