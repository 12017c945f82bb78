"""The notes at the end of the page: how its numbers are to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ssat.core.words import first_few
from ssat.results.columns import DAGGER, is_no_cell
from ssat.results.content import counted, unit
from ssat.results.intervals import SEED_DEVIATION
from ssat.results.spent import said_extensions
from ssat.results.text import distinct, shared_energy
from ssat.runs.record import Record, as_number, lookup


def notes(records: Sequence[Record]) -> list[str]:
    """The notes that the finished runs call for."""
    return list(_notes([record for record in records if record.finished]))


def _notes(finished: Sequence[Record]) -> Iterator[str]:
    noun = counted(finished)
    if any(record.split == "test" and not record.get("metrics.val") for record in finished):
        measures = {"mAP" if record.multi_label else "accuracy" for record in finished}
        best = " or ".join(sorted(measures))
        yield (
            f"best is the highest {best} of any epoch. It was chosen on the test {noun} themselves (there is no "
            "validation split), hence it is optimistic. The verdicts use the last epoch unless recipe.report=max."
        )
    yield (
        f"± after a difference is its 95 % interval: it follows from the number of test {noun} (binomial) and from how "
        f"much seeds differ, assumed as a deviation of {SEED_DEVIATION:g} points until more seeds tell. The thin "
        f"line on a bar is the 95 % interval from the number of test {noun} alone. ± after a mean is the standard "
        "deviation over seeds, or over the folds of a cross-validation."
    )
    if len({_norm_pix(record) for record in finished} - {None}) > 1:
        yield (
            "The auxiliary losses of these runs have different scales: some runs reconstruct pixels normalised within "
            "each patch (norm_pix), others plain pixels."
        )
    metered = [record for record in finished if record.get("energy.source")]
    sources = distinct(f"{record.text('energy.source')}, {record.text('energy.country')}" for record in metered)
    if sources:
        yield f"Energy and CO2: {'; '.join(sources)}. CO2 Lacoste is hours × rated power × kg/kWh, the paper's formula."
    if sentence := shared_energy(finished):
        yield sentence
    if sentence := said_extensions(finished):
        yield sentence
    yield from _collapsed(finished)
    yield f"Time counts all phases of a run with their evaluations; {unit(finished)}/s counts training alone."
    yield from _unfaithful(finished)
    yield from _versions(finished)


def _unfaithful(finished: Sequence[Record]) -> Iterator[str]:
    """Why some runs are no cells of the paper."""
    unfaithful = [record for record in finished if is_no_cell(record)]
    reasons = Counter(str(reason) for record in unfaithful for reason in record.items("unfaithful_reasons"))
    if unfaithful:
        listed = "; ".join(f"{reason} ({count} of {len(finished)} runs)" for reason, count in reasons.most_common())
        yield f"{DAGGER} cannot be read as a cell of the paper: {listed or 'no reason recorded'}."


def _collapsed(finished: Sequence[Record]) -> Iterator[str]:
    """The phases whose features had collapsed (`monitor.rank_every`)."""
    for record in finished:
        for phase in record.phases:
            rank, bound = (as_number(lookup(phase, f"collapse.{key}")) for key in ("rankme", "bound"))
            if rank is not None and bound is not None:
                until = "and at the end" if lookup(phase, "collapse.at_the_end") is True else "but not at the end"
                where = f"{record.group}/{record.folder.name}, {phase.get('name')}"
                yield (
                    f"The features of {where}, had collapsed during the training {until}: RankMe fell to {rank:.2f},"
                    f" below {bound:g}."
                )


def _versions(finished: Sequence[Record]) -> Iterator[str]:
    commits = [record.text("git_commit") for record in finished]
    code = distinct(commit[:10] + "+" * commit.endswith("+") for commit in commits)
    torch = distinct(record.text("versions.torch") for record in finished)
    if code or torch:
        yield f"Code: commit {first_few(code) or 'unknown'} (+ = with local changes); torch {first_few(torch)}."


def _norm_pix(record: Record) -> bool | None:
    """Whether the targets of the run's auxiliary loss are normalised; None for a run without such a loss."""
    if record.get("config.ssl.norm_pix") is not None:
        return bool(record.get("config.ssl.norm_pix"))
    for phase in record.items("config.mode.phases"):
        if isinstance(phase, dict) and phase.get("lam") != 1 and isinstance(phase.get("recipe"), dict):
            return bool(phase["recipe"].get("norm_pix"))
    return None
