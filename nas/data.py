"""Labelled images from disk, in the forms in which people keep CIFAR-10, ImageNet-32 and data of their own.

* PNG or JPEG bytes in parquet files ``train-*.parquet`` and ``test-*.parquet`` (columns ``img.bytes``, or a struct
  ``img`` or ``image`` with a field ``bytes``, and ``label``), the layout of the usual mirrors;
* the original python pickles of CIFAR-10, ``data_batch_1`` ... ``data_batch_5`` and ``test_batch``, or those of
  ImageNet-32, ``train_data_batch_1`` ... ``train_data_batch_10`` and ``val_data``, whose classes count from 1, or its
  numpy archives of the same names with ``.npz``;
* an image folder, ``train/<class>/*.png`` and ``test/<class>/*.png``, classes numbered in alphabetical order;
* numpy archives ``train.npz`` and ``test.npz`` with the arrays ``images``, uint8 (count, height, width, channels) of
  any size, and ``labels``. A signal is an image of height 1, its samples in 256 steps, 128 for zero.

This module needs numpy only; pyarrow and pillow are imported when a form asks for them.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from refsim.errors import DataError, located

Split = Literal["train", "test"]

DATA_VARIABLE = "TINYFORMER_DATA"

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_PICKLES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_IMAGENET_BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"train_data_batch_{i}" for i in range(1, 11)),
    "test": ("val_data",),
}
_SUB_FOLDERS = ("cifar10", "cifar-10-batches-py")
_FORMS = (
    "train-*.parquet and test-*.parquet, the python pickles of CIFAR-10 (data_batch_1..5, test_batch) or ImageNet-32 "
    "(train_data_batch_1..10, val_data; .npz too), image folders train/<class>/ and test/<class>/, or train.npz and "
    "test.npz"
)


@dataclass(frozen=True)
class LabelledImages:
    """Images and their classes: `images` uint8 (count, height, width, channels); `labels` int64 (count,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images are {self.images.dtype} {self.images.shape}; uint8 (count, height, width, channels) is needed"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels are {self.labels.dtype} {self.labels.shape}; int64 ({len(self.images)},) is needed, "
                "one label per image"
            )
        if len(self.labels) and self.labels.min() < 0:
            raise DataError(f"label {self.labels.min()} is negative; classes are numbered from 0")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: slice | NDArray[np.integer[Any]]) -> LabelledImages:
        """The images and labels at `index`, in its order."""
        return LabelledImages(self.images[index], self.labels[index])


def to_input(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the networks take: float32 NCHW, (pixel - 128) / 128, from uint8 NHWC.

    Quantised with scale 1/128 and zero point 0, the integer input is exactly pixel - 128.
    """
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(128) - np.float32(1)


def hold_out(data: LabelledImages, count: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split into (the rest, `count` held-out images) after one shuffle with `seed`.

    Raises DataError when fewer than `count` + 1 images are there.
    """
    if not 0 <= count < len(data):
        raise DataError(f"cannot hold out {count} of {len(data)} training images for validation")
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


def draw(data: LabelledImages, count: int, seed: int) -> LabelledImages:
    """The first `count` images after a shuffle with `seed` (all of them, shuffled, when there are fewer)."""
    return data.take(np.random.default_rng(seed).permutation(len(data))[:count])


def load_images(folder: Path | str | None, split: Split) -> LabelledImages:
    """Load one split of the data set in `folder`, in whichever of the forms is there.

    `folder` None means the folder that the environment variable TINYFORMER_DATA names. The data set may also lie one
    level down, in ``cifar10`` or ``cifar-10-batches-py``.

    Raises DataError when the folder is missing, holds none of the forms, or its files are damaged.
    """
    root = _existing_folder(folder)
    for place in (root, *(root / name for name in _SUB_FOLDERS)):
        parquet = sorted(place.glob(f"{split}-*.parquet"))
        if parquet:
            return _from_parquet(parquet)
        if (place / _PICKLES[split][0]).is_file():
            return _from_batches([place / name for name in _PICKLES[split]])
        for ending in ("", ".npz"):
            files = [place / f"{name}{ending}" for name in _IMAGENET_BATCHES[split]]
            if files[0].is_file():
                return _from_batches(files, first_class=1)
        if (place / f"{split}.npz").is_file():
            return _from_archive(place / f"{split}.npz")
        if (place / split).is_dir():
            return _from_folder(place / split)
    raise DataError(f"no {split} images in {root}; supported: {_FORMS}")


def _existing_folder(folder: Path | str | None) -> Path:
    named = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if not named:
        raise DataError(f"no data folder given; name one or set the environment variable {DATA_VARIABLE}")
    root = Path(named)
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist or is not a folder")
    return root


def _missing(package: str, form: str) -> DataError:
    return DataError(f'reading {form} needs {package}; install it with: pip install "tinyformer[nas]"')


def _decode(encoded: Iterable[tuple[str, bytes]]) -> NDArray[np.uint8]:
    """Stack of the decoded images, uint8 (count, height, width, 3), from (name for messages, file contents)."""
    try:
        from PIL import Image, UnidentifiedImageError  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("pillow", "encoded images") from error
    images: list[NDArray[np.uint8]] = []
    for name, data in encoded:
        try:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{name}: not a readable image ({error})") from error
        if images and pixels.shape != images[0].shape:
            raise DataError(
                f"{name}: image is {pixels.shape[1]}x{pixels.shape[0]}, the ones before it are "
                f"{images[0].shape[1]}x{images[0].shape[0]}; all must have one size"
            )
        images.append(pixels)
    return np.stack(images)


def _from_parquet(files: Sequence[Path]) -> LabelledImages:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - the same
    except ImportError as error:
        raise _missing("pyarrow", "parquet files") from error
    encoded: list[tuple[str, bytes]] = []
    labels: list[int] = []
    for file in files:
        try:
            # Flattening turns the struct column `img` into `img.bytes`; a file that has it flat is left as it is.
            table = pq.read_table(file).flatten()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a readable parquet file ({error})") from error
        column = next((name for name in ("img.bytes", "image.bytes") if name in table.column_names), None)
        if column is None or "label" not in table.column_names:
            found = ", ".join(table.column_names)
            raise DataError(f"{file}: columns are {found}; img.bytes and label are needed")
        rows: list[Any] = table.column(column).to_pylist()
        file_labels: list[Any] = table.column("label").to_pylist()
        for row, (data, label) in enumerate(zip(rows, file_labels, strict=True)):
            if not isinstance(data, bytes) or not isinstance(label, int):
                raise DataError(f"{file}, row {row}: an image as bytes and an integer label are needed")
            encoded.append((f"{file}, row {row}", data))
            labels.append(label)
    if not encoded:
        raise DataError(f"{files[0]}: no images in the file")
    return LabelledImages(_decode(encoded), np.array(labels, dtype=np.int64))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers, and nothing that could run code."""

    _ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} does not belong in an image file")
        return super().find_class(module_name, global_name)


def _from_archive(file: Path) -> LabelledImages:
    try:
        with np.load(file) as archive:
            images, labels = archive["images"], archive["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a numpy archive with the arrays images and labels ({error})") from error
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{file}: labels are {labels.dtype}; integers are needed")
    with located(str(file)):
        return LabelledImages(images, labels.astype(np.int64))


def _read_batch(file: Path) -> Any:
    if file.suffix == ".npz":
        with np.load(file) as archive:
            return {"data": archive["data"], "labels": archive["labels"].tolist()}
    with file.open("rb") as stream:
        return _ArrayUnpickler(stream, encoding="bytes").load()


def _from_batches(files: Sequence[Path], first_class: int = 0) -> LabelledImages:
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for file in files:
        try:
            batch = _read_batch(file)
        except FileNotFoundError as error:
            raise DataError(f"{file} is missing; the split consists of {', '.join(f.name for f in files)}") from error
        except (
            pickle.UnpicklingError,
            EOFError,
            OSError,
            AttributeError,
            ImportError,
            IndexError,
            KeyError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            raise DataError(f"{file}: not a readable batch of images ({error})") from error
        if isinstance(batch, dict):  # python 3 writes names as text
            batch = {name.encode() if isinstance(name, str) else name: value for name, value in batch.items()}
        data = batch.get(b"data") if isinstance(batch, dict) else None
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise DataError(
                f"{file}: no uint8 array `data` of shape (count, 3072); this is no batch of CIFAR-10 or ImageNet-32"
            )
        batch_labels = batch.get(b"labels")
        if not isinstance(batch_labels, list) or len(batch_labels) != len(data):
            raise DataError(f"{file}: no list `labels` with one label for each of its {len(data)} images")
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.extend(label - first_class for label in cast(list[int], batch_labels))
    return LabelledImages(np.ascontiguousarray(np.concatenate(images)), np.array(labels, dtype=np.int64))


def _from_folder(folder: Path) -> LabelledImages:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    files = [
        (file, label)
        for label, folder_of_class in enumerate(classes)
        for file in sorted(folder_of_class.iterdir())
        if file.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(f"{folder}: no images in class sub-folders ({', '.join(_IMAGE_SUFFIXES)})")
    encoded = ((str(file), file.read_bytes()) for file, _ in files)
    return LabelledImages(_decode(encoded), np.array([label for _, label in files], dtype=np.int64))
