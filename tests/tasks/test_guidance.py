"""Locality guidance: sizes, distances, the frozen teacher."""

import pytest
import torch
import torch.nn.functional as F

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.resnet_cifar import CifarResNet
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.guidance import Guidance, distance
from tests.encoders.cases import build, images_for


def test_resnet_56_has_the_parameters_of_the_specification():
    assert sum(p.numel() for p in CifarResNet(32).parameters()) + 64 * 100 + 100 == 861_620


def test_projections_have_the_parameters_of_the_specification():
    encoder = VisionTransformer(32, 16, embed_dim=192, depth=12, num_heads=3)
    assert sum(p.numel() for p in Guidance(encoder).project.parameters()) == 21_616


def test_first_middle_and_last_of_twelve_blocks_are_guided():
    assert Guidance(VisionTransformer(8, 4, embed_dim=8, depth=12, num_heads=1)).blocks == (0, 6, 11)


def test_teacher_maps_are_those_of_three_stages():
    shapes = [tuple(m.shape[1:]) for m in CifarResNet(32, blocks=1).stage_maps(torch.randn(1, 3, 32, 32))]
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_distance_enlarges_the_smaller_map():
    small, large = torch.randn(2, 4, 14, 14), torch.randn(2, 4, 32, 32)
    enlarged = F.interpolate(small, (32, 32), mode="bilinear", align_corners=False)
    expected = F.mse_loss(enlarged, large)
    assert torch.allclose(distance(small, large), expected)
    assert torch.allclose(distance(large, small), expected)


def test_constant_maps_of_any_size_are_their_values_apart():
    assert distance(torch.full((1, 2, 3, 5), 4.0), torch.full((1, 2, 7, 2), 1.0)).item() == pytest.approx(9.0)


def test_loss_is_beta_times_the_sum_over_three_stages():
    encoder = build("vit")
    task = Guidance(encoder, teacher_bn="eval").eval()
    batch = Batch(images_for(encoder))
    expected = 0.0
    for k, target in enumerate(task.teacher.stage_maps(F.interpolate(batch.images, 32, mode="bilinear"))):
        tokens = encoder.forward_blocks(batch.images)[task.blocks[k]][:, 1:]
        student = task.project[k](tokens.transpose(1, 2).unflatten(2, encoder.mask_grid))
        side = max(student.shape[2], target.shape[2])
        student, target = (F.interpolate(m, side, mode="bilinear") for m in (student, target))
        expected += 2.5 * F.mse_loss(student, target).item()
    assert task(encoder, batch, False).loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("mode", "moves"), [("train", True), ("eval", False)])
def test_teachers_weights_stay_and_its_statistics_follow_teacher_bn(mode, moves):
    encoder = build("vit")
    task = Guidance(encoder, teacher_bn=mode).train()
    before = {name: value.clone() for name, value in task.teacher.state_dict().items()}
    task(encoder, Batch(images_for(encoder, 8)), False).loss.backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    changed = [name for name, value in task.teacher.state_dict().items() if not torch.equal(value, before[name])]
    assert bool(changed) == moves
    assert all("running" in name or "batches" in name for name in changed)


def saved(network, folder) -> str:
    """A checkpoint of ours with `network` as the encoder."""
    path = folder / "last.ckpt"
    torch.save({"state_dict": {f"encoder.{name}": value for name, value in network.state_dict().items()}}, path)
    return str(path)


def test_teacher_is_loaded_when_training_begins(tmp_path):
    encoder, trained = build("vit"), CifarResNet(32)
    task = Guidance(encoder, teacher=saved(trained, tmp_path))
    assert not torch.equal(task.teacher.conv1.weight, trained.conv1.weight)
    task.begin(encoder)
    assert torch.equal(task.teacher.conv1.weight, trained.conv1.weight)


def test_a_teacher_of_another_architecture_is_refused(tmp_path):
    encoder = build("vit")
    with pytest.raises(UserError, match="not a resnet_56 for 3 channels"):
        Guidance(encoder, teacher=saved(build("vit"), tmp_path)).begin(encoder)


def test_training_without_a_teacher_is_refused():
    encoder = build("vit")
    with pytest.raises(UserError, match=r"ssl=guidance needs a teacher: ssl\.teacher=") as caught:
        Guidance(encoder).begin(encoder)
    assert caught.value.key == "ssl.teacher"


def test_encoders_without_one_flat_token_grid_are_refused():
    for name in ("cvt", "swin", "resnet"):
        with pytest.raises(UserError, match="does not produce one: use encoder=vit_t, deit_ti"):
            Guidance(build(name))


@pytest.mark.parametrize("options", [{"blocks": (0, 1, 3)}, {"teacher_bn": "frozen"}])
def test_impossible_values_are_refused(options):
    with pytest.raises(UserError, match=f"ssl.{next(iter(options))}="):
        Guidance(build("vit"), **options)
