"""Linear models on standardised features, and rank correlation: what probes learn with and are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """A linear model on standardised features."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of shape [examples, outputs]."""
        outputs: NDArray[np.float64] = (features - self.mean) / self.spread @ self.weight + self.bias
        return outputs


def fit_softmax(
    features: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int, *, penalty: float
) -> Linear:
    """Multinomial logistic regression: the mean cross-entropy + ``penalty`` / 2 · |weight|², at its minimum."""
    mean, spread = _standard(features)
    x, y = torch.from_numpy((features - mean) / spread), torch.from_numpy(labels)
    weight = torch.zeros(x.shape[1], num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Linear(mean, spread, weight.detach().numpy(), bias.detach().numpy())


def fit_ridge(features: NDArray[np.float64], targets: NDArray[np.float64], penalty: float) -> Linear:
    """The mean squared error + ``penalty`` · |weight|², at its minimum."""
    mean, spread = _standard(features)
    x, level = (features - mean) / spread, targets.mean(keepdims=True)
    scatter = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    return Linear(mean, spread, np.linalg.solve(scatter, x.T @ (targets - level) / len(x))[:, None], level)


def _standard(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 0, spread, 1.0)


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Rank correlation, equal values sharing their mean rank; 0 where one side is constant and orders nothing."""
    return correlation_of(ranks_of(one), ranks_of(other))


def correlation_of(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's; 0 where one side is constant."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def ranks_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks
