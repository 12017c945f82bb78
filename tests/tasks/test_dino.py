"""DINO's loss, centre and teacher against known answers and lightly's."""

import copy
import math

import pytest
import torch
from torch import nn

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.core.schedules import cosine
from ssat.tasks.dino import DINO, DINOHead, dino_loss
from tests.encoders.cases import build


def batch(views: int = 1, size: int = 4) -> Batch:
    return Batch(torch.randn(size, 3, 12, 12), views=tuple(torch.randn(size, 3, 12, 12) for _ in range(views)))


def test_equal_logits_give_the_logarithm_of_the_number_of_prototypes():
    teacher = [torch.full((4, 1024), 1 / 1024)] * 2
    assert dino_loss([torch.zeros(4, 1024)] * 2, teacher, student_temp=0.1).item() == pytest.approx(6.931472, abs=1e-5)


@pytest.mark.parametrize("views", [2, 10])
def test_loss_is_the_mean_over_pairs_of_different_views(views):
    student, teacher = list(torch.randn(views, 5, 16)), list(torch.randn(2, 5, 16).softmax(2))
    total, pairs = 0.0, 0
    for i in range(2):
        for j in range(views):
            if i != j:
                logs = (student[j] / 0.1).log_softmax(1)
                total -= sum(teacher[i][b] @ logs[b] for b in range(5)).item() / 5
                pairs += 1
    assert pairs == 2 * views - 2
    assert dino_loss(student, teacher, student_temp=0.1).item() == pytest.approx(total / pairs, abs=1e-4)


@pytest.mark.parametrize("views", [2, 10])
def test_loss_and_centre_are_those_of_lightly(views):
    loss = pytest.importorskip("lightly.loss")
    theirs = loss.DINOLoss(output_dim=32, warmup_teacher_temp=0.04, teacher_temp=0.04)
    theirs.center.normal_()
    task = DINO(build("vit"), out_dim=32)
    task.center.copy_(theirs.center.reshape(1, 32))
    teacher, student = torch.randn(2, 8, 32), torch.randn(views, 8, 32)
    ours = dino_loss(list(student), [((t - task.center) / 0.04).softmax(1) for t in teacher], student_temp=0.1)
    assert ours.item() == pytest.approx(theirs(list(teacher), list(student)).item(), abs=1e-5)
    task.update_center(teacher.flatten(0, 1))
    assert torch.allclose(task.center, theirs.center.reshape(1, 32), atol=1e-7)


def test_centre_moves_a_tenth_of_the_way_to_the_mean_of_the_teachers_logits():
    encoder = build("vit")
    task = DINO(encoder, out_dim=16).train()
    data = batch()
    with torch.no_grad():
        seen = task.teacher.forward_features(torch.cat([data.images, data.views[0]]))
        expected = 0.1 * task.teacher_head(seen).mean(0, keepdim=True)
    task(encoder, data, False)
    assert torch.allclose(task.center, expected, atol=1e-6)


def test_evaluation_does_not_move_the_centre():
    encoder = build("vit")
    task = DINO(encoder, out_dim=16).eval()
    task(encoder, batch(), False)
    assert torch.equal(task.center, torch.zeros(1, 16))


def test_teacher_is_the_moving_average_of_the_student_and_gets_no_gradient():
    encoder = build("vit")
    task = DINO(encoder, out_dim=16, momentum=0.9)
    task.begin(encoder)
    before = copy.deepcopy(task.teacher)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    task(encoder, batch(), False).loss.backward()
    task.after_step(encoder, 0.0, 1_000)
    for old, new, student in zip(before.parameters(), task.teacher.parameters(), encoder.parameters(), strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * student, atol=1e-6)
        assert new.grad is None


def test_momentum_rises_to_1_so_that_the_teacher_stands_still_at_the_end():
    assert [cosine(0.996, 1.0, p) for p in (0, 0.5, 1)] == pytest.approx([0.996, 0.998, 1.0])


def test_teacher_begins_as_the_encoder_it_is_given():
    encoder, other = build("vit"), build("vit")
    task = DINO(encoder)
    nn.init.normal_(other.norm.weight)
    task.begin(other)
    assert torch.equal(task.teacher.norm.weight, other.norm.weight)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.04), (0.05, 0.055), (0.1, 0.07), (1.0, 0.07)])
def test_teacher_temperature_rises_over_the_first_tenth(progress, expected):
    encoder = build("vit")
    task = DINO(encoder, teacher_temp=(0.04, 0.07))
    task.after_step(encoder, progress, 1)
    assert task.temperature().item() == pytest.approx(expected)


def test_prototypes_wait_for_the_first_hundredth_and_get_a_zero_gradient_until_then():
    encoder = build("vit")
    task = DINO(encoder, out_dim=16)
    task(encoder, batch(), False).loss.backward()
    assert task.head.prototypes.grad.abs().sum() == 0
    task.after_step(encoder, 0.02, 1)
    task(encoder, batch(), False).loss.backward()
    assert task.head.prototypes.grad.abs().sum() > 0


def test_head_has_the_parameters_of_the_specification():
    # The 755,968 of weight norm count a fixed scale for each of the 1,024 prototypes.
    assert sum(p.numel() for p in DINOHead(192, 512, 256, 1024).parameters()) == 755_968 - 1024


def test_crops_are_for_the_student_alone():
    encoder = build("vit")
    task = DINO(encoder, out_dim=16, local_views=2, local_size=6).eval()
    data = batch()
    crops = tuple(torch.randn(4, 3, 6, 6) for _ in range(2))
    with torch.no_grad():
        loss = task(encoder, data._replace(views=data.views + crops), False).loss
        whole = [data.images, *data.views]
        student = [task.head(encoder.forward_features(v)) for v in whole]
        student += [task.head(encoder.forward_crop(v)) for v in crops]
        teacher = [(task.teacher_head(task.teacher.forward_features(v)) / 0.04).softmax(1) for v in whole]
    assert loss.item() == pytest.approx(dino_loss(student, teacher, student_temp=0.1).item(), abs=1e-5)


def test_collapse_monitors_are_entropy_and_divergence():
    encoder = build("vit")
    loss, _, logs = DINO(encoder, out_dim=16)(encoder, batch(), False)
    assert 0 < logs["teacher_entropy"] <= math.log(16) + 1e-5
    assert (logs["teacher_entropy"] + logs["kl"]).item() == pytest.approx(loss.item(), abs=1e-5)
    assert logs["kl"] >= -1e-5


@pytest.mark.parametrize(
    ("encoder", "options", "sentence"),
    [
        ("vit", {"share": "both_cls"}, "share='both_cls'"),
        ("vit", {"local_views": -1}, "local_views=-1"),
        ("vit", {"student_temp": 0}, "student_temp=0"),
        ("vit", {"local_views": 1, "local_size": 7}, "not whole patches of 3"),
        ("swin", {"local_views": 1, "local_size": 16}, "local_views=0"),
    ],
)
def test_impossible_values_are_refused(encoder, options, sentence):
    with pytest.raises(UserError, match=sentence):
        DINO(build(encoder), **options)
