"""The loader reads the three forms of CIFAR-10 without loss and refuses everything else with one clear error."""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.data import LabelledImages, hold_out, load_images, to_input
from refsim.errors import DataError

CLASSES = ("aeroplane", "bird", "cat")


def random_images(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    # Every class is there and labels are sorted, the order in which class folders are read.
    return LabelledImages(images, np.sort(np.arange(count) % len(CLASSES)).astype(np.int64))


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    image = pytest.importorskip("PIL.Image", reason='pillow is not installed: pip install "tinyformer[nas]"')
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_parquet(folder: Path, split: str, data: LabelledImages, column: str = "img") -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "tinyformer[nas]"')
    parquet = importlib.import_module("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in enumerate(np.array_split(np.arange(len(data)), 2)):
        table = pa.table(
            {
                column: [{"bytes": png(data.images[row]), "path": f"{row}.png"} for row in rows],
                "label": [int(data.labels[row]) for row in rows],
            }
        )
        parquet.write_table(table, folder / f"{split}-{part:05d}-of-00002.parquet")


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings with Python 2's opcode, as the original files have them."""

    def _save_string(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch = {**pickle._Pickler.dispatch, bytes: _save_string}  # noqa: RUF012 - as pickle has it


def python2_pickle(batch: dict[bytes, Any]) -> bytes:
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(batch)
    return stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def write_pickles(folder: Path, split: str, data: LabelledImages) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    for name, rows in zip(names, np.array_split(np.arange(len(data)), len(names)), strict=True):
        flat = data.images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
        files = [b"%d.png" % row for row in rows]
        batch = {b"batch_label": b"a batch", b"labels": data.labels[rows].tolist(), b"data": flat, b"filenames": files}
        (folder / name).write_bytes(python2_pickle(batch))


def write_folder(folder: Path, split: str, data: LabelledImages) -> None:
    for index, (pixels, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = folder / split / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:04d}.png").write_bytes(png(pixels))
    (folder / split / "readme.txt").write_text("not an image, not a class")


Writer = Callable[[Path, str, LabelledImages], None]


@pytest.mark.parametrize("write", [write_parquet, write_pickles, write_folder])
@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-py"])
def test_every_form_gives_back_the_images(tmp_path: Path, write: Writer, below: str) -> None:
    train, test = random_images(12, seed=1), random_images(7, seed=2)
    write(tmp_path / below, "train", train)
    write(tmp_path / below, "test", test)
    for found, expected in ((load_images(tmp_path, "train"), train), (load_images(str(tmp_path), "test"), test)):
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int64
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_parquet_column_may_be_called_image(tmp_path: Path) -> None:
    data = random_images(4, seed=3)
    write_parquet(tmp_path, "test", data, column="image")
    np.testing.assert_array_equal(load_images(tmp_path, "test").images, data.images)


def test_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_images(5, seed=4)
    write_pickles(tmp_path, "test", data)
    monkeypatch.setenv("TINYFORMER_DATA", str(tmp_path))
    np.testing.assert_array_equal(load_images(None, "test").images, data.images)
    monkeypatch.delenv("TINYFORMER_DATA")
    with pytest.raises(DataError, match="TINYFORMER_DATA"):
        load_images(None, "test")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        load_images(tmp_path / "nowhere", "train")


def test_folder_without_any_form(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no images here")
    with pytest.raises(DataError, match=r"no train images in .*supported: .*parquet.*pickles.*image folders"):
        load_images(tmp_path, "train")


def test_damaged_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "tinyformer[nas]"')
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: not a readable parquet file"):
        load_images(tmp_path, "test")


def test_parquet_with_other_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path, "test", random_images(4, seed=5), column="picture")
    with pytest.raises(DataError, match=r"columns are picture\.bytes.*img\.bytes and label are needed"):
        load_images(tmp_path, "test")


def test_damaged_image_in_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "tinyformer[nas]"')
    good = png(random_images(1, seed=6).images[0])
    table = pa.table({"img": [{"bytes": good}, {"bytes": good[:100]}], "label": [0, 1]})
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"row 1: not a readable image"):
        load_images(tmp_path, "test")


def test_images_of_different_sizes(tmp_path: Path) -> None:
    write_folder(tmp_path, "test", random_images(3, seed=7))
    (tmp_path / "test" / "cat" / "zz.png").write_bytes(png(np.zeros((16, 24, 3), np.uint8)))
    with pytest.raises(DataError, match=r"zz\.png: image is 24x16, the ones before it are 32x32"):
        load_images(tmp_path, "test")


def test_image_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in class sub-folders"):
        load_images(tmp_path, "train")


def test_missing_pickle_batch(tmp_path: Path) -> None:
    write_pickles(tmp_path, "train", random_images(10, seed=8))
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"data_batch_4 is missing"):
        load_images(tmp_path, "train")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"\x80\x02 truncated", "not a readable batch of images"),
        (b"", "not a readable batch of images"),
        (pickle.dumps([1, 2, 3]), "this is no batch of CIFAR-10"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2), "one label for each"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}, protocol=2), "no uint8 array"),
    ],
)
def test_wrong_pickles(tmp_path: Path, contents: bytes, message: str) -> None:
    (tmp_path / "test_batch").write_bytes(contents)
    with pytest.raises(DataError, match=rf"test_batch: .*{message}"):
        load_images(tmp_path, "test")


def test_pickles_written_by_python_3(tmp_path: Path) -> None:
    data = random_images(5, seed=11)
    flat = data.images.transpose(0, 3, 1, 2).reshape(5, -1)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "test_batch").write_bytes(
            pickle.dumps({b"labels": data.labels.tolist(), b"data": flat}, protocol=protocol)
        )
        np.testing.assert_array_equal(load_images(tmp_path, "test").images, data.images)


def test_imagenet_32(tmp_path: Path) -> None:
    """Ten batches, names as text, classes from 1, means beside the images."""
    data = random_images(20, seed=12)
    flat = data.images.transpose(0, 3, 1, 2).reshape(20, -1)
    for number in range(10):
        part = slice(2 * number, 2 * number + 2)
        batch = {"data": flat[part], "labels": (data.labels[part] + 1).tolist(), "mean": np.zeros(3072)}
        (tmp_path / f"train_data_batch_{number + 1}").write_bytes(pickle.dumps(batch))
    found = load_images(tmp_path, "train")
    np.testing.assert_array_equal(found.images, data.images)
    np.testing.assert_array_equal(found.labels, data.labels)
    (tmp_path / "train_data_batch_10").unlink()
    with pytest.raises(DataError, match="train_data_batch_10 is missing"):
        load_images(tmp_path, "train")


def test_imagenet_32_in_archives(tmp_path: Path) -> None:
    data = random_images(6, seed=12)
    flat = data.images.transpose(0, 3, 1, 2).reshape(6, -1)
    np.savez(tmp_path / "val_data.npz", data=flat, labels=(data.labels + 1).astype(np.int32), mean=np.zeros(3072))
    found = load_images(tmp_path, "test")
    np.testing.assert_array_equal(found.images, data.images)
    np.testing.assert_array_equal(found.labels, data.labels)
    np.savez(tmp_path / "val_data.npz", images=flat)
    with pytest.raises(DataError, match=r"val_data.npz: not a readable batch of images .*data"):
        load_images(tmp_path, "test")


@pytest.mark.parametrize("shape", [(6, 9, 1), (1, 50, 2)])
def test_archives_of_any_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, *shape), dtype=np.uint8), np.arange(5, dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    found = load_images(tmp_path, "test")
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "arrays images and labels"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(2)}, "labels are float64"),
        ({"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros(2, int)}, r"test\.npz: images are float64"),
        (None, "not a numpy archive"),
    ],
)
def test_wrong_archives(tmp_path: Path, arrays: dict[str, Any] | None, message: str) -> None:
    file = tmp_path / "test.npz"
    if arrays is None:
        file.write_bytes(b"PK\x03\x04 and then nothing")
    else:
        np.savez(file, **arrays)
    with pytest.raises(DataError, match=message):
        load_images(tmp_path, "test")


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


def test_pickles_cannot_run_code(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(_Attack(tmp_path / "run")))
    with pytest.raises(DataError, match="does not belong in an image file"):
        load_images(tmp_path, "test")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("package", "file"), [("pyarrow", "test-0.parquet"), ("PIL", "test/cat/0.png")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r'pip install "tinyformer\[nas\]"'):
        load_images(tmp_path, "test")


def test_input_is_the_pixel_minus_128_at_scale_1_128() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    found = to_input(pixels)
    assert found.dtype == np.float32
    assert found.shape == (1, 3, 16, 16)
    np.testing.assert_array_equal(found[0, 1].ravel() * 128, np.arange(256) - 128)


@given(total=st.integers(2, 40), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_hold_out_splits_without_overlap(total: int, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, total - 1))
    images = np.zeros((total, 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(total)
    rest, held = hold_out(LabelledImages(images, np.arange(total, dtype=np.int64)), count, seed)
    assert len(held) == count
    assert sorted([*rest.labels, *held.labels]) == list(range(total))
    for part in (rest, held):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)


def test_hold_out_depends_on_the_seed() -> None:
    data = random_images(60, seed=9)
    first, again, other = (hold_out(data, 20, seed)[1].images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_hold_out_of_everything_is_refused() -> None:
    with pytest.raises(DataError, match="cannot hold out 5 of 5"):
        hold_out(random_images(5, seed=10), 5, seed=0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int64), "images are float32"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64), "count, height, width, channels"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64), "one label per image"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32), "labels are int32"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, -1]), "label -1 is negative"),
    ],
)
def test_labelled_images_check_themselves(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledImages(images, labels)
