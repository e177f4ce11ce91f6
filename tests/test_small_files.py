"""Many small files, as people bring them: each goes from `init` to a forecast, or is refused once.

Whatever a file holds: no traceback, no warning of Python, errors in one line with status 2. What
`init` writes is accepted by `check`, and a model predicts from the file that it was trained on.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.cli.app import run

N = 80
RNG = np.random.default_rng(1)
DAYS = pd.date_range("2022-01-03", periods=N).strftime("%Y-%m-%d")
OPEN = pd.bdate_range("2022-01-03", periods=N + 4).delete([9, 33, 60, 79]).strftime("%Y-%m-%d")
Y = (100 + np.sin(np.arange(N) / 7 * 2 * np.pi) * 5 + RNG.normal(size=N)).round(2)
X = RNG.normal(size=N).round(2)


def lines(header, row, n=N):
    rows = [str(row(i)) for i in range(n)]
    return "\n".join(rows if header is None else [header, *rows]) + "\n"


def dated(value, n=N):
    return lines("date,sales,temp", lambda i: f"{DAYS[i]},{value(i)},{X[i]}", n)


FILES = {
    "plain": dated(lambda i: Y[i]),
    "no targets at the end": dated(lambda i: Y[i] if i < N - 5 else ""),
    "no targets at first": dated(lambda i: Y[i] if i > 4 else ""),
    "rows that are missing": lines(
        "date,sales", lambda i: f"{DAYS[i + 2 * (i >= 30)]},{Y[i]}", N - 2
    ),
    "large numbers": dated(lambda i: int(1e15) + int(Y[i] * 1000)),
    "small numbers": dated(lambda i: Y[i] * 1e-13),
    "quantiles": lines("date,0.1,0.9", lambda i: f"{DAYS[i]},{Y[i]},{Y[i] + 5}"),
    "flags": lines("date,sales,open", lambda i: f"{DAYS[i]},{Y[i]},{'yes' if i % 3 else 'no'}"),
    "quarters": lines("q,sales", lambda i: f"{1990 + i // 4}-Q{i % 4 + 1},{Y[i]}"),
    "weeks": lines("week,sales", lambda i: f"{2019 + i // 52}-W{i % 52 + 1:02},{Y[i]}"),
    "open days": lines("date,close", lambda i: f"{OPEN[i]},{Y[i]}"),
    "no closing price at the end": lines(
        "date,close", lambda i: f"{OPEN[i]},{Y[i] if i < 70 else ''}"
    ),
    "a constant column": lines("date,sales,k", lambda i: f"{DAYS[i]},{Y[i]},5"),
    "ten rows": dated(lambda i: Y[i], 10),
    "two stores": lines("store,date,sales", lambda i: f"{'ab'[i % 2]},{DAYS[i // 2]},{Y[i]}"),
    "sizes": lines("size,sales", lambda i: f"{10 + i % 5}x{12 + i % 7},{Y[i]}"),
    "scores": lines("score,sales", lambda i: f"{i % 5}:{i % 4},{Y[i]}"),
    "versions": lines("version,sales", lambda i: f"1.{i // 10}.{i % 10},{Y[i]}"),
    "seasons": lines("season,sales", lambda i: f"{1900 + i}/{(i + 1) % 100:02},{Y[i]}"),
    "quantities": lines("takes,sales", lambda i: f"{i % 9}{'hdm'[i % 3]},{Y[i]}"),
    "times of day": lines("time,sales", lambda i: f"{i // 4:02}:{i % 4 * 15:02},{Y[i]}"),
    "an hour that is ahead": lines(
        "time,sales", lambda i: f"2022-01-{i // 24 + 1:02} {i % 24:02}:00 GMT+8,{Y[i]}"
    ),
}

REFUSED = {
    "no header": lines(None, lambda i: f"{DAYS[i]},{Y[i]},{X[i]}"),
    "no header, and a name": lines(None, lambda i: f"A,{DAYS[i]},{Y[i]}"),
    "no header, no date": lines(None, lambda i: f"A,{Y[i]},{X[i]}"),
    "two rows": dated(lambda i: Y[i], 2),
    "two columns of ids": lines(
        "store,item,date,sales", lambda i: f"{'ab'[i % 2]},{'xy'[i // 2 % 2]},{DAYS[i // 4]},{Y[i]}"
    ),
    "no numbers": lines("date,name", lambda i: f"{DAYS[i]},store {'ab'[i % 2]}"),
}


pytestmark = pytest.mark.usefixtures("empty_folder")


def call(capsys, *arguments):
    """Run a command that must succeed without a word of Python's; return what it prints."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        status = run(list(arguments))
    printed = capsys.readouterr()
    assert status == 0, printed.err
    ours = [str(w.message) for w in raised if f"{Path('tuner')}" in w.filename]
    assert ours == []
    assert "Traceback" not in printed.err
    return printed.out


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_small_file_goes_all_the_way_to_a_forecast(name, capsys):
    Path("s.csv").write_text(FILES[name], encoding="utf-8")
    call(capsys, "init", "s.csv")
    call(capsys, "check", "s.yaml")
    short = ["--set", "budget.epochs=2", "--set", "budget.patience=2"]
    call(capsys, "train", "s.yaml", "-o", "m", *short)
    predicted = call(capsys, "predict", "m", "s.csv").splitlines()
    assert len(predicted) >= 2
    options = ["--trials", "1", "--workers", "1", "--no-tracking", "--set", "finalists.top=0"]
    assert "1 trial trained (1 complete)" in call(capsys, "run", "s.yaml", *options, *short)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name, tmp_path, capsys):
    Path("s.csv").write_text(REFUSED[name], encoding="utf-8")
    assert run(["init", "s.csv"]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith("tuner: s.csv: data.")
    assert refused.count("\n") == 1
    assert "; " in refused
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]
