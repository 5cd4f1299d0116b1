"""
DI: a container's directory. Makers look for a name, claim an entry, write it down, and swap the directory, which then
names entry and generation; whoever comes next gives that entry its state. Another process unlinks. Makers may be killed
anywhere; a dead one's claim is taken over by who needs an entry. Checked: a name is of one thing at a time; nothing
comes to be there that its maker has not written down; from every state one can be reached in which each maker that
lives has the name's thing, and the entries of the dead can be had.

MU: mutexes. Locking is a swap, unlocking a store that may stay in the store buffer for a while, and a look at the flag;
waiting as in heap_lock_model.py (LK), with slices, and with a count of those who wait, for who leaves. A holder may be killed anywhere; a waiter puts his name, with the bit
'inconsistent', in the place of a dead one's. Checked: one living owner; who gets it after a death is told, unless
somebody who was told has called it consistent; it breaks only where that was not done; nobody waits for ever.

CO: conditions. Consumers wait for tokens under a robust mutex, a producer adds one and signals. Consumers may be killed
anywhere: before they sleep, asleep, woken, with the mutex. Checked: with tokens left and the producer through, no living
consumer sleeps for ever.

SU: semaphores with undo. Takers swap a unit from free to their name, give it by swapping it back, may be killed; others
look for units of the dead and free them; a dead process's record gets a new process of another generation. Checked: a
unit has one living holder; it is free, or its holder lives, or somebody who misses it can free it.
"""
from explore import drain, seen
from heap_explore import HeapSuite


def put(row, i, value):
    return row[:i] + (value,) + row[i + 1:]


FREE, MAKING, LIVE = 'free', 'making', 'live'


def directory(makers=2, entries=2, kills=1, unlinks=1, settles=True, generations=True, order='directory first',
              takes='of the dead', rounds=1):
    """An entry: (generation, kind, maker, what is written: generation or None)."""
    who = range(makers)

    def next_steps(s, add):
        for i in who:
            if not s.dead[i]:
                maker(s, add, i)
        if s.unlinked < unlinks:
            for e, (g, kind, _, text) in enumerate(s.entry):
                if kind == LIVE:
                    add('U unlinks %d' % e, entry=put(s.entry, e, (g + 1, FREE, None, text)), unlinked=s.unlinked + 1)

    def maker(s, add, i):
        name, pc = 'M%d ' % i, s.pc[i]
        local, mine = s.local[i], s.mine[i]

        def go(label, to, **changes):
            changes['local'] = put(s.local, i, changes.pop('mylocal', local))
            changes['mine'] = put(s.mine, i, changes.pop('mymine', mine))
            add(name + label, pc=put(s.pc, i, to), **changes)
        if pc != 'has' and s.kills < kills:
            add(name + 'killed', dead=put(s.dead, i, 1), kills=s.kills + 1)
        if pc == 'begin':
            go('reads the directory', 'settle' if settles else ('find', 0), mylocal=s.directory)
        if pc == 'settle':
            _, e, g = local
            if e is not None and s.entry[e][1] == MAKING and (s.entry[e][0] == g or not generations):
                go('sees it unsettled', ('help', s.entry[e]))
            else:
                go('sees it settled', 'again' if order == 'find first' and s.miss[i] else ('find', 0))
        if pc == 'again':
            go('has looked before', 'claim' if mine is None else 'commit')
        if pc[0] == 'help':
            # reading what is written, and the directory once more, to be sure that it is this one's: then the swap
            if s.directory != local:
                go('sees the directory changed', 'begin')
            else:
                go('has looked again', ('swap', pc[1]))
        if pc[0] == 'swap':
            _, e, g = local
            if s.entry[e] == pc[1]:
                go('gives it its state', 'settle', entry=put(s.entry, e, pc[1][:1] + (LIVE,) + pc[1][2:]))
            else:
                go('sees that it has it', 'settle')
        if pc[0] == 'find':
            e = pc[1]
            if e == entries:
                if order == 'find first' and not s.miss[i]:
                    go('reads the directory late', 'settle', mylocal=s.directory, miss=put(s.miss, i, 1))
                else:
                    go('finds none', 'claim' if mine is None else 'commit')
            elif s.entry[e][1] == LIVE:
                go('finds it', 'found')
            else:
                go('passes %d' % e, ('find', e + 1))
        if pc == 'found':
            if mine is not None:
                g, kind, maker_, text = s.entry[mine[0]]
                if (g, kind, maker_) == (mine[1], MAKING, i):
                    go('gives its claim back', 'has', mymine=None, entry=put(s.entry, mine[0], (g + 1, FREE, None, text)))
                else:
                    go('has lost its claim', 'has', mymine=None)
            else:
                go('has the thing', 'has')
        if pc == 'claim':
            for e, (g, kind, maker_, text) in enumerate(s.entry):
                old = kind == MAKING and maker_ != i and (s.dead[maker_] or takes == 'of anybody')
                if kind == FREE:
                    go('claims %d' % e, 'fill', mymine=(e, g), entry=put(s.entry, e, (g, MAKING, i, text)))
                elif old and (s.directory[1:] != (e, g) or takes == 'unsettled'):
                    go('takes %d over' % e, 'fill', mymine=(e, g + 1), entry=put(s.entry, e, (g + 1, MAKING, i, text)))
                elif old and settles:
                    go('settles before taking over', 'begin')
        if pc == 'fill':
            e, g = mine
            if s.entry[e][:3] == (g, MAKING, i):
                go('writes it down', 'commit', entry=put(s.entry, e, (g, MAKING, i, g)))
            else:
                go('writes into another\'s', 'commit', entry=put(s.entry, e, s.entry[e][:3] + (-1,)))
        if pc == 'commit':
            if s.directory == local:
                go('makes it', 'made', directory=(local[0] + 1,) + mine)
            else:
                go('was late', 'begin')
        if pc == 'made':
            e, g = mine
            if s.entry[e] == (g, MAKING, i, g):
                go('settles its own', 'has', mymine=None, entry=put(s.entry, e, (g, LIVE, i, g)))
            else:
                go('sees its own settled', 'has', mymine=None)

    def there(s):
        """What has the name: live, or named by the directory and not yet live."""
        return [e for e, (g, kind, _, _) in enumerate(s.entry)
                if kind == LIVE or (kind == MAKING and s.directory[1:] == (e, g))]

    def bad(s, final):
        if len(there(s)) > 1:
            return 'two of a name'
        for e in there(s):
            g, kind, _, text = s.entry[e]
            if text != g:
                return 'there is what nobody has written'

    def through(s):
        return all(s.dead[i] or s.pc[i] == 'has' for i in who) and all(
            kind != MAKING or s.dead[maker_] for _, kind, maker_, _ in s.entry)
    return (dict(entry=((0, FREE, None, None),) * entries, directory=(0, None, None), pc=('begin',) * makers,
                 local=(None,) * makers, mine=(None,) * makers, miss=(0,) * makers, dead=(0,) * makers, kills=0,
                 unlinked=0), next_steps, bad), through


def mutex(threads=3, rounds=1, kills=1, told='by the bit', takes='the dead', slices=True, bit='stays', lazy=False,
          leaves='for others', barrier=True):
    """state: 0, (holder, inconsistent), 'broken'. lazy: a thread that is told may unlock at once."""
    who = range(threads)

    def next_steps(s, add):
        for i in who:
            if s.pc[i] != 'dead':
                thread(s, add, i)
            drain(s, add, 'T%d' % i, 'buf%d' % i)       # what the dead have stored comes out, too

    def thread(s, add, i):
        name, key, pc = 'T%d ' % i, 'buf%d' % i, s.pc[i]
        buf, state = getattr(s, key), seen(s, 'state', key)

        def go(label, to, *stores, **changes):
            if stores:
                changes[key] = buf + stores
            add(name + label, pc=put(changes.pop('pc', s.pc), i, to), **changes)
        if pc != 'idle' and pc != 'end' and s.kills < kills:
            held = state != 0 and state != 'broken' and state[0] == i
            go('killed', 'dead', kills=s.kills + 1, dirty=s.dirty or held)

        def tries(busy, waited=True):
            def has(label, to, **changes):
                go(label, ('out', to) if waited else to, **changes)
            if state == 'broken':
                has('finds it broken', 'end')
            elif state == 0:
                if not buf:
                    has('takes it', 'owns', state=(i, 0), untold=s.untold or s.dirty)
            elif s.pc[state[0]] == 'dead' or (takes == 'anybody' and state[0] != i):
                if not buf and not (state[0] != i and getattr(s, 'buf%d' % state[0])):
                    mark = 1 if told == 'by the bit' else 0
                    if bit == 'of the taker' and state[1]:
                        mark = 0
                    has('takes it from the dead', 'told' if mark else 'owns', state=(i, mark),
                        untold=s.untold or (s.dirty and not mark))
            else:
                go('sees it taken', busy)
        if pc == 'idle' and s.rounds[i] < rounds:
            tries('in', waited=False)
        if pc == 'in' and not buf:
            go('counts itself', 'flag', waiters=s.waiters + 1)
        if pc == 'flag' and not buf:
            go('puts the flag up', 'barrier', flag=1)
        if pc == 'barrier' and (not barrier or not any(getattr(s, 'buf%d' % k) for k in who)):
            go('membarrier', 'look')
        if pc == 'look':
            tries('sleep')
        if pc == 'sleep':
            go(*(('sleeps', 'asleep') if s.flag == 1 else ('does not sleep', 'woken')))
        if pc == 'asleep' and slices:
            go('ends a slice', 'woken')
        if pc == 'woken':
            tries('flag')
        if pc[0] == 'out' and not buf:
            others = s.waiters > 1 and leaves == 'for others'
            go('leaves others' if others else 'leaves nobody', ('up', pc[1]) if others else pc[1], waiters=s.waiters - 1)
        if pc[0] == 'up':
            go('puts the flag up for others', pc[1], flag=1)
        if pc == 'told':
            go('calls it consistent', 'owns', ('state', (i, 0)), dirty=False)
            if lazy:
                go('does not call it consistent', 'owns')
        if pc == 'owns':
            broken = state != 'broken' and state != 0 and state[1]
            go('breaks it' if broken else 'lets go', 'unlocked', ('state', 'broken' if broken else 0))
        if pc == 'unlocked':
            if seen(s, 'flag', key):
                go('takes the flag down', 'wakes', ('flag', 0))
            else:
                go('sees nobody wait', 'idle', rounds=put(s.rounds, i, s.rounds[i] + 1))
        if pc == 'wakes' and not buf:
            done = dict(rounds=put(s.rounds, i, s.rounds[i] + 1))
            sleepers = [k for k in who if s.pc[k] == 'asleep']
            if s.state == 'broken':
                row = s.pc
                for k in sleepers:
                    row = put(row, k, 'woken')
                go('wakes all', 'idle', pc=row, **done)
            else:
                for k in sleepers:
                    go('wakes T%d' % k, 'idle', pc=put(s.pc, k, 'woken'), **done)
                if not sleepers:
                    go('wakes nobody', 'idle', **done)

    def bad(s, final):
        if sum((pc[1] if pc[0] in ('out', 'up') else pc) in ('told', 'owns') for pc in s.pc) > 1:
            return 'two owners'
        if s.untold:
            return 'nobody told'
        if s.state == 'broken' and not lazy:
            return 'broken for nothing'
        if final and 'asleep' in s.pc:
            return 'sleeps for ever'

    def through(s):
        return all(pc in ('idle', 'end', 'dead') for pc in s.pc) and all(
            r == rounds or pc != 'idle' for r, pc in zip(s.rounds, s.pc))
    init = dict(state=0, flag=0, waiters=0, pc=('idle',) * threads, rounds=(0,) * threads, kills=0, dirty=False, untold=False)
    init.update({'buf%d' % i: () for i in who})
    return (init, next_steps, bad), through


def condition(consumers=2, tokens=2, kills=1, handed=False, reads='with the mutex', counted='before', slices=True,
              looks='again'):
    """The mutex: 0 or who has it; it goes over from the dead by itself. P is the producer. handed: a signal is a number that
    a waiter takes one of."""
    who = range(consumers)

    def next_steps(s, add):
        free = s.mutex == 0 or (s.mutex != 'P' and s.pc[s.mutex - 1] == 'dead')

        def p(label, to, **changes):
            add('P ' + label, p=to, **changes)
        if s.p == 'idle' and s.made < tokens and free:
            p('locks', 'adds', mutex='P')
        if s.p == 'adds':
            p('adds a token', 'unlocks', there=s.there + 1, made=s.made + 1)
        if s.p == 'unlocks':
            p('unlocks', 'counts' if counted == 'before' else 'signals', mutex=0)
        if s.p == 'counts':
            if handed:
                p('hands a signal over', 'signals', seq=min(s.seq + 1, s.count) if s.count else s.seq)
            else:
                p('counts up', 'signals', seq=s.seq + 1)
        if s.p == 'signals':
            then = 'late' if counted == 'after' else 'idle'
            asleep = [i for i in who if s.pc[i] == 'asleep']
            for i in asleep if s.count else ():
                p('wakes C%d' % i, then, pc=put(s.pc, i, 'woken'))
            if not asleep or not s.count:
                p('wakes nobody', then)
        if s.p == 'late':
            p('counts up late', 'idle', seq=s.seq + 1)
        for i in who:
            consumer(s, add, i, free)

    def consumer(s, add, i, free):
        name, pc = 'C%d ' % i, s.pc[i]

        def go(label, to, **changes):
            add(name + label, pc=put(s.pc, i, to), **changes)
        if pc == 'dead':
            return
        if i == 0 and s.kills < kills and pc != 'idle':
            go('killed', 'dead', kills=s.kills + 1)
        if pc in ('idle', 'relocks') and free:
            go('locks', 'looks', mutex=i + 1)
        if pc == 'looks':
            if s.there:
                go('takes a token', 'has', there=s.there - 1)
            elif reads == 'with the mutex':
                go('reads the count', 'registers', seen=put(s.seen, i, s.seq))
            else:
                go('registers early', 'drops', count=s.count + 1)
        if pc == 'has':
            go('unlocks with a token', 'idle', mutex=0)
        if pc == 'registers':
            go('registers', 'drops', count=s.count + 1)
        if pc == 'drops':
            go('unlocks', 'reads' if reads != 'with the mutex' else 'sleeps', mutex=0)
        if pc == 'reads':
            go('reads the count late', 'sleeps', seen=put(s.seen, i, s.seq))
        if pc in ('sleeps', 'asleep', 'woken'):
            changed = s.seq > 0 if handed else s.seq != s.seen[i]
            if pc == 'sleeps' and not changed:
                go('sleeps', 'asleep')
            elif pc != 'asleep' or slices:
                if changed:
                    go('takes a signal' if handed else 'sees a signal', 'leaves',
                       **(dict(seq=s.seq - 1) if handed else {}))
                elif pc == 'woken':
                    go('goes on sleeping', 'sleeps')
        if pc == 'leaves':
            go('leaves', 'relocks', count=s.count - 1)

    def bad(s, final):
        living = [pc for pc in s.pc if pc != 'dead']
        if final and s.there and living and any(pc == 'asleep' for pc in living):
            return 'a signal is lost'
    return (dict(mutex=0, there=0, made=0, p='idle', seq=0, count=0, seen=(0,) * consumers, pc=('idle',) * consumers,
                 kills=0), next_steps, bad), lambda s: s.made == tokens and (s.there == 0 or 'dead' in s.pc)


def undo(units=1, takers=2, kills=2, frees='swap', takes='swap', generations=True, rounds=1):
    """A process is (record, generation). A unit: 0 or its holder. takes='counter': a value, and who has it written down after."""
    who = range(takers)

    def next_steps(s, add):
        for i in who:
            taker(s, add, i)

    def taker(s, add, i):
        pc, me = s.pc[i], (i, s.generation[i])
        name = 'T%d ' % i

        def go(label, to, **changes):
            add(name + label, pc=put(s.pc, i, to), **changes)
        if pc == 'dead':
            if s.generation[i] == 0:
                go('is recovered, and another comes', 'idle', generation=put(s.generation, i, 1),
                   rounds=put(s.rounds, i, 0))
            return
        if s.kills < kills and pc != 'idle':
            go('killed', 'dead', kills=s.kills + 1)
        if pc == 'idle' and s.rounds[i] < rounds:
            go('begins', 'tries')
        if pc == 'tries':
            if takes == 'counter':
                if s.value:
                    go('takes from the value', 'writes', value=s.value - 1)
            else:
                for u in range(units):
                    if s.unit[u] == 0:
                        go('takes %d' % u, ('has', u), unit=put(s.unit, u, me))
            for u in range(units):
                holder = s.unit[u]
                if holder and holder != me and gone(s, holder):
                    go('finds %d a dead one\'s' % u, ('frees', u, holder))
        if pc == 'writes':
            u = s.unit.index(0) if 0 in s.unit else 0
            go('writes down that it has it', ('has', u), unit=put(s.unit, u, me))
        if pc[0] == 'frees':
            _, u, holder = pc
            if frees == 'swap' and s.unit[u] != holder:
                go('sees it done', 'tries')
            else:
                go('frees %d' % u, 'tries', unit=put(s.unit, u, 0), value=s.value + 1)
        if pc[0] == 'has':
            if takes == 'counter' or s.unit[pc[1]] == me:
                go('gives it back', 'idle', unit=put(s.unit, pc[1], 0), value=s.value + 1,
                   rounds=put(s.rounds, i, s.rounds[i] + 1))
            else:
                go('cannot give it back', 'lost')

    def gone(s, holder):
        i, g = holder
        if not generations:
            return s.pc[i] == 'dead'
        return s.generation[i] != g or s.pc[i] == 'dead'

    def bad(s, final):
        if 'lost' in s.pc or sum(pc[0] == 'has' for pc in s.pc) > units:
            return 'taken from the living'

    def through(s):
        return all(pc in ('idle', 'dead') for pc in s.pc) and all(
            r == rounds or pc == 'dead' for r, pc in zip(s.rounds, s.pc))
    return (dict(unit=(0,) * units, value=units, pc=('idle',) * takers, generation=(0,) * takers, rounds=(0,) * takers,
                 kills=0), next_steps, bad), through


def main():
    suite = HeapSuite('sync')

    def live(title, case, reaches=()):
        model, goal = case
        suite.live(title, model, goal, reaches)

    def mutant(title, case, fault):
        suite.mutant(title, case[0], fault)
    live('DI two makers, one killed, one unlinks', directory(unlinks=2),
         ('M1 was late', 'M0 gives it its state', 'M1 takes 0 over', 'M1 gives its claim back'))
    live('DI the same, one entry', directory(entries=1, unlinks=2), ('M1 takes 0 over', 'M1 settles before'))
    live('DI three makers, one killed', directory(makers=3, unlinks=1),
         ('M2 takes 0 over', 'M0 sees the directory ch'))
    mutant('DI the directory changes before the last one has its state', directory(settles=False), 'two of a name')
    mutant('DI without the generation in the directory', directory(makers=3, generations=False, unlinks=1, entries=1),
           'there is what nobody has written')
    mutant('DI looking first, then reading the directory', directory(order='find first'), 'two of a name')
    mutant('DI claims of the living are taken', directory(takes='of anybody', kills=0), 'there is what nobody has written')

    forever, told = 'sleeps for ever', 'nobody told'
    live('MU nobody dies, no slices', mutex(kills=0, slices=False, rounds=1), ('T1 wakes T0', 'T0 does not sleep'))
    live('MU one of three is killed', mutex(kills=1), ('T1 takes it from the dead', 'T0 killed', 'T2 calls it consistent'))
    live('MU two of three are killed', mutex(kills=2), ('T2 takes it from the dead', 'T1 killed'))
    live('MU two threads, two rounds, one is killed', mutex(threads=2, rounds=2), ('T1 takes it from the dead',))
    live('MU some do not call it consistent', mutex(kills=1, lazy=True), ('T1 breaks it', 'T0 finds it broken', 'T1 wakes all'))
    mutant('MU no membarrier, no slices', mutex(kills=0, slices=False, barrier=False), forever)
    mutant('MU who leaves does not put the flag up, no slices', mutex(kills=0, slices=False, leaves='as it is'), forever)
    mutant('MU no slices, one is killed', mutex(kills=1, slices=False), forever)
    mutant('MU who takes it from the dead is not told', mutex(kills=1, told='never'), told)
    mutant('MU the bit goes with who was told', mutex(kills=2, bit='of the taker'), told)
    mutant('MU it is taken from the living', mutex(kills=0, takes='anybody', threads=2), 'two owners')

    lost = 'a signal is lost'
    suite.right('CO nobody dies, no slices', condition(kills=0, slices=False)[0], ('P wakes C1', 'C0 sees a signal'))
    suite.right('CO a consumer is killed anywhere', condition()[0], ('C0 killed', 'C1 sees a signal', 'P wakes C0'))
    suite.right('CO three consumers, one is killed', condition(consumers=3)[0], ('C2 sees a signal',))
    mutant('CO a signal is handed over, to one who dies', condition(handed=True, tokens=1), lost)
    mutant('CO no slices, the woken one is killed', condition(slices=False), lost)
    mutant('CO the count is read after unlocking', condition(kills=0, reads='late'), lost)
    mutant('CO waking first, then counting up', condition(kills=0, counted='after', slices=False), lost)

    taken = 'taken from the living'
    live('SU two takers of one unit, both are killed', undo(), ('T1 frees 0', 'T0 takes 0', 'T0 is recovered'))
    live('SU three takers of two units', undo(units=2, takers=3, kills=1), ('T2 frees 1', 'T1 sees it done'))
    live('SU three takers of one unit', undo(takers=3, kills=2), ('T1 sees it done',))
    mutant('SU it is freed by a store', undo(takers=3, kills=1, frees='store'), taken)
    suite.stuck('SU a value, and then who has it', *undo(takes='counter', kills=1))
    suite.stuck('SU names without generations', *undo(generations=False, kills=1))
    suite.finish()


if __name__ == '__main__':
    main()
