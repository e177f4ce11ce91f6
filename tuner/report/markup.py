"""HTML from text: everything that comes from people or data is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from tuner.report.drawing import Picture

__all__ = ["Html", "code", "details", "figure", "items", "paragraph", "section", "table", "text"]


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
