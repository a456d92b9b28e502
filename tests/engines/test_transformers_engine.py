"""The transformers engine on SmolLM2-135M-Instruct, in float32: facts, seeds, stop texts, streams, and company."""

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from loaded import bundled, weights_of
from recording import Bench, Record, RecordingSink
from safetensors.torch import load_file

from headrace_contracts.errors import ErrorCode, InvalidInput, WeightsError
from headrace_contracts.limits import Limits
from headrace_contracts.tasks import FinishReason, Message, Role, TextGenerationInput
from headrace_workers.engines import text_decoder
from headrace_workers.engines.transformers import TransformersEngine

pytestmark = pytest.mark.models

CAPITAL = "What is the capital of France?"
QUESTIONS = (
    CAPITAL,
    "Name three fruits.",
    "Write one line about the sea, with the word blue.",
    "Count from one to ten.",
)


def asking(prompt: str = CAPITAL, *, max_tokens: int = 24, **fields: Any) -> TextGenerationInput:
    return TextGenerationInput(prompt, max_tokens=max_tokens, **fields)


def sampled(prompt: str = QUESTIONS[2], *, seed: int | None, **fields: Any) -> TextGenerationInput:
    return asking(prompt, temperature=0.8, top_p=0.9, seed=seed, **fields)


def text(record: Record) -> str:
    return str(record.output.text)


def run_staggered(bench: Bench, *inputs: TextGenerationInput, every: int) -> list[Record]:
    """Run jobs together, each joining `every` tokens after the one before."""
    ids = []
    for job_input in inputs:
        ids.append(bench.admit(job_input))
        for _ in range(every):
            bench.engine.step()
    bench.step_until_idle()
    return [bench.record(run_id) for run_id in ids]


def test_it_knows_the_capital_of_france(writer: Bench) -> None:
    (record,) = writer.run(asking())
    assert "Paris" in text(record)
    assert record.output.finish_reason is FinishReason.STOP
    assert record.started == 1


CONVERSATION = (
    Message(Role.SYSTEM, "You answer in rhymes."),
    Message(Role.USER, "Hello!"),
    Message(Role.ASSISTANT, "Hello, dear fellow."),
    Message(Role.USER, "What is yellow?"),
)


@pytest.mark.parametrize(
    "job_input", [asking(), TextGenerationInput(messages=CONVERSATION, max_tokens=24)], ids=["prompt", "conversation"]
)
def test_it_writes_what_the_library_writes(writer: Bench, job_input: TextGenerationInput) -> None:
    engine: Any = writer.engine
    tokenizer, model = engine._prompter.tokenizer, engine._decoder._model
    messages = job_input.messages or (Message(Role.USER, job_input.prompt or ""),)
    turns = [{"role": message.role.value, "content": message.content} for message in messages]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)
    expected = tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text(writer.run(job_input)[0]) == expected


def test_usage_counts_tokens(writer: Bench) -> None:
    (record,) = writer.run(asking(QUESTIONS[2], max_tokens=5))
    assert record.output.finish_reason is FinishReason.LENGTH
    assert record.finished is not None
    assert record.finished.usage.tokens_out == 5
    assert record.finished.usage.tokens_in is not None
    assert record.finished.usage.tokens_in > 20
    assert record.progress[-1] == (5, 5)


@pytest.mark.parametrize("prompt", [QUESTIONS[1], "Repeat exactly: \u65e5\u672c\u8a9e \U0001f600\U0001f680 caf\u00e9"])
def test_the_chunks_joined_are_the_text_and_whole_characters(writer: Bench, prompt: str) -> None:
    (record,) = writer.run(sampled(prompt, seed=1, max_tokens=40))
    assert "".join(record.chunks) == text(record)
    assert len(record.chunks) > 5
    assert all(chunk for chunk in record.chunks)
    assert not any("\N{REPLACEMENT CHARACTER}" in chunk for chunk in record.chunks)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(writer: Bench) -> None:
    first, again, other = (text(writer.run(sampled(seed=seed, max_tokens=12))[0]) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_without_a_seed_one_is_chosen_and_named(writer: Bench) -> None:
    (record,) = writer.run(sampled(seed=None))
    assert text(writer.run(sampled(seed=record.output.seed))[0]) == text(record)


@pytest.fixture(scope="module")
def alone(writer: Bench) -> list[str]:
    """What is written to each question without company."""
    return [text(writer.run(asking(question))[0]) for question in QUESTIONS]


def test_greedy_texts_are_the_same_alone_and_in_company(writer: Bench, alone: list[str]) -> None:
    together = run_staggered(writer, *(asking(question) for question in QUESTIONS), every=3)
    assert [text(record) for record in together] == alone


def test_sampled_texts_are_the_same_alone_and_in_company(writer: Bench) -> None:
    inputs = [sampled(question, seed=i, max_tokens=10 + 3 * i) for i, question in enumerate(QUESTIONS)]
    alone = [text(writer.run(job_input)[0]) for job_input in inputs]
    assert len(set(alone)) == len(alone)
    # The longest prompt first and last, so that rows are padded both when they join and when others do.
    for order in (inputs, inputs[::-1]):
        together = {record.output.seed: text(record) for record in run_staggered(writer, *order, every=2)}
        assert [together[i] for i in range(len(inputs))] == alone


def test_a_stop_text_ends_the_text_and_is_not_part_of_it(writer: Bench, alone: list[str]) -> None:
    whole = alone[0]
    middle = len(whole) // 2
    # Two words, so several tokens: the beginning has to be held back until the rest is there.
    stop = whole[middle - 4 : middle + 5]
    (record,) = writer.run(asking(stop=("never said", stop)))
    assert text(record) == "".join(record.chunks) == whole[: whole.index(stop)]
    assert record.output.finish_reason is FinishReason.STOP


def test_text_that_only_looked_like_a_stop_text_is_sent_after_all(writer: Bench, alone: list[str]) -> None:
    whole = alone[0]
    (record,) = writer.run(asking(stop=(whole[-4:] + "!!",)))
    assert text(record) == "".join(record.chunks) == whole


def test_a_dropped_job_leaves_its_neighbours_alone(writer: Bench, alone: list[str]) -> None:
    ids = [writer.admit(asking(question)) for question in QUESTIONS]
    for _ in range(6):
        writer.engine.step()
    dropped = ids.pop(2)
    reports = writer.record(dropped).reports
    assert reports
    writer.engine.drop(dropped)
    writer.step_until_idle()
    assert writer.record(dropped).reports == reports
    assert [text(writer.record(run_id)) for run_id in ids] == [alone[0], alone[1], alone[3]]


def test_a_canceled_job_writes_no_further_token(writer: Bench) -> None:
    def cancel_at_third_chunk(run_id: str, record: Record) -> None:
        if len(record.chunks) == 3:
            writer.sink.to_cancel.add(run_id)

    writer.sink.on_report = cancel_at_third_chunk
    run_id = writer.admit(asking(QUESTIONS[2]))
    writer.step_until_idle()
    assert len(writer.record(run_id).chunks) == 3
    assert not writer.record(run_id).ended


def test_a_long_prompt_is_read_in_pieces_and_lets_others_write(writer: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "The weather was fine. " * 30 + CAPITAL
    (whole,) = writer.run(asking(long, max_tokens=8))
    monkeypatch.setattr(text_decoder, "PREFILL_TOKENS", 32)
    quick = writer.admit(asking(QUESTIONS[1]))
    writer.engine.step()
    writer.engine.step()
    slow = writer.admit(asking(long, max_tokens=8))
    writer.engine.step()
    chunks = len(writer.record(quick).chunks)
    writer.engine.step()
    writer.engine.step()
    assert not writer.record(slow).chunks, "the prompt has over 100 tokens, so three pieces are not all of it"
    assert len(writer.record(quick).chunks) > chunks
    writer.step_until_idle()
    assert text(writer.record(slow)) == text(whole)


def test_a_prompt_longer_than_the_context_is_refused(writer: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"input\.prompt: \d{4,} tokens leave no room .* context of 8192 tokens"):
        writer.admit(asking("word " * 8200))
    long = (Message(Role.USER, "word " * 8200),)
    with pytest.raises(InvalidInput, match=r"input\.messages: \d{4,} tokens leave no room"):
        writer.admit(TextGenerationInput(messages=long))
    assert not writer.engine.busy


def test_a_text_ends_where_the_context_does(writer: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = writer.run(asking(QUESTIONS[2], max_tokens=1))
    assert record.finished is not None
    prompt_tokens = record.finished.usage.tokens_in
    assert prompt_tokens is not None
    monkeypatch.setattr(writer.engine._prompter, "context", prompt_tokens + 3)  # type: ignore[attr-defined]
    (record,) = writer.run(asking(QUESTIONS[2], max_tokens=50))
    assert record.finished is not None
    assert record.finished.usage.tokens_out == 3
    assert record.output.finish_reason is FinishReason.LENGTH


def test_without_a_chat_template_a_prompt_is_continued_and_a_conversation_refused(
    writer: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer.engine._prompter.tokenizer, "chat_template", None)  # type: ignore[attr-defined]
    (record,) = writer.run(asking("One, two, three, four,", max_tokens=4))
    assert "five" in text(record)
    with pytest.raises(InvalidInput, match=r"input\.messages: this model has no chat template"):
        writer.admit(TextGenerationInput(messages=(Message(Role.USER, "Hello"),)))


def test_a_chat_template_may_refuse_a_conversation(writer: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(writer.engine._prompter.tokenizer, "chat_template", template)  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match=r"input\.prompt: .*roles must alternate"):
        writer.admit(asking())


def test_logits_that_are_no_numbers_fail_the_job_and_not_the_engine(writer: Bench) -> None:
    weight = writer.engine._decoder._model.model.norm.weight  # type: ignore[attr-defined]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    (bad,) = writer.run(asking())
    with torch.no_grad():
        weight.copy_(kept)
    assert bad.failed is not None
    assert bad.failed.code is ErrorCode.MODEL_ERROR
    assert "Paris" in text(writer.run(asking())[0])


def test_a_model_says_what_is_wrong_with_its_weights(tmp_path: Path) -> None:
    engine, sink, spec = TransformersEngine(random.Random(0)), RecordingSink(), bundled("smollm2-135m")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        engine.load(spec, tmp_path, sink)
    pickled = tmp_path / "pickled"
    weights = weights_of(spec)
    shutil.copytree(weights, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(weights / "model.safetensors"), pickled / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        engine.load(spec, pickled, sink)


def test_texts_end_at_the_models_limit_where_nothing_else_was_asked(writer: Bench) -> None:
    kept = writer.spec
    engine: Any = writer.engine
    engine._spec = msgspec.structs.replace(kept, limits=Limits(max_output_tokens=7))
    try:
        (record,) = writer.run(msgspec.structs.replace(asking(QUESTIONS[2]), max_tokens=None))
    finally:
        engine._spec = kept
    assert record.finished is not None
    assert record.finished.usage.tokens_out == 7
