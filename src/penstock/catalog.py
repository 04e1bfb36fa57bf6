"""Networks, coins and tokens: what exists. The data stand in catalog.toml beside this file; nothing is decided here.

    catalog = Catalog.load()                                  the shipped file
    catalog = Catalog.load(overrides=home / "catalog.toml")   and the operator's own: fields add to or replace shipped ones
    catalog = catalog.with_network("ETH", chain_id=31337)     a test network in its place

Everything is checked while loading (`listing`), so a look-up later can only find or not find. An operator who overrides an id, a contract or
decimals is believed: that file is as trusted as the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from penstock.core.money import Coin, Network, Token
from penstock.listing import CHAIN_ID_MAX, CatalogError, ContractCheck, Listed, checked, merged, read

TEST_CONFIRMATIONS: Final = 2
TEST_BLOCK_MS: Final = 1_000
"""Depth of a test network unless the operator says otherwise; a real network's depth makes no sense in a box."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that exists, frozen. A coin and one of its tokens may share an id, so look-ups go by kind."""

    _networks: Mapping[str, Network]
    _coins: Mapping[str, Coin]
    _tokens: Mapping[str, Token]
    _by_symbol: Mapping[tuple[str, str], Token]
    _by_coin: Mapping[str, tuple[Token, ...]]
    _reserved: Mapping[str, str]

    @classmethod
    def load(cls, path: Path | None = None, overrides: str | Path | None = None, *, check_contract: ContractCheck | None = None) -> Catalog:
        """The catalogue at `path` (None: the shipped one) with `overrides` laid over it (a file, or TOML text).

        `check_contract` is asked about each token's contract, but not where there is the shipped one alone: a test has asked it that, and a
        family's library is not read for networks that nobody uses. Raises CatalogError, also for a file that is missing or no TOML.
        """
        tables = read(path or Path(__file__).with_name("catalog.toml"))
        if overrides is not None:
            tables = merged(tables, read(overrides))
        is_shipped = path is None and overrides is None
        return cls._of(checked(tables, None if is_shipped else check_contract))

    @classmethod
    def _of(cls, listed: Listed) -> Catalog:
        by_coin: dict[str, tuple[Token, ...]] = {}
        for token in listed.tokens.values():
            by_coin[token.coin.id] = (*by_coin.get(token.coin.id, ()), token)
        return cls(
            _networks=MappingProxyType(dict(listed.networks)),
            _coins=MappingProxyType({coin.id: coin for coin in listed.coins.values()}),
            _tokens=MappingProxyType({token.id: token for token in listed.tokens.values()}),
            _by_symbol=MappingProxyType(dict(listed.tokens)),
            _by_coin=MappingProxyType(by_coin),
            _reserved=MappingProxyType(dict(listed.reserved)),
        )

    def network(self, chain: str) -> Network | None:
        """The network with this wire name."""
        return self._networks.get(chain)

    def coin(self, coin_id: str) -> Coin | None:
        """The coin with this id."""
        return self._coins.get(coin_id)

    def token(self, token_id: str) -> Token | None:
        """The token with this id."""
        return self._tokens.get(token_id)

    def coin_by_symbol(self, symbol: str) -> Coin | None:
        """The coin with this symbol, in any case: people type usdc.E, and no two symbols differ in case alone."""
        wanted = symbol.casefold()
        return next((coin for coin in self._coins.values() if coin.symbol.casefold() == wanted), None)

    def by_symbol(self, symbol: str, chain: str) -> Token | None:
        """The token of this coin on this network."""
        return self._by_symbol.get((symbol, chain))

    def native(self, chain: str) -> Token:
        """The coin that pays gas on this network. Raises CatalogError where the catalogue knows none."""
        network = self._networks.get(chain)
        token = self._tokens.get(network.native_token_id) if network is not None else None
        if token is None:
            raise CatalogError(f"network {chain}: no native token in the catalogue")
        return token

    def tokens_of(self, coin: Coin) -> tuple[Token, ...]:
        """Every token of a coin, in the order of the file."""
        return self._by_coin.get(coin.id, ())

    def coins(self) -> tuple[Coin, ...]:
        """Every coin, in the order of the file."""
        return tuple(self._coins.values())

    def networks(self) -> tuple[Network, ...]:
        """Every network, in the order of the file."""
        return tuple(self._networks.values())

    def tokens(self) -> tuple[Token, ...]:
        """Every token, in the order of the file."""
        return tuple(self._tokens.values())

    def tokens_on(self, chain: str) -> tuple[Token, ...]:
        """Every token on a network, in the order of the file."""
        return tuple(token for token in self._tokens.values() if token.chain == chain)

    def reserved(self, any_id: str) -> str | None:
        """What an id of CCPayment's means that cannot be paid here yet; None for all others."""
        return self._reserved.get(any_id)

    def with_network(
        self,
        chain: str,
        *,
        chain_id: int | None = None,
        confirmations: int | None = None,
        block_ms: int | None = None,
        params: Mapping[str, int] = MappingProxyType({}),
    ) -> Catalog:
        """The catalogue with one network as the operator's settings have it.

        Another `chain_id` than the catalogue's makes it a test network: no pinned genesis, no explorer, a name that says so, and a
        small depth stands in for finality, and blocks are taken to come every second.
        `params` replace the catalogue's of those names. `confirmations` is kept, and sets param `reports_at_depth`: success is reported at that depth instead of at finality.
        Raises CatalogError for an unknown network, a depth below 1, and a chain id that another network has: the same bytes would
        be a valid payment on both.
        """
        network = self._networks.get(chain)
        if network is None:
            raise CatalogError(f"network {chain}: not in the catalogue; it has {', '.join(self._networks)}")
        if confirmations is not None and confirmations < 1:
            raise CatalogError(f"network {chain}: confirmations is {confirmations}; 1 or more would be right")
        if chain_id is not None and chain_id != network.chain_id:
            network = _as_test_network(network, chain_id, self._networks.values())
        if block_ms is not None:
            network = replace(network, block_ms=block_ms)
        known = dict(network.params)
        if unknown := sorted(set(params) - set(known)):
            raise CatalogError(f"network {chain}: family {network.family} has no {unknown[0]}")
        if confirmations is not None:
            network, known = replace(network, confirmations=confirmations), known | {"reports_at_depth": True}
        network = replace(network, params=tuple(sorted((known | dict(params)).items())))
        return replace(self, _networks=MappingProxyType({**self._networks, chain: network}))


def _as_test_network(network: Network, chain_id: int, others: Iterable[Network]) -> Network:
    if network.is_test:
        raise CatalogError(f"network {network.chain}: is a test network already")
    if not 1 <= chain_id <= CHAIN_ID_MAX:
        raise CatalogError(f"network {network.chain}: chain_id {chain_id} is not between 1 and {CHAIN_ID_MAX}")
    for other in others:
        if (other.family, other.chain_id) == (network.family, chain_id) and other.chain != network.chain:
            raise CatalogError(
                f"network {network.chain}: chain_id {chain_id} is {other.chain}'s; a payment signed for one would be valid on both"
            )
    return replace(
        network,
        name=f"{network.name} (test network {chain_id})",
        chain_id=chain_id,
        genesis=None,
        confirmations=TEST_CONFIRMATIONS,
        block_ms=TEST_BLOCK_MS,
        is_test=True,
        params=tuple((key, "" if key == "explorer_tx" else value) for key, value in network.params),
    )
