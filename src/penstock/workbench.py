"""What tries the product out, from outside: devnet, demo, prove and bench. Each imports its programs late: no other command pays for them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock import show
from penstock.runtime import SystemRuntime
from penstock.terminal import Json, emit, fail, guarded, note, out

FULL_SIZE = 1_000
"""Of `prove --full`; 1 is what `make test` runs."""


def register(app: typer.Typer) -> None:
    """Make these commands of the program."""
    for command in (devnet, demo, prove, bench):
        app.command()(command)


def devnet(
    only: Annotated[list[str] | None, typer.Option(help="Networks, such as ETH; all by default.")] = None,
    seed: Annotated[int, typer.Option()] = 1,
    listen: Annotated[str, typer.Option(help="Loopback address and port.")] = "127.0.0.1:8545",
    as_json: Json = False,
) -> None:
    """Networks in a box, for demo, sandbox and tests."""
    from penstock.catalog import Catalog  # noqa: PLC0415
    from penstock.devnet import boxes, server  # noqa: PLC0415  only this command needs an EVM

    def announce(box: server.Box) -> None:
        found = [
            {"network": n.name, "chain_id": n.settings["chain_id"], "url": box.url(n.name), "settings": box.settings(n.name)}
            for n in box.networks
        ]
        emit(
            {"networks": found, "control": f"{box.base_url}/control"},
            as_json,
            lambda v: show.devnet(v["networks"], v["control"]),
        )
        sys.stdout.flush()

    try:
        runtime = SystemRuntime()
        networks = boxes.make_networks(Catalog.load(), [name.upper() for name in only or []], now_ms=runtime.now_ms, seed=seed)
        guarded(server.serve(networks, listen, runtime=runtime, announce=announce))
    except ValueError as error:
        fail(str(error), 2)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running and print a signed curl example.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder of the demo; a temporary one by default.")] = None,
    as_json: Json = False,
) -> None:
    """The main job end to end on this machine: requests, payouts, webhooks, audit."""
    from penstock.demo.story import tell  # noqa: PLC0415  only this command needs an EVM

    result = guarded(tell(out if not as_json else Console(quiet=True), home=home, keep=keep))
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    if not result["ok"]:
        raise typer.Exit(1)


def prove(
    minutes: Annotated[float, typer.Option(min=0.1, help="About how long, all lanes together.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Draw from this seed; a fresh one by default.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these lanes.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Release sizes; give the minutes too.")] = False,
    postgresql: Annotated[str, typer.Option(help="URL of a PostgreSQL whose user may create databases, to try it as well.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Try to break it on this machine: crashes, races, lying nodes, planted bugs; and say what held."""
    from penstock.prove import report as shown  # noqa: PLC0415  nothing of this is ever part of `serve`
    from penstock.prove.run import chosen  # noqa: PLC0415
    from penstock.prove.run import prove as run_lanes  # noqa: PLC0415

    try:
        lanes = chosen(only or [])
    except ValueError as error:
        fail(str(error), 2)
    size = FULL_SIZE if full else 10
    proof = run_lanes(
        lanes,
        minutes=minutes,
        seed=seed,
        size=size,
        postgresql=postgresql,
        say=lambda lane, line: note(f"{lane.name}: {line or lane.title}"),
    )
    if report is not None:
        report.write_text(shown.page(proof), "utf-8")
        note(f"the report is in {report}")
    emit(proof.values, as_json, lambda values: shown.on_terminal(proof))  # noqa: ARG005  the same values
    if not proof.holds:
        raise typer.Exit(1)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="About a minute: enough to see that it works, not for figures.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only these parts.")] = None,
    postgresql: Annotated[str, typer.Option(help="URL of a PostgreSQL whose user may create databases, to measure it as well.")] = "",
    pgbench: Annotated[Path | None, typer.Option(help="The program of the baseline; the one on the PATH by default.")] = None,
    orders: Annotated[int | None, typer.Option(min=50, help="Orders a round; half of them where they live to their end.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each case; the median counts.")] = None,
    preload: Annotated[int | None, typer.Option(min=0, help="Orders there before the second pass; 0: only the empty one.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
    as_json: Json = False,
) -> None:
    """How fast it is on this machine, beside a plain PostgreSQL in the same run."""
    from psycopg import Error as PostgresError  # noqa: PLC0415

    from penstock.bench import result  # noqa: PLC0415  nothing of this is ever part of `serve`
    from penstock.bench.run import bench as measure  # noqa: PLC0415
    from penstock.bench.run import chosen, sized  # noqa: PLC0415

    try:
        parts = chosen(only or [])
    except ValueError as error:
        fail(str(error), 2)
    found = pgbench or (Path(path) if (path := shutil.which("pgbench")) else None)
    if postgresql and found is None:
        note("there is no pgbench on the PATH: nothing is compared; name one with --pgbench")
    size = sized(quick=quick, orders=orders, rounds=rounds, preload=preload)
    try:
        values = measure(parts, size, postgresql=postgresql, pgbench=found, say=note)
    except (ChildProcessError, TimeoutError, PostgresError) as error:
        fail(f"nothing can be said of how fast it is: {error}")
    if report is not None:
        report.write_text(result.page(values), "utf-8")
        note(f"the report is in {report}")
    emit(values, as_json, result.on_terminal)
    if not values["ok"]:
        raise typer.Exit(1)
