"""What all tasks share that predict hidden parts of the input: masks by sample, the passes, the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.noise import sample_noise
from ssat.encoders.base import Encoder, gather_tokens, split_mask
from ssat.tasks.base import RandomTask, TaskOutput


class MaskedPrediction(RandomTask):
    """A task that hides cells of the input and predicts something of them from the visible ones.

    Attributes:
        decoder: from (latent, mask, num_visible=) to predictions (B, M, P) of the hidden cells, in raster order.
        distance: of prediction and target, element by element.
        mask_ratio: share of cells hidden.
        num_visible: visible cells of a sample.
        noise_length: random numbers from which a sample's mask is made.
    """

    masked, full, some_features = True, False, True
    decoder: Any
    distance: Callable[[Tensor], Tensor]
    mask_ratio: float
    num_visible: int
    noise_length: int

    def mask_of(self, noise: Tensor) -> Tensor:
        """Mask (B, L), True = hidden, of uniform `noise` (B, noise_length)."""
        raise NotImplementedError(f"{type(self).__name__} has no mask_of")

    def target(self, images: Tensor) -> Tensor:
        """What is predicted for every cell: (B, L, P), fp32."""
        raise NotImplementedError(f"{type(self).__name__} has no target")

    def draw_mask(self, batch: Batch) -> Tensor:
        """Mask (B, L) of the batch's samples: the next draw in training, always the same one in evaluation."""
        return self.mask_of(self.noise(batch, self.noise_length))

    def fixed_mask(self, indices: Tensor) -> Tensor:
        """The mask (B, L) that evaluation and pictures use for the samples `indices`."""
        return self.mask_of(sample_noise(indices, self.noise_length, seed=self.seed, draw=self.FIXED_DRAW))

    def source_of(self, batch: Batch) -> Tensor:
        """The images to hide and predict."""
        return batch.images

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool, mask: Tensor | None = None) -> TaskOutput:
        """Mean loss over the hidden cells of the source images; `mask` (B, L) fixes which are hidden."""
        images = self.source_of(batch)
        known = self.num_visible if mask is None else None
        if mask is None:
            mask = self.draw_mask(batch)
        features, rows = None, batch.classified
        if with_features and images is batch.images:
            some = {} if rows is None else {"rows": rows}
            features, latent = encoder.forward_joint(images, mask, num_visible=known, **some)
        else:
            if with_features:
                features = encoder.forward_features(batch.images if rows is None else batch.images[rows])
            latent = encoder.forward_masked(images, mask, num_visible=known)
        prediction = self.decoder(latent, mask, num_visible=known)
        _, hidden = split_mask(mask, known)
        targets = self.target(images)
        # Every row hides the same number of cells, so the mean over them is sum(mask * loss) / sum(mask).
        loss = self.distance(prediction.float() - gather_tokens(targets, hidden)).mean()
        return TaskOutput(loss, features, self.monitors(targets))

    def monitors(self, targets: Tensor) -> dict[str, Tensor]:
        """What to log of the targets (B, L, P); here nothing."""
        return {}

    @property
    def has_pictures(self) -> bool:
        """Whether `hide` and `reconstruct` give pictures."""
        return True

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """`images` with the hidden cells set to 0, the mean colour."""
        raise NotImplementedError(f"{type(self).__name__} has no hide")

    def reconstruct(self, encoder: Encoder, images: Tensor, mask: Tensor) -> Tensor:
        """`images` with the hidden cells predicted, in the same normalised units."""
        raise NotImplementedError(f"{type(self).__name__} has no reconstruct")

    def forward_reference(
        self, encoder: Encoder, images: Tensor, mask: Tensor, *, num_visible: int | None = None
    ) -> Tensor:
        """The loss in its plain formulation, without shortcuts; for tests and MACs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_reference")
