"""The part of docs/performance.md about times."""

from collections.abc import Sequence

from tools.bench_peers.engines import ENGINES
from tools.bench_peers.networks import table_place
from tools.bench_peers.onnx_file import attribute
from tools.bench_peers.peak import geometric_mean
from tools.bench_peers.result import AGREES, Duel, Result, Timing, by_processor
from tools.table import table

MOST_LAYERS = 8
"""Of a network, the slowest, which the page lists."""

QUIET = 0.05
"""Part of the time that other work may take before a table says so."""

DISTURBED = "\\*"
"""Behind such a figure."""

_HEAD = f"""# Performance

pcc beside other engines: the same network and weights (random: time does not depend on their values) as an ONNX file or as PyTorch's exported program,
fp32, batch 1, one thread on one core with the others left idle. Pruned networks are pruned in one shot, and dense engines get them with their zeros.
Each engine is in a process and an environment of its own. In every round each has a turn of half a second after two runs that warm it up; times
are milliseconds, minima over all rounds unless a column says otherwise. *To pcc* is the engine's time over pcc's, judged by pairs: the median of the
ratios of the rounds, or of turns A B, B A, ... of the two alone, with an interval that holds the true median in 95 % of all runs. *Error* is the
largest difference from PyTorch in float64, to the largest output; an engine with more than {AGREES:g} is left out of comparisons. *Best dense* is the
fastest peer that gains nothing from zeros, DeepSparse with dense weights among them.

Written by `python -m tools.bench_peers --page` from the results of the commands that stand beside the tables.
"""


def page(results: Sequence[Result]) -> str:
    """A section for each processor: all networks in one table, then each by itself."""
    parts = [_HEAD]
    for processor, found in by_processor(results).items():
        ordered = sorted(found, key=lambda result: table_place(result.network))
        parts += [
            f"## {processor}\n",
            f"One thread on {ordered[0].machine.placement}.\n",
            overview(ordered) + "\n",
            _commands(ordered),
        ]
        parts += [section(result) for result in ordered]
    return "\n".join(parts)


def overview(results: Sequence[Result]) -> str:
    """The table of networks and engines: minimum milliseconds, and the best dense peer to pcc."""
    engines = [engine for engine in ENGINES.values() if any(result.timing(engine.name) for result in results)]
    headers = ["network", "fewer MACs", *(engine.title for engine in engines), "best dense / pcc"]
    rows = [
        [result.network, _fewer(result), *(_cell(result, engine.name) for engine in engines), _verdict(result)]
        for result in results
    ]
    disturbed = any(result.disturbance > QUIET for result in results)
    note = f"\n\n{DISTURBED} Other work ran on the core or on another one meanwhile: not to be trusted." * disturbed
    return table(headers, rows) + note


def section(result: Result) -> str:
    """One network: every engine with its release, the pairs, the layers."""
    lines = [
        f"### {result.network}\n",
        f"{result.summary}. {result.kept_macs / 1e6:,.0f} of {result.dense_macs / 1e6:,.0f} million MACs.\n",
    ]
    lines += [_disturbed(result)] if result.disturbance > QUIET else []
    lines += [f"```\n{result.command}\n```\n", timings(result) + "\n"]
    lines += [f"* {_title(result, duel)} to pcc in pairs: {duel.ratio}." for duel in result.duels] + [""] * bool(
        result.duels
    )
    lines += [
        f"* {ENGINES[name].title if name in ENGINES else name} was not run: {reason}."
        for name, reason in result.not_run.items()
    ]
    lines += [""] * bool(result.not_run)
    lines += [*peak_shares(result), ""] if result.layers.get("pcc") else []
    lines += [layers(result)] if len(result.macs) > 1 and result.layers.get("pcc") else []
    return "\n".join(lines)


def timings(result: Result) -> str:
    """The table of engines."""
    ours = result.timing("pcc")
    rows = []
    for timing in sorted(result.timings, key=lambda timing: timing.minimum):
        ratio = str(timing.to(ours)) if ours and timing is not ours else ""
        rows.append(
            [
                timing.title,
                timing.version,
                _ms(timing.minimum),
                _ms(timing.median),
                ratio,
                f"{timing.error:.0e}",
                _evidence(timing),
            ]
        )
    return table(["engine", "release", "minimum", "median", "to pcc", "error", "evidence"], rows)


def layers(result: Result) -> str:
    """The table of pcc's slowest layers beside the same ones elsewhere, by the engines' own profilers."""
    found = {name: attribute(seconds, list(result.macs)) for name, seconds in result.layers.items()}
    ours, others, shares = found.pop("pcc", {}), found, result.shares()
    slowest = sorted(ours.items(), key=lambda item: -item[1])
    rows = [
        [
            layer,
            result.macs[layer].kind,
            f"{result.macs[layer].kept / 1e6:.1f}",
            _ms(seconds),
            f"{shares[layer]:.0%}" if layer in shares else "-",
            *(_ms(elsewhere[layer]) if layer in elsewhere else "-" for elsewhere in others.values()),
        ]
        for layer, seconds in slowest[:MOST_LAYERS]
    ]
    header = ["layer", "kind", "million MACs kept", "pcc", "of peak", *(ENGINES[name].title for name in others)]
    left = slowest[MOST_LAYERS:]
    rest = f"\n{len(left)} layers more take {_ms(sum(seconds for _, seconds in left))} together.\n" if left else ""
    return f"{table(header, rows)}\n{rest}"


def peak_shares(result: Result) -> list[str]:
    """A line for each kind of layer: the geometric mean of what pcc reaches of the core's peak."""
    by_kind: dict[str, list[float]] = {}
    for layer, share in result.shares().items():
        by_kind.setdefault(result.macs[layer].kind, []).append(share)
    peak = f"of {result.peak / 1e9:.1f} billion MACs per second, the core's measured peak"
    return [
        f"* {kind}: pcc reaches {geometric_mean(shares):.0%} {peak} (kept MACs, geometric mean of {len(shares)} "
        "layers)."
        for kind, shares in by_kind.items()
    ]


def _cell(result: Result, engine: str) -> str:
    timing = result.timing(engine)
    if not timing:
        return ""
    return _ms(timing.minimum) if timing.agrees else f"{_ms(timing.minimum)} (wrong)"


def _verdict(result: Result) -> str:
    best, ours = result.best(dense=True), result.timing("pcc")
    if not best or not ours:
        return ""
    duel = next((duel for duel in result.duels if duel.engine == best.engine), None)
    ratio = duel.ratio if duel else best.to(ours)
    return f"{ratio.median:.2f}{DISTURBED if result.disturbance > QUIET else ''} ({best.title})"


def _commands(results: Sequence[Result]) -> str:
    commands = dict.fromkeys(result.command for result in results)
    return "```\n" + "\n".join(commands) + "\n```\n"


def _fewer(result: Result) -> str:
    return f"{result.dense_macs / result.kept_macs:.1f}x"


def _title(result: Result, duel: Duel) -> str:
    timing = result.timing(duel.engine)
    return timing.title if timing else duel.engine


def _disturbed(result: Result) -> str:
    return (
        f"**Not to be trusted**: other work took up to {result.disturbance:.0%} of this core or of another one "
        "meanwhile.\n"
    )


def _evidence(timing: Timing) -> str:
    return ", ".join(f"{what}: {number:g}" for what, number in timing.evidence.items())


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return (
        f"{milliseconds:.1f}"
        if milliseconds >= 10
        else f"{milliseconds:.2f}"
        if milliseconds >= 1
        else f"{milliseconds:.3f}"
    )
