"""
FK: fork. A thread of P (slot S) enters a section, guards, begins, sets, commits, takes the guard down, exits, as
the program says; between any two calls it forks, and the child C goes on with the same program. What the kernel
wipes on fork are the thread's slot and the transaction; handle and guard set come along. A child without a slot
gets one of its own, T, when it needs one; without a transaction set and commit are refused; a guard set carries
{slot, generation}, which is not T's; and exit in a slot without a section does nothing. A handler that forks in the
middle of one of these calls is excluded by contract: the child would go on with what its registers hold (in_op, by
which other calls notice that, is not set here). The bit that says that the heap is open is the record's, and until
the child has joined (with its first slot) what it remembers is its parent's record: closing touches no bit then.
Checked: the child stores nothing into slot, lock, log, or visible values of its parent, and the parent has its bit
as long as it has the heap open.

SI: signals. A thread enters and exits, nested, and handlers do the same between any two instructions: enter loads
the section word, and the pool's epoch if that is 0, and stores one word; exit loads it and stores it. The epoch
moves meanwhile. Checked: whoever has entered and not begun to exit finds its section open, with the epoch that it
began with or an older one; when all are out the word is 0.
"""
from explore import Suite

PROGRAM = ('enter', 'guard', 'begin', 'set', 'set', 'commit', 'unguard', 'exit', 'close', 'end')


def fork(slot='wiped', transaction='wiped', guards='slot and generation', middle=False, reused=False,
         closes='own bit'):
    def next_steps(s, add):
        for x in 'PC':
            if getattr(s, 'at' + x):
                call(s, add, x, *getattr(s, 'at' + x))
        if not s.atC and (middle or not s.atP[1]):
            add('P forks in the middle' if s.atP[1] else 'P forks', atC=s.atP, setC=s.setP,
                slotC='' if slot == 'wiped' else s.slotP, txC=0 if transaction == 'wiped' else s.txP)
        if reused and PROGRAM[s.atP[0]] == 'end' and s.owner == 'P':
            add("P's thread ends, its slot is free", owner='', S_generation=2, slotP='gone')

    def call(s, add, x, k, register):
        op, mine, tx = PROGRAM[k], getattr(s, 'slot' + x), getattr(s, 'tx' + x)

        def go(label, **changes):
            fault = ''
            if any(w[:2] == 'S_' for w in changes) and s.owner != x:
                fault = "stores into another's slot"
            if 'log' in changes and s.lock != x:
                fault = "stores into another's log"
            add('%s %s' % (x, label), **dict(dict({'at' + x: (k + 1, '')}, fault=fault), **changes))

        def load(what):                         # a call that a handler may come into
            if not register:
                add('%s loads its %s' % (x, 'slot' if op == 'enter' else 'cursor'), **{'at' + x: (k, what)})
            return register
        if op == 'end':
            return
        if op == 'close':
            # the process' record, and its bit of the heap, is its parent's until it has joined
            joined = x == 'P' or mine not in ('', s.slotP)
            if joined:
                go('closes', **{'bit' + x: 0})
            elif closes == 'own bit':
                go('closes: it has no bit')
            else:
                go('closes', bitP=0)
            return
        if not mine and op not in ('set', 'commit') and not register:
            free = reused and not s.owner
            add(x + ' gets slot ' + ('S' if free else 'T'), **{
                'slot' + x: 'S' if free else 'T', 'owner': x if free else s.owner, 'bit' + x: 1})
            return
        if op == 'enter' and load(mine):
            go('enters', **{register + '_section': 1})
        if op == 'exit' and getattr(s, mine + '_section'):
            go('exits', **{mine + '_section': 0})
        elif op == 'exit':
            go('has no section')
        if op == 'guard':
            go('guards', **{mine + '_cell': 1, 'set' + x: (mine, getattr(s, mine + '_generation'))})
        if op == 'unguard':
            named, me = getattr(s, 'set' + x), (mine, getattr(s, mine + '_generation'))
            if guards == 'nobody asks':
                go('takes the guard down', **{named[0] + '_cell': 0})
            elif named == me:
                go('takes the guard down', **{mine + '_cell': 0})
            elif guards == 'slot' and named[0] == mine:
                go("takes another's guard down", **dict({mine + '_cell': 0}, fault="takes another's guard down"))
            else:
                go('unguard is refused')
        if op == 'begin' and not s.lock:
            go('begins', lock=x, **{'tx' + x: 1})
        elif op == 'begin':
            go('does not get the lock')
        if op in ('set', 'commit') and not tx and not register:
            go(op + ' is refused')
        elif op == 'set' and load('cursor'):
            go('sets', log=s.log + 1)
        elif op == 'commit':
            go('commits', log=0, lock=0, **{'tx' + x: 0})

    def bad(s, final):
        if PROGRAM[s.atP[0]] != 'end' and not s.bitP:
            return 'the parent has it open without a bit'
        return s.fault or None
    init = dict(owner='P', lock=0, log=0, fault='', atP=(0, ''), atC=None, slotP='S', slotC='', txP=0, txC=0, setP=None,
                setC=None, bitP=1, bitC=0)
    for slots in 'ST':
        init.update({slots + '_section': 0, slots + '_cell': 0, slots + '_generation': 1})
    return init, next_steps, bad


def signals(words=1, nested='keeps the epoch', most=2):
    """The stack's frames: (call, step, what was loaded). words=2: depth and epoch apart, as a mutant."""
    def next_steps(s, add):
        if s.E < 3:
            add('the epoch moves', E=s.E + 1)
        if s.signals < most and s.stack and s.stack[-1][1] != 'new':
            add('signal', signals=s.signals + 1, stack=s.stack + (('enter', 'new', None),))
        if not s.stack:
            if s.n < 4:
                add('thread calls', n=s.n + 1, stack=(('enter' if s.n < 2 else 'exit', 'new', None),))
            return
        call, step, loaded = s.stack[-1]
        below = s.stack[:-1]
        who = 'handler %d ' % len(below) if below else 'thread '

        def go(label, frame, **changes):
            if frame is None and below and call == 'enter':
                frame = ('exit', 'new', None)   # a handler exits what it has entered
            add(who + label, stack=below + ((frame,) if frame else ()), **changes)
        epoch, depth = s.word
        if step == 'new':
            if call == 'exit':                  # what it began is not its any more
                go('loads the word', (call, 'store', s.word), open=s.open[:-1])
            elif words == 2:
                go('counts the depth up', (call, 'store', depth), word=(epoch, depth + 1))
            elif depth:
                go('loads the word', (call, 'store', s.word))
            else:
                go('loads 0', (call, 'epoch', None))
        if step == 'epoch':
            go('loads the epoch', (call, 'store', (s.E, 0)))
        if step == 'store' and call == 'enter':
            if words == 2:
                go('enters', None, word=(epoch if loaded else s.E, depth), open=s.open + (s.E,))
            else:
                e = s.E if nested == 'takes the newer' else loaded[0]
                go('enters', None, word=(e, loaded[1] + 1), open=s.open + (s.E,))
        if step == 'store' and call == 'exit':
            if words == 2:
                go('exits', None, word=(0 if loaded[1] == 1 else epoch, depth - 1))
            else:
                go('exits', None, word=(0, 0) if loaded[1] == 1 else (loaded[0], loaded[1] - 1))

    def bad(s, final):
        for began in s.open:
            if not s.word[0]:
                return 'inside, and no section'
            if s.word[0] > began:
                return 'inside, with a younger epoch'
        if not s.stack and not s.open and s.word != (0, 0):
            return 'out, and a section stays'
    return dict(E=1, word=(0, 0), stack=(), open=(), n=0, signals=0), next_steps, bad


def main():
    suite = Suite('heap, fork')
    suite.right('FK slot and transaction are wiped, guard sets name slot and generation', fork(),
                ('C gets slot T', 'C set is refused', 'C commit is refused', 'C unguard is refused', 'C has no section',
                 'C takes the guard down', 'C begins', 'C sets', 'C closes: it has no bit'))
    suite.right("FK the child gets the slot that was its parent's", fork(reused=True),
                ('C gets slot S', 'C unguard is refused'))
    slot, log = "stores into another's slot", "stores into another's log"
    suite.mutant('FK the slot is inherited', fork(slot='inherited'), slot)
    suite.mutant('FK the transaction is inherited', fork(transaction='inherited'), log)
    suite.mutant('FK nobody asks whose a guard set is', fork(guards='nobody asks'), slot)
    suite.mutant('FK a guard set names the slot alone', fork(reused=True, guards='slot'), "takes another's guard down")
    suite.mutant('FK closing before it has joined takes the bit that it finds', fork(closes='the bit it finds'),
                 'the parent has it open without a bit')
    suite.mutant('FK a handler forks in the middle of enter', fork(middle=True), slot)
    suite.right('SI one word for depth and epoch', signals(),
                ('handler 2 enters', 'thread exits', 'the epoch moves', 'handler 1 loads 0'))
    suite.mutant('SI depth and epoch in two words', signals(words=2), 'inside, and no section')
    suite.mutant('SI a nested enter takes the newer epoch', signals(nested='takes the newer'),
                 'inside, with a younger epoch')
    suite.finish()


if __name__ == '__main__':
    main()
