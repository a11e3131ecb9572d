"""Metrics of text tasks, all in percent: the headline figures of GLUE.

Each takes numpy arrays (n,) of predictions and of labels. One that is not defined (a
correlation with a constant) is 0, as it is for Matthews by definition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Predicted values whose spread is below this share of their size are rounding noise.
NOISE = 1e-6


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of equal labels."""
    return 100.0 * float((predicted == labels).mean())


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of class 1 against the rest; 0 where class 1 is neither there nor predicted."""
    from sklearn.metrics import f1_score

    return 100.0 * float(f1_score(labels == 1, predicted == 1, zero_division=0))


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return Matthews' correlation; 0 for a constant."""
    from sklearn.metrics import matthews_corrcoef

    return 100.0 * float(matthews_corrcoef(labels, predicted))


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where it is not defined."""
    from scipy.stats import pearsonr

    if constant(predicted) or constant(labels):
        return 0.0
    return _percent(pearsonr(predicted.astype("float64"), labels.astype("float64")).statistic)


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 where it is not defined."""
    from scipy.stats import spearmanr

    if constant(predicted) or constant(labels):
        return 0.0
    return _percent(spearmanr(predicted, labels).statistic)


def constant(predicted: np.ndarray) -> bool:
    """Say whether predictions are one and the same, for values up to rounding noise.

    >>> import numpy as np
    >>> constant(np.array([1, 1, 1])), constant(np.array([0.5, 0.6]))
    (True, False)
    """
    import numpy as np

    if predicted.dtype.kind != "f":
        return bool((predicted == predicted[:1]).all())
    values = predicted.astype(np.float64)
    if not np.isfinite(values).all():
        return True
    return bool(np.ptp(values) <= NOISE * max(1.0, float(np.abs(values).max())))


def _percent(value: float) -> float:
    """Return 100 times a correlation, 0 for not-a-number."""
    return 100.0 * float(value) if value == value else 0.0
