"""How the rail of each chain family is built; the only file that names concrete rails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from penstock.core.money import Network
from penstock.rails.base import Rail
from penstock.rails.bitcoin.rail import BitcoinRail
from penstock.rails.bitcoin.talk import BitcoinTalk
from penstock.rails.evm.rail import EvmRail
from penstock.rails.evm.talk import EthereumTalk
from penstock.rails.lightning.rail import LightningRail
from penstock.rails.lightning.rail import talk as lightning_talk
from penstock.rails.post import Post
from penstock.rails.rpc import Http, Nodes
from penstock.rails.tron.rail import TronRail
from penstock.rails.tron.talk import TronTalk
from penstock.rails.xrp.rail import XrpRail
from penstock.rails.xrp.talk import XrpTalk
from penstock.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Site:
    """What a rail is built from: the network, its nodes' addresses, our hot address there and the contracts that are no destination."""

    network: Network
    urls: tuple[str, ...]
    post: Post
    runtime: Runtime
    own: tuple[str, ...]
    contracts: tuple[str, ...]
    fee_max: int | None


def _evm(site: Site) -> Rail:
    net = site.network
    nodes = Nodes(site.urls, EthereumTalk(Http(site.post), chain_id=net.chain_id, genesis=net.genesis), site.runtime)
    return EvmRail(net, nodes, site.runtime, own=site.own, contracts=site.contracts, fee_max=site.fee_max)


def _tron(site: Site) -> Rail:
    net = site.network
    nodes = Nodes(site.urls, TronTalk(Http(site.post), site.runtime, chain_id=net.chain_id, genesis=net.genesis), site.runtime)
    return TronRail(net, nodes, site.runtime, own=site.own, contracts=site.contracts, fee_max=site.fee_max)


def _bitcoin(site: Site) -> Rail:
    nodes = Nodes(site.urls, BitcoinTalk(Http(site.post), chain_id=site.network.chain_id), site.runtime)
    return BitcoinRail(site.network, nodes, site.runtime, own=site.own, contracts=site.contracts, fee_max=site.fee_max)


def _xrp(site: Site) -> Rail:
    nodes = Nodes(site.urls, XrpTalk(Http(site.post), site.runtime, chain_id=site.network.chain_id), site.runtime)
    return XrpRail(site.network, nodes, site.runtime, own=site.own, contracts=site.contracts, fee_max=site.fee_max)


def _lightning(site: Site) -> Rail:
    nodes = Nodes(site.urls, lightning_talk(site.post, chain_id=site.network.chain_id, own=site.own[0]), site.runtime)
    return LightningRail(site.network, nodes, site.runtime, own=site.own, contracts=site.contracts, fee_max=site.fee_max)


RAILS: Final[Mapping[str, Callable[[Site], Rail]]] = MappingProxyType(
    {"evm": _evm, "tron": _tron, "xrp": _xrp, "bitcoin": _bitcoin, "lightning": _lightning}
)
"""How to build the rail of each family."""
