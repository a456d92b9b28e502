"""How every process of Headrace is seen: its log lines, its metrics and its part of a trace."""
