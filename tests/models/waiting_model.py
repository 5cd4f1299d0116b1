"""
H: why no object is handed over in transit. A put hands object X to the cell of a waiter that may time out or die at
the same instant; X lies in a slab of a live third slot O, so whoever frees it flips R. Recoverers (the first may
die) free what a dead waiter's cell holds. It can be made right, with a CAS and an announce cell; L needs neither.

L: waiting as it is done. A put frees first, then, if the flag is set, wakes the waiter with the lowest live ticket,
which looks. A waiter: ticket; its futex word; flag = 1, barrier (not when it was just woken: there is something, so
the look comes first, and what precedes a sleep when it was in vain); look, if it is the first; sleep. Who is not the
first looks only when those before it are dead, or have not looked for some slices (they are stopped). Whoever leaves
gives its ticket back and wakes the next; the last one stores flag = 0, fences, and looks at the tickets again. Two or
three waiters; W1 may die or be stopped, and so may the putter. Sleeps last for ever unless slices are asked for, so
that what only slices repair is seen. Abstracted: the barrier is one step with the store before it, a wake is one
step, and patience ends at once with who is stopped and never with who runs.

Checked: no object has two owners or none; nobody sleeps for ever while an object is free; nobody takes an object as
long as somebody runs who has waited longer.
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


def waiting(n=2, puts=2, leave='again', look='first', flag='before', wake='living', harm=(), slices=False):
    """harm: what may happen to W1 ('killed', 'stopped') and to the putter ('P killed')."""
    def changed(tup, i, value):
        return tup[:i] + (value,) + tup[i + 1:]

    def lowest(s, counts):
        """The waiter with the lowest ticket of those that count."""
        return min((i for i in range(n) if s.t[i] and counts(s.w[i])), key=lambda i: s.t[i], default=None)

    def living(at):
        return at != 'dead'

    def running(at):        # who is stopped does not look, and patience with it ends
        return at not in ('dead', 'stopped')

    def woken(s):
        """The effect of a wake: of the first, or, since the dead do not answer, of the first that lives."""
        i = lowest(s, living if wake == 'living' else lambda at: True)
        return {} if i is None else dict(new=changed(s.new, i, 1))

    def my_turn(s, i):
        if look == 'all':
            return True
        return lowest(s, {'first': running, 'no patience': living, 'first, dead or not': lambda at: True}[look]) == i

    def next_steps(s, add):
        if s.p != 'dead' and s.p < 2 * puts:
            if s.p % 2 == 0:
                add('P frees one', p=s.p + 1, free=s.free + 1)
            elif s.flag:
                add('P wakes the first', p=s.p + 1, **woken(s))
            else:
                add('P wakes nobody', p=s.p + 1)
            if 'P killed' in harm:
                add('P killed', p='dead')
        for i in range(n):
            at, name = s.w[i], 'W%d' % (i + 1)

            def go(label, to, **more):
                add(name + ' ' + label, w=changed(s.w, i, to), **more)

            if at == 0:
                go('takes a ticket', 1, t=changed(s.t, i, s.next), next=s.next + 1)
            if at == 1:                     # its own word, before anything else
                go('reads its futex', 3 if s.woken[i] or flag == 'after' else 2, new=changed(s.new, i, 0))
            if at == 2:
                go('flag=1, barrier', 3, flag=1)
            again = dict(woken=changed(s.woken, i, 0))
            vain = 1 if s.woken[i] else 'flag' if flag == 'after' else 5
            if at == 3 and my_turn(s, i):
                go('is to look', 4)
            if at == 3 and not my_turn(s, i):
                go('is not the first', vain, **again)
            if at == 4 and s.free:
                go('takes one', 7, free=s.free - 1, order=s.order or any(
                    s.t[k] and s.t[k] < s.t[i] and running(s.w[k]) for k in range(n)))
            if at == 4 and not s.free:
                go('finds none', vain, **again)
            if at == 'flag':
                go('flag=1 after the look', 5, flag=1)
            if at == 5 and not s.new[i]:
                go('sleeps', 'sleep')
            if at in (5, 'sleep') and s.new[i]:
                go('is woken', 1, woken=changed(s.woken, i, 1))
            if at == 'sleep' and not s.new[i] and slices and s.free and my_turn(s, i):
                go('ends a slice', 1)       # other ends of slices change nothing
            if at == 7:
                go('gives its ticket back', 8, t=changed(s.t, i, 0))
            another = lowest(s, living) is not None
            if at == 8 and another:         # a wake may have met it on its way out: it passes one on
                go('sees another ticket', 'end', **({} if leave == 'no pass' else woken(s)))
            if at == 8 and not another:
                go('sees no other ticket', 9)
            if at == 9:
                go('flag=0', 'end' if leave == 'plain' else 10, flag=0)
            if at == 10 and another:
                go('looks again: a ticket', 'end', flag=1, **woken(s))
            if at == 10 and not another:
                go('looks again: none', 'end')
            if i == 0 and at not in (0, 'end', 'dead', 'stopped'):
                for fate in harm:
                    if fate != 'P killed':
                        go(fate, 'dead' if fate == 'killed' else 'stopped')

    def bad(s, final):
        if s.order:
            return 'served out of turn'
        if final and s.free and any(at in ('sleep', 5) for at in s.w):
            return 'an object is free and a waiter sleeps for ever'
    nothing = (0,) * n
    return dict(p=0, free=0, flag=0, next=1, t=nothing, w=nothing, new=nothing, woken=nothing, order=False), next_steps, bad


def main():
    suite = Suite('waiting')
    sleeps = 'an object is free and a waiter sleeps for ever'
    suite.mutant('H time-out by a plain store', hand_over('plain', 'announce'), 'lost')
    suite.mutant("H dead waiter's object freed by a flip", hand_over('cas', 'flip'), 'lost')
    suite.right('H time-out by CAS, recovery announced', hand_over('cas', 'announce'), ('R sees it done', 'R closes'))
    turn = 'served out of turn'
    suite.mutant('L the last to go stores flag=0', waiting(leave='plain'), sleeps)
    suite.mutant('L flag=0, fence, tickets again, but no wake-up passed on', waiting(leave='no pass'), sleeps)
    suite.mutant('L the flag after the look', waiting(flag='after'), sleeps)
    suite.mutant('L everybody looks', waiting(look='all', slices=True), turn)
    suite.right('L flag=0, fence, tickets again; who leaves wakes the next; the first looks', waiting(),
                ('W2 looks again: a ticket', 'W1 sees another ticket', 'P wakes nobody', 'W2 is not the first'))
    suite.right('L the same, three waiters, two puts', waiting(n=3), ('W3 is not the first', 'W3 takes one'))
    suite.mutant('L the woken one dies, no slices', waiting(harm=('killed',)), sleeps)
    suite.mutant('L the putter dies, no slices', waiting(harm=('P killed',)), sleeps)
    suite.mutant('L the woken one dies, slices, and stays the first', waiting(
        harm=('killed',), slices=True, look='first, dead or not'), sleeps)
    suite.mutant('L the woken one is stopped, slices, and nobody loses patience', waiting(
        harm=('stopped',), slices=True, look='no patience'), sleeps)
    suite.right('L the woken one dies or is stopped, slices', waiting(harm=('killed', 'stopped'), slices=True),
                ('W1 killed', 'W1 stopped', 'W2 ends a slice'))
    suite.right('L the putter dies, too, slices', waiting(harm=('killed', 'stopped', 'P killed'), slices=True),
                ('P killed', 'W1 ends a slice'))
    suite.right('L the same, three waiters, one put', waiting(n=3, puts=1, harm=('killed', 'stopped', 'P killed'),
                                                              slices=True), ('W3 takes one', 'W1 killed'))
    suite.finish()


if __name__ == '__main__':
    main()
