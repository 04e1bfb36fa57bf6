"""JSON-RPC as the sink nodes speak it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

NOT_FOUND: Final = -5
"""As Bitcoin Core says it."""
METHOD_UNKNOWN: Final = -32601
"""https://www.jsonrpc.org/specification#error_object"""
Methods = Mapping[str, Callable[[list[Any]], Any]]


class Sink(Protocol):
    """A node that executes nothing and believes everything; its blocks are final when they are made."""

    methods: Methods

    def mine(self) -> None:
        """The next block: all that waits."""
        ...

    def told(self) -> dict[str, Any]:
        """How many transfers are in blocks, and of how many units."""
        ...


def answer(methods: Methods, body: bytes) -> bytes:
    """To one call or a batch."""
    asked = json.loads(body)
    said = [_one(methods, call) for call in asked] if isinstance(asked, list) else _one(methods, asked)
    return json.dumps(said, separators=(",", ":")).encode()


def _one(methods: Methods, call: dict[str, Any]) -> dict[str, Any]:
    head = {"jsonrpc": "2.0", "id": call["id"]}
    method = methods.get(call["method"])
    if method is None:
        return head | {"error": {"code": METHOD_UNKNOWN, "message": f"no {call['method']} here"}}
    try:
        return head | {"result": method(call["params"])}
    except LookupError:
        return head | {"error": {"code": NOT_FOUND, "message": "there is no such thing"}}
