"""Fig. 11: where the time goes by operator, softmax before and after, and each operator against other engines."""

from collections import defaultdict
from typing import Any

from conformance import kernel_bench, network_bench, profile
from conformance.kernel_bench import MAC
from conformance.models import ModelUnderTest
from conformance.paper.published import SOFTMAX_SHARE, SOFTMAX_SPEEDUP, SUM_SPEEDUP, WHOLE_SPEEDUP
from conformance.paper.stacked_bars import Bar, render_bars
from conformance.paper.workspace import Claim, Section, Workspace, provenance, table
from conformance.profile import Profile
from conformance.timing.cycles import Timing

SPARSITY, TARGET, CORE = 60, "stm32f746", "cortex-m7"
CASES = (
    "conv 3x3 16x16x44",
    "conv 3x3 8x8x192",
    "conv 1x1 16x16x44",
    "conv 1x1 8x8x128",
    "linear 256x44",
    "linear 64x192",
    "matmul",
    "softmax",
    "layernorm",
    "add",
)
TINY_ENGINE = {
    "conv 3x3 16x16x44 -> 44": "1.64",
    "conv 1x1 16x16x44 -> 132": "1.98",
    "conv 3x3 8x8x192 -> 192": "1.42 to 1.53",
}
"""Cycles of a multiply-accumulate: TinyEngine 47bb283, GCC 12.2 -O3, integer kernels, the same timing model."""

KINDS = {
    "conv2d": "convolution",
    "depthwise_conv2d": "depthwise",
    "linear": "linear",
    "matmul": "products of attention",
    "softmax": "softmax",
    "layernorm": "LayerNorm",
}
"""Operators as the figure names them; the rest is "other"."""


def build(workspace: Workspace) -> Section:
    """Profile the network of the paper's size, and measure its kernels."""
    settings = provenance() | {"sparsity": SPARSITY, "target": TARGET, "cases": CASES, "seed": 0}

    def make() -> Any:
        workspace.status(f"the network at {SPARSITY} % zeros on {TARGET}")
        under_test: ModelUnderTest = network_bench.network(SPARSITY)
        found = profile.measure(under_test, TARGET, timing=Timing.ZERO_WAIT, seed=0)
        report = kernel_bench.measure(
            kernel_bench.choose_cases(CASES), [TARGET], sparsities=[SPARSITY], progress=workspace.status
        )
        return {
            "ours": by_kind(found),
            "peer": _kinds(network_bench.peer_cycles_by_operator(under_test.graph, CORE)),
            "kernels": [
                {
                    "case": one.case,
                    "variant": one.variant,
                    "block": one.block,
                    "cycles": one.cycles,
                    "macs": one.units if one.unit != kernel_bench.NONZERO_MAC else None,
                    "unit": one.unit,
                    "peer": one.baseline.cycles if one.baseline else None,
                }
                for one in report.measured
            ],
        }

    return section(workspace.stored("fig11", settings, make))


def by_kind(found: Profile) -> dict[str, float]:
    """Cycles of a profile as the figure has them: fused attention is taken apart into softmax and products.

    A function belongs to softmax where some of its code comes from the kernel's source.
    """
    softmax = {block.function for block in found.code if block.source.startswith("softmax")}
    cycles: dict[str, float] = defaultdict(float)
    for layer in found.layers:
        if layer.operator != "attention":
            cycles[layer.operator] += layer.counts.cycles
            continue
        for entry in layer.blocks:
            part = "softmax" if found.code[entry.block].function in softmax else "matmul"
            cycles[part] += entry.counts.cycles
    return _kinds(cycles)


def _kinds(cycles: dict[str, float]) -> dict[str, float]:
    kinds: dict[str, float] = defaultdict(float)
    for operator, count in cycles.items():
        kinds[KINDS.get(operator, "other")] += count
    return {kind: kinds[kind] for kind in (*KINDS.values(), "other")}


def section(result: dict[str, Any]) -> Section:
    """The figure of what was measured."""
    ours, peer = result["ours"], result["peer"]
    total, before = sum(ours.values()), sum(peer.values())
    rows = [
        [
            kind,
            f"{peer[kind] / 1e6:.1f} ({peer[kind] / before:.0%})",
            f"{ours[kind] / 1e6:.1f} ({ours[kind] / total:.0%})",
            f"{peer[kind] / ours[kind]:.1f}" if ours[kind] and peer[kind] else "-",
        ]
        for kind in ours
    ]
    rows.append(["all", f"{before / 1e6:.1f}", f"{total / 1e6:.1f}", f"{before / total:.1f}"])
    kernels = _kernel_rows(result["kernels"])
    kernel_heads = (
        "kernel, cycles a",
        "CMSIS-NN",
        "TinyEngine",
        "ours, dense",
        f"ours, {SPARSITY} % zeros",
        "times faster, dense",
    )
    text = f"""\
**(a)** Million cycles at {SPARSITY} % zeros.

{table(("operator", "before", "after", "times faster"), rows)}

![Where the time goes](paper/fig11a.svg)

**(b)** Cycles of each kernel.

{table(kernel_heads, kernels)}"""
    softmax = peer["softmax"] / ours["softmax"]
    sums = [float(row[-1]) for row in kernels if row[0].startswith(("conv", "linear"))]
    claims = (
        Claim(
            "Fig. 11a: softmax's share of CMSIS-NN's time",
            f"{SOFTMAX_SHARE} %",
            f"{peer['softmax'] / before:.0%} before, {ours['softmax'] / total:.0%} after",
            "not reproduced: today's CMSIS-NN has a much faster softmax than the paper's",
        ),
        Claim(
            "Fig. 11a: whole network against CMSIS-NN at 60 % zeros",
            f"{WHOLE_SPEEDUP['stm32f746']} times (F746)",
            f"{before / total:.1f} times",
            "less, against a peer that is faster in softmax",
        ),
        Claim(
            "Fig. 11b: softmax against CMSIS-NN",
            f"{SOFTMAX_SPEEDUP} times",
            f"{softmax:.1f} times",
            "better" if softmax > SOFTMAX_SPEEDUP else "less",
        ),
        Claim(
            "Fig. 11b: convolution and linear layers against CMSIS-NN",
            f"{SUM_SPEEDUP[0]} to {SUM_SPEEDUP[1]} times",
            f"{min(sums):.1f} to {max(sums):.1f} times, dense",
            "better" if min(sums) > SUM_SPEEDUP[1] else "mixed",
        ),
    )
    bars = (
        Bar("CMSIS-NN, dense", peer),
        Bar("ours, with CMSIS-NN's softmax", {**ours, "softmax": peer["softmax"]}),
        Bar(f"ours, {SPARSITY} % zeros", ours),
    )
    title = "Where the time goes: million cycles on a Cortex-M7"
    return Section(text, claims, ("fig11",), {"fig11a.svg": render_bars(title, bars, 1e6)})


def _kernel_rows(kernels: list[dict[str, Any]]) -> list[list[str]]:
    cases: dict[str, dict[str, Any]] = {}
    for one in kernels:
        entry = cases.setdefault(one["case"], {"unit": MAC})
        if one["macs"]:
            entry["unit"], entry["units"] = one["unit"], one["macs"]
            if one["peer"] is not None:
                entry["peer"] = one["peer"]
        if one["variant"] == "dsp":
            entry["dense"] = one["cycles"]
        elif one["block"] == 4:
            entry["sparse"] = one["cycles"]
    rows = []
    for case, entry in cases.items():
        dense = entry["dense"] / entry["units"]
        sparse = f"{entry['sparse'] / entry['units']:.2f}" if "sparse" in entry else "-"
        peer = entry.get("peer")
        published = "-" if peer is None or case.startswith("layernorm") else f"{peer:g}"
        gain = "-" if published == "-" else f"{peer / dense:.1f}"
        rows.append([f"{case}, {entry['unit']}", published, TINY_ENGINE.get(case, "-"), f"{dense:.2f}", sparse, gain])
    return rows
