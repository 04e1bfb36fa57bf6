"""The networks of the catalogue as boxes: same names, same contracts and decimals, other chain ids."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from penstock.catalog import Catalog
from penstock.core.money import Network
from penstock.devnet.contracts import BoxToken
from penstock.devnet.evm import CHAIN_IDS, ChainSpec, box_chain_id

BLOCK_MS_MAX = 1_000
"""A box is not slower than this, whatever the network is that it stands for."""


def default_specs(catalog: Catalog, only: Collection[str] = ()) -> list[ChainSpec]:
    """One spec for each EVM network of the catalogue, or for those named. Raises ValueError for a name that is none."""
    networks = {network.chain: network for network in catalog.networks() if network.family == "evm"}
    if unknown := sorted(set(only) - set(networks)):
        raise ValueError(f"no network {unknown[0]} can be put in a box; there are {', '.join(networks)}")
    return [_spec(catalog, network) for name, network in networks.items() if not only or name in only]


def _spec(catalog: Catalog, network: Network) -> ChainSpec:
    tokens = {
        token.contract: BoxToken(token.coin.symbol, token.decimals)
        for token in catalog.tokens_on(network.chain)
        if token.contract is not None
    }
    tip = max(int(network.param("priority_fee_min_wei", 0)), 10**6)
    spec = ChainSpec(
        name=network.chain,
        chain_id=network.chain_id if network.chain_id in CHAIN_IDS else box_chain_id(network.chain_id),
        tokens=tokens,
        block_ms=min(network.block_ms, BLOCK_MS_MAX),
        base_fee=tip * 2,
        tip=tip,
        tip_min=tip // 2,
        legacy=network.param("fee_model", "eip1559") == "legacy",
        op_stack=bool(network.param("op_stack", False)),
        finality_tag=bool(network.param("has_finality_tag", False)),
    )
    return replace(spec, l1_fee_fixed=10**9, l1_fee_per_byte=10**7) if spec.op_stack else spec
