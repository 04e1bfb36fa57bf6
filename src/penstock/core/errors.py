"""The one catalogue of what the merchant API answers when it refuses (spec, section 8).

    Refused
      `problem`: a row of `Problem` (code, reason, when)
      `msg`: one plain sentence: what is wrong, and what would be right

docs/errors.md is generated from this table.
"""

from __future__ import annotations

import enum


class Problem(enum.Enum):
    """Every failure a merchant can be told: wire code, wire reason, and when it is given."""

    INVALID_ARGUMENT = (11000, "InvalidArgument", "The body is not one strict JSON object, or a field is missing or wrong.")
    HEADER_INVALID = (
        11001,
        "HeaderInvalidArgument",
        "A header that is not taken, such as Content-Encoding. (What is wrong with Appid, Timestamp or Sign is 11005.)",
    )
    NOT_FOUND = (11003, "NotFound", "What the request names does not exist.")
    RATE_LIMIT = (11004, "RateLimit", "Too many requests; Retry-After says when to come back.")
    VERIFY_SIGN_FAILED = (11005, "VerifySignFailed", "Unknown app id, or the signature does not fit: one constant unsigned answer.")
    REQUEST_EXPIRED = (11006, "ReqExpired", "The timestamp is more than 120 seconds from the server's clock.")
    REPEATED_SUBMIT = (11007, "RepeatedSubmit", "This invoice has been used before.")
    QUERY_DURATION_TOO_MAX = (11008, "QueryDurationTooMax", "The time span of a resend is longer than one hour.")
    REQUEST_DAILY_LIMIT = (11009, "ReqDailyLimit", "More resends than one a minute or 25 a day.")
    QUERY_NUM_MAX = (11010, "QueryNumMax", "More than 100 ids in one call.")
    ORDER_DUPLICATE = (11011, "OrderDuplicate", "The merchant order id was used before with other content.")
    NO_SUPPORT_VERSION = (11013, "NoSupportVersion", "The call is specified but not available in this version.")
    MERCHANT_DISABLED = (12000, "MerchantDisabled", "The merchant is disabled.")
    IP_NOT_IN_WHITELIST = (12002, "IpNotInWhitelist", "The source address is not on the merchant's allow-list.")
    INVALID_COIN = (13000, "InvalidCoin", "No such coin or token id.")
    INVALID_CHAIN = (13001, "InvalidChain", "No such network.")
    BALANCE_INSUFFICIENT = (
        14000,
        "BalanceInsufficient",
        "The available balance does not cover the amount, and the fee where the merchant pays it.",
    )
    ADDRESS_EMPTY_MEMO = (14003, "AddressEmptyMemo", "The destination demands a memo or tag.")
    CHAIN_STOP_WITHDRAW = (14004, "ChainStopWithdraw", "Withdrawals on this network are off.")
    VALUE_BELOW_LIMIT = (14005, "WithdrawValueLessThanLimit", "Below the operator's minimum, or below what the network can carry.")
    VALUE_ABOVE_LIMIT = (14006, "WithdrawValueMoreThanLimit", "Above the operator's maximum.")
    ADDRESS_FORMAT = (14007, "WithdrawAddrFormat", "Not an address that the token's network can pay.")
    CANNOT_SELF = (14008, "WithdrawCannotSelf", "The address is the house's own, or a token contract.")
    NO_SUPPORT_COIN = (14010, "NoSupportCoin", "The coin is not enabled.")
    COIN_PRECISION_LIMIT = (14013, "CoinPrecisionLimit", "More decimals than the token or coin has.")
    ADDRESS_IN_BLACK_LIST = (14017, "AddressInBlackList", "The operator does not pay this address.")
    DISABLED_WITHDRAW = (14018, "DisabledWithdraw", "Withdrawals are switched off.")
    NOTHING_LEFT_AFTER_FEE = (14019, "WithdrawAmountFeeTooLittle", "The network fee leaves nothing for the receiver.")
    SERVICE_ERROR = (224066, "ServiceError", "The server cannot answer now; msg says why where it can.")
    TO_USER_NOT_FOUND = (224083, "ToUserNotFound", "No internal account has this id or e-mail address.")

    def __init__(self, code: int, reason: str, when: str) -> None:
        self.code = code
        self.reason = reason
        self.when = when


class Refused(Exception):
    """A request that the API answers with a failure; nothing was changed by it."""

    def __init__(self, problem: Problem, msg: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{problem.code} {problem.reason}: {msg}")
        self.problem = problem
        self.msg = msg
        self.retry_after_s = retry_after_s


class InvariantBroken(Exception):
    """Something that must never be true is true. The step stops and the operator is told; going on would be worse."""
