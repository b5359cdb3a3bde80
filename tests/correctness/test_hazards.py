"""What could end a process or hang it, each in a child that must end well, or say what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from lamina.llvm import binding

PRELUDE = """
import gc, os, signal, sys, threading, time
import numpy as np
import lamina
from lamina import config
from lamina.llvm import cache, engine, host, pool
rng = np.random.default_rng(0)
x, y = rng.standard_normal((512, 12)).astype("f4"), rng.integers(0, 3, 512)
def made(units=40):
    lamina.utils.set_random_seed(1)
    model = lamina.Sequential([
        lamina.Input((12,)),
        lamina.layers.Dense(units, activation="relu"),
        lamina.layers.Dense(3, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def outcome(program, *, cache="off", timeout=120):
    """(exit status, stdout, stderr) of a child that runs the program on two threads."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            f"{PRELUDE}\n{textwrap.dedent(program)}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "LAMINA_CACHE": str(cache), "LAMINA_THREADS": "2"},
    )
    return done.returncode, done.stdout, done.stderr


# ------------------------------------------------------------------------- objects


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_objects_on_disk_are_compiled_again(tmp_path, damage):
    folder = tmp_path / "objects"
    program = """
        model = made()
        model.fit(x, y, epochs=1, verbose=0)
        print(engine.counters.parses, model.predict(x[:2], verbose=0).tobytes().hex())
    """
    code, first, err = outcome(program, cache=folder)
    assert (code, err) == (0, "")
    _, second, _ = outcome(program, cache=folder)
    assert second.split()[0] == "0"
    for file in folder.iterdir():
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"flip": flipped, "cut": content[:middle], "empty": b""}[damage])
    code, again, err = outcome(program, cache=folder)
    assert (code, err) == (0, "")
    assert again == first and again.split()[1] == second.split()[1]


def test_an_object_with_an_unresolved_symbol_is_never_entered():
    program = """
        text = "declare float @fmaf(float, float, float) define float @f(float %x) {\\n"
        text += "%y = call float @fmaf(float %x, float %x, float %x) ret float %y }"
        code = engine.compile_text(text, allowed=frozenset({"fmaf"}))
        for by_llvm in (False, True):
            try:
                engine.load(code, by_llvm=by_llvm)
            except engine.EngineError as error:
                print("fmaf" in str(error))
    """
    assert outcome(program) == (0, "True\nTrue\n", "")


def test_the_process_ends_quietly_with_code_in_llvms_loader():
    program = """
        class Ring: pass
        ring = Ring()
        ring.self = ring
        code = engine.compile_text("define i64 @one() { ret i64 1 }")
        ring.kept = [engine.load(code, by_llvm=True) for _ in range(3)]
        kept = engine.load(code, by_llvm=True)
        print("done")
    """
    assert outcome(program) == (0, "done\n", "")


def test_code_that_outlives_the_modules_goes_quietly():
    """At its end the interpreter empties modules, and some objects go after that."""
    program = """
        kept = engine.load(engine.compile_text("define i64 @one() { ret i64 1 }"))
        for name in [name for name in vars(engine) if not name.startswith("__")]:
            setattr(engine, name, None)
        del kept
        print("done")
    """
    assert outcome(program) == (0, "done\n", "")


def test_code_collected_while_others_compile_is_closed_later():
    """The collector may run on a thread for which the holder of LLVM's lock is waiting."""
    program = """
        code = engine.compile_text("define i64 @one() { ret i64 1 }")
        loaded = engine.load(code, by_llvm=True)
        emit = engine._emit
        def last_words(*arguments, **options):
            global loaded
            if threading.current_thread() is not threading.main_thread():
                loaded = None
            return emit(*arguments, **options)
        engine._emit = last_words
        one = "\\n".join(f"%v{i} = add i64 %x, {i}" for i in range(1500))
        text = "\\n".join(f"define i64 @f{k}(i64 %x) {{\\n{one}\\nret i64 %v9\\n}}" for k in range(8))
        with config.override(threads=3):
            engine.compile_text(text)
        assert loaded is None and len(engine._unused) == 1
        engine.load(code, by_llvm=True).close()
        assert not engine._unused
        print("done")
    """
    assert outcome(program) == (0, "done\n", "")


# ------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_the_system_refuses_is_an_error_and_the_model_goes_on():
    program = """
        import resource
        model = made()
        model.fit(x, y, batch_size=32, epochs=1, verbose=0)
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
        large = lamina.Sequential([  # means over the batch: what they are taken of is kept
            lamina.Input((12,)),
            lamina.layers.Dense(512),
            lamina.layers.BatchNormalization(),
            lamina.layers.Dense(3, activation="softmax"),
        ])
        large.compile("adam", "sparse_categorical_crossentropy")
        wide, labels = np.zeros((1 << 19, 12), "f4"), np.zeros(1 << 19, "i4")
        try:
            large.fit(wide, labels, batch_size=1 << 19, epochs=1, verbose=0)
        except MemoryError:
            print("refused")
        before = model.get_weights()
        model.fit(x, y, batch_size=32, epochs=1, verbose=0)
        print(all(np.isfinite(w).all() for w in model.get_weights()))
        print(any((a != b).any() for a, b in zip(before, model.get_weights())))
        large.fit(x, y, batch_size=32, epochs=1, verbose=0)
    """
    assert outcome(program) == (0, "refused\nTrue\nTrue\n", "")


def test_code_is_given_up_while_another_thread_is_in_it():
    program = """
        model, failures = made(), []
        model.predict(x, verbose=0)
        def predict():
            try:
                for _ in range(200):
                    model.predict(x, verbose=0)
            except BaseException as failure:
                failures.append(failure)
        threads = [threading.Thread(target=predict) for _ in range(3)]
        for thread in threads: thread.start()
        while any(thread.is_alive() for thread in threads):
            model._steps.clear()
            gc.collect()
            time.sleep(0.05)
        print(failures)
    """
    assert outcome(program) == (0, "[]\n", "")


# ------------------------------------------------------------------------- forks


@needs_fork
def test_a_fork_waits_for_the_locks_of_the_process():
    program = """
        from lamina.locks import process_lock
        lock, held = process_lock(), threading.Event()
        def hold():
            with lock:
                held.set()
                time.sleep(0.3)
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        start = time.monotonic()
        child = os.fork()
        if not child:
            signal.alarm(10)
            with lock:
                os._exit(0)
        print(os.waitpid(child, 0)[1], time.monotonic() - start > 0.2)
        with lock:  # a fork inside of it: a finaliser may do that
            child = os.fork()
            if not child:
                with lock:
                    os._exit(0)
            print(os.waitpid(child, 0)[1])
    """
    assert outcome(program) == (0, "0 True\n0\n", "")


@needs_fork
def test_forks_while_another_thread_traces_and_trains():
    """A child finds no lock taken by a thread that it does not have, and trains on its own."""
    program = """
        stop = False
        made().fit(x, y, epochs=1, verbose=0)  # a module that is being imported stays locked
        def train():
            while not stop:
                model = made()
                model.fit(x, y, epochs=2, batch_size=64, verbose=0)
        thread = threading.Thread(target=train)
        thread.start()
        failed = 0
        for number in range(12):
            time.sleep(0.013 * number % 0.05)
            child = os.fork()
            if not child:
                signal.alarm(60)
                model = made(units=8)
                model.fit(x[:64], y[:64], epochs=1, verbose=0)
                os._exit(0)
            failed += os.waitpid(child, 0)[1] != 0
        stop = True
        thread.join()
        print("failed", failed)
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "failed 0\n"), err


# ------------------------------------------------------------------------- interrupts and the end


@needs_signals
def test_an_interrupt_in_fit_leaves_the_model_usable():
    program = """
        model = made()
        model.fit(x, y, epochs=1, verbose=0)
        threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            model.fit(x, y, epochs=10**6, verbose=0)
        except KeyboardInterrupt:
            print("interrupted")
        model.fit(x, y, epochs=1, verbose=0)
        print(np.isfinite(model.predict(x, verbose=0)).all(), pool.workers() <= 1)
    """
    assert outcome(program) == (0, "interrupted\nTrue True\n", "")


@needs_signals
def test_a_loop_that_never_ends_can_be_interrupted():
    program = """
        from lamina import ops
        state = lamina.Variable(np.float32(5.0))
        @lamina.function
        def count(limit):
            state.assign(state + 1.0)
            return ops.while_loop(lambda i: i < limit, lambda i: (i + 1.0) % 1000.0, state * 0.0)
        assert count(np.float32(20.0)).numpy() == 20 and state.numpy() == 6
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            count(np.float32(2000.0))
        except KeyboardInterrupt:
            print("interrupted", state.numpy())
        print(count(np.float32(30.0)).numpy(), state.numpy())
    """
    assert outcome(program) == (0, "interrupted 6.0\n30.0 7.0\n", "")


@needs_signals
def test_interrupts_at_any_moment_never_lock_a_model():
    """Ctrl-C strikes anywhere in calls of `predict` and `fit`; the next call gets its turn."""
    program = """
        model = made()
        model.fit(x[:64], y[:64], epochs=1, verbose=0)
        model.predict(x[:8], verbose=0)
        def strike(*ignored):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, strike)
        struck, deadline = 0, time.monotonic() + 20
        other = threading.Thread(target=lambda: [model.predict(x[:8], verbose=0) for _ in range(200)])
        other.start()
        for delay in rng.uniform(20e-6, 3e-3, 500):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    model.predict(x[:8], verbose=0)
                    model.fit(x[:64], y[:64], epochs=1, verbose=0)
            except KeyboardInterrupt:
                struck += 1
            if time.monotonic() > deadline:
                break
        signal.setitimer(signal.ITIMER_REAL, 0)
        other.join(30)
        assert not other.is_alive()
        model.predict(x[:8], verbose=0)
        print("done", struck > 20)
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "done True\n"), err


@needs_signals
def test_an_interrupt_of_a_thread_that_waits_for_its_turn_stays_an_interrupt():
    """It strikes thousands of times between the instructions of a waiting that looks all the time."""
    program = """
        from lamina.training import locks
        locks._LOOK_SECONDS = 1e-6
        lock, done = locks.ReadWriteLock(), threading.Lock()
        done.acquire()
        def hold():
            with lock.writing():
                done.acquire()
        other = threading.Thread(target=hold, daemon=True)
        other.start()
        def strike(*ignored):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, strike)
        struck = 0
        for delay in rng.uniform(20e-6, 200e-6, 3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                with lock.writing():
                    print("let in")
            except KeyboardInterrupt:
                struck += 1
        done.release()
        other.join(30)
        with lock.writing():
            print(struck, other.is_alive())
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "3000 False\n"), err


def test_the_process_ends_quietly_while_a_thread_trains():
    program = """
        model = made(units=300)
        model.fit(x, y, epochs=1, verbose=0)
        train = lambda: model.fit(x, y, epochs=10**6, verbose=0)
        threading.Thread(target=train, daemon=True).start()
        time.sleep(0.05)
        print("done")
    """
    for _ in range(3):
        assert outcome(program) == (0, "done\n", "")


def test_llvms_lock_is_free_after_it_all():
    assert binding.lock().acquire(blocking=False)
    binding.lock().release()
