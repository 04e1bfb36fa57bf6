"""The catalogue of lies: each is written once, for every family, out of few kinds of spoiling."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from penstock.prove.liars.dialects import NOWHERE, Answer, Question, places, turned
from penstock.prove.liars.liar import Ask, Asked, How, Liar, Lie, Said, Tell
from penstock.rails.bitcoin import codec as bitcoin

HUGE_BYTES: Final = 6 * 1024 * 1024
DEEP: Final = 100_000
REMEMBERED_MAX: Final = 2_000
HTML: Final = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


# What lies are made of


def _turning(topic: str, change: Callable[[int], int]) -> Tell:
    """Every number of a topic is another one."""
    return _dicing(topic, lambda _, number: change(number))


def _dicing(topic: str, change: Callable[[Liar, int], int]) -> Tell:
    """Every number of a topic is another one."""

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        def twist(question: Question, answer: Answer) -> Answer:
            for where, path in liar.dialect.fields.get(topic, ()):
                if re.search(where, question.text):
                    for container, key in places(answer, path):
                        container[key] = turned(container[key], lambda number: change(liar, number))
                        _mend_block_id(answer, container, key)
            return answer

        return await liar.twisted(asked, ask, twist)

    return tell


def _mend_block_id(answer: Answer, container: Any, key: object) -> None:
    """TRON's block ids begin with the number: a liar minds that."""
    if key == "number" and isinstance(answer.get("blockID"), str):
        answer["blockID"] = f"{container[key]:016x}" + answer["blockID"][16:]


def _placing(topic: str, value: Callable[[Liar, Any], Any]) -> Tell:
    """Every value of a topic is replaced."""

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        def twist(question: Question, answer: Answer) -> Answer:
            for where, path in liar.dialect.fields.get(topic, ()):
                if re.search(where, question.text):
                    for container, key in places(answer, path):
                        container[key] = value(liar, container[key])
            return answer

        return await liar.twisted(asked, ask, twist)

    return tell


def _leaves(change: Callable[[Any], Any]) -> Tell:
    """Every leaf of every answer is changed, whatever it means; the envelope stays."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items()}
        return [changed(item) for item in value] if isinstance(value, list) else change(value)

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        def twist(question: Question, answer: Answer) -> Answer:
            del question
            return {key: item if key in {"id", "jsonrpc", "status"} else changed(item) for key, item in answer.items()}

        return await liar.twisted(asked, ask, twist)

    return tell


def _line(how: How, *, forward: bool = True, submissions: bool = True, status: int = 200, share: float = 1.0) -> Tell:
    """The line breaks: for submissions or for all requests, before or after the node has the request."""

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        if (submissions and not liar.submits(asked)) or liar.chance.random() >= share:
            return await ask()
        said = await ask() if forward else Said()
        return Said(said.body if how in {"cut", "drip"} else b"", status, how)

    return tell


def _body(change: Callable[[Liar, bytes], bytes]) -> Tell:
    """The body is spoiled, whatever it says."""

    async def tell(liar: Liar, _: Asked, ask: Ask) -> Said:
        said = await ask()
        return replace(said, body=change(liar, said.body))

    return tell


def _absence(share: float) -> Tell:
    """What was sent is unknown here."""

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        def twist(question: Question, answer: Answer) -> Answer:
            for where, nothing in liar.dialect.absent:
                if re.search(where, question.text) and any(txid in _named(question) for txid in liar.memory.sent):
                    return copy.deepcopy(nothing) if liar.chance.random() < share else answer
            return answer

        return await liar.twisted(asked, ask, twist)

    return tell


def _named(question: Question) -> str:
    """A question's text with the hash that a path of Lightning's writes in base64."""
    if "/track/" not in question.method:
        return question.text
    return base64.urlsafe_b64decode(question.method.rpartition("/")[2]).hex()


def _taking(liar: Liar, asked: Asked) -> Said | None:
    """Takes bytes and keeps them to itself; None for every other request."""
    questions = liar.questions(asked)
    if not liar.submits(asked):
        return None
    answers = [
        {**liar.dialect.taken(liar.dialect.bytes_of(question, liar.memory.chain_id)[0])} | _with_id(question) for question in questions
    ]
    body = answers if asked.body.lstrip().startswith(b"[") else answers[0]
    return Said(json.dumps(body).encode())


def _with_id(question: Question) -> Answer:
    return {} if question.id is None else {"id": question.id, "jsonrpc": "2.0"}


async def _swallow(liar: Liar, asked: Asked, ask: Ask) -> Said:
    return _taking(liar, asked) or await ask()


def _forging(*, ok: bool, forward: bool) -> Tell:
    """What was given to it is final, it says."""

    async def tell(liar: Liar, asked: Asked, ask: Ask) -> Said:
        if not forward and (taken := _taking(liar, asked)) is not None:
            return taken
        forge, memory = liar.dialect.forge, liar.memory
        return await liar.twisted(asked, ask, lambda question, answer: forge(memory, question, answer, ok) or answer)

    return tell


async def _keep_waiting(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """What was given to it waits in its pool, it says, where nobody else can see it."""
    if (taken := _taking(liar, asked)) is not None:
        return taken

    def twist(question: Question, answer: Answer) -> Answer:
        sent = liar.memory.sent
        if question.method == "gettxspendingprevout":
            spenders = {
                f"{spent.txid.hex()}:{spent.vout}": txid for txid, raw in sent.items() for spent in bitcoin.decode(raw).transaction.vin
            }
            return answer | {
                "result": [coin | {"spendingtxid": spenders.get(f"{coin['txid']}:{coin['vout']}")} for coin in question.params[0]]
            }
        txid = next((txid for txid in sent if txid in _named(question)), None)
        if txid is None or re.search('"validated": true|"SUCCEEDED"', json.dumps(answer)):
            return answer
        for where, waiting in _WAITING.items():
            if re.search(where, question.text):
                return {**answer, **waiting(txid)}
        return answer

    return await liar.twisted(asked, ask, twist)


_WAITING: Final[Mapping[str, Callable[[str], Answer]]] = MappingProxyType(
    {
        "eth_getTransactionByHash": lambda txid: {"result": {"hash": txid, "blockHash": None}},
        "gettransactionfrompending": lambda txid: {"txID": txid},
        "^tx ": lambda txid: {"result": {"hash": txid, "validated": False, "status": "success"}},
        "router/track": lambda txid: {"result": {"payment_hash": txid, "status": "IN_FLIGHT", "htlcs": []}},
    }
)
"""How a node says that it holds a transaction that is in no block, by question."""


async def _refuse(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """Passes bytes on, and says that it did not."""

    def twist(question: Question, answer: Answer) -> Answer:
        del question, answer
        return liar.dialect.refused("nonce too low: next nonce 4711, tx nonce 0")

    return await liar.twisted(asked, ask, twist) if liar.submits(asked) else await ask()


async def _refuse_all(liar: Liar, asked: Asked, ask: Ask) -> Said:
    return await liar.twisted(asked, ask, lambda *_: liar.dialect.refused("internal error"))


async def _foreign(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """Names another transaction than the one it was given."""

    def twist(question: Question, answer: Answer) -> Answer:
        del question
        for container, key in places(answer, liar.dialect.named):
            container[key] = NOWHERE.upper() if str(container[key]).isupper() else ("0x" * str(container[key]).startswith("0x")) + NOWHERE
        return answer

    return await liar.twisted(asked, ask, twist) if liar.submits(asked) else await ask()


async def _frozen(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """To the same question always the first answer."""
    if liar.submits(asked):
        return await ask()
    key = asked.path.encode() + asked.body
    if key not in liar.earlier:
        if len(liar.earlier) >= REMEMBERED_MAX:
            liar.earlier.pop(next(iter(liar.earlier)))
        liar.earlier[key] = await ask()
    return liar.earlier[key]


async def _answer_before(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """The answer to the request before this one."""
    del asked
    said, liar.last = liar.last, await ask()
    return said


async def _wrong_id(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """JSON-RPC ids that nobody asked with; where there are none, the answer to the request before."""
    if not liar.dialect.rpc or "jsonrpc" not in asked.body.decode():
        return await _answer_before(liar, asked, ask)
    said = await ask()
    found = json.loads(said.body)
    for answer in found if isinstance(found, list) else [found]:
        answer["id"] = 4711
    return replace(said, body=json.dumps(found).encode())


async def _history_without_us(liar: Liar, asked: Asked, ask: Ask) -> Said:
    """Blocks, lists and pools without what was given to it, beside not knowing it."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [
                without(item) for item in value if not any(txid in json.dumps(item) for txid in liar.memory.sent) or "block_header" in item
            ]
        return {key: without(item) for key, item in value.items()} if isinstance(value, dict) else value

    def twist(question: Question, answer: Answer) -> Answer:
        for where, nothing in liar.dialect.absent:
            if re.search(where, question.text) and any(txid in _named(question) for txid in liar.memory.sent):
                return copy.deepcopy(nothing)
        kept: Answer = without(answer)
        return kept

    return await liar.twisted(asked, ask, twist)


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def _failing(liar: Liar, value: Any) -> Any:
    return liar.dialect.failed or value


def _huge(liar: Liar, body: bytes) -> bytes:
    del liar
    return body[:-1] + b" " * HUGE_BYTES + body[-1:]


def _deep(liar: Liar, body: bytes) -> bytes:
    del liar, body
    return b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * DEEP + b"]" * DEEP + b"}"


def _half(liar: Liar, body: bytes) -> bytes:
    del liar
    return body[: len(body) // 2]


def _ints(value: Any, change: Callable[[int], Any]) -> Any:
    return change(value) if type(value) is int else value


def _type_swapped(value: Any) -> Any:
    """Text where numbers belong, numbers where text belongs."""
    if isinstance(value, bool | None):
        return value
    return str(value) if isinstance(value, int | float) else 7


def _back_and_forth(liar: Liar, number: int) -> int:
    return number - liar.chance.choice((0, 0, 1, 3, 20))


def _other_identity(liar: Liar, value: Any) -> Any:
    """Another network, or another node."""
    del liar
    if isinstance(value, int):
        return value + 1
    if str(value).startswith("0x"):
        return hex(int(value, 16) + 1)
    return f"{'0' * 56}01020304" if len(str(value)) == 64 else "02" + "11" * 32 if len(str(value)) == 66 else "main"


def _flapping(liar: Liar, value: Any) -> Any:
    """Another block at the same height now and then."""
    text = str(value)
    digits = liar.chance.choice("0123456789abcdef")
    return value if liar.chance.random() < 0.5 else text[:-1] + (digits.upper() if text.isupper() else digits)


def _halved_delivery(liar: Liar, value: Any) -> Any:
    if isinstance(value, dict):
        return value | {"value": "0.01"}
    return turned(value, lambda number: number // 2) if isinstance(value, str) else _failing(liar, value)


_ALL: Final = (
    # The line
    Lie("timeout_after_accept", "takes a transaction and never answers", _line("silence")),
    Lie("timeout_before_accept", "never gets a transaction and never answers", _line("silence", forward=False)),
    Lie("never_answers", "answers nothing at all", _line("silence", forward=False, submissions=False)),
    Lie("reset_after_accept", "takes a transaction and cuts the connection", _line("reset")),
    Lie("reset_mid_body", "cuts the connection in the middle of every answer", _line("cut", submissions=False)),
    Lie("one_byte_a_second", "answers one byte a second", _line("drip", submissions=False)),
    Lie("http_500_after_accept", "takes a transaction and answers HTTP 500", _line("", status=500)),
    Lie("http_503_before_accept", "answers HTTP 503 instead of taking a transaction", _line("", status=503, forward=False)),
    Lie("http_429_storm", "answers 429 nine times in ten", _line("", status=429, forward=False, submissions=False, share=0.9)),
    # The text
    Lie("html_with_200", "answers a page in HTML with status 200", _body(_always(HTML))),
    Lie("truncated_json", "answers half of the JSON", _body(_half)),
    Lie("huge_body", "answers more than any answer needs", _body(_huge)),
    Lie("deep_json", "answers JSON of a hundred thousand brackets", _body(_deep)),
    Lie("empty_object", "answers {}", _body(_always(b"{}"))),
    Lie("wrong_id", "answers with an id that nobody asked with", _wrong_id),
    Lie("answer_before", "answers each request with the answer to the one before", _answer_before),
    Lie("frozen", "gives to the same question always its first answer", _frozen),
    Lie("floats_for_integers", "writes floats where integers belong", _leaves(lambda value: _ints(value, lambda number: number + 0.5))),
    Lie("texts_for_numbers", "writes texts for numbers and numbers for texts", _leaves(_type_swapped)),
    Lie("nulls", "answers null for every value", _leaves(_always(None))),
    Lie("negative_numbers", "writes every number negative", _leaves(lambda value: _ints(value, lambda number: -number - 1))),
    Lie("an_error_for_all", "answers every call with an error", _refuse_all),
    # What was sent
    Lie("refused_after_accept", "passes a transaction on and says that its nonce is too low", _refuse),
    Lie("foreign_hash", "takes a transaction and names another", _foreign),
    Lie("swallowed", "acknowledges a transaction and passes it to nobody", _swallow),
    Lie("kept_waiting", "keeps a transaction to itself and shows it as waiting", _keep_waiting),
    Lie("false_absence", "does not know what was sent", _absence(1.0), limit="asks"),
    Lie("flapping_absence", "knows what was sent every other time", _absence(0.5), limit="asks"),
    Lie("history_without_us", "leaves what was sent out of lookups, pools and blocks", _history_without_us, limit="asks"),
    Lie("fake_success", "keeps a transaction to itself and shows it as final", _forging(ok=True, forward=False), limit="believed"),
    Lie("success_too_early", "shows a transaction as final that only waits", _forging(ok=True, forward=True), limit="believed"),
    Lie("fake_failure", "shows a transaction as failed for good", _forging(ok=False, forward=True), limit="believed"),
    Lie("failed_status", "turns success into failure", _placing("status", _failing), limit="believed"),
    Lie("event_omitted", "leaves out the event of a transfer", _placing("event", _always([])), limit="asks"),
    Lie("event_doubled", "shows an event twice", _placing("event", lambda _, value: value + value), limit="asks"),
    Lie("delivered_less", "shows half of the amount", _placing("delivered", _halved_delivery), limit="asks"),
    # Heights, times and identity
    Lie("stale_head", "is 1 to 500 blocks behind", _dicing("head", lambda liar, number: number - liar.chance.randint(1, 500))),
    Lie("head_going_back", "goes back some blocks now and then", _dicing("head", _back_and_forth)),
    Lie("head_ahead", "is a thousand blocks ahead", _turning("head", lambda number: number + 1_000), limit="asks"),
    Lie("fork_flapping", "shows another block at the same height every other time", _placing("hash", _flapping)),
    Lie("clock_ahead", "dates its blocks an hour ahead", _turning("time", lambda number: number + _hour(number))),
    Lie("clock_behind", "dates its blocks an hour back", _turning("time", lambda number: number - _hour(number))),
    Lie("wrong_network", "serves another network", _placing("identity", _other_identity)),
    # Numbers
    Lie("old_nonce", "counts fewer transactions of ours", _turning("count", lambda number: max(0, number - 2))),
    Lie("nonce_ahead", "counts a thousand more", _turning("count", lambda number: number + 1_000), limit="asks"),
    Lie("strangers_wait", "counts a thousand more that wait", _turning("waiting", lambda number: number + 1_000), limit="asks"),
    Lie("balance_too_high", "doubles what we hold", _turning("balance", lambda number: 2 * number + 1), limit="asks"),
    Lie("balance_too_low", "halves what we hold", _turning("balance", lambda number: number // 2), limit="asks"),
    Lie(
        "wrong_decimals",
        "counts in units a million million times as small",
        _turning("balance", lambda number: number * 10**12),
        limit="asks",
    ),
    Lie("too_little_gas", "says that a transfer takes half of the gas or energy", _turning("work", lambda number: number // 2)),
    Lie("fee_zero", "asks no fee", _turning("fee", _always(0)), limit="asks"),
    Lie("fee_2_to_63", "asks 2^63", _turning("fee", _always(2**63)), limit="asks"),
    Lie("fee_times_a_million", "asks a million times the fee", _turning("fee", lambda number: number * 10**6), limit="asks"),
)


def _hour(number: int) -> int:
    """In the unit of a time: seconds, or milliseconds."""
    return 3_600_000 if number > 10**11 else 3_600


LIES: Final[Mapping[str, Lie]] = MappingProxyType({lie.name: lie for lie in _ALL})
"""Every behaviour by name."""
