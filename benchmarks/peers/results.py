"""What was measured: lines of JSON, and the tables, sentences and the picture made of them.

Every figure of a table is the median of its runs. A ratio is taken between two measurements of
the same run, and is the median of the runs' ratios, the smallest and the largest in brackets.

A measurement that was ended at its time limit is not left out, as that would flatter a slow peer:
it took so long or longer. So figures are intervals, `Span`, and a median may be a bound.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Span = tuple[float, float]
"""A number between two others; both are the same where it is known. Numbers are not negative."""

UNKNOWN: Span = (0.0, math.inf)
TUTORIAL = "tutorial"
FLOOR = "floor"
WORKERS = 2
MEMORY_OVER_MB = 250.0  # a worker, over the tutorial's
TARGETS = {  # job -> (peer, other, factor in trials a second)
    "small": [
        ("ours_tpe", TUTORIAL, 4.5),
        ("ours_pso", TUTORIAL, 5.5),
        ("ours_woa", TUTORIAL, 5.5),
        ("ours_tpe", "tutorial_single", 4.5),
        ("ours_pso", "tutorial_single", 5.5),
        ("ours_woa", "tutorial_single", 5.5),
        ("ours_tpe", "ray_tune", 20.0),
        ("ours_tpe", "auto_lstm", 4.0),
    ],
    "large": [("ours_tpe", TUTORIAL, 1.3), ("ours_segments", TUTORIAL, 10.0)],
}
NO_WORSE = {"large": ("ours_tpe", "ours_segments")}  # whose score is to be no worse
OVERHEAD_MS = {"ours_journal": 8.0, "ours_mlflow": 45.0}
QUALITY_SHARE = 0.25


def read(path: Path, quick: bool) -> list[Line]:
    """Return the lines of a file, in the size asked for; a line cut short is left out."""
    found: list[Line] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # of a run that was killed while it wrote
            continue
        if line["quick"] == quick:
            found.append(line)
    return found


def append(path: Path, line: Line) -> None:
    """Add a line to a file, on a line of its own even after one that was cut short."""
    before = path.read_bytes() if path.exists() else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        cut = before and not before.endswith(b"\n")
        file.write("\n" * bool(cut) + json.dumps(line) + "\n")


def find(
    lines: Iterable[Line],
    job: str,
    peer: str,
    run: int,
    state: Mapping[str, str],
    limit_s: float = 0.0,
) -> Line | None:
    """Return the newest line of one measurement, or None if it is to be made.

    Args:
        lines: in the order in which they were written.
        job, peer, run: of the measurement.
        state: `code` and `environment` as they are now.
        limit_s: for how long it may take now.

    One that failed is made again. So is one that was ended earlier than it would be now.
    """
    found = None
    for line in lines:
        of_it = (line["job"], line["peer"], line["run"]) == (job, peer, run)
        if of_it and all(line.get(key) == value for key, value in state.items()):
            ended = "failed" not in line or (line.get("over") and line["limit_s"] >= limit_s)
            found = line if ended else found
    return found


def of_newest_code(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of a job of the code that was measured last; of two the newer one."""
    code = lines[-1].get("code") if lines else None
    newest = {(x["peer"], x["run"]): x for x in lines if x.get("code") == code}
    return list(newest.values())


def sentence(line: Line) -> str:
    """Say what one measurement found."""
    start = f"{line['job']} run {line['run']} {line['peer']} (load {line['load']})"
    if "failed" in line:
        return f"{start}: {line['failed']}, after {line['wall_s']:.1f} s"
    score = line.get("score")
    return (
        f"{start}: {line['trials']} trials in {line['wall_s']:.1f} s, processor "
        f"{line['cpu_s']:.1f} s, {line['peak_mb']:.0f} MB" + (f", {score:.4g}" if score else "")
    )


def tables(lines: Sequence[Line], options: argparse.Namespace) -> str:
    """Return all tables as Markdown, and write the picture where `options.write` says."""
    if options.peers:
        lines = [line for line in lines if line["peer"] in options.peers]
    parts: list[str] = []
    shown: list[Line] = []
    for job, make in (
        ("small", throughput),
        ("large", throughput),
        ("overhead", overhead),
        ("quality", quality),
    ):
        all_of_job = [line for line in lines if line["job"] == job and job in options.job]
        if of_job := of_newest_code(all_of_job):
            parts += [f"## {job}", conditions(of_job), *make(of_job)]
            shown += of_job
    if options.write is not None and parts:
        picture(shown, options.write / "peers.png")
    return "\n\n".join(parts) or "nothing has been measured"


def conditions(lines: Sequence[Line]) -> str:
    """Say of which code measurements are, when they were made, at which load, and what failed."""
    commits = dict.fromkeys(line.get("commit") or "unknown" for line in lines)
    text = f"Commit {' and '.join(commits)}"
    if begun := sorted(line["began"] for line in lines if "began" in line):
        first, last = (
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (begun[0], begun[-1])
        )
        text += f", begun from {first} to {last} UTC"
    found = sorted(line["load"] for line in lines)
    text += f". Load of the machine at each start: {found[0]} to {found[-1]}, "
    text += f"median {statistics.median(found):.1f}."
    for line in lines:
        if "failed" in line:
            text += f"\nRun {line['run']} of {line['peer']} failed: {line['failed']}."
    return text


def good(lines: Iterable[Line], peer: str) -> dict[int, Line]:
    """Return the measurements of a peer that did not fail, by run."""
    return {line["run"]: line for line in lines if line["peer"] == peer and "failed" not in line}


def timed(lines: Iterable[Line], peer: str) -> dict[int, Line]:
    """Return the measurements of a peer that did not fail, or were over the limit, by run."""
    of_peer = [line for line in lines if line["peer"] == peer]
    return {line["run"]: line for line in of_peer if "failed" not in line or line.get("over")}


def peers_of(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(line["peer"] for line in lines))


def at_least(line: Line, key: str) -> Span:
    """Return what a run took; one that was ended took that or more."""
    return line[key], math.inf if line.get("over") else line[key]


def rate(line: Line) -> Span:
    """Return the trials a second, from the start of the command to its end."""
    if line.get("over"):
        return 0.0, line["asked"] / line["wall_s"]
    return (line["trials"] / line["wall_s"],) * 2


def only(key: str) -> Callable[[Line], Span]:
    """Return what takes a value of a line, which may be missing."""
    return lambda line: UNKNOWN if line.get(key) is None else (line[key], line[key])


def ratios(
    lines: Sequence[Line], peer: str, other: str, value: Callable[[Line], Span] = rate
) -> list[Span]:
    """Return a peer's value over another's in every run that has both."""
    ours, others = timed(lines, peer), timed(lines, other)
    found = []
    for run in sorted(ours.keys() & others.keys()):
        (low, high), (least, most) = value(ours[run]), value(others[run])
        found.append((low / most, high / least if least else math.inf))
    return found


def median(values: Sequence[Span]) -> Span:
    """Return the median of numbers in intervals: those of their lower and upper ends."""
    return statistics.median(v[0] for v in values), statistics.median(v[1] for v in values)


def text_of(value: Span, digits: int) -> str:
    """Return an interval as a number, a bound or two numbers."""
    low, high = value
    if low == high:
        return f"{low:.{digits}f}"
    if math.isinf(high):
        return f"≥ {low:.{digits}f}" if low else "-"
    return f"{low:.{digits}f} to {high:.{digits}f}" if low else f"≤ {high:.{digits}f}"


def spread(values: Sequence[Span], digits: int = 2) -> str:
    """Return the median, and the extremes in brackets where there are several."""
    if not values:
        return "-"
    text = text_of(median(values), digits)
    if len(values) > 1 and text != "-":
        smallest = min(v[0] for v in values), min(v[1] for v in values)
        largest = max(v[0] for v in values), max(v[1] for v in values)
        text += f" ({text_of(smallest, digits)} to {text_of(largest, digits)})"
    return text


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---" if i == 0 else "---:" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def middle(lines: Mapping[int, Line], key: str, digits: int) -> str:
    """Return the median of what runs took, as text."""
    found = [at_least(line, key) for line in lines.values()]
    return text_of(median(found), digits) if found else "-"


def runs(lines: Sequence[Line], peer: str) -> str:
    """Return how many runs of a peer count, and how many it has had where that differs."""
    of_peer = [line for line in lines if line["peer"] == peer]
    ended = sum("failed" not in line for line in of_peer)
    return str(ended) if ended == len(of_peer) else f"{ended} of {len(of_peer)}"


def throughput(lines: Sequence[Line]) -> list[str]:
    """Return the table of a job whose trials train, its targets, and where the time went."""
    headings = ["peer", "runs", "wall, s", "trials a second", f"times `{TUTORIAL}`"]
    headings += ["processor, s", f"times `{TUTORIAL}`", "peak MB", "largest process, MB", "score"]
    rows = []
    for peer in peers_of(lines):
        found = timed(lines, peer)
        scores = [x["score"] for x in found.values() if x.get("score") is not None]
        rates = [rate(line) for line in found.values()]
        processor = ratios(lines, peer, TUTORIAL, lambda line: at_least(line, "cpu_s"))
        rows.append(
            [
                f"`{peer}`",
                runs(lines, peer),
                middle(found, "wall_s", 1),
                text_of(median(rates), 2) if rates else "-",
                spread(ratios(lines, peer, TUTORIAL)),
                middle(found, "cpu_s", 1),
                spread(processor),
                middle(found, "peak_mb", 0),
                middle(found, "largest_mb", 0),
                f"{statistics.median(scores):.4g}" if scores else "-",
            ]
        )
    parts = [markdown(headings, rows), steps_differ(lines)]
    parts += [targets(lines), where_time_goes(lines), idle_workers(lines)]
    return [part for part in parts if part]


def steps_differ(lines: Sequence[Line]) -> str:
    """Return a sentence if not all peers had the same training steps a trial."""
    found = {line["peer"]: line["steps"] / line["trials"] for line in lines if "steps" in line}
    if len(set(found.values())) <= 1:
        return ""
    return "Steps a trial: " + ", ".join(f"`{k}` {v:.0f}" for k, v in found.items()) + "."


def idle_workers(lines: Sequence[Line]) -> str:
    """Return a sentence for each search of which a generation has fewer jobs than workers."""
    found = {}
    for line in lines:
        if (at_once := line.get("at_once")) is not None and at_once < WORKERS:
            found[line["peer"]] = (
                f"Of `{line['peer']}`, {WORKERS - at_once} of {WORKERS} workers idle while a "
                f"generation trains: its trials are {at_once} job, {line['together']:.0f} together."
            )
    return "\n".join(found.values())


def targets(lines: Sequence[Line]) -> str:
    """Return the targets of a job beside what was measured; misses in bold."""
    rows = []
    for peer, other, factor in TARGETS.get(lines[0]["job"], ()):
        if found := ratios(lines, peer, other):
            reached = median(found)[0] >= factor
            shown = spread(found)
            rows.append(
                [
                    f"`{peer}`, trials a second over `{other}`",
                    shown if reached else f"**{shown}**",
                    f"{factor:g}",
                ]
            )
    for peer in NO_WORSE.get(lines[0]["job"], ()):
        if found := ratios(lines, peer, TUTORIAL, only("score")):
            shown = spread(found, 3)
            reached = median(found)[1] <= 1
            rows.append(
                [
                    f"`{peer}`, score over `{TUTORIAL}`",
                    shown if reached else f"**{shown}**",
                    "1",
                ]
            )
    for peer in peers_of(lines):
        ours, others = good(lines, peer), timed(lines, TUTORIAL)
        if peer.startswith("ours") and (both := ours.keys() & others.keys()):
            more = statistics.median(ours[r]["peak_mb"] - others[r]["peak_mb"] for r in both)
            shown, most = f"{more:.0f}", WORKERS * MEMORY_OVER_MB
            rows.append(
                [
                    f"`{peer}`, peak MB over `{TUTORIAL}`",
                    shown if more <= most else f"**{shown}**",
                    f"{most:g}",
                ]
            )
    return markdown(["what", "measured", "target"], rows) if rows else ""


def where_time_goes(lines: Sequence[Line]) -> str:
    """Return where the wall time of ours went, beside the floor's."""
    headings = ["search", "start, s", "trials, s", "of it training", "end, s"]
    headings += ["training, ms a step", "floor's, ms a step", f"trials a second over `{FLOOR}`"]
    headings += ["trials at once in a worker"]
    floor = good(lines, FLOOR)
    rows = []
    for peer in peers_of(lines):
        found = {run: line for run, line in good(lines, peer).items() if "parts" in line}
        if not found:
            continue

        def part(name: str, of: Mapping[int, Line] = found) -> float:
            return statistics.median(line["parts"][name] for line in of.values())

        busy = [
            line["parts"]["training"] / WORKERS / line["parts"]["trials"] for line in found.values()
        ]
        ends = [
            line["wall_s"] - line["parts"]["start"] - line["parts"]["trials"]
            for line in found.values()
        ]
        step = [1000 * line["parts"]["training"] / line["steps"] for line in found.values()]
        bare = [1000 * line["training_s"] / line["steps"] for line in floor.values()]
        rows.append(
            [
                f"`{peer}`",
                f"{part('start'):.1f}",
                f"{part('trials'):.1f}",
                f"{100 * statistics.median(busy):.0f} %",
                f"{statistics.median(ends):.1f}",
                f"{statistics.median(step):.2f}",
                f"{statistics.median(bare):.2f}" if bare else "-",
                spread(ratios(lines, peer, FLOOR)),
                f"{statistics.fmean(line.get('together', 1) for line in found.values()):.1f}",
            ]
        )
    return markdown(headings, rows) if rows else ""


def overhead(lines: Sequence[Line]) -> list[str]:
    """Return the table of trials that train nothing."""
    headings = ["peer", "runs", "trials", "ms a trial", "target", "processor ms a trial, all in"]
    rows = []
    for peer in peers_of(lines):
        found = good(lines, peer)
        each = [ms_a_trial(line) for line in timed(lines, peer).values()]
        target, shown = OVERHEAD_MS.get(peer), spread(each, 1)
        missed = target is not None and (not each or median(each)[1] > target)
        cpu = [1000 * x["cpu_s"] / x["trials"] for x in found.values()]
        trials = [line["trials"] for line in found.values()]
        rows.append(
            [
                f"`{peer}`",
                runs(lines, peer),
                f"{statistics.median(trials):.0f}" if trials else "-",
                f"**{shown}**" if missed else shown,
                f"{target:g}" if target else "",
                f"{statistics.median(cpu):.1f}" if cpu else "-",
            ]
        )
    return [markdown(headings, rows)]


def ms_a_trial(line: Line) -> Span:
    """Return the milliseconds of an empty trial, at least those of a run over the limit."""
    if "failed" in line:
        return 1000 * line["wall_s"] / line["asked"], math.inf
    return (each := 1000 * line["search_s"] / line["trials"]), each


def reached_after(line: Line, score: float) -> float | None:
    """Return the seconds from the start after which a search had a score; None if it had not."""
    return next((at for at, found in line["curve"] if found <= score), None)


def scored(lines: Iterable[Line], peer: str) -> dict[int, Line]:
    """Return the measurements of a peer that have a score, by run."""
    return {run: line for run, line in good(lines, peer).items() if line["score"] is not None}


def shares(lines: Sequence[Line], peer: str) -> list[float | None]:
    """Return after which share of the tutorial's time a peer had its final score, for each run.

    None: it had not when it ended, or it failed, as a search does that has no trial in its time.
    Runs in which the tutorial has no score are left out.
    """
    ours = {line["run"]: line for line in lines if line["peer"] == peer}
    others = scored(lines, TUTORIAL)
    found: list[float | None] = []
    for run in sorted(ours.keys() & others.keys()):
        failed = "failed" in ours[run]
        after = None if failed else reached_after(ours[run], others[run]["score"])
        found.append(None if after is None else after / others[run]["wall_s"])
    return found


def quality(lines: Sequence[Line]) -> list[str]:
    """Return the table of scores against time; a run without a score is worse than every other."""
    headings = ["peer", "seeds", "wall, s", "trials", "score at its end", "better than `tutorial`"]
    headings += ["reached its score", "after this share of its time"]
    rows = []
    for peer in peers_of(lines):
        ended, others = good(lines, peer), scored(lines, TUTORIAL)
        found = {line["run"]: line.get("score") for line in lines if line["peer"] == peer}
        both = found.keys() & others.keys()
        scores = {r: math.inf if score is None else score for r, score in found.items()}
        better = sum(scores[r] < others[r]["score"] for r in both)
        score = statistics.median(scores.values())
        trials = [line["trials"] for line in ended.values()]
        reached = shares(lines, peer)
        # One that had not counts as later than every other.
        after = statistics.median([math.inf if s is None else s for s in reached] or [math.inf])
        shown = "not by half" if math.isinf(after) else f"{after:.2f}"
        missed = peer.startswith("ours") and after > QUALITY_SHARE
        rows.append(
            [
                f"`{peer}`",
                runs(lines, peer),
                middle(timed(lines, peer), "wall_s", 1),
                f"{statistics.median(trials):.0f}" if trials else "-",
                "-" if math.isinf(score) else f"{score:.4g}",
                "-" if peer == TUTORIAL else f"{better} of {len(both)}",
                f"{sum(s is not None for s in reached)} of {len(reached)}",
                f"**{shown}**" if missed else shown,
            ]
        )
    return [markdown(headings, rows), f"Target: `ours` after {QUALITY_SHARE} of its time."]


def best_at(line: Line, at: float) -> float:
    """Return the best score of a search so many seconds after its start; infinite before any."""
    return min((score for ended, score in line["curve"] if ended <= at), default=float("inf"))


def picture(lines: Sequence[Line], file: Path) -> None:
    """Draw trials a second over the tutorial's, and the best score against time."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    names, values = [], []
    for job in ("large", "small"):
        of_job = [line for line in lines if line["job"] == job]
        for peer in reversed(peers_of(of_job)):
            low, high = median(ratios(of_job, peer, TUTORIAL) or [UNKNOWN])
            if low or math.isfinite(high):  # of a bound its value
                names.append(f"{job}: {peer}")
                values.append(low or high)
    colors = ["tab:orange" if "ours" in n else "0.8" if FLOOR in n else "tab:blue" for n in names]
    bars = left.barh(names, values, color=colors)
    left.bar_label(bars, fmt="%.2g", padding=2, fontsize=7)
    left.axvline(1, color="0.3", linewidth=0.8)
    if values:
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter("{x:g}")
        left.margins(x=0.12)
    left.set_xlabel("trials a second over the tutorial's")
    left.tick_params(axis="y", labelsize=7)

    of_quality = [line for line in lines if line["job"] == "quality"]
    seconds = max((line["wall_s"] for line in of_quality if "failed" not in line), default=1.0)
    for peer in peers_of(of_quality):
        if not (found := scored(of_quality, peer)):
            continue
        until = statistics.median(line["curve"][-1][0] for line in found.values())
        at = np.linspace(0, min(seconds, until), 200)
        medians = [statistics.median(best_at(line, s) for line in found.values()) for s in at]
        known = np.isfinite(medians)
        right.plot(at[known], np.array(medians)[known], label=peer)
    right.set_xlabel("seconds from the start of the command")
    right.set_ylabel("best RMSE on validation rows, median")
    if right.lines:
        right.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
