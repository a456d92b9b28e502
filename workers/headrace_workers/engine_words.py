"""What an engine process wrote to stderr, without what came from jobs. Pure.

Libraries warn of inputs they do not like by quoting them, and the last words of a process that died are logged.
"""

import re
from collections.abc import Iterable, Sequence

WITHHELD = "(withheld: it repeats words of a job)"
# Shorter words are in every input; longer ones may be all that a line tells of it.
_WORD = re.compile(r"\w{6,}")


def without_inputs(lines: Iterable[str], inputs: Sequence[bytes]) -> list[str]:
    """The lines, each that shares a word with one of the encoded inputs withheld."""
    return [WITHHELD if _shares_a_word(line, inputs) else line for line in lines]


def _shares_a_word(line: str, inputs: Sequence[bytes]) -> bool:
    words = [word.encode() for word in _WORD.findall(line)]
    return any(word in encoded for word in words for encoded in inputs)
