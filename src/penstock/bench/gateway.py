"""The gateway of a benchmark: `serve` as it is, or on SQLite the API alone, which `serve` refuses because nobody would send what it accepts.

python -m penstock.bench.gateway ROLE        with PENSTOCK_HOME set, as `penstock serve` has it
"""

from __future__ import annotations

import logging
import sys

import uvloop

from penstock import logs
from penstock.config import load
from penstock.process import answered, opened, serve


async def main(role: str) -> None:
    """Serve until SIGTERM."""
    settings = load()
    if role == "api" and settings.database_url.startswith("sqlite"):
        async with opened(settings, signing=False) as product:
            await product.start(role)
            await answered(product, settings, role)
    else:
        await serve(settings, role)


if __name__ == "__main__":
    logs.configure(logging.ERROR)
    uvloop.run(main(sys.argv[1]))
