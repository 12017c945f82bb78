"""What every SSL task must keep (ssat.tasks.base), parametrised over tests/tasks/cases.py."""

import inspect
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
import torch

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.core.views import AGAIN, View
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task
from ssat.tasks.contract import check_contract
from ssat.tasks.drloc import Drloc
from ssat.tasks.guidance import Guidance
from ssat.tasks.latent import LatentReconstruction
from ssat.tasks.reconstruction import Reconstruction
from tests.encoders.cases import Least, build
from tests.tasks.cases import CASES, batch_for
from tests.tasks.rotation import Rotation

pytestmark = pytest.mark.sampled


class Setting(NamedTuple):
    encoder: Encoder
    task: Task
    batch: Batch


@pytest.fixture(params=list(CASES))
def setting(request) -> Setting:
    name, make = CASES[request.param]
    encoder = build(name)
    task = make(encoder)
    return Setting(encoder.train(), task.train(), batch_for(encoder, task))


def test_loss_is_a_finite_scalar_and_logs_are_detached_scalars(setting):
    loss, _, logs = setting.task(setting.encoder, setting.batch, True)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    assert all(value.ndim == 0 and not value.requires_grad and value.isfinite() for value in logs.values())


def test_features_are_given_only_when_asked_for(setting):
    assert setting.task(setting.encoder, setting.batch, False).features is None
    features = setting.task(setting.encoder, setting.batch, True).features
    assert features.shape == (len(setting.batch.images), setting.encoder.num_features)


def test_features_are_those_of_the_full_images(setting):
    setting.encoder.eval()
    features = setting.task(setting.encoder, setting.batch, True).features
    assert torch.allclose(features, setting.encoder.forward_features(setting.batch.images), atol=1e-5, rtol=0)


def test_asking_for_features_does_not_change_the_loss(setting):
    setting.encoder.eval(), setting.task.eval()
    losses = [setting.task(setting.encoder, setting.batch, ask).loss.item() for ask in (False, True)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_gradient_reaches_the_encoder_and_every_own_parameter(setting):
    setting.task(setting.encoder, setting.batch, False).loss.backward()
    reached = [p for p in setting.encoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) > len(list(setting.encoder.parameters())) / 2
    for name, parameter in setting.task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_evaluation_repeats_itself_and_changes_no_state(setting):
    setting.encoder.eval(), setting.task.eval()
    before = {name: value.clone() for name, value in setting.task.state_dict().items()}
    losses = [setting.task(setting.encoder, setting.batch, False).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert all(torch.equal(value, before[name]) for name, value in setting.task.state_dict().items())


def test_a_restored_task_continues_where_the_saved_one_was(setting, request):
    with torch.no_grad():
        for _ in range(2):
            setting.task(setting.encoder, setting.batch, False)
        saved = {name: value.clone() for name, value in setting.task.state_dict().items()}
        _, make = CASES[request.node.callspec.params["setting"]]
        fresh = make(setting.encoder).train()
        fresh.load_state_dict(saved)
        for _ in range(2):
            expected = setting.task(setting.encoder, setting.batch, False).loss
            assert torch.equal(fresh(setting.encoder, setting.batch, False).loss, expected)


def test_loss_is_computed_in_fp32_under_autocast(setting):
    setting.encoder.eval(), setting.task.eval()
    expected = setting.task(setting.encoder, setting.batch, False).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = setting.task(setting.encoder, setting.batch, True).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)


def test_after_step_leaves_the_encoder_and_a_finite_state_at_any_progress(setting):
    before = {name: value.clone() for name, value in setting.encoder.state_dict().items()}
    for step, progress in enumerate((0.0, 0.5, 1.0), 1):
        setting.task.after_step(setting.encoder, progress, step)
    assert all(torch.equal(value, before[name]) for name, value in setting.encoder.state_dict().items())
    assert all(value.isfinite().all() for value in setting.task.state_dict().values())
    assert setting.task(setting.encoder, setting.batch, False).loss.isfinite()


def test_the_task_does_not_own_the_encoder(setting):
    shared = {id(p) for p in setting.encoder.parameters()} & {id(p) for p in setting.task.parameters()}
    assert not shared


def test_stated_passes_are_the_passes_that_are_made(setting, monkeypatch):
    called = set()

    def watched(name):
        method = getattr(setting.encoder, name)
        return lambda *args, **kwargs: (called.add(name), method(*args, **kwargs))[1]

    for name in ("forward_features", "forward_masked", "forward_joint", "forward_dense", "forward_crop"):
        monkeypatch.setattr(setting.encoder, name, watched(name))
    setting.task(setting.encoder, setting.batch, False)
    assert ("forward_masked" in called) == setting.task.masked
    assert bool(called & {"forward_features", "forward_dense", "forward_crop"}) == setting.task.full


def test_a_batch_without_the_stated_views_is_refused(setting):
    without = setting.batch._replace(views=())
    if not setting.task.extra_views:
        assert setting.task(setting.encoder, without, True).loss.isfinite()
        return
    with pytest.raises(UserError, match=rf"needs {len(setting.task.extra_views)} extra view.*data\.pipeline=batched"):
        setting.task(setting.encoder, without, True)


def test_the_smallest_stated_batch_is_enough(setting):
    few = setting.task.min_batch
    small = Batch(
        setting.batch.images[:few],
        setting.batch.targets[:few],
        views=tuple(view[:few] for view in setting.batch.views),
        indices=setting.batch.indices[:few],
    )
    assert setting.task.eval()(setting.encoder.eval(), small, False).loss.isfinite()


class Written(NamedTuple):
    """A case as a configuration has it: the class, all of its options, and the encoder."""

    task: type[Task]
    options: dict[str, Any]
    encoder: Encoder


@pytest.fixture(params=[name for name, (_, make) in CASES.items() if isinstance(make, (type, partial))])
def written(request) -> Written:
    name, make = CASES[request.param]
    task, given = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    parameters = inspect.signature(task).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in ("encoder", "seed")}
    return Written(task, defaults | given, build(name))


@pytest.mark.parametrize("alone", [False, True], ids=["joint", "alone"])
def test_views_that_the_class_asks_for_are_those_that_the_task_reads(written, alone):
    options = written.task.alone(written.options) if alone else written.options
    wanted = written.task.needed_views(options, img_size=written.encoder.img_size[0])
    assert list(written.task(written.encoder, **options).extra_views) == wanted


def test_a_task_alone_shares_no_image_with_a_classification(written):
    options = written.task.alone(written.options)
    assert options.keys() == written.options.keys()
    assert not written.task(written.encoder, **options).compares_images


def test_the_class_serves_its_encoder_and_states_precise_types(written):
    check_contract(written.task, written.encoder, kind="case")
    annotations = get_type_hints(written.task.__init__)
    assert all(annotations[name] not in (Any, object) for name in written.options)


@pytest.mark.parametrize(
    ("task", "encoder", "sentence"),
    [
        (Reconstruction, "resnet", "ResNet has no masked pass, and ssl=this hides patches: use mode=scratch"),
        (LatentReconstruction, "swin", "ssl=this reads one flat grid of tokens, and SwinTransformer does not produce"),
        (LatentReconstruction, "resnet", "ResNet has no masked pass"),
        (Guidance, "cvt", "ssl=this reads one flat grid of tokens"),
        (type("Outsider", (Rotation,), {"masked": True}), "resnet-cifar", "CifarResNet has no masked pass"),
        (type("Outsider", (Rotation,), {"reads": ("forward_map", "forward_dense")}), "least", "Least does not have"),
        (Drloc, "least", "ssl=this calls forward_dense"),
    ],
)
def test_an_encoder_that_a_task_cannot_read_is_refused_before_the_task_is_built(task, encoder, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        check_contract(task, Least() if encoder == "least" else build(encoder), kind="some", name="this")
    assert caught.value.key == "ssl" and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (torch.nn.Linear, "ssl.kind=mine: Linear is not a class of tasks: derive it from ssat.tasks.base.Task"),
        (partial(Rotation), "ssl.kind=mine: partial is not a class of tasks"),
        (type("Empty", (Task,), {}), "ssl.kind=mine: Empty has no method forward"),
    ],
)
def test_what_is_no_complete_task_is_refused(make, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        check_contract(make, build("vit"), kind="mine")
    assert caught.value.key == "ssl.kind"


def test_a_task_of_ones_own_takes_at_most_28_lines():
    assert len(Path(__file__).with_name("rotation.py").read_text().splitlines()) <= 28


def test_views_stated_by_a_class_need_no_method():
    class Again(Rotation):
        extra_views = (AGAIN, View(6, (0.5, 1.0)))

    images = torch.randn(2, 3, 12, 12)
    assert Again.needed_views({}, img_size=12) == [AGAIN, View(6, (0.5, 1.0))]
    assert [view.shape for view in Again(build("vit")).blank_views(images)] == [(2, 3, 12, 12), (2, 3, 6, 6)]
