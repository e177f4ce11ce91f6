"""What the pictures of a study show, and that they can be drawn of every kind of study."""

import dataclasses
import io
import math
import random

import numpy as np
import pytest
from helpers.result_records import (
    COMPLETE,
    FAILED,
    PRUNED,
    RUNNING,
    SPACE,
    STUDIES,
    classes_study,
    classes_test,
    make_experiment,
    make_outcome,
    make_study,
    pictures_of,
    values_test,
)
from PIL import Image

from tuner.errors import RunError
from tuner.experiment import FloatDomain, IntDomain
from tuner.report.page import draw_all
from tuner.report.plotting import DomainAxis, axes_of, good_range, label
from tuner.report.predictions import (
    confusion_figure,
    forecast_figure,
    forecast_picture,
    residuals_figure,
)
from tuner.report.trials import (
    curves_figure,
    history_figure,
    history_of,
    importances,
    importances_picture,
    parallel_figure,
    slices_figure,
    spread_of,
    spread_picture,
)


def pngs(record):
    """The plots of a study as PNG, by file name."""
    return {f"pictures/{p.name}.png": p.png for p in draw_all(record) if p.png is not None}


@pytest.mark.parametrize("name", STUDIES)
def test_pictures_of_every_kind_of_study_can_be_drawn(name):
    pictures = pictures_of(name)
    assert len({p.name for p in pictures}) == len(pictures)
    for picture in pictures:
        assert picture.about
        if picture.png is not None:
            image = Image.open(io.BytesIO(picture.png))
            assert image.format == "PNG"
            assert image.getextrema() != ((255, 255),)


def test_the_same_record_gives_the_same_bytes():
    first = {f"pictures/{p.name}.png": p.png for p in pictures_of("usual")}
    assert first == pngs(STUDIES["usual"]())
    assert set(first) == {
        f"pictures/{name}.png"
        for name in (
            "forecast",
            "residuals",
            "history",
            "importances",
            "parallel_coordinates",
            "slices",
            "swarm_spread",
            "learning_curves",
        )
    }


def test_pictures_of_many_trials_stay_small():
    test = values_test(2000, at=[str(i) for i in range(2000)])
    drawn = pngs(make_study(1000, finalists=3, test=test))
    assert sum(map(len, drawn.values())) < 2_000_000


@pytest.mark.parametrize("maximize", [False, True])
def test_the_line_of_the_history_is_the_running_optimum(maximize):
    record = classes_study() if maximize else make_study()
    best = dict(history_of(record).best)
    pick, so_far = (max if maximize else min), []
    for trial in record.trials:
        if trial.value is not None:
            if not so_far or pick(trial.value, *so_far) != pick(so_far):
                assert best.pop(trial.number) == trial.value
            so_far.append(trial.value)
    assert best in ({}, {record.trials[-1].number: pick(so_far)})


def test_every_trial_is_in_the_history():
    record = make_study(60, state=lambda n: [COMPLETE, PRUNED, FAILED, RUNNING][n % 4])
    again = dataclasses.replace(record.trials[0], number=60, repeat_of=0)
    record = dataclasses.replace(record, trials=(*record.trials, again))
    (axes,) = history_figure(record).axes
    drawn = np.concatenate([dots.get_offsets() for dots in axes.collections])
    assert sorted(drawn[:, 0].astype(int).tolist()) == list(range(61))
    low, high = axes.get_ylim()
    assert ((drawn[:, 1] >= low) & (drawn[:, 1] <= high)).all()
    sizes = {dots.get_label(): len(dots.get_offsets()) for dots in axes.collections}
    assert sizes == {
        f"{kind} ({n})": n
        for kind, n in [
            ("complete", 15),
            ("repeat", 1),
            ("pruned", 15),
            ("failed", 15),
            ("running", 15),
        ]
    }


def test_a_pruned_trial_stands_at_its_last_value():
    one = make_study(1, state=lambda n: PRUNED)
    assert history_of(one).marks["pruned"] == [(0, one.trials[0].outcome.history[-1].metric)]
    folds = dataclasses.replace(
        STUDIES["folds"](),
        trials=(dataclasses.replace(one.trials[0], outcome=make_outcome(PRUNED, 5.0, n_folds=2)),),
    )
    assert history_of(folds).marks["pruned"] == [(0, pytest.approx(5.0))]


def test_importances_add_up_to_one_and_find_what_matters():
    found = importances(make_study(200))
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == set(SPACE)
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 0.8
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_few_runs_that_went_wrong_do_not_hide_what_matters():
    rng = random.Random(1)

    def mostly(params):
        distance = abs(math.log(params["learning_rate"] / 0.004))
        return 5000.0 if rng.random() < 0.03 else 20 + 3 * distance

    assert importances(make_study(300, objective=mostly))["learning_rate"] > 0.5


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no trial", "Too few"),
        ("one trial", "Too few complete trials: 1 "),
        ("constant", "same objective"),
        ("one parameter", "Only dropout"),
        ("one value", "Nothing was searched"),
        ("nothing searched", "Nothing was searched"),
    ],
)
def test_where_importances_cannot_be_told_the_reason_is(name, why):
    record = STUDIES[name]()
    with pytest.raises(RunError, match=why):
        importances(record)
    picture = importances_picture(record)
    assert picture.png is None
    assert why in picture.about


def test_every_complete_trial_is_a_line_and_a_dot_per_slice():
    record = make_study(60)
    n_complete = sum(t.value is not None for t in record.trials)
    n_pruned = sum(t.status == "pruned" for t in record.trials)
    (axes,) = parallel_figure(record).axes
    assert [len(lines.get_segments()) for lines in axes.collections] == [n_pruned, n_complete]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == [*SPACE, "validation rmse"]
    panels = slices_figure(record).axes[: len(SPACE)]
    assert [axes.get_xlabel() for axes in panels] == list(SPACE)
    for axes in panels:
        counts = [len(dots.get_offsets()) for dots in axes.collections]
        assert counts == [n_pruned, n_complete, 1]


def test_logarithmic_domains_have_logarithmic_axes():
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in slices_figure(make_study()).axes}
    assert {n for n, scale in scales.items() if scale == "log"} == {"hidden_size", "learning_rate"}
    rate = next(a for a in axes_of(make_study()) if a.name == "learning_rate")
    assert rate.place(math.sqrt(0.0005 * 0.02)) == pytest.approx(0.5)
    (bidirectional,) = [a for a in axes_of(make_study()) if a.name == "bidirectional"]
    assert [bidirectional.place(choice) for choice in (True, False)] == [0.0, 1.0]


@pytest.mark.parametrize(
    "domain",
    [
        {"type": "int", "low": 33, "high": 60, "log": True},
        {"type": "int", "low": 1, "high": 2},
        {"type": "int", "low": 1, "high": 100000, "log": True},
        {"type": "float", "low": 1e-8, "high": 1.0, "log": True},
        {"type": "float", "low": 0.003, "high": 0.01, "log": True},
        {"type": "float", "low": 0.1, "high": 0.30000001},
        {"type": "float", "low": -3.0, "high": 1e6},
    ],
)
def test_an_axis_has_a_few_round_ticks_within_its_domain(domain):
    kind = FloatDomain if domain["type"] == "float" else IntDomain
    ticks = DomainAxis("x", kind.model_validate(domain)).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(0 <= place <= 1 for place, _ in ticks)
    assert [float(text) for _, text in ticks] == sorted({float(text) for _, text in ticks})


def test_the_spread_is_one_over_the_space_and_zero_for_equals():
    experiment = make_experiment(strategy={"name": "pso", "population": 200})
    record = make_study(400, experiment=experiment)
    same = record.trials[0].params
    trials = [
        t if t.generation == 0 else dataclasses.replace(t, params=same) for t in record.trials
    ]
    spread = spread_of(dataclasses.replace(record, trials=tuple(trials)))
    assert spread.generations == [0, 1]
    assert spread.overall == pytest.approx([1.0, 0.0], abs=0.08)
    for widths in spread.each.values():
        assert widths == pytest.approx([1.0, 0.0], abs=0.15)


def test_half_a_population_is_needed_to_say_how_far_it_is_spread():
    assert spread_of(make_study(12)).generations == [0, 1]  # of five individuals each
    assert spread_of(make_study(13)).generations == [0, 1, 2]
    assert spread_of(make_study(6)) is None
    assert spread_picture(STUDIES["no generations"]()) is None


def test_learning_curves_show_the_best_five_and_retrainings():
    record = make_study(finalists=2)
    (axes,) = curves_figure(record).axes
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_label().split(":")[0] for line in named] == [
        f"trial {t.number}" for t in record.ranked()[:5]
    ]
    best = record.best.outcome.history
    assert named[0].get_ydata().tolist() == [e.metric for e in best]
    assert len(axes.lines) == 5 + 5 + 3 * 2  # curves, their dots, the retrainings of three


def test_the_forecast_shows_what_the_record_keeps():
    record = make_study(test=values_test())
    kept = record.test.predictions
    (axes,) = forecast_figure(record).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines == {
        "last value": kept["baselines"]["last_value"],
        "truth": kept["truth"],
        "mean of 3 models": kept["predicted"],
    }
    left, right = residuals_figure(record).axes
    assert left.collections[0].get_offsets()[:, 1].tolist() == pytest.approx([-0.5] * 30)
    assert sum(bar.get_width() for bar in right.patches[:-1]) == len(kept["truth"])


def test_a_thinned_picture_says_so_with_its_step():
    record = make_study(test=values_test(every=3, horizon=4))
    about = forecast_picture(record).about
    assert "one in 3 of 90" in about
    assert "first of 4 steps" in about
    assert "Thinned" not in forecast_picture(make_study(test=values_test())).about


def test_each_series_has_its_panel():
    panels = forecast_figure(STUDIES["several series"]()).axes
    assert [axes.get_title() for axes in panels] == [f"shop {i}" for i in range(4)]
    assert panels[1].lines[0].get_ydata().tolist() == pytest.approx([14, 15, 16, 17, 18])


def test_the_confusion_matrix_shows_shares_and_counts():
    kept = classes_test()["predictions"]
    axes = confusion_figure(kept).axes[0]
    assert axes.images[0].get_array()[0].tolist() == pytest.approx([100 * 7 / 9, 100 / 9, 100 / 9])
    assert [text.get_text() for text in axes.texts] == ["7", "1", "1", "1", "7", "1", "1", "1", "7"]


def test_bad_values_far_off_do_not_squeeze_the_good_ones():
    assert good_range([*range(10), 1e6], 1)[1] < 12
    assert good_range([*range(10), -1e6], -1)[0] > -3
    assert good_range([*range(10), -1e6], 1)[0] < -1e6  # a good one is always shown


def test_no_text_becomes_a_formula_or_a_letter_without_a_shape():
    assert label("a$b$") == r"a\$b\$"
    assert label("\N{PILE OF POO}") == "\N{REPLACEMENT CHARACTER}"


def test_a_long_choice_is_shown_by_its_beginning():
    from tuner.report.plotting import label

    shown = label("mean(where(forecast < truth, 3, 1) * abs(truth - forecast))")
    assert shown.startswith("mean(where(forecast < truth")
    assert len(shown) == 40
    assert label("passengers") == "passengers"
