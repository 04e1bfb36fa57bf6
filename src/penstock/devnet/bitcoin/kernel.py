"""Bitcoin Core's own consensus code (libbitcoinkernel) as judge of transactions and blocks; the only file that knows the package.

The package's `process_block` says True for blocks that were refused as well, so a block counts as taken only when the kernel's own tip says so.
https://github.com/bitcoin/bitcoin/blob/master/src/kernel/bitcoinkernel.h
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import pbk
import pbk.capi.bindings as _raw_kernel
from pbk.capi.library import BITCOINKERNEL_LIB
from pbk.script import PrecomputedTransactionData
from pbk.util.exc import ProcessBlockException

from penstock.devnet.bitcoin.folder import Folder

_set_clock: Final[Callable[[ctypes.c_int64], Any] | None] = next(
    (found for name in ("_Z11SetMockTimel", "_Z11SetMockTimex") if (found := getattr(BITCOINKERNEL_LIB, name, None)) is not None), None
)
"""SetMockTime(int64_t), what Core's `setmocktime` calls on regtest: else the kernel refuses blocks that lie ahead of this machine's clock.

No part of the package's interface, so it may be missing; then a box can only be driven by a clock that is not two hours ahead.
"""

_raw_kernel.btck_logging_disable()  # else the kernel keeps its log in memory, waiting for a reader


class BadBytes(ValueError):
    """Bytes that Bitcoin Core does not read as one whole transaction."""


class Refused(ValueError):
    """The kernel did not take a block; the text is its verdict."""


def txid_of(raw: bytes) -> str:
    """The id of a transaction as the kernel computes it. Raises BadBytes."""
    try:
        transaction = pbk.Transaction(raw)
    except RuntimeError as error:
        raise BadBytes("no transaction") from error
    if bytes(transaction) != raw:
        raise BadBytes("more than one transaction")
    return str(transaction.txid)


def first_bad_input(raw: bytes, spent: Sequence[tuple[bytes, int]]) -> int | None:
    """The first input whose script or signature does not hold, by today's consensus rules (taproot included); None when all do.

    `spent` gives script and satoshis of what each input spends, in order.
    """
    transaction = pbk.Transaction(raw)
    outputs = [pbk.TransactionOutput(pbk.ScriptPubkey(script), units) for script, units in spent]
    data = PrecomputedTransactionData(transaction, outputs)
    for number, ((script, units), _) in enumerate(zip(spent, outputs, strict=True)):
        if not pbk.ScriptPubkey(script).verify(units, transaction, data, number, pbk.ScriptVerificationFlags.ALL):
            return number
    return None


class Kernel:
    """One regtest chain in a folder of its own."""

    def __init__(self) -> None:
        folder = Folder()
        verdicts: list[str] = []

        def checked(_user: Any, _block: Any, state: Any) -> None:
            verdicts.append(f"{state.validation_mode.name}: {state.block_validation_result.name}")

        options = pbk.ContextOptions()
        options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
        options.set_validation_interface(pbk.ValidationInterfaceCallbacks(block_checked=checked))
        place = pbk.ChainstateManagerOptions(pbk.Context(options), str(folder.path), str(folder.path / "blocks"))
        place.set_worker_threads_num(0)
        place.update_block_tree_db_in_memory(block_tree_db_in_memory=True)
        place.update_chainstate_db_in_memory(chainstate_db_in_memory=True)
        manager = pbk.ChainstateManager(place)
        manager.import_blocks([])
        self._held: dict[str, Any] = {"manager": manager}
        self._verdicts = verdicts
        self.close = weakref.finalize(self, _end, self._held, folder)
        """Ends the chain and removes its folder; happens by itself when nobody knows the kernel any more, and at the program's end."""

    @property
    def genesis(self) -> bytes:
        """The first block's header and hash are the network's, for ever the same."""
        return bytes(self._manager.get_active_chain().block_tree_entries[0].block_header)

    @property
    def tip(self) -> str:
        """Hash of the newest block of the chain that the kernel holds for the best."""
        chain = self._manager.get_active_chain()
        return str(chain.block_tree_entries[chain.height].block_hash)

    def read(self, height: int) -> bytes:
        """A block of the best chain, whole."""
        return bytes(self._manager.blocks[self._manager.get_active_chain().block_tree_entries[height]])

    def offer(self, block: bytes, time: int) -> None:
        """Give it a block of a time (Unix seconds), which it believes to be now. Raises Refused for one that breaks a rule that can be judged without its chain being the best; whether the
        rest holds, `tip` says.
        """
        self._verdicts.clear()
        if _set_clock is not None:
            _set_clock(ctypes.c_int64(time))
        try:
            self._manager.process_block(pbk.Block(block))
        except ProcessBlockException as error:
            raise Refused(self.verdict) from error

    @property
    def verdict(self) -> str:
        """What the kernel said of the block that it checked last."""
        return self._verdicts[-1] if self._verdicts else "not checked"

    @property
    def _manager(self) -> Any:
        return self._held["manager"]


def _end(held: dict[str, Any], folder: Folder) -> None:
    held.clear()  # the kernel writes at its end: its folder goes after it
    folder.remove()
