"""The primitives' row: every function has its definition and arguments, C agrees, and a wrong last bit is found."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ckernels
from conformance import vectors
from conformance.layout import lay_out
from conformance.opinion import Opinion
from conformance.opinion.primitives import DEFINITIONS
from conformance.places import ARENA_BYTES, HostPlace, Library
from conformance.primitives import GOLDEN, PRIMITIVES, SOURCE, Primitive, functions, rows_of
from conformance.runner import choose_relations, choose_subjects
from conformance.strategies import Case
from conformance.strategies.primitives import ARGUMENTS, ROWS, Drawing
from conformance.suite import compare, run_operator
from refsim.errors import ShapeError, UnsupportedError
from refsim.ops import OPERATORS


@pytest.fixture(scope="module")
def host() -> Iterator[HostPlace]:
    place = HostPlace("host", Library((), callers=(SOURCE,)))
    yield place
    place.close()


def test_every_function_has_a_definition_and_arguments() -> None:
    assert list(DEFINITIONS) == list(ARGUMENTS) == list(functions())
    assert set(GOLDEN) <= set(DEFINITIONS)


@pytest.mark.parametrize("function", functions())
def test_c_the_golden_model_and_the_definition_agree(function: str, host: HostPlace) -> None:
    primitive = Primitive(function)
    words = ARGUMENTS[function](Drawing(7))
    assert words.shape == (ROWS, primitive.words)
    case = Case(primitive, (rows_of(words),))
    golden = primitive.run(*case.inputs)
    assert golden.shape == (1, *primitive.output_shape(*case.shapes))
    assert len(lay_out(primitive.call(*case.shapes), case.inputs, golden.size, None, 0).image) <= ARENA_BYTES
    for place in (host, Opinion()):
        assert compare(case, golden[0], place) is None
    assert len(np.unique(golden[0], axis=0)) > 1


def test_words_lie_with_their_lowest_byte_first() -> None:
    x = rows_of(np.array([[2**31 - 1, 1], [-(2**31), -1], [2**32 - 1, 2]]))
    assert x.view(np.uint8).tolist()[0][0] == [255, 255, 255, 127, 1, 0, 0, 0]
    y = Primitive("qadd").run(x)
    assert y.view("<i4").ravel().tolist() == [2**31 - 1, -(2**31), 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [("720401, 242", "720401, 243"), ("1515870810", "1515870811"), ("root -= 1u;\n    }\n    return", "}\n    return")],
)
def test_a_wrong_last_bit_is_found_and_saved(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.exploration.SHRINK_SECONDS", 0.0)
    include = tmp_path / "include"
    shutil.copytree(ckernels.include_dir(), include)
    header = include / "tinyformer" / "numerics.h"
    text = header.read_text(encoding="utf-8")
    assert text.count(old) == 1
    header.write_text(text.replace(old, new), encoding="utf-8")
    place = HostPlace("host", Library((), include, (SOURCE,)))
    try:
        (outcome,) = run_operator(PRIMITIVES, [place], count=150, seed=0, failures=tmp_path / "failures")
        assert outcome.mismatches > 0
        assert outcome.vector is not None
        vector = vectors.load(outcome.vector)
        assert isinstance(vector.case.op, Primitive)
        assert compare(vector.case, vector.golden, place) is not None
    finally:
        place.close()


def test_primitives_are_a_row_beside_the_operators() -> None:
    assert choose_subjects([]) == [*OPERATORS, PRIMITIVES]
    assert choose_subjects([PRIMITIVES]) == [PRIMITIVES]
    assert choose_relations([], [PRIMITIVES]) == {}


def test_what_is_no_primitive_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no primitive 'fft'; there are clamp, "):
        Primitive("fft")
    with pytest.raises(ShapeError, match="rows of 8 bytes, found 4"):
        Primitive("qadd").output_shape((3, 4))
