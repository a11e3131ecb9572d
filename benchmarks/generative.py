"""Generative tickets: a step under masks or with channels cut out, and what measuring costs.

A training step of DCGAN at 28x28, of VGG-11 too, with half of the channels cut out of the network
(`channel-early-bird`) and with the same ones masked, against dense.

The Frechet distance of 10,000 against 10,000 vectors of 128 features, from the features to the
figure, against the published form with `scipy.linalg.sqrtm`; then the distance alone, of moments
that both were given. Precision, recall, density and coverage of 10,000 against 10,000 vectors of
64 features against the straightforward form, which holds three matrices of distances; each in a
process of its own, memory above what the imports take.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import shrink
import torch
from measure import Row, compared, cpu_seconds, interleaved, peak, resident, speedup
from scipy.linalg import sqrtm
from torch import Tensor

N, WIDE, NARROW = 10_000, 128, 64


def drawn(width: int, seed: int) -> Tensor:
    """Return correlated features (10,000, width), a little elsewhere for every seed."""
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(N, width, generator=rng) @ torch.randn(width, width, generator=rng)
    return mixed / width**0.5 + 0.1 * seed


# -- metrics of generated images ---------------------------------------------------------------


def metrics() -> list[Row]:
    """Compare both metrics with what one would write."""
    return [*distances(), *manifolds()]


def distances() -> list[Row]:
    """Time the Frechet distance, and say how far it is from scipy's."""
    from lth_zoo.tasks.generation_metrics import Moments, frechet

    real, fake = drawn(WIDE, 0), drawn(WIDE, 1)
    moments = Moments.of(real), Moments.of(fake)
    given = [(m.mean.numpy(), m.covariance.numpy()) for m in moments]

    def ours() -> float:
        return frechet(Moments.of(real), Moments.of(fake))

    def other() -> float:
        wide = (x.double().numpy() for x in (real, fake))
        return published(*((x.mean(0), np.cov(x, rowvar=False)) for x in wide))

    arms = {
        "ours": lambda: cpu_seconds(ours),
        "other": lambda: cpu_seconds(other),
        "ours alone": lambda: cpu_seconds(frechet, *moments),
        "other alone": lambda: cpu_seconds(published, *given),
    }
    times = interleaved(arms, rounds=11)
    apart = abs(ours() - other()) / other()
    name = "Frechet distance, 10,000 x 128, against scipy's sqrtm"
    return [
        compared(name, times["ours"], times["other"], target=1),
        compared(f"{name}: of given moments", times["ours alone"], times["other alone"], target=1),
        Row(f"{name}: relative difference", apart, target=1e-6),
    ]


def published(real: tuple[np.ndarray, np.ndarray], fake: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the Frechet distance with a root of the product of the covariances."""
    (m, a), (n, b) = real, fake
    root = sqrtm(a @ b)
    return float(((m - n) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root).real)


def manifolds() -> list[Row]:
    """Compare memory and time of the four shares, and the shares themselves."""
    ours, other = (alone(arm) for arm in ("blocked", "whole"))
    name = "precision, recall, density, coverage, 10,000 x 64"
    apart = max(abs(ours["found"][key] - other["found"][key]) for key in other["found"])
    return [
        Row(f"{name}: memory", ours["mb"], unit="MB", target=1000),
        speedup(f"{name}: memory, whole matrices against blocks", ours["mb"], other["mb"], "MB"),
        speedup(f"{name}: time, whole matrices against blocks", ours["s"], other["s"], "s"),
        Row(f"{name}: largest difference", apart, target=1e-12),
    ]


def whole(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Return the four from three whole matrices of distances in float64."""
    real, fake = real.double(), fake.double()
    reals, fakes, between = (
        torch.cdist(real, real),
        torch.cdist(fake, fake),
        torch.cdist(real, fake),
    )
    around_real = reals.kthvalue(k + 1, dim=1).values[:, None]  # the first is the point itself
    around_fake = fakes.kthvalue(k + 1, dim=1).values
    within = between <= around_real
    return {
        "precision": within.any(0).double().mean().item(),
        "recall": (between <= around_fake).any(1).double().mean().item(),
        "density": within.sum(0).double().mean().item() / k,
        "coverage": within.any(1).double().mean().item(),
    }


def blocked(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return the four as we have them."""
    from lth_zoo.tasks.generation_metrics import manifold

    return manifold(real, fake)


ARMS = {"blocked": blocked, "whole": whole}


def alone(arm: str) -> dict[str, Any]:
    """Measure an arm in a process of its own: seconds, megabytes and what it found."""
    command = [sys.executable, __file__, arm]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    answer: dict[str, Any] = json.loads(said.stdout)
    return answer


def bench() -> list[Row]:
    """Measure all of it."""
    return [*shrink.bench(), *metrics()]


def main() -> None:
    """Measure one arm of :func:`manifolds`: ``generative.py ARM``."""
    torch.set_num_threads(1)
    arm = ARMS[sys.argv[1]]
    real, fake = drawn(NARROW, 0), drawn(NARROW, 1)
    arm(real[:100], fake[:100])  # what it imports, and what the libraries set up
    before = resident()
    peak()
    found: dict[str, float] = {}
    seconds = cpu_seconds(lambda: found.update(arm(real, fake)))
    print(json.dumps({"s": seconds, "mb": peak() - before, "found": found}))


if __name__ == "__main__":
    main()
