"""Building what is probed: names, weights, checkpoints, preprocessing, and every way to get it wrong."""

from __future__ import annotations

import os
import random
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from bnprobe import zoo
from bnprobe.errors import BadCheckpoint, BnprobeError, UnknownModel
from bnprobe.images import demo_images, find_images

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
TINY = "mobilenet_v3_small"  # builds in a tenth of a second


@pytest.fixture(autouse=True)
def _offline(tmp_path_factory, monkeypatch):
    """No test may download: an empty cache, and every download fails at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
    monkeypatch.setattr(torch.hub, "urlopen", _no_network)


def _no_network(*_: object, **__: object) -> object:
    raise OSError("no route to host")


@pytest.fixture
def picture():
    """A photograph's stand-in: 300 x 200, all values different in x and y and colour."""
    ramp = Image.linear_gradient("L").resize((300, 200))
    return Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize((300, 200))))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module in the current folder; returns its name, unlike any other test's."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name}"
    yield lambda text: (tmp_path / f"{name}.py").write_text(text) and name
    sys.modules.pop(name, None)


LINEAR = (
    "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))\n"
)


def raised(kind: type[Exception], match: str, *args: object, **options: object) -> str:
    """What `zoo.subject` says when refused; always one line."""
    with pytest.raises(kind, match=match) as error:
        zoo.subject(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def refused(path: Path, match: str) -> str:
    """What `zoo.load_checkpoint` says when refused; always one line, with the file's name."""
    with pytest.raises(BadCheckpoint, match=match) as error:
        zoo.load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    return str(error.value)


def changed_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict no initialization would make: every number moved."""
    return {
        key: value + 1 if value.is_floating_point() else value for key, value in model.state_dict().items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("pattern", "has", "lacks"),
    [
        ("NET5", "resnet50", "resnet18"),
        ("resnet1?", "resnet18", "resnet101"),
        (None, "raft_small", "resnet5"),
    ],
)
def test_names_take_a_part_or_a_glob(pattern, has, lacks):
    """Fails if a glob is taken as a substring or the other way round."""
    found = zoo.names(pattern)
    assert has in found
    assert lacks not in found
    assert found == sorted(found)


def test_names_of_nothing_are_none():
    assert zoo.names("no such thing") == []


def test_unknown_name_offers_neighbours():
    said = raised(UnknownModel, r"Did you mean resnet50.*`bnprobe list` shows all", "resnet5")
    assert said.startswith('"resnet5"')


def test_name_like_nothing_still_says_what_to_do():
    said = raised(UnknownModel, "bnprobe list.*package.module:function", "zzzzzz")
    assert "Did you mean" not in said


def test_capitals_in_a_name_are_understood():
    assert zoo.subject("SqueezeNet1_1").name == "torchvision squeezenet1_1"


# ---------------------------------------------------------------- random weights


def test_random_weights_are_the_same_every_time_and_say_so():
    """Fails if the seed is not set: builds would follow the caller's random state."""
    torch.manual_seed(1)
    first = zoo.subject(TINY)
    torch.manual_seed(2)
    second = zoo.subject(TINY)
    assert same(first.model.state_dict(), second.model.state_dict())
    assert first.weights == "random initial weights (seed 0)"
    assert not any(module.training for module in first.model.modules())


def test_building_leaves_every_random_state_alone():
    """Fails if building draws from, or seeds, a generator of the caller."""
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    zoo.subject(TINY)
    zoo.demo()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("googlenet", [(2, 3, 224, 224)]),
        ("inception_v3", [(2, 3, 299, 299)]),
        ("vit_b_32", [(2, 3, 224, 224)]),
        ("quantized_shufflenet_v2_x0_5", [(2, 3, 224, 224)]),
        ("raft_small", [(2, 3, 256, 256)] * 2),
        ("s3d", [(2, 3, 14, 224, 224)]),
        ("lraspp_mobilenet_v3_large", [(2, 3, 520, 520)]),
    ],
)
def test_every_kind_of_model_takes_its_inputs(name, shape, picture):
    """Fails if a kind of model gets inputs it refuses, or images of two shapes cannot share a batch."""
    subject = zoo.subject(name)
    inputs = subject.to_inputs(
        [subject.preprocess(picture), subject.preprocess(picture.rotate(90, expand=True))]
    )
    assert [tuple(part.shape) for part in inputs] == shape
    with torch.no_grad():
        subject.model(*inputs)


def test_detection_takes_a_list_of_whole_images(picture):
    """Fails if detection images are stacked or cropped, or their backbone is downloaded."""
    subject = zoo.subject("ssdlite320_mobilenet_v3_large")
    images = [subject.preprocess(picture), subject.preprocess(picture.resize((90, 70)))]
    (inputs,) = subject.to_inputs(images)
    assert [tuple(image.shape) for image in inputs] == [(3, 200, 300), (3, 70, 90)]
    with torch.no_grad():
        assert len(subject.model(inputs)) == 2
    assert "list of whole images" in subject.inputs_words


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_backbones_are_not_downloaded(name):
    """Fails if weights_backbone is left at its default: the offline fixture would raise."""
    assert zoo.subject(name).weights.startswith("random")


def test_clip_repeats_one_frame(picture):
    """Fails if the repeated axis is not time, or frames of different images mix."""
    subject = zoo.subject("r3d_18")
    first, second = subject.preprocess(picture), subject.preprocess(picture.rotate(180))
    (clip,) = subject.to_inputs([first, second])
    assert clip.shape == (2, 3, 16, 112, 112)
    assert all(torch.equal(clip[0, :, frame], first) for frame in range(16))
    assert torch.equal(clip[1, :, 5], second)
    assert "clip of 16 frames" in subject.inputs_words


def test_clip_frames_are_prepared_as_torchvision_prepares_videos(picture):
    """Fails if a frame goes through anything but the weights' own video transforms."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    expected = models.video.R3D_18_Weights.DEFAULT.transforms()(pixels[None])
    assert torch.equal(zoo.subject("r3d_18").preprocess(picture), expected[:, 0])


def test_flow_pairs_each_image_with_the_next(picture):
    """Fails if an image is paired with itself, which flow models see as no motion at all."""
    subject = zoo.subject("raft_small")
    images = [subject.preprocess(picture.rotate(angle)) for angle in (0, 90, 180)]
    first, second = subject.to_inputs(images)
    assert torch.equal(first, torch.stack(images))
    assert torch.equal(second, torch.stack([images[1], images[2], images[0]]))
    alone, moved = subject.to_inputs(images[:1])
    assert torch.equal(moved[..., 8:, 8:], alone[..., :-8, :-8])
    assert not torch.equal(moved, alone)
    assert first.min() >= -1
    assert first.max() <= 1


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("name", ["resnet50", TINY])
def test_preprocessing_is_the_default_weights_own(name, picture):
    """Fails if random weights get other preprocessing than the default weights (232 px, not 256, for resnet50)."""
    subject = zoo.subject(name)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    assert torch.equal(subject.preprocess(picture), transforms(picture))
    assert f"{transforms.resize_size[0]} px" in subject.preprocess_words
    assert "mean (0.485, 0.456, 0.406)" in subject.preprocess_words
    assert subject.inputs_words == ""


def test_changed_numbers_replace_the_weights_own(picture):
    """Fails if an override is dropped, or drags the other numbers to the general guess."""
    subject = zoo.subject("resnet50", size=160, mean=(0.5, 0.4, 0.3))
    expected = zoo.CropAndScale(size=160, resize=160, mean=(0.5, 0.4, 0.3))
    assert torch.equal(subject.preprocess(picture), expected(picture))
    assert "160 x 160" in subject.preprocess_words
    assert "(size, mean as given)" in subject.preprocess_words


def test_changed_numbers_are_refused_where_the_model_sets_them():
    raised(BnprobeError, "raft_small takes no size of yours.*Leave it out", "raft_small", size=64)


@pytest.mark.parametrize(
    "numbers",
    [{"mean": (0.5,)}, {"std": (1, 1, 0)}, {"mean": (0.1, 0.2), "std": (1, 1)}, {"std": (-1, 1, 1)}],
)
def test_numbers_that_do_not_go_together_are_refused(numbers):
    raised(BnprobeError, "give three of each.*or one of each", TINY, **numbers)


def test_size_must_be_positive():
    raised(BnprobeError, "side of the input in pixels, at least 1", TINY, size=0)


def test_crop_and_scale_has_a_slow_twin(picture):
    """Fails if resize, crop, scale or normalization happen in another order or to another size."""
    crop = zoo.CropAndScale(size=96, resize=100, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    resized = picture.resize((150, 100), Image.Resampling.BILINEAR).crop((27, 2, 123, 98))
    expected = (np.array(resized) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(crop(picture).permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_image_of_the_right_size_is_not_resampled(picture):
    """Fails if a 32 x 32 image is filtered on its way to 32 x 32."""
    image = picture.resize((32, 32))
    values = zoo.CropAndScale(size=32, resize=32, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert torch.equal((values * 255).round().byte().permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_one_mean_makes_one_grey_channel(picture, own):
    subject = zoo.subject(f"{own(LINEAR)}:build", size=28, mean=(0.5,), std=(0.5,))
    assert subject.preprocess(picture).shape == (1, 28, 28)
    assert subject.preprocess_words.startswith("one grey channel")


# ---------------------------------------------------------------- named weights


def put_in_cache(name: str, state: object) -> Path:
    """Save `state` where torchvision looks for the default weights of `name`."""
    url = models.get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


@pytest.mark.parametrize(
    "weights", ["DEFAULT", "IMAGENET1K_V1", "imagenet1k_v1", "ResNet18_Weights.IMAGENET1K_V1"]
)
def test_weights_load_by_torchvisions_own_code(weights):
    """Fails if named weights are not those of the file in torch's cache."""
    state = changed_weights(models.resnet18())
    file = put_in_cache("resnet18", state)
    subject = zoo.subject("resnet18", weights=weights)
    assert same(subject.model.state_dict(), state)
    assert not subject.model.training
    assert subject.weights.startswith(f"IMAGENET1K_V1 from {file.name}, sha256 ")


def test_weights_keep_what_torchvision_sets_beside_tensors():
    """Fails if weights are loaded into the plain network: GoogLeNet's transform_input would be off."""
    plain = models.googlenet(init_weights=True)
    put_in_cache("googlenet", changed_weights(plain))
    assert zoo.subject("googlenet", weights="DEFAULT").model.transform_input
    assert not zoo.subject("googlenet").model.transform_input


def test_provenance_is_the_files_own_hash():
    """Fails if the hash in the file's name is repeated without looking at the file."""
    file = put_in_cache("resnet18", models.resnet18().state_dict())
    words = zoo.subject("resnet18", weights="DEFAULT").weights
    assert zoo._sha256(file)[:8] in words
    assert words.endswith("(not the one its name promises)")


def test_quantizable_models_take_float_weights():
    """Fails if quantized weights are asked for: their norms are folded away."""
    state = models.shufflenet_v2_x0_5().state_dict()
    put_in_cache("shufflenet_v2_x0_5", state)
    assert same(zoo.subject("quantized_shufflenet_v2_x0_5", weights="DEFAULT").model.state_dict(), state)


def test_missing_weights_name_the_file_and_the_ways_round(capsys):
    """Fails if being offline gives a traceback, a progress bar, or no way out."""
    said = raised(
        BadCheckpoint, "by hand.*--checkpoint FILE.*leave out --weights", "resnet50", weights="DEFAULT"
    )
    assert "resnet50-11ad3fa6.pth" in said
    assert str(Path(torch.hub.get_dir(), "checkpoints")) in said
    assert "no route to host" in said
    assert capsys.readouterr() == ("", "")
    assert list(Path(torch.hub.get_dir(), "checkpoints").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_unknown_weights_list_the_known():
    raised(UnknownModel, "It has: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT", "resnet50", weights="V9")


def test_cached_weights_that_run_code_are_refused(tmp_path, monkeypatch):
    """Fails if torchvision's loading unpickles what lies in the cache, as it does by itself."""
    put_in_cache("resnet18", Evil(tmp_path / "ran"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    raised(BadCheckpoint, "asks to run .*not loaded", "resnet18", weights="DEFAULT")
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_cached_weights_cut_short_are_refused():
    file = put_in_cache("resnet18", models.resnet18().state_dict())
    file.write_bytes(file.read_bytes()[:10_000])
    raised(BadCheckpoint, "cut short.*Copy or download it again", "resnet18", weights="DEFAULT")


def test_cached_weights_of_another_model_are_refused():
    put_in_cache("resnet18", models.squeezenet1_1().state_dict())
    raised(BadCheckpoint, "does not fit.*Delete it", "resnet18", weights="DEFAULT")


# ---------------------------------------------------------------- checkpoints


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.running_mean": torch.ones(5)}


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        {"state_dict": STATE, "best_accuracy": torch.tensor(71.2), "epoch": 3},
        {"model": {"state_dict": STATE}, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}},
        {"model_state_dict": STATE},
        {"net": STATE},
        {"ema": STATE, "epoch": 9},
        {"ema_state_dict": STATE},
        {"mine": STATE, "best_accuracy": torch.tensor(71.2)},
        {"model": STATE, "ema": {"conv.weight": torch.zeros(2, 3)}},
        {f"module.{key}": value for key, value in STATE.items()},
        {f"_orig_mod.{key}": value for key, value in STATE.items()},
        {f"module._orig_mod.module.{key}": value for key, value in STATE.items()},
        {"n_averaged": torch.tensor(5)} | {f"module.{key}": value for key, value in STATE.items()},
        {key.replace(".", "._orig_mod."): value for key, value in STATE.items()},
    ],
    ids=lambda saved: ", ".join(saved),
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_found_and_unwrapped(saved, zipped, tmp_path):
    """Fails if one way of keeping a state dict is not understood, or a stray tensor is taken for one."""
    path = tmp_path / "a.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert same(zoo.load_checkpoint(path), STATE)


def test_a_submodule_called_module_keeps_its_name(tmp_path):
    """Fails if `module.` is taken off although not every name has it."""
    state = {"module.weight": torch.ones(2), "head.weight": torch.ones(3)}
    torch.save(state, tmp_path / "a.pt")
    assert zoo.load_checkpoint(tmp_path / "a.pt").keys() == state.keys()


def test_safetensors_are_read(tmp_path):
    save_file({f"module.{key}": value for key, value in STATE.items()}, tmp_path / "a.safetensors")
    assert same(zoo.load_checkpoint(tmp_path / "a.safetensors"), STATE)


def test_pickled_code_is_refused_unrun(tmp_path):
    """Fails if anything is executed while a checkpoint is read."""
    path = tmp_path / "a.pt"
    torch.save({"state_dict": STATE, "more": Evil(tmp_path / "ran")}, path)
    refused(path, r"asks to run \w+\.mkdir, so it was not loaded.*torch\.save\(model\.state_dict\(\), FILE\)")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model, "epoch": 3}])
def test_whole_modules_are_refused_with_how_to_save(wrap, tmp_path):
    torch.save(wrap(nn.BatchNorm2d(3)), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"BatchNorm2d.*torch\.save\(model\.state_dict\(\), FILE\)")


def test_whole_modules_allowed_by_the_user_are_refused_too(tmp_path):
    """Fails if a module that the user's program allowed to unpickle is taken for an empty dict."""
    torch.save(nn.Identity(), tmp_path / "a.pt")
    with torch.serialization.safe_globals([nn.Identity, set]):
        refused(tmp_path / "a.pt", r"whole module.*torch\.save")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello world " * 99, b"<!DOCTYPE html>", b"\xff" * 999, b"PK\x03\x04"]
)
def test_garbage_is_refused(name, content, tmp_path):
    """Fails if some damage escapes as another error than ours."""
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not a whole checkpoint.*Copy or download it again")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(kind, share, tmp_path):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    big = {"weight": torch.rand(99, 99)}
    if kind == "safetensors":
        save_file(big, path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "cut short.*Copy or download it again")


def test_missing_file_and_folder_are_named(tmp_path):
    refused(tmp_path / "gone.pt", "no checkpoint .*Check the path")
    refused(tmp_path, "is a folder. Give the checkpoint file inside it")


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        ({"epoch": 3, "loss": 0.5}, r"no state dict \(it has: epoch, loss\).*torch\.save"),
        ({}, r"no state dict \(it has: nothing\)"),
        ([1, 2], r"no state dict \(it has: list\)"),
        (
            {"generator": STATE, "critic": STATE},
            r"several state dicts \(it has: generator, critic\).*torch\.save",
        ),
    ],
)
def test_files_without_one_state_dict_say_what_they_hold(saved, match, tmp_path):
    torch.save(saved, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", match)


def test_checkpoint_fits_and_says_where_it_is_from(tmp_path):
    """Fails if a checkpoint's numbers do not all arrive; num_batches_tracked may be absent (before torch 0.4.1)."""
    path = tmp_path / "mine.pt"
    state = changed_weights(zoo.subject(TINY).model)
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    subject = zoo.subject(TINY, checkpoint=path)
    assert same(subject.model.state_dict(), state)
    assert subject.weights == f"checkpoint mine.pt, sha256 {zoo._sha256(path)[:8]}…"


def test_checkpoint_that_does_not_fit_lists_what_differs(tmp_path):
    """Fails if a wrong architecture loads in part, or the message leaves one of three kinds of misfit out."""
    state = models.resnet18(num_classes=7).state_dict()
    state["head.weight"] = state.pop("bn1.weight")
    torch.save(state, tmp_path / "a.pt")
    said = raised(BadCheckpoint, "does not fit torchvision resnet18.*Name the model that was saved", "resnet18",
                  checkpoint=tmp_path / "a.pt")  # fmt: skip
    assert "1 missing (bn1.weight)" in said
    assert "1 unexpected (head.weight)" in said
    assert "2 of another shape (fc.weight: (7, 512) in the file, (1000, 512) in the model" in said


@pytest.mark.parametrize(
    ("without", "extra", "match"),
    [
        ("fc.bias", None, r"resnet18: 1 missing \(fc\.bias\)\."),
        (None, "more", r"resnet18: 1 unexpected \(more\)\."),
    ],
)
def test_one_misfit_of_one_kind_is_enough(without, extra, match, tmp_path):
    """Fails if a checkpoint that only lacks, or only adds, a tensor is taken."""
    state = models.resnet18().state_dict() | ({extra: torch.ones(2)} if extra else {})
    state.pop(without, None)
    torch.save(state, tmp_path / "a.pt")
    raised(BadCheckpoint, match, "resnet18", checkpoint=tmp_path / "a.pt")


def test_another_number_of_classes_is_enough(tmp_path):
    """Fails if tensors of another shape are dropped in silence, leaving random numbers in their place."""
    torch.save(models.resnet18(num_classes=7).state_dict(), tmp_path / "a.pt")
    raised(BadCheckpoint, "resnet18: 2 of another shape", "resnet18", checkpoint=tmp_path / "a.pt")


def test_long_lists_of_misfits_are_cut(tmp_path):
    torch.save(models.resnet34().state_dict(), tmp_path / "a.pt")
    said = raised(
        BadCheckpoint, r"unexpected \([^,]*, [^,]*, [^,]*, \.\.\.\)", "resnet18", checkpoint=tmp_path / "a.pt"
    )
    assert len(said) < 400


def test_lightnings_outer_name_is_peeled(own, tmp_path):
    """Fails if checkpoints of wrappers that keep the network as `self.model` do not load."""
    name = own(LINEAR)
    state = changed_weights(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "a.ckpt")
    assert same(zoo.subject(f"{name}:build", checkpoint=tmp_path / "a.ckpt").model.state_dict(), state)


def test_auxiliary_heads_follow_the_checkpoint(tmp_path):
    """Fails if a network with, or without, auxiliary heads is refused for its heads."""
    for aux in (True, False):
        torch.save(models.googlenet(init_weights=True, aux_logits=aux).state_dict(), tmp_path / f"{aux}.pt")
        built = zoo.subject("googlenet", checkpoint=tmp_path / f"{aux}.pt").model
        assert (built.aux1 is not None) is aux


def test_torchvisions_own_file_loads_by_its_recipe(tmp_path):
    """Fails if a downloaded file, given by hand, misses what torchvision sets beside tensors."""
    file = tmp_path / models.GoogLeNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(models.googlenet(init_weights=True).state_dict(), file)
    subject = zoo.subject("googlenet", checkpoint=file)
    assert subject.model.transform_input
    assert subject.weights.startswith(f"IMAGENET1K_V1 from {file.name}, sha256 ")


def test_torchvisions_own_file_brings_its_preprocessing(tmp_path):
    """Fails if resnet50's older weights are prepared for as the newer: 256 px, not 232."""
    torch.save(models.resnet50().state_dict(), tmp_path / "resnet50-0676ba61.pth")
    assert "256 px" in zoo.subject("resnet50", checkpoint=tmp_path / "resnet50-0676ba61.pth").preprocess_words


def test_named_weights_from_a_given_file(tmp_path):
    """Fails if --checkpoint, the way round a missing download, is ignored when --weights is still there."""
    state = changed_weights(models.resnet18())
    torch.save(state, tmp_path / "renamed.pth")
    subject = zoo.subject("resnet18", weights="DEFAULT", checkpoint=tmp_path / "renamed.pth")
    assert same(subject.model.state_dict(), state)
    assert subject.weights.startswith("IMAGENET1K_V1 from renamed.pth")


# ---------------------------------------------------------------- a user's own model


def test_own_model_from_the_current_folder(own, picture):
    """Fails if the current folder is not importable, stays on the path, or the guess is not called one."""
    path = list(sys.path)
    subject = zoo.subject(f"{own(LINEAR)}:build")
    assert sys.path == path
    assert not subject.model.training
    assert subject.preprocess(picture).shape == (3, 224, 224)
    assert "(size, mean, std: a guess, the usual for ImageNet)" in subject.preprocess_words
    assert "(seed 0)" in subject.weights
    assert same(subject.model.state_dict(), zoo.subject(subject.name).model.state_dict())


def test_own_model_with_its_own_numbers(own, picture):
    subject = zoo.subject(f"{own(LINEAR)}:build", size=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    expected = zoo.CropAndScale(size=32, resize=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert torch.equal(subject.preprocess(picture), expected(picture))
    assert "guess" not in subject.preprocess_words


@pytest.mark.parametrize("text", ["import no_such_package", "def broken(:", "raise SystemExit(3)", "1 / 0"])
def test_own_module_that_cannot_be_imported(own, text):
    """Fails if what a user's module raises on import ends the program by itself."""
    raised(
        UnknownModel, r"cannot import .*Run in the folder that holds it, or install it", f"{own(text)}:build"
    )


def test_own_module_that_is_not_there():
    raised(UnknownModel, "No module named 'nowhere'.*Run in the folder that holds it", "nowhere.models:build")


def test_own_function_that_is_not_there(own):
    name = own(LINEAR)
    raised(UnknownModel, r'no function "biuld"\. Did you mean build\?', f"{name}:biuld")
    raised(UnknownModel, r'no function "zzz"\. Define it, without arguments', f"{name}:zzz")


def test_own_function_that_raises_says_where(own):
    name = own("def build():\n    raise ValueError('no\\nfile')\n")
    raised(UnknownModel, rf"ValueError: no file \(at {name}\.py:2\).*make it work alone", f"{name}:build")


def test_own_function_that_needs_arguments(own):
    name = own("def build(width):\n    return None\n")
    raised(UnknownModel, "missing 1 required positional argument.*called without arguments", f"{name}:build")


def test_own_function_that_returns_something_else(own):
    name = own("def build():\n    return {'model': 1}\n")
    raised(UnknownModel, "returned a dict. Let it return the torch.nn.Module", f"{name}:build")


def test_own_model_has_no_named_weights(own):
    raised(UnknownModel, "Use --checkpoint FILE", f"{own(LINEAR)}:build", weights="DEFAULT")


# ---------------------------------------------------------------- the demo, and a real checkpoint


def share_right(subject: zoo.Subject, batches) -> float:
    """Share (0..1) of images that `subject` gives their own label."""
    with torch.no_grad():
        right = [
            subject.model(*subject.to_inputs(batch.images)).argmax(1) == torch.tensor(batch.labels)
            for batch in batches
        ]
    return float(torch.cat(right).float().mean())


def test_demo_is_as_good_as_it_says():
    """Fails if weights, digits, preprocessing and the stated accuracy do not belong together."""
    subject, facts = zoo.demo(), zoo.demo_facts()
    measured = share_right(subject, demo_images().batches(subject.preprocess, 90))
    assert measured == pytest.approx(facts["held_out_accuracy"], abs=1e-6)
    assert measured >= 0.97
    assert f"{measured:.1%} of the 360" in subject.weights
    assert "1,437 of the 1,797" in subject.weights
    assert not subject.model.training


def test_demo_data_is_small():
    assert sum(file.stat().st_size for file in zoo.DEMO_WEIGHTS.parent.iterdir()) < 2e6


def test_demo_weights_can_be_trained_again(monkeypatch):
    """Fails if training is not repeatable to the bit, or its held-out digits are not the shipped ones."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    from scripts import train_demo

    seen, held_out = train_demo.split()
    assert np.array_equal(held_out.images, demo_images().pixels)
    assert held_out.labels.tolist() == list(demo_images().labels or ())
    assert not {image.tobytes() for image in seen.images} & {image.tobytes() for image in held_out.images}
    inputs, labels = (part[:192] for part in train_demo.prepared(seen))
    try:
        first, second = (train_demo.train(inputs, labels, epochs=1).state_dict() for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(first, second)


def test_real_checkpoint_classifies_real_images(monkeypatch):
    """Fails if the network, the loading or the preprocessing of the CIFAR checkpoint is wrong: 81 % is known."""
    if not DATA.is_dir():
        pytest.skip(f"no real checkpoint: {DATA} is absent")
    monkeypatch.chdir(ROOT)
    subject = zoo.subject("scripts.cifar_resnet:resnet20", checkpoint=DATA / "cifar_resnet20.th", size=32)
    assert re.search(r"checkpoint cifar_resnet20\.th, sha256 12fca82f…", subject.weights)
    batches = find_images(DATA / "cifar10_jpeg/test").batches(subject.preprocess, 100, limit=500)
    assert 0.76 <= share_right(subject, batches) <= 0.86
