"""The signer as a child of `serve`: what it is started with. Orders wait while it is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock.child import Child, ChildFailed
from penstock.core.party import Secret
from penstock.runtime import Runtime

WORDS: Final = ("-m", "penstock.signer", "--child")
"""What Python is told to run."""


class SignerFailed(ChildFailed):
    """The signer's process cannot start; the text is its own sentence."""


class SignerChild(Child):
    """`environment` holds no passphrase, which goes over the pipe; `words` are the signer's, or those of a lane that wraps it."""

    failed = SignerFailed

    def __init__(
        self, runtime: Runtime, home: Path, environment: Mapping[str, str], passphrase: Secret | None, words: Sequence[str] = WORDS
    ) -> None:
        first = {"passphrase": None if passphrase is None else passphrase.reveal()}
        super().__init__(runtime, "signer", words, {**environment, "PENSTOCK_HOME": str(home)}, first)
