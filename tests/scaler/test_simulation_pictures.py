"""Pictures of simulations: the same run writes the same file."""

from pathlib import Path

import pytest

from headrace_scaler.simulation.pictures import draw
from headrace_scaler.simulation.scenarios import scenarios


@pytest.mark.parametrize("name", ["burst", "one-gpu"])
def test_a_picture_is_small_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    scenario = next(scenario for scenario in scenarios() if scenario.name == name)
    trace = scenario.run()
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for path in paths:
        draw(scenario, trace, path)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(b"\x89PNG")
    assert first == second
    assert 5_000 < len(first) < 60_000
