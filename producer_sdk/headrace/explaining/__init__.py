"""Why a job still waits, or where its time went.

`collect` asks the broker for everything that is known of one job; `explain` is pure and makes sentences of it.
"""

from headrace.explaining.collect import collect
from headrace.explaining.explain import explain
from headrace.explaining.facts import Bar, Explanation, Facts

__all__ = ["Bar", "Explanation", "Facts", "collect", "explain"]
