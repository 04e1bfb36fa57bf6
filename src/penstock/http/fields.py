"""Reading the fields of a request: which types pass, what counts as not given (spec 14.8), and sentences for what does not.

Each sentence names the field, says what is wrong, and what would be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from penstock.core.errors import Problem, Refused
from penstock.core.money import LEDGER_DECIMALS, Inexact, MoneyError, parse_units
from penstock.core.party import Merchant
from penstock.http.ports import Limits, Ports
from penstock.http.strict_json import JsonNumber, JsonObject, JsonValue

SAFE_INTEGER_MAX: Final = 2**53 - 1
"""The largest integer that JavaScript holds exactly; a larger one may have lost digits before it came here (spec 16.7)."""

ID_CHARACTERS_MAX: Final = 64

_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)


class Call(NamedTuple):
    """One authenticated request on its way to a handler."""

    ports: Ports
    limits: Limits
    merchant: Merchant
    body: JsonObject
    signature: bytes
    monotonic: float


@dataclass(frozen=True, slots=True)
class Text:
    """A text field: its name, its length, what would be right; `numbers`: an integer below 2^53 passes as its digits."""

    name: str
    characters_max: int
    right: str
    numbers: bool = False

    def read(self, body: JsonObject) -> str | None:
        """The text exactly as given, None when it is not given. Raises Refused."""
        value = body.get(self.name)
        # What nearly every request has; the rest finds out what it is instead.
        if type(value) is str and 0 < len(value) <= self.characters_max and value.isprintable():
            return value
        match value:
            case None | "":
                return None
            case JsonNumber() if self.numbers:
                value = integer_text(value)
                if value is None:
                    refuse(f"{self.name} is not a whole number below 2^53: {self.right}.")
            case JsonNumber(text="0"):
                return None
            case str():
                pass
            case _:
                refuse(f"{self.name} must be a string, not {kind(value)}: {self.right}.")
        if len(value) > self.characters_max:
            refuse(f"{self.name} has {len(value)} characters, more than {self.characters_max}: {self.right}.")
        if not value.isprintable():
            refuse(f"{self.name} holds a character that cannot be printed: {self.right}.")
        return value

    def need(self, body: JsonObject) -> str:
        """The text exactly as given. Raises Refused, also when it is not given."""
        value = self.read(body)
        if value is None:
            refuse(f"{self.name} is missing: {self.right}.")
        return value


def amount(body: JsonObject, name: str, right: str) -> int:
    """A decimal above zero in 10^-18, from a string or from a number's source text (spec, section 10). Raises Refused."""
    value = body.get(name)
    if value is None or value == "":
        refuse(f"{name} is missing: {right}.")
    text = value.text if isinstance(value, JsonNumber) else value
    if not isinstance(text, str):
        refuse(f"{name} must be a string, not {kind(value)}: {right}.")
    try:
        units = parse_units(text, LEDGER_DECIMALS)
    except Inexact as error:
        raise Refused(Problem.COIN_PRECISION_LIMIT, f"{name} has more than {error.decimals} decimals, which no coin has.") from error
    except MoneyError as error:
        refuse(f"{name} is not a plain decimal number: {right}.", error)
    if units == 0:
        refuse(f"{name} must be greater than zero: {right}.")
    return units


def seconds(body: JsonObject, name: str, right: str) -> int | None:
    """Unix seconds as a number or its digits; null, "" and 0 are not given. Raises Refused."""
    value = body.get(name)
    match value:
        case None | "":
            return None
        case JsonNumber(text=text) | str(text) if _SECONDS.fullmatch(text):
            return int(text) or None
        case _:
            pass
    raise Refused(Problem.INVALID_ARGUMENT, f"{name} must be a number of Unix seconds: {right}.")


def choice(body: JsonObject, name: str, choices: tuple[str, ...]) -> str:
    """One of the texts, the first when it is not given. Raises Refused."""
    value = body.get(name)
    if value is None or value in ("", JsonNumber("0")):
        return choices[0]
    if not isinstance(value, str) or value not in choices:
        refuse(f"{name} must be one of {', '.join(choices)}.")
    return value


def integer_text(number: JsonNumber) -> str | None:
    """The digits of a whole number from 0 below 2^53, else None."""
    text = number.text
    return text if _DIGITS.fullmatch(text) and int(text) <= SAFE_INTEGER_MAX else None


def kind(value: JsonValue) -> str:
    """A JSON type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case JsonNumber():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def refuse(msg: str, cause: BaseException | None = None) -> NoReturn:
    """Say what is wrong with a field: 11000."""
    raise Refused(Problem.INVALID_ARGUMENT, msg) from cause


TOKEN_ID: Final = Text("token_id", ID_CHARACTERS_MAX, "give an id from /coin/all")
ADDRESS: Final = Text("address", 2048, "give an internal account's id or e-mail, or an address on the token's network", numbers=True)
