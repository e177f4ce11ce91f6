"""Writes the data sets that are made rather than gathered: digits, names, waves and dates.

The same numbers come out every time: all randomness is numpy's RandomState, whose stream is
frozen. README.md beside this file says what the columns mean, and whose the data are.

    python experiments/data/make.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import calendar
import datetime as dt
import math
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import RandomState
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent

# A made-up language: what its syllables begin with, their vowels, and what they end with.
# What stands twice is twice as frequent, and - is nothing. The last text is what names end with.
LANGUAGES = {
    "amari": ("k m n r s t h y", "a a i o u", "- - - - n", "- ko mi ra"),
    "belthic": ("b br d g gr h l th w", "a e e o ea", "l ld lt rn th nd", "- - en ric"),
    "corvane": ("b c d l m p t v ch", "a e i i o", "- - - r l n", "o a ino ello"),
    "drask": ("d dr k kr m r s st v z", "a a i o u", "k sk r n v -", "- ov ak ska"),
    "elyse": ("d f g j l m r v", "a e i ou eu", "- - n r l", "- e ette aux"),
}
NAMES_OF_EACH = 400

LENGTHS = (40, 80)  # of a wave, both included
PERIODS = {"slow": 24.0, "fast": 6.0, "flat": math.inf}  # steps
NOISE = 0.35

MONTHS = calendar.month_name[1:]
WEEKDAYS = calendar.day_name


def digits() -> pd.DataFrame:
    """Return scikit-learn's 1,797 digits, one row of eight pixels to a step."""
    images, labels = load_digits(return_X_y=True)
    pixels = images.reshape(-1, 8).astype(np.uint8)  # 0 to 16
    columns = {f"p{i}": pixels[:, i] for i in range(8)}
    numbers = np.arange(len(labels), dtype=np.uint16)
    return pd.DataFrame(
        {"image": numbers.repeat(8), "digit": labels.astype(np.uint8).repeat(8), **columns}
    )


def names() -> pd.DataFrame:
    """Return names made up by the rules of `LANGUAGES`, no name twice, in a random order."""
    random = RandomState(0)

    def pick(letters: str) -> str:
        choices = letters.split()
        return choices[random.randint(len(choices))].strip("-")

    rows: dict[str, str] = {}
    for language, (begins, vowels, ends, endings) in LANGUAGES.items():
        found = 0
        while found < NAMES_OF_EACH:
            syllables = random.randint(1, 4)
            name = "".join(pick(begins) + pick(vowels) + pick(ends) for _ in range(syllables))
            name = (name + pick(endings)).capitalize()
            if 3 <= len(name) <= 12 and name not in rows:
                rows[name] = language
                found += 1
    table = pd.DataFrame(list(rows.items()), columns=["name", "language"])
    return table.iloc[random.permutation(len(table))]


def waves() -> pd.DataFrame:
    """Return 200 noisy sequences that change between a slow wave, a fast one and none."""
    random = RandomState(0)
    states = list(PERIODS)
    rows: list[tuple[int, str, str]] = []
    for sequence in range(200):
        length = random.randint(LENGTHS[0], LENGTHS[1] + 1)
        steps_left, state = 0, states[random.randint(len(states))]
        phase = 0.0
        for _ in range(length):
            if steps_left == 0:
                state = states[(states.index(state) + random.randint(1, 3)) % 3]
                steps_left = random.randint(12, 31)
                phase = random.uniform(0, 2 * math.pi)
            phase += 2 * math.pi / PERIODS[state]
            wave = 0.0 if state == "flat" else math.sin(phase)
            rows.append((sequence, f"{wave + NOISE * random.normal():.3f}", state))
            steps_left -= 1
    return pd.DataFrame(rows, columns=["sequence", "value", "state"])


def dates() -> pd.DataFrame:
    """Return 4,000 days of 1950 to 2049 as people write them, and as ISO 8601 does."""
    random = RandomState(0)
    rows: dict[str, str] = {}
    while len(rows) < 4000:
        day = dt.date(1950, 1, 1) + dt.timedelta(days=int(random.randint(36525)))
        month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
        forms = (
            f"{day.day} {month} {day.year}",
            f"{month} {day.day}, {day.year}",
            f"{month[:3]} {day.day} {day.year}",
            f"{weekday}, {day.day} {month[:3]} {day.year}",
            f"{day.day}.{day.month}.{day.year}",
            f"{day.year}/{day.month}/{day.day}",
            f"{day.day:02}-{month[:3].upper()}-{day.year % 100:02}",  # 50 to 99 is 19..
        )
        rows[forms[random.randint(len(forms))]] = day.isoformat()
    return pd.DataFrame({"written": list(rows), "iso": list(rows.values())})


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER")
    folder = parser.parse_args().out
    digits().to_parquet(folder / "digits.parquet", index=False)
    names().to_csv(folder / "names.csv", index=False, lineterminator="\n")
    waves().to_csv(folder / "waves.csv", index=False, lineterminator="\n")
    dates().to_csv(folder / "dates.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
