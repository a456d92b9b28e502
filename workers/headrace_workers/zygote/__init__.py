"""The zygote: a warm process that has everything imported, and forks workers and engine processes in milliseconds."""
