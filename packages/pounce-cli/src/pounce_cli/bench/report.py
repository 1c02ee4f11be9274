"""What was measured, as text."""

from collections import Counter
from collections.abc import Iterator

from pounce_cli.bench.load import Seen
from pounce_cli.bench.measure import CROWDED, PERCENTILES, Measured, Outcome

__all__ = ["as_text", "milliseconds", "notes"]


def as_text(outcome: Outcome) -> str:
    """Tables for a terminal."""
    return "\n".join(_lines(outcome)) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    order, machine = outcome.order, outcome.machine
    plan = order.plan
    yield f"{order.request.method} {order.request.path} over {order.protocol}, {plan.connections} connections, " + (
        f"{plan.depth} at once on each, threads: {plan.threads}, workers: {order.workers}, {plan.duration:g} s"
    )
    yield f"Python {machine['python']}, GIL {machine['gil']}, {machine['cpus']} CPUs, {machine['system']}"
    if any(each.full for each in outcome.servers):
        yield ""
        yield "As fast as it goes"
        yield f"  {'server':<22} {'in a second':>12} {'p50':>9} {'p99':>9} {'errors':>7} {'400+':>7} {'memory':>9}"
        best = max(each.full.rate for each in outcome.servers if each.full is not None)
        for each in outcome.servers:
            if each.full is not None:
                yield _row(each, each.full) + f"  {each.full.rate / best:>4.0%}"
    if any(each.steady for each in outcome.servers):
        yield ""
        yield f"At {outcome.rate:,.0f} in a second: latency from when a request was due"
        shown = "".join(f"{f'p{percent:g}':>10}" for percent in PERCENTILES)
        yield f"  {'server':<22}{shown}{'max':>10}"
        for each in outcome.servers:
            if each.steady is not None:
                found = [milliseconds(each.steady.latencies.percentile(percent)) for percent in PERCENTILES]
                longest = milliseconds(each.steady.latencies.longest)
                yield f"  {_name(each):<22}" + "".join(f"{text:>10}" for text in [*found, longest])
    for note in notes(outcome):
        yield ""
        yield f"Note: {note}"


def _name(each: Measured) -> str:
    return f"{each.name} {each.version}".strip()


def _row(each: Measured, seen: Seen) -> str:
    latencies = seen.latencies
    memory = f"{each.memory / 1024**2:.0f} MiB" if each.memory is not None else "-"
    return (
        f"  {_name(each):<22} {seen.rate:>12,.0f} {milliseconds(latencies.percentile(50)):>9} "
        f"{milliseconds(latencies.percentile(99)):>9} {seen.errors:>7} {seen.failed:>7} {memory:>9}"
    )


def milliseconds(microseconds: float) -> str:
    """A time as people read it."""
    value = microseconds / 1000
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def notes(outcome: Outcome) -> Iterator[str]:
    """What has to be known to read the numbers."""
    crowded = [each.name for each in outcome.servers if each.full is not None and each.full.busy >= CROWDED]
    if crowded:
        yield (
            f"With {', '.join(crowded)} the load used up its own threads: the server may be faster than this. "
            "Give --threads more, or measure with wrk or h2load."
        )
    late = [each.name for each in outcome.servers if each.steady is not None and each.steady.late]
    late = [name for name in late if _is_late(outcome, name)]
    if late:
        yield f"{', '.join(late)} did not keep up with the rate: its latencies grow for as long as it lasts."
    silent, failed = [], []
    for each in outcome.servers:
        both = [seen for seen in (each.full, each.steady) if seen is not None]
        if errors := sum(seen.errors for seen in both):
            silent.append(f"{each.name} ({errors})")
        statuses = sum((Counter(seen.statuses) for seen in both), Counter[int]())
        if bad := [f"{key}: {count}" for key, count in sorted(statuses.items()) if key >= 400]:
            failed.append(f"{each.name} ({', '.join(bad)})")
    if silent:
        yield f"There were requests without an answer: {'; '.join(silent)}."
    if failed:
        yield f"There were answers of 400 and above: {'; '.join(failed)}."
    yield (
        "Load and server share the CPUs of this machine, and the load is written in Python: one of its threads ends at "
        "about 20,000 requests in a second, where wrk and h2load go further. Compare servers by this, and do not take "
        "it for what a machine can do."
    )


def _is_late(outcome: Outcome, name: str) -> bool:
    """More than what is due at the very end."""
    [each] = [each for each in outcome.servers if each.name == name]
    return each.steady is not None and each.steady.late > 0.01 * outcome.rate * outcome.order.plan.duration
