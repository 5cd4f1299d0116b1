"""
LK: waiting for a heap's lock. Threads take the lock by compare-and-swap and let go by a plain store and a look at
the flag `waiters`. Who does not get it puts the flag up, has all processors pass a barrier, looks at the lock once
more, and sleeps on the flag: not at all if it is down by then. Who lets go and sees it up takes it down and wakes
one; who is woken begins anew, with the flag. Store buffers: of what is stored without a fence (lock=0, waiters=0);
a system call empties its thread's, membarrier everybody's. There are no time slices in the right forms: nobody
depends on them unless a waiter that was just woken is killed (the last case). Checked: one owner; nobody sleeps for
ever.

RG: rings of waiters. A waiting thread publishes {heap, wait number}. Now and then it follows the owner, what that
one waits for, its owner, and so on; where that comes back to it, and it has the highest slot of them all, it reads
all words again, and if they are equal it gives up: -EDEADLK. Each read is a step. Why twice is enough: a number
that is the same means that its thread has waited all the time between, and who waits neither takes nor lets go of
anything; so in the moment between the two passes all of it is true. A waiter may run out of time, let go, and wait
again elsewhere. Checked: nobody gives up without there having been a ring while it looked; one at most gives up;
and from every state one can be reached in which all threads are through.
"""
from explore import drain, seen
from heap_explore import HeapSuite


def waiting(threads=2, rounds=2, barrier=True, sleeps_on='waiters', again='woken', killed=False, gives_up=False,
            slices=False):
    who = range(threads)

    def put(row, i, value):
        return row[:i] + (value,) + row[i + 1:]

    def next_steps(s, add):
        for i in who:
            thread(s, add, i)

    def thread(s, add, i):
        name, key = 'T%d ' % i, 'buf%d' % i
        drain(s, add, name[:2], key)
        pc, buf, lock = s.pc[i], getattr(s, key), seen(s, 'lock', key)

        def go(label, to, *stores, **changes):
            if stores:
                changes[key] = buf + stores
            add(name + label, pc=put(changes.pop('pc', s.pc), i, to), **changes)
        if pc == 'idle' and s.rounds[i] < rounds:
            if lock:
                go('finds it taken', 'flag')
            elif not buf:
                go('takes it', 'owns', lock=i + 1)
        if pc == 'flag' and not buf:
            go('puts the flag up', 'barrier', waiters=1)
        if pc == 'barrier' and (not barrier or not any(getattr(s, 'buf%d' % k) for k in who)):
            go('membarrier', 'look')
        if pc == 'look':
            if not lock:
                go('takes it after all', 'got' if again == 'got, too' else 'owns', lock=i + 1)
            else:
                go('sees it taken', ('sleep', lock))
                if gives_up and i == 1:
                    go('gives up', 'end')
        if pc[0] == 'sleep':
            if s.waiters == 1 if sleeps_on == 'waiters' else s.lock == pc[1]:
                go('sleeps', 'asleep')
            else:
                go('does not sleep', 'flag')
        if pc == 'asleep' and slices:
            go('ends a slice', 'flag')
        if pc == 'woken':
            go('is woken', 'look' if again == 'never' else 'flag')
            if killed and i == 1:
                go('killed', 'end')
        if pc == 'got':
            go('puts the flag up for others', 'owns', waiters=1)
        if pc == 'owns':
            go('lets go', 'unlocked', ('lock', 0))
        if pc == 'unlocked':
            if seen(s, 'waiters', key):
                go('takes the flag down', 'wakes', ('waiters', 0))
            else:
                go('sees nobody wait', 'idle', rounds=put(s.rounds, i, s.rounds[i] + 1))
        if pc == 'wakes' and not buf:
            done = dict(rounds=put(s.rounds, i, s.rounds[i] + 1))
            sleepers = [k for k in who if s.pc[k] == 'asleep']
            for k in sleepers:
                go('wakes T%d' % k, 'idle', pc=put(s.pc, k, 'woken'), **done)
            if not sleepers:
                go('wakes nobody', 'idle', **done)

    def bad(s, final):
        if sum(pc in ('got', 'owns') for pc in s.pc) > 1:
            return 'two owners'
        if final and 'asleep' in s.pc:
            return 'sleeps for ever'

    def through(s):
        return all(pc in ('idle', 'end') for pc in s.pc) and all(
            r == rounds or pc == 'end' for r, pc in zip(s.rounds, s.pc))
    init = dict(lock=0, waiters=0, pc=('idle',) * threads, rounds=(0,) * threads)
    init.update({'buf%d' % i: () for i in who})
    return (init, next_steps, bad), through


def rings(programs, looks, passes=2, numbers=True, who_gives_up='the highest'):
    """A program: ('lock', h), ('try', h): may run out of time; else it is let go of again; ('unlock', h)."""
    threads = range(len(programs))

    def put(row, i, value):
        return row[:i] + (value,) + row[i + 1:]

    def ring(owner, wait, i):                   # the true one, from what thread i waits for
        h, met = wait[i][0], 0
        while h is not None and met <= len(programs):
            o = owner[h]
            if o is None:
                return False
            if o == i:
                return True
            h, met = wait[o][0], met + 1
        return False

    def next_steps(s, add):
        for i in threads:
            thread(s, add, i)

    def thread(s, add, i):
        name = 'T%d ' % i
        at = s.at[i]
        waits = s.wait[i][0] is not None

        def go(label, at, **changes):
            owner, wait = changes.get('owner', s.owner), changes.get('wait', s.wait)
            if 'look' not in changes:
                changes['look'] = s.look
            # ghost: has there been a ring while somebody looks?
            changes['real'] = tuple(int(bool(changes['look'][k]) and (s.real[k] or ring(owner, wait, k)))
                                    for k in threads)
            add(name + label, at=put(s.at, i, at), **changes)
        if at == len(programs[i]):
            return
        if at < 0:
            mine = [h for h, o in enumerate(s.owner) if o == i]
            if mine:
                go('lets go of %d' % mine[0], at, owner=put(s.owner, mine[0], None))
            else:
                go('is through', len(programs[i]))
            return
        op, h = programs[i][at]
        if op == 'unlock':
            go('unlocks %d' % h, at + 1, owner=put(s.owner, h, None))
            return
        number = s.wait[i][1]
        if op == 'free':
            if s.owner[h] == i:
                go('unlocks %d' % h, at + 1, owner=put(s.owner, h, None))
            else:
                go('has no %d' % h, at + 1)
            return
        ends = dict(wait=put(s.wait, i, (None, number)), look=put(s.look, i, ()))
        if s.owner[h] is None and not s.look[i]:
            go('takes %d' % h, at + 1, owner=put(s.owner, h, i), **ends)
            return
        if not waits:
            go('waits for %d' % h, at, wait=put(s.wait, i, (h, number + 1 if numbers else 0)))
            return
        if op == 'try' and not s.look[i]:
            go('runs out of time', at + 1, **ends)
        if i not in looks:
            return
        # look: (stage, ring so far: (heap, owner, its wait)..., ) stage 1: collecting; 2: comparing, from the last
        look = s.look[i]
        if not look:
            go('looks', at, look=put(s.look, i, (1, (h, None, None))))
            return
        stage, steps = look[0], look[1:]

        def on(label, *look):
            go(label, at, look=put(s.look, i, look))
        if stage == 1:
            heap, owner, _ = steps[-1]
            if owner is None:
                o = s.owner[heap]
                if o is None or len(steps) > len(programs):
                    on('finds no ring')
                elif o == i:
                    highest = i == max([i] + [step[1] for step in steps[:-1]])
                    if who_gives_up == 'the highest' and not highest:
                        on('is not the highest')
                    else:
                        on('finds a ring', 2, *(steps[:-1] + ((heap, o, None),)))
                else:
                    on('reads the owner', 1, *(steps[:-1] + ((heap, o, None),)))
            else:
                w = s.wait[owner]
                if w[0] is None:
                    on('finds no ring')
                else:
                    on('reads what it waits for', 1, *(steps[:-1] + ((heap, owner, w), (w[0], None, None))))
        elif passes == 1 or not steps:
            go('-EDEADLK' if s.real[i] else '-EDEADLK without a ring', -1, gave=s.gave + 1,
               fault=s.fault or not s.real[i], **ends)
        elif len(steps[-1]) == 3:               # the owner, then what it waits for
            heap, owner, w = steps[-1]
            if s.owner[heap] != owner:
                on('sees another owner')
            else:
                on('sees the same owner', 2, *(steps[:-1] + (((owner, w),) if w else ())))
        else:
            owner, w = steps[-1]
            if s.wait[owner] != w:
                on('sees another wait')
            else:
                on('sees the same wait', 2, *steps[:-1])

    def bad(s, final):
        if s.fault:
            return '-EDEADLK without a ring'
        if s.gave > 1:
            return 'two give up'

    def through(s):
        return all(at == len(p) for at, p in zip(s.at, programs))
    heaps = 1 + max(h for p in programs for _, h in p)
    nothing = ((None, 0),) * len(programs)
    return (dict(owner=(None,) * heaps, wait=nothing, at=(0,) * len(programs), look=((),) * len(programs),
                 real=(0,) * len(programs), gave=0, fault=False), next_steps, bad), through


def both(*heaps):
    """Locks these, one inside the other."""
    return tuple(('lock', h) for h in heaps) + tuple(('unlock', h) for h in reversed(heaps))


# T0 has heap 0, then tries for heap 1 with nothing in its hands, twice; T1 has heap 1 and waits for heap 0. And the
# same with a ring in between.
TRIES = (('lock', 0), ('unlock', 0), ('try', 1), ('free', 1))
NO_RING = (TRIES + TRIES, both(1, 0))
RING = (TRIES + (('lock', 0), ('try', 1), ('free', 1), ('unlock', 0)), both(1, 0))


def main():
    suite = HeapSuite('heap, lock')

    def live(title, case, reaches=()):
        model, goal = case
        suite.live(title, model, goal, reaches)

    def mutant(title, case, fault):
        suite.mutant(title, case[0], fault)
    forever = 'sleeps for ever'
    live('LK two threads, no slices', waiting(rounds=3), ('T1 wakes T0', 'T0 wakes nobody', 'T1 does not sleep'))
    live('LK three threads, no slices, one gives up', waiting(threads=3, rounds=1, gives_up=True),
         ('T1 gives up', 'T2 wakes T0', 'T0 sees nobody wait'))
    if suite.deep:
        live('LK three threads, two rounds', waiting(threads=3, rounds=2), ())
    live('LK a woken one is killed, slices', waiting(threads=3, rounds=1, killed=True, slices=True), ('T1 killed',))
    mutant('LK a woken one is killed, no slices', waiting(threads=3, rounds=1, killed=True), forever)
    mutant('LK no membarrier', waiting(barrier=False), forever)
    mutant('LK sleeping on the lock, not on the flag', waiting(threads=3, rounds=2, sleeps_on='lock'), forever)
    mutant('LK a woken one does not put the flag up again', waiting(threads=3, rounds=1, again='never'), forever)
    live('RG two', rings((both(0, 1), both(1, 0)), (0, 1)), ('T1 -EDEADLK', 'T0 is not the highest'))
    live('RG three', rings((both(0, 1), both(1, 2), both(2, 0)), (0, 1, 2)),
         ('T2 -EDEADLK', 'T0 is not the highest', 'T1 finds no ring'))
    live('RG one waits, runs out of time, and waits again', rings(NO_RING, (1,)),
         ('T0 runs out of time', 'T1 finds a ring', 'T1 sees another wait', 'T1 sees another owner'))
    live('RG the same, and there may be a ring', rings(RING, (1,)), ('T1 -EDEADLK', 'T1 sees another wait'))
    without = '-EDEADLK without a ring'
    mutant('RG read once', rings(NO_RING, (1,), passes=1), without)
    mutant('RG without the wait number', rings(NO_RING, (1,), numbers=False), without)
    mutant('RG everybody who finds a ring gives up', rings((both(0, 1), both(1, 0)), (0, 1), who_gives_up='all'),
           'two give up')
    suite.finish()


if __name__ == '__main__':
    main()
