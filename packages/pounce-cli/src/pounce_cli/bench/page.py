"""What was measured, as one page of HTML that needs nothing else: styles and charts (SVG) are in it."""

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from pounce_cli.bench.load import Seen
from pounce_cli.bench.measure import PERCENTILES, Measured, Outcome, of_outcome
from pounce_cli.bench.report import milliseconds, notes

__all__ = ["as_page"]

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 32, 16, 40
SHARES = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)
STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1d1f23; --faint: #6a6f78; --line: #dcdad3; --card: #fff;
  --c0: #b3541e; --c1: #1f6fb2; --c2: #2c7d4f; --c3: #8a3fa0; --c4: #8a6d00; --c5: #b02a56; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171b; --ink: #e8e6e1; --faint: #9aa0aa; --line: #32363d; --card: #1c1f24;
    --c0: #f0935a; --c1: #6bb3f0; --c2: #6cc792; --c3: #d193e3; --c4: #d9bb4a; --c5: #f2809f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1.1rem; margin: 40px 0 8px; }
p { margin: 4px 0 12px; } .faint { color: var(--faint); font-size: .9rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .faint { fill: var(--faint); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .plot { fill: none; stroke-width: 2.25; stroke-linejoin: round; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: 6px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--faint); font-weight: 600; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
code { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
li { margin: 6px 0; }
"""


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


def as_page(outcome: Outcome) -> str:
    """The page."""
    return "".join(_page(outcome))


def _page(outcome: Outcome) -> Iterator[str]:
    order, plan, machine = outcome.order, outcome.order.plan, outcome.machine
    names = ", ".join(each.name for each in outcome.servers)
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>pounce bench: {escape(names)}</title><style>{STYLE}</style></head><body><main>"
    yield f"<h1>{escape(names)}</h1>"
    yield (
        f'<p class="faint">{escape(order.request.method)} {escape(order.request.path)} over {escape(order.protocol)}, '
        f"{plan.connections} connections with {plan.depth} at once on each, threads: {plan.threads}, "
        f"workers: {order.workers}, {plan.duration:g} s. {escape(outcome.began)}, Python {escape(machine['python'])}, "
        f"GIL {machine['gil']}, {machine['cpus']} CPUs, {escape(machine['system'])}.</p>"
    )
    full = [(each, each.full) for each in outcome.servers if each.full is not None]
    steady = [(each, each.steady) for each in outcome.servers if each.steady is not None]
    if full:
        yield "<h2>As fast as it goes</h2><p>Answers in a second; a longer bar is faster.</p><figure>"
        yield _bars([(each.name, seen.rate) for each, seen in full])
        yield "</figure>"
        head = ["server", "in a second", "p50", "p99", "errors", "400+", "memory"]
        yield _table(head, [_row(each, seen) for each, seen in full])
        yield "<h2>Second by second</h2>"
        yield "<p>Answers in each second; a straight line is a server without pauses.</p><figure>"
        yield _chart(
            [Line(each.name, _by_second(seen)) for each, seen in full],
            _Linear(0, max(plan.duration, 1)),
            _Linear(0, max([max(seen.seconds, default=1) for _, seen in full]) * 1.1),
            "seconds",
            "in a second",
        )
        yield "</figure>"
    if steady:
        yield f"<h2>Latency at {outcome.rate:,.0f} in a second</h2>"
        yield (
            "<p>From when a request was due, whether its server was ready for it or not. A lower line is better; "
            "what is on the right happens to few requests.</p><figure>"
        )
        lines = [
            Line(each.name, [(share, max(seen.latencies.percentile(share or 0.001), 1) / 1000) for share in SHARES])
            for each, seen in steady
        ]
        values = [value for line in lines for _, value in line.points]
        yield _chart(lines, _Nines(), _Logarithmic(min(values) / 1.3, max(values) * 1.3), "per cent of requests", "ms")
        yield "</figure>"
        head = ["server", *(f"p{percent:g}" for percent in PERCENTILES), "max"]
        yield _table(head, [_latencies(each, seen) for each, seen in steady])
    yield "<h2>To be read with it</h2><ul>"
    yield "".join(f"<li>{escape(note)}</li>" for note in notes(outcome))
    yield "</ul>"
    if any(each.command for each in outcome.servers):
        yield "<h2>What was started</h2><ul>"
        yield "".join(f"<li><code>{escape(shlex.join(each.command))}</code></li>" for each in outcome.servers)
        yield "</ul>"
    data = json.dumps(of_outcome(outcome)).replace("<", "\\u003c")
    yield f'<script type="application/json" id="measured">{data}</script>'
    yield "</main></body></html>\n"


def _row(each: Measured, seen: Seen) -> list[str]:
    memory = f"{each.memory / 1024**2:.0f} MiB" if each.memory is not None else "-"
    latencies = seen.latencies
    middle, tail = (milliseconds(latencies.percentile(percent)) for percent in (50, 99))
    bad = [str(seen.errors), str(seen.failed)]
    return [f"{each.name} {each.version}".strip(), f"{seen.rate:,.0f}", middle, tail, *bad, memory]


def _by_second(seen: Seen) -> list[tuple[float, float]]:
    return [(at + 0.5, float(count)) for at, count in enumerate(seen.seconds)]


def _latencies(each: Measured, seen: Seen) -> list[str]:
    found = [milliseconds(seen.latencies.percentile(percent)) for percent in PERCENTILES]
    return [f"{each.name} {each.version}".strip(), *found, milliseconds(seen.latencies.longest)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><td><span class="key" style="background:var(--c{number % 6})"></span>{escape(row[0])}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _bars(values: Sequence[tuple[str, float]]) -> str:
    step, longest = 44, max(value for _, value in values) or 1.0
    height = step * len(values) + 8
    pieces = [_begin(height, "Answers in a second")]
    for number, (name, value) in enumerate(values):
        top, width = number * step + 8, value / longest * (WIDTH - 240)
        pieces.append(f'<text x="104" y="{top + 20}" text-anchor="end">{escape(name)}</text>')
        colour = f"fill:var(--c{number % 6})"
        pieces.append(f'<rect x="116" y="{top}" width="{max(width, 1):.1f}" height="30" rx="3" style="{colour}"/>')
        pieces.append(f'<text x="{124 + width:.1f}" y="{top + 20}">{value:,.0f}</text>')
    return "".join(pieces) + "</svg>"


class _Linear:
    """A scale on which equal differences are equally long."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high or 1.0

    def place(self, value: float) -> float:
        return (value - self._low) / (self._high - self._low)

    def marks(self) -> Iterator[tuple[float, str]]:
        step = 10 ** math.floor(math.log10((self._high - self._low) / 4))
        step *= next(each for each in (1, 2, 5, 10) if (self._high - self._low) / (step * each) <= 6)
        value = self._low
        while value <= self._high:
            yield value, f"{value:,.0f}" if step >= 1 else f"{value:g}"
            value += step


class _Logarithmic(_Linear):
    """A scale on which equal ratios are equally long."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(math.log10(low), math.log10(high))

    def place(self, value: float) -> float:
        return super().place(math.log10(value))

    def marks(self) -> Iterator[tuple[float, str]]:
        for power in range(math.floor(self._low), math.ceil(self._high) + 1):
            for digit in (1, 2, 5):
                value = digit * 10.0**power
                if self._low <= math.log10(value) <= self._high:
                    yield value, f"{value:g}"


class _Nines(_Linear):
    """A scale of per cent that gives each further nine the same length."""

    def __init__(self) -> None:
        super().__init__(0.0, 4.0)

    def place(self, value: float) -> float:
        return super().place(-math.log10(1 - value / 100))

    def marks(self) -> Iterator[tuple[float, str]]:
        return ((value, f"{value:g} %") for value in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99))


def _chart(lines: Sequence[Line], across: _Linear, up: _Linear, below: str, beside: str) -> str:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + across.place(value) * width

    def y(value: float) -> float:
        return TOP + (1 - up.place(value)) * height

    pieces = [_begin(HEIGHT, f"{beside} by {below}")]
    for value, text in up.marks():
        pieces.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        pieces.append(f'<text class="faint" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in across.marks():
        pieces.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{TOP + height}"/>')
        pieces.append(
            f'<text class="faint" x="{x(value):.1f}" y="{TOP + height + 16}" text-anchor="middle">{text}</text>'
        )
    pieces.append(f'<text class="faint" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{below}</text>')
    pieces.append(f'<text class="faint" x="4" y="{HEIGHT - 6}">{beside}</text>')
    for number, line in enumerate(lines):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        pieces.append(
            f'<polyline class="plot" points="{path}" style="stroke:var(--c{number % 6})"><title>{escape(line.name)}'
            "</title></polyline>"
        )
    return "".join(pieces) + "</svg>"


def _begin(height: int, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
