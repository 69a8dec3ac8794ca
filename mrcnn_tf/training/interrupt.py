"""Ctrl-C and the termination signal of a cluster: the step that runs is finished, then training ends."""

import contextlib
import os
import signal
import threading

import keras

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = b"\nStopping when this step or evaluation is done; once more to stop at once.\n"


class Interrupted(Exception):
    """Training was asked to stop and stands between two steps.

    Attributes:
        signal_name: such as "SIGINT".
        exit_code: what a program that was ended by this signal returns: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number):
        self.signal_name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
        super().__init__(f"{self.signal_name} asked training to stop.")


class StopAfterStep(keras.callbacks.Callback):
    """Raises `Interrupted` out of `fit` after the step in which a signal came; to be used inside `signals()`.

    It has to be the last callback: those after it would miss the end of that step.
    """

    def __init__(self):
        super().__init__()
        self.received = None

    def on_train_batch_end(self, batch, logs=None):
        self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def check(self):
        """Raises `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def signals(self):
        """Catches SIGINT and SIGTERM in the block; the second of them has its usual effect.

        Outside of the main thread, where Python can't catch signals, it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number, frame):
            self.received = number
            for each, handler in before.items():
                signal.signal(each, handler)
            os.write(2, SAID)  # print could be what the signal interrupted

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
