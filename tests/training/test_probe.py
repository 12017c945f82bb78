"""k-NN and linear probes: known answers, a slow formula, and runs that they must not change."""

import math

import numpy as np
import pytest
import torch

from ssat.commands.evaluate import evaluate
from ssat.core.errors import UserError
from ssat.training.probe import knn_scores, linear_scores
from tests.helpers import command, config, largest_difference, record_of, train, weights


def test_training_points_are_their_own_nearest_neighbours():
    features, labels = torch.randn(50, 8), torch.randint(0, 4, (50,))
    assert torch.equal(knn_scores(features, features, labels, 4, k=1).argmax(1), labels)


def test_votes_are_the_definition_written_out():
    queries, features, labels = torch.randn(5, 3), torch.randn(30, 3), torch.randint(0, 4, (30,))
    scores = knn_scores(queries, features, labels, 4, k=7, t=0.2)
    for query, row in zip(queries, scores, strict=True):
        cosines = [float(query @ f / (query.norm() * f.norm())) for f in features]
        expected = [0.0] * 4
        for index in sorted(range(30), key=lambda i: -cosines[i])[:7]:
            expected[labels[index]] += math.exp(cosines[index] / 0.2)
        assert row.tolist() == pytest.approx(expected, rel=1e-4)


def test_fewer_points_than_neighbours_all_vote():
    scores = knn_scores(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([0, 1, 1]), 3, k=20, t=1.0)
    assert scores[0].tolist() == pytest.approx([math.e, 2 * math.e, 0])


def test_queries_are_independent_of_the_chunks_they_come_in():
    queries, features, labels = torch.randn(1100, 4), torch.randn(40, 4), torch.randint(0, 3, (40,))
    alone = torch.cat([knn_scores(queries[k : k + 1], features, labels, 3) for k in (0, 1023, 1024, 1099)])
    assert torch.allclose(knn_scores(queries, features, labels, 3)[[0, 1023, 1024, 1099]], alone, rtol=1e-4)


def test_linear_probe_separates_what_a_plane_separates_and_knows_classes_it_has_not_seen():
    labels = torch.arange(60) % 2 * 2
    features = torch.randn(60, 5) + labels[:, None] * 3.0
    scores = linear_scores(features, features, labels, 3)
    assert torch.equal(scores.argmax(1), labels)
    assert scores[:, 1].eq(-torch.inf).all()


def test_monitors_measure_pre_training_and_change_nothing_in_it(tmp_path):
    plain = train("mode=ssl", runs=tmp_path / "plain")
    watched = train("mode=ssl", "monitor.knn_every=1", "monitor.linear_every=2", runs=tmp_path / "watched")
    assert plain.name == watched.name
    assert largest_difference(weights(plain, "pretrain"), weights(watched, "pretrain")) == 0
    rows = record_of(watched)["phases"][0]["history"]
    assert [("test/knn_acc1" in row, "test/linear_acc1" in row) for row in rows] == [(True, False), (True, True)]


def test_the_offline_probe_of_a_run_is_the_online_one(tmp_path, capsys):
    from rich.console import Console

    run = train("mode=ssl", "monitor.knn_every=1", "monitor.linear_every=1", runs=tmp_path)
    offline = evaluate([f"run={run}", "probe=knn,linear"], Console())["probe"]
    online = record_of(run)["metrics"]["test"]
    assert {name: online[name]["last"] for name in offline} == pytest.approx(offline, abs=1e-4)


def test_a_run_without_labels_has_no_accuracy_but_the_probes(tmp_path):
    from rich.console import Console

    run = train("mode=ssl", "epochs=1", runs=tmp_path)
    with pytest.raises(UserError, match="probe=knn,linear"):
        evaluate([f"run={run}"], Console())
    with pytest.raises(UserError, match="probe=svm is not possible"):
        evaluate([f"run={run}", "probe=svm"], Console())


def test_linear_mode_trains_the_head_alone_and_counts_the_whole_classifier(tmp_path):
    before = train("mode=ssl", "epochs=1", runs=tmp_path)
    run = train("mode=linear", f"mode.init_from={before}", "epochs=1", runs=tmp_path)
    encoders = [
        {name: value for name, value in weights(path, phase).items() if name.startswith("encoder.")}
        for path, phase in ((before, "pretrain"), (run, "linear"))
    ]
    assert largest_difference(*encoders) == 0
    params = record_of(run)["params"]
    assert params["training"] == 32 * 10 + 10
    assert params["inference"] > params["training"]


def test_linear_mode_without_start_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="mode=linear needs start weights"):
        train("mode=linear", runs=tmp_path)


@pytest.mark.parametrize(
    ("protocol", "epochs"),
    [("50_50", (50, 50)), ("50_100", (50, 100)), ("100_50", (100, 50)), ("100_100", (100, 100))],
)
def test_protocols_of_table_3_have_their_epochs(protocol, epochs):
    mode = config(f"mode=ssl_ft_{protocol}").mode
    assert (mode.name, tuple(phase.epochs for phase in mode.phases)) == ("ssl_ft", epochs)


@pytest.mark.slow
def test_two_ranks_measure_what_one_process_does(tmp_path):
    settings = ["mode=ssl", "mode.ssl_recipe.augment=null", "monitor.knn_every=1", "epochs=1"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path / "one")
    assert command(*settings, "recipe.batch_size=8", "trainer=ddp_cpu", runs=tmp_path / "two").returncode == 0
    (two,) = (path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json"))
    first, second = (record_of(run)["metrics"]["test"]["knn_acc1"]["last"] for run in (one, two))
    assert first == pytest.approx(second, abs=0.3)  # one image of 360


def test_leave_one_out_is_that_of_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = torch.randn(1100, 8), torch.arange(1100) % 3
    features += torch.nn.functional.one_hot(labels, 8) * 1.5
    ours = knn_scores(features, features, labels, 3, leave_one_out=True).argmax(1)
    votes = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07), algorithm="brute")
    chosen = np.r_[:30, 1000:1060]  # on both sides of a chunk's end
    expected = [
        votes.fit(np.delete(features.numpy(), n, 0), np.delete(labels.numpy(), n)).predict(features[n : n + 1].numpy())
        for n in chosen
    ]
    assert ours[chosen].tolist() == np.concatenate(expected).tolist()
