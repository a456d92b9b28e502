# ruff: noqa: N802 - the library's own names
"""NVIDIA's library as pynvml sees it: functions that fill in what they are given a pointer to, and return a code."""

from ctypes import Array, c_char, c_uint
from typing import Any

OK, NOT_SUPPORTED, NOT_FOUND, UNINITIALIZED, FUNCTION_NOT_FOUND, GPU_IS_LOST = 0, 3, 6, 1, 13, 15
UUIDS = (b"GPU-aa", b"GPU-bb")


class Driver:
    """Two GPUs of 80 bytes, of which the driver keeps one, and what is wrong with them."""

    def __init__(self) -> None:
        self.opened = 0
        self.lost = False
        self.split = False
        self.rows_pending, self.rows_failed, self.pages_pending = 0, 0, 0
        self.old = False

    def nvmlInitWithFlags(self, flags: int) -> int:
        self.opened += 1
        return OK

    def nvmlShutdown(self) -> int:
        self.opened -= 1
        return OK

    def nvmlErrorString(self, code: int) -> bytes:
        return b"error %d" % code

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(UUIDS)
        return OK

    def nvmlDeviceGetHandleByIndex_v2(self, index: c_uint, handle: Any) -> int:
        return GPU_IS_LOST if self.lost and index.value == 1 else OK

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:
        return OK if uuid.value in UUIDS else NOT_FOUND

    def nvmlDeviceGetUUID(self, handle: Any, uuid: Array[c_char], size: c_uint) -> int:
        uuid.value = UUIDS[0]
        return OK

    def nvmlDeviceGetMigMode(self, handle: Any, now: Any, later: Any) -> int:
        now._obj.value = self.split
        return OK

    def nvmlDeviceGetRemappedRows(self, handle: Any, good: Any, bad: Any, pending: Any, failed: Any) -> int:
        pending._obj.value, failed._obj.value = self.rows_pending, self.rows_failed
        return OK if self.rows_pending or self.rows_failed else NOT_SUPPORTED

    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: Any, pending: Any) -> int:
        pending._obj.value = self.pages_pending
        return OK

    def nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> int:
        if self.old:
            return FUNCTION_NOT_FOUND
        memory._obj.total, memory._obj.reserved, memory._obj.free = 80, 1, 70
        return OK

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj.total, memory._obj.free = 80, 69
        return OK
