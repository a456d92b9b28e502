"""The reaper: ends what nobody else can end, and removes what nobody will use any more.

It runs in one process at a time, the holder of the lease `reaper`. Nothing depends on it being there: what it finds is
found as well by the next one, later. Every rule is safe to be done twice, and none touches what a worker may hold, but
for jobs of a model that was taken out of the registry.

    look, every 2 s     unroutable    jobs that no consumer delivers: no such model, no such lane
                        consumers     consumers of a model that were deleted
                        expired       jobs that waited too long and were never delivered
                        ended         jobs that have a result and were never delivered
    sweep, every 10 min artifacts     files that no result names
                        inputs        uploads that are old and that no job names
                        attempts      records of jobs that ended
"""

from headrace_storage.reaper.duty import Act, Rule, Trouble
from headrace_storage.reaper.rounds import Reaper, reap

__all__ = ["Act", "Reaper", "Rule", "Trouble", "reap"]
