"""The protobuf messages that nodes of TRON read and print, by the field numbers of the protocol's published description.

https://github.com/tronprotocol/protocol/blob/master/core/Tron.proto and api/api.proto, core/contract/*.proto beside it. What this file
leaves out of a message stays an unknown field: kept, hashed, and not printed, as a node of an older version would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "protocol"

_ENUMS: Final[Mapping[str, str]] = {
    "ContractType": "AccountCreateContract=0 TransferContract=1 TransferAssetContract=2 VoteWitnessContract=4 WitnessCreateContract=5 "
    "AssetIssueContract=6 AccountUpdateContract=10 FreezeBalanceContract=11 UnfreezeBalanceContract=12 WithdrawBalanceContract=13 "
    "CreateSmartContract=30 TriggerSmartContract=31 AccountPermissionUpdateContract=46 FreezeBalanceV2Contract=54 "
    "UnfreezeBalanceV2Contract=55 WithdrawExpireUnfreezeContract=56 DelegateResourceContract=57 UnDelegateResourceContract=58",
    "contractResult": "DEFAULT=0 SUCCESS=1 REVERT=2 BAD_JUMP_DESTINATION=3 OUT_OF_MEMORY=4 PRECOMPILED_CONTRACT=5 STACK_TOO_SMALL=6 "
    "STACK_TOO_LARGE=7 ILLEGAL_OPERATION=8 STACK_OVERFLOW=9 OUT_OF_ENERGY=10 OUT_OF_TIME=11 JVM_STACK_OVER_FLOW=12 UNKNOWN=13 "
    "TRANSFER_FAILED=14 INVALID_CODE=15",
    "response_code": "SUCCESS=0 SIGERROR=1 CONTRACT_VALIDATE_ERROR=2 CONTRACT_EXE_ERROR=3 BANDWITH_ERROR=4 DUP_TRANSACTION_ERROR=5 "
    "TAPOS_ERROR=6 TOO_BIG_TRANSACTION_ERROR=7 TRANSACTION_EXPIRATION_ERROR=8 SERVER_BUSY=9 NO_CONNECTION=10 "
    "NOT_ENOUGH_EFFECTIVE_CONNECTION=11 BLOCK_UNSOLIDIFIED=12 OTHER_ERROR=20",
    "code": "SUCESS=0 FAILED=1",  # so spelt in the protocol
    "AccountType": "Normal=0 AssetIssue=1 Contract=2",
    "ResourceCode": "BANDWIDTH=0 ENERGY=1 TRON_POWER=2",
    "PermissionType": "Owner=0 Witness=1 Active=2",
    "EntryType": "UnknownEntryType=0 Constructor=1 Function=2 Event=3",
    "StateMutabilityType": "UnknownMutabilityType=0 Pure=1 View=2 Nonpayable=3 Payable=4",
}

_MESSAGES: Final[Mapping[str, str]] = {
    "Any": "type_url:string=1 value:bytes=2",
    "TransferContract": "owner_address:bytes=1 to_address:bytes=2 amount:int64=3",
    "TriggerSmartContract": "owner_address:bytes=1 contract_address:bytes=2 call_value:int64=3 data:bytes=4 call_token_value:int64=5 "
    "token_id:int64=6",
    "DelegateResourceContract": "owner_address:bytes=1 resource:ResourceCode=2 balance:int64=3 receiver_address:bytes=4 lock:bool=5 "
    "lock_period:int64=6",
    "UnDelegateResourceContract": "owner_address:bytes=1 resource:ResourceCode=2 balance:int64=3 receiver_address:bytes=4",
    "Contract": "type:ContractType=1 parameter:Any=2 provider:bytes=3 ContractName:bytes=4 Permission_id:int32=5",
    "Result": "fee:int64=1 ret:code=2 contractRet:contractResult=3",
    "raw": "ref_block_bytes:bytes=1 ref_block_num:int64=3 ref_block_hash:bytes=4 expiration:int64=8 data:bytes=10 contract:*Contract=11 "
    "scripts:bytes=12 timestamp:int64=14 fee_limit:int64=18",
    "Transaction": "raw_data:raw=1 signature:*bytes=2 ret:*Result=5",
    "ResourceReceipt": "energy_usage:int64=1 energy_fee:int64=2 origin_energy_usage:int64=3 energy_usage_total:int64=4 net_usage:int64=5 "
    "net_fee:int64=6 result:contractResult=7 energy_penalty_total:int64=8",
    "Log": "address:bytes=1 topics:*bytes=2 data:bytes=3",
    "TransactionInfo": "id:bytes=1 fee:int64=2 blockNumber:int64=3 blockTimeStamp:int64=4 contractResult:*bytes=5 contract_address:bytes=6 "
    "receipt:ResourceReceipt=7 log:*Log=8 result:code=9 resMessage:bytes=10",
    "HeaderRaw": "timestamp:int64=1 txTrieRoot:bytes=2 parentHash:bytes=3 number:int64=7 witness_id:int64=8 witness_address:bytes=9 "
    "version:int32=10",
    "BlockHeader": "raw_data:HeaderRaw=1 witness_signature:bytes=2",
    "Block": "transactions:*Transaction=1 block_header:BlockHeader=2",
    "Key": "address:bytes=1 weight:int64=2",
    "Permission": "type:PermissionType=1 id:int32=2 permission_name:string=3 threshold:int64=4 operations:bytes=6 keys:*Key=7",
    "FreezeV2": "type:ResourceCode=1 amount:int64=2",
    "AccountResource": "energy_usage:int64=1 latest_consume_time_for_energy:int64=3 energy_window_size:int64=9 "
    "delegated_frozenV2_balance_for_energy:int64=10 acquired_delegated_frozenV2_balance_for_energy:int64=11 energy_window_optimized:bool=12",
    "Account": "type:AccountType=2 address:bytes=3 balance:int64=4 net_usage:int64=8 create_time:int64=9 latest_opration_time:int64=10 "
    "free_net_usage:int64=19 latest_consume_time:int64=21 latest_consume_free_time:int64=22 net_window_size:int64=24 "
    "net_window_optimized:bool=25 account_resource:AccountResource=26 owner_permission:Permission=31 active_permission:*Permission=33 "
    "frozenV2:*FreezeV2=34 delegated_frozenV2_balance_for_bandwidth:int64=36 acquired_delegated_frozenV2_balance_for_bandwidth:int64=37 "
    "asset_optimized:bool=60",
    "AccountNetMessage": "freeNetUsed:int64=1 freeNetLimit:int64=2 NetUsed:int64=3 NetLimit:int64=4 TotalNetLimit:int64=7 "
    "TotalNetWeight:int64=8",
    "AccountResourceMessage": "freeNetUsed:int64=1 freeNetLimit:int64=2 NetUsed:int64=3 NetLimit:int64=4 TotalNetLimit:int64=7 "
    "TotalNetWeight:int64=8 TotalTronPowerWeight:int64=9 tronPowerUsed:int64=10 tronPowerLimit:int64=11 EnergyUsed:int64=13 "
    "EnergyLimit:int64=14 TotalEnergyLimit:int64=15 TotalEnergyWeight:int64=16",
    "Return": "result:bool=1 code:response_code=2 message:bytes=3",
    "TransactionExtention": "txid:bytes=2 constant_result:*bytes=3 result:Return=4 energy_used:int64=5 logs:*Log=6 energy_penalty:int64=8",
    "EstimateEnergyMessage": "result:Return=1 energy_required:int64=2",
    "Param": "indexed:bool=1 name:string=2 type:string=3",
    "Entry": "constant:bool=2 name:string=3 inputs:*Param=4 outputs:*Param=5 type:EntryType=6 stateMutability:StateMutabilityType=8",
    "ABI": "entrys:*Entry=1",
    "SmartContract": "origin_address:bytes=1 contract_address:bytes=2 abi:ABI=3 bytecode:bytes=4 call_value:int64=5 "
    "consume_user_resource_percent:int64=6 name:string=7 origin_energy_limit:int64=8 code_hash:bytes=9 trx_hash:bytes=10 version:int32=11",
    "ChainParameter": "key:string=1 value:int64=2",
    "ChainParameters": "chainParameter:*ChainParameter=1",
    "TransactionIdList": "txId:*string=1",
}
"""Message -> its fields as name:type=number; * for repeated, an enum or another message by its name."""

_F: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {"bytes": _F.TYPE_BYTES, "string": _F.TYPE_STRING, "int64": _F.TYPE_INT64, "int32": _F.TYPE_INT32, "bool": _F.TYPE_BOOL}


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="penstock/devnet/tron.proto", package=_PACKAGE, syntax="proto3")
    for name, values in _ENUMS.items():
        # Values of one package must differ by name, so each enum stands in a message of its own name.
        enum = file.message_type.add(name=f"_{name}").enum_type.add(name=name)
        for value in values.split():
            label, _, number = value.partition("=")
            enum.value.add(name=label, number=int(number))
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            label, _, rest = field.partition(":")
            kind, _, number = rest.partition("=")
            _add_field(message, label, kind, int(number))
    return file


def _add_field(message: Any, name: str, kind: str, number: int) -> None:
    label = _F.LABEL_REPEATED if kind.startswith("*") else _F.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    it = message.field.add(name=name, number=number, label=label)
    if kind in _SCALARS:
        it.type = _SCALARS[kind]
    elif kind in _ENUMS:
        it.type, it.type_name = _F.TYPE_ENUM, f".{_PACKAGE}._{kind}.{kind}"
    else:
        it.type, it.type_name = _F.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def _numbers(name: str) -> Mapping[str, int]:
    enum = _POOL.FindEnumTypeByName(f"{_PACKAGE}._{name}.{name}")
    return {value.name: value.number for value in enum.values}


Account: Final = _class("Account")
AccountNetMessage: Final = _class("AccountNetMessage")
AccountResourceMessage: Final = _class("AccountResourceMessage")
Block: Final = _class("Block")
BlockHeader: Final = _class("BlockHeader")
ChainParameters: Final = _class("ChainParameters")
EstimateEnergyMessage: Final = _class("EstimateEnergyMessage")
HeaderRaw: Final = _class("HeaderRaw")
Raw: Final = _class("raw")
Return: Final = _class("Return")
SmartContract: Final = _class("SmartContract")
Transaction: Final = _class("Transaction")
TransactionExtention: Final = _class("TransactionExtention")
TransactionIdList: Final = _class("TransactionIdList")
TransactionInfo: Final = _class("TransactionInfo")
TriggerSmartContract: Final = _class("TriggerSmartContract")

CONTRACTS: Final[Mapping[int, Any]] = {number: _class(name) for name, number in _numbers("ContractType").items() if name in _MESSAGES}
"""Message of each type of contract that a box runs, by the type's number."""

CONTRACT_TYPES: Final = _numbers("ContractType")
CONTRACT_NAMES: Final = {number: name for name, number in CONTRACT_TYPES.items()}
CONTRACT_RESULTS: Final = _numbers("contractResult")
RESOURCES: Final = _numbers("ResourceCode")
RESPONSE_CODES: Final = _numbers("response_code")
FAILED: Final = _numbers("code")["FAILED"]
CONTRACT_ACCOUNT: Final = _numbers("AccountType")["Contract"]
