"""The EVM networks of the catalogue as specs of boxes: same names, same contracts and decimals, other chain ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penstock.catalog import Catalog
from penstock.core.money import Network
from penstock.devnet.evm.box import EvmBox, network_of
from penstock.devnet.evm.chain import CHAIN_IDS, ChainSpec, EvmChain, box_chain_id
from penstock.devnet.evm.contracts import BoxToken

BLOCK_MS_MAX = 1_000
"""A box is not slower than this, whatever the network is that it stands for."""


def networks_in_boxes(catalog: Catalog, *, now_ms: Callable[[], int], seed: int, nodes: int) -> dict[str, Callable[[], EvmBox]]:
    """How to make each EVM network of the catalogue, by its name."""

    def maker(spec: ChainSpec) -> Callable[[], EvmBox]:
        return lambda: network_of(EvmChain(spec, now_ms=now_ms, seed=seed), nodes=nodes)

    return {spec.name: maker(spec) for spec in specs(catalog)}


def specs(catalog: Catalog) -> list[ChainSpec]:
    """One for each EVM network of the catalogue."""
    return [_spec(catalog, network) for network in catalog.networks() if network.family == "evm"]


def _spec(catalog: Catalog, network: Network) -> ChainSpec:
    tokens = {
        token.contract: BoxToken(token.coin.symbol, token.decimals)
        for token in catalog.tokens_on(network.chain)
        if token.contract is not None
    }
    least = int(network.param("priority_fee_min_wei", 0))
    tip = max(least, 10**6)
    spec = ChainSpec(
        name=network.chain,
        chain_id=network.chain_id if network.chain_id in CHAIN_IDS else box_chain_id(network.chain_id),
        tokens=tokens,
        block_ms=min(network.block_ms, BLOCK_MS_MAX),
        base_fee=tip * 2,
        tip=tip,
        tip_min=min(least, tip // 2),  # where blocks were empty for a while, the gateway offers no more than what the catalogue names
        legacy=network.param("fee_model", "eip1559") == "legacy",
        op_stack=bool(network.param("op_stack", False)),
        finality_tag=bool(network.param("has_finality_tag", False)),
    )
    return replace(spec, l1_fee_fixed=10**9, l1_fee_per_byte=10**7) if spec.op_stack else spec
