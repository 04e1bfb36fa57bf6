"""The TRON networks of the catalogue as specs of boxes: same names, same contracts and decimals, another chain id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.catalog import Catalog
from penstock.core.money import Network, Token
from penstock.devnet.tron.box import TronBox, network_of
from penstock.devnet.tron.chain import ChainSpec, TronChain
from penstock.devnet.tron.tokens import BoxToken

BLOCK_MS_MAX: Final = 1_000
"""A box is not slower than this; the real network takes three seconds a block."""

USDT_ENERGY_FACTOR: Final = 34_000
"""The most that the real network asks of a much used contract on top of its instructions; USDT has been there for long."""


def networks_in_boxes(catalog: Catalog, *, now_ms: Callable[[], int], seed: int, nodes: int) -> dict[str, Callable[[], TronBox]]:
    """How to make each TRON network of the catalogue, by its name."""

    def maker(spec: ChainSpec) -> Callable[[], TronBox]:
        return lambda: network_of(TronChain(spec, now_ms=now_ms, seed=seed), nodes=nodes)

    return {spec.name: maker(spec) for spec in specs(catalog)}


def specs(catalog: Catalog) -> list[ChainSpec]:
    """One for each TRON network of the catalogue."""
    return [_spec(catalog, network) for network in catalog.networks() if network.family == "tron"]


def _spec(catalog: Catalog, network: Network) -> ChainSpec:
    tokens = {token.contract: _token(token) for token in catalog.tokens_on(network.chain) if token.contract is not None}
    return ChainSpec(name=network.chain, tokens=tokens, block_ms=min(network.block_ms, BLOCK_MS_MAX))


def _token(token: Token) -> BoxToken:
    if token.coin.symbol == "USDT":
        return BoxToken("USDT", token.decimals, "false", USDT_ENERGY_FACTOR)
    return BoxToken(token.coin.symbol, token.decimals)
