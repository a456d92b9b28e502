"""The nemesis: draws faults from a seed, does them, and writes down what it did with proof that it happened."""

from headrace_loadgen.nemesis.draw import Nemesis
from headrace_loadgen.nemesis.faults import FAULTS, Injector

__all__ = ["FAULTS", "Injector", "Nemesis"]
