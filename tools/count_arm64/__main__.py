"""``python -m tools.count_arm64 NETWORK...``: counts, saves, and writes docs/performance.md."""

import shlex
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

from pcc.deploy.counting_qemu import CPU, Counts, missing
from pcc.errors import PccError
from tools.bench_peers.engines import ENGINES, FP16_ENGINES
from tools.bench_peers.environments import Unavailable
from tools.bench_peers.networks import Network, networks_named
from tools.bench_peers.prepare import Prepared, prepare
from tools.bench_peers.process import EngineFailed
from tools.count_arm64 import mca, page
from tools.count_arm64.count import PccCount, assembly, count_pcc, count_peer
from tools.count_arm64.result import CountResult, EngineCount, Executed, LayerCount
from tools.performance import COUNTS, NETWORK_FILES, write_page

PEERS = ("ncnn", "ncnn-fp16", "mnn", "mnn-sparse")
"""Engines with arm64 wheels that run under QEMU."""
PCC_FP16 = "pcc-fp16"
"""pcc with ``--dtype fp16``."""


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option(
    "--engines",
    default=",".join(("pcc", PCC_FP16, *PEERS)),
    show_default=True,
    help="Only these, separated by commas; pcc is always among them.",
)
@click.option("--memory", is_flag=True, help="Count bytes and modelled cache misses, too; takes 2 to 3 times as long.")
def main(names: tuple[str, ...], engines: str, memory: bool) -> None:
    """Count what NETWORKs execute on an emulated Cortex-A76, in pcc and in peers: names ('all', 'vgg16-3x3',
    'resnet50-3x3', ...), or layers as conv:IN,OUT,KERNEL,SIZE[,STRIDE][@RATE].

    What a peer needs is fetched at first use into pcc's cache. Counts do not depend on how busy the machine is.
    """
    try:
        networks = networks_named(names)
        if complaint := missing():
            raise PccError(complaint)
    except PccError as error:
        raise click.UsageError(str(error)) from None
    others = [name for name in engines.split(",") if name != "pcc"]
    if unknown := set(others) - {PCC_FP16, *PEERS}:
        raise click.UsageError(f"no arm64 engine '{unknown.pop()}': choose of pcc, {PCC_FP16}, {', '.join(PEERS)}")
    for network in networks:
        options = [
            *(["--memory"] if memory else []),
            *(["--engines", engines] if set(others) != {PCC_FP16, *PEERS} else []),
        ]
        command = f"python -m tools.count_arm64 {shlex.join([network.name, *options])}"
        result = measure(network, others, memory, command)
        result.save(COUNTS)
        print(f"\n{page.section(result)}", flush=True)
    write_page()


def measure(network: Network, others: list[str], memory: bool, command: str) -> CountResult:
    """Counts one network in pcc and in the other engines; those that fail are noted, and the others go on."""
    prepared = prepare(network, NETWORK_FILES)
    result = CountResult(
        network=network.name,
        summary=network.summary,
        command=command,
        dense_macs=prepared.dense_macs,
        kept_macs=prepared.kept_macs,
    )
    print(f"{network.name}: pcc", file=sys.stderr, flush=True)
    try:
        _add_pcc(result, prepared, memory)
        if PCC_FP16 in others:
            print(f"{network.name}: pcc, fp16", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                _add_engine(result, PCC_FP16, "pcc, fp16", count_pcc(prepared, Path(folder), memory, dtype="fp16"))
    except PccError as reason:
        result.not_run["pcc"] = str(reason)
    for name in (name for name in others if name != PCC_FP16):
        engine = {**ENGINES, **FP16_ENGINES}[name]
        print(f"{network.name}: {engine.title}", file=sys.stderr, flush=True)
        try:
            found = count_peer(engine, prepared, memory)
        except (Unavailable, EngineFailed) as reason:
            result.not_run[engine.title] = str(reason)
        else:
            executed = Executed.of(found.counts)
            result.engines.append(
                EngineCount(
                    engine=name, title=engine.title, version=found.version, error=found.error, executed=executed
                )
            )
    return result


def _add_pcc(result: CountResult, prepared: Prepared, memory: bool) -> None:
    """pcc's counts, as a whole and by layer, and its inner loops."""
    with tempfile.TemporaryDirectory() as folder:
        ours = count_pcc(prepared, Path(folder), memory)
        if complaint := mca.missing():
            result.not_run["llvm-mca"] = complaint
        else:
            assemblies = {
                CPU: ours.assembly,
                **{cpu: assembly(prepared, Path(folder), cpu) for cpu in set(mca.CORES.values()) - {CPU}},
            }
            result.loops = [loop for core, cpu in mca.CORES.items() for loop in mca.price(assemblies[cpu], core)]
    _add_engine(result, "pcc", "pcc", ours)
    result.layers = [
        LayerCount(layer=name, kernel=layer.kernel, executed=Executed.of(layer.counts))
        for name, layer in ours.layers.items()
    ]


def _add_engine(result: CountResult, name: str, title: str, ours: PccCount) -> None:
    whole = sum((layer.counts for layer in ours.layers.values()), Counts())
    result.engines.append(
        EngineCount(engine=name, title=title, version=version("pcc"), error=ours.error, executed=Executed.of(whole))
    )


if __name__ == "__main__":
    main()
