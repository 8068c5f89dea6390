"""Classification: accuracy, top-k and confusion matrix of one or several models on the same samples."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.dataset import Batch
from refsim.errors import DataError, located

Inputs = Mapping[str, NDArray[np.float32]]
Scores = NDArray[np.floating[Any]]
Classifier = Callable[[Inputs], Scores]
"""Real inputs (N, *shape) by name to scores (N, classes)."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model classifies labelled samples. The class is the position of the largest score.

    Attributes:
        samples: how many were classified.
        accuracy: share of right answers, in [0, 1].
        top: share of samples whose class is among the k largest scores, by k.
        confusion: int64 (classes, classes): samples of the row's class that were taken for the column's.
    """

    samples: int
    accuracy: float
    top: Mapping[int, float]
    confusion: NDArray[np.int64]

    def records(self) -> list[dict[str, Any]]:
        """One for each class: its samples, recall (share of them found) and precision; nan where there are none."""
        right = np.diag(self.confusion)
        rows, columns = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            {
                "class": index,
                "samples": int(rows[index]),
                "predicted": int(columns[index]),
                "correct": int(right[index]),
                "recall": float(right[index] / rows[index]) if rows[index] else float("nan"),
                "precision": float(right[index] / columns[index]) if columns[index] else float("nan"),
            }
            for index in range(len(right))
        ]


class Counter:
    """Counts a model's answers, batch after batch.

    Args:
        what: the model's name, for errors.
        top: which k to count.

    Attributes:
        classes: int64 (N,), what the last batch was taken for.
    """

    def __init__(self, what: str, top: Sequence[int] = (1, 5)) -> None:
        self.what = what
        self.hits = dict.fromkeys(top, 0)
        self.confusion: NDArray[np.int64] | None = None
        self.classes = np.empty(0, np.int64)

    def add(self, scores: Scores, truth: NDArray[np.int64] | None) -> None:
        """Count the scores (N, classes) of a batch with labels (N,).

        Raises:
            DataError: the scores are no vectors, or the labels are missing or no classes of the model.
        """
        if scores.ndim != 2:
            raise DataError(
                f"accuracy needs one score for each class, but the {self.what} gives an output of {scores.shape}"
            )
        if truth is None:
            raise DataError("the samples hold no array 'labels': accuracy needs one label for each sample")
        count = scores.shape[1]
        if truth.min() < 0 or truth.max() >= count:
            raise DataError(
                f"labels must lie in [0, {count - 1}], the classes of the {self.what}, found {truth.min()} to "
                f"{truth.max()}"
            )
        self.classes = np.asarray(scores.argmax(axis=1), np.int64)
        if self.confusion is None:
            self.confusion = np.zeros((count, count), np.int64)
        np.add.at(self.confusion, (truth, self.classes), 1)
        # A tie goes to the earlier class, as argmax decides it.
        own = scores[np.arange(len(truth)), truth][:, None]
        ahead = (scores > own).sum(axis=1) + ((scores == own) & (np.arange(count) < truth[:, None])).sum(axis=1)
        for k in self.hits:
            self.hits[k] += int((ahead < k).sum())

    def result(self) -> Evaluation:
        """What was counted.

        Raises:
            DataError: there were no samples.
        """
        if self.confusion is None:
            raise DataError("the dataset holds no samples")
        samples = int(self.confusion.sum())
        return Evaluation(
            samples,
            float(np.trace(self.confusion) / samples),
            {k: hits / samples for k, hits in self.hits.items()},
            self.confusion,
        )


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Several models on the same samples.

    Attributes:
        by_name: of each model.
        agreement: share of samples on which the model gives the same class as the first one, by name.
    """

    by_name: Mapping[str, Evaluation]
    agreement: Mapping[str, float]


def evaluate(
    classifiers: Mapping[str, Classifier],
    batches: Iterable[Batch],
    *,
    top: Sequence[int] = (1, 5),
    count: Callable[[int], None] = lambda samples: None,
) -> Evaluations:
    """Classify the same samples with several models.

    Args:
        classifiers: by name; the first is the one that the others are compared with.
        batches: labelled samples.
        top: which k of top-k to count.
        count: called with the number of samples done since the last call.

    Raises:
        DataError: labels are missing or do not fit, or an output is no vector of scores.
    """
    counters = {name: Counter(name, top) for name in classifiers}
    first = next(iter(counters.values()))
    same = dict.fromkeys(counters, 0)
    for batch in batches:
        for name, classify in classifiers.items():
            with located(name):
                scores = classify(batch.inputs)
            counters[name].add(scores, batch.labels)
            same[name] += int((counters[name].classes == first.classes).sum())
        count(len(batch))
    found = {name: counter.result() for name, counter in counters.items()}
    return Evaluations(found, {name: same[name] / found[name].samples for name in found})
