"""What the methods of a node share: parameters and refusals.

https://xrpl.org/docs/references/http-websocket-apis/api-conventions/error-formatting
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from xrpl.core import addresscodec

Params = Mapping[str, Any]

_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
LIMIT_MIN: Final = 10
LIMIT_DEFAULT: Final = 200
LIMIT_MAX: Final = 400


class Refused(Exception):
    """An answer of kind error: its token and, where it has them, its number and words."""

    def __init__(self, token: str, code: int | None = None, words: str = "", **more: Any) -> None:
        super().__init__(token)
        said = {} if code is None else {"error_code": code, "error_message": words}
        self.answer: dict[str, Any] = {"error": token, **said, **more}


def invalid(words: str) -> Refused:
    """A parameter is wrong."""
    return Refused("invalidParams", 31, words)


def address_in(params: Params, name: str) -> str:
    """A classic address. Raises Refused."""
    text = params.get(name)
    if text is None:
        raise invalid(f"Missing field '{name}'.")
    if not isinstance(text, str):
        raise invalid(f"Invalid field '{name}'.")
    if not addresscodec.is_valid_classic_address(text):
        raise Refused("actMalformed", 35, "Account malformed.")
    return text


def number_in(params: Params, name: str, default: int) -> int:
    """A whole number. Raises Refused."""
    value = params.get(name, default)
    if type(value) is not int:
        raise invalid(f"Invalid field '{name}'.")
    return value


def limit_in(params: Params) -> int:
    """How many rows an answer may have. Raises Refused."""
    value = number_in(params, "limit", LIMIT_DEFAULT)
    if value <= 0:
        raise invalid("Invalid field 'limit'.")
    return min(max(value, LIMIT_MIN), LIMIT_MAX)


def hash_of(params: Params, name: str, words: str) -> str:
    """A hash in upper case. Raises Refused."""
    value = params.get(name)
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise invalid(words)
    return value.upper()
