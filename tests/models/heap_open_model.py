"""
OP: making, opening, and ending a heap. One entry: word = {generation, state}, lock, a bit for each process that has
it open, two runs. Processes A, B, C, each with a store buffer: each makes a heap where there is none, opens what it
has been told of (some live generation it saw), closes, ends what it has open. A and B may be killed before any
step; what they had retired still becomes visible; then their lock becomes ORPHAN. Whoever takes the lock looks at
the word first.

LIVE -> ENDING; fence; the bits of others, of each whether its process lives; one is set: LIVE again. Else GONE, and
this is the commit: grace, runs go back, FREE of the next generation. Found by the next holder: MAKING: all runs go
back, FREE; GONE: the same after grace; ENDING: nothing has happened yet, LIVE. Opening: own bit, fence, the word;
not LIVE of that generation: the bit goes.

With force the bits are not looked at. Sections: B enters one, looks at the word, and if the heap is its own, and
not GONE, reads; ENDING counts as LIVE there, since the heap may stay. Grace is membarrier, and then B seen outside
once.

Abstracted: a run is taken and given back in one step (heap_run_model.py); the recovery of a dead process' bits,
since who looks at a bit asks whether its process lives; who has it open in one process is counted there; epochs.

Checked: who has a heap open, and has not ended it, has all of its runs, whoever dies; who reads, too, with force;
no run is lost; and from every state one can be reached in which nobody has the lock and the entry is FREE or LIVE.
"""
from explore import drain
from heap_explore import HeapSuite

FREE, MAKING, LIVE, ENDING, GONE = 'FREE', 'MAKING', 'LIVE', 'ENDING', 'GONE'
ALL = 'ABC'


def entry(who='ABC', killed='AB', fences=('open', 'end'), order='bit, word', dead_ender='LIVE again', gone=True,
          compares=True, generations=2, force=False, drops='always', grace=(GONE, 'dead ender')):
    def next_steps(s, add):
        for x in who:
            drain(s, add, x, 'buf' + x)
            if not s.dead & 1 << ALL.index(x):
                process(s, add, x)
            elif s.lock == x and not getattr(s, 'buf' + x):
                add('slot of %s recovered' % x, lock='orphan')

    def process(s, add, x):
        pc, g = getattr(s, 'pc' + x)
        buf = getattr(s, 'buf' + x)
        word, bit = s.word, 'bit' + x
        for name, value in buf:
            if name == 'word':
                word = value

        def go(label, pc, g=g, put=(), **changes):
            changes['pc' + x] = (pc, g)
            if put:
                changes['buf' + x] = buf + put
            add('%s %s' % (x, label), **changes)
        if x in killed and pc != 'idle':
            add(x + ' killed', dead=s.dead | 1 << ALL.index(x))
        if len(buf) > 1:
            return
        takes = s.lock in ('-', 'orphan') and not buf
        if pc == 'idle':
            if takes and word[1] in (FREE, MAKING, ENDING, GONE) and (word[1] != FREE or word[0] < generations):
                go('takes the lock to make', 'look', -1, lock=x)
            if word[1] == LIVE and order == 'bit, word':
                go('opens: bit', 'opens', word[0], put=((bit, 1),))
            if word[1] == LIVE and order == 'word, bit':
                go('opens: word', 'opens', word[0])
        if pc == 'opens' and order == 'word, bit':
            go('opens: bit', 'open', put=((bit, 1),))
        elif pc == 'opens' and (not buf or 'open' not in fences):
            if word[1] == LIVE and (word[0] == g or not compares):
                go('has it open', 'open')
            else:
                keeps = drops == 'same generation' and word[0] != g
                go('finds it gone or going', 'idle', 0, put=() if keeps else ((bit, 0),))
        if pc == 'open':
            go('closes', 'idle', 0, put=((bit, 0),))
            if takes:
                go('takes the lock to end', 'look', lock=x)
        if force and x == 'B' and pc == 'open':
            go('enters a section', 'section', put=(('sec', 1),))
        if pc == 'section' and word[0] == g and word[1] in (LIVE, ENDING):
            go('reads', 'reading')
        elif pc == 'section':
            go('finds nothing to read', 'open', put=(('sec', 0),))
        if pc == 'reading':
            go('exits', 'open', put=(('sec', 0),))
        if pc == 'look':                        # g: what it has open; -1: nothing; 'dead': a dead ender's
            if word[1] == FREE and g < 0 and word[0] < generations:
                go('MAKING', 'make', word[0], put=(('word', (word[0], MAKING)),))
            elif word[1] == MAKING or word[1] == ENDING and dead_ender == 'goes on':
                go('finds a dead maker', 'gives back')
            elif word[1] == GONE:
                go('finds a dead ender: GONE', 'barrier' if 'dead ender' in grace else 'gives back', 'dead')
            elif word[1] == ENDING:
                if dead_ender == 'asks again':
                    go('asks again', 'bits', g)
                else:
                    go('finds a dead ender: LIVE', 'unlock', g, put=(('word', (word[0], LIVE)),))
            elif word == (g, LIVE) and g >= 0:
                go('ENDING', 'bits', g, put=(('word', (g, ENDING)),))
            else:
                go('finds nothing to do', 'unlock')
        if pc == 'make':
            if s.runs < 2 and not buf:
                go('takes a run', 'make', runs=s.runs + 1)
            elif s.runs == 2:
                go('has made it', 'made', put=((bit, 1), ('word', (word[0], LIVE))))
        if pc == 'made' and not buf:
            go('unlocks', 'open', lock='-')
        if pc == 'barrier' and not any(getattr(s, 'buf' + y) for y in who):
            go('membarrier', 'grace')
        if pc == 'grace' and not s.sec:
            go('grace is over', 'gives back')
        elif pc == 'grace' and g == 'dead':
            go('leaves it to the next', 'idle', 0, put=((bit, 0),), lock='orphan')
        elif pc == 'grace':
            go('loses patience: LIVE again', 'unlock', put=(('word', (word[0], LIVE)),))
        if pc == 'bits' and ENDING in grace and not s.waited:       # a mutant: grace too early
            if not s.sec and not any(getattr(s, 'buf' + y) for y in who):
                go('waits for grace', pc, waited=1)
        elif pc == 'bits' and (not buf or 'end' not in fences):
            busy = [y for y in who if y != x and getattr(s, 'bit' + y) and
                    not s.dead & 1 << ALL.index(y)]
            if busy and not force:
                go('finds it busy: LIVE again', 'unlock', put=(('word', (word[0], LIVE)),))
            elif gone:
                go('GONE: commit', 'barrier' if GONE in grace else 'gives back', put=(('word', (word[0], GONE)),))
            else:
                go('nobody has it open', 'gives back')
        if pc == 'gives back':
            if s.runs and not buf:
                go('gives a run back', pc, runs=s.runs - 1)
            elif not s.runs:
                go('FREE', 'unlock', -1 if g in (word[0], 'dead') else g, put=(('word', (word[0] + 1, FREE)),))
        if pc == 'unlock' and not buf:
            if g < 0 and getattr(s, bit):
                go('closes and unlocks', 'idle', 0, put=((bit, 0),), lock='-')
            else:
                go('unlocks', 'idle' if g < 0 else 'open', 0 if g < 0 else g, lock='-')

    def bad(s, final):
        for x in who:
            pc, g = getattr(s, 'pc' + x)
            if s.dead & 1 << ALL.index(x):
                continue
            if pc == 'idle' and getattr(s, 'bit' + x) and not getattr(s, 'buf' + x):
                return 'a bit stays'
            uses = pc == ('reading' if force else 'open') and 'word' not in dict(getattr(s, 'buf' + x))
            if uses and (s.runs < 2 or s.word[0] > g):
                return 'in use, and its pages go'
        if s.word[1] == LIVE and s.runs < 2:
            return 'LIVE without its runs'
        if s.word[1] == FREE and s.runs and not any(getattr(s, 'pc' + x)[0] == 'make' for x in who):
            return 'a run is lost'

    def settled(s):
        return s.lock in ('-', 'orphan') and s.word[1] in (FREE, LIVE)
    init = dict(word=(0, FREE), lock='-', runs=0, dead=0, sec=0, waited=0)
    for x in who:
        init.update({'pc' + x: ('idle', 0), 'bit' + x: 0, 'buf' + x: ()})
    return (init, next_steps, bad), settled


def main():
    suite = HeapSuite('heap, opening')

    def live(title, reaches=(), **case):
        model, settled = entry(**case)
        suite.live('OP ' + title, model, settled, ('A has made it', 'B has it open') + reaches)

    def mutant(title, fault, **case):
        suite.mutant('OP ' + title, entry(**case)[0], fault)
    ends = ('A GONE', 'C finds a dead maker', 'C finds a dead ender: LIVE', 'C finds a dead ender: GONE',
            'A finds it busy', 'B finds it gone or going')
    live('three processes, two deaths', ends, generations=1)
    live('two processes, two generations, one death', ('A GONE', 'B finds a dead maker'), who='AB', killed='A')
    live('force, sections', ends[:4] + ('B reads', 'B finds nothing to read',
                                              'A loses patience', 'C leaves it'), force=True, generations=1, killed='A')
    gone, used = 'in use, and its pages go', dict(who='AB', killed='')
    mutant('no fence in opening', gone, fences=('end',), **used)
    mutant('no fence in ending', gone, fences=('open',), **used)
    mutant('the bit after the word was read', gone, order='word, bit', **used)
    mutant('the generation is not compared', gone, compares=False, **used)
    mutant('the bit stays where another generation is found', 'a bit stays', drops='same generation', **used)
    mutant('what a dead ender left in ENDING is ended', gone, dead_ender='goes on', generations=1)
    mutant('runs go in ENDING, the next holder asks again', 'LIVE without its runs', dead_ender='asks again',
           gone=False, generations=1)
    mutant('force: no grace', gone, force=True, grace=(), **used)
    mutant('force: grace before GONE', gone, force=True, grace=(ENDING,), **used)
    mutant("force: no grace after a dead ender's GONE", gone, force=True, grace=(GONE,), generations=1, killed='A')
    suite.finish()


if __name__ == '__main__':
    main()
