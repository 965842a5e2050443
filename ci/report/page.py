"""What a page of the report consists of, and how charts look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

COLORS = ("#0d9488", "#f59e0b", "#6366f1", "#f43f5e", "#0ea5e9", "#84cc16", "#a855f7", "#94a3b8")
GOOD, BAD, NEUTRAL = "#0d9488", "#f43f5e", "#94a3b8"


@dataclass(frozen=True)
class Badge:
    """A word in a table that is good, bad or (None) neither."""

    text: str
    good: bool | None


@dataclass(frozen=True)
class Link:
    """A link in a table; target: relative to the report."""

    text: str
    target: str


Cell = str | int | float | None | Badge | Link


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers stand at the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """A Plotly figure; caption: what it shows, for those who do not see it, too."""

    figure: go.Figure
    caption: str
    kind: str = "chart"


@dataclass(frozen=True)
class Missing:
    """A result that is not there, and the command that makes it."""

    what: str
    command: str
    kind: str = "missing"


@dataclass(frozen=True)
class Card:
    """One figure in large type. good: whether it reaches its goal, None without one."""

    value: str
    label: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Cards:
    """Figures side by side."""

    cards: Sequence[Card]
    kind: str = "cards"


@dataclass(frozen=True)
class Picture:
    """An image with its class and the likeliest answers, (class, probability 0..1); source: a data
    URL."""

    source: str
    truth: str
    answers: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    kind: str = "gallery"


Part = Table | Chart | Missing | Cards | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    parts: Sequence[Part]
    text: str = ""


@dataclass
class Page:
    """One file of the site, `name`.html. figures: what the history keeps of it."""

    name: str
    title: str
    text: str
    sections: list[Section]
    figures: dict[str, float] = field(default_factory=dict)


def chart(figure: go.Figure, caption: str, height: int = 380) -> Chart:
    """The figure in the report's style; height: in pixels."""
    figure.update_layout(
        template="none",
        height=height,
        colorway=COLORS,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 36, "b": 8},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"namelength": -1},
        bargap=0.25,
    )
    axis = {"automargin": True, "gridcolor": "rgba(128,128,128,.2)", "zeroline": False}
    figure.update_xaxes(**axis, title_standoff=8)
    figure.update_yaxes(**axis, title_standoff=8)
    return Chart(figure, caption)


def bars(
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    caption: str,
    unit: str,
    colors: Sequence[str] = COLORS,
) -> Chart:
    """Horizontal stacked bars, the first name on top. series: {label: a value for each name}."""
    figure = go.Figure(
        [
            go.Bar(
                y=list(names),
                x=list(values),
                name=label,
                orientation="h",
                marker_color=color,
                hovertemplate=f"%{{y}}: %{{x:,.6~g}} {unit}<extra>{label}</extra>",
            )
            for (label, values), color in zip(series.items(), colors)
        ]
    )
    figure.update_layout(barmode="stack", showlegend=len(series) > 1)
    figure.update_xaxes(title=unit, tickformat="~s")
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1, ticklabelstandoff=6)
    return chart(figure, caption, 90 + 22 * max(4, len(names)))
