"""The whole road on networks that nobody designed: random graphs, generated as C, compiled, every tensor compared."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from conformance.exploration import for_each, smallest
from conformance.models import ModelOutcome, ModelUnderTest, compare_model, open_place, random_samples
from conformance.relations.random_graphs import described, graphs
from refsim import Graph

NAME = "random graphs"
"""What reports call them."""

_SAMPLES = 4


def compare_random_models(
    place: str, where: str, *, count: int, seed: int, progress: Callable[[], None] = lambda: None
) -> ModelOutcome:
    """Generate, build and run random graphs at a place; on the first that differs, look for the smallest such graph.

    Args:
        place: the place's name, for the report.
        where: "host", or a target.
        count: number of graphs.
        seed: of the graphs.
        progress: called after each graph.

    Returns:
        The sum of all; the message is of the smallest graph that differs, and holds its nodes.

    Raises:
        ToolchainError: there is no compiler for the place.
    """
    outcomes: list[ModelOutcome] = []
    broken: list[tuple[Graph, str, int]] = []

    def run(graph: Graph) -> ModelOutcome:
        model = ModelUnderTest(graph, random_samples(graph, _SAMPLES))
        with tempfile.TemporaryDirectory() as folder:
            return compare_model(model, open_place(where, graph, Path(folder)), place, _SAMPLES)

    def body(graph: Graph, round_seed: int) -> None:
        outcomes.append(run(graph))
        if outcomes[-1].mismatches:
            broken.append((graph, outcomes[-1].message, round_seed))
        progress()

    for_each(graphs(), body, count=count, seed=seed)
    message = ""
    if broken:
        graph, text, round_seed = broken[0]
        graph, text = smallest(graphs(), lambda graph: run(graph).message or None, round_seed) or (graph, text)
        message = f"{text}, in {described(graph)} (seed {round_seed})"
    return ModelOutcome(
        NAME,
        place,
        sum(one.samples for one in outcomes),
        sum(one.tensors for one in outcomes),
        sum(one.mismatches for one in outcomes),
        sum(one.seconds for one in outcomes),
        message,
        stack_bytes=max(one.stack_bytes for one in outcomes),
    )
