"""What a job of kind ``subset-sum`` does: write each weight as a sum of some of n random numbers.

Theory: a network hides in a random one that is wider by a logarithm, since a sum of some of n
uniform numbers comes as near to a value as is wanted, exponentially fast in n (Lueker 1998; Pensia
et al. 2020). da Cunha, Natale & Viennot (ICLR 2022, section 5) measure how fast, with a solver of
mixed-integer programs; here the best subset is found exactly by meeting in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..seeds import derive
from ..session import Session

if TYPE_CHECKING:
    from ..protocols import Split, Task

Array = np.ndarray[Any, Any]
#: Images that the outputs are compared on, of either part.
IMAGES = 1000


def nearest_sums(targets: Array, samples: Array) -> Array:
    """Return the sum of a subset of each row's samples that is nearest to the row's target.

    ``targets`` is (m,) and ``samples`` (m, n), float64; time and memory grow with 2**(n/2). The
    subset is the best there is: one half's sums are sorted, and for each of the other half's the
    two neighbours of what is missing are looked up.
    """
    found = np.empty_like(targets)
    half = samples.shape[1] // 2
    for i, target in enumerate(targets):
        left, right = sums(samples[i, :half]), np.sort(sums(samples[i, half:]))
        missing = target - left
        place = np.searchsorted(right, missing)
        below = left + right[np.maximum(place - 1, 0)]
        above = left + right[np.minimum(place, len(right) - 1)]
        both = np.concatenate([below, above])
        found[i] = both[np.abs(both - target).argmin()]
    return found


def sums(values: Array) -> Array:
    """Return the sums of all subsets, (2**n,), the empty one first."""
    found = np.zeros(1)
    for value in values:
        found = np.concatenate([found, found + value])
    return found


def subset_sum_job(session: Session) -> None:
    """Approximate every parameter of the convolutions; measure the largest errors."""
    config, model = session.config, session.build()
    model.load_state_dict(session.snapshot("state").state)
    stack = convolutions(model)
    rng = np.random.Generator(
        np.random.PCG64(derive(config["seed"], "noise", "subset-sum", config["n"]))
    )
    session.task.to(torch.device("cpu"))  # a training in this process may have moved it
    exact = outputs(model, session.task)
    worst: dict[str, float] = {}
    with torch.no_grad():
        for name, parameter in parameters(stack):
            targets = parameter.double().numpy().ravel()
            samples = rng.uniform(-1, 1, (len(targets), config["n"]))
            near = nearest_sums(targets, samples)
            worst[name] = float(np.abs(near - targets).max() / np.abs(targets).max())
            parameter.copy_(torch.from_numpy(near).view_as(parameter))
    approximate = outputs(model, session.task)
    session.write_json(
        {
            "weights": worst,
            "parameters": sum(p.numel() for _, p in parameters(stack)),
            "outputs": {
                split: ((approximate[split] - out).abs().max() / out.abs().max()).item()
                for split, out in exact.items()
            },
        }
    )


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return a model's convolutions by name, from the input to the output."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def parameters(stack: dict[str, nn.Conv2d]) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of convolutions, by their names in the model."""
    return [
        (f"{name}.{own}", parameter)
        for name, layer in stack.items()
        for own, parameter in layer.named_parameters()
    ]


@torch.no_grad()
def outputs(model: nn.Module, task: Task) -> dict[Split, Tensor]:
    """Return what the last convolution says to the first images of train and test, float64."""
    last, found = list(convolutions(model).values())[-1], list[Tensor]()
    handle = last.register_forward_hook(lambda _module, _inputs, out: found.append(out))
    wide = model.double().eval()
    splits: tuple[Split, ...] = ("train", "test")
    answers: dict[Split, Tensor] = {}
    for split in splits:
        images, _ = task.batch(split, torch.arange(min(IMAGES, task.size(split))))
        wide(images.double())
        answers[split] = found.pop()
    handle.remove()
    return answers
