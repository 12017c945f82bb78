"""SimCLR (Chen et al. 2020) as auxiliary task (Table 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.auxiliary.base import SSLOutput, SSLTask, check_views
from src.auxiliary.gather import gather
from src.batch import Batch
from src.encoders.base import Encoder
from src.errors import UserError

SHARES = ("shared", "third", "both_cls")


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of B pairs of embeddings (B, D): the mean over all 2B of them.

    Each is to find its partner among the 2B - 1 others by cosine similarity; in fp32, since exp(1 / temperature) is
    large. Equal embeddings give ln(2B - 1).
    """
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = z @ z.T / temperature
        similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(first))
        return F.cross_entropy(similarity, partner)


class ProjectionHead(nn.Module):
    """Two linear layers, each with batch norm, ReLU between them (Chen et al. 2020); thrown away at inference."""

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
        return self.layers(x)


class SimCLR(SSLTask):
    """Two views of an image are to be more alike than views of different images.

    Args:
        encoder: only its width is read.
        temperature: of the similarities.
        hidden_dim: of the projection head; None = the encoder's width.
        out_dim: of the embeddings.
        share: `shared` = the classification images are the first view, an extra view is the second; `third` = two extra
            views beside the classification images; `both_cls` = as shared, and both views are classified.
        seed: unused, the views carry the randomness.

    Raises:
        UserError: an unknown `share`, or a temperature that is not above 0.
    """

    min_batch = 2  # an image is compared with the others of its batch

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.5,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        share: str = "shared",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if share not in SHARES:
            raise UserError(f"ssl.share={share!r} is not one of {', '.join(SHARES)}")
        if temperature <= 0:
            raise UserError(f"ssl.temperature={temperature} is not above 0")
        self.temperature, self.share = temperature, share
        self.views = 2 if share == "third" else 1
        self.head = ProjectionHead(encoder.num_features, hidden_dim or encoder.num_features, out_dim)

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> SSLOutput:
        check_views(batch, self.views)
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
        return SSLOutput(nt_xent(z1, z2, self.temperature), features, {})
