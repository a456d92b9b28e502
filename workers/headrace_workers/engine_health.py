"""How well an engine is, and when it is started again: one life of its process after another. Pure."""

import msgspec

from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState

# Between starts of an engine that keeps dying. The first retry is at once: most deaths are one job's doing.
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0
# Lives in a row without a finished job after which loading proves nothing any more: only a job that succeeds does.
DOUBTED_AFTER = 2
# ... after which the model is called unhealthy.
UNHEALTHY_AFTER = 5
# A device that reported an error gets a moment to be reset by its driver. Everything else is started again at once.
REST_S = {ErrorCode.DEVICE_ERROR: 1.0}


class Health(msgspec.Struct, frozen=True):
    """What the lives of an engine process so far say."""

    fruitless: int = 0
    """Lives in a row that ended by a fault and without a finished job."""
    rest_s: float = 0.0
    """Least pause before the next start."""

    def after_job(self) -> "Health":
        """A job succeeded."""
        return Health()

    def after_fault(self, code: ErrorCode) -> "Health":
        """The process ended by a fault, or could not load its model."""
        return Health(self.fruitless + 1, REST_S.get(code, 0.0))

    def after_recycling(self) -> "Health":
        """The process was replaced on purpose."""
        return Health(self.fruitless)

    @property
    def loaded_state(self) -> EngineState:
        """The state of an engine that has just loaded and warmed up; never green while only jobs can tell."""
        return EngineState.READY if self.fruitless < DOUBTED_AFTER else self.down_state

    @property
    def down_state(self) -> EngineState:
        """The state while it is not loaded."""
        if self.fruitless >= UNHEALTHY_AFTER:
            return EngineState.UNHEALTHY
        return EngineState.RECOVERING if self.fruitless else EngineState.LOADING

    @property
    def backoff_s(self) -> float:
        """Seconds until the next start."""
        if self.fruitless <= 1:
            return self.rest_s
        return max(self.rest_s, min(FIRST_BACKOFF_S * 2.0 ** (self.fruitless - 2), LONGEST_BACKOFF_S))
