"""The page of the service: its views as HTML, from the same objects that /v1 answers.

Every value is escaped by the templates. The shell holds no data of anybody; a view is its content.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tuner import __version__
from tuner.errors import ExperimentError, TunerError
from tuner.experiment.yaml_files import line_of
from tuner.report.plotting import number
from tuner.report.rendering import make_environment, palette
from tuner.results.summary import Summary, minute
from tuner.service.curves import make_curve, spark_line
from tuner.service.datasets import Dataset
from tuner.service.experiments import Proposal
from tuner.service.trial_table import Order

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_SIZE = 100
"""Trials of a view."""

STATES = ("queued", "running", "done", "cancelled", "failed")
ORDERS: tuple[Order, ...] = ("number", "-number", "score")
STATUSES = ("complete", "pruned", "failed", "running")

OPTIONS = ("target", "time", "id", "task", "horizon", "resample", "features", "wide", "no_time")
"""The options of `tuner init` that the view of a new search has."""

_LABELS = {
    "--target": "Target",
    "--time": "Time",
    "--id": "Series",
    "--task": "Task",
    "--horizon": "Horizon",
    "--resample": "Resample",
    "--features": "Features",
    "--wide": "Wide columns",
    "--no-time": "Rows without times",
}
"""Fields of the view by the options that notes of `tuner init` name."""

_ASKED = ("new", "study", "state", "q", "cursor", "order", "status", "dataset", *OPTIONS)
_MOST_PARAMS = 20  # columns of trials
_SYMBOLS = {"queued": "◌", "running": "▶", "done": "✓", "cancelled": "■", "failed": "✕"}
_STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True)
class StaticFile:
    """A file that the shell loads."""

    content: bytes
    media_type: str
    tag: str  # of its content, as an ETag and in its URL


@functools.cache
def static_files() -> Mapping[str, StaticFile]:
    """Return the script, the stylesheet and the icon by name."""
    folder, found = files("tuner.service").joinpath("static"), {}
    for name, media_type in _STATIC.items():
        content = folder.joinpath(name).read_bytes()
        if name == "page.css":
            content = palette().encode() + content
        found[name] = StaticFile(content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return found


def asked_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a view by name, empty where they are not given; no others."""
    return {name: query.get(name, "") for name in _ASKED}


def shell(view: str | None = None) -> str:
    """Return the document, with a view in it where the caller needs no token."""
    tags = {name: file.tag for name, file in static_files().items()}
    return _render("shell.html", view=view, tags=tags, version=__version__)


def studies_view(
    listed: Mapping[str, Any],
    queue: Mapping[str, Any],
    *,
    asked: Mapping[str, str],
    may_write: bool,
) -> str:
    """Return the list of studies.

    Args:
        listed: what GET /v1/studies answers; a study may have `curve`, the improvements of its
            best score as (number of the trial, score).
        queue: what GET /v1/queue answers.
        asked: the parameters of the view, as `asked_of` returns them.
        may_write: whether the caller may start searches.
    """
    studies = [_shown(study) for study in listed["items"]]
    waiting = [_shown(study) for study in queue["studies"] if study["state"] == "queued"]
    live = any(study["active"] for study in studies) or bool(waiting)
    running = sum(study["state"] == "running" for study in queue["studies"])
    return _render(
        "studies.html",
        studies=studies,
        waiting=waiting,
        running=running,
        waits=next((study["waits"] for study in queue["studies"] if study["waits"]), None),
        queue=queue,
        asked=asked,
        filtered=any(asked[key] for key in ("state", "q", "cursor")),
        states=STATES,
        next_query=_query(asked, cursor=listed["next"]) if listed["next"] else None,
        first_query=_query(asked, cursor=None) if asked["cursor"] else None,
        may_write=may_write,
        poll_s=2 if live else 15,
    )


def study_view(
    study: Mapping[str, Any],
    trials: Mapping[str, Any],
    scores: Sequence[float | None],
    *,
    asked: Mapping[str, str],
    may_write: bool,
    summary: Summary | None = None,
    last_event: int = 0,
) -> str:
    """Return the view of a study.

    Args:
        study: what GET /v1/studies/{name} answers.
        trials: what GET /v1/studies/{name}/trials answers, with `total` if it is known.
        scores: of all trials by number, for the curve; None for a trial without a score.
        asked: the parameters of the view, as `asked_of` returns them.
        may_write: whether the caller may change it.
        summary: of a finished search.
        last_event: the id after which events are read.
    """
    shown = _shown(study)
    curve = make_curve(scores, study["direction"], study["metric"], study["trials"])
    return _render(
        "study.html",
        study=shown,
        curve=curve,
        trials=_trials(study, trials, asked),
        asked=asked,
        statuses=STATUSES,
        may_write=may_write,
        summary=summary,
        events=f"{shown['url']}/events?after={last_event}" if shown["active"] else None,
    )


def order_of(study: Mapping[str, Any], asked: Mapping[str, str]) -> Order:
    """Return the order of a study's trials: as asked, else newest first while it runs."""
    for order in ORDERS:
        if asked["order"] == order:
            return order
    return "score" if study["state"] in ("done", "cancelled", "failed") else "-number"


def offset_of(asked: Mapping[str, str]) -> int:
    """Return the place of the first trial of a page; 0 for a cursor that is no number."""
    cursor = asked["cursor"]
    return int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 10 else 0


def new_view(
    datasets: Iterable[Dataset],
    dataset: Dataset | None,
    *,
    asked: Mapping[str, str],
    may_write: bool,
    proposal: Proposal | None = None,
    error: str | None = None,
) -> str:
    """Return the view in which a search is prepared.

    Args:
        datasets: the caller's data, newest first.
        dataset: the chosen one; None before it is.
        asked: the parameters of the view; some are options of `tuner init`.
        may_write: whether the caller may start it.
        proposal: what POST /v1/experiments:init answers.
        error: why there is none, in one line.
    """
    return _render(
        "new.html",
        datasets=list(datasets),
        dataset=dataset,
        asked=asked,
        may_write=may_write,
        proposal=proposal,
        error=error,
    )


def check_view(check: Mapping[str, Any] | None, problems: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the result of a check below the editor.

    Args:
        check: what a search would do, as `Check.to_json` has it; None without a look at the data.
        problems: what is wrong, as `located` returns it.
    """
    return _render("check.html", check=check, problems=problems)


def links_view(link: str | None) -> str:
    """Return the link to a study in MLflow, or nothing."""
    return _render("links.html", link=link)


def problem_view(title: str, detail: str) -> str:
    """Return the view of an error."""
    return _render("problem.html", title=title, detail=detail)


def located(error: TunerError, text: str) -> list[dict[str, Any]]:
    """Return all that is wrong with an experiment, in the order of its lines.

    Args:
        error: why the experiment is refused.
        text: its YAML.

    Returns:
        Of each problem `line` (from 1, None where it has none), `key` and `text`.
    """
    others = error.others if isinstance(error, ExperimentError) else ()
    found = []
    for problem in (error, *others):
        where = None if problem.where == "experiment" else problem.where
        plain = problem.with_(where=where, key=None)
        if isinstance(plain, ExperimentError):
            plain = plain.with_(others=())
        if not_yaml := re.match(r"is not YAML: line (\d+)", problem.rule):
            line: int | None = int(not_yaml[1])
        else:
            line = line_of(text, problem.key) if problem.key else None
        found.append({"line": line, "key": problem.key, "text": str(plain)})
    return sorted(found, key=lambda problem: problem["line"] or 0)


def _shown(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study with what its views show besides."""
    trained, budget, best = study["trained"], study["trials"], study["best"]
    progress = f"{trained:,} of {budget:,} trials" if budget else f"{trained:,} trials"
    words = f"{study['state']}, {progress}"
    if best:
        words += f", best {study['metric']} {number(best['score'])} in {_best_of(best)}"
    return {
        **study,
        "symbol": _SYMBOLS.get(study["state"], ""),
        "active": study["state"] in ("queued", "running"),
        "words": words,
        "best_of": _best_of(best) if best else None,
        "url": f"v1/studies/{quote(study['name'], safe='')}",
        "query": _query({}, study=study["name"]),
        "spark": spark_line(study.get("curve") or (), trained, budget),
    }


def _best_of(best: Mapping[str, Any]) -> str:
    """Return which training has the best score, in words."""
    return "the untuned default" if best["trial"] is None else f"trial {best['trial']:,}"


def _trials(
    study: Mapping[str, Any], page: Mapping[str, Any], asked: Mapping[str, str]
) -> dict[str, Any]:
    """Return rows, columns and links of a page of trials."""
    best = study["best"]
    names: dict[str, None] = dict.fromkeys(best["params"] if best else ())
    for row in page["items"]:
        names |= dict.fromkeys(row["params"])
    shown = list(names)[:_MOST_PARAMS]
    order, start = order_of(study, asked), offset_of(asked)
    total, count = page.get("total"), len(page["items"])
    last = None
    if total is not None and total > PAGE_SIZE:
        last = (total - 1) // PAGE_SIZE * PAGE_SIZE

    def link(cursor: int | None, **changes: str | None) -> str:
        return _query(asked, **{"cursor": None if not cursor else str(cursor), **changes})

    return {
        "rows": [_row(row, shown, best) for row in page["items"]],
        "params": shown,
        "more_params": len(names) - len(shown),
        "order": order,
        "orders": {name: link(None, order=name) for name in ORDERS},
        "span": f"{start + 1:,}–{start + count:,}" if count else "none",
        "total": total,
        "first": link(None) if start else None,
        "previous": link(max(0, start - PAGE_SIZE)) if start else None,
        "next": link(int(page["next"])) if page["next"] else None,
        "last": link(last) if last is not None and start < last else None,
    }


def _row(row: Mapping[str, Any], params: Sequence[str], best: Mapping[str, Any] | None) -> Any:
    seconds = row.get("seconds")
    return {
        "number": row["number"],
        "status": row["status"],
        "score": number(row["value"]),
        "is_best": best is not None and best["trial"] == row["number"],
        "epochs": row.get("epochs") or "–",
        "seconds": "–" if seconds is None else f"{seconds:,.1f}",
        "params": [_value(row["params"].get(name)) for name in params],
        "reason": row.get("reason"),
        "repeat_of": row.get("repeat_of"),
    }


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else str(value)


def _labelled(note: str) -> str:
    """Return a note of `tuner init` with the fields of the view in place of options."""
    return re.sub(r"--[a-z-]+", lambda found: _LABELS.get(found[0], found[0]), note)


def _query(asked: Mapping[str, str], **changes: str | None) -> str:
    """Return a link to a view of this page with some parameters changed."""
    pairs = {key: value for key, value in {**asked, **changes}.items() if value}
    return f"?{urlencode(pairs, quote_via=quote)}" if pairs else "."


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    environment = make_environment("tuner.service")
    environment.filters |= {
        "labelled": _labelled,
        "minute": lambda time: minute(time) if time else "–",
        "value": _value,
    }
    return environment
