"""
RD: readers and the collector of one heap. Objects Q, X, N are bits 1, 2, 4: Q.next may name X; N is born in a
transaction and may name X by a plain store; the root names one of them or none.

W is whoever holds the heap's lock: it unlinks, cuts, links back, bears, commits, aborts, collects, and dies (then
the next holder rolls back, and a condemned set is void). It is sequentially consistent here: its stores leave in
order, and the one store-to-load hazard it has is the one membarrier is there for. R1: sections, up to two guard
cells, moves a guard from cell to cell, lends a guarded value to R2, dies and is recovered. R2: sections, or takes
R1's value over into its own cell. Readers' stores pass through store buffers, also those of the killed; membarrier:
both are empty.

Phases: IDLE; BARRIER: marks done, pending; CONDEMNED: epoch moved and barrier passed; SWEEP. The mark does not look
at guards. Epochs are relative to the pool's (0 none, 1 older, 2 current), so the number of cycles is unbounded.
Reading the pool's epoch and storing one's own is one step unless `gap`: a store that comes late is like an entry
with the newer epoch, only seemingly older.

Ghost: what a reader may rightly use is its register while in the section, its guarded values, and all they reach. A
right ends where the call of unguard begins, and starts where that of guard has returned; a value that R1 lends is
void if R1 died before. Checked: nothing that is rightly used, or reachable from root, log, or what is being born,
is ever free; and from every state one without garbage, and with all cells empty, can be reached.
"""
from heap_explore import HeapSuite

Q, X, N, REL = 1, 2, 4, 8
IDLE, BARRIER, MOVED, CONDEMNED, RESCAN, SWEEP, EMPTYING = range(7)    # MOVED, RESCAN, EMPTYING: inside the one before
UNSAID, UNSAID_MOVED, UNSAID_PASSED = 7, 8, 9       # of a mutant: nobody sees that a set is pending
PENDING = (BARRIER, MOVED, CONDEMNED, RESCAN)
NAME = {0: '0', Q: 'Q', X: 'X', N: 'N', Q | REL: 'Q~', X | REL: 'X~', N | REL: 'N~'}
NOT_LOGGED = 99


def readers(start, qn=0, cells='a', second=None, ops=(), dies=False, w_dies=False, guards=True, gap=False, enter='any',
            barrier=True, reuse='same, marked, or not pending', release='what is condemned', recovery='released',
            born='all', marks=('old', 'new'), rescan='all slots', recovers=True, phase='before the barrier', depth=2,
            held_by_r1=()):
    everything = tuple(cells) + (('c',) if second == 'guard' else ())

    def reach(s, v, M=0):                       # all that v reaches; stops at what is in M
        todo = v & ~M
        while todo:
            M |= todo
            todo = ((s.qn if todo & Q else 0) | (s.nx if todo & N else 0)) & ~M
        return M

    def held(s):                                # what R1 and R2 may rightly use
        h = 0
        for r in ((s.r2,) if s.dead else (s.r1, s.r2)):
            h |= r[2]
            for _, v in r[4]:
                h |= v & 7
        return h

    def writers_roots(s):
        return (s.root | (s.lr if s.lr != NOT_LOGGED else 0) | (s.lq if s.lq != NOT_LOGGED else 0) |
                (N if s.born else 0))

    def reader(s, add, i):
        key, epoch, who = ('r1', 'e1', 'R1 ') if i == 1 else ('r2', 'e2', 'R2 ')
        r = getattr(s, key)
        pc, tmp, reg, buf, own = r
        if buf:
            add('%sdrains %s' % (who, buf[0][0]), **{key: (pc, tmp, reg, buf[1:], own), buf[0][0]: buf[0][1]})
        if i == 1 and s.dead:
            return

        def go(label, pc, reg=reg, tmp=0, buf=buf, own=own, **more):
            more[key] = (pc, tmp, reg, buf, own)
            add(who + label, **more)
        room = len(buf) < depth
        mine = dict(own)
        if pc == 'out' and (i == 1 or second == 'section') and (s.root or (own and enter == 'any')):
            if gap:
                go('loads the epoch', 'enter', tmp=2)
            elif room:
                go('enters', 'in', buf=buf + ((epoch, 2),))
        if pc == 'enter' and room:
            go('enters late', 'in', buf=buf + ((epoch, tmp),))
        if pc == 'in':
            if room:
                go('exits', 'out', reg=0, buf=buf + ((epoch, 0),))
            if s.root and reg != s.root:
                go('loads the root', 'in', reg=s.root)
            for v in {reg} | {v & 7 for v in mine.values()}:
                member = s.qn if v == Q else s.nx if v == N else 0
                if member and member != reg:
                    go('walks', 'in', reg=member)
        if pc in ('in', 'out'):                 # outside a section guard and unguard open a small one
            stage = 2 if pc == 'in' else 1
            for c in cells if i == 1 else 'c':
                if c in mine:
                    if not (i == 1 and s.lend and s.lend == mine[c] and list(mine.values()).count(mine[c]) == 1):
                        go('unguards ' + c, (stage, 'unguard', c, mine[c] & 7 or mine[c] >> 5, pc),
                           own=tuple(p for p in own if p[0] != c))
                elif i == 1 and guards:
                    for v in ({reg} if pc == 'in' else set()) | set(mine.values()):
                        if v:
                            go('guards ' + c, (stage, 'guard', c, v, pc))
                elif i == 2 and second == 'guard' and not s.dead and not s.lend:
                    for v in set(v for _, v in s.r1[4]):
                        go('borrows', (stage, 'guard', c, v, pc), lend=v)
        if not isinstance(pc, tuple):
            return
        stage, call, c, v, back = pc
        small = () if back == 'in' else ((epoch, 0),)
        if stage == 1 and room:
            go('enters a small section', (2, call, c, v, back), buf=buf + ((epoch, 2),))
        if call == 'unguard' and stage == 2:
            keeps = s.phase in PENDING and release != 'never'
            if release == 'what is condemned' and s.M & v:
                keeps = False
            go('reads the phase', (3, call, c, v, back), tmp=int(keeps))
        if call == 'unguard' and stage == 3 and len(buf) + len(small) <= depth:
            go('releases ' + c if tmp else 'empties ' + c, back, buf=buf + ((c, v | REL if tmp else 0),) + small)
        if call == 'guard' and stage == 2 and len(buf) + len(small) <= depth:
            now = dict((w, x) for w, x in ((c, getattr(s, c)),) + buf)[c]
            more = {} if i == 1 else dict(lend=0)
            if not now or (now & REL and (reuse == 'always' or s.phase not in PENDING or s.M & now or now == v | REL)):
                lent = i == 1 or s.lend == v    # else its giver has died: a guard that nobody may rely on
                mine[c] = v if lent else v << 5
                go('stores the guard ' + c, back, own=tuple(sorted(mine.items())), buf=buf + ((c, v),) + small, **more)
            else:
                go('finds no cell', back, buf=buf + small, **more)

    def writer(s, add):
        def marked(old, new):
            M = s.M
            if s.phase in PENDING:
                for v in (old if 'old' in marks else 0, new if 'new' in marks else 0):
                    M = reach(s, v, M)
            return M
        old_root = s.root if s.lr == NOT_LOGGED else s.lr
        undone = dict(root=old_root, qn=s.qn if s.lq == NOT_LOGGED else s.lq, lr=NOT_LOGGED, lq=NOT_LOGGED, born=0)
        if w_dies and (s.lr != NOT_LOGGED or s.lq != NOT_LOGGED or s.born or s.phase != IDLE):
            now = s.phase
            if now == EMPTYING:
                now = IDLE
            elif now != SWEEP:
                now = IDLE
            add('W killed, rolled back', **dict(undone, phase=now, M=s.M if now == SWEEP else 0, seen=0))
        if s.phase in (IDLE, CONDEMNED):
            through = reach(s, s.nx, s.M) if s.born and s.phase == CONDEMNED else s.M
            if s.lr != NOT_LOGGED or s.lq != NOT_LOGGED or s.born:
                add('W commits', lr=NOT_LOGGED, lq=NOT_LOGGED, born=0, M=s.M if born == 'never' else through)
                add('W aborts', **dict(undone, M=through if born == 'all' else s.M))
            h = held(s)
            if 'unlink' in ops and s.root:
                add('W unlinks', root=0, lr=old_root, M=marked(s.root, 0))
            if 'link' in ops and h & X and s.root != X:
                add('W links X back', root=X, lr=old_root, M=marked(s.root, X))
            if 'cut' in ops and s.qn and (h | s.root) & Q:
                add('W cuts Q->X', qn=0, lq=s.qn if s.lq == NOT_LOGGED else s.lq, M=marked(s.qn, 0))
            if 'born' in ops:
                if not s.A & N:
                    add('W bears N', A=s.A | N, born=1, nx=0, M=s.M | N if s.phase == CONDEMNED else s.M)
                if s.born and s.root != N:
                    if not s.nx and (h | s.root) & X:
                        add('W stores N.x=X', nx=X)
                    add('W links N', root=N, lr=old_root, M=marked(s.root, N))
        if s.phase == IDLE:
            M = reach(s, writers_roots(s))
            add('W marks, BARRIER', phase=BARRIER if phase == 'before the barrier' else UNSAID, M=M)
        if s.phase in (BARRIER, UNSAID):
            aged(s, add, phase=MOVED if s.phase == BARRIER else UNSAID_MOVED)
        if s.phase in (MOVED, UNSAID_MOVED) and not (barrier and (s.r1[3] or s.r2[3])):
            add('W membarrier, CONDEMNED', phase=CONDEMNED if s.phase == MOVED else UNSAID_PASSED)
        if s.phase == UNSAID_PASSED:
            add('W says it at last', phase=CONDEMNED)
        if s.phase == CONDEMNED and s.e1 != 1 and s.e2 != 1:
            v = writers_roots(s) | (s.nx if s.born else 0)
            add('W grace is over', phase=RESCAN, seen=0, M=reach(s, v, s.M) if born in ('all', 'not at abort') else s.M)
        if s.phase in (RESCAN, EMPTYING):
            for k, c in enumerate(everything):
                if s.seen >> k & 1:
                    continue
                v = getattr(s, c)
                if s.phase == EMPTYING:
                    add('W empties ' + c, seen=s.seen | 1 << k, **({c: 0} if v & REL else {}))
                elif rescan == 'used slots' and s.dead == 2 and c != 'c':
                    add('W passes a free slot', seen=s.seen | 1 << k)
                else:
                    add('W reads ' + c, seen=s.seen | 1 << k, M=reach(s, v & 7, s.M))
                break                           # ascending, as the code does; which cell is which does not matter
            else:
                add('W SWEEP' if s.phase == RESCAN else 'W IDLE', phase=SWEEP if s.phase == RESCAN else IDLE, seen=0)
        if s.phase == SWEEP:
            freed = s.A & ~s.M
            add('W frees something' if freed else 'W frees nothing', phase=EMPTYING, A=s.A & s.M, M=0, seen=0)

    def aged(s, add, **changes):                # what was current is older now, in memory, buffers and registers
        def older(r):
            return (r[0], 1 if r[0] == 'enter' and r[1] == 2 else r[1], r[2],
                    tuple((w, 1) if w in ('e1', 'e2') and v == 2 else (w, v) for w, v in r[3]), r[4])
        add('W moves the epoch', e1=min(s.e1, 1), e2=min(s.e2, 1), r1=older(s.r1), r2=older(s.r2), **changes)

    def next_steps(s, add):
        reader(s, add, 1)
        if second:
            reader(s, add, 2)
        writer(s, add)
        if dies and not s.dead:
            add('R1 killed', dead=1, lend=0)
        if s.dead == 1 and not s.r1[3] and recovers:
            cleared = {c: getattr(s, c) | REL if recovery == 'released' else 0 for c in cells if getattr(s, c)}
            add('slot of R1 recovered', e1=0, dead=2, r1=('out', 0, 0, (), ()), **cleared)

    def bad(s, final):
        for v, what in ((writers_roots(s), 'reachable object is free'), (held(s), 'a holder sees a freed object')):
            freed = reach(s, v) & ~s.A
            if freed:
                return '%s: %s' % (what, NAME[freed & -freed])

    def clean(s):
        return s.A == reach(s, s.root) and not any(getattr(s, c) for c in everything) and s.phase == IDLE and not s.born

    nobody = ('out', 0, 0, (), ())
    first = sum(v for _, v in held_by_r1)       # what R1 has guarded, and nothing else names
    init = dict(root=start, qn=qn, nx=0, A=start | qn | first, M=0, phase=IDLE, seen=0, lr=NOT_LOGGED, lq=NOT_LOGGED,
                born=0, e1=0, e2=0, r1=nobody[:4] + (held_by_r1,), r2=nobody, lend=0, dead=0)
    init.update({c: dict(held_by_r1).get(c, 0) for c in everything})
    return (init, next_steps, bad), clean


# One reader moves a guard between its cells, and guards another value.
MOVE = dict(start=Q, held_by_r1=(('b', X),), cells='ab', enter='root')
MOVE_ALL = dict(start=Q, qn=X, cells='ab', ops=('cut',), enter='root')
# A guard goes from one reader to the other; the giver may die.
LEND = dict(start=0, held_by_r1=(('a', X),), second='guard', dies=True, enter='root')
LEND_ALL = dict(start=X, second='guard', ops=('unlink',), dies=True, enter='root')
# Linking back; reader and writer may die.
BACK = dict(start=X, ops=('unlink', 'link'), dies=True, w_dies=True, gap=True)
# A section walks into the condemned set through a guard.
WALK = dict(start=Q, qn=X, ops=('unlink', 'cut'), dies=True, w_dies=True)
# A condemned value is put into an object that is being born.
BORN = dict(start=X, cells='', guards=False, second='section', ops=('unlink', 'born'), w_dies=True)


def main():
    suite = HeapSuite('heap, readers')
    collects = ('W marks', 'W moves the epoch', 'W membarrier', 'W grace is over', 'W SWEEP', 'W frees something')

    def live(title, case, reaches=(), **more):
        model, clean = readers(**dict(case, **more))
        suite.live('RD ' + title, model, clean, collects + reaches, limit=1500000)

    def mutant(title, fault, case, **more):
        suite.mutant('RD ' + title, readers(**dict(case, **more))[0], fault, limit=1500000)
    killed = ('W killed', 'R1 killed', 'slot of R1 recovered')
    live('a guard moves from cell to cell', MOVE, ('R1 releases b', 'W empties b'))
    live('a guard is lent, and the giver dies', LEND, ('R2 borrows', 'R2 releases c', 'W empties c', 'slot of R1'))
    live('condemned, guarded, linked back', BACK, ('W links X back', 'R1 enters late') + killed)
    live('a section walks into what is condemned', dict(WALK, depth=1), ('R1 walks', 'W cuts', 'W aborts') + killed)
    live('born objects that name what is condemned', BORN, ('W stores N.x=X', 'W aborts', 'W killed'))
    if suite.deep:
        live('the same, from the beginning: a guard moves', MOVE_ALL, ('R1 releases b', 'W cuts'))
        live('the same, from the beginning: a guard is lent', LEND_ALL, ('R2 borrows', 'W unlinks'))
        live('the same, longer store buffers: a section walks', WALK, killed)
    used, free = 'a holder sees a freed object', 'reachable object is free'
    mutant('a RELEASED cell is used again for anything', used, MOVE, reuse='always')
    mutant('no RELEASED state', used, MOVE, release='never')
    mutant('recovery empties the cells of the dead', used, LEND, recovery='emptied')
    mutant('cells of free slots are not looked at', used, LEND, rescan='used slots')
    mutant('set marks through the new value only', used, dict(WALK, depth=1), marks=('new',))
    mutant('set does not mark', used, BACK, marks=())
    mutant('members of the born: at commit only', free, BORN, born='at commit', w_dies=False)
    mutant('members of the born: at commit and before the sweep', used, BORN, born='not at abort', w_dies=False)
    mutant('members of the born: never', free, BORN, born='never')
    mutant('no membarrier', used, BACK, barrier=False)
    mutant('pending is said after the membarrier', used, MOVE, phase='after the barrier')
    model, clean = readers(**dict(BACK, recovers=False))
    suite.stuck('RD slots of the dead are not recovered', model, clean)
    suite.finish()


if __name__ == '__main__':
    main()
