"""The Lightning networks of the catalogue as boxes."""

from __future__ import annotations

from collections.abc import Callable

from penstock.catalog import Catalog
from penstock.devnet.lightning.box import LightningBox, network_of
from penstock.devnet.lightning.world import LightningWorld

BLOCK_MS_MAX = 1_000
"""The block counter below is not slower than this."""


def networks_in_boxes(catalog: Catalog, *, now_ms: Callable[[], int], seed: int, nodes: int) -> dict[str, Callable[[], LightningBox]]:
    """How to make each Lightning network of the catalogue, by its name."""

    def maker(name: str, block_ms: int) -> Callable[[], LightningBox]:
        return lambda: network_of(LightningWorld(name=name, now_ms=now_ms, seed=seed, block_ms=block_ms), nodes=nodes)

    return {
        network.chain: maker(network.chain, min(network.block_ms, BLOCK_MS_MAX))
        for network in catalog.networks()
        if network.family == "lightning"
    }
