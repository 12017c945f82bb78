"""The video transformer against independent formulas, published sizes and the library transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.layers import sincos_sequence
from ssat.encoders.videomae import VideoTransformer, from_transformers
from tests.encoders.cases import build, images_for

SMALL = partial(VideoTransformer, 4, 32, 8, embed_dim=48, depth=2, num_heads=3)
SIZES = {"videomae_s": (384, 6), "videomae_b": (768, 12)}


def moved(module: nn.Module) -> nn.Module:
    """In evaluation mode, with every parameter off its initial zeros and ones."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval()


def test_the_position_table_is_the_published_formula() -> None:
    table = sincos_sequence(20, 6)
    for position in (0, 3, 19):
        for channel in range(6):
            angle = torch.tensor(position / 10000 ** (2 * (channel // 2) / 6), dtype=torch.float64)
            expected = angle.sin() if channel % 2 == 0 else angle.cos()
            assert table[position, channel].item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_embedding_is_the_convolution_over_time_and_space() -> None:
    encoder = SMALL()
    clips = torch.randn(2, 3, 4, 32, 32)
    expected = encoder.patch_embed.proj(clips).flatten(2).transpose(1, 2) + sincos_sequence(2 * 16, 48)
    assert torch.allclose(encoder.embed(clips), expected, atol=1e-5)


def test_attention_is_the_formula_with_biases_of_queries_and_values_alone() -> None:
    attention = moved(SMALL()).blocks[0].attn
    x = torch.randn(1, 5, 48)
    q, k, v = (F.linear(x, weight) for weight in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    heads = []
    for part in range(3):
        one = slice(16 * part, 16 * (part + 1))
        heads.append((q[..., one] @ k[..., one].transpose(1, 2) / 4).softmax(-1) @ v[..., one])
    assert torch.allclose(attention(x), attention.proj(torch.cat(heads, -1)), atol=1e-5)
    assert torch.allclose(attention(x, queries=2), attention(x)[:, :2], atol=1e-6)


def test_features_are_the_normalised_mean_token_and_the_masked_pass_has_its_own_norm() -> None:
    encoder = moved(SMALL())
    clips, nothing = torch.randn(2, 3, 4, 32, 32), torch.zeros(2, 32, dtype=torch.bool)
    last = encoder.forward_blocks(clips)[-1]
    assert torch.allclose(encoder(clips), encoder.fc_norm(last.mean(1)), atol=1e-6)
    assert torch.allclose(encoder.forward_masked(clips, nothing).maps[0], encoder.norm(last), atol=1e-5)


def test_the_features_are_the_mean_of_the_tokens_features() -> None:
    encoder = build("videomae")
    clips = images_for(encoder)
    assert torch.allclose(encoder.forward_tokens(clips).mean(1), encoder(clips), atol=1e-5)


def test_the_map_has_the_axes_of_the_clip() -> None:
    encoder = VideoTransformer(4, (16, 24), 8, embed_dim=12, depth=1, num_heads=1).eval()
    clips = torch.randn(1, 3, 4, 16, 24)
    final, tokens = encoder.forward_map(clips), encoder.forward_blocks(clips)[-1]
    assert final.shape == (1, 12, 2, 2, 3)
    slot, row, col = 1, 0, 2
    assert torch.equal(final[0, :, slot, row, col], tokens[0, slot * 6 + row * 3 + col])


def test_state_dict_has_the_official_names_and_no_table() -> None:
    of_block = [
        *("norm1.weight", "norm1.bias", "attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight"),
        *("attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight"),
        "mlp.fc2.bias",
    ]
    expected = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    expected |= {f"blocks.{i}.{name}" for i in range(2) for name in of_block}
    expected |= {f"{norm}.{part}" for norm in ("norm", "fc_norm") for part in ("weight", "bias")}
    assert SMALL().state_dict().keys() == expected


@pytest.mark.parametrize(("name", "parameters"), [("videomae_s", 21_879_936), ("videomae_b", 86_227_200)])
def test_parameters_are_the_official_ones(name: str, parameters: int) -> None:
    width, heads = SIZES[name]
    with torch.device("meta"):
        encoder = VideoTransformer(embed_dim=width, num_heads=heads)
    # Classifier and pre-trained encoder have the same number: each has one of the two norms.
    of_norm = 2 * width
    assert sum(p.numel() for p in encoder.parameters()) - of_norm == parameters


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"frames": 5}, "encoder.frames=5 is not a multiple of encoder.tubelet_size=2"),
        ({"frames": 0}, "encoder.frames=0 is not a multiple"),
        ({"img_size": 30}, "img_size=30 is not a multiple of patch_size=8"),
        ({"num_heads": 5}, "width 48 is not divisible by num_heads=5"),
        ({"depth": 0}, "encoder.depth=0 is not at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict, sentence: str) -> None:
    values = {"frames": 4, "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3} | sizes
    with pytest.raises(UserError, match=sentence):
        VideoTransformer(**values)


def test_an_image_is_no_clip() -> None:
    with pytest.raises(UserError, match=r"clips are \(3, 32, 32\), the encoder takes \(3, 4, 32, 32\) \(channels, fr"):
        SMALL()(torch.randn(2, 3, 32, 32))


def oracle(**values) -> nn.Module:
    """transformers' classifier with random weights, of the size of SMALL and with our epsilons."""
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    from transformers.models.videomae.modeling_videomae import VideoMAEForVideoClassification

    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=192, layer_norm_eps=1e-6, num_labels=5, **values,
    )  # fmt: skip
    theirs = moved(VideoMAEForVideoClassification(config))
    theirs.fc_norm.eps = 1e-6
    return theirs


def test_features_and_logits_equal_the_transformers_library() -> None:
    theirs = oracle()
    encoder = SMALL().eval()
    state = from_transformers(theirs.state_dict())
    classifier = {name: state.pop(f"classifier.{name}") for name in ("weight", "bias")}
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    assert set(missing) == encoder.only_masked() and not unexpected
    clips = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs(clips.transpose(1, 2), output_hidden_states=True)
        logits = F.linear(encoder(clips), classifier["weight"], classifier["bias"])
        assert (logits - expected.logits).abs().max() < 1e-4
        assert expected.logits.std() > 0.1  # no comparison of zeros
        blocks: list[Tensor] = encoder.forward_blocks(clips)
        for ours, hidden in zip(blocks, expected.hidden_states[1:], strict=True):
            assert (ours - hidden).abs().max() < 1e-4
