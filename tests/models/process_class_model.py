"""
PR: memory of class PROCESS, given back when its process dies. A unit carries a tag, the process record and
generation its runs belong to. Threads P1 and P2 of process P adopt units that are tagged for P, or wholly free
ones, which they tag before their first commit; a unit given up keeps its tag. Another process, Q, adopts untagged
units, and tagged ones only if they are wholly free, and then clears the tag before its first commit; what it
allocates is of class POOL and outlives everybody. When P has died a recoverer claims every unit with P's tag, from
unowned, from a slot of P, or from a dead recoverer, by CAS into RECOVERING; stores A := R; clears the tag; and sets
ctl to unowned. R1 may die at any step of that, R2 repeats it; Q may die too, and is recovered in the ordinary way.
Then P's record is free for others, either at once or ("kept") only after a pass that met the tag nowhere. The
second is the more robust: it also allows others to own a tagged unit for a moment, look, and put it back, as
whoever needs a run over several units does.

Who looks at a unit reads ctl first, then tag and bitmaps, and its CAS of ctl succeeds only if ctl's version is what
it read ("has not changed since"). Abstracted: one unit of two granules, runs of one; no store buffers, since every
decision here follows a CAS, which empties them, and stores leave in order; frees by other processes (refused,
-EPERM, by the tag).

Lazy: the record goes at once, and a unit whose tag names a record that is over counts as free for everybody:
whoever adopts it stores A := R before the tag.

Checked: no run of class POOL is ever freed by a recovery, none of class PROCESS is left when its record is free
again, live bits and holders go together, ctl names who believes to own.
"""
from explore import Suite


def process_class(give_back='A := R', clear='after', adopt='wholly free', q_clears='before', p_tags='before',
                  tag_if='wholly free', version=True, last='passes by',
                  settles='A := R first'):
    def next_steps(s, add):
        def take(label, owner, **changes):      # a CAS of ctl: nobody's reading of it is current any more
            stale = {f: 0 for f in ('vP1', 'vP2', 'vQ', 'vR1', 'vR2') if getattr(s, f) and version}
            add(label, **dict(stale, ctl=owner, **changes))
        live = s.A ^ s.R
        for p in ('P1', 'P2'):
            at = getattr(s, p)
            if s.P != 'alive':
                break
            if at == 'idle' and s.ctl == '-' and (s.tag == 'P' or not live or tag_if != 'wholly free'):
                add(p + ' looks', **{p: 'cas', 'v' + p: 1})
            if at == 'cas':
                if getattr(s, 'v' + p) and s.ctl == '-':
                    take(p + ' adopts', p, **{p: 'tag' if s.tag != 'P' and p_tags == 'before' else 'own'})
                else:
                    add(p + ' comes late', **{p: 'idle', 'v' + p: 0})
            if at == 'tag' or (at == 'own' and s.tag != 'P' and s.runsP):
                add(p + ' tags', tag='P', **{p: 'own'})
            if at == 'own':
                for g in (1, 2):
                    if not live & g:
                        add('%s allocates %d' % (p, g), A=s.A ^ g, runsP=s.runsP | g)
                    if s.runsP & g:
                        add('%s frees %d by A' % (p, g), A=s.A ^ g, runsP=s.runsP & ~g)
                if s.tag == 'P':
                    take(p + ' gives up', '-', **{p: 'idle'})
            elif at == 'idle':
                for g in (1, 2):
                    if s.runsP & g:
                        add('%s frees %d by R' % (p, g), R=s.R ^ g, runsP=s.runsP & ~g)
        if s.P == 'alive':
            add('P killed', P='dead')
        if s.Q != 'dead':
            over = last == 'lazy' and s.P == 'gone'
            if s.Q == 'idle':
                if s.ctl == '-' and (s.tag != 'P' or not live or adopt != 'wholly free' or over):
                    add('Q looks', Q='cas', vQ=1)
                if s.runsQ:
                    g = s.runsQ & -s.runsQ
                    add('Q frees %d by R' % g, R=s.R ^ g, runsQ=s.runsQ & ~g)
            if s.Q == 'cas':
                if s.ctl == '-' and s.vQ:
                    tagged = s.tag == 'P'
                    take('Q adopts', 'Q', Q='settle' if tagged and live and adopt == 'looked at after' else
                         'clear' if tagged and q_clears == 'before' else 'own')
                else:
                    add('Q comes late', Q='idle', vQ=0)
            if s.Q == 'clear' or (s.Q == 'own' and q_clears == 'after' and s.tag == 'P' and s.runsQ):
                add('Q clears the tag', tag='-', Q='own')
            if s.Q == 'settle' and over:                    # the record is over: what is live here is nobody's
                if settles == 'A := R first':
                    add('Q stores A := R', A=s.R, hit=s.runsQ & live, Q='clear')
                else:
                    add('Q clears the tag first', tag='-', Q='A := R')
            elif s.Q == 'settle':
                take('Q finds live runs, gives up', '-', Q='idle')
            if s.Q == 'A := R':
                add('Q stores A := R', A=s.R, hit=s.runsQ & live, Q='own')
            if s.Q == 'own':
                for g in (1, 2):
                    if not live & g:
                        add('Q allocates %d' % g, A=s.A ^ g, runsQ=s.runsQ | g)
                if q_clears != 'after' or s.tag != 'P':
                    take('Q gives up', '-', Q='idle')
            add('Q killed', Q='dead')
        elif s.ctl == 'Q':
            take('Q recovered', '-')
        if s.P == 'dead':
            recover(s, add, take, 'R1')
            if s.R1 == 'dead':
                recover(s, add, take, 'R2')
            elif s.R1 not in ('idle', 'end'):
                add('R1 killed', R1='dead')

    def recover(s, add, take, r):
        at, v = getattr(s, r), 'v' + r
        mine = 'REC ' + r
        if at == 'idle':
            if s.ctl == mine:
                return
            if s.tag == 'P' and s.ctl in ('-', 'P1', 'P2', 'REC R1'):
                add(r + ' looks, finds the tag', **{r: 'claim', v: 1})
            elif s.ctl in ('P1', 'P2', 'REC R1'):
                take(r + ' finds no tag, gives the unit up', '-')
            elif last != 'waits' or s.tag != 'P':
                add(r + ' frees the record', P='gone', **{r: 'end'})
        if at == 'claim':
            if getattr(s, v) and s.ctl in ('-', 'P1', 'P2', 'REC R1'):
                note = {'note': s.note or s.A ^ s.R} if give_back == 'noted flips' else {}
                take(r + ' claims', mine, **dict(note, **{r: 'A' if clear == 'after' else 'tag'}))
            else:
                add(r + ' comes late', **{r: 'idle', v: 0})
        if at == 'A':
            a = s.A ^ s.note if give_back == 'noted flips' else s.R
            add(r + ' stores A', A=a, hit=s.runsQ & (s.A ^ s.R) & ~(a ^ s.R),
                **{r: 'tag' if clear == 'after' else 'ctl'})
        if at == 'tag':
            add(r + ' clears the tag', tag='-', **{r: 'ctl' if clear == 'after' else 'A'})
        if at == 'ctl':
            take(r + ' gives the unit up', '-', **{r: 'idle'})

    def bad(s, final):
        if s.hit:
            return 'a run of another was freed'
        live = s.A ^ s.R
        if s.P == 'alive' and s.runsP & s.runsQ:
            return 'two owners of a granule'
        if s.P == 'alive' and live & ~(s.runsP | s.runsQ):
            return 'live and nobody holds it'
        if s.P == 'gone' and live & ~s.runsQ and (last != 'lazy' or (s.tag != 'P' and s.ctl == '-')):
            return 'lost: PROCESS run of the dead'
        if s.runsQ & ~live:
            return 'a run of another was freed'
        for x in ('P1', 'P2', 'Q'):
            if (s.P == 'alive' or x == 'Q') and getattr(s, x) in ('own', 'tag', 'clear') and s.ctl != x:
                return 'two owners'
    init = dict(A=0, R=0, tag='-', ctl='-', runsP=0, runsQ=0, hit=0, note=0, P='alive', P1='idle', P2='idle', Q='idle',
                R1='idle', R2='idle', vP1=0, vP2=0, vQ=0, vR1=0, vR2=0)
    return init, next_steps, bad


def main():
    suite = Suite('process class')
    suite.right('PR claim, A := R, clear the tag, unowned', process_class(),
                reaches=('P2 adopts', 'P1 tags', 'P1 comes late', 'Q adopts', 'Q clears the tag', 'Q comes late',
                         'Q recovered', 'R1 claims', 'R2 claims', 'R2 stores A', 'R2 comes late', 'R2 finds no tag',
                         'R2 frees the record'))
    suite.mutant('PR recovery flips what it noted instead of A := R', process_class(give_back='noted flips'), 'lost')
    suite.mutant('PR tag cleared before A := R', process_class(clear='before'), 'lost')
    suite.mutant('PR adopted by another while runs are live', process_class(adopt='any'), 'lost')
    suite.mutant('PR adopted by another, looked at, and put back; recovery passes it by',
                 process_class(adopt='looked at after'), 'lost')
    for adopt in ('wholly free', 'looked at after'):
        suite.right('PR the record is kept until nothing bears its tag, adopted if %s' % adopt,
                    process_class(adopt=adopt, last='waits'), ('R2 frees the record', 'Q recovered', 'Q adopts'))
    suite.right('PR lazy: the record goes at once, whoever adopts finishes',
                process_class(adopt='looked at after', last='lazy'),
                ('Q stores A := R', 'Q finds live runs', 'R2 frees the record'))
    suite.mutant('PR lazy, tag cleared before A := R', process_class(adopt='looked at after', last='lazy',
                                                                                settles='tag first'), 'lost')
    suite.mutant('PR the adopter clears the tag after its commit', process_class(q_clears='after'),
                 'a run of another was freed')
    suite.mutant('PR the adopter leaves the tag', process_class(q_clears='never'), 'a run of another was freed')
    suite.mutant('PR tagged after the first commit', process_class(p_tags='after'), 'lost')
    suite.mutant('PR tagged while runs of others are live', process_class(tag_if='any'), 'a run of another was freed')
    suite.mutant('PR CAS of ctl without a version', process_class(version=False), 'lost')
    suite.finish()


if __name__ == '__main__':
    main()
