"""
PN: pins on one object of a slab (src/pool/lent.h, src/slab/lend.c). Rings X and Y pin it, the kernel writes to it, they take their
pins off; its holder frees it at any time, as the slab's owner (a store to A) or not (a swap of R), but not while a
living process submits I/O on it; the owner finds it free again by reading state, R, state, and hands it out, and
the new holder may do the same again. A ring's process may be killed before any step; the kernel goes on for some time;
then somebody closes the ring, and may be killed at that too.

The state counts pins, 7 is RETURNING, 8 more: freed. A change of it carries the mark {ring, step}; who overwrites
another's mark notes it first. Steps of a pin: number k; of taking it off: k (counted down), k + 1 (RETURNING),
k + 3 (0).

Checked: while the kernel writes, the object is not live by its bits, its state is not 0, and nobody has got it; nobody is
handed what is somebody's; when both rings have nothing any more the state is 0 and the object is live if and only
if it has a holder; a count never goes below what is pinned. Abstracted: one object (others' changes of the word
are marks of ring Z, now and then), no store buffers (all of it is swaps, but for A, which the owner alone stores).
"""
from explore import Suite

RETURNING, FREED = 7, 8


def pins(rounds=(1, 1), deaths=(1, 0), frees=1, notes=True, marks=True, absolute=True, returning=True, both=True, diverts=True,
         others=True, waits=True, order=True):
    rings = ('X', 'Y')

    def next_steps(s, add):
        for r, most, n in zip(rings, deaths, rounds):
            ring(s, add, r, most, n)
        holder(s, add)
        if others and s.z < 1 and s.n:
            z_note = {} if not notes or s.mark[0] in '-Z' else {'done' + s.mark[0]: max(s.mark[1], getattr(s, 'done' + s.mark[0]))}
            add('Z changes the word', z=s.z + 1, mark=('Z', 0), **z_note)

    def live(s):
        return s.a ^ s.r

    def holder(s, add):
        submitting = any((getattr(s, 'entry' + r)[0] == 'adding' or getattr(s, 'at' + r)[0] == 'io') and
                         not getattr(s, 'closing' + r) for r in rings)
        if s.own == 'H' and s.freed < frees and not submitting:
            if live(s) and s.look is None:
                add('the owner frees it', a=1 - s.a, own='-', freed=s.freed + 1, hand=1)
            if live(s) and (not s.n or not diverts):
                add('somebody frees it', r=1 - s.r, own='-', freed=s.freed + 1)
            if s.n and s.n < FREED and (diverts or not live(s)):
                add('it is freed under I/O', n=s.n + FREED, own='-', freed=s.freed + 1)
        # the owner looks for free objects
        if not s.hand and s.look is None and s.looks < 2:
            add('looks at the state', look=(s.n, s.mark, 0), looks=s.looks + 1)
        if s.look and s.look[2] == 0:
            if live(s) or s.look[0]:
                add('finds it is not free', look=None)
            else:
                add('finds it free', look=s.look[:2] + (1,))
        if s.look and s.look[2] == 1:
            if (s.n, s.mark) == s.look[:2] or not both:
                add('has it at hand', look=None, hand=1)
            else:
                add('looks again', look=None)
        if s.hand and s.freed <= frees:
            if live(s) or s.own != '-':
                add('hands it out', fault='handed out twice')
            else:
                add('hands it out', a=1 - s.a, own='H', hand=0)

    def ring(s, add, r, most, most_rounds):
        at, entry = getattr(s, 'at' + r), getattr(s, 'entry' + r)
        done = getattr(s, 'done' + r)

        def has_done(k):
            return marks and (s.mark == (r, k) or done == k)

        def go(label, to, **changes):
            changes['at' + r] = to
            add(r + ' ' + label, **changes)

        def put(**changes):
            return {name + r: value for name, value in changes.items()}

        def change(label, n, k, to, back, **changes):
            """A swap of the state in three steps: the word is read, its mark noted, the word swapped."""
            if at[0] == 'note':
                note = {}
                if notes and s.mark[0] not in ('-', 'Z', r):
                    note = {'done' + s.mark[0]: max(s.mark[1], getattr(s, 'done' + s.mark[0]))}
                go('notes', ('swap', at[1], (s.n, s.mark)), **note)
            elif (s.n, s.mark) != at[2]:
                go('is too late', back)
            else:
                go(label, to, n=n, mark=(r, k), **changes)
        if at[0] not in ('idle', 'dead') and getattr(s, 'killed' + r) < most:
            go('is killed', ('dead',), **put(killed=getattr(s, 'killed' + r) + 1, closing=True))
        if at[0] == 'dead':
            if getattr(s, 'io' + r):
                go('the kernel ends', ('dead',), **put(io=False))
                if waits:
                    return
            kind, k, natural = entry
            if kind == 'none':
                go('is closed', ('idle',))
            elif kind == 'adding':
                go('was adding', ('held',), **put(entry=('held' if has_done(k) else 'none', k, natural)))
            elif kind == 'held':
                go('was pinned', ('held',))
            elif has_done(k) or has_done(k + 3):
                go('had dropped', ('idle',), **put(entry=('none', k, natural)))
            else:
                go('was dropping', ('drop', has_done(k + 1)))
            return
        kind, k, natural = entry
        if at[0] == 'idle':
            if not getattr(s, 'closing' + r) and getattr(s, 'round' + r) < most_rounds and s.own == 'H':
                natural = 1 - s.a
                go('will pin', ('add',), **put(entry=('adding', k + 4, natural), round=getattr(s, 'round' + r) + 1))
        if at[0] == 'add':
            if s.n >= FREED or s.n >= 6 or s.own != 'H':
                go('is refused', ('idle',), **put(entry=('none', k, natural)))
            else:
                go('reads', ('note', 'add'))
        if at[0] in ('note', 'swap') and at[1] == 'add':
            if at[0] == 'swap' or not (s.n >= 6):
                change('counts', s.n + 1, k, ('bit',), ('add',))
            else:
                go('is refused', ('idle',), **put(entry=('none', k, natural)))
        if at[0] == 'bit':
            r_new = 1 - natural if absolute else (1 - s.r if live(s) else s.r)
            go('changes the bit', ('io',), r=r_new, **put(entry=('held', k, natural)))
        if at[0] == 'io':
            go('submits', ('held',), **put(io=True))
        if at[0] == 'held':
            if kind == 'none':
                go('has nothing', ('idle',))
            elif getattr(s, 'io' + r) and (waits or not getattr(s, 'closing' + r)):
                go('the kernel ends', ('held',), **put(io=False))
            else:
                go('will drop', ('drop', False), **put(entry=('dropping', k + 4, natural)))
        if at[0] == 'drop':
            left = s.n % FREED
            if left == 0 or (left == RETURNING and not at[1]):
                go('finds no pin', ('idle',), fault='' if left else 'a pin that was not counted', **put(entry=('none', k, natural)))
            elif 1 < left < RETURNING:
                go('reads', ('note', 'less'))
            elif s.n == 1 and returning:
                go('reads', ('note', 'return'))
            elif order:
                value = natural if s.n < FREED else 1 - natural
                if not absolute:
                    value = s.r if live(s) == (s.n < FREED) else 1 - s.r
                go('sets the bit', ('note', 'end', s.n), r=value)
            else:
                go('reads', ('note', 'end', s.n))
        if at[0] in ('note', 'swap') and at[1] == 'less':
            if at[0] == 'note' and not 1 < s.n % FREED < RETURNING:
                go('looks again', ('drop', False))
            else:
                change('counts less', s.n - 1, k, ('clear',), ('drop', False))
        if at[0] in ('note', 'swap') and at[1] == 'return':
            if at[0] == 'note' and s.n != 1:
                go('looks again', ('drop', False))
            else:
                change('is returning', RETURNING, k + 1, ('drop', True), ('drop', False))
        if at[0] == 'note' and at[1] == 'end' and s.n != at[2]:
            go('looks again', ('drop', True))
        elif at[0] == 'note' and at[1] == 'end':
            note = {}
            if notes and s.mark[0] not in ('-', 'Z', r):
                note = {'done' + s.mark[0]: max(s.mark[1], getattr(s, 'done' + s.mark[0]))}
            go('notes', ('swap', 'end', (s.n, s.mark)), **note)
        elif at[0] == 'swap' and at[1] == 'end':
            if (s.n, s.mark) != at[2]:
                go('looks again', ('drop', True))
            elif order:
                go('ends', ('clear',), n=0, mark=(r, k + 3))
            else:
                go('ends', ('late', natural if s.n < FREED else 1 - natural), n=0, mark=(r, k + 3))
        if at[0] == 'late':
            go('sets the bit', ('clear',), r=at[1])
        if at[0] == 'clear':
            go('has dropped', ('idle',), **put(entry=('none', k, natural)))

    def bad(s, final):
        if s.fault:
            return s.fault
        for r in rings:
            if getattr(s, 'io' + r):
                if live(s):
                    return 'under I/O, and a free would be believed'
                if not s.n:
                    return 'under I/O, and not lent'
        if all(getattr(s, 'at' + r)[0] == 'idle' for r in rings):
            if s.n:
                return 'a pin is left'
            if live(s) and s.own == '-':
                return 'lost'
            if not live(s) and s.own == 'H':
                return "freed, and somebody's"
    init = dict(a=1, r=0, n=0, mark=('-', 0), own='H', freed=0, hand=0, look=None, looks=0, z=0, fault='')
    for r in rings:
        init.update({'at' + r: ('idle',), 'entry' + r: ('none', 0, 0), 'done' + r: -1, 'io' + r: False, 'killed' + r: 0,
                     'closing' + r: False, 'round' + r: 0})
    return init, next_steps, bad


def main():
    suite = Suite('pins')
    life = ('X is killed', 'X was adding', 'X was dropping', 'X had dropped', 'X is returning', 'it is freed under I/O',
            'the owner frees it', 'somebody frees it', 'hands it out', 'X counts less', 'Y counts less', 'Z changes')
    suite.right('PN two rings, one of them killed', pins(), life)
    suite.right('PN one ring, killed twice, freed twice', pins(rounds=(2, 0), deaths=(2, 0), frees=2), life[:3])
    if suite.deep:
        suite.right('PN two rings, both killed', pins(deaths=(1, 1), frees=2), life, limit=6000000)

    def mutant(title, fault, **case):
        suite.mutant('PN ' + title, pins(**case), fault)
    mutant('no marks: what is counted already is not taken off', 'a pin is left', marks=False)
    mutant('who overwrites a mark does not note it', 'a pin is left', notes=False)
    mutant('the bit is flipped, not stored', 'handed out twice', absolute=False)
    mutant('the last pin goes without RETURNING', "freed, and somebody's", returning=False)
    mutant('the state goes before the bit', 'lost', order=False)
    mutant('remote frees do not look at the state', 'lost', diverts=False)
    mutant('the state is not looked at again', 'handed out twice', both=False, rounds=(1, 1), frees=2)
    mutant('the ring is closed before the kernel ends', 'under I/O, and a free would be believed', waits=False)
    suite.finish()


if __name__ == '__main__':
    main()
