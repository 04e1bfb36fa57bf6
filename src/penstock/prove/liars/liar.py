"""A node that lies or breaks, seen from whoever asks it: what it was asked, what it says, and what it remembers meanwhile.

    liar = Liar(LIES["stale_head"], "evm", chain_id=1, seed=7)
    said = await liar.answer(Asked(b'{"method": ...}'), ask)        # `ask` asks the honest node behind it

A line (prove/liars/lines.py) turns `Said` into what a client sees; `how` says where no whole answer comes.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from penstock.prove.liars.dialects import DIALECTS, Answer, Dialect, Memory, Question, value_at

How = Literal["", "silence", "reset", "cut", "drip"]
"""How an answer fails to come: never, the connection cut before it, cut in the middle of it, or one byte a second."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came. `path` is what follows the node's own address."""

    body: bytes
    path: str = ""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and how it fails to come."""

    body: bytes = b""
    status: int = 200
    how: How = ""


Limit = Literal["", "asks", "believed"]
"""Of a lie that all nodes tell: it changes nothing for good; a person is asked, since it looks like a theft or a loss; or it is a well-formed
statement that a transaction is final, which nobody can know better who has no other node.
"""
Ask = Callable[[], Awaitable[Said]]
"""The honest node's answer to the same request. Not calling it keeps the request from the node."""
Tell = Callable[["Liar", Asked, Ask], Awaitable[Said]]


@dataclass(frozen=True, slots=True)
class Lie:
    """One behaviour. `about` finishes the sentence "a node that ..."; `limit` is what becomes of a lie that every node tells alike."""

    name: str
    about: str
    tell: Tell
    limit: Limit = ""


class Liar:
    """One node that behaves so while `on`."""

    def __init__(self, lie: Lie, family: str, *, chain_id: int, seed: int = 0) -> None:
        self.lie = lie
        self.dialect: Dialect = DIALECTS[family]
        self.memory = Memory(chain_id)
        self.chance = random.Random(seed)  # a behaviour, not a secret
        self.on = True
        self.told = 0
        self.earlier: dict[bytes, Said] = {}
        self.last = Said(b"{}")

    async def answer(self, asked: Asked, ask: Ask) -> Said:
        """What a client gets."""
        if not self.on:
            return await ask()
        for question in self.questions(asked):
            if re.search(self.dialect.submits, question.text):
                txid, raw = self.dialect.bytes_of(question, self.memory.chain_id)
                self.memory.sent[txid] = raw
        said = await self.lie.tell(self, asked, ask)
        self.told += 1
        return said

    def submits(self, asked: Asked) -> bool:
        """Whether the request gives the node a transaction."""
        return any(re.search(self.dialect.submits, question.text) for question in self.questions(asked))

    def questions(self, asked: Asked) -> list[Question]:
        """The calls of a request."""
        body = json.loads(asked.body) if asked.body else {}
        if not self.dialect.rpc:
            return [Question(asked.path, body)]
        return [Question(call["method"], call.get("params", []), call.get("id")) for call in (body if isinstance(body, list) else [body])]

    async def twisted(self, asked: Asked, ask: Ask, twist: Callable[[Question, Answer], Answer]) -> Said:
        """The honest answer with each of its parts changed."""
        said = await ask()
        try:
            found = json.loads(said.body)
        except ValueError:
            return said
        questions = self.questions(asked)
        if isinstance(found, list):
            by_id = {question.id: question for question in questions}
            answers: Any = [self._one(by_id[answer["id"]], answer, twist) for answer in found]
        elif isinstance(found, dict) and len(questions) == 1:
            answers = self._one(questions[0], found, twist)
        else:
            return said
        return replace(said, body=json.dumps(answers, separators=(",", ":")).encode())

    def _one(self, question: Question, answer: Answer, twist: Callable[[Question, Answer], Answer]) -> Answer:
        where, height, hash_ = self.dialect.tip
        if re.search(where, question.text) and (number := value_at(answer, height)) is not None:
            self.memory.tip = int(str(number), 0), str(value_at(answer, hash_))
        twisted = twist(question, copy.deepcopy(answer))
        return twisted | {"id": answer["id"]} if "id" in answer and "jsonrpc" in answer and "id" in twisted else twisted
