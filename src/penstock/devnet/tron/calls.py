"""Calls of contracts that change nothing: triggerconstantcontract and estimateenergy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.devnet.evm.execution import Call
from penstock.devnet.tron import render, schema, wire
from penstock.devnet.tron.chain import TronChain
from penstock.devnet.tron.process import Rejected, Run, invalid, run
from penstock.devnet.tron.resources import SUN
from penstock.devnet.tron.state import View
from penstock.devnet.tron.tokens import selector
from penstock.devnet.tron.transaction import PREFIX, build

ENERGY_MAX: Final = 100_000_000
"""java-tron's vm.maxEnergyLimitForConstant."""
LIFE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A call as it was asked for; `call` without energy."""

    call: Call
    message: Any


class Calls:
    """Runs calls on the state of a half of a node."""

    def __init__(self, chain: TronChain) -> None:
        self._chain = chain

    def trigger(self, fields: Mapping[str, Any], view: View | None, height: int, *, visible: bool) -> dict[str, Any]:
        """A call with what it returned and the energy it used; one that reverts has a result too."""
        answer = schema.TransactionExtention()
        try:
            wanted = self._wanted(fields, view, height, visible=visible)
            done = self._run(wanted, view, height, ENERGY_MAX)
        except Rejected as error:
            answer.result.code, answer.result.message = schema.RESPONSE_CODES[error.code], error.message.encode()
            return wire.to_json(answer, visible=visible)
        if done.result not in {"SUCCESS", "REVERT"}:
            answer.result.code, answer.result.message = schema.RESPONSE_CODES["OTHER_ERROR"], _exception(done).encode()
            return wire.to_json(answer, visible=visible)
        answer.result.result, answer.result.message = True, done.error.encode()
        answer.energy_used, answer.energy_penalty = done.energy, done.penalty
        answer.constant_result.append(done.outcome.output)
        for log in done.outcome.logs:
            answer.logs.add(address=PREFIX + log.address if visible else log.address, topics=log.topics, data=log.data)
        found = wire.to_json(answer, visible=visible)
        wanted.message.ret.add(ret=0 if done.result == "SUCCESS" else schema.FAILED)
        found["transaction"] = {**render.transaction(wanted.message, visible=visible), "visible": visible}
        return found

    def estimate(self, fields: Mapping[str, Any], view: View | None, height: int, *, visible: bool) -> dict[str, Any]:
        """The least fee limit that lets a call succeed, to 1 TRX, as energy: so it is often above what the call uses."""
        answer = schema.EstimateEnergyMessage()
        try:
            wanted = self._wanted(fields, view, height, visible=visible)
            energy = self._least_energy(wanted, view, height)
        except Rejected as error:
            answer.result.code, answer.result.message = schema.RESPONSE_CODES[error.code], error.message.encode()
            return wire.to_json(answer, visible=visible)
        answer.result.result, answer.energy_required = True, energy
        return wire.to_json(answer, visible=visible)

    def _least_energy(self, wanted: _Wanted, view: View | None, height: int) -> int:
        prices = self._chain.prices

        def works(fee_limit: int) -> Run | None:
            done = self._run(wanted, view, height, min(ENERGY_MAX, fee_limit // prices.energy))
            return done if done.result == "SUCCESS" else None

        high = prices.fee_limit_max
        first = self._run(wanted, view, height, min(ENERGY_MAX, high // prices.energy))
        if first.result != "SUCCESS":
            raise Rejected("CONTRACT_EXE_ERROR", first.error)
        low = prices.energy * first.energy
        if low * 2 < high:
            low, high = (low, low * 2) if works(low * 2) else (low * 2, high)
        while low + SUN < high:
            middle = (low + high) // 2
            low, high = (low, middle) if works(middle) else (middle, high)
        return -(-high // prices.energy)

    def _run(self, wanted: _Wanted, view: View | None, height: int, energy: int) -> Run:
        if view is None:
            raise Rejected("OTHER_ERROR", "class org.tron.core.exception.HeaderNotFound : latest block not found")
        call = wanted.call
        return run(view, self._chain.context(height), Call(call.sender, call.to, call.value, call.data, energy, call.gas_price, 0))

    def _wanted(self, fields: Mapping[str, Any], view: View | None, height: int, *, visible: bool) -> _Wanted:
        """Raises Rejected for what no call can be made of."""
        text = {name: fields.get(name) for name in ("owner_address", "contract_address", "data", "function_selector", "parameter")}
        if not text["owner_address"]:
            raise Rejected("OTHER_ERROR", "class java.security.InvalidParameterException : owner_address isn't set.")
        if not text["contract_address"]:
            words = "a network in a box deploys no contracts: contract_address must be set."
            raise Rejected("OTHER_ERROR", f"class java.security.InvalidParameterException : {words}")
        try:
            message = wire.from_json(schema.TriggerSmartContract, {**fields}, visible=visible)
            if text["function_selector"]:
                message.data = selector(str(text["function_selector"])) + wire.hex_bytes(text["parameter"] or "")
        except wire.Unparsable as error:
            raise Rejected("OTHER_ERROR", str(error)) from error
        owner, contract = bytes(message.owner_address)[1:], bytes(message.contract_address)[1:]
        if view is not None and not view.account(contract).code:
            raise Rejected("CONTRACT_VALIDATE_ERROR", "Smart contract is not exist.")
        if message.call_value < 0 or message.call_token_value or message.token_id:
            raise invalid("callValue must be >= 0, and a network in a box has no TRC-10 tokens")
        if view is not None and view.account(owner).balance < message.call_value:
            raise Rejected("CONTRACT_VALIDATE_ERROR", "Validate InternalTransfer error, balance is not sufficient.")
        call = Call(owner, contract, message.call_value, bytes(message.data), 0, self._chain.prices.energy, 0)
        return _Wanted(call, self._transaction(message, height))

    def _transaction(self, message: Any, height: int) -> Any:
        """The transaction that would make this call; for information, nobody signed it."""
        head = self._chain.context(height)
        fields = {field.name: value for field, value in message.ListFields()}
        reference = self._chain.block(height)
        return build(
            "TriggerSmartContract",
            fields,
            reference=bytes(32) if reference is None else reference.id,
            expiration_ms=head.head_ms + LIFE_MS,
            timestamp_ms=head.time_ms,
        )


def _exception(done: Run) -> str:
    names = {
        "OUT_OF_ENERGY": "class org.tron.core.vm.program.Program$OutOfEnergyException",
        "OUT_OF_TIME": "class org.tron.core.vm.program.Program$OutOfTimeException",
        "ILLEGAL_OPERATION": "class org.tron.core.vm.program.Program$IllegalOperationException",
    }
    return f"{names.get(done.result, 'class java.lang.RuntimeException')} : {done.error}"
