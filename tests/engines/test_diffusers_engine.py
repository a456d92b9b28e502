"""The diffusers engine on tiny-shapes: what a picture shows is read from its pixels."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from loaded import BATCH, bundled, weights_of
from PIL import Image
from recording import Bench, Record, RecordingSink
from safetensors.torch import load_file
from shapes import look

from headrace_contracts.errors import ErrorCode, Fault, InvalidInput, InvalidSpec, WeightsError
from headrace_contracts.limits import Limits
from headrace_contracts.model import Resources
from headrace_contracts.tasks import ImageFormat, TextToImageInput
from headrace_workers.engines import pictures
from headrace_workers.engines.diffusers import DiffusersEngine

pytestmark = pytest.mark.models

STEPS = 8


def asking(prompt: str = "a red circle on a blue background", *, seed: int = 3, **fields: object) -> TextToImageInput:
    return TextToImageInput(prompt, steps=STEPS, guidance_scale=5.0, seed=seed, **fields)  # type: ignore[arg-type]


def picture_files(bench: Bench, record: Record) -> list[Path]:
    run_id = next(i for i, r in bench.sink.records.items() if r is record)
    return [bench.out_dir(run_id) / name for name in record.output.images]


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@contextmanager
def steps_taken(bench: Bench) -> Iterator[list[None]]:
    """Grows with every denoising step that the model really computes."""
    taken: list[None] = []
    unet = bench.engine._pipeline._pipe.unet  # type: ignore[attr-defined]
    hook = unet.register_forward_hook(lambda *_: taken.append(None))
    try:
        yield taken
    finally:
        hook.remove()


def assert_same_picture(one: Path, other: Path) -> None:
    """Equal up to rounding: a batch sums in another order, which may move a value by one of 255 levels."""
    difference = np.abs(pixels(one).astype(int) - pixels(other).astype(int))
    assert difference.max() <= 1, f"{(difference > 1).sum()} values differ by up to {difference.max()}"


@pytest.mark.parametrize(
    ("colour", "shape", "background"),
    [
        ("red", "circle", "blue"),
        ("yellow", "cross", "black"),
        ("green", "star", "white"),
        ("purple", "ring", "orange"),
        ("white", "square", "purple"),
        ("cyan", "triangle", "red"),
    ],
)
def test_a_picture_shows_what_the_prompt_asks_for(painter: Bench, colour: str, shape: str, background: str) -> None:
    (record,) = painter.run(asking(f"a {colour} {shape} on a {background} background"))
    (path,) = picture_files(painter, record)
    assert look(pixels(path)) == (colour, background, shape)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(painter: Bench) -> None:
    first, again, other = (painter.run(asking(seed=seed))[0] for seed in (3, 3, 4))
    files = [picture_files(painter, record)[0].read_bytes() for record in (first, again, other)]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_picture_of_a_batch_is_the_one_drawn_alone(painter: Bench) -> None:
    prompts = ["a red circle on a blue background", "a green star on white", "a yellow cross on black"]
    alone = [painter.run(asking(prompt, seed=i))[0] for i, prompt in enumerate(prompts)]
    before = sum(record.started for record in painter.sink.records.values())
    ids = [painter.admit(asking(prompt, seed=i)) for i, prompt in enumerate(prompts)]
    painter.engine.step()
    assert not painter.engine.busy, "one call should have drawn all three"
    together = [painter.sink.wait_for_end(run_id) for run_id in ids]
    assert sum(record.started for record in painter.sink.records.values()) == before + 3
    for one, other in zip(alone, together, strict=True):
        assert_same_picture(picture_files(painter, one)[0], picture_files(painter, other)[0])


def test_jobs_that_cannot_share_a_call_are_drawn_in_turn(painter: Bench) -> None:
    painter.admit(asking())
    painter.admit(msgspec.structs.replace(asking(), guidance_scale=3.0))
    assert painter.step_until_idle() == 2


def test_several_images_take_following_seeds_and_fill_calls_of_the_batch_size(painter: Bench) -> None:
    singles = [painter.run(asking(seed=10 + i))[0] for i in range(BATCH + 1)]
    run_id = painter.admit(asking(seed=10, num_images=BATCH + 1))
    assert painter.step_until_idle() == 2
    record = painter.sink.wait_for_end(run_id)
    assert record.output.seeds == tuple(range(10, 11 + BATCH))
    assert record.finished is not None
    assert record.finished.usage.images == BATCH + 1
    for drawn, single in zip(picture_files(painter, record), singles, strict=True):
        assert_same_picture(drawn, picture_files(painter, single)[0])
    assert record.progress[-1] == (STEPS * (BATCH + 1), STEPS * (BATCH + 1))
    assert record.progress == sorted(record.progress)


def test_every_step_is_reported(painter: Bench) -> None:
    (record,) = painter.run(asking())
    assert record.started == 1
    assert record.progress == [(i + 1, STEPS) for i in range(STEPS)]


@pytest.mark.parametrize(
    ("kind", "magic"), [(ImageFormat.PNG, b"\x89PNG"), (ImageFormat.JPEG, b"\xff\xd8"), (ImageFormat.WEBP, b"RIFF")]
)
def test_files_are_what_was_asked_for(painter: Bench, kind: ImageFormat, magic: bytes) -> None:
    (record,) = painter.run(asking(format=kind))
    (path,) = picture_files(painter, record)
    assert path.read_bytes().startswith(magic)
    assert record.finished is not None
    assert record.finished.files[0].content_type == f"image/{kind.value}"
    assert (record.output.height, record.output.width, 3) == pixels(path).shape == (32, 32, 3)


def test_without_a_seed_one_is_chosen_and_named(painter: Bench) -> None:
    (record,) = painter.run(msgspec.structs.replace(asking(), seed=None))
    (again,) = painter.run(asking(seed=record.output.seeds[0]))
    first, second = (picture_files(painter, r)[0].read_bytes() for r in (record, again))
    assert first == second


def test_a_canceled_job_stops_within_one_step(painter: Bench) -> None:
    def cancel_after_two(run_id: str, record: Record) -> None:
        if len(record.progress) == 2:
            painter.sink.to_cancel.add(run_id)

    painter.sink.on_report = cancel_after_two
    run_id = painter.admit(msgspec.structs.replace(asking(), steps=50))
    with steps_taken(painter) as taken:
        painter.step_until_idle()
    # The third step is where the cancel is seen; the picture itself is not decoded any more.
    assert len(taken) <= 3
    assert len(painter.record(run_id).progress) == 2
    assert not painter.record(run_id).ended


def test_a_canceled_row_leaves_its_neighbour_alone(painter: Bench) -> None:
    (alone,) = painter.run(asking(seed=8))
    ids = [painter.admit(asking(seed=7)), painter.admit(asking(seed=8))]

    def cancel_first(run_id: str, record: Record) -> None:
        if len(record.progress) == 2:
            painter.sink.to_cancel.add(ids[0])

    painter.sink.on_report = cancel_first
    painter.step_until_idle()
    other = painter.sink.wait_for_end(ids[1])
    assert not painter.record(ids[0]).ended
    assert len(painter.record(ids[0]).progress) == 2
    assert_same_picture(picture_files(painter, other)[0], picture_files(painter, alone)[0])


def test_a_dropped_job_is_never_reported(painter: Bench) -> None:
    run_id = painter.admit(asking())
    painter.engine.drop(run_id)
    assert not painter.engine.busy
    assert painter.record(run_id).reports == 0


def test_a_picture_that_cannot_be_written_fails_its_job(painter: Bench) -> None:
    work = painter.work(asking())
    work.out_dir.rmdir()
    painter.engine.admit(work)
    painter.step_until_idle()
    failed = painter.sink.wait_for_end(work.run_id).failed
    assert failed is not None
    assert (failed.code, failed.fault, failed.retryable) == (ErrorCode.INTERNAL, Fault.WORKER, True)


def test_an_unforeseen_error_of_the_encoder_fails_its_job(painter: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("encoder")

    monkeypatch.setattr(pictures, "write_picture", broken)
    (record,) = painter.run(asking())
    assert record.failed is not None
    assert record.failed.code is ErrorCode.INTERNAL


def test_a_prompt_longer_than_the_text_encoder_reads_is_refused(painter: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"input\.prompt: \d+ tokens is over this model's limit of 24 tokens"):
        painter.admit(asking("a red circle " * 20))
    with pytest.raises(InvalidInput, match=r"input\.negative_prompt: \d+ tokens"):
        painter.admit(asking(negative_prompt="a red circle " * 20))


def test_limits_hold_for_the_models_own_defaults(tmp_path: Path) -> None:
    spec = bundled("tiny-shapes", limits=Limits(max_steps=20, max_pixels=32 * 31))
    bench = Bench(DiffusersEngine(random.Random(0)), spec, weights_of(spec), tmp_path)
    with pytest.raises(InvalidInput, match=r"input\.steps: 50 is over this model's limit of 20"):
        bench.admit(TextToImageInput("a red circle", width=8, height=8))
    with pytest.raises(InvalidInput, match=r"input\.width: 1024 pixels .* limit of 992"):
        bench.admit(TextToImageInput("a red circle", steps=8))
    with pytest.raises(InvalidInput, match=r"input\.height: 1280 pixels"):
        bench.admit(TextToImageInput("a red circle", steps=8, height=40))


def test_other_sizes_can_be_drawn(painter: Bench) -> None:
    (record,) = painter.run(asking(width=24, height=40))
    assert (record.output.width, record.output.height) == (24, 40)
    assert pixels(picture_files(painter, record)[0]).shape == (40, 24, 3)


def test_a_picture_of_no_numbers_fails_and_the_engine_goes_on(painter: Bench) -> None:
    unet = painter.engine._pipeline._pipe.unet  # type: ignore[attr-defined]
    weight = unet.conv_in.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    (bad,) = painter.run(asking())
    with torch.no_grad():
        weight.copy_(kept)
    (good,) = painter.run(asking())
    assert bad.failed is not None
    assert (bad.failed.code, bad.failed.retryable) == (ErrorCode.MODEL_ERROR, False)
    assert good.output.images


def test_a_picture_that_the_safety_checker_withheld_is_no_picture(
    painter: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def withhold(image: torch.Tensor, *_: object) -> tuple[torch.Tensor, list[bool]]:
        return torch.zeros_like(image), [True]

    pipe = painter.engine._pipeline._pipe  # type: ignore[attr-defined]
    monkeypatch.setattr(pipe, "run_safety_checker", withhold)
    (record,) = painter.run(asking())
    assert record.failed is not None
    assert "safety checker withheld" in record.failed.message


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    spec = bundled("tiny-shapes")
    folder = tmp_path / "pickled"
    shutil.copytree(weights_of(spec), folder)
    safe = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    safe.unlink()
    with pytest.raises(WeightsError, match="tiny-shapes"):
        DiffusersEngine(random.Random(0)).load(spec, folder, RecordingSink())


def test_a_model_says_what_is_wrong_with_its_options_device_or_weights(tmp_path: Path) -> None:
    engine = DiffusersEngine(random.Random(0))
    sink = RecordingSink()
    spec = bundled("tiny-shapes")
    weights = weights_of(spec)
    replace = msgspec.structs.replace
    with pytest.raises(InvalidSpec, match=r"unknown field `precision`.*has: dtype, variant"):
        engine.load(replace(spec, options={"precision": "float16"}), weights, sink)
    with pytest.raises(InvalidSpec, match=r"resources\.device is 'cuda:99'"):
        engine.load(replace(spec, resources=Resources(device="cuda:99")), weights, sink)
    with pytest.raises(InvalidSpec, match="'gpu' and must be auto, cpu"):
        engine.load(replace(spec, resources=Resources(device="gpu")), weights, sink)
    with pytest.raises(WeightsError, match=r"has no model_index\.json"):
        engine.load(spec, tmp_path, sink)
