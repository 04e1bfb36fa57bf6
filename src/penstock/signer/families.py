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

PATHS: Final = frozenset(
    [evm.path(1, 0), tron.path(1, 0), xrp.path(1, 0), *(bitcoin.path(chain_id, 0) for chain_id in bitcoin.CHAINS)],
)
"""BIP-32 paths of the hot addresses of every network that a family can have, real and test."""

KEYED: Final = frozenset(FAMILIES) - {"lightning"}
"""Families whose coins are under keys of ours."""
