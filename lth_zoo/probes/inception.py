"""What a job of kind ``fid`` does: measure a trained generator by the Inception network's features.

The network is not in this package. It is a TorchScript file that maps uint8 images
(n, 3, height, width) to features (n, d), such as StyleGAN's ``inception-2015-12-05.pt``; or
torchmetrics' own, from its weights file or its download.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput, DataError
from ..session import Session

#: Images that the network reads at a time.
CHUNK = 64
#: Pixels a side that Inception reads.
SIDE = 299


def fid_job(session: Session) -> None:
    """Write the Frechet distance of new images to the test images, and its floor."""
    config, model = session.config, session.build()
    model.load_state_dict(session.snapshot("state").state)
    model.to(session.execution.device)
    task = session.task
    task.to(torch.device(session.execution.device))
    read = features_by(config["path"])
    session.write_json(task.frechet(model, read, config["images"]))


@lru_cache(maxsize=1)
def features_by(path: str) -> Callable[[Tensor], Tensor]:
    """Return what reads features (n, d) off images (n, channels, height, width) in [0, 1].

    ``path`` is a TorchScript file, torchmetrics' weights (``.pth``), or empty: its download.

    Raises:
        BadInput: torchmetrics' network is asked for and its library is not installed.
        DataError: the file cannot be read, or does not answer (n, d).
    """
    network = _scripted(path) if path and not path.endswith(".pth") else _torchmetrics(path)

    @torch.no_grad()
    def read(images: Tensor) -> Tensor:
        return torch.cat([network(prepared(part)) for part in images.split(CHUNK)]).double()

    return read


def prepared(images: Tensor) -> Tensor:
    """Return images as Inception reads them: three channels, 299 pixels a side, uint8."""
    wide = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    size = (SIDE, SIDE)
    resized = F.interpolate(wide, size, mode="bilinear", align_corners=False, antialias=True)
    return (255 * resized).round().clamp(0, 255).to(torch.uint8)


def _scripted(path: str) -> Callable[[Tensor], Tensor]:
    if not Path(path).is_file():
        raise DataError(f"study.inception {path!r} is no file")
    try:
        network = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"study.inception {path!r} is no TorchScript file ({str(error).splitlines()[0]}); "
            "weights of torchmetrics' network end in .pth"
        ) from error

    def read(images: Tensor) -> Tensor:
        try:
            found = network.to(images.device)(images, return_features=True)
        except RuntimeError:  # the switch is of StyleGAN's file
            found = network.to(images.device)(images)
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise DataError(f"study.inception {path!r} answers no features (n, d)")
        return found

    return read


def _torchmetrics(path: str) -> Callable[[Tensor], Tensor]:
    if path and not Path(path).is_file():
        raise DataError(f"study.inception {path!r} is no file")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], path or None)
    except ModuleNotFoundError as error:
        raise BadInput(
            "the Inception network of torchmetrics is not installed: pip install 'lth_zoo[fid]', "
            "or give a TorchScript file as --study.inception"
        ) from error

    def read(images: Tensor) -> Tensor:
        found: Tensor = network.to(images.device)(images)
        return found

    return read
