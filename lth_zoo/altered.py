"""Tasks whose training part is altered: a share of it, or with permuted labels or pixels."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from .errors import BadInput
from .protocols import Split, Task
from .seeds import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def portion(task: Task, share: float) -> Task:
    """Return the task with a fixed random share of its training part, at least one example.

    The subset is the same for every model, arm and seed; a smaller one lies in a larger one.

    Raises:
        BadInput: the training part is one whole, such as a graph, or is dealt by lengths.
    """
    if share == 1:
        return task
    if task.graph() is not None or type(task).epoch is not Task.epoch:
        raise BadInput(
            f"data_fraction is {share}, but the training part of {task.name!r} cannot be cut: "
            "it works where batches are drawn at random"
        )
    import torch

    whole = task.size("train")
    order = torch.randperm(whole, generator=generator(0, "data", "portion"))
    chosen = order[: max(1, round(share * whole))]
    cut, size, batch = copy.copy(task), task.size, task.batch

    def fewer(split: Split) -> int:
        return len(chosen) if split == "train" else size(split)

    def of_chosen(split: Split, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        return batch(split, chosen[indices.cpu()] if split == "train" else indices, rng)

    cut.size, cut.batch = fewer, of_chosen  # type: ignore[method-assign]
    return cut


def with_random_labels(task: Task, seed: int) -> Task:
    """Return the task with its training targets permuted among the examples."""
    import torch

    order = torch.randperm(task.size("train"), generator=generator(seed, "data", "random-labels"))
    corrupted, plain = copy.copy(task), task.batch  # copied once loaded: both share the data

    def batch(split: Split, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        inputs, targets = plain(split, indices, rng)
        return inputs, plain(split, order[indices], None)[1] if split == "train" else targets

    corrupted.batch = batch  # type: ignore[method-assign]
    return corrupted


#: How many orders of pixels there are at most, and how many numbers they may hold together.
ORDERS, NUMBERS = 1024, 2**22


def with_random_pixels(task: Task, seed: int) -> Task:
    """Return the task with the pixels of every training image in an order of its own.

    The channels of a pixel stay together; inputs that are no images have their features in
    another order. Images share an order where there are more than 1024 of them.

    Raises:
        BadInput: the inputs are no one tensor of the task's shape.
    """
    import torch

    check_pixels(task)
    places = math.prod(task.signature.input[-2:])
    count = min(task.size("train"), ORDERS, max(1, NUMBERS // places))
    draws = torch.rand(count, places, generator=generator(seed, "data", "random-pixels"))
    orders = draws.argsort(1)
    corrupted, plain = copy.copy(task), task.batch

    def batch(split: Split, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        inputs, targets = plain(split, indices, rng)
        if split != "train":
            return inputs, targets
        order = orders[indices.cpu() % count].to(inputs.device)
        flat = inputs.reshape(len(inputs), -1, places)
        moved = flat.gather(2, order[:, None].expand_as(flat))
        return moved.reshape(inputs.shape), targets

    corrupted.batch = batch  # type: ignore[method-assign]
    return corrupted


def check_pixels(task: Task) -> None:
    """Assert that a task has labels, and inputs whose pixels may change places.

    Raises:
        BadInput: it has not.
    """
    import torch

    if task.labelled and task.graph() is None:
        inputs = task.batch("train", torch.arange(1))[0]
        shape = tuple(getattr(inputs, "shape", ()))[1:]
        if shape == tuple(task.signature.input) and inputs.is_floating_point():
            return
    raise BadInput(
        f"control 'random-pixels' permutes labels and pixels, and {task.name!r} is no "
        "classification of images"
    )
