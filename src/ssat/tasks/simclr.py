"""SimCLR (Chen et al. 2020) as auxiliary task (Table 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.batch import Batch
from ssat.core.choices import check_choice
from ssat.core.distributed import gather
from ssat.core.errors import UserError
from ssat.core.views import View, ViewAugment, pair_of_views
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput, check_views

Share = Literal["shared", "third", "both_cls"]
SHARES = get_args(Share)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of B pairs of embeddings (B, D), the mean over all 2B embeddings.

    Each embedding is classified: which of the 2B - 1 others is its partner? The logits are cosine similarities divided
    by `temperature`, in fp32, since exp(1 / temperature) is large. Equal embeddings give ln(2B - 1).

    Args:
        first: (B, D) embeddings of one view.
        second: (B, D) embeddings of the other view, in the same order.
        temperature: above 0.

    Source: Chen et al. 2020, sec. 2.1.

    Example:
        >>> nt_xent(torch.ones(64, 8), torch.ones(64, 8), 0.5)  # ln 127
        tensor(4.8442)
    """
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = z @ z.T / temperature
        similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(first))
        return F.cross_entropy(similarity, partner)


class ProjectionHead(nn.Module):
    """Two linear layers with batch norm and a ReLU between them (Chen et al. 2020); thrown away at inference.

    Args:
        dim: width of the features.
        hidden_dim: width between the layers.
        out_dim: width of the embeddings.
    """

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim, bias=False),
            nn.BatchNorm1d(out_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) to (B, out_dim)."""
        return self.layers(x)


class SimCLR(Task):
    """Learn features in which two views of one image are more alike than views of different images.

    Args:
        encoder: only its width and image size are read.
        temperature: of the similarities.
        hidden_dim: of the projection head; None = the encoder's width.
        out_dim: of the embeddings.
        share: `shared` = the classification images are the first view, an extra view is the second; `third` = two extra
            views beside the classification images; `both_cls` = as `shared`, and both views are classified.
        view_augment: how the extra views are made, see `core.views.pair_of_views`.

    Raises:
        UserError: an unknown `share` or `view_augment`, or a temperature that is not above 0.
    """

    min_batch = 2  # an image is compared with the others of its batch

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.5,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        share: Share = "shared",
        view_augment: ViewAugment = "simclr",
    ) -> None:
        super().__init__()
        check_choice("ssl.share", share, SHARES)
        if temperature <= 0:
            raise UserError(f"ssl.temperature={temperature} is not above 0", key="ssl.temperature", value=temperature)
        self.temperature, self.share = temperature, share
        self.compares_images = share != "third"
        self.extra_views = self.needed_views(
            {"share": share, "view_augment": view_augment}, img_size=encoder.img_size[0]
        )
        self.head = ProjectionHead(encoder.num_features, hidden_dim or encoder.num_features, out_dim)

    @classmethod
    def needed_views(cls, options: Mapping[str, Any], *, img_size: int) -> list[View | str]:
        """Two views with `share=third`, else the second one."""
        views = pair_of_views(options["view_augment"], img_size)
        return views if options["share"] == "third" else views[1:]

    @classmethod
    def alone(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Without a classification there is no image to share: both views are extra."""
        return dict(options) | ({"share": "third"} if options.get("share") in SHARES else {})

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        """NT-Xent of the two views over the batches of all processes."""
        check_views(batch, len(self.extra_views))
        own = [] if self.share == "third" else [batch.images]
        pair = [*own, *batch.views[: 2 - len(own)]]
        first, second = encoder.forward_features(torch.cat(pair)).chunk(2)
        features = None
        if with_features:
            features = {
                "shared": lambda: first,
                "third": lambda: encoder.forward_features(batch.images),
                "both_cls": lambda: torch.cat([first, second]),
            }[self.share]()
        if self.training:
            # The head sees the pairs of all processes: its batch norms and the loss are those of the whole batch.
            first, second = gather(first), gather(second)
        z1, z2 = self.head(torch.cat([first, second])).chunk(2)
        return TaskOutput(nt_xent(z1, z2, self.temperature), features, {})
