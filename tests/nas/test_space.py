"""Spaces as files and as data."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from nas.sampling import random_architecture
from nas.space import Architecture, Downsample, Encoder, Space, StageSpace, as_dict, from_dict, list_spaces, load_space
from refsim.errors import DataError

SPACE = Space("mine", (1, 1, 128), 4, (StageSpace((8, 16), encoders=(Encoder(1.5),)),), last_linear=(32,))
HEAD = 'name = "x"\ninput_shape = [3, 32, 32]\n'


def test_table_1_is_the_papers() -> None:
    space = load_space("table1")
    assert (space.heads, space.last_linear, space.blocks) == ((1, 2, 4), (512, 768, 1024), (2, 4))
    assert space.sparsities == (0.0, 0.4, 0.5, 0.6, 0.7, 0.8)
    assert [stage.dims for stage in space.stages] == [(32, 44), (96, 128, 256)]
    for stage in space.stages:
        assert (stage.mobilenets, stage.transformers, stage.downsamples) == ((1, 2), (1, 2), tuple(Downsample))


def test_built_in_spaces_differ_from_table_1_in_dimensions_alone() -> None:
    table1 = load_space("table1")
    for name in ("small", "normal", "large"):
        space = load_space(name)
        stages = tuple(
            dataclasses.replace(stage, dims=known.dims)
            for stage, known in zip(space.stages, table1.stages, strict=True)
        )
        assert dataclasses.replace(space, name="table1", stages=stages) == table1


@pytest.mark.parametrize("name", list_spaces())
def test_every_built_in_space_is_called_as_its_file(name: str) -> None:
    assert load_space(name).name == name


@pytest.mark.parametrize("space", [SPACE, *map(load_space, list_spaces())], ids=lambda space: space.name)
def test_spaces_and_architectures_survive_json(space: Space) -> None:
    assert from_dict(Space, json.loads(json.dumps(as_dict(space))), "here") == space
    for seed in range(5):
        architecture = random_architecture(space, np.random.default_rng(seed))
        assert from_dict(Architecture, json.loads(json.dumps(as_dict(architecture))), "here") == architecture


def test_a_users_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ninput_shape = [1, 1, 128]\nclasses = 4\n[[stages]]\ndims = [8]\n')
    assert load_space(path) == Space("mine", (1, 1, 128), 4, (StageSpace((8,)),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = ", "no valid TOML"),
        ("", "lacks classes, input_shape, name, stages"),
        (
            'name = "x"\ninput_shape = [3, 32]\nclasses = 2\nstages = []',
            r"input_shape is \[3, 32\]; it must be a list of 3",
        ),
        (HEAD + 'classes = "2"\nstages = []', "classes is '2'; it must be of type int"),
        (
            HEAD + "classes = true\nstages = []",
            "classes is True; it must be of type int",
        ),
        (HEAD + "classes = 2\nstages = []", "stages is empty"),
        (HEAD + "classes = 2\nwidth = 1\nstages = []", "has unknown width"),
        (
            HEAD + 'classes = 2\npoolings = ["max"]\nstages = [{ dims = [8] }]',
            r"poolings\[0\] is 'max'; known are seqpool, average",
        ),
        (HEAD + "classes = 2\nstages = [8]", r"stages\[0\] is 8; it must be a table"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_space(path)


@pytest.mark.parametrize("name", ["huge", "missing.toml"])
def test_an_unknown_space_names_the_known_ones(name: str) -> None:
    with pytest.raises(DataError, match="built-in are " + ", ".join(list_spaces())):
        load_space(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": ()}, "heads is empty"),
        ({"heads": (0,)}, "heads has 0"),
        ({"heads": (3,)}, "dimension 8 is no multiple of 12"),
        ({"sparsities": (1.0,)}, "sparsity is 1.0"),
        ({"blocks": (3,)}, "known are"),
        ({"classes": 0}, "must be positive"),
        ({"stages": (StageSpace((6,)),)}, "dimension 6 is no multiple of 4"),
        ({"stages": (StageSpace((8,), encoders=(Encoder(0.0),)),)}, "mlp_ratio is 0.0"),
    ],
)
def test_choices_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(SPACE, **change)


def test_the_grain_serves_words_and_heads() -> None:
    assert SPACE.grain == 4
    assert math.lcm(4, 3) == dataclasses.replace(SPACE, heads=(3,), stages=(StageSpace((12,)),)).grain
