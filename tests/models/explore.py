"""
A small engine for exhaustive explicit-state models.

A model is three things: the first state (a dict of hashable values), a function next(s, add) that adds every step
somebody can take in state s, and a function bad(s, final) that names the fault of s or returns None (final: nobody
can take a step). States are named tuples: s.word reads, add('label', word=1) makes the state in which word alone
differs; a name that the first state lacks is an error. The search is breadth first, so the path to a fault is a
shortest one. The grain of atomicity is one add: whatever two processors could interleave must be two steps.

A file *_model.py builds its cases with a Suite and ends with finish(). A right form must hold, within the limit,
and must have taken every step named in reaches (so that it does not hold because nothing happened). A mutant must
show the fault it is listed with; if it holds, or fails in another way, that is a failure, since then the model does
not see what it is there to see. A fault is compared up to its first colon. Output is one line a case; -v prints the
counterexamples of mutants too, those of right forms are always printed; deep adds larger cases, minutes instead of
seconds. Exit status 0 only if everything is as listed.
"""
import gc
import sys
import time
from collections import deque, namedtuple

LIMIT = 600000


def explore(init, next_steps, bad, limit=LIMIT):
    """Returns (number of states, fault or None, path to it, set of labels taken)."""
    kind = namedtuple('State', init)
    index = {name: i for i, name in enumerate(init)}
    first = kind(**init)
    came_from = {first: None}
    queue = deque([first])
    labels = set()
    found = []

    def add(label, **changes):
        values = list(s)
        for name, value in changes.items():
            values[index[name]] = value
        found.append((label, kind._make(values)))

    def path_to(state):
        path = []
        while came_from[state]:
            state, label = came_from[state]
            path.append(label)
        return path[::-1]

    while queue:
        s = queue.popleft()
        found.clear()
        next_steps(s, add)
        fault = bad(s, not found)
        if fault:
            return len(came_from), fault, path_to(s), labels
        for label, t in found:
            labels.add(label)
            if t not in came_from:
                came_from[t] = (s, label)
                queue.append(t)
        if len(came_from) > limit:
            return len(came_from), 'limit reached', [], labels
    return len(came_from), None, [], labels


def drain(s, add, who, buf='buf'):
    """A store buffer as a tuple of (changes, label): the oldest store reaches memory. Used by the models under TSO."""
    waiting = getattr(s, buf)
    if waiting:
        name, value = waiting[0]
        add('%s drains %s=%s' % (who, name, value), **{buf: waiting[1:], name: value})


def seen(s, name, buf='buf'):
    """What the owner of a store buffer reads: its own newest store, else memory. buf None: memory alone."""
    for stored, value in reversed(getattr(s, buf) if buf else ()):
        if stored == name:
            return value
    return getattr(s, name)


class Suite:
    def __init__(self, name):
        self.name, self.ok, self.states, self.begin = name, True, 0, time.monotonic()
        self.verbose = '-v' in sys.argv[1:]
        self.deep = 'deep' in sys.argv[1:]
        gc.disable()        # millions of live tuples and no cycles: the collector would only walk them again and again

    def line(self, ok, kind, title, states, verdict, path):
        self.ok &= ok
        self.states += states
        print('%-5s %-6s %-82s %7d states  %s' % ('ok' if ok else 'WRONG', kind, title, states, verdict), flush=True)
        if path and (self.verbose or not ok):
            print('             ' + '; '.join(path), flush=True)

    def right(self, title, model, reaches=(), limit=LIMIT):
        states, fault, path, labels = explore(*model, limit=limit)
        missing = [] if fault else [r for r in reaches if not any(label.startswith(r) for label in labels)]
        verdict = fault or ('never reaches: ' + ', '.join(missing) if missing else 'holds')
        self.line(verdict == 'holds', 'right', title, states, verdict, path)

    def mutant(self, title, model, fault, limit=LIMIT):
        states, got, path, _ = explore(*model, limit=limit)
        ok = got is not None and got.split(':')[0] == fault
        self.line(ok, 'mutant', title, states, got or 'holds', path)
        if not ok:
            print('             must show: ' + fault, flush=True)

    def finish(self):
        print('%s: %s (%d states, %.1f s)' % (self.name, 'as listed' if self.ok else 'NOT as listed', self.states,
                                              time.monotonic() - self.begin))
        sys.exit(0 if self.ok else 1)
