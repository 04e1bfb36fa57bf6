"""The Bitcoin networks of the catalogue as boxes. Bitcoin Core's code is loaded only when one of them is made."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from penstock.catalog import Catalog
from penstock.devnet.box import BoxNetwork

KERNEL: Final = "pbk"
BLOCK_MS_MAX: Final = 1_000
"""A box is not slower than this; the real network takes ten minutes a block."""


def networks_in_boxes(catalog: Catalog, *, now_ms: Callable[[], int], seed: int, nodes: int) -> dict[str, Callable[[], BoxNetwork]]:
    """How to make each Bitcoin network of the catalogue, by its name; none where Bitcoin Core's code is not installed.

    Its package has no wheel for CPython 3.14 yet, and is therefore no dependency there.
    """
    if find_spec(KERNEL) is None:
        return {}

    def maker(name: str, block_ms: int) -> Callable[[], BoxNetwork]:
        def make() -> BoxNetwork:
            chain, box = import_module("penstock.devnet.bitcoin.chain"), import_module("penstock.devnet.bitcoin.box")
            spec = chain.ChainSpec(name=name, block_ms=block_ms)
            network: BoxNetwork = box.network_of(chain.BitcoinChain(spec, now_ms=now_ms, seed=seed), nodes=nodes)
            return network

        return make

    return {
        network.chain: maker(network.chain, min(network.block_ms, BLOCK_MS_MAX))
        for network in catalog.networks()
        if network.family == "bitcoin"
    }
