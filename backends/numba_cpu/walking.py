"""Code that walks tables of native calls, alone or as one of a team of threads.

A team shares a board of 64-bit numbers. The leader writes a job and raises the generation; workers
watch it for a while, then sleep. Every thread walks the same table, takes its share of each step
and waits for the others behind it.
"""

from __future__ import annotations

from string import Template

_TABLE, _STEPS, _ARRIVED, _DONE, _SLEEPERS, _ALARMS = 1, 2, 3, 4, 5, 6
MUTEX, CONDITION, BOARD = 8, 24, 40
"""Places on the board, whose first number is the generation, and its size. The mutex and the
condition that sleepers wait for are POSIX's; each has room of 128 bytes."""

_AWAIT = """
declare i32 @sched_yield()

define internal void @await(ptr %count, i64 %wanted) nounwind {
entry:
  br label %wait
wait:
  %spins = phi i64 [ 0, %entry ], [ %more, %wait_on ]
  %now = load atomic i64, ptr %count acquire, align 8
  %there = icmp uge i64 %now, %wanted
  br i1 %there, label %exit, label %patient
patient:
  %long = icmp ugt i64 %spins, 300000
  br i1 %long, label %give_way, label %wait_on
give_way:
  %ignored = call i32 @sched_yield()
  br label %wait_on
wait_on:
  %more = add i64 %spins, 1
  br label %wait
exit:
  ret void
}
"""

_WALK = """
define $linkage void @walk(
  ptr %table, i64 %steps, i64 %thread, i64 %threads, ptr %arrived
) nounwind {
entry:
  %next_thread = add i64 %thread, 1
  %some = icmp ne i64 %steps, 0
  br i1 %some, label %step, label %exit
step:
  %i = phi i64 [ 0, %entry ], [ %following, %done ]
  %base = mul i64 %i, 3
  %p0 = getelementptr i64, ptr %table, i64 %base
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %kernel = load ptr, ptr %p0
  %arguments = load ptr, ptr %p1
  %units = load i64, ptr %p2
  %low = mul i64 %units, %thread
  %begin = udiv i64 %low, %threads
  %high = mul i64 %units, %next_thread
  %end = udiv i64 %high, %threads
  %any = icmp ult i64 %begin, %end
  br i1 %any, label %work, label %arrive
work:
  call void %kernel(ptr %arguments, i64 %begin, i64 %end)
  br label %arrive
arrive:
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %done, label %meet
meet:
  %old = atomicrmw add ptr %arrived, i64 1 acq_rel
  %turn = add i64 %i, 1
  %wanted = mul i64 %turn, %threads
  call void @await(ptr %arrived, i64 %wanted)
  br label %done
done:
  %following = add i64 %i, 1
  %again = icmp ult i64 %following, %steps
  br i1 %again, label %step, label %exit
exit:
  ret void
}
"""

_LEAD = """
define void @lead(
  ptr %board, i64 %threads, ptr %table, i64 %steps, ptr %arrived
) nounwind {
entry:
  %table_at = getelementptr i64, ptr %board, i64 $table
  %steps_at = getelementptr i64, ptr %board, i64 $steps
  %arrived_at = getelementptr i64, ptr %board, i64 $arrived
  %done_at = getelementptr i64, ptr %board, i64 $done
  store ptr %table, ptr %table_at
  store i64 %steps, ptr %steps_at
  store ptr %arrived, ptr %arrived_at
  store i64 0, ptr %arrived
  store i64 0, ptr %done_at
  %generation = atomicrmw add ptr %board, i64 1 seq_cst
  call void @wake(ptr %board)
  call void @job(ptr %board, i64 0, i64 %threads)
  %others = sub i64 %threads, 1
  call void @await(ptr %done_at, i64 %others)
  ret void
}
"""

_SERVE = """
define void @serve(ptr %board, i64 %thread, i64 %threads, i64 %patience) nounwind {
entry:
  %done_at = getelementptr i64, ptr %board, i64 $done
  %sleepers_at = getelementptr i64, ptr %board, i64 $sleepers
  %mutex = getelementptr i64, ptr %board, i64 $mutex
  %condition = getelementptr i64, ptr %board, i64 $condition
  %alarms_at = getelementptr i64, ptr %board, i64 $alarms
  br label %watch
watch:
  %last = phi i64 [ 0, %entry ], [ %last, %patient ], [ %last, %awake ], [ %now, %work ]
  %spins = phi i64 [ 0, %entry ], [ %more, %patient ], [ 0, %awake ], [ 0, %work ]
  %now = load atomic i64, ptr %board acquire, align 8
  %new = icmp ne i64 %now, %last
  br i1 %new, label %work, label %patient
patient:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, %patience
  br i1 %long, label %tired, label %watch
tired:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %before = atomicrmw add ptr %sleepers_at, i64 1 seq_cst
  %heard = load atomic i64, ptr %alarms_at seq_cst, align 8
  br label %look
look:
  %generation = load atomic i64, ptr %board seq_cst, align 8
  %published = icmp ne i64 %generation, %last
  %alarms = load atomic i64, ptr %alarms_at seq_cst, align 8
  %alarmed = icmp ne i64 %alarms, %heard
  %called = or i1 %published, %alarmed
  br i1 %called, label %awake, label %sleep
sleep:
  %waited = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %look
awake:
  %after = atomicrmw sub ptr %sleepers_at, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %watch
work:
  call void @job(ptr %board, i64 %thread, i64 %threads)
  %count = atomicrmw add ptr %done_at, i64 1 acq_rel
  br label %watch
}
"""

_ROUSE = """
define void @rouse(ptr %board) nounwind {
  %alarms_at = getelementptr i64, ptr %board, i64 $alarms
  %alarm = atomicrmw add ptr %alarms_at, i64 1 seq_cst
  call void @wake(ptr %board)
  ret void
}
"""

_WAKE = """
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal void @wake(ptr %board) nounwind {
entry:
  %sleepers_at = getelementptr i64, ptr %board, i64 $sleepers
  %sleepers = load atomic i64, ptr %sleepers_at seq_cst, align 8
  %some = icmp ne i64 %sleepers, 0
  br i1 %some, label %wake, label %exit
wake:
  %mutex = getelementptr i64, ptr %board, i64 $mutex
  %condition = getelementptr i64, ptr %board, i64 $condition
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  %woken = call i32 @pthread_cond_broadcast(ptr %condition)
  br label %exit
exit:
  ret void
}
"""

_JOB = """
define internal void @job(ptr %board, i64 %thread, i64 %threads) nounwind {
  %table_at = getelementptr i64, ptr %board, i64 $table
  %steps_at = getelementptr i64, ptr %board, i64 $steps
  %arrived_at = getelementptr i64, ptr %board, i64 $arrived
  %table = load ptr, ptr %table_at
  %steps = load i64, ptr %steps_at
  %arrived = load ptr, ptr %arrived_at
  call void @walk(ptr %table, i64 %steps, i64 %thread, i64 %threads, ptr %arrived)
  ret void
}
"""


def walk_code() -> str:
    """Module with ``walk(table, steps, thread, threads, arrived)``."""
    return _AWAIT + Template(_WALK).substitute(linkage="")


def lead_code() -> str:
    """Module with ``lead(board, threads, table, steps, arrived)``: has the team walk a table.

    Publishes the job, wakes who sleeps, does the leader's share and waits for all others'.
    """
    return _with_walk(_LEAD)


def rouse_code() -> str:
    """Module with ``rouse(board)``: wakes who sleeps, who then watch for a job."""
    return _with_places(_WAKE + _ROUSE)


def serve_code() -> str:
    """Module with ``serve(board, thread, threads, patience)``, which never returns.

    Does jobs; after ``patience`` glances at the board without a new one it sleeps until the leader
    wakes it.
    """
    return _with_walk(_SERVE)


def _with_walk(code: str) -> str:
    return _with_places(_AWAIT + _WALK + _JOB + _WAKE + code)


def _with_places(code: str) -> str:
    return Template(code).substitute(
        linkage="internal",
        table=_TABLE,
        steps=_STEPS,
        arrived=_ARRIVED,
        done=_DONE,
        sleepers=_SLEEPERS,
        alarms=_ALARMS,
        mutex=MUTEX,
        condition=CONDITION,
    )
