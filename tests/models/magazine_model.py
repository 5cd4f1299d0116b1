"""
M3: a magazine in shared memory (the form that DESIGN would take only if the figures demand it): two objects, a
count, and A says "live" for what is cached. Refill: count first, then A; flush: A first, then count; recovery
stores absolute values, A := R for what the count covers. The owner may die at any step, the first recoverer too.

C: the same and takers. Object i of unit U is cached by O (live in A ^ R, count = 1). T (marked, barrier done)
empties the magazine and moves U, and may die; N adopts from a dead T and allocates; O goes on after the mark, or
dies and is recovered.

The private form of a magazine (cached objects are free in shared memory) has no transition to model beyond
unit_model and taking_model. Checked: after recovery exactly what users hold is live; no object has two owners; none
is lost.
"""
from explore import Suite


def magazine(order='good', absolute=True):
    def next_steps(s, add):
        if not s.dead:
            refill = [('refill count=2', dict(count=2)), ('refill A=3', dict(A=3))]
            flush = [('flush A=0', dict(A=0)), ('flush count=0', dict(count=0))]
            if order != 'good':
                refill.reverse()
                flush.reverse()
            steps = refill + [('get', dict(count=1, user=1)), ('put', dict(count=2, user=0))] + flush
            if s.p < len(steps):
                add(steps[s.p][0], p=s.p + 1, **steps[s.p][1])
            add('killed', dead=1)
            return
        cached = (1 << s.count) - 1
        if s.r == 0:
            add('R starts', r=1)
        if s.r == 1:
            add('R gives back', r=2, A=s.A & ~cached if absolute else s.A ^ cached)
        if s.r == 2:
            add('R count=0', r=3, count=0)
        if s.r in (1, 2) and not s.rk:
            add('R killed, the next begins', r=0, rk=1)

    def bad(s, final):
        want = 2 if s.user else 0
        if s.r == 3 and s.A & ~want:
            return 'lost: A=%d, users hold %d' % (s.A, want)
        if s.r == 3 and want & ~s.A:
            return 'a held object was freed'
    return dict(A=0, count=0, p=0, dead=0, user=0, r=0, rk=0), next_steps, bad


def taken(order='magazine first', recover='owned', reread='check'):
    steps = ['ctl', 'A', 'count'] if order == 'ctl first' else ['A', 'count', 'ctl']

    def next_steps(s, add):
        if s.t < 3:
            step = steps[s.t]
            add('T ' + step, t=s.t + 1, **{step: {'ctl': 'T', 'A': s.R, 'count': 0}[step]})
        if s.t <= 3:
            add('T killed', t=8)
        if s.t == 3:
            add('T unmarks', t=4)
        if s.t == 8:
            add('T recovered', t=9, ctl='-' if s.ctl == 'T' else s.ctl)
        if s.ctl == '-':
            add('N adopts U', ctl='N')
        if (s.ctl == 'N' or (s.ctl == 'T' and s.t == 4)) and s.A == s.R and not s.held:
            add('the new owner allocates i', A=s.A ^ 1, held=1)
        if s.t not in (4, 9):
            return
        if s.o == 0:
            add('O killed', o=8)
            add('O sees the sequence', o=1)
        if s.o == 1:
            keep = s.count and (reread == 'keep' or (s.ctl == 'O' and s.A != s.R))
            add('O reads again', o=2, count=int(bool(keep)))
        if s.o == 2 and s.count:
            add('O gets i from its magazine', o=3, count=0, heldO=1)
        if s.o == 2 and s.ctl == 'O' and not s.count and s.A == s.R:
            add('O allocates i', o=3, A=s.A ^ 1, heldO=1)
        if s.o == 8:
            give = s.count and (recover == 'all' or s.ctl == 'O')
            add('O recovered', o=9, count=0, A=s.R if give else s.A)

    def bad(s, final):
        if s.held + s.heldO > 1:
            return 'two owners'
        if (s.held or s.heldO) and s.A == s.R:
            return 'a held object was freed'
        if final and not s.held and not s.heldO and not s.count and s.A != s.R:
            return 'lost: i'
    return dict(t=0, ctl='O', A=1, R=0, count=1, o=0, held=0, heldO=0), next_steps, bad


def main():
    suite = Suite('magazines')
    suite.right('M3 count before A in refill, after it in flush; absolute values', magazine(), ('R killed',))
    suite.mutant('M3 the same, recovery flips', magazine(absolute=False), 'lost')
    suite.mutant('M3 A before count in refill, after it in flush', magazine('naive'), 'lost')
    suite.mutant('M3 the same, recovery flips', magazine('naive', absolute=False), 'lost')
    suite.mutant('C unit moved before the magazine is emptied', taken('ctl first', 'all'), 'lost')
    suite.mutant('C the same, recovery asks for the owner', taken('ctl first', 'owned'), 'lost')
    suite.mutant('C magazine first, owner keeps what its magazine says', taken(reread='keep'),
                 'a held object was freed')
    suite.right('C magazine first, recovery and owner look at owner and liveness', taken(),
                ('O recovered', 'T recovered', 'N adopts U', 'O allocates i'))
    suite.finish()


if __name__ == '__main__':
    main()
