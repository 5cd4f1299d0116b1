"""
SE: two heaps in one pool, with one epoch and a phase each. Heap A has object a (bit 1), heap B has b (bit 2), and
each root names its object or nothing. WA and WB, each the holder of its heap's lock, unlink, link back what R
rightly holds, and collect; WA dies, too: its condemned set is void. R enters sections, in which it loads both
roots, guards, moves guards between two cells that take references of either heap, and unguards. (A call of guard or
unguard outside a section opens one itself: nothing is different then but that the registers are empty.)

R, WA and WB have store buffers: a writer's hold its stores to what R reads, the root and `pending` (phase BARRIER
or CONDEMNED). Whatever else the writer has is its own. The collector: marks, pending, e = fetch-add + 1 of the
pool's epoch (its buffer is empty then), membarrier (all are), grace (R's section is 0 or e or later), reads the
cells in order, pending ends, frees, and empties RELEASED cells of its own heap by compare-and-swap. Since only
their order counts, epochs are renumbered, so the number of cycles is unbounded; not in mutants that count wrongly
(`cycles`).

Checked: nothing that R rightly holds or that a root names is free; and from every state one can be reached that has
no garbage and no cells in use.
"""
from explore import drain
from heap_explore import HeapSuite

a, b, REL = 1, 2, 4
OF = {'A': a, 'B': b}
EPOCHS = {'E', 'eA', 'eB', 'sec', 'tmp'}


def two_heaps(count='fetch-add', reuse='tag of what it holds', empties='own', early=None, barrier=True, w_dies=False,
              cycles=None, own=(), roots='AB', unlinks='AB', links='', buffered=False, guards=True, depth=1):
    cells = 'cd' if guards else ''

    def next_steps(s, add):
        def put(label, **changes):
            if cycles is None and not EPOCHS.isdisjoint(changes):       # by rank: 0 stays, the smallest is 1
                def new(name):
                    return changes.get(name, getattr(s, name))
                buf = new('buf')
                used = sorted({new('E'), new('eA'), new('eB'), new('sec'), new('tmp')} |
                              {v for w, v in buf if w == 'sec'} - {0} | {0})
                rank = {v: i for i, v in enumerate(used)}
                for name in EPOCHS:
                    changes[name] = rank[new(name)]
                changes['buf'] = tuple((w, rank[v]) if w == 'sec' else (w, v) for w, v in buf)
            add(label, **changes)
        reader(s, put)
        for h in 'AB':
            writer(s, put, h)

    def reader(s, put):
        drain(s, put, 'R')
        room = len(s.buf) < depth
        own = dict(s.own)
        if s.pc == 'out' and (s.rootA or s.rootB or own) and guards and room:
            put('R enters', pc='in', buf=s.buf + (('sec', s.E),))
        if s.pc == 'out' and (s.rootA or s.rootB) and not guards:
            put('R loads the epoch', pc='enter', tmp=s.E)
        if s.pc == 'enter' and room:
            put('R enters', pc='in', tmp=0, buf=s.buf + (('sec', s.tmp),))
        if s.pc != 'in':
            return
        for h, o in OF.items():
            if getattr(s, 'root' + h) and not s.reg & o:
                put('R loads ' + h, reg=s.reg | o)
        if not room:
            return
        put('R exits', pc='out', reg=0, buf=s.buf + (('sec', 0),))
        may = s.reg
        for v in own.values():
            may |= v
        for c in cells:
            now = dict((w, v) for w, v in ((c, getattr(s, c)),) + s.buf)[c]
            if c in own:
                keeps = getattr(s, 'pending' + ('A' if own[c] == a else 'B'))
                put('R releases ' + c if keeps else 'R empties ' + c, own=tuple(p for p in s.own if p[0] != c),
                    buf=s.buf + ((c, own[c] | REL if keeps else 0),))
                continue
            for h, o in OF.items():
                if not may & o:
                    continue
                if now and now != o | REL:
                    asked = h if reuse == 'tag of the new one' else 'A' if now & a else 'B'
                    if getattr(s, 'pending' + asked):
                        continue
                put('R guards in ' + c, own=tuple(sorted(s.own + ((c, o),))), buf=s.buf + ((c, o),))

    def writer(s, put, h):
        o, w, pc = OF[h], 'w' + h, getattr(s, 'pc' + h)
        root, live, m, e, seen = ('root' + h, 'live' + h, 'm' + h, 'e' + h, 'seen' + h)
        buf = getattr(s, w)
        drain(s, put, 'W' + h, w)
        linked = dict(((root, getattr(s, root)),) + buf)[root]
        held = s.reg & o or any(v == o for _, v in s.own)

        def go(label, to, **changes):
            changes['pc' + h] = to
            if not buffered:
                changes.update(changes.pop(w, ()))
            put('W%s %s' % (h, label), **changes)
        if pc in ('idle', 'condemned') and len(buf) < 2:
            if linked and h in unlinks:
                go('unlinks', pc, **{w: buf + ((root, 0),), m: int(getattr(s, m) or pc != 'idle')})
            elif held and not linked and h in links:
                go('links back', pc, **{w: buf + ((root, 1),), m: int(getattr(s, m) or pc != 'idle')})
        if pc == 'idle' and len(buf) < 2 and getattr(s, 'n' + h) != cycles:
            more = {'n' + h: getattr(s, 'n' + h) + 1} if cycles else {}
            go('marks, pending', 'epoch', **{m: int(linked), w: buf + (('pending' + h, 1),)}, **more)
        if pc == 'epoch':
            if early == h:
                go('condemns before the epoch moves', 'condemned', **{e: s.E})
            elif count == 'fetch-add':
                if not buf:
                    go('moves the epoch', 'barrier', E=s.E + 1, **{e: s.E + 1})
            else:
                go('loads the epoch', 'epoch+1', **{e: s.E + 1})
        if pc == 'epoch+1' and not buf:
            go('stores the epoch', 'barrier', E=getattr(s, e))
        if pc == 'barrier' and not (barrier and (s.buf or s.wA or s.wB)):
            go('membarrier', 'condemned')
        if pc == 'condemned' and (not s.sec or s.sec >= getattr(s, e)):
            go('grace is over', 'rescan', **{seen: 0, m: int(getattr(s, m) or linked)})
        if pc in ('rescan', 'empty'):
            k = getattr(s, seen)
            if k < len(cells):
                c = cells[k]
                v = getattr(s, c)
                if pc == 'rescan':
                    go('reads ' + c, pc, **{seen: k + 1, m: int(getattr(s, m) or v & ~REL == o)})
                elif v & REL and (v == o | REL or empties == 'all'):
                    if not buf:
                        go('empties ' + c, pc, **{seen: k + 1, c: 0})
                else:
                    go('leaves ' + c, pc, **{seen: k + 1})
            elif pc == 'rescan':
                go('ends pending', 'free', **{w: buf + (('pending' + h, 0),), seen: 0})
            else:
                go('is done', 'idle', **{seen: 0})
        if pc == 'free':
            freed = getattr(s, live) and not getattr(s, m)
            go('frees' if freed else 'frees nothing', 'empty', **{live: getattr(s, live) & getattr(s, m), m: 0, e: 0})
        if w_dies and h == 'A' and pc in ('epoch', 'barrier', 'condemned', 'rescan') and not buf:
            go('killed, void', 'idle', **{w: (('pendingA', 0),), m: 0, e: 0, seen: 0})

    def bad(s, final):
        for h, o in OF.items():
            if getattr(s, 'live' + h):
                continue
            if s.reg & o or any(v == o for _, v in s.own):
                return 'a holder sees a freed object: ' + h.lower()
            if getattr(s, 'root' + h):
                return 'a root names a freed object: ' + h.lower()

    def clean(s):
        return (not s.c and not s.d and s.liveA == s.rootA and s.liveB == s.rootB and s.pcA == s.pcB == 'idle' and
                not s.buf and not s.wA and not s.wB)
    init = dict(E=1, sec=0, tmp=0, pc='out', reg=0, own=own, buf=(), c=dict(own).get('c', 0), d=dict(own).get('d', 0))
    for h in 'AB':
        init.update({'root' + h: int(h in roots), 'live' + h: 1, 'm' + h: 0, 'pc' + h: 'idle', 'e' + h: 0,
                     'seen' + h: 0, 'w' + h: (), 'pending' + h: 0, 'n' + h: 0})
    return (init, next_steps, bad), clean


# R has guarded a (or b) already, moves the guard between its cells, and guards the other heap's object.
MOVE = dict(own=(('d', a),), roots='B', unlinks='')
# Sections alone, with the time between the load of the epoch and its store.
EPOCH = dict(guards=False, buffered=True)


def main():
    suite = HeapSuite('heap, several')

    def live(title, reaches=(), **case):
        model, clean = two_heaps(**case)
        suite.live('SE ' + title, model, clean, ('WA moves the epoch', 'WA grace is over', 'WA frees') + reaches)

    def mutant(title, fault, **case):
        suite.mutant('SE ' + title, two_heaps(**case)[0], fault)
    used = 'a holder sees a freed object'
    live('a guard moves, its cell takes a reference of the other heap', ('R releases d', 'WA empties d', 'WB leaves d',
                                                                         'R guards in d', 'WB reads d'), **MOVE)
    live('sections over both heaps, both collect', ('WB drains rootB', 'WB frees', 'R loads B'), **EPOCH)
    live('a holder of A dies, the other heap goes on', ('WA killed', 'WB frees', 'WA links back'),
         **dict(EPOCH, buffered=False, links='A', w_dies=True))
    if suite.deep:
        live('the same, with guards, b goes, too', **dict(MOVE, unlinks='B'))
    mutant('a cell is used again by the phase of the new reference', used, **dict(MOVE, reuse='tag of the new one'))
    mutant("the other heap's RELEASED cells are emptied, too", used, **dict(MOVE, own=(('d', b),), roots='A',
                                                                           empties='all'))
    mutant('CONDEMNED before the epoch moves', used, **dict(EPOCH, buffered=False, early='A'))
    mutant('no membarrier', used, **dict(EPOCH, barrier=False))
    mutant('the epoch by load and store: stores before it are late', used, **dict(EPOCH, count='load, store', cycles=2))
    mutant('the epoch by load and store: it goes back', used, **dict(
        EPOCH, buffered=False, roots='A', unlinks='A', count='load, store', cycles=3))
    suite.finish()


if __name__ == '__main__':
    main()
