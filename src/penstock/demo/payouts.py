"""What the demo pays, and with what. One payout for each family of networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Payout:
    """One withdrawal as the demo's merchant asks for it. Without an address it pays an invoice made for it."""

    title: str
    chain: str
    symbol: str
    value: str
    address: str = ""
    is_internal: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


_ETHEREUM: Final = "0x52908400098527886E0F7030069857D2E4169EE7"
_TAPROOT: Final = "bcrt1ps98avqz3l9z3pg5e0w0w6nnml7h40slfsuw4q9z8wz60m2gsgvks7ngx8y"
_TRON: Final = "TVAqQTeGBscB3mH9FTe5yG7QWdNUDWyRTM"
_XRP: Final = "rQB91FSa7MzVkMP7rpDPYCX1iVTux7Eu2W"

PAYOUTS: Final = (
    Payout("Inside the house, no fee", "ETH", "USDT", "25", is_internal=True),
    Payout("On Ethereum, the recipient pays the fee", "ETH", "USDT", "100", _ETHEREUM),
    Payout("On Polygon, the merchant pays the fee", "POLYGON", "USDC", "40", _ETHEREUM, more={"merchant_pays_fee": True}),
    Payout("Ether on Base", "BASE", "ETH", "0.5", _ETHEREUM),
    Payout("USDT on TRON, to an address that holds none", "TRX", "USDT", "30", _TRON),
    Payout("XRP with a destination tag, to an account that begins with it", "XRP", "XRP", "25", _XRP, more={"memo": "573049"}),
    Payout("Bitcoin, to a taproot address", "BTC", "BTC", "0.01", _TAPROOT),
    Payout("A Lightning invoice over 2,100 satoshi, made by the recipient's node", "LIGHTNING", "SATS", "2100"),
)
"""Addresses of people who are not there: nobody has their keys."""

CHAINS: Final = tuple(dict.fromkeys(payout.chain for payout in PAYOUTS))
CREDITS: Final[Mapping[str, str]] = MappingProxyType(
    {"USDT": "1000", "USDC": "1000", "ETH": "5", "BTC": "1", "XRP": "100", "TRX": "100", "SATS": "100000"}
)
"""What the merchant has in the books at the start."""

FUNDS: Final[Mapping[str, int]] = MappingProxyType({"ETH": 100, "MATIC": 100, "BTC": 10, "SATS": 1_000_000})
"""Whole coins that the faucets put on the hot addresses; 10,000 of what is not named."""
