"""A judge: a trained classifier that says how near generated images are to a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput
from lth_zoo.protocols import Split
from lth_zoo.tasks import generation_metrics as metrics
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.images import ImageClassification, fixed_order

if TYPE_CHECKING:
    from torch import Tensor

#: Images that the network reads at a time; with more, their maps of channels leave the cache.
CHUNK = 200
#: Features whose spread over the train part is below this share of the widest are constant.
CONSTANT = 1e-6


class Judge:
    """Compares images in the features of a classifier that was trained on real ones.

    Features are standardised by mean and spread of the real train part. What is made of the real
    images is computed once. Images are (n, channels, height, width) in [0, 1].

    Args:
        network: a trained classifier of the task; ``network.features(batch)`` is (n, d).
        task: the real images, and how the network reads them.
    """

    def __init__(self, network: Any, task: ImageClassification) -> None:
        self.task = task
        self._device = task.labels("train").device
        self.network = network.to(self._device)
        self._raw: dict[Split, Tensor] = {}
        self._floors: dict[tuple[Split, int], float] = {}

    def features(self, images: Tensor) -> Tensor:
        """Return standardised features, (n, d) float64.

        Raises:
            BadInput: the images have another shape than the data's.
        """
        return self._standardised(self._answers(self.network.features, images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of every class, (n, classes) float64.

        Raises:
            BadInput: the images have another shape than the data's.
        """
        return self._answers(self.network, images).double().softmax(1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the percentage of images that are taken for what their labels (n,) say.

        Raises:
            BadInput: the images have another shape than the data's.
        """
        right = self.probabilities(images).argmax(1) == labels.to(self._device)
        return 100.0 * right.double().mean().item()

    def distance(self, images: Tensor, split: Split) -> float:
        """Return the classifier Frechet distance to as many real images of a split.

        Where there are more images than the split has, the first of them are taken.

        Raises:
            BadInput: the images are too few for the features, of another shape, or not finite.
        """
        return self._distance(*self._pair(images, split))

    def floor(self, split: Split, n: int) -> float:
        """Return the distance between ``n`` real images of the split and ``n`` of the train part.

        It is what the size of the samples leaves of 0: no generator need do better. The train part
        is compared with itself, one half at most with the other.

        Raises:
            BadInput: too few images for the features.
        """
        if (split, n) not in self._floors:
            real, train = self.real(split), self.real("train")
            most = min(n, len(real), len(train) // 2 if split == "train" else len(train))
            self._floors[split, n] = self._distance(real[:most], train[-most:])
        return self._floors[split, n]

    def score(self, images: Tensor, split: Split) -> dict[str, float]:
        """Return what is measured of generated images, against as many real ones of a split.

        ``cfd`` and ``cfd_floor`` (see :meth:`distance` and :meth:`floor`), ``kid``, ``precision``,
        ``recall``, ``density``, ``coverage``, ``entropy`` of the classes they are taken for, and
        the share that is ``memorised``: see :mod:`~lth_zoo.tasks.generation_metrics`.

        Raises:
            BadInput: the images are too few for the features, of another shape, or not finite.
        """
        real, fake = self._pair(images, split)
        return {
            "cfd": self._distance(real, fake),
            "cfd_floor": self.floor(split, len(fake)),
            "kid": metrics.kernel_distance(real, fake),
            **metrics.manifold(real, fake),
            "entropy": metrics.class_entropy(self.probabilities(images[: len(fake)])),
            "memorised": metrics.memorised(self.real("train"), fake),
        }

    def real(self, split: Split) -> Tensor:
        """Return the standardised features of a split, in a fixed order that mixes the classes."""
        return self._standardised(self._features_of(split))

    def _pair(self, images: Tensor, split: Split) -> tuple[Tensor, Tensor]:
        """Return features of as many real images as of generated ones."""
        n = min(len(images), self.task.size(split))
        return self.real(split)[:n], self.features(images[:n])

    def _distance(self, real: Tensor, fake: Tensor) -> float:
        return metrics.frechet(metrics.Moments.of(real), metrics.Moments.of(fake))

    def _standardised(self, features: Tensor) -> Tensor:
        mean, deviation = self._rule
        return (features.double() - mean) / deviation

    @cached_property
    def _rule(self) -> tuple[Tensor, Tensor]:
        """Mean and spread of the real train part's features; a spread of 1 where there is none."""
        train = self._features_of("train").double()
        deviation = train.std(0)
        deviation[deviation <= CONSTANT * deviation.max()] = 1.0
        return train.mean(0), deviation

    def _features_of(self, split: Split) -> Tensor:
        import torch

        if split not in self._raw:
            order = torch.from_numpy(fixed_order(self.task.size(split), seed=0))
            batches = (self.task.batch(split, at)[0] for at in order.split(CHUNK))
            self._raw[split] = self._through(self.network.features, batches)
        return self._raw[split]

    def _answers(self, answer: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        shape, wanted = tuple(images.shape[1:]), tuple(self.task.signature.input)
        if shape != wanted:
            raise BadInput(f"images of {shape} cannot be compared with {self.task.name}'s {wanted}")
        parts = images.detach().to(self._device).split(CHUNK)
        return self._through(answer, map(self.task.scaled, parts))

    def _through(self, answer: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
        import torch

        with evaluating(self.network):
            return torch.cat([answer(batch) for batch in batches])
