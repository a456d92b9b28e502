"""Sees what there is: the queue, the workers, the slots; and makes of it what the policy is told."""
