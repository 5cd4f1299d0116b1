"""
What the models of the shared heap have in common beside explore.py: a right form that must not only be safe but
from every state of which a state with `goal` can be reached (so nothing is stuck or lost for good), and its
mutants, which show 'stuck'.
"""
from array import array
from collections import namedtuple

from explore import LIMIT, Suite


def explore_back(init, next_steps, bad, goal, limit=LIMIT):
    """As explore(), and every state must have a way to one in which goal(s) holds."""
    kind = namedtuple('State', init)
    names = tuple(init)
    place = {name: i for i, name in enumerate(names)}
    first = kind(**init)
    index, order, parent, how = {first: 0}, [first], array('l', [-1]), [None]
    source, target = array('l'), array('l')
    labels = set()
    at = 0

    def add(label, **changes):
        values = list(s)
        for name, value in changes.items():
            values[place[name]] = value
        t = kind._make(values)
        i = index.get(t)
        if i is None:
            i = index[t] = len(order)
            order.append(t)
            parent.append(at)
            how.append(label)
        labels.add(label)
        source.append(at)
        target.append(i)
        count[0] += 1

    def path_to(i):
        path = []
        while parent[i] >= 0:
            path.append(how[i])
            i = parent[i]
        return path[::-1]

    count = [0]
    while at < len(order):
        s = order[at]
        count[0] = 0
        next_steps(s, add)
        fault = bad(s, not count[0])
        if fault:
            return len(order), fault, path_to(at), labels
        if len(order) > limit:
            return len(order), 'limit reached', [], labels
        at += 1
    into = [[] for _ in order]
    for a, b in zip(source, target):
        into[b].append(a)
    done = bytearray(len(order))
    todo = [i for i, s in enumerate(order) if goal(s)]
    for i in todo:
        done[i] = 1
    while todo:
        for a in into[todo.pop()]:
            if not done[a]:
                done[a] = 1
                todo.append(a)
    stuck = done.find(0)
    if stuck >= 0:
        return len(order), 'stuck', path_to(stuck), labels
    return len(order), None, [], labels


class HeapSuite(Suite):
    def live(self, title, model, goal, reaches=(), limit=LIMIT):
        states, fault, path, labels = explore_back(*model, goal, limit=limit)
        missing = [] if fault else [r for r in reaches if not any(label.startswith(r) for label in labels)]
        verdict = fault or ('never reaches: ' + ', '.join(missing) if missing else 'holds, and goes on')
        self.line(verdict == 'holds, and goes on', 'right', title, states, verdict, path)

    def stuck(self, title, model, goal, limit=LIMIT):
        states, fault, path, _ = explore_back(*model, goal, limit=limit)
        self.line(fault == 'stuck', 'mutant', title, states, fault or 'holds', path)
