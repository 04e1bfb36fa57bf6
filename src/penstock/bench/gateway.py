"""The gateway of a benchmark: the real API process over a home, with or without the workers behind it.

    python -m penstock.bench.gateway ROLE < /dev/null      with PENSTOCK_HOME set, as `penstock serve` has it

`serve --role api` refuses SQLite because nobody would send what it accepts; to measure acceptance alone that is what is wanted.
"""

from __future__ import annotations

import logging
import sys

import uvloop

from penstock import logs
from penstock.config import load
from penstock.process import listen, opened


async def main(role: str) -> None:
    """Serve until SIGTERM."""
    settings = load()
    async with opened(settings, signing=role != "api") as product:
        await product.start(role)
        await listen(product, settings, role)


if __name__ == "__main__":
    logs.configure(logging.ERROR)
    uvloop.run(main(sys.argv[1]))
