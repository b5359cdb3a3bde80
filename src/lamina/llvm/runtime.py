"""Native code that every compiled step stands on: the barrier, the worker loop, parking, a clock.

Calling convention
------------------
A compiled step is a function that all threads of a call enter together (SPMD):

    void step(ptr args, i64 tid, i64 threads)         0 <= tid < threads

`tid` 0 is the caller's own thread. `args` is whatever the caller gave to `pool.Lease.run`; the
step finds in it, where its planner put it, the address of the *sync area* (`Lease.sync`). Denormals
are flushed on every thread when a step is entered, and the caller's mode is restored after it.
The module of a step begins with `barrier_text(target)`, which defines (all `internal`)

    void @lamina_barrier(ptr sync, i64 threads)       wait for all threads of this call
    i64  @lamina_nanoseconds(ptr sync)                the clock of `time.perf_counter_ns`
    i64  @lamina_ticks()                              a raw counter, for profiles

A barrier orders memory: what any thread wrote before it, every thread reads after it. All threads
must pass the same barriers, so a decision to stop early (the clock, an error word) is taken by one
thread, written to memory before a barrier and read by all after it. A caller that finds the workers
taken runs alone, with `threads` 1, and then a barrier does nothing. It costs some tenths of a
microsecond while all threads run; a thread that has waited for `SPIN_MICROSECONDS` sleeps in the
system until the last one comes. Between calls a worker spins for `IDLE_MICROSECONDS`, since it
takes the system tens of microseconds to wake it: calls in a loop find it there. At a barrier it may
be waiting for a thread that has no processor because of it, so it gives up soon.

Sync area
---------
One area for each pool, `area_bytes(workers)` long, on a 128-byte boundary, written by `pool` and
by the code here only. Lines are 128 bytes apart, since processors fetch them in pairs.

    0     i32 arrived      threads that stand at the barrier
    128   i32 generation   barriers passed; the word on which sleepers wait
    256   i32 sleepers     threads asleep at the barrier
    264   ptr sleep        void (ptr sync, ptr word, i32 expected), in the runtime module
    272   ptr wake         void (ptr sync, ptr word), the same
    280   ptr nanoseconds  i64 (ptr sync), the same
    288   i64 spin         ticks to spin before sleeping
    296   i64[5]           the system's functions: wait, wake, clock, lock, unlock
    336   i64 number       `OsTable.number`
    344   i64 idle         ticks that a worker spins between calls
    384   i32 running      workers that have not finished the job
    388   i32 waiting      whether the caller sleeps on `running`
    392   ptr entry, ptr args, i64 threads      the job
    448   i32 busy         whether a call has the workers
    512   a lock, 640 a condition               for the systems that need them
    1024  slots of workers, 128 bytes each: i32 posted, i32 asleep

No object holds an address of the process: step modules reach the system through the area, so
objects may be cached on disk. Only the runtime module depends on the operating system.
"""

from __future__ import annotations

from lamina.llvm.host import OsTable, Target, denormal_text, monotonic_clock, pause_text, ticks_text

SPIN_MICROSECONDS = 20
IDLE_MICROSECONDS = 300

ARRIVED, GENERATION, SLEEPERS = 0, 128, 256
SLEEP, WAKE, NANOSECONDS, SPIN = 264, 272, 280, 288
SYSTEM, NUMBER, IDLE = 296, 336, 344
RUNNING, WAITING, JOB, BUSY = 384, 388, 392, 448
LOCK, CONDITION = 512, 640
SLOTS, SLOT_BYTES = 1024, 128


def area_bytes(workers: int) -> int:
    """How long the sync area of a pool with `workers` threads beside the caller is."""
    return SLOTS + SLOT_BYTES * workers


def _at(name: str, base: str, offset: int) -> str:
    return f"  %{name} = getelementptr i8, ptr {base}, i64 {offset}"


def _spin_text(target: Target) -> str:
    """`i32 @lamina_spin(ptr limit, ptr word, i32 old)`: spin until `word` changes or time is up.

    `limit` is where the number of ticks stands. Returns the value last seen. A counter of ticks
    that jumps (a move to another core) only ends the spinning early.
    """
    pause_declaration, pause = pause_text(target)
    ticks_declaration, ticks = ticks_text(target)
    return f"""
{pause_declaration}
{ticks_declaration}
define internal i64 @lamina_ticks() noinline nounwind {{
  %ticks = {ticks}
  ret i64 %ticks
}}
define internal i32 @lamina_spin(ptr %limit_at, ptr %word, i32 %old) noinline nounwind {{
entry:
  %limit = load i64, ptr %limit_at, align 8
  %begin = {ticks}
  br label %look
look:
  %seen = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %seen, %old
  br i1 %same, label %pause, label %changed
pause:
  {pause}
  %now = {ticks}
  %spent = sub i64 %now, %begin
  %more = icmp ult i64 %spent, %limit
  br i1 %more, label %look, label %changed
changed:
  ret i32 %seen
}}
"""


def barrier_text(target: Target) -> str:
    """LLVM text of `@lamina_barrier` and the clocks, for the beginning of a step's module."""
    return f"""{_spin_text(target)}
define internal void @lamina_barrier(ptr %sync, i64 %threads) noinline nounwind {{
entry:
  %alone = icmp slt i64 %threads, 2
  br i1 %alone, label %done, label %arrive
arrive:
{_at("word", "%sync", GENERATION)}
  %old = load atomic i32, ptr %word monotonic, align 4
  %before = atomicrmw add ptr %sync, i32 1 acq_rel
  %count = trunc i64 %threads to i32
  %others = sub i32 %count, 1
  %last = icmp eq i32 %before, %others
{_at("sleepers_at", "%sync", SLEEPERS)}
  br i1 %last, label %release, label %wait
release:
  store atomic i32 0, ptr %sync monotonic, align 4
  %next = add i32 %old, 1
  %ignored = atomicrmw xchg ptr %word, i32 %next seq_cst
  %sleeping = load atomic i32, ptr %sleepers_at seq_cst, align 4
  %nobody = icmp eq i32 %sleeping, 0
  br i1 %nobody, label %done, label %wake
wake:
{_at("wake_at", "%sync", WAKE)}
  %wake_function = load ptr, ptr %wake_at, align 8
  call void %wake_function(ptr %sync, ptr %word)
  ret void
wait:
{_at("spin_at", "%sync", SPIN)}
  %seen = call i32 @lamina_spin(ptr %spin_at, ptr %word, i32 %old)
  %passed = icmp ne i32 %seen, %old
  br i1 %passed, label %done, label %tired
tired:
{_at("sleep_at", "%sync", SLEEP)}
  %sleep_function = load ptr, ptr %sleep_at, align 8
  %more = atomicrmw add ptr %sleepers_at, i32 1 seq_cst
  br label %check
check:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %over = icmp ne i32 %now, %old
  br i1 %over, label %awake, label %sleep
sleep:
  call void %sleep_function(ptr %sync, ptr %word, i32 %old)
  br label %check
awake:
  %less = atomicrmw sub ptr %sleepers_at, i32 1 seq_cst
  ret void
done:
  ret void
}}
define internal i64 @lamina_nanoseconds(ptr %sync) noinline nounwind {{
{_at("place", "%sync", NANOSECONDS)}
  %function = load ptr, ptr %place, align 8
  %time = call i64 %function(ptr %sync)
  ret i64 %time
}}
"""


def runtime_text(target: Target, table: OsTable) -> str:
    """LLVM text of the runtime module of this process: what the area's pointers lead to.

    `i64 @lamina_run(ptr sync, ptr entry, ptr args, i64 threads)` runs a step on the caller's thread
    and on `threads - 1` workers, or on the caller's alone if another call has the workers. It
    returns when all are done: on how many threads the step ran. Taking the workers and giving them
    back happens in here, where no Ctrl-C can come between.
    `void @lamina_worker(ptr sync, i64 tid)` is the life of a worker: it returns when it is posted
    an entry of null, as `i64 @lamina_stop(ptr sync, i64 threads)` does, which keeps the workers
    from all later calls, and returns 0 if a call has them now. `@lamina_sleep`, `@lamina_wake` and
    `@lamina_time` are for the area.
    `@lamina_measure(ptr sync, i64 nanoseconds)` counts the ticks in that time.
    """
    parts = [_spin_text(target), denormal_text(target), _system_text(table), _WORKER, _RUN]
    return "\n".join([*parts, _STOP, _MEASURE])


def _system(name: str, index: int) -> str:
    place = _at(f"{name}_at", "%sync", SYSTEM + 8 * index)
    return f"{place}\n  %{name} = load ptr, ptr %{name}_at, align 8"


def _system_text(table: OsTable) -> str:
    sleep, wake = _SLEEP_AND_WAKE[table.kind]
    clock = _WINDOWS_CLOCK if table.kind == "windows" else _POSIX_CLOCK
    return f"""
define void @lamina_sleep(ptr %sync, ptr %word, i32 %expected) nounwind {{
{_system("wait", 0)}
{sleep}
  ret void
}}
define void @lamina_wake(ptr %sync, ptr %word) nounwind {{
{_system("wake", 1)}
{wake}
  ret void
}}
define i64 @lamina_time(ptr %sync) nounwind {{
{_system("clock", 2)}
{clock}
  ret i64 %time
}}
"""


_NUMBER = f"""{_at("number_at", "%sync", NUMBER)}
  %number = load i64, ptr %number_at, align 8"""

_MUTEX = f"""{_system("lock", 3)}
{_system("unlock", 4)}
{_at("mutex", "%sync", LOCK)}
{_at("condition", "%sync", CONDITION)}
  call i32 %lock(ptr %mutex)"""

# syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE 128, expected, no timeout), FUTEX_WAKE_PRIVATE 129
_FUTEX_SLEEP = f"""{_NUMBER}
  call i64 (i64, ...) %wait(i64 %number, ptr %word, i32 128, i32 %expected, ptr null)"""
_FUTEX_WAKE = f"""{_NUMBER}
  call i64 (i64, ...) %wake(i64 %number, ptr %word, i32 129, i32 2147483647)"""

# os_sync_wait_on_address(word, expected, size, flags), os_sync_wake_by_address_all(...)
_OS_SYNC_SLEEP = """  %value = zext i32 %expected to i64
  call i32 %wait(ptr %word, i64 %value, i64 4, i32 0)"""
_OS_SYNC_WAKE = "  call i32 %wake(ptr %word, i64 4, i32 0)"

# WaitOnAddress(word, &expected, size, INFINITE), WakeByAddressAll(word)
_WINDOWS_SLEEP = """  %compare = alloca i32, align 4
  store i32 %expected, ptr %compare, align 4
  call i32 %wait(ptr %word, ptr %compare, i64 4, i32 -1)"""
_WINDOWS_WAKE = "  call void %wake(ptr %word)"

# The word is changed outside of the lock, but before `wake` takes it: a sleeper that saw the old
# word under the lock stands in the condition by then. One condition serves all words.
_PTHREAD_SLEEP = f"""{_MUTEX}
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %expected
  br i1 %same, label %asleep, label %over
asleep:
  call i32 %wait(ptr %condition, ptr %mutex)
  br label %over
over:
  call i32 %unlock(ptr %mutex)"""
_PTHREAD_WAKE = f"""{_MUTEX}
  call i32 %unlock(ptr %mutex)
  call i32 %wake(ptr %condition)"""

# kind of OsTable -> (body of sleep, body of wake)
_SLEEP_AND_WAKE = {
    "futex": (_FUTEX_SLEEP, _FUTEX_WAKE),
    "os_sync": (_OS_SYNC_SLEEP, _OS_SYNC_WAKE),
    "windows": (_WINDOWS_SLEEP, _WINDOWS_WAKE),
    "pthread": (_PTHREAD_SLEEP, _PTHREAD_WAKE),
}

_POSIX_CLOCK = f"""  %place = alloca [2 x i64], align 8
  call i32 %clock(i32 {monotonic_clock()}, ptr %place)
  %seconds = load i64, ptr %place, align 8
{_at("rest_at", "%place", 8)}
  %rest = load i64, ptr %rest_at, align 8
  %scaled = mul i64 %seconds, 1000000000
  %time = add i64 %scaled, %rest"""

# Split by the frequency, so that the product does not overflow.
_WINDOWS_CLOCK = f"""{_NUMBER}
  %place = alloca i64, align 8
  call i32 %clock(ptr %place)
  %count = load i64, ptr %place, align 8
  %seconds = udiv i64 %count, %number
  %rest = urem i64 %count, %number
  %scaled = mul i64 %seconds, 1000000000
  %part = mul i64 %rest, 1000000000
  %fraction = udiv i64 %part, %number
  %time = add i64 %scaled, %fraction"""

_JOB = f"""{_at("entry_at", "%sync", JOB)}
{_at("args_at", "%sync", JOB + 8)}
{_at("threads_at", "%sync", JOB + 16)}"""

_WORKER = f"""
define void @lamina_worker(ptr %sync, i64 %tid) nounwind {{
entry:
  %mode = call i64 @lamina_flush()
  %index = sub i64 %tid, 1
  %offset = mul i64 %index, {SLOT_BYTES}
  %start = add i64 %offset, {SLOTS}
  %slot = getelementptr i8, ptr %sync, i64 %start
{_at("asleep_at", "%slot", 4)}
{_at("running", "%sync", RUNNING)}
{_at("waiting_at", "%sync", WAITING)}
{_at("idle_at", "%sync", IDLE)}
{_JOB}
  br label %idle
idle:
  %old = phi i32 [0, %entry], [%posted, %work], [%posted, %notify]
  %first = call i32 @lamina_spin(ptr %idle_at, ptr %slot, i32 %old)
  %ready = icmp ne i32 %first, %old
  br i1 %ready, label %go, label %tired
tired:
  %set = atomicrmw xchg ptr %asleep_at, i32 1 seq_cst
  br label %check
check:
  %second = load atomic i32, ptr %slot seq_cst, align 4
  %over = icmp ne i32 %second, %old
  br i1 %over, label %awake, label %sleep
sleep:
  call void @lamina_sleep(ptr %sync, ptr %slot, i32 %old)
  br label %check
awake:
  %cleared = atomicrmw xchg ptr %asleep_at, i32 0 seq_cst
  br label %go
go:
  %posted = phi i32 [%first, %idle], [%second, %awake]
  %function = load ptr, ptr %entry_at, align 8
  %args = load ptr, ptr %args_at, align 8
  %threads = load i64, ptr %threads_at, align 8
  %stop = icmp eq ptr %function, null
  br i1 %stop, label %end, label %work
work:
  call void %function(ptr %args, i64 %tid, i64 %threads)
  %left = atomicrmw sub ptr %running, i32 1 seq_cst
  %waiting = load atomic i32, ptr %waiting_at seq_cst, align 4
  %last = icmp eq i32 %left, 1
  %asleep = icmp ne i32 %waiting, 0
  %needed = and i1 %last, %asleep
  br i1 %needed, label %notify, label %idle
notify:
  call void @lamina_wake(ptr %sync, ptr %running)
  br label %idle
end:
  call void @lamina_unflush(i64 %mode)
  ret void
}}
"""

_RUN = f"""
define internal void @lamina_post(ptr %sync, i64 %tid) nounwind {{
entry:
  %index = sub i64 %tid, 1
  %offset = mul i64 %index, {SLOT_BYTES}
  %start = add i64 %offset, {SLOTS}
  %slot = getelementptr i8, ptr %sync, i64 %start
{_at("asleep_at", "%slot", 4)}
  %before = atomicrmw add ptr %slot, i32 1 seq_cst
  %asleep = load atomic i32, ptr %asleep_at seq_cst, align 4
  %running = icmp eq i32 %asleep, 0
  br i1 %running, label %done, label %wake
wake:
  call void @lamina_wake(ptr %sync, ptr %slot)
  ret void
done:
  ret void
}}
define i64 @lamina_run(ptr %sync, ptr %entry, ptr %args, i64 %threads) nounwind {{
begin:
{_at("running", "%sync", RUNNING)}
{_at("waiting_at", "%sync", WAITING)}
{_at("busy_at", "%sync", BUSY)}
{_JOB}
  %one = icmp slt i64 %threads, 2
  br i1 %one, label %alone, label %take
take:
  %pair = cmpxchg ptr %busy_at, i32 0, i32 1 acq_rel monotonic
  %taken = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %taken, label %share, label %alone
alone:
  %caller_mode = call i64 @lamina_flush()
  call void %entry(ptr %args, i64 0, i64 1)
  call void @lamina_unflush(i64 %caller_mode)
  ret i64 1
share:
  %others = sub i64 %threads, 1
  %count = trunc i64 %others to i32
  store ptr %entry, ptr %entry_at, align 8
  store ptr %args, ptr %args_at, align 8
  store i64 %threads, ptr %threads_at, align 8
  store atomic i32 0, ptr %waiting_at monotonic, align 4
  store atomic i32 %count, ptr %running monotonic, align 4
  br label %post
post:
  %tid = phi i64 [1, %share], [%next, %post]
  call void @lamina_post(ptr %sync, i64 %tid)
  %next = add i64 %tid, 1
  %more = icmp slt i64 %next, %threads
  br i1 %more, label %post, label %own
own:
  %mode = call i64 @lamina_flush()
  call void %entry(ptr %args, i64 0, i64 %threads)
  call void @lamina_unflush(i64 %mode)
  br label %wait
wait:
  %left = load atomic i32, ptr %running acquire, align 4
  %finished = icmp eq i32 %left, 0
  br i1 %finished, label %done, label %spin
spin:
{_at("spin_at", "%sync", SPIN)}
  %seen = call i32 @lamina_spin(ptr %spin_at, ptr %running, i32 %left)
  %changed = icmp ne i32 %seen, %left
  br i1 %changed, label %wait, label %tired
tired:
  %set = atomicrmw xchg ptr %waiting_at, i32 1 seq_cst
  br label %check
check:
  %now = load atomic i32, ptr %running seq_cst, align 4
  %over = icmp eq i32 %now, 0
  br i1 %over, label %done, label %sleep
sleep:
  call void @lamina_sleep(ptr %sync, ptr %running, i32 %now)
  br label %check
done:
  store atomic i32 0, ptr %busy_at release, align 4
  ret i64 %threads
}}
"""

_STOP = f"""
define i64 @lamina_stop(ptr %sync, i64 %threads) nounwind {{
entry:
{_at("busy_at", "%sync", BUSY)}
{_JOB}
  %pair = cmpxchg ptr %busy_at, i32 0, i32 1 acq_rel monotonic
  %taken = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %taken, label %begin, label %refuse
refuse:
  ret i64 0
begin:
  store ptr null, ptr %entry_at, align 8
  br label %next
next:
  %tid = phi i64 [1, %begin], [%after, %post]
  %more = icmp slt i64 %tid, %threads
  br i1 %more, label %post, label %done
post:
  call void @lamina_post(ptr %sync, i64 %tid)
  %after = add i64 %tid, 1
  br label %next
done:
  ret i64 1
}}
"""

_MEASURE = """
define i64 @lamina_measure(ptr %sync, i64 %nanoseconds) nounwind {
entry:
  %begin = call i64 @lamina_time(ptr %sync)
  %first = call i64 @lamina_ticks()
  br label %again
again:
  %now = call i64 @lamina_time(ptr %sync)
  %last = call i64 @lamina_ticks()
  %spent = sub i64 %now, %begin
  %early = icmp slt i64 %spent, %nanoseconds
  br i1 %early, label %again, label %done
done:
  %ticks = sub i64 %last, %first
  ret i64 %ticks
}
"""
