"""JSON-RPC as EVM nodes speak it, and the chain id and genesis by which a network is known.

https://ethereum.github.io/execution-apis/
"""

from __future__ import annotations

from penstock.rails.rpc import BadAnswer, Call, Fault, Http, JsonRpc, Node, hash32, mapping, quantity


class EthereumTalk(JsonRpc):
    """`rails.rpc.Talk` of EVM nodes. `genesis` None: any first block will do."""

    def __init__(self, http: Http, *, chain_id: int, genesis: str | None = None) -> None:
        super().__init__(http)
        self._chain_id = chain_id
        self._genesis = genesis

    async def mismatch(self, node: Node) -> str:
        """Another chain id or genesis than configured. Raises NodeUnreachable or BadAnswer."""
        calls = [Call("eth_chainId")]
        if self._genesis is not None:
            calls.append(Call("eth_getBlockByNumber", ("0x0", False)))
        answers = await self.calls(node, calls)
        for answer in answers:
            if isinstance(answer, Fault):
                raise BadAnswer(answer.words)
        chain_id = quantity(answers[0], 256)
        if chain_id != self._chain_id:
            return f"it serves chain id {chain_id}, and {self._chain_id} is configured"
        if self._genesis is not None and (found := hash32(mapping(answers[1]).get("hash"))) != self._genesis.lower():
            return f"its first block is {found}, and {self._genesis} is configured"
        return ""
