"""Says at the end of a search with Optuna which trial was the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ssat.config.search import BEST
from ssat.sweeps.jobs import key_of, repeat_command


class BestTrial(Callback):
    """Reads what Hydra's Optuna sweeper has written: the best values and what they gave."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the best trial, and the command that shows it again."""
        path = Path(config.hydra.sweep.dir) / "optimization_results.yaml"
        found: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
        if "best_value" in found:  # several objectives have no best one
            print("\n" + "\n".join(best_lines(found, list(config.hydra.overrides.task))), flush=True)


def best_lines(found: dict[str, Any], words: list[str]) -> list[str]:
    """The best value with its parameters, and the command of its run.

    Args:
        found: `best_value` and `best_params` of the study.
        words: the overrides of the search.
    """
    best = {str(key): value for key, value in found["best_params"].items()}
    chosen = [f"{key}={value}" for key, value in best.items()]
    fixed = [word for word in words if key_of(word) not in best and word != BEST]
    return [f"best trial: {found['best_value']:.4g} with {' '.join(chosen)}", f"  {repeat_command([*fixed, *chosen])}"]
