"""Fig. 10: latency and storage against sparsity, dense and sparse engines."""

import json
from typing import Any

from codegen.target import load_target
from conformance import network_bench
from conformance.line_chart import Chart, render_charts
from conformance.network_bench import NetworkBenchReport, NetworkCost
from conformance.paper.published import SAVED, SPEEDUP
from conformance.paper.workspace import Claim, Section, Workspace, provenance, table

TARGETS = ("stm32f746", "stm32h743")
SPARSITIES = (0, 40, 50, 60, 70, 80, 90)


def build(workspace: Workspace) -> Section:
    """Measure the network of the paper's size at every sparsity on both of the paper's chips."""

    def make() -> Any:
        report = network_bench.measure(TARGETS, SPARSITIES, progress=workspace.status)
        return json.loads(network_bench.as_json(report))

    settings = provenance() | {"targets": TARGETS, "sparsities": SPARSITIES, "block": 4, "seed": 0}
    result = workspace.stored("fig10", settings, make)
    report = NetworkBenchReport(**result | {"costs": tuple(NetworkCost(**cost) for cost in result["costs"])})
    return section(report)


def section(report: NetworkBenchReport) -> Section:
    """The figure of a benchmark that was run."""
    by_sparsity: dict[int, dict[str, NetworkCost]] = {}
    for cost in report.costs:
        by_sparsity.setdefault(cost.sparsity, {})[cost.target] = cost
    heads = ["zeros", "constants, KB", "saved"]
    heads += [column for target in TARGETS for column in (f"{target}, ms", "CMSIS-NN / ours")]
    dense = by_sparsity[0][TARGETS[0]].constant_bytes
    rows = []
    for sparsity, costs in by_sparsity.items():
        size = costs[TARGETS[0]].constant_bytes
        row = [f"{sparsity} %", f"{size / 1024:.0f}", f"{1 - size / dense:.0%}"]
        for cost in (costs[target] for target in TARGETS):
            time = (
                "no room" if cost.cycles is None else "-" if cost.milliseconds is None else f"{cost.milliseconds:.0f}"
            )
            row += [time, "-" if cost.speedup is None else f"{cost.speedup:.1f}"]
        rows.append(row)
    speedups = [cost.speedup for cost in report.costs if cost.speedup is not None]
    sparse = [row for row in by_sparsity if row]
    saved = [1 - by_sparsity[row][TARGETS[0]].constant_bytes / dense for row in sparse]
    text = f"{table(heads, rows)}\n\n![Latency and storage against sparsity](paper/fig10.svg)"
    claims = (
        Claim(
            "Fig. 10: speed against CMSIS-NN",
            f"{SPEEDUP[0]} to {SPEEDUP[1]} times",
            f"{min(speedups):.1f} to {max(speedups):.1f} times (0 to {sparse[-1]} % zeros)",
            "reproduced against current, faster CMSIS-NN; their sparsities are not printed",
        ),
        Claim(
            "Fig. 10: storage saved",
            f"{SAVED[0]} to {SAVED[1]} %",
            f"{100 * min(saved):.0f} to {100 * max(saved):.0f} % ({sparse[0]} to {sparse[-1]} % zeros), exact",
            "reproduced",
        ),
    )
    return Section(text, claims, ("fig10",), {"fig10.svg": picture(report)})


def picture(report: NetworkBenchReport) -> str:
    """Latency on each chip and storage, of the sparse engine, of dense kernels and of the peer's."""
    sparsities = sorted({cost.sparsity for cost in report.costs})
    first, last = sparsities[0], sparsities[-1]
    latency: dict[str, list[tuple[float, float]]] = {}
    for target in TARGETS:
        costs = [cost for cost in report.costs if cost.target == target]
        times = [(cost.sparsity, cost.milliseconds) for cost in costs if cost.milliseconds is not None]
        if (peer := costs[0].peer_cycles) is not None:
            time = 1e3 * peer / load_target(target).clock_hz
            latency[f"CMSIS-NN, dense, {target}"] = [(first, time), (last, time)]
        if times and times[0][0] == first:
            latency[f"ours, dense, {target}"] = [(first, times[0][1]), (last, times[0][1])]
        latency[f"ours, sparse, {target}"] = [(float(sparsity), time) for sparsity, time in times]
    sizes = [(float(cost.sparsity), cost.constant_bytes / 1024) for cost in report.costs if cost.target == TARGETS[0]]
    storage = {"dense": [sizes[0], (float(last), sizes[0][1])], "sparse": sizes}
    zeros = "blocks of weights that are zero, %"
    charts = [
        Chart("Latency, estimated", zeros, "ms an image", latency),
        Chart("Storage", zeros, "KB of constants", storage),
    ]
    return render_charts(charts)
