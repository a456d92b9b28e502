"""What all tests of this folder put up with."""

import pytest

# The NATS client drops the streams of a broker that died without closing them; their end comes when it comes.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "faults":
            item.add_marker(UNCLOSED)
