"""Sample files: what is read, how pixels are prepared, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from refsim.errors import DataError
from refsim.samples import Preprocessing, labels, model_inputs, read_archive

NCHW = {"x": (3, 4, 5)}
IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_pixels_are_prepared_and_turned_to_the_model_layout() -> None:
    found = model_inputs({"images": IMAGES}, NCHW, Preprocessing(100, 50))["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (IMAGES.transpose(0, 3, 1, 2).astype(np.float32) - 100) / 50)
    same = model_inputs({"images": IMAGES}, {"x": (4, 5, 3)}, Preprocessing())["x"]
    np.testing.assert_array_equal(same, (IMAGES.astype(np.float32) - 128) / 128)


def test_floats_are_taken_as_they_are() -> None:
    real = np.linspace(-3, 3, 120).reshape(2, 3, 4, 5)
    for name in ("inputs", "x", "images"):
        np.testing.assert_array_equal(model_inputs({name: real}, NCHW, Preprocessing())["x"], real.astype(np.float32))


def test_key_chooses_the_array_and_several_inputs_go_by_name() -> None:
    one, two = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert model_inputs({"inputs": one, "other": two}, {"x": (3,)}, Preprocessing(), "other")["x"][0, 0] == 1
    found = model_inputs({"a": one, "b": two}, {"b": (3,), "a": (3,)}, Preprocessing())
    assert (found["a"][0, 0], found["b"][0, 0]) == (0, 1)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ({}, "no array 'x' or 'inputs' or 'images' for input 'x', found none"),
        ({"images": IMAGES[:, :3]}, r"must have the shape \(N, 3, 4, 5\), found \(2, 3, 3, 5\)|found"),
        ({"images": IMAGES.astype(np.int32)}, "must be uint8 pixels or floating point, found int32"),
        ({"inputs": np.zeros((0, 3, 4, 5), np.float32)}, "at least 1"),
        ({"inputs": np.float32(1)}, "must have the shape"),
    ],
)
def test_samples_that_do_not_fit_are_refused(archive: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        model_inputs({k: np.asarray(v) for k, v in archive.items()}, NCHW, Preprocessing())


def test_preprocessing_needs_a_deviation() -> None:
    with pytest.raises(DataError, match="must be positive, found 0"):
        Preprocessing(0, 0)


def test_labels_are_checked() -> None:
    np.testing.assert_array_equal(labels({"labels": np.array([3, 1], np.uint8)}, 2), [3, 1])
    for archive, message in (
        ({}, "no array 'labels'"),
        ({"labels": np.zeros(3, int)}, "2 integers"),
        ({"labels": np.zeros(2)}, "2 integers"),
    ):
        with pytest.raises(DataError, match=message):
            labels(archive, 2)


def test_unreadable_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_archive(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match="no .npz archive"):
        read_archive(tmp_path / "text.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        read_archive(tmp_path / "single.npy")
    np.savez(tmp_path / "objects.npz", images=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no .npz archive of plain arrays"):
        read_archive(tmp_path / "objects.npz")
    np.savez(tmp_path / "good.npz", images=IMAGES)
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="no .npz archive"):
        read_archive(tmp_path / "cut.npz")
