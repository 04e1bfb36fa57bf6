"""The catalogue's XRP networks as boxes: same issuers, currencies and decimals, another network id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.catalog import Catalog
from penstock.core.money import Network
from penstock.devnet.xrp.box import XrpBox, network_of
from penstock.devnet.xrp.chain import Issued, XrpChain, XrpSpec

NETWORK_ID: Final = 7_300_144
"""Above 1,024 every transaction names it, so nothing signed here is valid elsewhere; no network of the ledger has it."""
BLOCK_MS_MAX: Final = 1_000


def networks_in_boxes(catalog: Catalog, *, now_ms: Callable[[], int], seed: int, nodes: int) -> dict[str, Callable[[], XrpBox]]:
    """How to make each XRP network of the catalogue, by its name."""

    def maker(network: Network) -> Callable[[], XrpBox]:
        return lambda: network_of(XrpChain(_spec(catalog, network), now_ms=now_ms, seed=seed), nodes=nodes)

    return {network.chain: maker(network) for network in catalog.networks() if network.family == "xrp"}


def _spec(catalog: Catalog, network: Network) -> XrpSpec:
    tokens = {}
    for token in catalog.tokens_on(network.chain):
        if token.contract is not None:
            currency, _, issuer = token.contract.partition(".")
            tokens[token.contract] = Issued(currency, issuer, token.decimals)
    return XrpSpec(network.chain, NETWORK_ID, tokens, min(network.block_ms, BLOCK_MS_MAX))
