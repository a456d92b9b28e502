"""How many workers a model may have, and when: the `scaling` table of a model.

Names are those of the field. What other platforms call the same is in docs/scaling.md.
"""

import msgspec


class Window(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A recurring time in which other bounds hold, as in "eight warm workers on weekday mornings"."""

    cron: str
    """When it begins: minute, hour, day of month, month, day of week, as in `0 8 * * mon-fri`."""
    duration_s: float
    """How long it lasts."""
    timezone: str = "UTC"
    """IANA name, as in `Europe/Berlin`, in which `cron` is read."""
    min_workers: int | None = None
    max_workers: int | None = None

    def __post_init__(self) -> None:
        # What may be in the fields, and which timezones there are, only the scaler knows: it names what it ignores.
        if len(self.cron.split()) != 5:
            raise ValueError(f"`cron` is `{self.cron}` and needs 5 fields, as in `0 8 * * mon-fri`")
        if not 0 < self.duration_s < float("inf"):
            raise ValueError(f"`duration_s` is {self.duration_s:g} and must be above 0 and not endless")
        least, most = self.min_workers, self.max_workers
        if min(least or 0, most or 0) < 0:
            raise ValueError(f"`min_workers` is {least} and `max_workers` {most}: neither may be negative")
        if least is not None and most is not None and least > most:
            raise ValueError(f"`min_workers` is {least} and `max_workers` {most}: min > max")


class Scaling(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bounds, targets and damping of one model. Seconds are float."""

    min_workers: int = 0
    """Kept running without any work."""
    max_workers: int = 1
    """Never more than these, whatever waits."""
    buffer_workers: int = 0
    """Idle workers kept ready beyond those the work needs, while there is any work."""
    target_jobs_per_worker: float = 0.0
    """Jobs, waiting and running, that one worker is meant to have; 0: as many as its engine runs at once."""
    target_wait_s: float = 0.0
    """Longest wait of a job that is aimed at: as many workers as the measured service time asks for, and not one for
    each job that waits. 0: scale on the number of jobs alone."""
    target_utilization: float = 1.0
    """Share of a worker's capacity that is planned with, above 0 and up to 1; the rest is for bursts. With
    `target_wait_s` it is for what arrives, not for what waits."""
    scale_up_window_s: float = 0.0
    """How long more workers must be wanted before they are started; the first one never waits."""
    scale_down_delay_s: float = 30.0
    """How long fewer workers must be wanted before one is stopped: the most wanted within this time counts."""
    scale_down_step: int = 0
    """Most workers stopped at once; 0: half of the excess, rounded up."""
    idle_timeout_s: float = 60.0
    """How long the last worker stays without work before the model goes to zero, whatever `scale_down_delay_s` is."""
    cooldown_s: float = 10.0
    """Shortest time between a scale-up and the next scale-down of the model, and between two scale-downs."""
    priority: int = 0
    """Models of a higher priority get slots first, and may have idle workers of lower ones stopped, even those that
    `min_workers` keeps."""
    start_timeout_s: float = 0.0
    """Longest time from the start of a worker until its model is ready; 0: `timeouts.load_s` and a minute."""
    schedule: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        for name in ("min_workers", "max_workers", "buffer_workers", "scale_down_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)} and must not be negative")
        if self.min_workers > self.max_workers:
            raise ValueError(f"`min_workers` is {self.min_workers} and `max_workers` {self.max_workers}: min > max")
        if not 0 < self.target_utilization <= 1:
            raise ValueError(f"`target_utilization` is {self.target_utilization:g} and must be above 0 and up to 1")
        for name in ("target_jobs_per_worker", "target_wait_s", *_DURATIONS):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name):g} and must not be negative or endless")


_DURATIONS = ("scale_up_window_s", "scale_down_delay_s", "idle_timeout_s", "cooldown_s", "start_timeout_s")
