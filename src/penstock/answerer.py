"""A process that answers callers and delivers webhooks, beside the `serve` that starts it, keeps it, sends and settles: `python -m
penstock.answerer`. Beside one that only answers (`--role api`) it only answers, too.

It is told settings and passphrase over its pipe, shares the port, and tells its parent of each commit that workers have to know of.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import structlog
import uvloop

from penstock import child, gateway, logs
from penstock.config import Settings, made_of
from penstock.failures import sentence_of
from penstock.process import OUTSIDE, opened

log = structlog.get_logger()


async def answer(settings: Settings, number: int, *, signs: bool) -> None:
    """Answer callers until the pipe ends. `signs`: the parent has somebody who signs, whose word /readyz tells, and work in which we help."""
    os.set_blocking(sys.stdout.fileno(), False)
    async with opened(settings, signing=False) as product:
        await product.start("api")
        product.intake.committed = lambda external: _tell(external=external)
        product.outbox.queued = lambda: _tell(external=False)
        if signs:
            product.readiness.signer = product.signer
            product.keep_delivering()
        await gateway.listen(product, settings, "api", number=number, up=lambda: child.say("ready"), until=child.until_end)


def _tell(*, external: bool) -> None:
    """That there is work. A parent that does not listen just now has enough of these waiting."""
    try:
        os.write(sys.stdout.fileno(), OUTSIDE if external else b"i")
    except (BlockingIOError, BrokenPipeError):
        return


def main() -> int:
    """Says "ready" or one sentence; 1 or 2 as every command has it."""
    os.umask(0o077)
    logs.configure(logging.INFO)
    try:
        told: dict[str, Any] = child.told()
    except ValueError:
        return 1  # whoever started us is gone, or changed its mind
    try:
        settings = made_of(told["settings"], home=Path(told["home"]), passphrase=told["passphrase"])
        uvloop.run(answer(settings, told["number"], signs=told["signs"]))
    except Exception as error:
        if (said := sentence_of(error)) is None:
            raise
        log.error("serve.failed", detail=said[0])  # noqa: TRY400  its own sentence
        child.say(said[0])
        return said[1]
    return 0


if __name__ == "__main__":
    sys.exit(main())
