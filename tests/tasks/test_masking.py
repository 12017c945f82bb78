"""Masks: the authors' rule, and per-sample noise that nothing but (seed, draw, index) decides."""

import pytest
import torch

from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.tasks.masking import mask_from_noise, num_visible, random_mask


def splitmix64(state: int) -> int:
    """Steele et al. 2014, in Python's own integers."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item()


@pytest.mark.parametrize(
    ("length", "ratio", "kept"), [(256, 0.75, 64), (196, 0.75, 49), (64, 0.75, 16), (256, 0.9, 25), (4, 0.5, 2)]
)
def test_the_number_kept_is_the_authors(length, ratio, kept):
    assert num_visible(length, ratio) == kept
    assert (~mask_from_noise(torch.rand(5, length), ratio)).sum(1).tolist() == [kept] * 5


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_ratios_outside_0_and_1_are_refused(ratio):
    with pytest.raises(UserError, match=rf"mask_ratio={ratio}"):
        num_visible(256, ratio)


@pytest.mark.parametrize(("length", "ratio"), [(4, 0.9), (1, 0.5)])
def test_a_mask_that_leaves_nothing_visible_is_refused(length, ratio):
    with pytest.raises(UserError, match="no visible patch"):
        num_visible(length, ratio)


def test_even_a_tiny_ratio_hides_something_because_the_kept_number_is_rounded_down():
    assert num_visible(4, 0.01) == 3


def test_mask_keeps_the_smallest_noises():
    noise = torch.tensor([[0.3, 0.1, 0.9, 0.2], [0.0, 0.5, 0.4, 0.6]])
    assert mask_from_noise(noise, 0.5).tolist() == [[True, False, True, False], [False, True, False, True]]


def test_mask_is_the_double_argsort_of_the_authors():
    noise = torch.rand(6, 49)
    restore = noise.argsort(1).argsort(1)
    assert torch.equal(mask_from_noise(noise, 0.75), restore >= 12)


def test_equal_noises_are_kept_from_the_left():
    noise = torch.zeros(2, 300)
    mask = mask_from_noise(noise, 0.75)
    assert not mask[:, :75].any()
    assert mask[:, 75:].all()


def test_random_masks_follow_the_generator_and_differ_between_rows():
    masks = [random_mask(3, (4, 6), 0.5, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(masks[0], masks[1])
    assert masks[0].shape == (3, 24)
    assert len({tuple(row.tolist()) for row in masks[0]}) == 3


def test_noise_is_splitmix64_of_seed_draw_index_and_cell():
    golden, odd = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
    noise = sample_noise(torch.tensor([0, 5, 2**40]), 3, seed=3, draw=11)
    for row, index in enumerate([0, 5, 2**40]):
        key = splitmix64(splitmix64(11 * golden + 3 * odd) + (index + 1) * golden)
        expected = [(splitmix64(key + cell * golden) >> 40) / 2**24 for cell in (1, 2, 3)]
        assert noise[row].tolist() == expected


def test_noise_of_a_sample_depends_on_nothing_else_in_its_batch():
    indices = torch.tensor([9, 2, 7, 2])
    noise = sample_noise(indices, 16, seed=0, draw=4)
    assert torch.equal(noise[1], noise[3])
    for shard in (indices[:2], indices[2:], indices.flip(0)):
        own = sample_noise(shard, 16, seed=0, draw=4)
        for row, index in enumerate(shard):
            assert torch.equal(own[row], noise[indices.tolist().index(int(index))])


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    sample_noise(torch.arange(4), 16, seed=0, draw=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_draw_may_be_a_tensor_or_negative():
    indices = torch.arange(4)
    for draw in (-1, 0, 12345678901):
        assert torch.equal(
            sample_noise(indices, 8, seed=1, draw=draw), sample_noise(indices, 8, seed=1, draw=torch.tensor(draw))
        )


def test_noise_is_uniform_on_0_to_1():
    noise = sample_noise(torch.arange(2000), 100, seed=0, draw=0)
    assert noise.dtype == torch.float32
    assert noise.min() >= 0
    assert noise.max() < 1
    assert noise.mean().item() == pytest.approx(1 / 2, abs=4 * (1 / 12 / 200_000) ** 0.5)
    assert noise.var().item() == pytest.approx(1 / 12, abs=4 * (1 / 180 / 200_000) ** 0.5)
    counts = torch.histc(noise, bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum().item()
    assert 50 < chi_square < 160  # 99 degrees of freedom: mean 99, deviation 14


@pytest.mark.parametrize("vary", ["index", "draw", "seed"])
def test_every_cell_is_visible_equally_often(vary):
    n, length = 4000, 64
    if vary == "index":
        noise = sample_noise(torch.arange(n), length, seed=0, draw=0)
    else:
        noise = torch.cat(
            [sample_noise(torch.tensor([3]), length, **{"seed": 0, "draw": 0, vary: i}) for i in range(n)]
        )
    visible = (~mask_from_noise(noise, 0.75)).sum(0).double()
    # Rows without replacement: the statistic is chi-square with 63 degrees of freedom after dividing by 1 - 1/4.
    chi_square = ((visible - n / 4) ** 2 / (n / 4)).sum().item() / 0.75 * (length - 1) / length
    assert 30 < chi_square < 110


def test_different_indices_draws_seeds_and_cells_are_uncorrelated():
    indices = torch.arange(1000)
    base = sample_noise(indices, 64, seed=0, draw=0)
    others = {
        "next index": sample_noise(indices + 1, 64, seed=0, draw=0),
        "next draw": sample_noise(indices, 64, seed=0, draw=1),
        "previous draw": sample_noise(indices, 64, seed=0, draw=-1),
        "next seed": sample_noise(indices, 64, seed=1, draw=0),
        "index for draw": sample_noise(torch.zeros(1, dtype=torch.int64), 64_000, seed=0, draw=0),
        "next cell": base.roll(1, dims=1),
    }
    for name, other in others.items():
        assert abs(correlation(base, other)) < 4 / 64_000**0.5, name


def test_a_sample_sees_different_masks_at_different_draws():
    noise = torch.cat([sample_noise(torch.tensor([3]), 64, seed=0, draw=i) for i in range(200)])
    assert len({tuple(row) for row in mask_from_noise(noise, 0.75).tolist()}) == 200


@pytest.mark.gpu
def test_noise_and_masks_are_the_same_on_the_gpu():
    indices = torch.arange(512)
    cpu = sample_noise(indices, 256, seed=1, draw=2)
    gpu = sample_noise(indices.cuda(), 256, seed=1, draw=torch.tensor(2).cuda())
    assert torch.equal(cpu, gpu.cpu())
    assert torch.equal(mask_from_noise(cpu, 0.75), mask_from_noise(gpu, 0.75).cpu())


@pytest.mark.gpu
def test_compiled_noise_on_a_gpu_equals_eager_noise_on_a_cpu() -> None:
    indices = torch.arange(64)
    expected = sample_noise(indices, 256, seed=3, draw=7)
    compiled = torch.compile(sample_noise, fullgraph=True)
    assert torch.equal(compiled(indices.cuda(), 256, seed=3, draw=7).cpu(), expected)
