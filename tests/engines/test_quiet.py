"""The model libraries say nothing on stderr: it is for what went wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.models

RUN_ALL = """
import sys
import tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from loaded import bench, bundled
from recordings import SPEECH
from headrace_contracts.file import File
from headrace_contracts.tasks import SpeechToTextInput, TextGenerationInput, TextToImageInput
for name, job_input, files in (
    ("tiny-shapes", TextToImageInput("a red circle", steps=4, guidance_scale=5.0), {}),
    ("whisper-tiny-en", SpeechToTextInput(File(inline=b""), vad_filter=True), {"audio": SPEECH / "amiable-3s.wav"}),
    ("smollm2-135m", TextGenerationInput("Hello", max_tokens=4), {}),
):
    (record,) = bench(bundled(name), Path(tempfile.mkdtemp(dir=sys.argv[2]))).run(job_input, **files)
    print(type(record.output).__name__)
"""


def test_loading_and_running_every_model_is_quiet(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", RUN_ALL, here, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["TextToImageOutput", "SpeechToTextOutput", "TextGenerationOutput"], done.stderr
    assert done.stderr == ""
