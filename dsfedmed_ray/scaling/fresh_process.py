"""Every measurement in a process of its own: no memory, cache or Ray is left from the one before.

The kernel's peak of a process never falls, so two measurements in one process could not be told
apart; and a study of days does not end with one run's fault.
"""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

from dsfedmed_ray.errors import DSFedMedError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.scaling.measurement import Measurement, Task, measure

Measure = Callable[[Task, Callable[[ProgressRecord], None], StopRequest], Measurement]

_POLL_SECONDS = 0.2


def measure_apart(
    task: Task, on_round: Callable[[ProgressRecord], None], stop: StopRequest
) -> Measurement:
    """:func:`~dsfedmed_ray.scaling.measurement.measure` in a new process.

    Raises:
        DSFedMedError: what the run raised, or that its process died.
        InterruptedRunError: ``stop`` was set; the run ended after its round.
    """
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, sending), daemon=True)
    process.start()
    sending.close()
    asked = False
    try:
        while True:
            while not receiving.poll(_POLL_SECONDS):
                if stop.signal_number is not None and not asked:
                    process.terminate()  # it ends after its round and says so
                    asked = True
            message = receiving.recv()
            if isinstance(message, ProgressRecord):
                on_round(message)
            elif isinstance(message, Measurement):
                return message
            else:
                raise message
    except EOFError:
        process.join()
        raise DSFedMedError(
            f"the process that measured {task.point.label} ended with code {process.exitcode}; "
            "look at the machine's free memory"
        ) from None
    finally:
        process.join()


def _work(task: Task, sending: Connection) -> None:
    stop = StopRequest()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: setattr(stop, "signal_number", caught))
    try:
        sending.send(measure(task, sending.send, stop))
    except DSFedMedError as error:
        sending.send(error)
