"""Workers of an older entry of their model are replaced when they are idle, one after the other."""

from headrace_scaler.policy.crew import Crew
from headrace_scaler.policy.damping import Damped, cooled_down
from headrace_scaler.policy.observation import ModelView, WorkerView
from headrace_scaler.policy.starts import Judged


def to_replace(view: ModelView, crew: Crew, judged: Judged, damped: Damped, now: float) -> tuple[WorkerView, ...]:
    """The one worker to drain next, so that another starts in its place; none while a replacement is on its way.

    After a failed start nothing more is replaced: a new entry that cannot run must not take the old one's workers.
    """
    complete = crew.capacity >= damped.target and not crew.starting and not crew.draining
    if not complete or judged.starts.failures or not cooled_down(view.scaling, damped.state, now):
        return ()
    return tuple(worker for worker in crew.spare if worker.id in view.outdated)[:1]
