"""Text out of chunks: never a word taken back, never one missing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import StreamRestarted
from headrace.streaming import TextSoFar
from headrace_contracts.event import Chunk

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(text: str, seq: int, attempt: int = 1) -> Chunk:
    return Chunk("j", NOW, attempt, seq, text)


def test_a_missing_piece_is_made_up_from_the_result() -> None:
    text = TextSoFar("j")
    assert text.take(chunk("one ", 0)) == "one "
    assert text.take(chunk("three ", 2)) == ""
    assert text.take(chunk("four", 3)) == ""
    assert text.finish("one two three four") == "two three four"


def test_a_repeated_attempt_goes_on_where_the_one_before_stopped() -> None:
    text = TextSoFar("j")
    pieces = [text.take(chunk("one ", 0)), text.take(chunk("two ", 1))]
    pieces += [text.take(chunk(piece, seq, 2)) for seq, piece in enumerate(["one", " two", " three"])]
    assert "".join(pieces) == "one two three"
    assert text.take(chunk("late", 3, 1)) == ""


def test_an_attempt_that_says_something_else_is_an_error() -> None:
    text = TextSoFar("j")
    text.take(chunk("one ", 0))
    with pytest.raises(StreamRestarted, match="differs from the 4 characters already streamed"):
        text.take(chunk("uno ", 0, 2))


@given(st.text(max_size=60), st.data())
def test_whatever_is_lost_or_repeated_the_pieces_join_to_the_text(whole: str, data: st.DataObject) -> None:
    attempts = data.draw(st.integers(1, 3))
    events = []
    for attempt in range(1, attempts + 1):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        events += [chunk(piece, seq, attempt) for seq, piece in enumerate(pieces) if data.draw(st.booleans())]
    text = TextSoFar("j")
    assert "".join([*map(text.take, events), text.finish(whole)]) == whole
