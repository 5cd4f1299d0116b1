"""
U: the life of one unit. Granules 0..n-1, bitmaps A (plain stores of the owner, through its store buffer) and R (CAS
by others), a length a granule, ctl. Participants P and Q both adopt the unit when nobody owns it (CAS), rebuild the
private view from A ^ R and the lengths, allocate (length, then the flip of A that commits), free by A as owner and
by R otherwise, notice remote frees, and give the unit up (CAS). P may be killed between any two steps; stores it
had retired still drain. Once they have (that is when the kernel lets its lock go) two recoverers set ctl to
unowned; one of them may stop for ever between reading ctl and its CAS, which is also what its death looks like;
then the slot may be used again. Users err too: a run is freed a second time, by the owner or by another.

Abstracted: ctl's version is "has ctl changed since I read it", so it never runs out and the state space is finite.
A wrong free is one step, since the contract excludes one that races with another free or a hand-out of the same
run. A run may be freed by anyone who has heard of it, and to have heard of it means that the stores that made it
have drained. RACE is what that exclusion is for: the owner's free and somebody else's of the same run cross, each
having seen it live, and the run is live again with no holder. There a leak is not counted as a fault, only harm to
others is; none is done where allocation makes A the complement of R (instead of flipping it) and an owner that sees
R changed computes its view anew (instead of taking the difference).

Ghost state: runs, what is rightly held; hand, what a participant is just freeing. Checked: no live run is handed
out again, a live bit and a holder go together, a view that is up to date is right, and ctl names who believes to
own.

N (once M4): why nobody but the owner may write A. One granule, X allocates with a CAS of A from outside.
"""
from explore import Suite, drain, seen


def unit(n=2, shapes=((0, 1), (0, 2), (1, 1)), commit='len first', build='after CAS', check='live', local='reads R',
         notice='run', free_r='cas', version=True, adopt='builds', wrong=True, race=False, contain=False):
    mask = {(g, l): ((1 << l) - 1) << g for g, l in shapes}
    one_word = dict(A=0, R=0, ctl='-', runs=(), fault='', snap='', born=0)
    lens = {'l%d' % g: 1 for g in range(n)}

    def view(s, bits, r, buf=None):             # what a participant computes from A, R and the lengths it reads
        occupied = 0
        for g in range(n):
            if (bits ^ r) >> g & 1:
                occupied |= ((1 << seen(s, 'l%d' % g, buf)) - 1) << g
        return occupied & ((1 << n) - 1)

    def next_steps(s, add):
        dead = s.pcP == 'dead'
        hands = [h for h in (s.handP, s.handQ) if h]
        for x, y in (('P', 'Q'), ('Q', 'P')):
            buf, pc, hand, occ, rk, mine = ('bufP', 'pcP', 'handP', 'occP', 'rkP', 'mineP') if x == 'P' else (
                'bufQ', 'pcQ', 'handQ', 'occQ', 'rkQ', 'mineQ')
            drain(s, add, x, buf)
            at, waiting = getattr(s, pc), getattr(s, buf)
            if at == 'dead':
                continue
            heard = not getattr(s, 'buf' + y)   # what the other handed out has reached memory
            holds = getattr(s, mine)
            if at == 'idle' and not holds:
                if s.ctl == '-' and not waiting:
                    if build == 'before CAS':   # and ctl is read after it
                        add(x + ' builds its view', **{pc: 'cas', occ: view(s, s.A, s.R), rk: s.R})
                    elif adopt == 'trusts its old view':
                        add(x + ' adopts', ctl=x, snap='', **{mine: 1})
                    else:
                        add(x + ' adopts', ctl=x, snap='', **{pc: 'build'})
                if heard and not waiting:
                    for run in s.runs:
                        add('%s frees %s, loads A' % (x, run), runs=tuple(r for r in s.runs if r != run),
                            **{pc: ('R', s.A), hand: run})
                    if wrong and check != 'live':
                        for g in range(n):
                            if not any(g == r[0] for r in s.runs + tuple(hands)):
                                add('%s frees %d a second time' % (x, g), R=s.R ^ 1 << g)
            if at == 'cas':
                if s.ctl == '-' and not waiting:
                    add(x + ' adopts', ctl=x, snap='', **{pc: 'idle', mine: 1})
                else:
                    add(x + ' comes late', **{pc: 'idle', occ: 0, rk: 0})
            if at == 'build':
                add(x + ' builds its view', **{pc: 'idle', mine: 1, occ: view(s, s.A, s.R), rk: s.R})
            if at == 'idle' and holds and len(waiting) < 3:
                a = seen(s, 'A', buf)
                for run in shapes:
                    if not getattr(s, occ) & mask[run]:
                        add('%s allocates %s' % (x, run), **{pc: ('commit', run)})
                for run in s.runs:
                    bit = 1 << run[0]
                    if heard and (a ^ s.R) & bit:
                        add('%s frees %s by A' % (x, run), runs=tuple(r for r in s.runs if r != run),
                            **{buf: waiting + (('A', a ^ bit),), occ: getattr(s, occ) & ~mask[run]})
                if wrong and heard and local != 'reads R':
                    for g in range(n):
                        if not any(g == r[0] for r in s.runs + tuple(hands)) and (a ^ getattr(s, rk)) >> g & 1:
                            add('%s frees %d by A a second time' % (x, g), **{buf: waiting + (('A', a ^ 1 << g),)})
                changed = s.R ^ getattr(s, rk)
                if changed:
                    left = getattr(s, occ)
                    if notice == 'rebuild':
                        left = view(s, a, s.R, buf)
                    for g in range(n) if notice != 'rebuild' else ():
                        if changed >> g & 1 and not (a ^ s.R) >> g & 1:
                            left &= ~(((1 << (seen(s, 'l%d' % g, buf) if notice == 'run' else 1)) - 1) << g)
                    add(x + ' notices remote frees', **{occ: left, rk: s.R})
                if not waiting:
                    forgets = {} if adopt == 'trusts its old view' else {occ: 0, rk: 0}
                    add(x + ' gives up', ctl='-', snap='', **dict(forgets, **{mine: 0}))
            if at[0] == 'commit' and len(waiting) < 3:
                run = at[1]
                store_len = ('l%d' % run[0], run[1])
                a, bit = seen(s, 'A', buf), 1 << run[0]
                store_a = ('A', a & ~bit | ~s.R & bit if contain else a ^ bit)
                first, second = (store_len, store_a) if commit == 'len first' else (store_a, store_len)
                flips = first is store_a if len(at) == 2 else second is store_a
                change = {buf: waiting + (first if len(at) == 2 else second,)}
                if flips:                       # the commit: from here on it is held, whatever happens to x
                    taken = sum(mask[r] for r in s.runs + tuple(hands)) & mask[run]
                    change.update(runs=tuple(sorted(s.runs + (run,))), fault='overlap' if taken else s.fault)
                done = len(at) == 3
                change.update({pc: 'idle' if done else at + (1,)})
                if done:
                    change[occ] = getattr(s, occ) | mask[run]
                add('%s stores %s' % (x, 'A' if flips else 'len'), **change)
            if at[0] == 'R':
                add(x + ' loads R', **{pc: ('cas R', at[1], s.R)})
            if at[0] == 'cas R':
                run = getattr(s, hand)
                bit = 1 << run[0]
                if check == 'live' and not (at[1] ^ at[2]) & bit:
                    add(x + ' is refused', fault='rightful free refused')
                elif free_r == 'store':
                    add(x + ' stores R', R=at[2] ^ bit, **{pc: 'idle', hand: ()})
                elif s.R == at[2]:
                    add(x + ' CAS R', R=s.R ^ bit, **{pc: 'idle', hand: ()})
                else:
                    add(x + ' CAS R fails', **{pc: ('R', s.A)})
        if race and s.ctl == 'P' and s.mineP and s.pcP == 'idle' and s.runs and not s.bufP and not s.bufQ:
            run = s.runs[0]                     # both see it live before either has changed it
            add('P by A and Q by R free %s at once' % (run,), A=s.A ^ 1 << run[0], R=s.R ^ 1 << run[0],
                occP=s.occP & ~mask[run], runs=s.runs[1:])
        if not dead and not s.born:
            add('P killed', pcP='dead', mineP=0, occP=0, rkP=0, handP=(),
                runs=tuple(sorted(s.runs + ((s.handP,) if s.handP else ()))))
        if dead and not s.bufP:
            if s.ctl == 'P':
                add('R2 recovers', ctl='-', snap='')
                if not s.snap:
                    add('R1 reads ctl', snap='current')
            else:
                add('P born again', pcP='idle', born=1)
        if s.snap == 'current' and s.ctl == 'P' or (not version and s.snap and s.ctl == 'P'):
            add('R1 recovers', ctl='-', snap='')

    def keep_stale(s, add):                     # without a version R1's knowledge survives a change of ctl
        def wrapped(label, **changes):
            if changes.get('snap') == '' and label != 'R1 recovers' and s.snap:
                del changes['snap']
            add(label, **changes)
        next_steps(s, wrapped)

    def bad(s, final):
        if s.fault:
            return s.fault
        for x in 'PQ':
            if getattr(s, 'mine' + x) and s.ctl != x:
                return 'two owners'
        held = s.runs + tuple(h for h in (s.handP, s.handQ) if h)
        cover = sum(mask[r] for r in held)
        for x in 'PQ':
            if getattr(s, 'mine' + x) and getattr(s, 'pc' + x) == 'idle':
                if cover & ~getattr(s, 'occ' + x):
                    return 'view wrong: %s takes a held granule for free' % x
                if not race and getattr(s, 'rk' + x) == s.R and getattr(s, 'occ' + x) & ~cover:
                    return 'lost: %s knows all and takes a free granule for held' % x
        if not s.bufP and not s.bufQ:
            for g in range(n):
                live = (s.A ^ s.R) >> g & 1
                mine = [r for r in held if r[0] == g]
                if live and not mine and not race and s.pcP[0] != 'commit' and s.pcQ[0] != 'commit':
                    return 'lost: %d is live and nobody holds it' % g
                if mine and not live:
                    return 'held run not live: %s' % (mine[0],)
                if mine and getattr(s, 'l%d' % g) != mine[0][1] and s.pcP[0] != 'commit' and s.pcQ[0] != 'commit':
                    return 'wrong length: %s' % (mine[0],)
    init = dict(one_word, **lens)
    for x in 'PQ':
        init.update({'pc' + x: 'idle', 'buf' + x: (), 'hand' + x: (), 'occ' + x: 0, 'rk' + x: 0, 'mine' + x: 0})
    return init, next_steps if version else keep_stale, bad


def outsider(frozen):
    """X takes a granule by load A, load R, CAS A while its owner Y allocates by A and frees by R (or by A: frozen)."""
    def next_steps(s, add):
        if s.x == 0:
            add('X loads A', x=1, xa=s.A)
        if s.x == 1:
            add('X loads R', x=2, xr=s.R)
        if s.x == 2 and s.xa == s.xr:
            add('X CAS A', **(dict(x=3, A=s.A ^ 1, hx=1) if s.A == s.xa else dict(x=9)))
        if s.A == s.R and s.n < 3:
            add('Y allocates', A=s.A ^ 1, hy=s.hy + 1, n=s.n + 1)
        if s.hy:
            add('Y frees', hy=s.hy - 1, **(dict(A=s.A ^ 1) if frozen else dict(R=s.R ^ 1)))

    def bad(s, final):
        if s.hx + s.hy > 1 or s.hx + s.hy != s.A ^ s.R:
            return 'two owners'
    return dict(A=0, R=0, x=0, xa=0, xr=0, hx=0, hy=0, n=0), next_steps, bad


def main():
    suite = Suite('unit')
    life = ('P adopts', 'Q adopts', 'P stores A', 'Q CAS R', 'P CAS R', 'Q CAS R fails', 'P frees', 'Q notices',
            'P gives up', 'P killed', 'R2 recovers', 'R1 recovers', 'P born again')
    suite.right('U two granules', unit(), reaches=life)
    suite.right('U three granules', unit(3, ((0, 1), (0, 3), (1, 2))), reaches=life)
    suite.mutant('U A flipped before len is written', unit(commit='A first'), 'wrong length')
    suite.mutant('U view rebuilt before ctl is read and taken', unit(build='before CAS'), 'view wrong')
    suite.mutant('U old view kept from an earlier ownership', unit(adopt='trusts its old view'), 'view wrong')
    suite.mutant('U free from outside without the liveness check', unit(check='none'), 'lost')
    suite.mutant('U free from outside by a plain store to R', unit(free_r='store'), 'lost')
    suite.mutant('U owner frees by its copy of R, does not read it', unit(local='trusts its copy'), 'lost')
    suite.mutant('U owner notices the head of a freed run alone', unit(notice='head'), 'lost')
    suite.mutant('U recoverer compares the owner, no version or generation', unit(version=False), 'two owners')
    suite.mutant('U RACE, allocation flips A', unit(race=True, notice='rebuild'), 'view wrong')
    suite.mutant('U RACE, A is made the complement of R, view updated by the difference', unit(race=True, contain=True),
                 'view wrong')
    suite.right('U RACE, allocation makes A the complement of R, view rebuilt: a leak at most',
                unit(race=True, contain=True, notice='rebuild'), reaches=('P by A and Q by R free',))
    suite.mutant('N others write A too, R used for frees', outsider(False), 'two owners')
    suite.right('N others write A too, R never used', outsider(True), reaches=('X CAS A',))
    suite.finish()


if __name__ == '__main__':
    main()
