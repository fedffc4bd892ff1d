"""Code that walks tables of native calls, alone or as one of a team of threads.

A team shares a board of 64-bit numbers. The leader writes a job and raises the generation; workers
watch it for a while, then sleep. Every thread walks the same table, takes its share of each step
and waits for the others behind it.
"""

from __future__ import annotations

from string import Template

TABLE, STEPS, ARRIVED, DONE, ASLEEP = 1, 2, 3, 4, 8
"""Places on the board, whose first number is the generation. From ``ASLEEP`` on there is a flag for
each thread, and behind them a flag for each that the leader must wake."""

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

_PUBLISH = """
define void @publish(ptr %board, i64 %threads) nounwind {
entry:
  %generation = atomicrmw add ptr %board, i64 1 seq_cst
  br label %next
next:
  %i = phi i64 [ 1, %entry ], [ %following, %next ]
  %place = add i64 %i, $asleep
  %flag = getelementptr i64, ptr %board, i64 %place
  %asleep = atomicrmw xchg ptr %flag, i64 0 seq_cst
  %behind = add i64 %place, %threads
  %woken = getelementptr i64, ptr %board, i64 %behind
  store i64 %asleep, ptr %woken
  %following = add i64 %i, 1
  %more = icmp ult i64 %following, %threads
  br i1 %more, label %next, label %exit
exit:
  ret void
}
"""

_LEAD = """
define void @lead(ptr %board, i64 %threads) nounwind {
entry:
  call void @job(ptr %board, i64 0, i64 %threads)
  %others = sub i64 %threads, 1
  %place = getelementptr i64, ptr %board, i64 $done
  call void @await(ptr %place, i64 %others)
  ret void
}
"""

_SERVE = """
define i64 @serve(ptr %board, i64 %thread, i64 %threads, i64 %seen, i64 %patience) nounwind {
entry:
  %place = add i64 %thread, $asleep
  %flag = getelementptr i64, ptr %board, i64 %place
  %finished = getelementptr i64, ptr %board, i64 $done
  br label %watch
watch:
  %last = phi i64 [ %seen, %entry ], [ %last, %patient ], [ %job, %work ]
  %spins = phi i64 [ 0, %entry ], [ %more, %patient ], [ 0, %work ]
  %now = load atomic i64, ptr %board seq_cst, align 8
  %new = icmp ne i64 %now, %last
  br i1 %new, label %work, label %patient
patient:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, %patience
  br i1 %long, label %tired, label %watch
tired:
  store atomic i64 1, ptr %flag seq_cst, align 8
  %again = load atomic i64, ptr %board seq_cst, align 8
  %missed = icmp ne i64 %again, %last
  br i1 %missed, label %awake, label %sleep
awake:
  store atomic i64 0, ptr %flag seq_cst, align 8
  br label %work
work:
  %job = phi i64 [ %now, %watch ], [ %again, %awake ]
  call void @job(ptr %board, i64 %thread, i64 %threads)
  %count = atomicrmw add ptr %finished, i64 1 acq_rel
  br label %watch
sleep:
  ret i64 %last
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


def publish_code() -> str:
    """Module with ``publish(board, threads)``: raises the generation, notes who was asleep."""
    return _PUBLISH.replace("$asleep", str(ASLEEP))


def lead_code() -> str:
    """Module with ``lead(board, threads)``: the leader's share, and waiting for all others'."""
    return _with_walk(_LEAD)


def serve_code() -> str:
    """Module with ``serve(board, thread, threads, seen, patience)``: does jobs until none comes.

    After ``patience`` glances at the board without a new job it returns the last generation that it
    has seen; the worker then sleeps until it is woken.
    """
    return _with_walk(_SERVE)


def _with_walk(code: str) -> str:
    places = {"table": TABLE, "steps": STEPS, "arrived": ARRIVED, "done": DONE, "asleep": ASLEEP}
    whole = Template(_AWAIT + _WALK + _JOB + code)
    return whole.substitute(linkage="internal", **{k: str(v) for k, v in places.items()})
