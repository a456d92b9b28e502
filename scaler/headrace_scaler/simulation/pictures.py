"""Draws a trace: what waits, how many workers there are by what they do, what was wanted, and each decision.

The only module that imports matplotlib, which is a development dependency.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headrace_scaler.policy.decision import Blocked
from headrace_scaler.simulation.scenarios import Scenario
from headrace_scaler.simulation.trace import Decision, Sample, Trace

INK, GRID = "#1f2933", "#d9dee3"
WAITING, HELD = "#c2410c", "#f0b27a"
PHASES = (("busy", "#1d6f5c"), ("idle", "#9fd3c4"), ("starting", "#f2c94c"), ("draining", "#b0b7bf"))
MOST_SAMPLES = 900
"""Beyond these a picture shows means over `COLUMNS` equal times: a day has more samples than a picture has columns."""
COLUMNS = 480


class _Course:
    """The samples of a model as series over time."""

    def __init__(self, samples: list[Sample], until: float, unit_s: float) -> None:
        self._samples = samples
        self._until = until
        self._even = len(samples) > MOST_SAMPLES
        width = until / COLUMNS
        self._edges = [index * width for index in range(COLUMNS + 1)]
        self.times = [at / unit_s for at in (self._edges if self._even else [sample.at for sample in samples])]

    def __getitem__(self, name: str) -> list[float]:
        values: list[float] = [getattr(sample, name) for sample in self._samples]
        return self._means(values) if self._even else values

    def unit(self, name: str) -> str:
        """What an axis is of."""
        return f"{name} (mean of {self._edges[1] / 60:.0f} min)" if self._even else name

    def _means(self, values: list[float]) -> list[float]:
        """Of each column; the last once more, for the right edge."""
        width = self._edges[1]
        totals = [0.0] * (COLUMNS + 1)
        ends = [*(sample.at for sample in self._samples[1:]), self._until]
        for sample, end, value in zip(self._samples, ends, values, strict=True):
            at = sample.at
            while at < end:
                column = min(int(at / width), COLUMNS - 1)
                edge = min(self._edges[column + 1], end) if column < COLUMNS - 1 else end
                totals[column] += value * (edge - at)
                at = max(edge, at + 1e-6)
        totals[COLUMNS] = totals[COLUMNS - 1]
        return [total / width for total in totals]


def draw(scenario: Scenario, trace: Trace, path: Path) -> None:
    """Write one picture, in the format of the file's ending."""
    models = [model.name for model in scenario.models]
    unit, unit_s = ("h", 3600.0) if trace.until > 7200 else ("s", 1.0)
    figure = Figure(figsize=(9, 2.2 + 2.9 * len(models)), layout="constrained")
    rows = figure.subplots(2 * len(models), 1, sharex=True, squeeze=False, height_ratios=[2, 3] * len(models))[:, 0]
    for index, name in enumerate(models):
        course = _Course([sample for sample in trace.samples if sample.model == name], trace.until, unit_s)
        decisions = [decision for decision in trace.decisions if decision.decision.model == name]
        _backlog(rows[2 * index], course)
        _workers(rows[2 * index + 1], course, decisions, unit_s)
        rows[2 * index].set_title(name if len(models) > 1 else "", loc="left", fontsize=10, color=INK)
    rows[-1].set_xlabel(f"virtual time ({unit})")
    rows[-1].set_xlim(0, trace.until / unit_s)
    figure.suptitle(f"{scenario.name}: {scenario.shows}", fontsize=11, color=INK)
    # Without the version of the library, so that the same run writes the same file.
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _backlog(axes: Axes, course: _Course) -> None:
    waiting = course["waiting"]
    jobs = [below + held for below, held in zip(waiting, course["held"], strict=True)]
    axes.fill_between(course.times, jobs, step="post", color=HELD, linewidth=0, label="held")
    axes.fill_between(course.times, waiting, step="post", color=WAITING, linewidth=0, label="waiting")
    axes.set_ylabel(course.unit("jobs"))
    _finish(axes)


def _workers(axes: Axes, course: _Course, decisions: list[Decision], unit_s: float) -> None:
    floor = [0.0] * len(course.times)
    for phase, color in PHASES:
        top = [below + count for below, count in zip(floor, course[phase], strict=True)]
        axes.fill_between(course.times, floor, top, step="post", color=color, linewidth=0, label=phase)
        floor = top
    axes.step(course.times, course["target"], where="post", color=INK, linewidth=1, label="wanted")
    most = max([*floor, *course["target"], 1.0])
    _marks(axes, decisions, unit_s, most)
    axes.set_ylim(0, most * 1.32)
    axes.set_ylabel(course.unit("workers"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _finish(axes)


def _marks(axes: Axes, decisions: list[Decision], unit_s: float, most: float) -> None:
    """Decisions in rows above the workers."""
    few = len(decisions) < 80
    rows: tuple[tuple[str, str, str, Callable[[Decision], bool]], ...] = (
        ("start", "^", "#1d6f5c", lambda item: bool(item.decision.start)),
        ("drain", "v", INK, lambda item: bool(item.decision.drain)),
        ("crash loop", "x", WAITING, lambda item: item.decision.blocked is Blocked.CRASH_LOOP),
    )
    for row, (label, marker, color, wanted) in enumerate(rows):
        at = [item.at / unit_s for item in decisions if wanted(item)]
        if at:
            height = most * (1.25 - 0.075 * row)
            axes.scatter(at, [height] * len(at), s=22 if few else 6, marker=marker, color=color, label=label)


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)


def draw_all(scenarios: Iterable[Scenario], folder: Path) -> list[Path]:
    """One picture for each; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for scenario in scenarios:
        path = folder / f"{scenario.name}.png"
        draw(scenario, scenario.run(), path)
        paths.append(path)
    return paths
