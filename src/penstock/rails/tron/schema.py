"""The few protobuf messages of TRON that a transfer is made of, with the field numbers of the protocol's documents.

https://github.com/tronprotocol/documentation/blob/master/English_Documentation/TRON_Virtual_Machine/TRC10_TRX_TransferContract.md
https://developers.tron.network/docs/tron-protocol-transaction

They live in a pool of their own, so that a process may hold any other description of the same names beside them. Whatever a field here
does not know stays an unknown field, which `codec.decode` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F: Final = descriptor_pb2.FieldDescriptorProto
_BYTES: Final = _F.TYPE_BYTES
_INT32: Final = _F.TYPE_INT32
_INT64: Final = _F.TYPE_INT64
_STRING: Final = _F.TYPE_STRING

_MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, int | str]]]] = {
    # Name on the wire: google.protobuf.Any; here under our own package, since only its bytes matter.
    "Any": {"type_url": (1, _STRING), "value": (2, _BYTES)},
    "TransferContract": {"owner_address": (1, _BYTES), "to_address": (2, _BYTES), "amount": (3, _INT64)},
    "TriggerSmartContract": {
        "owner_address": (1, _BYTES),
        "contract_address": (2, _BYTES),
        "call_value": (3, _INT64),
        "data": (4, _BYTES),
    },
    "Contract": {"type": (1, _INT32), "parameter": (2, "Any")},
    "Raw": {
        "ref_block_bytes": (1, _BYTES),
        "ref_block_hash": (4, _BYTES),
        "expiration": (8, _INT64),
        "contract": (11, "*Contract"),
        "timestamp": (14, _INT64),
        "fee_limit": (18, _INT64),
    },
    "Transaction": {"raw_data": (1, "Raw"), "signature": (2, _BYTES)},
}
"""Message -> field -> number and type; another message by its name, with * where it repeats."""


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="penstock/tron.proto", package="penstock.tron", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            it = message.field.add(name=field, number=number, label=_F.LABEL_OPTIONAL)
            if isinstance(kind, int):
                it.type = kind
            else:
                it.type, it.type_name = _F.TYPE_MESSAGE, f".penstock.tron.{kind.removeprefix('*')}"
                it.label = _F.LABEL_REPEATED if kind.startswith("*") else _F.LABEL_OPTIONAL
    return file


_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"penstock.tron.{name}"))


TransferContract: Final = _class("TransferContract")
TriggerSmartContract: Final = _class("TriggerSmartContract")
Raw: Final = _class("Raw")
Transaction: Final = _class("Transaction")
