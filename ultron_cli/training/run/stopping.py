"""Stopping a run from outside: the step under way is ended and saved first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class StopSignal:
    """Notes SIGTERM, SIGHUP and SIGINT in `received`, which is None until then. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the signals are noted instead of ending the process; only the main thread can do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.received is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.received = signal.Signals(number)

        numbers = [signal.SIGTERM, signal.SIGINT]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def stopped_text(name: str, step: int, folder: Path) -> str:
    """What a stopped run says. name: of the signal, or of who else stopped it."""
    return f"stopped by {name} after step {step}, all saved; go on with `ultron train --resume --out {folder}`"
