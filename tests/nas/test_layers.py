"""The layers of a network: shapes, parameters and prunings, against a network worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from nas.layers import MODULE_INPUT, Activation, Kind, describe, supernet_modules
from nas.sampling import random_architecture, random_path, random_super
from nas.space import (
    Architecture,
    Downsample,
    Encoder,
    PathConfig,
    Pooling,
    Pruning,
    Space,
    StageConfig,
    StagePath,
    StageSpace,
    SuperConfig,
    load_space,
)
from refsim.errors import ShapeError

HALF = Pruning(0.5, 4)


def architecture(downsample: Downsample = Downsample.STRIDED_CONV, pooling: Pooling = Pooling.SEQUENCE) -> Architecture:
    """One DoT of dimension 8 on images of 6 x 6 pixels."""
    stage = StagePath(downsample, (2,), (Encoder(1.5),), Pruning(0.0), (Pruning(0.5, 2),), (HALF,))
    return Architecture(
        (3, 6, 6), 5, SuperConfig((StageConfig(8, 1, 1),), 2, 16), PathConfig((stage,), pooling, Pruning(0.4, 2))
    )


def test_a_network_by_hand() -> None:
    network = describe(architecture())
    table = [(layer.name, layer.shape, layer.weight, layer.pruned_blocks) for layer in network.layers]
    encoder = "stages.0.transformers.0.mlp1_5"
    assert table == [
        ("stages.0.downsample.conv-stride2.conv", (8, 3, 3), (8, 3, 3, 3), 0),
        ("stages.0.mobilenets.0.e2.expand", (16, 3, 3), (16, 8, 1, 1), 32),  # half of 16 * 8 / 2
        ("stages.0.mobilenets.0.e2.depthwise", (16, 3, 3), (16, 1, 3, 3), 24),  # half of 16 * 9 / 3
        ("stages.0.mobilenets.0.e2.project", (8, 3, 3), (8, 16, 1, 1), 32),
        ("stages.0.mobilenets.0.e2.add", (8, 3, 3), None, 0),
        (f"{encoder}.before3x3", (8, 3, 3), (8, 8, 3, 3), 72),  # half of 8 * 72 / 4
        (f"{encoder}.before1x1", (8, 3, 3), (8, 8, 1, 1), 8),
        (f"{encoder}.tokens", (9, 8), None, 0),
        (f"{encoder}.norm1", (9, 8), (8,), 0),
        (f"{encoder}.query", (9, 8), (8, 8), 8),
        (f"{encoder}.key", (9, 8), (8, 8), 8),
        (f"{encoder}.value", (9, 8), (8, 8), 8),
        (f"{encoder}.attention", (9, 8), None, 0),
        (f"{encoder}.out", (9, 8), (8, 8), 8),
        (f"{encoder}.add1", (9, 8), None, 0),
        (f"{encoder}.norm2", (9, 8), (8,), 0),
        (f"{encoder}.fc1", (9, 12), (12, 8), 12),
        (f"{encoder}.fc2", (9, 8), (8, 12), 12),
        (f"{encoder}.add2", (9, 8), None, 0),
        (f"{encoder}.map", (8, 3, 3), None, 0),
        (f"{encoder}.after1x1", (8, 3, 3), (8, 8, 1, 1), 8),
        (f"{encoder}.after3x3", (8, 3, 3), (8, 8, 3, 3), 72),
        ("pool.seqpool.tokens", (9, 8), None, 0),
        ("pool.seqpool.norm", (9, 8), (8,), 0),
        ("pool.seqpool.score", (9, 1), (1, 8), 0),
        ("pool.seqpool.sum", (8,), None, 0),
        ("head.last", (16,), (16, 8), 26),  # 0.4 of 64 is 25.6
        ("head.classifier", (5,), (5, 16), 0),
    ]
    weights = 8 * 27 + 128 + 144 + 128 + 2 * 576 + 2 * 64 + 4 * 64 + 2 * 96 + 2 * 8 + 8 + 8 + 128 + 80
    biases = 8 + 16 + 16 + 8 + 4 * 8 + 4 * 8 + 12 + 8 + 2 * 8 + 8 + 1 + 16 + 5
    assert network.parameter_count == weights + biases
    pruned = 2 * 32 + 3 * 24 + 2 * 32 + 4 * (2 * 72 + 2 * 8 + 4 * 8 + 2 * 12) + 2 * 26
    assert network.kept_parameter_count == weights + biases - pruned


def test_what_reads_what() -> None:
    by_name = {layer.name.rsplit(".", 1)[1]: layer for layer in describe(architecture()).modules[2].layers}
    assert by_name["before3x3"].inputs == (MODULE_INPUT,)
    ends = {name: tuple(read.rsplit(".", 1)[1] for read in by_name[name].inputs) for name in list(by_name)[1:]}
    assert ends["query"] == ends["key"] == ends["value"] == ("norm1",)
    assert ends["attention"] == ("query", "key", "value")
    assert ends["add1"] == ("tokens", "out")
    assert ends["add2"] == ("add1", "fc2")
    assert by_name["fc1"].activation is Activation.RELU
    assert by_name["after3x3"].activation is Activation.RELU6


@pytest.mark.parametrize("kind", list(Downsample))
@pytest.mark.parametrize(("shape", "halved"), [((3, 6, 6), (3, 3)), ((3, 5, 7), (3, 4)), ((1, 1, 9), (1, 5))])
def test_downsampling_halves_rounding_up_and_keeps_a_height_of_1(
    kind: Downsample, shape: tuple[int, int, int], halved: tuple[int, int]
) -> None:
    network = describe(dataclasses.replace(architecture(kind), input_shape=shape))
    assert network.modules[0].output.shape == (8, *halved)
    if shape[1] == 1:
        assert all(layer.kernel[0] == 1 for layer in network.layers)


@pytest.mark.parametrize("space", ["table1", "tiny"])
def test_paths_are_parts_of_their_supernet(space: str) -> None:
    loaded = load_space(space)
    rng = np.random.default_rng(0)
    for _ in range(10):
        supernet = random_super(loaded, rng)
        path = random_path(loaded, supernet, rng)
        network = describe(Architecture(loaded.input_shape, loaded.classes, supernet, path))
        choices = supernet_modules(loaded, supernet)
        assert [module.name for module in network.modules] == [candidates[0].name for candidates in choices]
        names = [layer.name for candidates in choices for module in candidates for layer in module.layers]
        assert len(names) == len(set(names))
        for module, candidates in zip(network.modules, choices, strict=True):
            (same,) = (candidate for candidate in candidates if candidate.candidate == module.candidate)
            assert len({candidate.output.shape for candidate in candidates}) == 1
            dense = [dataclasses.replace(layer, pruning=Pruning(0.0)) for layer in module.layers]
            assert dense == [dataclasses.replace(layer, pruning=Pruning(0.0)) for layer in same.layers]


def test_layers_whose_inputs_are_no_whole_blocks_stay_dense() -> None:
    network = describe(random_architecture(load_space("table1"), np.random.default_rng(2)))
    for layer in network.layers:
        if layer.pruning.sparsity:
            assert layer.weight is not None
            assert math.prod(layer.weight) % layer.pruning.block == 0
            if layer.depthwise:
                assert layer.pruning.block == layer.kernel[1] == 3
            else:
                assert layer.weight[1] % layer.pruning.block == 0
    dense = {layer.name.rsplit(".", 1)[1] for layer in network.layers if layer.weight and not layer.pruning.sparsity}
    assert "classifier" in dense
    assert network.layers[0].pruned_blocks == 0


def test_pruning_never_takes_every_block() -> None:
    stage = StageSpace((4,), expansions=(1,), encoders=(Encoder(1.0),))
    space = Space("x", (4, 2, 2), 2, (stage,), heads=(1,), last_linear=(4,), sparsities=(0.99,))
    network = describe(random_architecture(space, np.random.default_rng(0)))
    assert all(layer.pruned_blocks < layer.blocks for layer in network.layers if layer.weight)


def test_attention_needs_whole_heads() -> None:
    with pytest.raises(ShapeError, match="stage 0: dimension 8 is not a multiple of the 3 heads"):
        describe(dataclasses.replace(architecture(), supernet=SuperConfig((StageConfig(8, 1, 1),), 3, 16)))


@pytest.mark.parametrize(("dim", "message"), [(6, "multiple of 4"), (0, "multiple of 4")])
def test_dimensions_are_whole_words(dim: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        describe(dataclasses.replace(architecture(), supernet=SuperConfig((StageConfig(dim, 1, 1),), 1, 16)))


def test_a_path_through_another_supernet_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[\(2, 1\)\], the path takes \[\(1, 1\)\]"):
        describe(dataclasses.replace(architecture(), supernet=SuperConfig((StageConfig(8, 2, 1),), 1, 16)))


def test_average_pooling_has_no_parameters() -> None:
    (module,) = (m for m in describe(architecture(pooling=Pooling.AVERAGE)).modules if m.name == "pool")
    assert [(layer.kind, layer.shape, layer.parameters) for layer in module.layers] == [(Kind.MEAN, (8,), {})]
