"""Giving signed bytes to nodes: to the first that takes them, and what was given before to every one.

    submitter = Submitter(nodes, runtime, name="submit-ETH", call=lambda raw: Call(...), verdict=verdict_of, at_once=50)
    said = await submitter(txid, raw)

Bytes that come while others are under way go together, in order of arrival. Nothing here refuses for good: REFUSED is for a rail's own decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock.core.latest import Latest
from penstock.rails.base import NodeUnreachable, Submission, Verdict
from penstock.rails.rpc import Call, Node, Nodes
from penstock.runtime import Runtime
from penstock.together import Together

REMEMBERED_MAX: Final = 20_000


class Submitter:
    """One network's way to its nodes. `verdict` maps a node's answer to bytes of this id, whole; what it cannot map is unknown."""

    def __init__(
        self,
        nodes: Nodes,
        runtime: Runtime,
        *,
        name: str,
        call: Callable[[bytes], Call],
        verdict: Callable[[Node, Any, str], Submission],
        at_once: int,
    ) -> None:
        self._nodes = nodes
        self._call = call
        self._verdict = verdict
        self._together: Together[tuple[str, bytes], Submission] = Together(
            runtime, self._all, name=name, most=at_once, broken=NodeUnreachable
        )
        self._given: Latest[str, None] = Latest(REMEMBERED_MAX)

    async def __call__(self, txid: str, raw: bytes) -> Submission:
        """What the nodes said. Never raises for their faults: that is UNKNOWN."""
        try:
            return await self._together((txid, raw))
        except NodeUnreachable as error:
            return Submission(Verdict.UNKNOWN, str(error))

    async def _all(self, items: list[tuple[str, bytes]]) -> Sequence[Submission]:
        again = {txid for txid, _ in items if txid in self._given}
        said = {txid: Submission(Verdict.UNKNOWN, "no node was asked") for txid, _ in items}
        healthy = self._nodes.healthy()
        for node in self._nodes.usable():
            left = [(txid, raw) for txid, raw in items if not _accepted(said[txid]) or (txid in again and node in healthy)]
            if not left:
                continue
            answers: Sequence[Any]
            try:
                answers = await self._nodes.ask(node, [self._call(raw) for _, raw in left])
            except NodeUnreachable as error:
                answers = [error] * len(left)
            for (txid, _), answer in zip(left, answers, strict=True):
                if not _accepted(said[txid]):
                    silent = isinstance(answer, NodeUnreachable)
                    said[txid] = Submission(Verdict.UNKNOWN, str(answer)) if silent else self._verdict(node, answer, txid)
        for txid in said:
            self._given[txid] = None
        return [said[txid] for txid, _ in items]


def _accepted(said: Submission) -> bool:
    return said.verdict is Verdict.ACCEPTED
