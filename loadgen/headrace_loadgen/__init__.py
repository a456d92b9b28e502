"""The fault harness: load with faults on real processes, and a checker that believes nothing but the evidence."""
