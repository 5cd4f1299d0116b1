"""
RU: runs of pages that a heap takes and gives back. One place in the pool for a run; heaps X and Y and an
application (App) want it. A heap's holder may be killed before any step, and the next one looks at `run` before it
does anything; it may be killed, too. In the page layer whoever owns the chunk stores the length word (with the
type) and makes the run live; the chunk of one who died in between is recovered some time later. The descriptor's
tag, the length word, and the map word of what was there last stay behind.

Steps of taking: chunk owned; tag, run (both in `prepare`); length; live; map word; cell: commit; run = 0. Of giving
back: run; cell: commit; map word 0; free; run = 0. Of looking: run; live? type HEAP? our tag? each a load of its
own, in this order; the cell; map word 0; free; run = 0. Why the loads may be torn: who looks holds the lock, so if
the run is not the heap's now it does not become so; any other HEAP run has had its tag written before its type and
before it became live, and our tag does not come back.

Checked: nobody frees what is another's, or nothing; a heap that is not at work has a run if and only if its cell
names one, and the map says so; the application never gets pages with a heap's map word. Abstracted: no store
buffers, since a killed process's stores all become visible, and the page layer's decisions follow a
compare-and-swap.
"""
from explore import Suite

TAKE = ('tag', 'run', 'length', 'live', 'map', 'cell', 'run=0')
GIVE = ('run', 'cell=0', 'map=0', 'free', 'run=0')
READS = ('live', 'type', 'tag')


def runs(take=TAKE, give=GIVE, reads=READS, after=('map=0', 'free', 'run=0'), keeps=True, heaps=('X', 'Y'),
         deaths=(2, 1), looks=True, app=True):
    owned = max(take.index('length'), take.index('live'), take.index('tag') if 'tag' in take[:4] else 0)

    def next_steps(s, add):
        for h, most in zip(heaps, deaths):
            heap(s, add, h, most)
        if not app:
            return
        if s.App == 0 and s.own == '-' and not s.live:
            add('App owns the chunk', App=1, own='App')
        if s.App == 1:
            add('App stores the length', App=2, type='app')
        if s.App == 2:
            add('App makes it live', App=3, live=1, owner='App')
        if s.App == 3:
            add('App gives the chunk up', App=4, own='-')
        if s.App == 4:
            add('App frees', App=0, **freed(s, 'App'))

    def freed(s, who):
        fault = '' if s.owner == who else "frees another's run" if s.live else 'frees what is free'
        return dict(live=0, owner='-', **(dict(fault=fault) if fault else {}))

    def store(s, h, what):
        if what == 'free':
            return freed(s, h)
        return {'tag': dict(tag=h), 'run': {'run' + h: 1}, 'length': dict(type='heap'),
                'live': dict(live=1, owner=h), 'map': dict(map=h), 'cell': {'cell' + h: 1}, 'run=0': {'run' + h: 0},
                'cell=0': {'cell' + h: 0}, 'map=0': dict(map='-')}[what]

    def heap(s, add, h, most):
        at, k = getattr(s, 'at' + h)
        cell, run = getattr(s, 'cell' + h), getattr(s, 'run' + h)

        def go(label, at, k=0, **changes):
            changes['at' + h] = (at, k)
            add('%s %s' % (h, label), **changes)
        if at != 'idle' and getattr(s, 'n' + h) < most:
            go('killed', 'dead' if s.own == h else 'look', **{'n' + h: getattr(s, 'n' + h) + 1})
        if at == 'dead':                        # others own the chunk only when it has been recovered
            if s.own == h:
                add(h + "'s chunk recovered", own='-')
            go('has a new holder', 'look')
        elif s.own == h and at not in ('take', 'idle'):
            add(h + "'s chunk recovered", own='-')
        if at == 'idle' and not cell and s.own == '-' and not s.live:
            go('owns the chunk', 'take', own=h)
        if at == 'idle' and cell:
            go('gives back', 'give')
        if at == 'take':
            what = take[k]
            last = k + 1 == len(take)
            changes = store(s, h, what)
            if k == owned:
                changes['own'] = '-'
            go('stores ' + what, 'idle' if last else 'take', 0 if last else k + 1, **changes)
        if at == 'give':
            last = k + 1 == len(give)
            go('stores ' + give[k] + ', giving back', 'idle' if last else 'give', 0 if last else k + 1,
               **store(s, h, give[k]))
        if at == 'look':
            if not run or not looks:
                go('finds no run in hand', 'idle')
            elif k < len(reads):
                ours = {'live': s.live, 'type': s.type == 'heap', 'tag': s.tag == h}[reads[k]]
                if ours:
                    go('finds the %s right' % reads[k], 'look', k + 1)
                else:
                    go('finds it is not ours: ' + reads[k], 'forget')
            elif cell and keeps:
                go('keeps it', 'forget')
            else:
                go('is to free it', 'undo')
        if at == 'forget':
            go('run=0', 'idle', **{'run' + h: 0})
        if at == 'undo':
            last = k + 1 == len(after)
            go('undoes: ' + after[k], 'idle' if last else 'undo', 0 if last else k + 1, **store(s, h, after[k]))

    def bad(s, final):
        if s.fault:
            return s.fault
        if s.App in (3, 4) and s.map != '-':
            return "a heap's map word on the application's pages"
        for h in heaps:
            if getattr(s, 'at' + h) != ('idle', 0):
                continue
            if s.owner == h and not getattr(s, 'cell' + h):
                return 'lost'
            if getattr(s, 'cell' + h) and s.owner != h:
                return "a cell names what is not the heap's"
            if getattr(s, 'cell' + h) and s.map != h:
                return 'the map does not say whose it is'
    init = dict(live=0, type='app', tag='-', map='-', own='-', owner='-', App=0, fault='')
    for h in heaps:
        init.update({'run' + h: 0, 'cell' + h: 0, 'at' + h: ('idle', 0), 'n' + h: 0})
    return init, next_steps, bad


def main():
    suite = Suite('heap, runs')
    life = ('X killed', 'X keeps it', 'X undoes: free', 'Y undoes: map=0', 'X finds it is not ours: live',
            'X finds it is not ours: type', 'X finds it is not ours: tag', "X's chunk recovered", 'App frees')
    suite.right('RU tag and run, live, map, cell; live, type, tag looked at in this order', runs(), life)
    if suite.deep:
        suite.right('RU more deaths', runs(deaths=(3, 3)), life, limit=3000000)
    others, nothing, lost = "frees another's run", 'frees what is free', 'lost'

    def mutant(title, fault, **case):
        suite.mutant('RU ' + title, runs(**case), fault)
    mutant('taking: the tag after the run is live', lost,
           take=('run', 'length', 'live', 'tag', 'map', 'cell', 'run=0'))
    mutant('taking: run after the run is live', lost,
           take=('tag', 'length', 'live', 'run', 'map', 'cell', 'run=0'))
    mutant('taking: the tag after the length', nothing,
           take=('run', 'length', 'tag', 'live', 'map', 'cell', 'run=0'))
    mutant('taking: run=0 before the cell', lost, take=('tag', 'run', 'length', 'live', 'map', 'run=0', 'cell'))
    mutant('taking: the cell before the run is live', "a cell names what is not the heap's",
           take=('tag', 'run', 'length', 'cell', 'live', 'map', 'run=0'))
    mutant('taking: the map word after the cell', 'the map does not say whose it is',
           take=('tag', 'run', 'length', 'live', 'cell', 'map', 'run=0'))
    mutant('giving back: the cell before run', lost, give=('cell=0', 'run', 'map=0', 'free', 'run=0'))
    mutant('giving back: run=0 before the free', lost, give=('run', 'cell=0', 'map=0', 'run=0', 'free'))
    mutant('giving back: free before the cell', "a cell names what is not the heap's",
           give=('run', 'map=0', 'free', 'cell=0', 'run=0'))
    mutant('giving back: the map word after the free', "a heap's map word on the application's pages",
           give=('run', 'cell=0', 'free', 'map=0', 'run=0'))
    mutant('looking: the tag is not looked at', others, reads=('live', 'type'))
    mutant('looking: the type is not looked at', others, reads=('live', 'tag'))
    mutant('looking: it is not looked at whether it is live', nothing, reads=('type', 'tag'))
    mutant('looking: type, live, tag', others, reads=('type', 'live', 'tag'))
    mutant('looking: live, tag, type', nothing, reads=('live', 'tag', 'type'))
    mutant('looking: tag, type, live', others, reads=('tag', 'type', 'live'))
    mutant('looking: freed although a cell names it', "a cell names what is not the heap's", keeps=False)
    mutant('looking: free before the map word', "a heap's map word on the application's pages",
           after=('free', 'map=0', 'run=0'))
    mutant('looking: run=0 before the free', lost, after=('map=0', 'run=0', 'free'))
    mutant('nobody looks', lost, looks=False)
    suite.finish()


if __name__ == '__main__':
    main()
