"""The whole system at a glance: `Looker` asks the broker for a `View`; the command line draws it."""

from headrace.top.look import Looker
from headrace.top.view import GpuUse, ModelRow, View

__all__ = ["GpuUse", "Looker", "ModelRow", "View"]
