"""Who signs requests and receives webhooks on behalf of a lane, whatever way they travel."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coincurve import PrivateKey

from penstock.core import wire_signature
from penstock.signer.families import FAMILIES

V1: Final = "/ccpayment/v1"


@dataclass(frozen=True, slots=True)
class Merchant:
    """One merchant's credentials, and what they make."""

    app_id: str
    secret: str
    holder: str

    def headers(self, body: bytes, *, timestamp: str = "") -> dict[str, str]:
        """Appid, Timestamp and Sign over the exact bytes (spec, section 2)."""
        stamp = timestamp or str(int(time.time()))
        return {"Appid": self.app_id, "Timestamp": stamp, "Sign": wire_signature.sign(self.app_id, self.secret, stamp, body)}

    def made(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether these bytes were signed with our secret."""
        headers = {name.lower(): value for name, value in headers.items()}
        expected = wire_signature.sign(self.app_id, self.secret, headers.get("timestamp", ""), body)
        return headers.get("appid") == self.app_id and headers.get("sign") == expected


def nobody(dice: random.Random, family: str, chain_id: int) -> str:
    """An address that was never paid and that nobody has the key of any more."""
    key = PrivateKey(dice.randbytes(32)).public_key.format(compressed=family in {"bitcoin", "xrp"})
    return FAMILIES[family].address(key, chain_id)
