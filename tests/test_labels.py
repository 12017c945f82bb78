"""data.label_fraction: who learns from which images."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.classification import ClassLoss
from ssat.training.data import build_data
from ssat.training.module import JointModule
from ssat.training.steps import Progress
from tests.encoders.cases import build
from tests.helpers import command, config, largest_difference, record_of, train, weights

FEW = ["data=digits", "data.samples_per_class=40", "data.label_fraction=0.25"]


def data_of(*overrides: str, phase: int = 0) -> ImageDataModule:
    resolved = config(*FEW, *overrides)
    data = build_data(resolved, resolved.mode.phases[phase])
    data.setup()
    return data


def labelled(data: ImageDataModule) -> set[int]:
    images, indices = data.split("train")
    return {int(index) for index in indices if images.labels[index] >= 0}


def test_joint_training_sees_all_images_and_a_stratified_part_of_their_labels():
    data = data_of("mode=ssat")
    assert data.sizes["train"] == 400
    assert set(data.class_counts("train").values()) == {10}


@pytest.mark.parametrize("mode", [["mode=scratch"], ["mode=finetune", "mode.init_from=x"]])
def test_classification_alone_sees_the_labelled_images_only(mode):
    data = data_of(*mode)
    assert data.sizes["train"] == 100
    assert labelled(data) == labelled(data_of("mode=ssat"))


def test_pre_training_sees_all_images_and_its_fine_tuning_the_labelled_ones():
    assert data_of("mode=ssl_ft", phase=0).sizes["train"] == 400
    assert labelled(data_of("mode=ssl_ft", phase=1)) == labelled(data_of("mode=ssat"))


def test_a_smaller_fraction_is_part_of_a_larger_one():
    assert labelled(data_of("data.label_fraction=0.1")) < labelled(data_of("data.label_fraction=0.5"))


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_labelled_images_are_spread_over_the_batches_of_every_epoch(pipeline):
    loader = data_of(f"data.pipeline={pipeline}", "recipe.batch_size=40").train_dataloader()
    for _ in range(2):
        counts = [int((batch.targets >= 0).sum()) for batch in loader]
        assert sum(counts) == 100
        assert min(counts) >= 3


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_half_of_every_batch_has_labels_where_a_share_is_named(pipeline):
    words = ["data.labelled_share=0.5", f"data.pipeline={pipeline}", "recipe.batch_size=40"]
    loader = data_of("mode=ssat", *words).train_dataloader()
    known = labelled(data_of())
    for _ in range(2):
        batches = list(loader)
        assert [int((batch.targets >= 0).sum()) for batch in batches] == [20] * 10  # as many steps as without
        assert {int(index) for batch in batches for index in batch.indices[batch.targets >= 0]} == known


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_an_image_that_comes_again_in_an_epoch_is_augmented_anew(pipeline):
    data = data_of("mode=scratch", f"data.pipeline={pipeline}", "recipe.batch_size=50", "data.epoch_size=300")
    first, second, third = (list(data.train_dataloader()) for _ in range(3))
    assert len(first) == 6 and all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    batches = [image for batch in third for image in zip(batch.indices.tolist(), batch.images, strict=True)]
    one = [image for index, image in batches if index == batches[0][0]]
    assert len(one) == 3 and not any(torch.equal(a, b) for a, b in ((one[0], one[1]), (one[1], one[2])))


def test_modes_with_more_and_fewer_labels_take_as_many_steps_of_an_epoch_of_one_size():
    words = ["recipe.batch_size=40", "data.epoch_size=400"]
    data = [data_of("mode=scratch", *words), *(data_of("mode=ssl_ft", *words, phase=at) for at in range(2))]
    data.append(data_of("mode=ssat", "data.labelled_share=0.5", *words))
    assert [one.images_per_epoch() for one in data] == [400] * 4
    assert [len(list(one.train_dataloader())) for one in data] == [10] * 4


@pytest.mark.parametrize("mode", ["mode=scratch", "mode=ssl_ft"])
def test_a_share_changes_nothing_where_no_image_lacks_a_label(mode):
    ones = [data_of(mode, *share).train_dataloader() for share in ([], ["data.labelled_share=0.5"])]
    first, second = ([batch.indices.tolist() for batch in one] for one in ones)
    assert first == second


def test_evaluation_keeps_all_its_labels():
    assert all((batch.targets >= 0).all() for batch in data_of("mode=ssat").val_dataloader())


def loss_of(logits, targets, *, partly: bool = True):
    return ClassLoss(0.1, partly_labelled=partly)(logits, Batch(torch.zeros(len(targets)), targets))


def test_class_loss_is_the_mean_over_the_labelled_images():
    logits, targets = torch.randn(6, 3), torch.tensor([0, -1, 2, -1, 1, -1])
    expected = F.cross_entropy(logits[::2], targets[::2], label_smoothing=0.1)
    assert loss_of(logits, targets).item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_batch_without_labels_has_a_class_loss_of_0_with_a_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = loss_of(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_all_labels_give_the_loss_of_full_labelling():
    logits, targets = torch.randn(6, 3), torch.arange(6) % 3
    assert loss_of(logits, targets).item() == pytest.approx(loss_of(logits, targets, partly=False).item())


def test_training_accuracy_of_an_epoch_is_that_of_its_labelled_images():
    encoder = build("vit")
    task = Reconstruction(encoder, decoder_dim=16, decoder_heads=2)
    joint = JointModule(encoder, num_classes=3, ssl=task, lam=0.5, partly_labelled=True).eval()
    for known in ([True, False, True, True], [False] * 4, [False, False, True, False]):
        images = torch.randn(4, 3, 12, 12)
        right = joint(images).argmax(1)
        given = torch.where(torch.tensor([True, True, True, False]), right, (right + 1) % 3)
        batch = Batch(images, torch.where(torch.tensor(known), given, -1), indices=torch.arange(4))
        joint.means.add(joint.joint_step(batch, Progress(0, 0.0))[1], len(images))
    alone = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda values, reduce_op: values)
    assert joint.means.take(alone)["train/acc1"] == pytest.approx(100 * 3 / 4)


@pytest.mark.slow
def test_two_ranks_weigh_every_label_as_one_process_does(tmp_path):
    settings = ["mode=ssat", "data.label_fraction=0.25", "recipe.augment=null", "trainer.max_steps=3", "seed=3"]
    settings += ["recipe.optimizer=sgd", "recipe.base_lr=0.1", "recipe.lr_rule=absolute", "recipe.warmup_epochs=0"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path / "one")
    assert command(*settings, "recipe.batch_size=8", "trainer=ddp_cpu", runs=tmp_path / "two").returncode == 0
    (two,) = (path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json"))
    assert largest_difference(weights(one), weights(two)) < 1e-5


def step_of(joint: JointModule, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the step logs, and the gradients by name."""
    joint.zero_grad()
    loss, values = joint.losses(batch, Progress(0, 0.0))
    loss.backward()
    return values, {name: p.grad.clone() for name, p in joint.named_parameters() if p.grad is not None}


def full_images(joint: JointModule, batch: Batch) -> int:
    """Images whose features a step computes."""
    joint_pass, seen = joint.encoder.forward_joint, []

    def watched(images, mask, **options):
        features, latent = joint_pass(images, mask, **options)
        seen.append(len(features))
        return features, latent

    joint.encoder.forward_joint = watched
    joint.losses(batch, Progress(0, 0.0))
    del joint.encoder.forward_joint
    return sum(seen)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", ["vit", "cct", "swin", "timm"])
def test_images_without_labels_cost_no_full_pass_and_change_no_number(name, multi_label):
    encoder = build(name)
    task = Reconstruction(encoder, decoder="mae" if encoder.mask_style == "dropped" else "simmim", decoder_dim=16)
    options = {"num_classes": 3, "ssl": task, "lam": 0.5, "partly_labelled": True, "multi_label": multi_label}
    joint = JointModule(encoder, **options).double().train()
    targets = torch.tensor([NO_LABEL, 2, NO_LABEL, 0, 1, NO_LABEL])
    if multi_label:
        targets = torch.where(targets[:, None] == NO_LABEL, -1.0, F.one_hot(targets.clamp_min(0), 3).double())
    images = torch.randn(6, encoder.in_chans, *encoder.img_size, dtype=torch.float64)
    batch = Batch(images, targets, indices=torch.arange(6))
    start = {key: value.clone() for key, value in joint.state_dict().items()}
    results, computed = [], []
    for some, at_most in ((False, None), (True, None), (True, 4)):
        joint.load_state_dict(start)  # the same masks
        joint.some_features, joint.labelled_per_batch = some, at_most
        results.append(step_of(joint, batch))
        computed.append(full_images(joint, batch))
    assert computed == [6, 3, 4]
    (expected, gradients), *others = results
    for values, grads in others:
        assert values.keys() == expected.keys()
        for key in expected:
            assert values[key].item() == pytest.approx(expected[key].item(), abs=1e-6), key
        for key in gradients:
            assert torch.allclose(grads[key], gradients[key], atol=1e-6, rtol=0), key


def test_a_batch_without_labels_leaves_a_gradient_of_0_on_the_head():
    encoder = build("vit")
    task = Reconstruction(encoder, decoder_dim=16, decoder_heads=2)
    joint = JointModule(encoder, num_classes=3, ssl=task, partly_labelled=True).train()
    _, gradients = step_of(joint, Batch(torch.randn(4, 3, 12, 12), torch.full((4,), NO_LABEL)))
    assert torch.equal(gradients["head.weight"], torch.zeros(3, encoder.num_features))


def test_an_encoder_with_batch_norm_computes_every_image():
    encoder = build("cvt")
    task = Reconstruction(encoder, decoder="convmae", decoder_dim=16, decoder_heads=2)
    joint = JointModule(encoder, num_classes=3, ssl=task, partly_labelled=True).train()
    images = torch.randn(4, 3, *encoder.img_size)
    assert full_images(joint, Batch(images, torch.tensor([NO_LABEL, 0, NO_LABEL, 1]))) == 4


def test_a_run_with_a_labelled_share_computes_no_more_images_than_have_labels(tmp_path, monkeypatch):
    seen, joint_pass = [], VisionTransformer.forward_joint

    def watched(self, images, mask, **options):
        features, latent = joint_pass(self, images, mask, **options)
        seen.append((len(images), len(features)))
        return features, latent

    monkeypatch.setattr(VisionTransformer, "forward_joint", watched)
    train("mode=ssat", "data.label_fraction=0.25", "data.labelled_share=0.5", "recipe.batch_size=16", runs=tmp_path)
    assert {pair for pair in seen if pair[0] == 16} == {(16, 8)}  # MACs are counted on two


def test_a_run_on_few_labels_says_so(tmp_path):
    run = train("mode=ssat", "data.label_fraction=0.25", "epochs=1", runs=tmp_path)
    assert any("label_fraction=0.25" in reason for reason in record_of(run)["unfaithful_reasons"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.label_fraction=0"], "data.label_fraction=0 is not possible: it must be a number above 0"),
        (
            ["data.label_fraction=1.5"],
            "data.label_fraction=1.5 is not possible: it must be a number above 0 and at most 1",
        ),
        (["data.label_fraction=0.001"], "fewer than one for each of the 10 classes"),
        (["data.label_fraction=0.5", "recipe.mixup=0.8"], "mix labelled images with unlabelled"),
        (["data.labelled_share=0.5"], r"data.labelled_share=0.5 .* every image has one: take labels away"),
        (["data.labelled_share=1", "data.label_fraction=0.5"], r"leaves no place for the others: give less than 1"),
        (["data.labelled_share=0.1", "data.label_fraction=0.5"], r"0.1 is less than the 80 of 160 images that have"),
        (
            ["data.labelled_share=0.5", "data.label_fraction=0.5", "recipe.batch_size=1"],
            r"recipe.batch_size=1 has room for one: set at least 2",
        ),
    ],
)
def test_impossible_label_fractions_are_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        train(*overrides, runs=tmp_path)


def test_labels_that_do_not_fill_a_batch_are_one_smaller_batch(tmp_path):
    record = record_of(train("mode=scratch", "data.label_fraction=0.07", "epochs=2", runs=tmp_path))
    assert record["data_fingerprint"]["splits"]["train"] == 160
    assert [phase["steps"] for phase in record["phases"]] == [2]
    with pytest.raises(UserError, match="mixup pairs images, and a batch has 11"):
        train("mode=scratch", "data.label_fraction=0.07", "recipe.mixup=0.8", runs=tmp_path)
