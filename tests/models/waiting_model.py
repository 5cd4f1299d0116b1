"""
H: why no object is handed over in transit. A put hands object X to the cell of a waiter that may time out or die at
the same instant; X lies in a slab of a live third slot O, so whoever frees it flips R. Recoverers (the first may
die) free what a dead waiter's cell holds. It can be made right, with a CAS and an announce cell; L needs neither.

L: waiting as it is done. A put frees first, then, if the flag is set, wakes the waiter with the lowest live ticket,
which looks again. A waiter: ticket, flag = 1, barrier, look, sleep. Whoever leaves, served or not, gives its ticket
back and wakes the next; the last one stores flag = 0, fences, and looks at the tickets again. Two waiters, two
puts; W1 may die. Sleeps last for ever unless slices are asked for, so that what only slices repair is seen.
Abstracted: the barrier is one step with the store before it.

Checked: no object has two owners or none; nobody sleeps for ever while an object is free.
"""
from explore import Suite


def hand_over(timeout, recovery):
    def next_steps(s, add):
        if s.p == 0:
            if s.cell == 'W':
                add('P hands X over', p=1, cell='X', holder='cell')
            else:
                add('P frees X', p=1, R=s.R ^ 1, holder='-')
        if s.A == s.R and not s.Q and s.n < 1:
            add('O allocates X', A=s.A ^ 1, n=1, other=1)
        if s.other:
            add('its holder frees X', R=s.R ^ 1, other=0)
        if s.w == 'wait' and s.cell == 'X':
            add('W takes X', cell='-', w='has', holder='W')
        if s.w == 'wait' and s.cell == 'W':
            if timeout == 'cas':
                add('W times out', w='gone', cell='-')
            else:
                add('W times out: looks', w='leave')
        if s.w == 'leave':
            add('W stores 0', w='gone', cell='-')
        if s.w == 'has':
            add('W frees X', w='gone', R=s.R ^ 1, holder='-')
        if s.w == 'wait':
            add('W killed', w='dead')
        if s.w != 'dead':
            return
        given = '-' if s.holder == 'cell' else s.holder
        if s.r == 0:
            if s.cell == 'X':
                add('R finds X', r=1)
            elif s.cell == 'W':
                add('R closes the cell', cell='-', r=9)
            else:
                add('R finds it empty', r=3)
        if s.r == 1:
            if recovery == 'flip':
                add('R flips', r=2, R=s.R ^ 1, holder=given)
            elif not s.Q:
                add('R announces', Q=1)
            elif s.A != s.R:
                add('R flips', r=2, R=s.R ^ 1, holder=given)
            else:
                add('R sees it done', r=2)
        if s.r == 2:
            add('R clears the cell', r=3, cell='-')
        if s.r == 3:
            add('R ends', r=9, Q=0)
        if s.r in (1, 2, 3) and not s.rk:
            add('R killed, the next begins', r=0, rk=1)

    def bad(s, final):
        holders = (s.holder != '-') + s.other
        if holders > 1:
            return 'two owners'
        if s.A ^ s.R != holders:
            return 'a held object was freed' if s.A == s.R else 'lost: X is live and nobody holds it'
        if s.holder == 'cell' and s.cell != 'X':
            return 'lost: X'
    return dict(p=0, cell='W', A=1, R=0, Q=0, holder='P', other=0, n=0, w='wait', r=0, rk=0), next_steps, bad


def waiting(leave='again', death=False, slices=False):
    def next_steps(s, add):
        if s.p in (0, 2):
            add('P frees one', p=s.p + 1, free=s.free + 1)
        if s.p in (1, 3):
            lowest = 1 if s.t1 and s.w1 != 'dead' else 2 if s.t2 else 0
            if s.flag and lowest:
                add('P wakes W%d' % lowest, p=s.p + 1, **{'wake%d' % lowest: 1})
            else:
                add('P wakes nobody', p=s.p + 1)
        for i, other in ((1, 2), (2, 1)):
            me, at, name = 'w%d' % i, getattr(s, 'w%d' % i), 'W%d' % i
            another = getattr(s, 't%d' % other)
            if at == 'dead':
                continue
            if at == 0:
                add(name + ' takes a ticket', **{me: 1, 't%d' % i: 1})
            if at == 1:
                add(name + ' flag=1, barrier', flag=1, **{me: 2})
            if at == 2 and s.free:
                add(name + ' takes one', free=s.free - 1, **{me: 3})
            if at == 2 and not s.free:
                add(name + ' finds none, sleeps', **{me: 'sleep'})
            if at == 'sleep' and (getattr(s, 'wake%d' % i) or (slices and s.free)):
                add(name + ' wakes', **{me: 2, 'wake%d' % i: 0})
            if at == 3:
                add(name + ' gives its ticket back', **{me: 6, 't%d' % i: 0})
            if at == 6 and another:         # a wake-up may have met it on its way out: it passes one on
                woken = {} if leave == 'no pass' else {'wake%d' % other: 1}
                add(name + ' sees another ticket', **dict(woken, **{me: 'end'}))
            if at == 6 and not another:
                add(name + ' sees no other ticket', **{me: 4})
            if at == 4:
                add(name + ' flag=0', flag=0, **{me: 'end' if leave == 'plain' else 5})
            if at == 5 and another:
                add(name + ' looks again: a ticket', flag=1, **{me: 'end', 'wake%d' % other: 1})
            if at == 5 and not another:
                add(name + ' looks again: none', **{me: 'end'})
            if death and i == 1 and at not in (0, 'end'):
                add('W1 killed', w1='dead')

    def bad(s, final):
        if final and s.free and 'sleep' in (s.w1, s.w2):
            return 'an object is free and a waiter sleeps for ever'
    return dict(p=0, free=0, flag=0, t1=0, t2=0, w1=0, w2=0, wake1=0, wake2=0), next_steps, bad


def main():
    suite = Suite('waiting')
    sleeps = 'an object is free and a waiter sleeps for ever'
    suite.mutant('H time-out by a plain store', hand_over('plain', 'announce'), 'lost')
    suite.mutant("H dead waiter's object freed by a flip", hand_over('cas', 'flip'), 'lost')
    suite.right('H time-out by CAS, recovery announced', hand_over('cas', 'announce'), ('R sees it done', 'R closes'))
    suite.mutant('L the last to go stores flag=0', waiting('plain'), sleeps)
    suite.mutant('L flag=0, fence, tickets again, but no wake-up passed on', waiting('no pass'), sleeps)
    suite.right('L flag=0, fence, tickets again; who leaves wakes the next', waiting('again'),
                ('W2 looks again: a ticket', 'W1 sees another ticket', 'P wakes nobody'))
    suite.mutant('L the woken one dies, no slices', waiting('again', death=True), sleeps)
    suite.right('L the woken one dies, slices', waiting('again', death=True, slices=True), ('W1 killed', 'P wakes W2'))
    suite.finish()


if __name__ == '__main__':
    main()
