"""Reading weights from files: our checkpoints and run folders, the authors' layout, safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ssat.config.schema import Phase, Run
from ssat.core.checkpoints import StateDict, checkpoint_of, encoder_weights
from ssat.core.errors import UserError
from ssat.core.launch import say
from ssat.core.tensors import compare
from ssat.encoders.base import Encoder
from ssat.training.module import JointModule


def start_from(phase: Phase, module: JointModule, run_dir: Path, config: Run) -> None:
    """Encoder weights of the phase before, or of the file or run that the user names; head and optimizer stay fresh."""
    source, pretrained = phase.init_from, config.encoder.pretrained
    if source is None:
        if pretrained:
            say(f"{phase.name}: " + load_pretrained(module.encoder, pretrained, adapt_stem=config.encoder.adapt_stem))
        return
    if source == "previous":
        names = [p.name for p in config.mode.phases]
        path = run_dir / names[names.index(phase.name) - 1] / "checkpoints" / "last.ckpt"
    else:
        path = checkpoint_of(Path(source))
    fresh = load_encoder(module.encoder, path, teacher=phase.start == "teacher")
    if fresh:
        say(f"{phase.name}: {', '.join(fresh)} not in {path}: they start anew")


def load_encoder(encoder: Encoder, path: Path, *, teacher: bool = False) -> Sequence[str]:
    """Load the encoder, or the SSL task's `teacher`, of `path` into `encoder`, every tensor of it.

    A fixed position table follows from the image size and is kept; a learnable one of another grid is resampled. What
    one of the two passes alone reads may be missing, as published files of one pass lack it; its names are returned.

    Raises:
        UserError: the file is of another encoder; says the first differences.
    """
    given = encoder.adapt_weights(encoder_weights(path, encoder.state_dict(), teacher=teacher))
    found = compare(encoder, given)
    of_one_pass = encoder.only_masked() | encoder.only_full()
    if wrong := replace(found, missing=[name for name in found.missing if name not in of_one_pass]):
        raise UserError(f"{path} is of another encoder: {wrong}; choose the encoder and sizes it was trained with")
    _load(encoder, given, str(path))
    return found.missing


def _load(encoder: Encoder, given: StateDict, name: str) -> None:
    broken = [key for key, value in given.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(f"{name} holds nan or infinity, first in {broken[0]}: it is of a training that diverged")
    encoder.load_state_dict(given, strict=False)


ENOUGH = 0.95  # share of an encoder's tensors that pretrained weights must fill


def load_pretrained(encoder: Encoder, source: str | bool, *, adapt_stem: bool = False) -> str:
    """Load published weights into `encoder`; returns a line that says what was and what was not used.

    Args:
        source: a file, or True for timm's weights of this architecture, fetched from its hub.
        adapt_stem: fit the stem to this encoder's channels, keeping the sum of its responses.

    Raises:
        UserError: no such weights, or fewer than 95 % of the tensors that both passes read fit; says what differs.
    """
    name = str(encoder.timm_name if source is True else source)
    weights = encoder.adapt_weights(timm_weights(encoder) if source is True else pretrained_file(encoder, str(source)))
    stem = encoder.stem
    if stem in weights and weights[stem].ndim >= 4 and weights[stem].shape[1] != encoder.in_chans:
        if not adapt_stem:
            raise UserError(
                f"{name} reads {weights[stem].shape[1]} channels and data.channels={encoder.in_chans}: set"
                f" encoder.adapt_stem=true to fit its first layer, or data.channels={weights[stem].shape[1]}"
            )
        weights[stem] = adapt_channels(weights[stem], encoder.in_chans)
    found = compare(encoder, weights)
    own = encoder.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    needed = [key for key in own if key not in encoder.only_masked() | encoder.only_full()]
    share = sum(key in fitting for key in needed) / len(needed)
    if share < ENOUGH:
        raise UserError(
            f"{name} fits {share:.0%} of this encoder's tensors, and {ENOUGH:.0%} are needed: {found};"
            " it is of another architecture or size; choose the encoder that it was trained as"
        )
    _load(encoder, fitting, name)
    return f"{len(fitting)} of {len(own)} tensors of the encoder from {name}" + (f"; {found}" if found else "")


def pretrained_file(encoder: Encoder, source: str) -> StateDict:
    """The encoder's tensors of the file `source`."""
    if not Path(source).is_file():
        raise UserError(f"encoder.pretrained={source!r} is not a file: give one, or true for timm's weights")
    return encoder_weights(Path(source), encoder.state_dict())


def timm_weights(encoder: Encoder) -> StateDict:
    """timm's weights for the encoder's architecture, from its hub or the local cache of it."""
    import timm

    if encoder.timm_name is None:
        raise UserError(
            f"encoder.pretrained=true: timm has no weights for {type(encoder).__name__}; give a file, or take the"
            " architecture from timm, e.g. encoder=timm encoder.name=vit_small_patch16_224"
        )
    config = timm.get_pretrained_cfg(encoder.timm_name)
    if config is None or not config.has_weights:
        raise UserError(f"encoder.pretrained=true: timm has no weights for {encoder.timm_name}; give a file")
    try:
        state = timm.create_model(encoder.timm_name, pretrained=True).state_dict()
    except Exception as error:  # the hub's library raises many kinds
        raise UserError(
            f"timm's weights for {encoder.timm_name} could not be fetched ({_first_line(error)}): check the network, or"
            f" download them elsewhere (huggingface.co/{config.hf_hub_id or 'timm'}) and set encoder.pretrained=<file>"
        ) from error
    return {name: value for name, value in state.items() if not name.startswith(("head.", "fc."))}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A stem (D, C, ...) for `channels` channels: summed for one, else repeated and scaled to the same response."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    given = weight.shape[1]
    times = -(-channels // given)
    return weight.repeat(1, times, *[1] * (weight.ndim - 2))[:, :channels] * (given / channels)
