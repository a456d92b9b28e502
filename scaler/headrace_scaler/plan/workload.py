"""A load to plan for: what arrives, how long it takes, what is asked for. TOML, one of the built-in ones or a file."""

import tomllib
from pathlib import Path

import msgspec

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.scaling import Scaling

BUILT_IN = Path(__file__).parent / "workloads"
HOUR_S = 3600.0


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """When jobs arrive."""


class Day(Arrivals, frozen=True, tag="day"):
    """So many jobs every day, around the clock, most of them at noon."""

    jobs: int
    swing: float = 0.0
    """0: evenly; 1: none at midnight, twice the mean at noon."""

    def __post_init__(self) -> None:
        _at_least("jobs", self.jobs, 1)
        if not 0 <= self.swing <= 1:
            raise ValueError(f"`swing` is {self.swing:g} and must be 0 to 1")


class BusinessHours(Arrivals, frozen=True, tag="business_hours"):
    """So many jobs a second from `begin_h` to `end_h`, Monday to Friday, and none else."""

    jobs_per_s: float
    begin_h: float = 9.0
    end_h: float = 17.0

    def __post_init__(self) -> None:
        if not 0 < self.jobs_per_s < float("inf"):
            raise ValueError(f"`jobs_per_s` is {self.jobs_per_s:g} and must be above 0")
        if not 0 <= self.begin_h < self.end_h <= 24:
            raise ValueError(f"`begin_h` and `end_h` are {self.begin_h:g} and {self.end_h:g}: 0 to 24, begin first")

    @property
    def jobs(self) -> int:
        """Of a working day."""
        return max(1, round(self.jobs_per_s * (self.end_h - self.begin_h) * HOUR_S))


class Batch(Arrivals, frozen=True, tag="batch"):
    """So many jobs at once, every so many days."""

    jobs: int
    every_days: int = 1

    def __post_init__(self) -> None:
        _at_least("jobs", self.jobs, 1)
        _at_least("every_days", self.every_days, 1)


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load. Seconds are float."""

    description: str
    arrivals: Day | BusinessHours | Batch
    service_s: float
    """Mean time of a job in the engine."""
    p95_wait_s: float
    """What is asked for: 95 of 100 jobs are in an engine after this time."""
    service_spread: float = 0.0
    """Sigma of the log-normal distribution of it; 0: each job takes the same."""
    cold_start_s: float = 30.0
    """From the order of a worker until it is ready."""
    jobs_per_worker: int = 1
    """Jobs that run side by side, each as fast as alone."""
    gpu: str = ""
    """Which list prices are shown beside it: `a100`, `a10g`."""
    price: str = ""
    """Name of the list price that a worker costs, where neither of the next two says anything."""
    price_per_h: float = 0.0
    """What an hour of a worker costs."""
    price_per_s: float = 0.0
    """What a second of a worker costs; the price per hour comes first."""
    scaling: Scaling = Scaling()

    def __post_init__(self) -> None:
        for name in ("service_s", "p95_wait_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name):g} and must be above 0")
        for name in ("service_spread", "cold_start_s", "price_per_h", "price_per_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name):g} and must not be negative or endless")
        _at_least("jobs_per_worker", self.jobs_per_worker, 1)
        _at_least("scaling.max_workers", self.scaling.max_workers, 1)


def built_in() -> list[str]:
    """Names of the loads that come with this package."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def text_of(name_or_path: str) -> str:
    """The TOML of a load.

    Raises:
        InvalidSpec: it is neither the name of a built-in one nor a file that can be read.
    """
    known = name_or_path in built_in()
    path = BUILT_IN / f"{name_or_path}.toml" if known else Path(name_or_path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{name_or_path} is none of {', '.join(built_in())}, and no file: {error}") from error


def load_workload(name_or_path: str, changes: tuple[str, ...] = ()) -> Workload:
    """Read a load, with changes like `scaling.max_workers=4`.

    Raises:
        InvalidSpec: names the file or the change, the key and the reason.
    """
    try:
        table = tomllib.loads(text_of(name_or_path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{name_or_path}: {error}") from error
    for change in changes:
        _apply(table, change)
    try:
        return msgspec.convert(table, Workload)
    except msgspec.ValidationError as error:
        raise InvalidSpec(f"{name_or_path}: {error}") from error


def _apply(table: dict[str, object], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise InvalidSpec(f"{change!r} is not key=value, as in scaling.max_workers=4")
    *tables, last = key.strip().split(".")
    at: object = table
    for name in tables:
        at = at.setdefault(name, {}) if isinstance(at, dict) else None
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f'{change!r}: the value is no TOML, as in 4, 0.5, true or "text"') from error
    if not isinstance(at, dict):
        raise InvalidSpec(f"{change!r}: {'.'.join(tables)} is no table")
    at[last] = parsed


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"`{name}` is {value} and must be at least {least}")
