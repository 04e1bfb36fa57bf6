"""Blocks, transactions, receipts and accounts as java-tron's HTTP API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.devnet.tron import schema
from penstock.devnet.tron.blocks import Block, with_result
from penstock.devnet.tron.process import Receipt
from penstock.devnet.tron.resources import (
    ENERGY_TOTAL,
    ENERGY_WEIGHT,
    NET_TOTAL,
    NET_WEIGHT,
    SLOT_MS,
    SUN,
    WINDOW_SLOTS,
    energy_limit,
    net_limit,
    used_at,
)
from penstock.devnet.tron.state import Account, Usage
from penstock.devnet.tron.transaction import PREFIX, Transaction, keccak256
from penstock.devnet.tron.wire import to_json

ACTIVE_OPERATIONS: Final = bytes.fromhex("7fff1fc0033efb0f".ljust(64, "0"))
WINDOW_PRECISION: Final = 1_000


def transaction(message: Any, *, visible: bool) -> dict[str, Any]:
    """A transaction with its id, its contracts unpacked."""
    it = Transaction(message)
    found = to_json(message, visible=visible)
    found["txID"] = it.txid
    raw = found.setdefault("raw_data", {})
    raw["contract"] = [_contract(it, visible=visible)] if len(message.raw_data.contract) == 1 and it.content is not None else []
    found["raw_data_hex"] = message.raw_data.SerializeToString().hex()
    return found


def _contract(it: Transaction, *, visible: bool) -> dict[str, Any]:
    contract = it.data.contract[0]
    parameter = {"value": to_json(it.content, visible=visible), "type_url": contract.parameter.type_url}
    permission = {"Permission_id": contract.Permission_id} if contract.Permission_id > 0 else {}
    return {"parameter": parameter, "type": schema.CONTRACT_NAMES[contract.type], **permission}


def block(it: Block, *, visible: bool, detail: bool = True) -> dict[str, Any]:
    """A block; without `detail` its header alone."""
    header = schema.BlockHeader(raw_data=schema.HeaderRaw.FromString(it.header), witness_signature=it.signature)
    found: dict[str, Any] = {"blockID": it.id.hex(), "block_header": to_json(header, visible=visible)}
    if detail and it.receipts:
        found["transactions"] = [transaction(with_result(receipt), visible=visible) for receipt in it.receipts]
    return found


def info(within: Block, it: Receipt, *, visible: bool, logs: bool = True) -> dict[str, Any]:
    """What became of a transaction in its block."""
    message = schema.TransactionInfo(
        id=it.transaction.id,
        fee=it.fee,
        blockNumber=within.number,
        blockTimeStamp=within.time_ms,
        contractResult=[it.output],
        contract_address=PREFIX + it.contract if it.contract else b"",
    )
    receipt = message.receipt
    receipt.SetInParent()
    receipt.energy_usage, receipt.energy_fee, receipt.energy_usage_total = it.energy_usage, it.energy_fee, it.energy_total
    receipt.net_usage, receipt.net_fee, receipt.energy_penalty_total = it.net_usage, it.net_fee, it.penalty
    if it.contract:
        receipt.result = schema.CONTRACT_RESULTS[it.result]
    if it.result != "SUCCESS":
        message.result, message.resMessage = schema.FAILED, it.error.encode()
    for log in it.logs if logs else ():
        # A log names its contract without the prefix, but for people.
        message.log.add(address=PREFIX + log.address if visible else log.address, topics=log.topics, data=log.data)
    return to_json(message, visible=visible)


def account(address: bytes, it: Account, *, slot: int, genesis_ms: int, visible: bool) -> dict[str, Any]:
    """An account as of this slot."""
    own = schema.Account().owner_permission.__class__
    message = schema.Account(
        type=schema.CONTRACT_ACCOUNT if it.code else 0,
        address=PREFIX + address,
        balance=it.balance,
        net_usage=used_at(it.net, slot),
        create_time=it.created_ms,
        latest_opration_time=it.active_ms,
        free_net_usage=used_at(it.free, slot),
        latest_consume_time=_time(it.net, genesis_ms),
        latest_consume_free_time=_time(it.free, genesis_ms),
        net_window_size=WINDOW_SLOTS * WINDOW_PRECISION,
        net_window_optimized=True,
        delegated_frozenV2_balance_for_bandwidth=it.lent_net,
        acquired_delegated_frozenV2_balance_for_bandwidth=it.net_staked,
        asset_optimized=True,
    )
    energy = message.account_resource
    energy.energy_usage, energy.latest_consume_time_for_energy = used_at(it.energy, slot), _time(it.energy, genesis_ms)
    energy.energy_window_size, energy.energy_window_optimized = WINDOW_SLOTS * WINDOW_PRECISION, True
    energy.delegated_frozenV2_balance_for_energy = it.lent_energy
    energy.acquired_delegated_frozenV2_balance_for_energy = it.energy_staked
    if not it.code:
        keys = [{"address": PREFIX + address, "weight": 1}]
        message.owner_permission.CopyFrom(own(permission_name="owner", threshold=1, keys=keys))
        message.active_permission.add(type=2, id=2, permission_name="active", threshold=1, operations=ACTIVE_OPERATIONS, keys=keys)
    for number in sorted(schema.RESOURCES.values()):
        message.frozenV2.add(type=number)
    return to_json(message, visible=visible)


def _time(usage: Usage, genesis_ms: int) -> int:
    return genesis_ms + usage.slot * SLOT_MS


def net(it: Account, *, slot: int, free_limit: int) -> dict[str, Any]:
    """Its bandwidth."""
    message = schema.AccountNetMessage(TotalNetLimit=NET_TOTAL, TotalNetWeight=NET_WEIGHT, **_net(it, slot, free_limit))
    return to_json(message, visible=False)


def resources(it: Account, *, slot: int, free_limit: int) -> dict[str, Any]:
    """Its bandwidth and energy."""
    message = schema.AccountResourceMessage(
        TotalNetLimit=NET_TOTAL,
        TotalNetWeight=NET_WEIGHT,
        TotalTronPowerWeight=NET_WEIGHT + ENERGY_WEIGHT,
        EnergyUsed=used_at(it.energy, slot),
        EnergyLimit=energy_limit(it),
        TotalEnergyLimit=ENERGY_TOTAL,
        TotalEnergyWeight=ENERGY_WEIGHT,
        tronPowerLimit=(it.lent_net + it.lent_energy) // SUN,
        **_net(it, slot, free_limit),
    )
    return to_json(message, visible=False)


def _net(it: Account, slot: int, free_limit: int) -> dict[str, int]:
    return {
        "freeNetUsed": used_at(it.free, slot),
        "freeNetLimit": free_limit,
        "NetUsed": used_at(it.net, slot),
        "NetLimit": net_limit(it),
    }


def contract(address: bytes, it: Account, *, owner: bytes, name: str, visible: bool) -> dict[str, Any]:
    """A token's contract. The code that deployed it never was: its runtime code stands there."""
    message = schema.SmartContract(
        origin_address=PREFIX + owner,
        contract_address=PREFIX + address,
        bytecode=it.code,
        consume_user_resource_percent=100,
        name=name,
        origin_energy_limit=10_000_000,
        code_hash=keccak256(it.code),
    )
    for entry in _ABI:
        message.abi.entrys.add(**entry)
    return to_json(message, visible=visible)


_VIEW: Final = {"constant": True, "type": 2, "stateMutability": 2}
_ABI: Final[tuple[Mapping[str, Any], ...]] = (
    {**_VIEW, "name": "decimals", "outputs": [{"type": "uint8"}]},
    {**_VIEW, "name": "symbol", "outputs": [{"type": "string"}]},
    {**_VIEW, "name": "balanceOf", "inputs": [{"type": "address"}], "outputs": [{"type": "uint256"}]},
    {
        "name": "transfer",
        "inputs": [{"name": "to", "type": "address"}, {"name": "value", "type": "uint256"}],
        "outputs": [{"type": "bool"}],
        "type": 2,
        "stateMutability": 3,
    },
    {
        "name": "Transfer",
        "inputs": [
            {"indexed": True, "name": "from", "type": "address"},
            {"indexed": True, "name": "to", "type": "address"},
            {"name": "value", "type": "uint256"},
        ],
        "type": 3,
    },
)
