"""JSON-RPC over HTTP as Bitcoin Core speaks it: 1.0 (errors with HTTP 500, 404, 400) and 2.0 (HTTP 200), single and in batches.

https://github.com/bitcoin/bitcoin/blob/29.x/doc/JSON-RPC-interface.md, src/httprpc.cpp, src/rpc/request.cpp
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.devnet.box import Response

BATCH_MAX: Final = 1_000

MISC_ERROR: Final = -1
TYPE_ERROR: Final = -3
INVALID_ADDRESS_OR_KEY: Final = -5
INVALID_PARAMETER: Final = -8
DESERIALIZATION_ERROR: Final = -22
VERIFY_ERROR: Final = -25
VERIFY_REJECTED: Final = -26
VERIFY_ALREADY_IN_UTXO_SET: Final = -27
WALLET_ERROR: Final = -4
WALLET_NOT_FOUND: Final = -18
WALLET_NOT_SPECIFIED: Final = -19
WALLET_ALREADY_LOADED: Final = -35
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
PARSE_ERROR: Final = -32700
_AMOUNT: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,20}))?(?:[eE]([+-]?[0-9]{1,2}))?", re.ASCII)

Function = Callable[..., Any]
Call = Callable[[str, Any], Any]
"""Method and parameters to its result. Raises RpcError."""


class RpcError(Exception):
    """An answer of kind error, with Core's number and words (src/rpc/protocol.h)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Number(str):
    """A number that goes onto the wire exactly as it is written here."""

    __slots__ = ()


def btc(units: int) -> Number:
    """Satoshis as Core writes amounts: bitcoins with eight decimals."""
    return Number(f"{'-' if units < 0 else ''}{abs(units) // 10**8}.{abs(units) % 10**8:08d}")


def units_of(value: Any) -> int:
    """Satoshis of an amount in bitcoins, given as number or text. Raises RpcError as Core's AmountFromValue does."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RpcError(TYPE_ERROR, "Amount is not a number or string")
    match = _AMOUNT.fullmatch(str(value))
    if match is None:
        raise RpcError(TYPE_ERROR, "Invalid amount")
    decimals = match[2] or ""
    shift = 8 - len(decimals) + int(match[3] or 0)
    factor: int = 10 ** abs(shift)
    number = int(match[1] + decimals)
    units, rest = (number * factor, 0) if shift >= 0 else divmod(number, factor)
    if rest:
        raise RpcError(TYPE_ERROR, "Invalid amount")
    if units > 21_000_000 * 10**8:
        raise RpcError(TYPE_ERROR, "Amount out of range")
    return units


def encode(value: Any) -> str:
    """JSON text, in which every `Number` stands as written."""
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{encode(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(encode, value)) + "]"
        case None | bool() | int() | str():
            return json.dumps(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no place in an answer")


def answer(body: bytes, call: Call) -> Response:
    """The answer to one HTTP body."""
    try:
        request = json.loads(body, parse_float=str)
    except (ValueError, RecursionError):
        return _error(PARSE_ERROR, "Parse error", None)
    if isinstance(request, dict):
        return _single(request, call)
    if not isinstance(request, list) or len(request) > BATCH_MAX:
        return _error(PARSE_ERROR, "Top-level object parse error", None)
    answers = [_member(one, call) for one in request]
    told = [one for one in answers if one is not None]
    if not told and request:
        return Response(b"", 204)
    return _response(told)


def _single(request: dict[str, Any], call: Call) -> Response:
    second = request.get("jsonrpc") == "2.0"
    try:
        result = _run(request, call)
    except RpcError as error:
        if not second:
            return _error(error.code, error.message, request.get("id"))
        return Response(b"", 204) if "id" not in request else _response(_second({"error": _words(error)}, request))
    if second:
        return Response(b"", 204) if "id" not in request else _response(_second({"result": result}, request))
    return _response({"result": result, "error": None, "id": request.get("id")})


def _member(request: Any, call: Call) -> dict[str, Any] | None:
    """The answer to one request of a batch; None where none is wanted."""
    if not isinstance(request, dict):
        return {"result": None, "error": {"code": INVALID_REQUEST, "message": "Invalid Request object"}, "id": None}
    second = request.get("jsonrpc") == "2.0"
    try:
        told: dict[str, Any] = {"result": _run(request, call), "error": None}
    except RpcError as error:
        told = {"result": None, "error": _words(error)}
    if not second:
        return {**told, "id": request.get("id")}
    if "id" not in request:
        return None
    return _second({key: value for key, value in told.items() if (key == "error") == (told["error"] is not None)}, request)


def _run(request: dict[str, Any], call: Call) -> Any:
    version = request.get("jsonrpc", "1.0")
    if not isinstance(version, str):
        raise RpcError(INVALID_REQUEST, "jsonrpc field must be a string")
    if version not in {"1.0", "1.1", "2.0"}:
        raise RpcError(INVALID_REQUEST, "JSON-RPC version not supported")
    method, params = request.get("method"), request.get("params")
    if method is None:
        raise RpcError(INVALID_REQUEST, "Missing method")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "Method must be a string")
    if not isinstance(params, list | dict | None):
        raise RpcError(INVALID_REQUEST, "Params must be an array or object")
    return call(method, [] if params is None else params)


def _words(error: RpcError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message}


def _second(told: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **told, "id": request["id"]}


def _error(code: int, message: str, call_id: Any) -> Response:
    status = {INVALID_REQUEST: 400, METHOD_NOT_FOUND: 404}.get(code, 500)
    return _response({"result": None, "error": {"code": code, "message": message}, "id": call_id}, status)


def _response(content: Any, status: int = 200) -> Response:
    return Response(encode(content).encode() + b"\n", status)


def invoke(method: str, functions: Mapping[str, Function], params: Any) -> Any:
    """Call a method with parameters by position or by name; a missing, unknown or surplus one is an error. Raises RpcError.

    The names of a function's parameters are those of Core's documentation. null is as good as nothing given.
    """
    function = functions.get(method)
    if function is None:
        raise RpcError(METHOD_NOT_FOUND, "Method not found")
    names = list(inspect.signature(function).parameters.values())
    if isinstance(params, dict):
        named = dict(params)
        given = named.pop("args", [])
        if unknown := sorted(set(named) - {one.name for one in names[len(given) :]}):
            raise RpcError(INVALID_PARAMETER, f"Unknown named parameter {unknown[0]}")
    else:
        given, named = params, {}
    if len(given) > len(names):
        raise RpcError(MISC_ERROR, usage(method, function))
    named = {
        key: value for key, value in {**dict(zip((one.name for one in names), given, strict=False)), **named}.items() if value is not None
    }
    if any(one.default is one.empty and one.name not in named for one in names):
        raise RpcError(MISC_ERROR, usage(method, function))
    return function(**named)


def usage(method: str, function: Function) -> str:
    """The first line of a method's help."""
    parameters = inspect.signature(function).parameters.values()
    words = [method, *(f'"{one.name}"' if one.default is one.empty else f"( {one.name} )" for one in parameters)]
    return " ".join(words)


# Parameters


def whole(value: Any, *, least: int = -(2**31), most: int = 2**31 - 1) -> int:
    """A whole number. Raises RpcError."""
    if type(value) is not int:
        raise _type(value, "number")
    if not least <= value <= most:
        raise RpcError(INVALID_PARAMETER, f"a number from {least} to {most} is due")
    return value


def flag(value: Any) -> bool:
    """True or false. Raises RpcError."""
    if not isinstance(value, bool):
        raise _type(value, "bool")
    return value


def text(value: Any) -> str:
    """A text. Raises RpcError."""
    if not isinstance(value, str):
        raise _type(value, "string")
    return value


def listed(value: Any) -> list[Any]:
    """A list. Raises RpcError."""
    if not isinstance(value, list):
        raise _type(value, "array")
    return value


def mapped(value: Any) -> dict[str, Any]:
    """An object. Raises RpcError."""
    if not isinstance(value, dict):
        raise _type(value, "object")
    return value


def hash_of(value: Any, name: str) -> str:
    """A hash of 32 bytes as hexadecimal text. Raises RpcError."""
    given = text(value)
    if len(given) != 64:
        raise RpcError(INVALID_PARAMETER, f"{name} must be of length 64 (not {len(given)}, for '{given}')")
    if re.fullmatch(r"[0-9a-fA-F]{64}", given, re.ASCII) is None:
        raise RpcError(INVALID_PARAMETER, f"{name} must be hexadecimal string (not '{given}')")
    return given.lower()


def _type(value: Any, wanted: str) -> RpcError:
    kinds: dict[type, str] = {bool: "bool", int: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return RpcError(TYPE_ERROR, f"JSON value of type {kinds.get(type(value), 'unknown')} is not of expected type {wanted}")
