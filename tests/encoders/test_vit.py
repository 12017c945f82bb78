"""The plain ViT: sizes, initialisation, positions, and agreement with timm's."""

import math

import pytest
import timm
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.encoders.layers import Block, attend, sincos_table
from ssat.encoders.vit import VisionTransformer
from ssat.runs.footprint import trainable
from ssat.tasks.reconstruction import Reconstruction
from tests.encoders.cases import build, images_for, mask_for, small_vit

T, S = {"embed_dim": 192, "num_heads": 3}, {"embed_dim": 384, "num_heads": 6}
# spec 1.1: image, patch, classes; trainable encoder + head and decoder of T, of S; fixed tables of T, S, decoder.
COUNTS = [
    ("PneumoniaMNIST", 28, 2, 2, 5_341_826, 423_180, 21_300_482, 447_756, 37_824, 75_648, 25_216),
    ("CIFAR-10", 32, 2, 10, 5_343_370, 423_180, 21_303_562, 447_756, 49_344, 98_688, 32_896),
    ("CIFAR-100", 32, 2, 100, 5_360_740, 423_180, 21_338_212, 447_756, 49_344, 98_688, 32_896),
    ("Flowers", 224, 16, 102, 5_506_278, 520_704, 21_629_286, 545_280, 37_824, 75_648, 25_216),
    ("DomainNet", 224, 16, 345, 5_553_177, 520_704, 21_722_841, 545_280, 37_824, 75_648, 25_216),
    ("ImageNet-1K", 224, 16, 1000, 5_679_592, 520_704, 21_975_016, 545_280, 37_824, 75_648, 25_216),
    ("Chaoyang", 512, 32, 4, 5_929_732, 817_920, 22_476_292, 842_496, 49_344, 98_688, 32_896),
]


def fixed(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not p.requires_grad)


@pytest.mark.parametrize("row", COUNTS, ids=[row[0] for row in COUNTS])
def test_parameter_counts_are_the_papers(row):
    _, img_size, patch_size, classes, t, t_decoder, s, s_decoder, t_table, s_table, decoder_table = row
    with torch.device("meta"):
        for size, count, decoder, table in ((T, t, t_decoder, t_table), (S, s, s_decoder, s_table)):
            encoder = VisionTransformer(img_size, patch_size, **size)
            task = Reconstruction(encoder)
            assert trainable(encoder) + trainable(nn.Linear(encoder.num_features, classes)) == count
            assert trainable(task) == decoder
            assert (fixed(encoder), fixed(task)) == (table, decoder_table)


def test_the_encoders_of_table_7_have_their_published_parameters() -> None:
    small = {"embed_dim": 192, "depth": 9, "num_heads": 12, "mlp_ratio": 2, "qkv_bias": False, "norm_eps": 1e-5}
    vit_2m8, deit_ti = (
        VisionTransformer(32, 4, **small, pos_embed="learnable"),
        VisionTransformer(224, 16, pos_embed="learnable"),
    )
    assert trainable(vit_2m8) + 193 * 10 == 2_692_426
    assert trainable(vit_2m8) + 193 * 100 == 2_709_796
    assert trainable(deit_ti) + 193 * 100 == 5_543_716


@pytest.mark.parametrize(("size", "count"), [(T, 5_392_714), (S, 21_402_250)], ids=["T", "S"])
def test_learnable_positions_give_table_1s_scratch_counts(size, count):
    with torch.device("meta"):
        encoder = VisionTransformer(32, 2, pos_embed="learnable", **size)
        assert trainable(encoder) + trainable(nn.Linear(encoder.num_features, 10)) == count


def test_sincos_table_has_the_known_values():
    table = sincos_table(192, (16, 16))
    col1, row1 = table[1], table[16]
    assert col1[:3].tolist() == pytest.approx([0.84147, 0.73482, 0.62980], abs=1e-5)
    assert col1[96:144].abs().max() == 0
    assert torch.equal(row1[96:], col1[:96])
    assert torch.equal(row1[:96], col1[96:])


def test_sincos_table_matches_an_elementwise_formula_on_a_rectangle():
    dim, rows, cols = 8, 2, 3
    table = sincos_table(dim, (rows, cols))
    for row in range(rows):
        for col in range(cols):
            expected = []
            for position in (col, row):
                angles = [position / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert table[row * cols + col].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_fixed_table_is_saved_not_trained_and_zero_for_the_class_token():
    encoder = small_vit()
    assert "pos_embed" in encoder.state_dict()
    assert not encoder.pos_embed.requires_grad
    assert encoder.pos_embed[0, 0].abs().max() == 0


def test_initialisation_follows_the_authors():
    torch.manual_seed(0)
    encoder = VisionTransformer(32, 2)
    weight = encoder.patch_embed.proj.weight
    assert 0.98 * 0.17150 < weight.abs().max() <= 0.17150 + 1e-5
    assert 0.9 * 0.28868 < encoder.patch_embed.proj.bias.abs().max() <= 0.28868 + 1e-5
    qkv = encoder.blocks[3].attn.qkv
    assert 0.98 * 0.08839 < qkv.weight.abs().max() <= 0.08839 + 1e-5
    assert qkv.weight.std().item() == pytest.approx(0.08839 / math.sqrt(3), rel=0.02)
    assert encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    for name, parameter in encoder.named_parameters():
        if name.endswith(".bias") and not name.startswith("patch_embed"):
            assert parameter.abs().max() == 0, name
        if "norm" in name and name.endswith(".weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name


@pytest.mark.parametrize(("img_size", "in_chans"), [(12, 3), ((8, 16), 1)], ids=["square", "rectangle"])
def test_all_outputs_are_timms(img_size, in_chans):
    torch.manual_seed(0)
    ours = VisionTransformer(
        img_size, 4, in_chans=in_chans, embed_dim=24, depth=3, num_heads=3, pos_embed="learnable"
    ).eval()
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=img_size, patch_size=4, in_chans=in_chans, embed_dim=24, depth=3, num_heads=3, num_classes=0
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    images = images_for(ours)
    tokens = theirs.forward_features(images)
    assert torch.allclose(ours.forward_features(images), tokens[:, 0], atol=1e-5, rtol=0)
    spatial = ours.forward_map(images).flatten(2).transpose(1, 2)
    assert torch.allclose(spatial, tokens[:, 1:], atol=1e-5, rtol=0)
    theirs_blocks = theirs.forward_intermediates(images, norm=False, output_fmt="NLC", intermediates_only=True)
    for block, expected in zip(ours.forward_blocks(images), theirs_blocks, strict=True):
        assert torch.allclose(block[:, 1:], expected, atol=1e-5, rtol=0)


def test_with_nothing_hidden_the_masked_view_is_the_full_one():
    encoder = build("vit")
    images = images_for(encoder)
    nothing = torch.zeros(len(images), 16, dtype=torch.bool)
    latent = encoder.forward_masked(images, nothing)
    assert torch.allclose(latent.cls, encoder.forward_features(images), atol=1e-5, rtol=0)
    spatial = encoder.forward_map(images).flatten(2).transpose(1, 2)
    assert torch.allclose(latent.maps[0], spatial, atol=1e-5, rtol=0)


def test_patch_embedding_is_its_convolution():
    encoder = build("vit-rectangular-grey")
    images = images_for(encoder)
    convolved = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2)
    assert torch.allclose(encoder.patch_embed(encoder.raw_patches(images)), convolved, atol=1e-5, rtol=0)


def test_attention_is_softmax_of_scaled_products():
    q, k, v = torch.randn(3, 2, 4, 5, 6).double()
    expected = ((q @ k.transpose(-1, -2)) / math.sqrt(6)).softmax(-1) @ v
    assert torch.allclose(attend(q.float(), k.float(), v.float()), expected.float(), atol=1e-5)


def outputs_and_gradients(form, inputs, dtype):
    tensors = [x.to(dtype).requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = form(*tensors)
    out.float().square().mean().backward()
    return out.detach().double(), *(x.grad.double() for x in tensors)


@pytest.mark.parametrize(("width", "keys"), [(8, 65), (64, 65), (64, 197), (32, 513)])
def test_attention_in_bf16_on_a_cpu_rounds_no_more_than_the_plain_form(width, keys):
    inputs = [torch.randn(2, 3, keys, width) for _ in range(3)]

    def plain(q, k, v):
        return ((q * width**-0.5) @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v

    exact, ours, naive = (
        outputs_and_gradients(form, inputs, dtype)
        for form, dtype in ((plain, torch.double), (attend, torch.bfloat16), (plain, torch.bfloat16))
    )
    for true, own, other in zip(exact, ours, naive, strict=True):
        assert (own - true).norm() <= 1.05 * (other - true).norm()
    assert attend(*[x.bfloat16() for x in inputs]).dtype == torch.bfloat16


def test_attention_of_doubles_stays_in_double():
    assert attend(*torch.randn(3, 1, 2, 5, 64).double()).dtype == torch.double


def test_drop_path_rises_linearly_over_the_depth():
    encoder = small_vit(drop_path=0.2)
    assert [block.drop_path_rate for block in encoder.blocks] == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_drop_path_drops_whole_samples_and_scales_the_kept(packed):
    block = Block(8, 2, drop_path=0.5).double().train()
    views = [torch.randn(40, 3, 8).double(), torch.randn(40, 2, 8).double()]
    if packed:
        samples = [(40, 3), (40, 2)]
        flat = block.forward_packed(torch.cat([view.flatten(0, 1) for view in views]), samples)
        outputs = [flat[:120].view(40, 3, 8), flat[120:].view(40, 2, 8)]
    else:
        outputs = [block(view) for view in views]
    chosen = []
    for view, output in zip(views, outputs, strict=True):
        attention = 2 * block.attn(block.norm1(view))
        candidates = []
        for after_attention in (view, view + attention):
            mlp = 2 * block.mlp(block.norm2(after_attention))
            candidates += [after_attention, after_attention + mlp]
        errors = torch.stack([(output - c).abs().amax((1, 2)) for c in candidates])
        assert errors.min(dim=0).values.max() < 1e-6
        chosen.append(errors.argmin(dim=0))
    assert {int(choice) for choice in chosen[0]} == {0, 1, 2, 3}
    assert not torch.equal(chosen[0], chosen[1]), "each view has its own draws"


def test_drop_path_does_nothing_in_evaluation():
    torch.manual_seed(0)
    plain = small_vit().eval()
    dropping = small_vit(drop_path=0.9).eval()
    dropping.load_state_dict(plain.state_dict())
    images = images_for(plain)
    assert torch.equal(plain.forward_features(images), dropping.forward_features(images))


def test_packed_pass_agrees_with_two_passes_at_the_papers_size():
    torch.manual_seed(0)
    encoder = VisionTransformer(32, 2, depth=2).eval()
    images = torch.randn(2, 3, 32, 32)
    mask = mask_for(encoder, 2, 0.75)
    features, latent = encoder.forward_joint(images, mask, num_visible=64)
    plain_features, plain_latent = Encoder.forward_joint(encoder, images, mask)
    assert torch.allclose(features, plain_features, atol=1e-5, rtol=0)
    assert torch.allclose(latent.maps[0], plain_latent.maps[0], atol=1e-5, rtol=0)
    assert torch.allclose(latent.cls, plain_latent.cls, atol=1e-5, rtol=0)


def test_last_block_of_the_full_view_costs_one_query():
    from ssat.runs.footprint import macs_of

    encoder = small_vit()
    images = images_for(encoder)
    assert macs_of(lambda: encoder.forward_features(images)) < macs_of(lambda: encoder.forward_map(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("forward_features", marks=pytest.mark.slow), "forward_joint"])
def test_passes_compile_into_one_graph(name):
    encoder = build("vit")
    images, mask = images_for(encoder), mask_for(encoder)
    plain = getattr(encoder, name)
    arguments = (images,) if name == "forward_features" else (images, mask)
    known = {} if name == "forward_features" else {"num_visible": int((~mask[0]).sum())}
    torch._dynamo.reset()
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    outputs, expected = compiled(*arguments, **known), plain(*arguments, **known)
    if name == "forward_joint":
        outputs, expected = outputs[0], expected[0]
    assert torch.allclose(outputs, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_joint_pass_compiles_with_inductor():
    encoder = build("vit")
    images, mask = images_for(encoder), mask_for(encoder)
    torch._dynamo.reset()
    features, _ = torch.compile(encoder.forward_joint)(images, mask, num_visible=int((~mask[0]).sum()))
    features.sum().backward()
    assert torch.allclose(features, encoder.forward_features(images), atol=1e-5, rtol=0)


def test_only_a_learnable_table_is_exempt_from_decay_besides_vectors():
    encoder = small_vit(pos_embed="learnable")
    assert encoder.no_weight_decay() == {"pos_embed"}
    assert encoder.pos_embed.requires_grad
    assert "cls_token" not in encoder.no_weight_decay()


def test_layers_are_numbered_from_the_embedding_to_the_norm():
    ids = small_vit().layer_ids()
    assert ids["patch_embed.proj.weight"] == ids["cls_token"] == ids["pos_embed"] == 0
    assert ids["blocks.0.norm1.weight"] == 1
    assert ids["blocks.2.mlp.fc2.bias"] == 3
    assert ids["norm.weight"] == 4


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"img_size": 30, "patch_size": 4}, ["30", "patch_size=4", "28", "32"]),
        ({"img_size": (32, 18), "patch_size": 4}, ["18", "16", "20"]),
        ({"img_size": 2, "patch_size": 4}, ["img_size=2", "4"]),
        ({"img_size": 32, "patch_size": 4, "embed_dim": 100, "num_heads": 3}, ["100", "num_heads=3"]),
        ({"img_size": 32, "patch_size": 4, "embed_dim": 30, "num_heads": 3}, ["30", "4"]),
        ({"img_size": 32, "patch_size": 4, "depth": 0}, ["depth=0"]),
        ({"img_size": 32, "patch_size": 4, "pos_embed": "sine"}, ["'sine'", "sincos", "learnable"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_value_and_the_cure(arguments, parts):
    with pytest.raises(UserError) as raised:
        VisionTransformer(**arguments)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("shape", [(1, 3, 16, 12), (1, 1, 12, 12)], ids=["size", "channels"])
def test_images_of_another_shape_are_refused_in_every_pass(shape):
    encoder = small_vit()
    mask = mask_for(encoder, 1)
    calls = [
        lambda x: encoder.forward_features(x),
        lambda x: encoder.forward_masked(x, mask),
        lambda x: encoder.forward_joint(x, mask),
        lambda x: encoder.forward_map(x),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"\(3, 12, 12\)"):
            call(torch.zeros(shape))
