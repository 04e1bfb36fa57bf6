"""Bitcoin Core's own consensus code (libbitcoinkernel) as judge of transactions and blocks; the only file that knows the package.

The package's `process_block` says True for blocks that were refused as well, so a block counts as taken only when the kernel's own tip says so.
https://github.com/bitcoin/bitcoin/blob/master/src/kernel/bitcoinkernel.h
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, Final

import pbk
import pbk.capi.bindings as _raw_kernel
from pbk.script import PrecomputedTransactionData
from pbk.util.exc import ProcessBlockException

FOLDER_PREFIX: Final = "penstock-devnet-bitcoin-"
"""Block files of a box lie in the folder for temporary files, some 18 MB each, and go with the box."""

_raw_kernel.btck_logging_disable()  # else the kernel keeps its log in memory, waiting for a reader


class BadBytes(ValueError):
    """Bytes that Bitcoin Core does not read as one whole transaction."""


class Refused(ValueError):
    """The kernel did not take a block; the text is its verdict."""

    def __init__(self, verdict: str, *, too_early: bool) -> None:
        super().__init__(verdict)
        self.too_early = too_early
        """The block's time lies more than two hours ahead of this machine's clock, which is the one that the kernel reads."""


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
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        verdicts: list[tuple[str, bool]] = []

        def checked(_user: Any, _block: Any, state: Any) -> None:
            reason = state.block_validation_result
            verdicts.append((f"{state.validation_mode.name}: {reason.name}", reason is pbk.BlockValidationResult.TIME_FUTURE))

        options = pbk.ContextOptions()
        options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
        options.set_validation_interface(pbk.ValidationInterfaceCallbacks(block_checked=checked))
        place = pbk.ChainstateManagerOptions(pbk.Context(options), folder, folder + "/blocks")
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

    def offer(self, block: bytes) -> None:
        """Give it a block. Raises Refused for one that breaks a rule that can be judged without its chain being the best; whether the
        rest holds, `tip` says.
        """
        self._verdicts.clear()
        try:
            self._manager.process_block(pbk.Block(block))
        except ProcessBlockException as error:
            verdict, too_early = self.verdict
            raise Refused(verdict, too_early=too_early) from error

    @property
    def verdict(self) -> tuple[str, bool]:
        """What the kernel said of the block that it checked last, and whether its time was too far ahead."""
        return self._verdicts[-1] if self._verdicts else ("not checked", False)

    @property
    def _manager(self) -> Any:
        return self._held["manager"]


def _end(held: dict[str, Any], folder: str) -> None:
    held.clear()  # the kernel writes at its end: its folder goes after it
    shutil.rmtree(folder, ignore_errors=True)
