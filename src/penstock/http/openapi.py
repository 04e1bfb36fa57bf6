"""Our own OpenAPI 3.1 description of the merchant API, served at /openapi.json and used to test it.

It describes what is accepted and answered here, tolerances included (spec 14): where a client of the vendor sends null, "" or a number
instead of a string and is understood, the schema says so. The signature cannot be said in OpenAPI; the three headers and how
Sign is made stand in the security schemes.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.core.errors import Problem
from penstock.http.resources import TRANSACTION_TYPES, WEBHOOK_RESULTS

Schema = dict[str, Any]

_PLAIN: Final = r"^[0-9]+(\.[0-9]+)?$"
_UUID: Final = "8e5741cf-6e51-4892-9d04-3d40e1dd0128"
_ORDER_ID: Final = r"^[0-9]{33}$"


def document() -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock merchant API",
            "version": "1.0",
            "description": (
                "Withdrawals in the wire format of CCPayment v1.0. The outcome stands in `code`: 10000 is success, everything else a failure, "
                "and both come with HTTP 200. Answers are signed like requests, but for those to callers whose own signature was wrong."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"appid": [], "timestamp": [], "sign": []}],
        "paths": {**_calls(), **_operations()},
        "components": {
            "securitySchemes": {
                "appid": _header_key("Appid", "The merchant's app id."),
                "timestamp": _header_key("Timestamp", "Unix seconds, within 120 seconds of the server's clock."),
                "sign": _header_key("Sign", "Hex SHA-256 of app id, app secret, timestamp and the raw body, one after the other."),
            },
            "schemas": {"Failure": _failure()},
            "headers": {
                "Appid": {"description": "The caller's app id.", "schema": {"type": "string"}},
                "Timestamp": {"description": "Unix seconds.", "schema": {"type": "string", "pattern": "^[0-9]{10}$"}},
                "Sign": {"description": "Over the exact bytes of the answer.", "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            },
        },
    }


# ----------------------------------------------------------------------------------------------------------------- pieces


def _header_key(name: str, description: str) -> Schema:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _amount(description: str) -> Schema:
    return _text(description, pattern=_PLAIN)


def _optional(description: str, kinds: tuple[str, ...] = ("string", "null"), **more: Any) -> Schema:
    return {"type": list(kinds), "description": description, **more}


def _object(fields: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An answer's object: all fields there, unless told, and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in optional],
        "additionalProperties": False,
    }


def _list_of(item: Schema) -> Schema:
    return _object({"list": {"type": "array", "items": item}})


def _failure() -> Schema:
    return _object(
        {
            "code": {"type": "integer", "enum": sorted({problem.code for problem in Problem})},
            "reason": {"type": "string", "enum": sorted({problem.reason for problem in Problem})},
            "msg": _text("What is wrong, and what would be right.", minLength=1),
            "data": {"type": "null"},
        }
    )


def _success(data: Schema) -> Schema:
    return _object({"code": {"const": 10000}, "msg": {"const": "success"}, "data": data})


def _call(summary: str, data: Schema | None, fields: dict[str, Schema] | None = None, required: tuple[str, ...] = ()) -> Schema:
    """One POST. Without required fields the body may be missing too."""
    failure = {"$ref": "#/components/schemas/Failure"}
    answer = failure if data is None else {"oneOf": [_success(data), failure]}
    body: Schema = {"type": "object", "properties": fields or {}}
    if required:
        body["required"] = list(required)
    refused = {"content": {"application/json": {"schema": failure}}}
    return {
        "post": {
            "summary": summary,
            "operationId": summary.lower().replace(" ", "_"),
            "requestBody": {"required": bool(required), "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {
                    "description": "Success or failure, as `code` says.",
                    "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("Appid", "Timestamp", "Sign")},
                    "content": {"application/json": {"schema": answer}},
                },
                "408": {"description": "The body did not arrive in time.", **refused},
                "413": {"description": "The body has more than 64 KiB.", **refused},
                "503": {"description": "Credentials cannot be looked up now.", **refused},
            },
        }
    }


# ------------------------------------------------------------------------------------------------------------------ calls


def _calls() -> dict[str, Schema]:
    calls = {
        "/withdraw": _withdraw(),
        "/bill/info": _bill_info(),
        "/check/user": _check_user(),
        "/assets": _assets(),
        "/network/fee": _network_fee(),
        "/token/rate": _token_rate(),
        "/coin/all": _call("All coins", _list_of(_coin())),
        "/get/network/height/info": _call("Block heights", {"type": "array", "items": _height()}),
        "/webhook/resend": _resend(),
        "/support/token": _call("Supported coins", _list_of(_object({**_coin_fields(), "token_id": _text("The coin's id.")}))),
        "/token/chain": _call(
            "Networks of a coin",
            _list_of(_object({**_token_fields(), "type_symbol": _text("As network.")})),
            {"token_id": _token_id()},
            ("token_id",),
        ),
        "/concise/url/get": _call("Hosted checkout", None),
        "/bill/create": _call("Native checkout", None),
        "/payment/address/get": _call("Permanent deposit address", None),
    }
    for path in ("/support/token", "/token/chain"):
        calls[path]["post"]["deprecated"] = True
    return {f"/ccpayment/v1{path}": call for path, call in calls.items()}


def _token_id() -> Schema:
    return _text("A token's id from coin/all.", maxLength=64, examples=[_UUID])


def _withdraw() -> Schema:
    text_or_number = {"type": ["string", "integer"]}
    fields = {
        "merchant_order_id": {
            **text_or_number,
            "description": "Your own id, unique for ever.",
            "minLength": 1,
            "maxLength": 64,
            "minimum": 0,
        },
        "address": {
            **text_or_number,
            "description": "An internal account's id or e-mail, or an address on the token's network.",
            "minLength": 1,
            "maxLength": 2048,
            "minimum": 0,
        },
        "token_id": _token_id(),
        "value": {"type": ["string", "number"], "description": "The amount.", "pattern": _PLAIN, "exclusiveMinimum": 0},
        "memo": _optional("Memo or tag.", ("string", "integer", "null"), maxLength=256),
        "merchant_pays_fee": _optional("Whether the fee is charged on top; otherwise it is taken out of value.", ("boolean", "null")),
    }
    return _call("Create a withdrawal", _object(_withdraw_answer()), fields, ("merchant_order_id", "address", "token_id", "value"))


def _withdraw_answer() -> dict[str, Schema]:
    return {
        "order_id": _text("Our id of the order.", pattern=_ORDER_ID),
        "record_id": _text("Our id of its transaction.", pattern=_ORDER_ID),
        "network_fee": _amount('In network_fee_crypto; "0" inside the house.'),
        "network_coin_id": _text("Coin of the fee."),
        "network_fee_crypto": _text("Symbol of that coin."),
        "network_symbol": _text("The same."),
        "network_fee_value": _amount("The fee in US dollars."),
        "net_receivable": _amount("What the receiver gets."),
    }


def _bill_info() -> Schema:
    ids = {"type": "array", "items": {"type": ["string", "integer"], "minimum": 0}, "minItems": 1, "maxItems": 100}
    place = {"chain": _text("Network."), "contract": _text("Contract, or chain id."), "crypto": _text("Coin.")}
    detail = {
        "merchant_order_id": _text("Your id."),
        "order_id": _text("Ours.", pattern=_ORDER_ID),
        **place,
        "order_amount": _amount("As requested."),
        "token_rate": _amount("US dollars a coin at acceptance."),
        "status": {"enum": ["Pending", "Processing", "Successful", "Failed"]},
        "created": {"type": "integer"},
    }
    trade = {
        "amount": _amount("What arrives."),
        **place,
        "service_fee": {"const": "0"},
        "network_fee": _amount("Charged."),
        "network_coin_id": _text("Coin of the fee."),
        "network_fee_crypto": _text("Its symbol."),
        "network_fee_value": _amount("In US dollars."),
        "txid": _text("Transaction hash, empty inside the house."),
        "pay_time": {"type": "integer"},
        "token_rate": _amount("As above."),
        "status": {"enum": ["Processing", "Successful", "Failed"]},
    }
    order = _object(
        {"order_detail": _object(detail), "trade_list": {"type": "array", "items": _object(trade), "minItems": 1, "maxItems": 1}}
    )
    fields = {"merchant_order_ids": {**ids, "description": "Your ids; unknown ones are left out of the answer."}}
    return _call("Order information", {"type": "array", "items": order}, fields, ("merchant_order_ids",))


def _check_user() -> Schema:
    answer = {"c_id": _text("The id."), "nickname": _text("Partly masked."), "nikename": _text("The same, as old clients read it.")}
    c_id = {"type": ["string", "integer"], "description": "An internal account's id.", "minLength": 1, "maxLength": 64, "minimum": 0}
    return _call("Check an account", _object(answer), {"c_id": c_id}, ("c_id",))


def _assets() -> Schema:
    names = ("coin_id", "token_id", "crypto", "name", "price", "logo")
    asset = {**{name: _text(name.replace("_", " ")) for name in names}, "value": _amount("Available balance.")}
    fields = {
        "coin_id": _optional("A coin's id; without it, all balances.", maxLength=64),
        "token_id": _optional("The same, as old clients send it.", maxLength=64),
    }
    return _call("Balances", _list_of(_object(asset)), fields)


def _network_fee() -> Schema:
    fields = {
        "token_id": _token_id(),
        "address": _optional("Where it would go; internal ones cost nothing.", maxLength=2048),
        "memo": _optional("Not used."),
    }
    answer = {"token_id": _text("The token."), "crypto": _text("Unit of the fee."), "fee": _amount("The fee.")}
    return _call("Network fee", _object(answer), fields, ("token_id",))


def _token_rate() -> Schema:
    fields = {
        "token_id": _token_id(),
        "amount": {"type": ["string", "number"], "description": "US dollars.", "pattern": _PLAIN, "exclusiveMinimum": 0},
    }
    answer = {"price": _amount("US dollars a coin."), "value": _amount("Coins for the amount, 16 decimals.")}
    return _call("Token rate", _object(answer), fields, ("token_id", "amount"))


def _coin_fields() -> dict[str, Schema]:
    return {
        "crypto": _text("Symbol."),
        "name": _text("Name."),
        "logo": _text("Address of a picture, or empty."),
        "min": _amount("Least amount."),
        "price": _amount("US dollars, 0 when unknown."),
    }


def _token_fields() -> dict[str, Schema]:
    names = ("token_id", "crypto", "logo", "name", "network", "chain", "contract", "chain_logo", "network_fee_crypto", "network_coin_id")
    return {name: _text(name.replace("_", " ")) for name in names}


def _coin() -> Schema:
    status = {"type": "integer", "enum": [1, 2, 3]}
    token = {**_token_fields(), "is_support_memo": {"type": "boolean"}, "status": status, "precision": {"type": "integer"}}
    return _object(
        {
            **_coin_fields(),
            "symbol": _text("As crypto."),
            "precision": {"type": "integer"},
            "coin_id": _text("The coin's id."),
            "status": status,
            "tokens": {"type": "array", "items": _object(token)},
        }
    )


def _height() -> Schema:
    number = {"type": "integer"}
    fields = {"chain": _text("Network."), "current_chain_height": number, "tx_confirm_block_num": number, "block_rate": number}
    return _object(fields, optional=("block_rate",))


def _resend() -> Schema:
    fields = {
        "start_timestamp": {"type": "integer", "description": "First second of the span.", "minimum": 1},
        "end_timestamp": _optional("The second after the span; one hour later by default.", ("integer", "null"), minimum=0),
        "webhook_result": {"enum": [*WEBHOOK_RESULTS, "", None], "description": "Which webhooks; Failed by default."},
        "transaction_type": {"enum": [*TRANSACTION_TYPES, "", None], "description": "Of which kind; All Type by default."},
    }
    return _call("Resend webhooks", _object({"resend_count": {"type": "integer", "minimum": 0}}), fields, ("start_timestamp",))


def _operations() -> dict[str, Schema]:
    def page(summary: str, content_type: str, schema: Schema, *, may_be_503: bool = False) -> Schema:
        answer = {"description": summary, "content": {content_type: {"schema": schema}}}
        responses = {"200": answer, **({"503": answer} if may_be_503 else {})}
        return {"get": {"summary": summary, "operationId": summary.lower().replace(" ", "_"), "security": [], "responses": responses}}

    texts = {"type": "array", "items": {"type": "string"}}
    ready = _object({"ready": {"type": "boolean"}, "reasons": texts, "warnings": texts})
    return {
        "/healthz": page("Is it alive", "application/json", _object({"status": {"const": "ok"}})),
        "/readyz": page("Is it ready", "application/json", ready, may_be_503=True),
        "/metrics": page("Prometheus metrics", "text/plain", {"type": "string"}),
        "/openapi.json": page("This description", "application/json", {"type": "object"}),
    }
