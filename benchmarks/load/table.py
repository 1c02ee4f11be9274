"""The samples as markdown tables: medians over the rounds, and ratios to the baseline of the same round."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.load.loads import LOADS
from benchmarks.load.measure import Sample


def report(
    samples: Sequence[Sample],
    imports: dict[str, list[float]],
    servers: list[str],
    loads: list[str],
    baseline: str,
) -> str:
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for x in samples:
        groups[x.server, x.load].append(x)
    others = {(x.round, x.load): x for x in samples if x.server == baseline and not x.flags}

    def with_ratio(samples: list[Sample], of: Callable[[Sample], float]) -> str:
        ratios = [of(x) / value for x in samples if (y := others.get((x.round, x.load))) and (value := of(y))]
        ratio = f"{median(ratios):.2f}" if ratios else "no ratio"
        return f"{median(of(x) for x in samples):,.0f} ({ratio})"

    def rate(samples: list[Sample]) -> str:
        return with_ratio(samples, lambda sample: sample.rate)

    def processor(samples: list[Sample]) -> str:
        return with_ratio(samples, lambda sample: sample.processor)

    def latency(samples: list[Sample]) -> str:
        return f"{median(x.p50 for x in samples):.2f} / {median(x.p99 for x in samples):.2f}"

    def memory(samples: list[Sample]) -> str:
        return f"{median(x.pss for x in samples):.1f}"

    def grid(title: str, cell: Callable[[list[Sample]], str]) -> list[str]:
        rows = [[server, *(flagged(groups[server, load], cell) for load in loads)] for server in servers]
        return [f"\n{title}\n", *markdown(["server", *loads], rows)]

    return "\n".join(
        [
            *grid(f"Requests per second (ratio to {baseline})", rate),
            *grid(f"Processor time for a request in microseconds (ratio to {baseline})", processor),
            *grid("Latency in ms, p50 / p99", latency),
            *grid("Memory after the load, PSS in MiB", memory),
            *starts(samples, imports, servers),
            *remarks(samples),
        ]
    )


def flagged(samples: list[Sample], cell: Callable[[list[Sample]], str]) -> str:
    """The cell over the samples without flags; an exclamation mark says that there were others."""
    clean = [sample for sample in samples if not sample.flags]
    if not clean:
        return "FAILED" if samples else "-"
    return cell(clean) + (" !" if len(clean) < len(samples) else "")


def starts(samples: Sequence[Sample], imports: dict[str, list[float]], servers: list[str]) -> list[str]:
    frameworks = list(dict.fromkeys(LOADS[x.load].framework for x in samples))
    rows = []
    for server in servers:
        mine = [x for x in samples if x.server == server]
        groups = [[x for x in mine if LOADS[x.load].framework == f] for f in frameworks]
        cells = [flagged(group, lambda clean: f"{median(x.start for x in clean):.0f}") for group in groups]
        rows.append([server, *cells, f"{median(imports[server]):.1f}" if imports.get(server) else "-"])
    header = ["server", *(f"first answer, {framework}" for framework in frameworks), "import"]
    return ["\nStart in ms\n", *markdown(header, rows)]


def remarks(samples: Sequence[Sample]) -> list[str]:
    flags = [f"- FLAG {x.server}, {x.load}, round {x.round}: {flag}" for x in samples for flag in x.flags]
    notes = dict.fromkeys(f"- {x.server}, {x.load}: {note}" for x in samples for note in x.notes)
    return ["", *flags, *notes] if flags or notes else []


def markdown(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
