"""
FK: fork. Parent P has a slot that owns unit U; its thread remembers the slot. At any time P forks, between
operations or (a signal handler does) in the middle of one. Child C inherits the mapping, the program counter and
registers, and the remembered slot unless that lies in memory the kernel wipes on fork (MADV_WIPEONFORK): then C
registers anew and owns a unit of its own. A child born in the middle of an operation would go on storing into the
parent's unit with what its registers hold; the fork handler, which noted in_op before the fork, therefore takes the
pool's mapping from it. Abstracted: an operation reads the word A, picks a free granule, stores the word with its
bit set; nothing is freed; the child's first call finds a free unit V. A fork by a bare system call in the middle of
an operation runs no handler: it is excluded by contract.

SI: signals. One thread with a list of slots, each owning a unit of three granules. An operation looks for a slot of
its list whose in_op is 0 (and registers another slot where there is none), sets in_op, reads A and picks, stores A,
clears in_op. Two signals may come between any two steps, also while a handler runs; each handler does an operation
of its own and returns. A slot that is found idle and entered later may be used in between: the handler is through
by then, which is all that is needed. A new slot is put into the list by one instruction (read-modify-write; no lock
prefix is needed, the thread is its own only rival), or else a handler that registers in between is overwritten and
its slot is lost until the process ends. Abstracted: a handler that leaves by siglongjmp (excluded by contract).

Checked: no granule has two owners, what is held is live; SI: no slot is lost.
"""
from explore import Suite


def fork(wipe=True, in_the_middle='mapping taken away', forks='anywhere'):
    def next_steps(s, add):
        for x in 'PC':
            at, slot = getattr(s, x), getattr(s, 'slot' + x)
            if at == 'idle' and getattr(s, 'n' + x) < 2:
                if not slot:
                    add(x + ' registers', **{'slot' + x: 'V'})
                else:
                    a = getattr(s, 'A' + slot)
                    for g in (1, 2):
                        if not a & g:
                            add('%s picks %d in %s' % (x, g, slot), **{x: ('store', slot, g, a)})
            if at[0] == 'store':
                _, unit, g, a = at
                add('%s stores A of %s' % (x, unit), held=tuple(sorted(s.held + ((unit, g),))),
                    **{'A' + unit: a | g, x: 'idle', 'n' + x: getattr(s, 'n' + x) + 1})
        if s.C == 'unborn' and (s.P == 'idle' or forks == 'anywhere'):
            middle = s.P != 'idle'
            child = 'faults' if middle and in_the_middle == 'mapping taken away' else s.P
            add('P forks' + (' in the middle' if middle else ''), C=child, slotC='' if wipe else s.slotP, nC=0)

    def bad(s, final):
        if len(set(s.held)) < len(s.held):
            return 'two owners'
        for unit, g in s.held:
            if not getattr(s, 'A' + unit) & g:
                return 'held run not live'
    return dict(AU=0, AV=0, held=(), P='idle', slotP='U', nP=0, C='unborn', slotC='', nC=0), next_steps, bad


def signals(choose='idle slot', link='one instruction', picks='inside'):
    def put(row, i, value):
        return row[:i] + (value,) + row[i + 1:]

    def next_steps(s, add):
        if s.signals < 2 and s.stack:
            add('signal', signals=s.signals + 1, stack=s.stack + (('start',),))
        if not s.stack:
            if s.n < 2:
                add('thread calls', stack=(('start',),), n=s.n + 1)
            return
        frame, below = s.stack[-1], s.stack[:-1]

        def go(label, *new, **changes):
            who = 'handler %d ' % len(below) if below else ''
            add(who + label, stack=below + ((new,) if new else ()), **changes)
        if frame[0] == 'start':
            idle = [slot for slot in s.list if not s.in_op[slot]]
            if choose == 'first slot':
                idle = list(s.list[:1])
            if choose == 'second at most' and len(s.list) > 1:
                idle = idle or [s.list[1]]
            if idle:
                go('finds slot %d idle' % idle[0], 'enter' if picks == 'inside' else 'pick', idle[0])
            else:
                new = s.slots
                go('registers slot %d' % new, 'link', new, slots=new + 1, in_op=s.in_op + (0,), A=s.A + (0,))
        if frame[0] == 'link':
            if link == 'one instruction':
                go('links slot %d' % frame[1], 'enter', frame[1], list=s.list + (frame[1],))
            else:
                go('reads the list', 'append', frame[1], len(s.list))
        if frame[0] == 'append':
            _, new, i = frame
            go('links slot %d' % new, 'enter', new, list=s.list[:i] + (new,) + s.list[i + 1:])
        if frame[0] == 'enter':
            then = ('pick', frame[1]) if len(frame) == 2 else ('store',) + frame[1:]
            go('in_op=1', *then, in_op=put(s.in_op, frame[1], 1))
        if frame[0] == 'pick':
            a = s.A[frame[1]]
            free = [g for g in (1, 2, 4, 8) if not a & g]
            go('picks', 'store' if s.in_op[frame[1]] else 'enter', frame[1], free[0], a)
        if frame[0] == 'store':
            _, slot, g, a = frame
            go('stores A', 'leave', slot, A=put(s.A, slot, a | g), held=s.held + ((slot, g),))
        if frame[0] == 'leave':
            go('in_op=0', in_op=put(s.in_op, frame[1], 0))

    def bad(s, final):
        if len(set(s.held)) < len(s.held):
            return 'two owners'
        for slot, g in s.held:
            if not s.A[slot] & g:
                return 'held run not live'
        linking = [f[1] for f in s.stack if f[0] in ('link', 'append')]
        if any(slot not in s.list and slot not in linking for slot in range(s.slots)):
            return 'slot lost'
    return dict(list=(), slots=0, in_op=(), A=(), held=(), stack=(), n=0, signals=0), next_steps, bad


def main():
    suite = Suite('fork and signals')
    suite.right('FK remembered slot is wiped, a child born in the middle loses the mapping', fork(),
                ('P forks in the middle', 'C registers', 'C stores A of V'))
    suite.mutant('FK remembered slot is inherited', fork(wipe=False, forks='between operations'), 'two owners')
    suite.mutant('FK a child born in the middle goes on', fork(in_the_middle='goes on'), 'two owners')
    suite.right('SI in_op set: another slot, as many as it takes', signals(),
                ('handler 1 registers slot 1', 'handler 2 registers slot 2', 'handler 1 finds slot 0 idle'))
    suite.mutant('SI the handler uses the same slot', signals(choose='first slot'), 'two owners')
    suite.mutant('SI a second slot, but never a third', signals(choose='second at most'), 'two owners')
    suite.mutant('SI a new slot linked in two steps', signals(link='two steps'), 'slot lost')
    suite.mutant('SI looked at before in_op=1, used after it', signals(picks='before'), 'two owners')
    suite.finish()


if __name__ == '__main__':
    main()
