"""Chunks of streamed text become one text that never takes back a word. Pure: events in, pieces out.

A job that is run again streams its text again. As long as the new text says the same, it goes on where the old one
stopped; once it differs, what a reader has seen is wrong, and only an error can say so. Pieces that were lost on the
way come with the result.
"""

from headrace.errors import StreamRestarted
from headrace_contracts.event import AnyEvent, Chunk


class TextSoFar:
    """The text a reader has been given, and what the running attempt says."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._given = ""
        self._attempt = 0
        self._said = ""
        self._next_seq = 0

    def take(self, event: AnyEvent) -> str:
        """The text that this event adds; empty where it adds none.

        Raises:
            StreamRestarted: a later attempt differs from what was given.
        """
        if not isinstance(event, Chunk) or event.attempt < self._attempt:
            return ""
        if event.attempt > self._attempt:
            self._attempt, self._said, self._next_seq = event.attempt, "", 0
        if event.seq != self._next_seq:
            # A piece is missing; those after it would not join. The result closes the gap.
            return ""
        self._next_seq += 1
        self._said += event.text
        return "" if self._given.startswith(self._said) else self._give(self._said)

    def finish(self, text: str) -> str:
        """The rest of `text`, the result's.

        Raises:
            StreamRestarted: it differs from what was given.
        """
        return self._give(text)

    def _give(self, text: str) -> str:
        if not text.startswith(self._given):
            raise StreamRestarted(self._job_id, self._given)
        rest = text[len(self._given) :]
        self._given = text
        return rest
