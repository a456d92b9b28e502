"""The faster_whisper engine on Whisper tiny.en: real speech, with what was said beside it."""

from pathlib import Path

import msgspec
import pytest
from loaded import bundled, weights_of
from recording import Bench, Record, RecordingSink
from recordings import SPEECH, clips, reencoded, wav, word_errors, words_of

from headrace_contracts.errors import InvalidInput, InvalidSpec, WeightsError
from headrace_contracts.file import File
from headrace_contracts.tasks import SpeechToTextInput
from headrace_contracts.tasks.speech_to_text import SpeechTask
from headrace_workers.engines.faster_whisper import FasterWhisperEngine

pytestmark = pytest.mark.models

DASHWOOD = SPEECH / "dashwood-7s.wav"


def asking(**fields: object) -> SpeechToTextInput:
    return SpeechToTextInput(File(inline=b""), **fields)  # type: ignore[arg-type]  # the engine reads Work.files


def test_what_is_said_is_written_down(listener: Bench) -> None:
    references = clips()
    assert len(references) == 3
    wrong = total = 0
    for name, said in references.items():
        (record,) = listener.run(asking(), audio=SPEECH / name)
        wrong += word_errors(words_of(record.output.text), said.split())
        total += len(said.split())
    assert total == 38
    assert wrong / total < 0.10, f"{wrong} of {total} words are wrong"


def test_the_chunks_joined_are_the_text(listener: Bench, tmp_path: Path) -> None:
    body = b"".join((SPEECH / name).read_bytes()[44:] for name in clips())
    (record,) = listener.run(asking(), audio=wav(tmp_path / "all.wav", len(body) / 32_000, body=body))
    output = record.output
    assert len(record.chunks) > 1
    assert "".join(record.chunks) == output.text
    assert output.text == output.text.strip()
    assert words_of(" ".join(s.text for s in output.segments)) == words_of(output.text)
    assert all(a.end_s <= b.start_s + 0.01 for a, b in zip(output.segments, output.segments[1:], strict=False))


def test_usage_duration_and_progress_are_seconds(listener: Bench) -> None:
    (record,) = listener.run(asking(), audio=DASHWOOD)
    assert record.finished is not None
    assert record.finished.usage.audio_s == record.output.duration_s == 7.1
    assert record.progress == sorted(record.progress)
    assert record.progress[-1] == (7.1, 7.1)
    assert record.output.language == "en"


def test_the_same_recording_gives_the_same_text(listener: Bench) -> None:
    first, again = listener.run(asking(), asking(), audio=DASHWOOD)
    assert first.output == again.output


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "mp3"), ("a.flac", "flac")])
def test_other_formats_are_understood(listener: Bench, tmp_path: Path, name: str, codec: str) -> None:
    path = reencoded(DASHWOOD.name, tmp_path / name, codec, 44_100)
    (record,) = listener.run(asking(), audio=path)
    said = clips()[DASHWOOD.name].split()
    assert word_errors(words_of(record.output.text), said) <= 2


def test_word_times_grow(listener: Bench) -> None:
    (record,) = listener.run(asking(word_timestamps=True), audio=DASHWOOD)
    words = [word for segment in record.output.segments for word in segment.words]
    assert words_of(" ".join(w.word for w in words)) == words_of(record.output.text)
    times = [t for w in words for t in (w.start_s, w.end_s)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 7.2
    assert all(0 < w.probability <= 1 for w in words)


def test_silence_is_skipped_on_request(listener: Bench, tmp_path: Path) -> None:
    speech = DASHWOOD.read_bytes()[44:]
    body = bytes(20 * 32_000) + speech
    path = wav(tmp_path / "late.wav", len(body) / 32_000, body=body)
    (record,) = listener.run(asking(vad_filter=True), audio=path)
    assert word_errors(words_of(record.output.text), clips()[DASHWOOD.name].split()) <= 2
    assert 19 < record.output.segments[0].start_s < 21
    (nothing,) = listener.run(asking(vad_filter=True), audio=wav(tmp_path / "silence.wav", 3))
    assert nothing.output.text == ""
    assert nothing.output.segments == ()


def test_recordings_take_turns(listener: Bench, tmp_path: Path) -> None:
    body = DASHWOOD.read_bytes()[44:] * 2
    long = wav(tmp_path / "long.wav", 80, body=body + bytes(30 * 32_000) + body)
    slow = listener.admit(asking(), audio=long)
    quick = listener.admit(asking(), audio=SPEECH / "amiable-3s.wav")
    while not listener.record(quick).ended:
        listener.engine.step()
    assert not listener.record(slow).ended
    listener.engine.drop(slow)
    assert not listener.engine.busy


@pytest.mark.parametrize(("reports", "chunks"), [(1, 0), (2, 1), (3, 1)])
def test_a_canceled_recording_stops_before_its_next_window(
    listener: Bench, tmp_path: Path, reports: int, chunks: int
) -> None:
    body = DASHWOOD.read_bytes()[44:]
    path = wav(tmp_path / "long.wav", 90, body=(body + bytes(30 * 32_000)) * 2)

    def cancel(run_id: str, record: Record) -> None:
        # The first report is the start, the second comes just before the first window, the third is what it heard.
        if record.reports == reports:
            listener.sink.to_cancel.add(run_id)

    listener.sink.on_report = cancel
    run_id = listener.admit(asking(), audio=path)
    listener.step_until_idle()
    assert len(listener.record(run_id).chunks) == chunks
    assert not listener.record(run_id).ended


def test_a_dropped_recording_is_never_reported(listener: Bench) -> None:
    run_id = listener.admit(asking(), audio=DASHWOOD)
    listener.engine.drop(run_id)
    assert not listener.engine.busy
    assert listener.record(run_id).reports == 0


def test_what_the_model_cannot_do_is_refused(listener: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"input\.language: 'de' is none of this model's languages \(en\)"):
        listener.admit(asking(language="de"), audio=DASHWOOD)
    with pytest.raises(InvalidInput, match=r"input\.task: .* cannot translate"):
        listener.admit(asking(task=SpeechTask.TRANSLATE), audio=DASHWOOD)
    with pytest.raises(InvalidInput, match=r"input\.initial_prompt: \d+ tokens is over this model's limit of 223"):
        listener.admit(asking(initial_prompt="sense and sensibility " * 100), audio=DASHWOOD)
    assert not listener.engine.busy


def test_a_model_says_what_is_wrong_with_its_options_or_weights(tmp_path: Path) -> None:
    engine, sink, spec = FasterWhisperEngine(), RecordingSink(), bundled("whisper-tiny-en")
    weights = weights_of(spec)
    with pytest.raises(WeightsError, match=r"has no model\.bin"):
        engine.load(spec, tmp_path, sink)
    with pytest.raises(InvalidSpec, match=r"has: compute_type"):
        engine.load(msgspec.structs.replace(spec, options={"dtype": "int8"}), weights, sink)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        engine.load(msgspec.structs.replace(spec, options={"compute_type": "int3"}), weights, sink)
