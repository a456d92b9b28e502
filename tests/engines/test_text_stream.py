"""Text from tokens: stop texts however they are cut, and characters never in halves."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headrace_workers.engines.text_stream import StopFilter, TextStream


def streamed(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, bool]:
    """What a filter lets through of some pieces, and whether it found a stop text."""
    through = ""
    stop_filter = StopFilter(stops)
    for piece in pieces:
        text, stopped = stop_filter.push(piece)
        through += text
        if stopped:
            return through, True
    return through + stop_filter.rest(), False


def cut_at_first_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    found = [text.index(stop) for stop in stops if stop in text]
    return (text[: min(found)], True) if found else (text, False)


LETTERS = st.text(alphabet="ab", max_size=3)


@given(pieces=st.lists(LETTERS), stop=st.text(alphabet="ab", min_size=1, max_size=5))
def test_one_stop_text_is_found_however_the_text_is_cut(pieces: list[str], stop: str) -> None:
    assert streamed(pieces, [stop]) == cut_at_first_stop("".join(pieces), [stop])


@given(text=st.text(alphabet="ab", max_size=12), stops=st.lists(LETTERS.filter(bool), max_size=3))
def test_letter_by_letter_the_stop_text_that_is_complete_first_wins(text: str, stops: list[str]) -> None:
    through, stopped = streamed(list(text), stops)
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    if ends:
        first_end = min(ends)[0]
        assert through == text[: min(begin for end, begin in ends if end == first_end)]
    else:
        assert through == text


def test_only_what_may_begin_a_stop_text_is_held_back() -> None:
    stop_filter = StopFilter(["END."])
    assert stop_filter.push("a story EN") == ("a story ", False)
    assert stop_filter.push("GLISH") == ("ENGLISH", False)
    assert stop_filter.push(" E") == (" ", False)
    assert stop_filter.rest() == "E"


def byte_level() -> Tokenizer:
    """A tokenizer with one token per byte, so that most characters take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(max_size=30).filter(lambda text: "\N{REPLACEMENT CHARACTER}" not in text))
def test_characters_of_several_tokens_come_whole(text: str) -> None:
    tokenizer = byte_level()
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text).ids]
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)


def test_half_a_character_at_the_end_is_never_sent() -> None:
    tokenizer = byte_level()
    stream = TextStream(tokenizer)
    tokens = tokenizer.encode("a\U0001f600").ids
    assert [stream.push(token) for token in tokens[:-1]] == ["a", "", "", ""]


@pytest.mark.parametrize("stops", [(), ("x",)])
def test_without_a_stop_text_everything_passes_at_once(stops: tuple[str, ...]) -> None:
    assert StopFilter(stops).push("abc") == ("abc", False)
