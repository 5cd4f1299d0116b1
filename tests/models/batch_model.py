"""
M1: remote frees in batches. A thread that frees an object of somebody else's slab writes its mask into a cell of
its own slot, one plain store, and the free has returned; the flush does the work later. Flush: announce the cell at
the unit, change R, mask = 0, take the announcement away. The owner reuses no remotely freed bit of an announced
word. F may die at any step; recoverers (the first may die) then read: announced and A == R means done, else do it.
One object X; O is the live owner that hands X out again as soon as it reads as free, Z the new holder, who frees it
at once by R.

Abstracted: announcing is one step, as it is a CAS; Z's free needs no batch. Checked: X has one holder at most, is
live exactly while it has one, and does not stay with the dead.
"""
from explore import Suite


def batch(announces):
    def next_steps(s, add):
        freed = '-' if s.holder == 'F' else s.holder
        if not s.dead:
            if s.f == 0:
                add('F announces', f=1, Q=int(announces))
            if s.f == 1:
                add('F changes R', f=2, R=s.R ^ 1, holder=freed)
            if s.f == 2:
                add('F mask=0', f=3, mask=0)
            if s.f == 3:
                add('F ends', f=4, Q=0)
            add('F killed', dead=1)
        if s.A == s.R and not s.Q and s.n < 3:
            add('O hands X out again', A=s.A ^ 1, others=s.others + 1, n=s.n + 1)
        if s.others:
            add('Z frees X', R=s.R ^ 1, others=s.others - 1)
        if s.dead:
            if s.r == 0:
                add('R looks', r=1 if s.mask else 3)
            if s.r == 1 and announces and not s.Q:
                add('R announces', Q=1)
            elif s.r == 1:
                do = s.A != s.R and (announces or s.R == 0)     # without a cell: compared with the R it began with
                add('R decides: %s' % ('do it' if do else 'done'), r=2 if do else 4)
            if s.r == 2:
                add('R changes R', r=4, R=s.R ^ 1, holder=freed)
            if s.r == 4:
                add('R mask=0', r=3, mask=0)
            if s.r == 3:
                add('R ends', r=5, Q=0)
            if s.r in (1, 2, 3, 4) and not s.rk:
                add('R killed, the next begins', r=0, rk=1)

    def bad(s, final):
        holders = s.others + (s.holder == 'F')
        if holders > 1:
            return 'two owners'
        if s.A ^ s.R != holders:
            return 'a held object was freed' if s.A == s.R else 'lost: X is live and nobody holds it'
        if s.r == 5 and s.holder == 'F':
            return 'lost: X'
    return dict(A=1, R=0, Q=0, mask=1, f=0, dead=0, r=0, rk=0, holder='F', others=0, n=0), next_steps, bad


def main():
    suite = Suite('batches')
    suite.mutant('M1 intent and comparison alone', batch(False), 'a held object was freed')
    suite.right('M1 announced at the unit', batch(True),
                ('R decides: done', 'R decides: do it', 'R killed', 'Z frees X', 'O hands X out again'))
    suite.finish()


if __name__ == '__main__':
    main()
