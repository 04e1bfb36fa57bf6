"""Bandwidth and energy: what an account has of them, how use fades within a day, and what the network asks for more. Pure.

https://developers.tron.network/docs/resource-model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from penstock.devnet.tron.state import Account, Usage

SLOT_MS: Final = 3_000
"""The real network's time between blocks; use fades by these, whatever the box's own pace."""
WINDOW_SLOTS: Final = 24 * 3_600 * 1_000 // SLOT_MS
PRECISION: Final = 1_000_000
SUN: Final = 1_000_000
"""Sun in a TRX."""

NET_TOTAL: Final = 43_200_000_000
ENERGY_TOTAL: Final = 180_000_000_000
NET_WEIGHT: Final = 27_000_000_000
ENERGY_WEIGHT: Final = 18_000_000_000
"""TRX that all accounts together count as having staked. Real totals move; these give 10 energy and 1.6 bandwidth a TRX."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What the network asks, in sun, points or bytes; by default what the main network asks."""

    energy: int = 100
    byte: int = 1_000
    new_account: int = 1_000_000
    new_account_bandwidth: int = 100_000
    memo: int = 1_000_000
    fee_limit_max: int = 15_000_000_000
    free_bandwidth: int = 600
    new_account_bytes_max: int = 1_000


PARAMETERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "getMaintenanceTimeInterval": 21_600_000,
        "getAccountUpgradeCost": 9_999_000_000,
        "getCreateAccountFee": 100_000,
        "getTransactionFee": 1_000,
        "getAssetIssueFee": 1_024_000_000,
        "getWitnessPayPerBlock": 8_000_000,
        "getWitnessStandbyAllowance": 0,
        "getCreateNewAccountFeeInSystemContract": 1_000_000,
        "getCreateNewAccountBandwidthRate": 1,
        "getAllowCreationOfContracts": 1,
        "getEnergyFee": 100,
        "getMaxCpuTimeOfOneTx": 80,
        "getAllowUpdateAccountName": 0,
        "getAllowSameTokenName": 1,
        "getAllowDelegateResource": 1,
        "getTotalEnergyLimit": ENERGY_TOTAL,
        "getAllowTvmTransferTrc10": 1,
        "getTotalEnergyCurrentLimit": ENERGY_TOTAL,
        "getAllowMultiSign": 1,
        "getAllowAdaptiveEnergy": 0,
        "getUpdateAccountPermissionFee": 100_000_000,
        "getMultiSignFee": 1_000_000,
        "getForbidTransferToContract": 1,
        "getAllowPBFT": 0,
        "getAllowTransactionFeePool": 0,
        "getMaxFeeLimit": 15_000_000_000,
        "getAllowTvmLondon": 1,
        "getAllowTvmCompatibleEvm": 0,
        "getFreeNetLimit": 600,
        "getTotalNetLimit": NET_TOTAL,
        "getMemoFee": 1_000_000,
        "getUnfreezeDelayDays": 14,
        "getAllowOptimizedReturnValueOfChainId": 1,
        "getAllowDynamicEnergy": 1,
        "getDynamicEnergyThreshold": 5_000_000_000,
        "getDynamicEnergyIncreaseFactor": 2_000,
        "getDynamicEnergyMaxFactor": 34_000,
        "getMaxCreateAccountTxSize": 1_000,
        "getConsensusLogicOptimization": 1,
        "getAllowTvmCancun": 1,
    }
)
"""What getchainparameters says beside what `Prices` decides; those of 0 are printed without a value, as protobuf leaves them out."""


def parameters(prices: Prices) -> dict[str, int]:
    """All parameters under these prices."""
    return {
        **PARAMETERS,
        "getEnergyFee": prices.energy,
        "getTransactionFee": prices.byte,
        "getCreateNewAccountFeeInSystemContract": prices.new_account,
        "getCreateAccountFee": prices.new_account_bandwidth,
        "getMemoFee": prices.memo,
        "getMaxFeeLimit": prices.fee_limit_max,
        "getFreeNetLimit": prices.free_bandwidth,
        "getMaxCreateAccountTxSize": prices.new_account_bytes_max,
    }


def spiked(prices: Prices, factor: int) -> Prices:
    """The same with energy and bytes times `factor`."""
    return replace(prices, energy=prices.energy * factor, byte=prices.byte * factor)


def used_at(usage: Usage, slot: int) -> int:
    """What counts as used in a later slot: it fades evenly within a day.

    The arithmetic is a node's, in whole numbers; where it rounds half of a millionth the real network uses floating point.
    """
    return _sum(usage, 0, slot)


def used_more(usage: Usage, points: int, slot: int) -> Usage:
    """After using so many points more."""
    return Usage(_sum(usage, points, slot), slot)


def _sum(usage: Usage, points: int, slot: int) -> int:
    average = -(-usage.used * PRECISION // WINDOW_SLOTS)
    passed = slot - usage.slot
    if passed >= WINDOW_SLOTS:
        average = 0
    elif passed > 0:
        average = (2 * average * (WINDOW_SLOTS - passed) + WINDOW_SLOTS) // (2 * WINDOW_SLOTS)
    return (average + -(-points * PRECISION // WINDOW_SLOTS)) * WINDOW_SLOTS // PRECISION


def net_limit(account: Account) -> int:
    """Bandwidth a day that was staked for the account."""
    return account.net_staked * NET_TOTAL // (NET_WEIGHT * SUN)


def energy_limit(account: Account) -> int:
    """Energy a day that was staked for the account."""
    return account.energy_staked * ENERGY_TOTAL // (ENERGY_WEIGHT * SUN)


def net_left(account: Account, slot: int) -> int:
    """Staked bandwidth that is left."""
    return max(0, net_limit(account) - used_at(account.net, slot))


def free_left(account: Account, slot: int, limit: int) -> int:
    """Free bandwidth that is left of `limit`."""
    return max(0, limit - used_at(account.free, slot))


def energy_left(account: Account, slot: int) -> int:
    """Staked energy that is left."""
    return max(0, energy_limit(account) - used_at(account.energy, slot))
