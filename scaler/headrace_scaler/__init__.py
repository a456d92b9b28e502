"""Starts and stops workers from what waits: observe, decide, act.

Workers are started by command line and known by their heartbeats; nothing of them is imported here.
"""
