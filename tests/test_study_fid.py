"""The study of Inception's distance, with a small scripted network in the place of Inception."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import HERE, tiny_recipe

from lth_zoo.errors import BadInput, DataError
from lth_zoo.given import judges_of
from lth_zoo.probes.inception import features_by, prepared
from lth_zoo.protocols import task_of
from lth_zoo.store import Store
from lth_zoo.studies.fid import FID
from lth_zoo.studies.run import run_study
from lth_zoo.tasks import generation

GAN = {
    **{"model": "dcgan-8x0.1", "task": "generation/digits", "sparsity": 0.5, "seeds": (0, 1)},
    "training": {"iterations": 2, "batch_size": 8, "evaluate_every": 2},
}


class Small(nn.Module):
    """Five features of images as Inception gets them: uint8, three channels, 299 pixels a side."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8
        assert x.size(1) == 3
        assert x.size(3) == 299
        grid = nn.functional.adaptive_avg_pool2d(x[:, 0].float(), (1, 5))
        return grid.flatten(1) if return_features else x.float().mean()


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "inception.pt"
    torch.jit.script(Small()).save(path)
    features_by.cache_clear()
    return str(path)


def test_images_are_resized_made_rgb_and_uint8():
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    found = prepared(images)
    assert found.shape == (2, 3, 299, 299)
    assert (found[0].unique().tolist(), found[1].unique().tolist()) == ([0], [255])


def test_the_study_reads_a_scripted_network_and_knows_what_real_images_score(
    network, tmp_path, monkeypatch
):
    monkeypatch.setattr(generation, "SMALL", (10, 64, 32))
    judges_of.cache_clear()
    recipe = tiny_recipe(**GAN)
    found = run_study(FID(inception=network, images=100), recipe, Store(tmp_path / "s"), HERE)
    assert not found.outcome.failed
    data = found.answer.data
    worst = min(v for row in data["rows"] for v in row["values"].values())
    assert worst > 20 * data["floor"] > 0  # two iterations make no digits
    assert data["rows"][0]["arm"] == "dense"
    judges_of.cache_clear()


def test_the_distance_is_that_of_the_features_by_hand(network):
    task, model = task_of("generation/digits"), nn.Module()
    model.kind, model.latent = "gan", 3

    class Copy(nn.Module):
        """A generator that says the test images again: its distance is 0."""

        def forward(self, codes: Tensor) -> Tensor:
            at = self.at
            self.at += len(codes)
            return torch.logit(task.batch("test", torch.arange(at, self.at)).clamp(1e-6, 1 - 1e-6))

    model.generator = Copy()
    model.generator.at = 0
    model.register_parameter("nothing", nn.Parameter(torch.zeros(1)))
    found = task.frechet(model, features_by(network), 200)
    assert found["images"] == 200
    assert found["fid"] == pytest.approx(0, abs=1e-6 * 255**2)
    assert found["floor"] > found["fid"]


def test_what_cannot_be_is_said_before_anything_runs(network, tmp_path):
    with pytest.raises(BadInput, match=r"'lenet-300-100x0.1' makes none: choose a recipe"):
        FID(inception=network).lay_out(tiny_recipe(), None)
    with pytest.raises(DataError, match=r"nothing\.pt' is no file"):
        FID(inception=str(tmp_path / "nothing.pt")).lay_out(tiny_recipe(**GAN), None)
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(DataError, match="is no TorchScript file"):
        FID(inception=str(tmp_path / "text.pt")).lay_out(tiny_recipe(**GAN), None)
    with pytest.raises(BadInput, match="compares 5 images in 5 features: there must be more"):
        FID(inception=network, images=5).lay_out(tiny_recipe(**GAN), None)
    with pytest.raises(BadInput, match="makes no images"):
        task_of("digits").frechet(nn.Linear(1, 1), features_by(network), 10)


def test_without_the_library_its_network_is_refused_with_the_way_out():
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        with pytest.raises(BadInput, match=r"pip install 'lth_zoo\[fid\]', or give a TorchScript"):
            FID().lay_out(tiny_recipe(**GAN), None)
    else:
        pytest.skip("torch-fidelity is installed")
