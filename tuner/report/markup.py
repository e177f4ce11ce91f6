"""HTML from text, escaped, and the style of a page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from tuner.report.plotting import Picture

__all__ = [
    "STYLE",
    "Html",
    "code",
    "details",
    "figure",
    "items",
    "paragraph",
    "section",
    "table",
    "text",
]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2328; --dim: #5b656e; --paper: #ffffff;
  --card: #f4f6f8; --line: #d5dbe0; --accent: #00558a; --good: #00664a; --bad: #a34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --dim: #a3adb5; --paper: #14181b; --card: #1e2428; --line: #38414a;
    --accent: #6cc0f0; --good: #4fd0a7; --bad: #f0a060; }
  /* Light becomes dark and colours stay what they are. */
  .picture img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 54rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.4rem 0 0.6rem; padding-bottom: 0.2rem; font-size: 1.25rem;
  border-bottom: 1px solid var(--line); }
h3 { margin: 1.4rem 0 0.4rem; font-size: 1rem; }
p, ul { margin: 0.5rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 0.8rem 0; font-size: 0.9rem; }
.dim, figcaption, .none { color: var(--dim); font-size: 0.9rem; }
.verdict { margin: 1rem 0; padding: 0.8rem 1rem; background: var(--card); font-size: 1.1rem;
  border-left: 0.3rem solid var(--dim); border-radius: 0.3rem; }
.verdict.good { border-color: var(--good); }
.verdict.bad { border-color: var(--bad); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
  gap: 0.6rem; margin: 1rem 0; }
.numbers div { padding: 0.6rem 0.8rem; background: var(--card); border-radius: 0.3rem; }
.numbers b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--dim); font-size: 0.85rem; }
.wide, .picture, pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
@media (max-width: 30rem) {
  table { font-size: 0.85rem; } th, td { padding-right: 0.55rem; }
  td:not(.number) { overflow-wrap: anywhere; }
  .stacks table, .stacks tbody, .stacks tr, .stacks td { display: block; }
  .stacks thead { display: none; }
  .stacks tr { padding: 0.4rem 0; border-bottom: 1px solid var(--line); }
  .stacks td { border: 0; padding: 0.05rem 0; }
  .stacks td:first-child { font-weight: 600; }
  .stacks td:not(:first-child) { display: flex; justify-content: space-between; gap: 1rem;
    text-align: right; white-space: normal; }
  .stacks td:not(:first-child)::before { content: attr(data-of); color: var(--dim);
    text-align: left; }
  pre { white-space: pre-wrap; }
}
th { color: var(--dim); font-weight: 600; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { padding: 0.7rem 0.9rem; background: var(--card); border-radius: 0.3rem; font-size: 0.85rem;
  overflow-wrap: normal; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; color: var(--accent); }
figure { margin: 1rem 0 1.8rem; }
.picture { border-radius: 0.3rem; }
.picture img { display: block; width: 100%; height: auto; }
@media print {
  :root { --ink: #000; --dim: #444; --paper: #fff; --card: #f4f4f4; --line: #bbb;
    --accent: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  summary { list-style: none; font-weight: 600; color: var(--ink); }
  .picture img { filter: none; max-height: 20cm; object-fit: contain; }
  .wide, .picture, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  figure, tr, .verdict, .numbers { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; }
}
"""


_STACKED = 4  # columns that a phone has no room for


class Html(str):
    """Markup; any other text is escaped before it becomes part of a page."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return the value as markup that shows it."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def paragraph(*parts: object, kind: str = "") -> Html:
    """Return a paragraph; `kind` is its class."""
    of = f' class="{escape(kind)}"' if kind else ""
    return Html(f"<p{of}>{''.join(map(text, parts))}</p>\n")


def code(value: str) -> Html:
    """Return a block of text to be copied."""
    return Html(f"<pre>{escape(value)}</pre>\n")


def details(summary: str, *parts: Html) -> Html:
    """Return what opens when its summary is clicked; on paper it is open."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n{''.join(parts)}</details>\n")


def items(values: Iterable[object]) -> Html:
    """Return a list with bullets."""
    return Html("<ul>\n" + "".join(f"<li>{text(v)}</li>\n" for v in values) + "</ul>\n")


def table(headings: Sequence[object], rows: Iterable[Sequence[object]], numbers: int = 0) -> Html:
    """Return a table that scrolls by itself where it is too wide; no rows, no table.

    On a phone the cells of a row with many stand below one another, each with its heading.

    Args:
        headings: of the columns.
        rows: their cells.
        numbers: how many of the columns after the first hold numbers.
    """

    def line(cells: Sequence[object], tag: str) -> str:
        kinds = [' class="number"' if 0 < i <= numbers else "" for i in range(len(cells))]
        if stacks and tag == "td":
            kinds = [f'{k} data-of="{text(of)}"' for k, of in zip(kinds, headings, strict=True)]
        shown = [f"<{tag}{k}>{text(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)]
        return f"<tr>{''.join(shown)}</tr>\n"

    stacks = len(headings) >= _STACKED

    body = "".join(line(row, "td") for row in rows)
    if not body:
        return Html("")
    head = line(headings, "th")
    kind = "wide stacks" if stacks else "wide"
    inside = f"<thead>{head}</thead>\n<tbody>{body}</tbody>\n"
    return Html(f'<div class="{kind}"><table>\n{inside}</table></div>\n')


def figure(picture: Picture) -> Html:
    """Return a picture with what it shows; where there is none, why."""
    title, about = escape(picture.title), escape(picture.about)
    if picture.png is None:
        return Html(f'<figure id="{picture.name}"><h3>{title}</h3>\n'
                    f'<p class="none">{about}</p></figure>\n')  # fmt: skip
    data = base64.b64encode(picture.png).decode("ascii")
    return Html(
        f'<figure id="{picture.name}"><h3>{title}</h3>\n<div class="picture">'
        f'<img alt="{title}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{about}</figcaption></figure>\n"
    )


def section(name: str, title: str, *parts: Html) -> Html:
    """Return a part of the page that a link can lead to."""
    body = "".join(parts)
    return Html(f'<section id="{escape(name)}"><h2>{escape(title)}</h2>\n{body}</section>\n')
