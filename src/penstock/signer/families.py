"""The codecs by which the signer builds, signs and reads again; one line a family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from penstock.core.intent import Codec, OfflineCodec
from penstock.rails.bitcoin import codec as bitcoin
from penstock.rails.evm import codec as evm
from penstock.rails.lightning import codec as lightning
from penstock.rails.tron import codec as tron
from penstock.rails.xrp import codec as xrp

FAMILIES: Final[Mapping[str, Codec]] = MappingProxyType({"evm": evm, "tron": tron, "xrp": xrp, "bitcoin": bitcoin, "lightning": lightning})

OFFLINE: Final[Mapping[str, OfflineCodec]] = MappingProxyType({"bitcoin": bitcoin})
"""Families whose transactions an offline signer may take."""

LANES_MAX: Final = 16
"""Hot addresses of one network, at most."""

LANES: Final[Mapping[str, int]] = MappingProxyType({"evm": LANES_MAX, "tron": LANES_MAX, "xrp": LANES_MAX, "bitcoin": 1, "lightning": 1})
"""How many hot addresses a network of a family can have: many where each has an order of its own. Bitcoin's coins wait for nobody."""

PATHS: Final = frozenset(
    [codec.path(1, lane) for codec in (evm, tron, xrp) for lane in range(LANES_MAX)]
    + [bitcoin.path(chain_id, 0) for chain_id in bitcoin.CHAINS],
)
"""BIP-32 paths of the hot addresses of every network that a family can have, real and test."""

KEYED: Final = frozenset(FAMILIES) - {"lightning"}
"""Families whose coins are under keys of ours."""
