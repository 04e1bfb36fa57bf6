"""Token calls and the logs they leave: what a contract is asked, and what a receipt proves. Pure.

ERC-20 in Solidity's ABI: https://eips.ethereum.org/EIPS/eip-20, https://docs.soliditylang.org/en/latest/abi-spec.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.rails.evm.address import checksum, keccak256

UINT256_MAX: Final = 2**256 - 1

GAS_PRICE_ORACLE: Final = "0x420000000000000000000000000000000000000F"
"""OP-stack predeploy that knows the L1 fee. https://specs.optimism.io/protocol/predeploys.html#gaspriceoracle"""


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode("ascii"))[:4]


_TRANSFER: Final = _selector("transfer(address,uint256)")
_BALANCE_OF: Final = _selector("balanceOf(address)")
_GET_L1_FEE: Final = _selector("getL1Fee(bytes)")
TRANSFER_TOPIC: Final = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
"""First topic of ERC-20's Transfer event. https://eips.ethereum.org/EIPS/eip-20#transfer-1"""


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _address_word(address: str) -> bytes:
    return bytes.fromhex(checksum(address)[2:]).rjust(32, b"\0")


def transfer_call_data(recipient: str, units: int) -> bytes:
    """`transfer(recipient, units)` of ERC-20; units are the token's own base units. Raises ValueError out of range."""
    if not 0 <= units <= UINT256_MAX:
        raise ValueError("a token amount is from 0 to 2^256 - 1 base units")
    return _TRANSFER + _address_word(recipient) + _word(units)


def balance_of_call_data(owner: str) -> bytes:
    """`balanceOf(owner)` of ERC-20; answered by one word, see `decode_uint256`."""
    return _BALANCE_OF + _address_word(owner)


def get_l1_fee_call_data(unsigned: bytes) -> bytes:
    """`getL1Fee(unsigned)` of the OP-stack's GasPriceOracle: wei that L1 costs for a transaction of these unsigned bytes.

    Answered by one word. https://docs.optimism.io/stack/transactions/fees
    """
    padding = -len(unsigned) % 32
    return _GET_L1_FEE + _word(32) + _word(len(unsigned)) + unsigned + b"\0" * padding


def decode_uint256(answer: bytes | str) -> int:
    """The one word that a call answered, as bytes or 0x text. Raises ValueError when it is not exactly 32 bytes."""
    data = _data(answer) if isinstance(answer, str) else answer
    if len(data) != 32:
        raise ValueError(f"the call answered {len(data)} bytes where one word of 32 was due")
    return int.from_bytes(data, "big")


def _data(text: object) -> bytes:
    if not isinstance(text, str) or re.fullmatch(r"0x([0-9a-fA-F]{2})*", text, re.ASCII) is None:
        raise ValueError("not 0x and hexadecimal bytes")
    return bytes.fromhex(text[2:])


def exact_transfer_count(logs: Iterable[Mapping[str, Any]], contract: str, sender: str, recipient: str, units: int) -> int:
    """How many of a receipt's logs are this very transfer. A payment is proved by exactly one (failure model, section 5).

    Strict: three topics, one word of data, not `removed`, all as the contract writes it but for the case of the digits. A log with four
    topics is an NFT's.
    """
    topics = [TRANSFER_TOPIC, *("0x" + _address_word(address).hex() for address in (sender, recipient))]
    wanted = [contract.lower(), "0x" + _word(units).hex(), *topics]
    return sum(not log.get("removed") and _in_lower_case(log) == wanted for log in logs)


def _in_lower_case(log: Mapping[str, Any]) -> list[str]:
    topics = log.get("topics")
    words = (log.get("address"), log.get("data"), *(topics if isinstance(topics, list) else ()))
    return [str(word).lower() for word in words]
