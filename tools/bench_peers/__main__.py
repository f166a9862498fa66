"""``python -m tools.bench_peers NETWORK...``: measures, saves, and writes docs/performance.md."""

import shlex
import sys
from collections.abc import Sequence

import click

from pcc.errors import PccError
from tools.bench_peers.compare import Comparison, Entrant
from tools.bench_peers.engines import ENGINES, Engine
from tools.bench_peers.machine import Machine, this_machine
from tools.bench_peers.networks import GROUPS, NETWORKS, Network, dense, networks_named
from tools.bench_peers.page import peak_shares, timings
from tools.bench_peers.peak import measured_peak
from tools.bench_peers.prepare import Prepared, prepare
from tools.bench_peers.result import Result
from tools.performance import NETWORK_FILES, RESULTS, write_page

ON_DENSE = "deepsparse"
"""Runs a pruned network with dense weights, too: an engine that gains from zeros, and may be the fastest dense one."""


@click.command()
@click.argument("names", nargs=-1, metavar="NETWORK...")
@click.option("--engines", help=f"Only these, separated by commas: {', '.join(ENGINES)}.")
@click.option(
    "--rounds",
    default=9,
    show_default=True,
    type=click.IntRange(1),
    help="Turns that each engine has; pairs are twice as many.",
)
@click.option(
    "--page",
    "only_page",
    is_flag=True,
    help="Measure nothing: write docs/performance.md from the results that are there.",
)
def main(names: tuple[str, ...], engines: str | None, rounds: int, only_page: bool) -> None:
    """Time pcc and other engines on NETWORKs: names ('all', 'vgg16-3x3', ...), or layers as
    conv:IN,OUT,KERNEL,SIZE[,STRIDE][@RATE].

    Engines are installed at first use, each into an environment of its own in pcc's cache. Leave the machine alone
    meanwhile.
    """
    if only_page == bool(names):
        raise click.UsageError(f"give networks to measure ({', '.join((*GROUPS, *NETWORKS))}), or --page")
    try:
        networks = networks_named(names)
        chosen = choose(engines)
    except PccError as error:
        raise click.UsageError(str(error)) from None
    machine = this_machine()
    if networks:
        print(f"{machine}: one thread on {machine.placement}", file=sys.stderr)
    for network in networks:
        options = [*(["--engines", engines] if engines else []), "--rounds", str(rounds)]
        command = f"python -m tools.bench_peers {shlex.join([network.name, *options])}"
        measure(network, chosen, rounds, machine, command).save(RESULTS)
    write_page()


def choose(names: str | None) -> list[Engine]:
    """Engines by their names in a list with commas; all for None. pcc is always among them. `PccError` for a name that
    is none."""
    wanted = ["pcc", *(names.split(",") if names else ENGINES)]
    for name in wanted:
        if name not in ENGINES:
            raise PccError(f"no engine '{name}': choose of {', '.join(ENGINES)}")
    return [engine for name, engine in ENGINES.items() if name in wanted]


def measure(network: Network, engines: Sequence[Engine], rounds: int, machine: Machine, command: str) -> Result:
    """Runs one network in all the engines, says what was found, and returns it."""
    print(f"{network.name}: preparing", file=sys.stderr, flush=True)
    prepared = prepare(network, NETWORK_FILES)
    with Comparison(machine) as comparison:
        for name, title, entrant in entrants(prepared, engines):
            comparison.enter(name, title, entrant)
        peak = measured_peak(machine.pinned)
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            comparison.round(number)
        result = Result(
            network=network.name,
            summary=network.summary,
            command=command,
            machine=machine,
            peak=peak,
            macs=prepared.layers,
            timings=list(comparison.timings.values()),
            not_run=comparison.not_run,
            disturbance=comparison.disturbance,
        )
        rivals = [
            best.engine for best in (result.best(dense=True), result.best(dense=False)) if best and result.timing("pcc")
        ]
        result.duels = [duel for name in rivals if (duel := comparison.duel(name, 2 * rounds))]
        result.disturbance = comparison.disturbance  # of the duels, too
        result.layers = comparison.layers()
    print(f"\n{timings(result)}\n", flush=True)
    for duel in result.duels:
        print(f"* {duel.engine} to pcc in pairs: {duel.ratio}", flush=True)
    print("\n".join(peak_shares(result)), flush=True)
    return result


def entrants(prepared: Prepared, engines: Sequence[Engine]) -> list[tuple[str, str, Entrant]]:
    """(name, title, entrant) of all engines on these weights, and of `ON_DENSE` on dense ones where these are
    pruned."""
    found = [(engine.name, engine.title, Entrant(engine, prepared)) for engine in engines]
    if prepared.network.pruned:
        as_dense = [engine for engine in engines if engine.name == ON_DENSE]
        for engine in as_dense:
            found.append(
                (
                    f"{engine.name} dense",
                    f"{engine.title}, dense weights",
                    Entrant(engine, prepare(dense(prepared.network), NETWORK_FILES)),
                )
            )
    return found


if __name__ == "__main__":
    main()
