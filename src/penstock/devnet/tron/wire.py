"""Protobuf messages as java-tron's HTTP API writes and reads them in JSON. Pure.

What is not set is left out, enums are names, bytes are hexadecimal; with `visible` addresses are base58check and texts are texts.
https://tronprotocol.github.io/documentation-en/api/http/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import base58
from google.protobuf.descriptor import FieldDescriptor

_ADDRESSES: Final = frozenset(
    {
        "Account.address",
        "DelegateResourceContract.owner_address",
        "DelegateResourceContract.receiver_address",
        "HeaderRaw.witness_address",
        "Key.address",
        "Log.address",
        "SmartContract.contract_address",
        "SmartContract.origin_address",
        "TransactionInfo.contract_address",
        "TransferContract.owner_address",
        "TransferContract.to_address",
        "TriggerSmartContract.contract_address",
        "TriggerSmartContract.owner_address",
        "UnDelegateResourceContract.owner_address",
        "UnDelegateResourceContract.receiver_address",
    }
)
_TEXTS: Final = frozenset({"Return.message", "TransactionInfo.resMessage"})
_HEX: Final = re.compile(r"(?:0x)?(([0-9a-fA-F]{2})*)", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class Unparsable(ValueError):
    """JSON that is no such message, or a value that is none of its kind; the text names a class of java-tron, as its nodes do."""


def parse_error(text: str) -> Unparsable:
    """As JsonFormat complains."""
    return Unparsable(f"class org.tron.core.services.http.JsonFormat$ParseException : 1:1: {text}")


def to_json(message: Any, *, visible: bool) -> dict[str, Any]:
    """All fields that are set, in the order of their numbers."""
    return {
        field.name: [_value(field, item, visible) for item in value] if field.is_repeated else _value(field, value, visible)
        for field, value in message.ListFields()
    }


def _value(field: Any, value: Any, visible: bool) -> Any:  # noqa: FBT001
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json(value, visible=visible)
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return "UNRECOGNIZED" if known is None else known.name
    if field.type != FieldDescriptor.TYPE_BYTES:
        return value
    name = f"{field.containing_type.name}.{field.name}"
    if visible and name in _ADDRESSES:
        return base58.b58encode_check(value).decode("ascii")
    if visible and name in _TEXTS:
        return value.decode("utf-8", "replace")
    return value.hex()


def from_json(kind: Any, fields: object, *, visible: bool) -> Any:
    """A message of this class. Fields that it does not have are skipped, as a node does. Raises Unparsable."""
    if not isinstance(fields, dict):
        raise parse_error("Expected object")
    message = kind()
    known = message.DESCRIPTOR.fields_by_name
    for name, value in fields.items():
        if name not in known or value is None:
            continue
        field = known[name]
        if field.is_repeated:
            if not isinstance(value, list):
                raise parse_error(f"Expected [ for {name}")
            for item in value:
                _add(message, field, item, visible)
        else:
            _set(message, field, value, visible)
    return message


def _add(message: Any, field: Any, value: Any, visible: bool) -> None:  # noqa: FBT001
    items = getattr(message, field.name)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        item = items.add()
        item.CopyFrom(from_json(type(item), value, visible=visible))
    else:
        items.append(_scalar(field, value, visible))


def _set(message: Any, field: Any, value: Any, visible: bool) -> None:  # noqa: FBT001
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        inner = getattr(message, field.name)
        inner.CopyFrom(from_json(type(inner), value, visible=visible))
        inner.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, value, visible))


def _scalar(field: Any, value: Any, visible: bool) -> Any:  # noqa: FBT001
    match field.type:
        case FieldDescriptor.TYPE_BYTES:
            address = visible and f"{field.containing_type.name}.{field.name}" in _ADDRESSES
            return base58_bytes(value) if address else hex_bytes(value)
        case FieldDescriptor.TYPE_ENUM:
            found = field.enum_type.values_by_name.get(str(value))
            if found is None:
                raise parse_error(f"Enum type has no value named {str(value)[:40]}")
            return found.number
        case FieldDescriptor.TYPE_BOOL:
            return flag(value)
        case FieldDescriptor.TYPE_STRING:
            return str(value)
        case FieldDescriptor.TYPE_INT32:
            return number(value, bits=32)
        case _:
            return number(value)


def hex_bytes(value: object) -> bytes:
    """Bytes from hexadecimal text, with 0x or without. Raises Unparsable."""
    found = _HEX.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise parse_error("INVALID hex String")
    return bytes.fromhex(found[1])


def base58_bytes(value: object) -> bytes:
    """Bytes from base58check. Raises Unparsable."""
    try:
        return base58.b58decode_check(value if isinstance(value, str) else "")
    except ValueError as error:
        raise parse_error(f"INVALID base58 String, {error}") from error


def number(value: object, *, bits: int = 64) -> int:
    """A whole number, given as number or text. Raises Unparsable."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is not int or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise parse_error("Couldn't parse integer: For input string")
    return value


def flag(value: object) -> bool:
    """True or false, given so or as text; anything else is false, as Java has it."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def json_object(value: object) -> Mapping[str, Any]:
    """A JSON object. Raises Unparsable."""
    if not isinstance(value, dict):
        raise Unparsable("class org.tron.json.JSONException : not a JSON object")
    return value
