"""Common parts of all plots: size, colours, fonts, axes of hyperparameters, PNG.

Figures are made without pyplot and its global state, because threads draw them too.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.experiment import CategoricalDomain, Domain
from tuner.journal.records import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette, for people who cannot tell red from green.
POINT, BEST, BAD, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8c8c8c"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MAP = "cividis"  # made for the same people; dark is low
WIDTH_IN = 5.4  # small, so that its letters are large enough on a phone
_DOTS_PER_INCH = 160
_MARGIN = 0.04  # of an axis, beyond the outermost value
_FAR = 3.0  # quartile ranges beyond the quartile; a value farther off is drawn at the edge
_LONGEST = 40  # characters of a label
_FEW = 8  # fewer values are all shown, however far apart


@dataclass(frozen=True)
class Picture:
    """A picture of a study, or why there is none."""

    name: str  # of its file, without .png
    title: str
    about: str  # a caption; without `png`, why there is no picture
    png: bytes | None = None


def drawn(name: str, title: str, about: str, figure: Figure) -> Picture:
    """Return a picture of a figure."""
    return Picture(name, title, about, png(figure))


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure with a layout for its labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")


def new_axes(height_in: float) -> tuple[Figure, Axes]:
    """Return an empty figure with one set of axes."""
    figure = new_figure(height_in)
    return figure, figure.add_subplot()


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(_DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    # A palette makes a third of the bytes, and no library's name or date is written beside it.
    Image.fromarray(np.ascontiguousarray(pixels)).quantize(256, dither=Image.Dither.NONE).save(
        file, "PNG"
    )
    return file.getvalue()


def tidy(axes: Axes) -> None:
    """Set the common look of axes."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def add_legend(figure: Figure, of: Axes | None = None) -> None:
    """Add a legend above the axes, of all of them or of one."""
    shown = of.get_legend_handles_labels() if of is not None else ()
    figure.legend(*shown, loc="outside upper left", ncols=3, frameon=False, fontsize="small")


def show_objective(axes: Axes, record: StudyRecord, limits: tuple[float, float]) -> None:
    """Make the vertical axis that of the objective."""
    metric = label(record.experiment.objective.metric)
    axes.set(ylabel=f"validation {metric}", ylim=limits, yticks=round_values(limits))
    tidy(axes)


def write_cell(axes: Axes, row: int, column: int, text: str, *, dark: bool, size: int) -> None:
    """Write into a cell of an image, in white on a dark cell."""
    colour = "white" if dark else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def label(text: object) -> str:
    """Return a user's text for a plot: without formulas and missing glyphs, and not too long."""
    letters, text = _letters(), str(text)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    shown = "".join(c if ord(c) in letters else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown.replace("$", r"\$")


def whole_ticks(axis: Axis) -> None:
    """Set whole numbers as ticks."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))


@functools.cache
def _letters() -> frozenset[int]:
    """Return the characters of the font; a missing one would print a warning."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def number(value: float | None, digits: int = 4) -> str:
    """Format a number with four significant digits; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def good_range(values: Iterable[float], sign: float) -> tuple[float, float]:
    """Return the limits of an axis for finite objectives without far worse ones.

    `sign` is 1 if less is better, -1 if more is.
    """
    costs = sign * np.array(near(values, sign), np.float64)
    if not len(costs):
        return (0.0, 1.0)
    low, high = float(costs.min()), float(costs.max())
    margin = _MARGIN * (high - low) or _MARGIN * abs(low) or _MARGIN
    ends = sign * np.array([low - margin, high + margin])
    return (float(ends.min()), float(ends.max()))


def near(values: Iterable[float], sign: float) -> list[float]:
    """Return the values, with far worse ones clipped."""
    costs = sign * np.array(list(values), np.float64)
    if len(costs) >= _FEW:
        first, third = np.quantile(costs, [0.25, 0.75])
        costs = np.minimum(costs, costs[costs <= third + _FAR * (third - first)].max())
    nearer: list[float] = (sign * costs).tolist()
    return nearer


def clipped(values: Any, limits: tuple[float, float]) -> np.ndarray:
    """Clip values to limits."""
    return np.clip(np.asarray(values, np.float64), *limits)


def round_values(limits: tuple[float, float]) -> list[float]:
    """Return about five round values within the limits."""
    from matplotlib.ticker import MaxNLocator

    low, high = limits
    return [float(v) for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]


def spread_out(numbers: Iterable[int], width: float) -> np.ndarray:
    """Return a deterministic shift for each trial, to separate equal values."""
    golden = (np.sqrt(5) - 1) / 2
    turned: np.ndarray = np.array(list(numbers), np.float64) * golden % 1.0
    return width * (turned - 0.5)


_FEWEST_TICKS, _MOST_TICKS = 3, 6
_DECADE_PARTS = ((1,), (1, 3), (1, 2, 5))


@dataclass(frozen=True)
class DomainAxis:
    """A searched hyperparameter as an axis."""

    name: str
    domain: Domain

    @property
    def choices(self) -> list[Any] | None:
        """The values of a categorical one, in order."""
        return self.domain.choices if isinstance(self.domain, CategoricalDomain) else None

    @property
    def log(self) -> bool:
        """Whether its axis is logarithmic."""
        return not isinstance(self.domain, CategoricalDomain) and self.domain.log

    def number(self, value: Any) -> float:
        """Return a value's coordinate: itself, or the number of the choice."""
        if self.choices is None:
            return float(value)
        # 1, 1.0 and True are three choices.
        return float([(type(c), c) for c in self.choices].index((type(value), value)))

    def place(self, value: Any) -> float:
        """Return a value's place in its domain, from 0 to 1."""
        return self._place(self.number(value))

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values with their places from 0 to 1."""
        low, high = self._ends()
        if self.choices is not None:
            return [(self._place(i), str(choice)) for i, choice in enumerate(self.choices)]
        values = _round_logs(low, high) if self.log else _round_steps(low, high)
        return [(self._place(v), f"{v:.10g}" if 1e-3 <= v < 1e5 or not v else f"{v:g}")
                for v in values]  # fmt: skip

    def set_limits(self, axes: Axes) -> None:
        """Set limits, scale and ticks of the horizontal axis of a plot."""
        if self.choices is not None:
            names = [label(choice) for choice in self.choices]
            rotation, side = (30, "right") if sum(map(len, names)) > 24 else (0, "center")
            axes.set_xticks(range(len(names)), names, rotation=rotation, ha=side)
            axes.set_xlim(-0.6, len(names) - 0.4)
            return
        low, high = self.domain.bounds()
        if self.log:
            axes.set_xscale("log")
            axes.set_xlim(low * (low / high) ** 0.03, high * (high / low) ** 0.03)
            values = [low * (high / low) ** place for place, _ in self.ticks()]
            axes.set_xticks(values, [text for _, text in self.ticks()])
            axes.minorticks_off()
        else:
            margin = 0.03 * (high - low)
            axes.set_xlim(low - margin, high + margin)
            if isinstance(low, int):
                whole_ticks(axes.xaxis)

    def _ends(self) -> tuple[float, float]:
        if isinstance(self.domain, CategoricalDomain):
            return (0.0, len(self.domain.choices) - 1.0)
        return (float(self.domain.low), float(self.domain.high))

    def _place(self, number: float) -> float:
        low, high = self._ends()
        if self.log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return (number - low) / (high - low)


def axes_of(record: StudyRecord) -> list[DomainAxis]:
    """Return the axes of the hyperparameters with more than one value, in the file's order."""
    space = record.experiment.search_space
    return [DomainAxis(name, domain) for name, domain in space.items() if domain.size() != 1]


def complete_trials(record: StudyRecord, axes: Sequence[DomainAxis]) -> list[TrialRecord]:
    """Return the trials with a place on every axis and a finite objective, best first."""
    ranked = record.ranked()
    return [
        t for t in ranked if has_all(t, axes) and t.value is not None and math.isfinite(t.value)
    ]


def has_all(trial: TrialRecord, axes: Sequence[DomainAxis]) -> bool:
    """Return whether a trial has a value on every axis; a lost one may not."""
    return all(axis.name in trial.params for axis in axes)


def _round_steps(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten within the ends."""
    rough = (high - low) / (_MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    if float(low).is_integer() and float(high).is_integer() and high - low >= 1:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _round_logs(low: float, high: float) -> list[float]:
    """Return powers of ten within the ends, or more values if they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [
        [float(f"{part}e{power}") for power in powers for part in parts] for parts in _DECADE_PARTS
    ]
    if high / low < 100:  # powers of two, as of widths
        exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        if low >= 1:
            candidates = [[2.0**e for e in exponents]]
    within = [[v for v in values if low <= v <= high] for values in candidates]
    few = [values for values in within if len(values) <= _MOST_TICKS + 1]
    if few and len(few[-1]) < _FEWEST_TICKS:
        return _round_steps(low, high)
    return few[-1] if few else within[0][:: math.ceil(len(within[0]) / _MOST_TICKS)]
