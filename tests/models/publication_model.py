"""
M2: hp_alloc_into, allocation and publication in a shared word dst as one crash-atomic step. Intent; CAS dst 0 ->
X|PENDING; flip A; dst = X; clear. Readers take PENDING as empty. Recovery: A not flipped: CAS X|PENDING -> 0;
flipped: CAS X|PENDING -> X. The mutant publishes after the flip with no mark. C takes X from dst and in the second
case frees it.

F: hp_free_from, by P1 and P2 on the same word, either may die. Write the cell; claim by CAS dst X -> FREEING|name
of the cell; announce; change R; dst = 0; cell = 0; announcement away. Recovery acts only where dst names that cell.
O is the live owner, who hands X out again when it reads as free and nothing is announced.

Abstracted: one object, R and A as single bits; recoverers (the first may die) begin from the start again. Checked:
X has one holder at most, dst never names a free object, nothing is lost.
"""
from explore import Suite


def alloc_into(pending, frees):
    def next_steps(s, add):
        if not s.dead:
            steps = (('intent', dict(I=1)), ('dst=X|PENDING', dict(dst='XP')), ('flips A', dict(A=s.A ^ 1)),
                     ('dst=X', dict(dst='X')), ('clears', dict(I=0)))
            steps = steps if pending else steps[:1] + steps[2:]
            if s.p < len(steps):
                add('P ' + steps[s.p][0], p=s.p + 1, **steps[s.p][1])
            add('P killed', dead=1)
        if s.dst == 'X':
            add('C takes X', dst='0', hand=1)
        if s.hand and frees:
            add('C frees X', hand=0, R=s.R ^ 1)
        if s.dead:
            if s.r == 0:
                add('R looks', r=1 if s.I else 3)
            if s.r == 1 and pending:
                new = 'X' if s.A else '0'
                add('R CAS dst X|PENDING -> ' + new, r=2, dst=new if s.dst == 'XP' else s.dst)
            if s.r == 1 and not pending:
                if s.A and s.dst != 'X':
                    add('R frees X (A := R)', r=2, A=s.R)
                else:
                    add('R leaves it', r=2)
            if s.r == 2:
                add('R clears', r=3, I=0)
            if s.r in (1, 2) and not s.rk:
                add('R killed, the next begins', r=0, rk=1)

    def bad(s, final):
        live = s.A ^ s.R
        if s.hand and not live:
            return 'object in hand is free'
        if s.dst == 'X' and not live:
            return 'dst names a free object'
        if s.dead and s.r == 3 and live and not s.hand and s.dst != 'X':
            return 'lost: X'
    return dict(A=0, R=0, I=0, dst='0', p=0, dead=0, hand=0, r=0, rk=0), next_steps, bad


def free_from(mark):
    def claim(i):
        return '0' if mark == 'zero' else 'F%d' % i

    def next_steps(s, add):
        def finish(i, at, who):
            me = '%s%d' % (who, i)
            if at == 2 and s.Q in (0, i):
                add(me + ' announces', Q=i, **{me: 3})
            if at == 3:
                if who == 'p' or s.A != s.R:
                    add(me + ' changes R', R=s.R ^ 1, hold=0, **{me: 4})
                else:
                    add(me + ' sees it done', **{me: 4})
            if at == 4:
                add(me + ' dst=0', dst='0' if s.dst == claim(i) else s.dst, **{me: 5})
            if at == 5:
                add(me + ' cell=0', **{me: 6, 'c%d' % i: 0})
            if at == 6:
                add(me + ' ends', Q=0 if s.Q == i else s.Q, **{me: 'end'})
        for i in (1, 2):
            p, r = 'p%d' % i, 'r%d' % i
            at = getattr(s, p)
            if at != 'dead':
                if at == 0:
                    add(p + ' writes its cell', **{p: 1, 'c%d' % i: 1})
                if at == 1 and s.dst == 'X':
                    add(p + ' claims dst', dst=claim(i), **{p: 2})
                if at == 1 and s.dst != 'X':
                    add(p + ' finds it taken', **{p: 5})
                finish(i, at, 'p')
                if at != 'end' and not s.killed:
                    add(p + ' killed', killed=1, **{p: 'dead'})
                continue
            at = getattr(s, r)
            if at == 0:
                if not getattr(s, 'c%d' % i):
                    then = 6
                elif mark == 'zero':
                    then = 5 if s.dst == 'X' else 2
                else:
                    then = 2 if s.dst == claim(i) else 5
                add(r + ' decides', **{r: then})
            finish(i, at, 'r')
            if at in (2, 3, 4, 5, 6) and not s.rk:
                add(r + ' killed, the next begins', rk=1, **{r: 0})
        if s.A == s.R and not s.Q and s.n < 1:
            add('O hands X out again', A=s.A ^ 1, n=1, other=1)

    def bad(s, final):
        if s.hold + s.other > 1:
            return 'two owners'
        if s.A ^ s.R != s.hold + s.other:
            return 'a held object was freed' if s.A == s.R else 'lost: X is live and nobody holds it'
        if final and s.hold and s.dst != 'X':
            return 'lost: X'
        if final and s.dst == 'X' and not s.hold:
            return 'dst names a free object'
    return dict(dst='X', A=1, R=0, Q=0, hold=1, other=0, n=0, p1=0, p2=0, c1=0, c2=0, r1=0, r2=0, killed=0,
                rk=0), next_steps, bad


def main():
    suite = Suite('publication')
    for frees in (False, True):
        suite.mutant('M2 flip, then dst = X, no mark; the taker %s X' % ('frees' if frees else 'keeps'),
                     alloc_into(False, frees), 'object in hand is free')
        suite.right('M2 PENDING in dst; the taker %s X' % ('frees' if frees else 'keeps'), alloc_into(True, frees),
                    ('R CAS dst X|PENDING -> 0', 'R CAS dst X|PENDING -> X', 'R killed', 'C takes X'))
    suite.mutant('F claim by dst X -> 0', free_from('zero'), 'lost')
    suite.right('F claim by dst X -> name of the cell', free_from('cell'),
                ('r1 changes R', 'r1 sees it done', 'r2 killed', 'p2 finds it taken', 'O hands X out again'))
    suite.finish()


if __name__ == '__main__':
    main()
