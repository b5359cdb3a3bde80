"""The worker pool: every thread works, barriers order memory, leases, sleep and wake, hazards."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from lamina import config
from lamina.llvm import cache, engine, host, pool, runtime

# args: i64 sync, i64 rounds, ptr data (one line of 16 i64 for each thread)
STEPS = """
define void @rounds(ptr %args, i64 %tid, i64 %threads) {
entry:
  %sync = load ptr, ptr %args, align 8
  %rounds_at = getelementptr i64, ptr %args, i64 1
  %rounds = load i64, ptr %rounds_at, align 8
  %data_at = getelementptr i64, ptr %args, i64 2
  %data = load ptr, ptr %data_at, align 8
  %own = mul i64 %tid, 16
  %mine = getelementptr i64, ptr %data, i64 %own
  %after = add i64 %tid, 1
  %next = urem i64 %after, %threads
  %other = mul i64 %next, 16
  %theirs = getelementptr i64, ptr %data, i64 %other
  br label %loop
loop:
  %round = phi i64 [0, %entry], [%more, %loop]
  %old = load i64, ptr %mine, align 8
  call void @lamina_barrier(ptr %sync, i64 %threads)
  %seen = load i64, ptr %theirs, align 8
  call void @lamina_barrier(ptr %sync, i64 %threads)
  %sum = add i64 %seen, 1
  store i64 %sum, ptr %mine, align 8
  %more = add i64 %round, 1
  %again = icmp slt i64 %more, %rounds
  br i1 %again, label %loop, label %done
done:
  ret void
}
define void @count(ptr %args, i64 %tid, i64 %threads) {
  %data_at = getelementptr i64, ptr %args, i64 2
  %data = load ptr, ptr %data_at, align 8
  %own = mul i64 %tid, 16
  %mine = getelementptr i64, ptr %data, i64 %own
  %old = load i64, ptr %mine, align 8
  %new = add i64 %old, 1
  store i64 %new, ptr %mine, align 8
  %threads_at = getelementptr i64, ptr %mine, i64 1
  store i64 %threads, ptr %threads_at, align 8
  ret void
}
define void @wait(ptr %args, i64 %tid, i64 %threads) {
entry:
  %sync = load ptr, ptr %args, align 8
  %limit_at = getelementptr i64, ptr %args, i64 1
  %limit = load i64, ptr %limit_at, align 8
  %waiter_at = getelementptr i64, ptr %args, i64 3
  %waiter = load i64, ptr %waiter_at, align 8
  %mine = icmp eq i64 %tid, %waiter
  br i1 %mine, label %begin, label %done
begin:
  %start = call i64 @lamina_nanoseconds(ptr %sync)
  br label %look
look:
  %now = call i64 @lamina_nanoseconds(ptr %sync)
  %spent = sub i64 %now, %start
  %early = icmp slt i64 %spent, %limit
  br i1 %early, label %look, label %done
done:
  call void @lamina_barrier(ptr %sync, i64 %threads)
  ret void
}
define void @phases(ptr %args, i64 %tid, i64 %threads) {
entry:
  %sync = load ptr, ptr %args, align 8
  %rounds_at = getelementptr i64, ptr %args, i64 1
  %rounds = load i64, ptr %rounds_at, align 8
  br label %loop
loop:
  %round = phi i64 [0, %entry], [%more, %end]
  br label %busy
busy:
  %i = phi i64 [0, %loop], [%j, %busy]
  %j = add i64 %i, 1
  %go = icmp slt i64 %j, 280000
  br i1 %go, label %busy, label %end
end:
  call void @lamina_barrier(ptr %sync, i64 %threads)
  %more = add i64 %round, 1
  %again = icmp slt i64 %more, %rounds
  br i1 %again, label %loop, label %done
done:
  ret void
}
define void @halve(ptr %args, i64 %tid, i64 %threads) {
  %data_at = getelementptr i64, ptr %args, i64 2
  %data = load ptr, ptr %data_at, align 8
  %own = mul i64 %tid, 16
  %mine = getelementptr i64, ptr %data, i64 %own
  %x = load float, ptr %mine, align 4
  %y = fmul float %x, 0.5
  store float %y, ptr %mine, align 4
  ret void
}
"""


class Steps:
    def __init__(self, most=64):
        target = host.target("native")
        self.loaded = engine.load(engine.compile_text(runtime.barrier_text(target) + STEPS, target))
        self.data = np.zeros((most, 16), np.int64)
        self.args = np.zeros(4, np.int64)

    def run(self, lease, name, rounds=0, waiter=0):
        self.args[:] = lease.sync, rounds, self.data.ctypes.data, waiter
        return lease.run(self.loaded.address(name), self.args.ctypes.data)


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture(params=[None, "pthread"])
def own_pool(request):
    """A pool apart from the process's, on the usual system calls and on the portable ones."""
    if sys.platform == "win32" and request.param:
        pytest.skip("no pthreads here")
    table = host.os_table(request.param)
    with config.override(cache="off"):
        module = pool.Runtime(table)
    own = pool.Pool(module)
    yield own
    assert own.stop()


def take(own, threads):
    return pool.Lease(own.native, own, threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
def test_every_thread_does_its_work(own_pool, steps, threads):
    for _ in range(10):
        with take(own_pool, threads) as lease:
            assert lease.threads == threads
            steps.run(lease, "count")
    assert steps.data[:threads, 0].tolist() == [10] * threads
    assert steps.data[:threads, 1].tolist() == [threads] * threads
    assert not steps.data[threads:].any()


@pytest.mark.parametrize(("threads", "rounds"), [(1, 50), (2, 20_000), (3, 300), (8, 100)])
def test_barriers_order_memory(own_pool, steps, threads, rounds):
    """Each round, every thread takes its neighbour's number of the last round and adds one."""
    steps.data[:threads, 0] = start = np.arange(threads) * 1000
    with take(own_pool, threads) as lease:
        steps.run(lease, "rounds", rounds)
    expected = np.roll(start, -(rounds % threads)) + rounds
    assert steps.data[:threads, 0].tolist() == expected.tolist()


def test_a_pool_grows_and_uses_a_part(own_pool, steps):
    for threads in (2, 4, 3, 1, 4):
        with take(own_pool, threads) as lease:
            steps.run(lease, "count")
            steps.run(lease, "rounds", 20)
            assert lease.threads == threads
    assert own_pool.size == 4


@pytest.mark.parametrize("waiter", [0, 1])
def test_who_waits_long_sleeps(own_pool, steps, waiter):
    """One thread works 200 ms, the others wait at a barrier: together they use one core."""
    with take(own_pool, 3) as lease:
        steps.run(lease, "count")
        before, start = time.process_time(), time.perf_counter()
        steps.run(lease, "wait", 200_000_000, waiter)
        used, spent = time.process_time() - before, time.perf_counter() - start
    assert spent >= 0.2
    assert used < 0.3  # spinning would use 0.4 to 0.6


def test_idle_workers_use_no_time(own_pool, steps):
    with take(own_pool, 3) as lease:
        steps.run(lease, "count")
    time.sleep(0.02)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
    with take(own_pool, 3) as lease:
        steps.run(lease, "rounds", 100)


def test_calls_after_all_kinds_of_pauses(own_pool, steps):
    """Workers are met spinning, falling asleep and asleep: none is lost."""
    generator = np.random.default_rng(0)
    with take(own_pool, 2) as lease:
        for pause in generator.uniform(0, 2e-6 * runtime.IDLE_MICROSECONDS, 400):
            deadline = time.perf_counter() + pause
            while time.perf_counter() < deadline:
                pass
            steps.run(lease, "count")
    assert steps.data[:2, 0].tolist() == [400, 400]


def test_denormals_are_flushed_on_every_thread_and_the_callers_mode_comes_back(own_pool, steps):
    floats = steps.data.view(np.float32)
    tiny = np.float32(1.2e-38)
    floats[:3, 0] = tiny
    with take(own_pool, 3) as lease:
        steps.run(lease, "halve")
    assert floats[:3, 0].tolist() == [0.0] * 3
    assert tiny * np.float32(0.5) != 0.0


def test_who_finds_the_workers_taken_runs_alone(own_pool, steps):
    other = Steps()
    long = threading.Thread(
        target=lambda: ran.append(other.run(take(own_pool, 2), "wait", 300_000_000))
    )
    ran = []
    lease = take(own_pool, 2)
    assert steps.run(lease, "rounds", 5) == 2
    long.start()
    time.sleep(0.1)
    assert steps.run(lease, "rounds", 5) == 1
    assert not ran
    long.join()
    assert ran == [2]
    assert steps.run(lease, "rounds", 5) == 2


def test_many_callers_at_once(own_pool):
    wrong = []

    def call():
        steps = Steps()
        for _ in range(30):
            with take(own_pool, 2) as lease:
                steps.data[:] = 0
                threads = steps.run(lease, "rounds", 10)
                if steps.data[:threads, 0].tolist() != [10] * threads:
                    wrong.append(threads)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_stopped_pool_lets_callers_run_alone(own_pool, steps):
    with take(own_pool, 3) as lease:
        steps.run(lease, "count")
    assert own_pool.stop()
    with take(own_pool, 3) as lease:
        assert lease.threads == 1
        steps.run(lease, "rounds", 3)


def test_a_system_without_more_threads_gives_fewer(own_pool, steps, monkeypatch):
    start = threading.Thread.start

    def start_one(thread):
        if own_pool.size > 1:
            raise RuntimeError("can't start new thread")
        start(thread)
        while own_pool.size < 2:
            time.sleep(1e-3)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with take(own_pool, 8) as lease:
        assert lease.threads == 2
        steps.run(lease, "rounds", 10)


def test_the_process_has_one_pool_that_follows_the_setting(steps):
    with config.override(threads=2), pool.lease() as lease:
        assert lease.threads == 2
        steps.run(lease, "rounds", 100)
    with config.override(threads=1), pool.lease() as lease:
        assert lease.threads == 1
    assert pool.workers() >= 1
    assert pool.usual_threads() == (config.threads() or host.cores())


def test_the_runtime_comes_from_the_cache_the_second_time(tmp_path):
    with config.override(cache=tmp_path / "objects"):
        parses = engine.counters.parses
        pool.Runtime()
        assert engine.counters.parses > parses
        compiled = engine.counters.parses
        again = pool.Runtime()
    cache.refusal.cache_clear()
    # Loading parses an empty module inside llvmlite, which is not counted.
    assert engine.counters.parses == compiled
    assert again.ticks_per_microsecond > 1


def test_a_damaged_runtime_on_disk_is_compiled_again(tmp_path):
    with config.override(cache=tmp_path / "objects"):
        pool.Runtime()
        (file,) = (tmp_path / "objects").iterdir()
        content = bytearray(file.read_bytes())
        content[-1000] ^= 1
        file.write_bytes(content)
        parses = engine.counters.parses
        own = pool.Pool(pool.Runtime())
        assert engine.counters.parses > parses
        with take(own, 2) as lease:
            Steps().run(lease, "rounds", 10)
        assert own.stop()
    cache.refusal.cache_clear()


def test_native_code_reads_the_clock_of_perf_counter():
    module = pool.native()
    read = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(module.loaded.address("lamina_time"))
    for _ in range(100):
        before = time.perf_counter_ns()
        now = read(module.single.address)
        assert before <= now <= time.perf_counter_ns()


# ------------------------------------------------------------------------- hazards, in children

PRELUDE = """
import ctypes, faulthandler, os, signal, sys, threading, time
import numpy as np
from lamina.llvm import engine, host, pool, runtime
target = host.target("native")
loaded = engine.load(engine.compile_text(runtime.barrier_text(target) + STEPS, target))
data, args = np.zeros((64, 16), np.int64), np.zeros(4, np.int64)
def run(lease, name, rounds=0, waiter=0):
    args[:] = lease.sync, rounds, data.ctypes.data, waiter
    return lease.run(loaded.address(name), args.ctypes.data)
def work(threads=2, rounds=100):
    data[:] = 0
    with pool.lease(threads) as lease:
        got = run(lease, "rounds", rounds)
    assert data[:got, 0].tolist() == [rounds] * got
    return got
"""


def child(program, *, timeout=60, **kwargs):
    source = f"STEPS = {STEPS!r}\n{PRELUDE}\n{textwrap.dedent(program)}"
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def outcome(program, timeout=60):
    process = child(program)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_the_process_ends_quietly_with_workers_asleep():
    assert outcome("assert work(4) == 4; print('done')") == (0, "done\n", "")


def test_the_process_ends_quietly_with_workers_still_spinning():
    for _ in range(5):
        assert outcome("with pool.lease(2) as lease: run(lease, 'count')") == (0, "", "")


def test_the_process_ends_quietly_while_another_thread_is_in_native_code():
    program = """
        def long():
            with pool.lease(2) as lease:
                run(lease, "wait", 20_000_000_000)
        work()
        threading.Thread(target=long, daemon=True).start()
        time.sleep(0.2)
        print("done")
    """
    start = time.perf_counter()
    assert outcome(program) == (0, "done\n", "")
    assert time.perf_counter() - start < 15


def test_an_exit_handler_may_still_work():
    program = """
        import atexit
        atexit.register(lambda: print("threads", work()))
        from lamina.llvm import pool as again
        print("threads", work())
    """
    assert outcome(program) == (0, "threads 2\nthreads 2\n", "")
    # Registered before lamina is imported, it runs after the workers have gone: alone.
    source = f"""
import atexit
atexit.register(lambda: print("threads", work()))
STEPS = {STEPS!r}
{PRELUDE}
print("threads", work())
"""
    done = subprocess.run(
        [sys.executable, "-c", source], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "threads 2\nthreads 1\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_with_no_workers_and_makes_its_own():
    program = """
        assert work(3) == 3
        child = os.fork()
        if not child:
            assert pool.workers() == 0
            assert work(2) == 2
            assert pool.workers() == 1
            os._exit(7)
        assert work(3) == 3
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.workers())
    """
    assert outcome(program) == (0, "7 2\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_inside_of_a_lease():
    """The child's copy of the lease runs alone; the parent's goes on."""
    program = """
        with pool.lease(2) as lease:
            run(lease, "count")
            child = os.fork()
            run(lease, "rounds", 10)
            os.write(1, b"%d\\n" % lease.threads)
            if child:
                assert os.waitpid(child, 0)[1] == 0
        assert work() == 2
    """
    code, out, err = outcome(program)
    assert (code, sorted(out.split()), err) == (0, ["1", "2"], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_while_other_threads_run_and_compile():
    program = """
        stop = False
        def busy():
            data, args = np.zeros((64, 16), np.int64), np.zeros(4, np.int64)
            while not stop:
                with pool.lease(2) as lease:
                    args[:] = lease.sync, 1000, data.ctypes.data, 0
                    lease.run(loaded.address("rounds"), args.ctypes.data)
        def compiles():
            while not stop:
                engine.load(engine.compile_text("define void @f() { ret void }")).close()
                time.sleep(2e-3)
        threads = [threading.Thread(target=task, daemon=True) for task in (busy, compiles)]
        for thread in threads: thread.start()
        for _ in range(8):
            child = os.fork()
            if not child:
                faulthandler.dump_traceback_later(10, exit=True)
                engine.load(engine.compile_text("define void @g() { ret void }"))
                os._exit(0 if work() == 2 else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        for thread in threads: thread.join()
        print("done")
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "done\n"), err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_is_raised_after_the_call_and_nothing_is_lost():
    program = """
        work()
        print("ready", flush=True)
        try:
            with pool.lease(2) as lease:
                start = time.perf_counter()
                run(lease, "wait", 1_000_000_000, 1)
                print("not reached")
        except KeyboardInterrupt:
            print("interrupted", time.perf_counter() - start >= 1)
        print("threads", work())
    """
    import signal

    process = child(program)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "interrupted True\nthreads 2\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_storm_of_signals_disturbs_nothing():
    program = """
        hits = 0
        def hit(*ignored):
            global hits
            hits += 1
        signal.signal(signal.SIGALRM, hit)
        signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
        for _ in range(300):
            work(3, 20)
            time.sleep(5e-4)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("done", hits > 100)
    """
    assert outcome(program) == (0, "done True\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupts_at_any_moment_never_lose_the_pool():
    """Ctrl-C strikes between any two instructions of a call, in Python and in native code."""
    program = """
        work()
        def strike(*ignored):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, strike)
        rng, struck = np.random.default_rng(0), 0
        for delay in rng.uniform(2e-6, 150e-6, 1500):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                for _ in range(200):
                    with pool.lease(2) as lease:
                        run(lease, "count")
            except KeyboardInterrupt:
                struck += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert work() == 2 and pool.workers() == 1
        print("done", struck > 1000)
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "done True\n"), err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupts_while_workers_start():
    program = """
        def strike(*ignored):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, strike)
        rng, struck = np.random.default_rng(0), 0
        module = pool.native()
        for delay in rng.uniform(20e-6, 800e-6, 150):
            own = pool.Pool(module)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                with pool.Lease(module, own, 3) as lease:
                    run(lease, "rounds", 3)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            data[:] = 0
            with pool.Lease(module, own, 3) as lease:
                got = run(lease, "rounds", 3)
            assert data[:got, 0].tolist() == [3] * got
            assert own.stop()
        print("done", struck > 10)
    """
    code, out, err = outcome(program)
    assert (code, out) == (0, "done True\n"), err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_four_processes_share_two_cores():
    """Threads that wait for one that is not running must leave the cores to those that are."""
    program = """
        os.sched_setaffinity(0, host.affinity()[:2])
        work()
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        with pool.lease(2) as lease:
            run(lease, "phases", 400)
        print(time.perf_counter() - start)
    """

    def slowest(count):
        children = [child(program, stdin=subprocess.PIPE) for _ in range(count)]
        for process in children:
            assert process.stdout.readline() == "ready\n"
        for process in children:
            process.stdin.write("\n")
            process.stdin.flush()
        finished = [process.communicate(timeout=60) for process in children]
        assert not any(process.returncode for process in children), finished
        return max(float(out) for out, _ in finished)

    one = min(slowest(1) for _ in range(3))
    assert min(slowest(4) for _ in range(3)) < 8 * one


def test_closing_code_that_a_worker_is_inside_is_put_off():
    program = """
        def long():
            with loaded.lease(), pool.lease(2) as lease:
                run(lease, "wait", 300_000_000, 1)
        thread = threading.Thread(target=long)
        thread.start()
        time.sleep(0.1)
        loaded.close()
        assert not loaded.closed
        thread.join()
        assert loaded.closed
        print("done")
    """
    assert outcome(program) == (0, "done\n", "")
