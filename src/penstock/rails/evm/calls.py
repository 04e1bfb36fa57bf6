"""Token calls and the logs they leave: what a contract is asked, and what a receipt proves. Pure.

ERC-20 in Solidity's ABI: https://eips.ethereum.org/EIPS/eip-20, https://docs.soliditylang.org/en/latest/abi-spec.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.rails.evm.address import checksum, keccak256

UINT256_MAX: Final = 2**256 - 1

GAS_PRICE_ORACLE: Final = "0x420000000000000000000000000000000000000F"
"""OP-stack predeploy that knows the L1 fee. https://specs.optimism.io/protocol/predeploys.html#gaspriceoracle"""


def selector(signature: str) -> bytes:
    """By which a contract knows the function that is called."""
    return keccak256(signature.encode("ascii"))[:4]


_TRANSFER: Final = selector("transfer(address,uint256)")
_APPROVE: Final = selector("approve(address,uint256)")
_ALLOWANCE: Final = selector("allowance(address,address)")
_BALANCE_OF: Final = selector("balanceOf(address)")
_GET_L1_FEE: Final = selector("getL1Fee(bytes)")
TRANSFER_TOPIC: Final = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
"""First topic of ERC-20's Transfer event. https://eips.ethereum.org/EIPS/eip-20#transfer-1"""


def word(number: int) -> bytes:
    """A number in the 32 bytes that every value takes."""
    return number.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """An address in 32 bytes."""
    return bytes.fromhex(checksum(address)[2:]).rjust(32, b"\0")


def transfer_call_data(recipient: str, units: int) -> bytes:
    """`transfer(recipient, units)` of ERC-20; units are the token's own base units. Raises ValueError out of range."""
    if not 0 <= units <= UINT256_MAX:
        raise ValueError("a token amount is from 0 to 2^256 - 1 base units")
    return _TRANSFER + address_word(recipient) + word(units)


def approve_call_data(spender: str, units: int) -> bytes:
    """`approve(spender, units)` of ERC-20: how much the spender may move for the caller."""
    return _APPROVE + address_word(spender) + word(units)


def allowance_call_data(owner: str, spender: str) -> bytes:
    """`allowance(owner, spender)` of ERC-20; answered by one word, see `decode_uint256`."""
    return _ALLOWANCE + address_word(owner) + address_word(spender)


def balance_of_call_data(owner: str) -> bytes:
    """`balanceOf(owner)` of ERC-20; answered by one word, see `decode_uint256`."""
    return _BALANCE_OF + address_word(owner)


def get_l1_fee_call_data(unsigned: bytes) -> bytes:
    """`getL1Fee(unsigned)` of the OP-stack's GasPriceOracle: wei that L1 costs for a transaction of these unsigned bytes.

    Answered by one word. https://docs.optimism.io/stack/transactions/fees
    """
    padding = -len(unsigned) % 32
    return _GET_L1_FEE + word(32) + word(len(unsigned)) + unsigned + b"\0" * padding


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


def exact_transfers(logs: Iterable[Mapping[str, Any]], contract: str, sender: str, payments: Iterable[tuple[str, int]]) -> bool:
    """Whether a receipt's logs have the Transfer of each payment, a recipient and base units, exactly as often as it is paid (failure model,
    section 5).

    Strict: three topics, one word of data, not `removed`, all as the contract writes it but for the case of the digits. A log with four
    topics is an NFT's.
    """
    source = "0x" + address_word(sender).hex()
    wanted = Counter(
        (contract.lower(), "0x" + word(units).hex(), TRANSFER_TOPIC, source, "0x" + address_word(recipient).hex())
        for recipient, units in payments
    )
    found = Counter(_in_lower_case(log) for log in logs if not log.get("removed"))
    return all(found[transfer] == times for transfer, times in wanted.items())


def _in_lower_case(log: Mapping[str, Any]) -> tuple[str, ...]:
    topics = log.get("topics")
    texts = (log.get("address"), log.get("data"), *(topics if isinstance(topics, list) else ()))
    return tuple(str(text).lower() for text in texts)
