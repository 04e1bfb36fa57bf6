"""Every network of the catalogue that can be put in a box; the only file of the devnet that names families."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from penstock.catalog import Catalog
from penstock.devnet.bitcoin import specs as bitcoin
from penstock.devnet.box import BoxNetwork
from penstock.devnet.evm import specs as evm
from penstock.devnet.lightning import specs as lightning
from penstock.devnet.tron import specs as tron
from penstock.devnet.xrp import specs as xrp

_FAMILIES: Final = (
    evm.networks_in_boxes,
    tron.networks_in_boxes,
    xrp.networks_in_boxes,
    bitcoin.networks_in_boxes,
    lightning.networks_in_boxes,
)


def make_networks(
    catalog: Catalog, only: Collection[str] = (), *, now_ms: Callable[[], int], seed: int = 0, nodes: int = 2
) -> list[BoxNetwork]:
    """The networks of these names, or all, each born now. Raises ValueError for a name that is none."""
    makers: dict[str, Callable[[], BoxNetwork]] = {}
    for family in _FAMILIES:
        makers.update(family(catalog, now_ms=now_ms, seed=seed, nodes=nodes))
    if unknown := sorted(set(only) - set(makers)):
        raise ValueError(f"no network {unknown[0]} can be put in a box; there are {', '.join(makers)}")
    order = [network.chain for network in catalog.networks() if network.chain in makers]
    return [makers[name]() for name in order if not only or name in only]
