"""What a node's answers say, bounded and in our own words. Pure.

Nodes leave out what is zero or empty (protobuf's JSON), so a number that is missing is 0; an object that is unknown is {}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from penstock.rails.rpc import BadAnswer, mapping
from penstock.rails.tron import codec

SUN_MAX: Final = 2**63 - 1
HEIGHT_MAX: Final = 2**53
TIME_MS_MAX: Final = 2**43
"""The year 2248."""
ENERGY_MAX: Final = 10**9
BLOCK_TRANSACTIONS_MAX: Final = 20_000

Status = Literal["success", "failed", "unknown"]

_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_WORD: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_FAILED: Final = frozenset(
    {
        "REVERT",
        "BAD_JUMP_DESTINATION",
        "OUT_OF_MEMORY",
        "PRECOMPILED_CONTRACT",
        "STACK_TOO_SMALL",
        "STACK_TOO_LARGE",
        "ILLEGAL_OPERATION",
        "STACK_OVERFLOW",
        "OUT_OF_ENERGY",
        "OUT_OF_TIME",
        "JVM_STACK_OVER_FLOW",
        "TRANSFER_FAILED",
        "INVALID_CODE",
    }
)
"""`contractResult` of the protocol but DEFAULT, SUCCESS and UNKNOWN.
https://github.com/tronprotocol/protocol/blob/master/core/Tron.proto"""


def number(fields: Mapping[str, Any], name: str, most: int) -> int:
    """A whole number from 0 to `most`; 0 when it is left out. Raises BadAnswer."""
    value = fields.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise BadAnswer(f"{name} is no number from 0 to {most}")
    return value


def hash_of(value: object) -> str:
    """An id of 32 bytes, in lower case. Raises BadAnswer."""
    if not isinstance(value, str) or _ID.fullmatch(value.lower()) is None:
        raise BadAnswer("not an id")
    return value.lower()


def items(value: object, most: int) -> Sequence[Mapping[str, Any]]:
    """A list of objects; empty when it is left out. Raises BadAnswer."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
        raise BadAnswer("not a list of objects")
    return value


@dataclass(frozen=True, slots=True)
class Block:
    """A block's head. `id` begins with the number; `time_ms` by the chain's clock."""

    number: int
    id: str
    parent: str
    time_ms: int


def block_of(answer: object) -> Block:
    """Raises BadAnswer, also for an id that is not of the number."""
    fields = mapping(answer)
    raw = mapping(mapping(fields.get("block_header")).get("raw_data"))
    found = Block(
        number(raw, "number", HEIGHT_MAX),
        hash_of(fields.get("blockID")),
        hash_of(raw.get("parentHash")),
        number(raw, "timestamp", TIME_MS_MAX),
    )
    if int(found.id[:16], 16) != found.number:
        raise BadAnswer("a block whose id is of another number")
    return found


def blocks_of(answer: object, start: int, count: int) -> list[tuple[Block, frozenset[str]]]:
    """Exactly the blocks that were asked for, each with the ids of its transactions. Raises BadAnswer."""
    found = [(block_of(item), _ids_of(item)) for item in items(mapping(answer).get("block"), count)]
    if [block.number for block, _ in found] != list(range(start, start + count)):
        raise BadAnswer("not the blocks that were asked for")
    return found


def _ids_of(block: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(hash_of(item.get("txID")) for item in items(block.get("transactions"), BLOCK_TRANSACTIONS_MAX))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a transaction info says: where it is, what it cost in sun, how it ended ("" where only TRX moved), its logs."""

    block: int
    fee: int
    result: str
    failed: bool
    logs: Sequence[Mapping[str, Any]]


def receipt_of(answer: object, txid: str) -> Receipt | None:
    """None for {}: not known. Raises BadAnswer, also for another transaction's."""
    fields = mapping(answer)
    if not fields:
        return None
    if hash_of(fields.get("id")) != txid:
        raise BadAnswer("a receipt of another transaction")
    if "blockNumber" not in fields:
        raise BadAnswer("a receipt in no block")
    result = mapping(fields.get("receipt", {})).get("result", "")
    return Receipt(
        number(fields, "blockNumber", HEIGHT_MAX), number(fields, "fee", SUN_MAX), str(result)[:40],
        fields.get("result", "SUCESS") != "SUCESS",  # so spelt in the protocol
        items(fields.get("log"), 1000),
    )  # fmt: skip


def contract_result_of(answer: object, txid: str) -> str:
    """`contractRet` of a transaction, "" when the node does not know it. Raises BadAnswer."""
    fields = mapping(answer)
    if not fields:
        return ""
    if hash_of(fields.get("txID")) != txid:
        raise BadAnswer("another transaction")
    results = items(fields.get("ret"), 1)
    return str(results[0].get("contractRet", ""))[:40] if results else ""


def status_of(receipt: Receipt, contract_result: str, *, native: bool) -> Status:
    """Every word of a node for how a transaction ended, mapped whole; where they do not fit together, unknown."""
    words = {contract_result} if native and not receipt.result else {contract_result, receipt.result}
    if words == {"SUCCESS"} and not receipt.failed:
        return "success"
    if receipt.failed and words <= _FAILED | {""}:
        return "failed"
    return "unknown"


@dataclass(frozen=True, slots=True)
class Called:
    """What a constant call showed: whether it ran through, the energy it used, its first word."""

    ran: bool
    energy: int
    word: int | None
    missing: bool = False


def called_of(answer: object) -> Called:
    """Raises BadAnswer. A call that reverts has used energy all the same; one of a contract that is not there is `missing`."""
    fields = mapping(answer)
    said = mapping(fields.get("result"))
    code = said.get("code", "SUCCESS")
    if code not in ("SUCCESS", "CONTRACT_VALIDATE_ERROR", "CONTRACT_EXE_ERROR", "OTHER_ERROR"):
        raise BadAnswer("a call that was not tried")
    outcomes = items(mapping(fields.get("transaction", {})).get("ret"), 1)
    ran = said.get("result") is True and code == "SUCCESS" and not any(outcome.get("ret", "SUCESS") != "SUCESS" for outcome in outcomes)
    words = fields.get("constant_result") or [""]
    if not isinstance(words, list) or not isinstance(words[0], str):
        raise BadAnswer("no result of a call")
    word = int(words[0], 16) if _WORD.fullmatch(words[0]) else None
    return Called(ran, number(fields, "energy_used", ENERGY_MAX), word, code == "CONTRACT_VALIDATE_ERROR")


@dataclass(frozen=True, slots=True)
class Resources:
    """What an account may use without burning: energy and bandwidth that were staked for, and the day's free bandwidth."""

    energy: int
    bandwidth: int
    bandwidth_free: int


def resources_of(answer: object) -> Resources:
    """Raises BadAnswer. https://tronprotocol.github.io/documentation-en/api/http/#walletgetaccountresource"""
    fields = mapping(answer)

    def left(limit: str, used: str) -> int:
        return max(0, number(fields, limit, SUN_MAX) - number(fields, used, SUN_MAX))

    return Resources(left("EnergyLimit", "EnergyUsed"), left("NetLimit", "NetUsed"), left("freeNetLimit", "freeNetUsed"))


@dataclass(frozen=True, slots=True)
class Prices:
    """What the network's parameters ask, in sun."""

    energy: int
    byte: int
    account: int
    account_bandwidth: int
    fee_limit_max: int


def prices_of(answer: object) -> Prices:
    """Raises BadAnswer for a price beyond any that is believed. https://tronscan.org/#/sr/committee"""
    found = {str(item.get("key")): item for item in items(mapping(answer).get("chainParameter"), 500)}

    def price(key: str, most: int) -> int:
        if key not in found:
            raise BadAnswer(f"no chain parameter {key}")
        return number(found[key], "value", most)

    return Prices(
        energy=price("getEnergyFee", 5_000),
        byte=price("getTransactionFee", 20_000),
        account=price("getCreateNewAccountFeeInSystemContract", 10_000_000),
        account_bandwidth=price("getCreateAccountFee", 10_000_000),
        fee_limit_max=price("getMaxFeeLimit", 10**12) if "getMaxFeeLimit" in found else 10**9,
    )


def account_kind_of(answer: object, address: str) -> Literal["new", "plain", "contract"]:
    """Whether an account is there, and what it is. Raises BadAnswer."""
    fields = mapping(answer)
    if not fields:
        return "new"
    if str(fields.get("address", "")).lower() != codec.account_hex(address):
        raise BadAnswer("another account")
    return "contract" if fields.get("type") == "Contract" else "plain"


def balance_of(answer: object, address: str) -> int:
    """TRX of an account in sun; 0 of one that is not there. Raises BadAnswer."""
    return 0 if account_kind_of(answer, address) == "new" else number(mapping(answer), "balance", SUN_MAX)
