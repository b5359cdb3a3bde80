"""The lock of a model: readers together, writers alone, in the order of arrival."""

import threading
import time

from lamina.training.locks import ReadWriteLock


def test_readers_hold_it_together():
    lock = ReadWriteLock()
    meeting = threading.Barrier(3, timeout=10)

    def read():
        with lock.reading():
            meeting.wait()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not meeting.broken


def test_a_writer_is_alone():
    lock = ReadWriteLock()
    inside, most = 0, 0
    guard = threading.Lock()

    def write():
        nonlocal inside, most
        for _ in range(50):
            with lock.writing():
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1


def test_a_reader_gets_its_turn_beside_a_busy_writer():
    lock = ReadWriteLock()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            with lock.writing():
                time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    began = time.monotonic()
    for _ in range(5):
        with lock.reading():
            pass
    stop.set()
    writer.join(10)
    assert time.monotonic() - began < 5
