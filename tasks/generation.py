"""Generation: new images like those of a data set, by autoencoders, VAEs and GANs.

The data is that of an image classification task, and so are the judges: small classifiers trained
on it, whose features say how far generated images are from real ones. What is minimised and
measured follows from the model's kind; see :mod:`~lth_zoo.tasks.generation_losses`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.errors import BadInput
from lth_zoo.protocols import (
    SPLITS,
    Objective,
    Pretraining,
    Signature,
    Split,
    Task,
    Yardstick,
    adapter_of,
    task_of,
)
from lth_zoo.seeds import generator, seeded
from lth_zoo.tasks import generation_looks as looks
from lth_zoo.tasks import generation_losses as losses
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.generation_moments import Moments, maker_of
from lth_zoo.tasks.generation_settings import Settings, kind_of, options_of, part_of, settings_of
from lth_zoo.tasks.images import ImageClassification

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lth_zoo.tasks.generation_judge import Judge

PREFIX = "generation/"
#: Judges; the iterations and batch of their training and the features they compare images in, for
#: images from 16x16 on and below.
JUDGES = 3
LARGE, SMALL = (2000, 128, 64), (500, 64, 32)


class Generation(Task):
    """New images like those of an image data set: ``generation/mnist``, ``generation/image/ID``.

    Options after the name change a model's own objective: ``@hinge``, ``@non-saturating``,
    ``@wasserstein`` (with gradient penalty), ``@bernoulli``, ``@gaussian``, ``@critic-5``
    (discriminator steps a step of the generator), ``@beta-4`` (of the KL), ``@adv-aug``
    (adversarial features, for scarce data). A batch is (n, channels, height, width) in [0, 1].
    """

    headline: ClassVar[str] = "cfd"
    higher_is_better: ClassVar[bool] = False
    margin: ClassVar[float] = 0.1
    relative: ClassVar[bool] = True
    labelled: ClassVar[bool] = False
    augment: ClassVar[bool] = False

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        self.base, *words = name.removeprefix(PREFIX).split("@")
        self.options = options_of(name, words)
        images = task_of(self.base, data) if self.base else None
        if not isinstance(images, ImageClassification):
            raise BadInput(
                f"task {name!r}: {self.base!r} is no image data set; give one, such as "
                "generation/mnist, or generation/image/ID of the hub or a folder"
            )
        self.images = images
        self.teacher: Any = None
        self.moments: Moments | None = None
        self._judges: dict[str, Any] = {}

    def prepared(self, model: str, length: int | None = None) -> Task:
        """Return the task itself, checked against the model.

        Raises:
            BadInput: the model makes no images, or a length is given.
        """
        super().prepared(model, length)
        if not adapter_of(model).generates:
            raise BadInput(
                f"task {self.name!r} needs a model that makes images, and {model!r} makes none: "
                "choose one of the family generative, such as vae or dcgan"
            )
        return self

    def yardstick(self, model: str) -> Yardstick:
        """Return what judges a model of that name: it follows from its kind."""
        with seeded(0, "init"):
            return looks.YARDSTICKS[kind_of(adapter_of(model).build(model, self.signature))]

    # -- data ------------------------------------------------------------------------------------

    @property
    def signature(self) -> Signature:
        """(channels, height, width) in, as many values out."""
        shape = self.images.signature.input
        return Signature(shape, shape[0] * shape[1] * shape[2], "images")

    def fingerprint(self) -> str:
        """Return a hash of the images; options are in the task's name."""
        return hashlib.sha256(f"generation {self.images.fingerprint()}".encode()).hexdigest()

    def size(self, split: Split) -> int:
        """Return the number of images of a split."""
        return self.images.size(split)

    def batch(
        self,
        split: Split,
        indices: Tensor,
        rng: torch.Generator | None = None,  # noqa: ARG002 - the contract
    ) -> Tensor:
        """Return images in [0, 1], (n, channels, height, width) float32."""
        pixels = self.images.splits[split].pixels
        return pixels.index_select(0, indices.to(pixels.device)).float() / self.images.scale

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.images.to(device)

    # -- training --------------------------------------------------------------------------------

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        """Return one loss of an autoencoder, or the two of a GAN, its discriminator's first.

        Raises:
            BadInput: the model has not the networks of its kind, the options do not fit it, or
                there are too few images to judge what it makes.
        """
        set_ = self.settings(model)
        if self.moments is not None:
            maker_of(model)  # there is one, or it is said
            return [Objective("moments", self.moments)]
        if set_.kind == "ae":
            return [Objective("reconstruction", losses.Restoration(set_.loss))]
        self._check_enough()
        if set_.kind == "vae":
            return [Objective("nelbo", losses.Bound(set_.loss, set_.beta))]
        critic = losses.Critic(set_.loss, self.teacher, set_.adversarial)
        maker = losses.Maker(set_.loss, set_.adversarial)
        return [
            Objective(
                "discriminator",
                critic,
                part_of("discriminator"),
                repeats=set_.critic,
                averaged=False,
            ),
            Objective("generator", maker, part_of("generator"), batch="shared"),
        ]

    def _check_enough(self) -> None:
        """Raise unless every part has more images than a judge has features: see `Moments`."""
        needed = (LARGE if self._large else SMALL)[2] + 1
        for split in SPLITS:
            if self.images.size(split) < needed:
                raise BadInput(
                    f"task {self.name!r} has {self.images.size(split)} {split} images; to judge "
                    f"new ones by {needed - 1} features, {needed} or more are needed of each part"
                )

    @property
    def _large(self) -> bool:
        return min(self.images.shape[1:]) >= 16

    def answers(self, model: Any, batch: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Return the images that an autoencoder restores, or a generator draws by ``rng``.

        (n, channels, height, width) in [0, 1]. Without ``rng`` the codes are always the same.
        """
        if kind_of(model) != "gan":
            restored: Tensor = model(batch).sigmoid()
            return restored
        codes = rng or generator(0, "noise", "answers")
        return looks.drawn_from(model, losses.noise(len(batch), model, codes, batch.device))

    def settings(self, model: nn.Module) -> Settings:
        """Return how a model is trained.

        Raises:
            BadInput: see :func:`settings_of`.
        """
        return settings_of(model, self.options, self.name)

    def taught(self, teacher: nn.Module) -> Task:
        """Return the task whose discriminators learn to agree with a trained one.

        Raises:
            BadInput: the teacher has no discriminator.
        """
        if kind_of(teacher) != "gan":
            raise BadInput(f"task {self.name!r}: only a discriminator is taught, and there is none")
        task = copy.copy(self)
        task.teacher = teacher.requires_grad_(False)
        return task

    def matched(self) -> Task:
        """Return the task whose one loss is how far the moments of new images' features are."""
        task = copy.copy(self)
        task.moments = Moments(task)
        return task

    # -- judging ---------------------------------------------------------------------------------

    def judges(self) -> Sequence[Pretraining]:
        """Return the classifiers whose features images are compared in: three seeds."""
        steps, batch, _ = LARGE if self._large else SMALL
        training = {
            "iterations": steps,
            "evaluate_every": steps,
            "batch_size": batch,
            "learning_rate": 1e-3,
        }
        return [Pretraining(self.base, training, seed=i, model="judge") for i in range(JUDGES)]

    def judged_by(self, judges: Mapping[str, Callable[[], Mapping[str, Tensor]]]) -> None:
        """Take in the trained judges; they are loaded, once, when they are first asked."""
        if list(self._judges) != list(judges):
            self._judges.clear()
            self._judges |= {key: (load, None) for key, load in judges.items()}

    def judge(self, number: int = 0) -> Judge:
        """Return a judge, by its number.

        Raises:
            BadInput: none were handed in.
        """
        if not self._judges:
            raise BadInput(
                f"task {self.name!r} has no judges yet: trainings of a store get theirs, and "
                "lth_zoo.judging.judged(task) trains them"
            )
        key = list(self._judges)[number]
        load, judge = self._judges[key]
        if judge is None:
            from lth_zoo.tasks.generation_judge import Judge

            with seeded(0, "init"):
                network = adapter_of("judge").build("judge", self.images.signature)
            network.load_state_dict(load())
            judge = Judge(network, self.images)
            self._judges[key] = (load, judge)
        found: Judge = judge
        return found

    # -- looking ---------------------------------------------------------------------------------

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metrics of a model's kind, ``loss`` (the headline's) among them.

        Looks at the test part are long: 10,000 images, three judges, the importance-weighted
        bound. Of the validation part 2,000 images and one judge.
        """
        with evaluating(model):
            return looks.measured(self, model, split)

    def frechet(
        self, model: nn.Module, features: Callable[[Tensor], Tensor], count: int
    ) -> dict[str, float]:
        """Return the distance of new images to the test part, ``fid``, and its ``floor``."""
        with evaluating(model):
            return looks.frechet(self, model, features, count)

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``collapsed`` for images all alike, ``dead-LOSS`` for a loss without slope."""
        return looks.flags(self, model)

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what a model makes, as uint8: see :func:`generation_looks.pictures`."""
        with evaluating(model):
            return looks.pictures(self, model)
