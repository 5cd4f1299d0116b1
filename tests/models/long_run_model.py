"""
K: runs that are longer than a unit or straddle units, with no state of their own in ctl. Who allocates one first
owns every unit it touches (CAS of ctl, unowned to me, ascending; where one is taken it gives back those it has, by
CAS), finds the granules free under that ownership, writes into every following unit k cover[k] = the head's name,
into the head's unit span = the total length, into len[head] LONG (a run that ends in its unit: its length, and span
is left alone), and flips the head's A: the only commit. Then it gives the units up. The prefix of unit k is held
iff the head that cover[k] names is live, its length is LONG and its span reaches into k: otherwise cover and span
mean nothing.

The owner of k reads cover[k], A, R, len and span of the head in five steps, in either order, while others free the
head and allocate there again. Why that is safe: whoever owns k alone could make a run reach into k, so while I own
k its prefix can only come free, and a torn answer can only err to "held", which the next look puts right.

Two or three participants allocate runs of given shapes (through store buffers), somebody frees them by R, an owner
of the head's unit by A; P may be killed between any two steps, its units then go to unowned one by one, by CAS.
Abstracted: ctl is the owner alone (unit_model has versions), frees by R are one step, units that one participant
holds on to are the stages of giving up. Checked: no granule in two live runs; ctl names who believes to own (exact
roll-back); and every unit that nobody owns reads as what is rightly held, no more (nothing lost) and no less.
"""
from explore import Suite, drain, seen

LONG = 'LONG'


def long_run(sizes, shapes, who='PQ', order='A first', write='before commit', own='all', cover_when='found free',
             believe='live, LONG and span', roll_back='exact', verify='owned'):
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    total = sum(sizes)
    unit_of = [k for k, size in enumerate(sizes) for _ in range(size)]
    mask = {(g, l): ((1 << l) - 1) << g for g in range(total) for l in range(1, total - g + 1)}
    in_unit = [((1 << size) - 1) << start for size, start in zip(sizes, starts)]
    touches = {run: list(range(unit_of[run[0]], unit_of[run[0] + run[1] - 1] + 1)) for run in mask}
    units = range(len(sizes))

    def covers(k, head, bits, r, length, span):
        live = (bits ^ r) >> head & 1
        if believe == 'cover alone':
            live = 1
        if believe == 'cover and live':
            return in_unit[k] if live else 0
        if not live or (believe != 'live and span' and length != LONG) or not span:
            return 0
        return in_unit[k] & mask[head, min(span, total - head)]

    def own_heads(s, k, buf):
        held = 0
        for g in range(starts[k], starts[k] + sizes[k]):
            if (seen(s, 'A%d' % k, buf) ^ getattr(s, 'R%d' % k)) >> g & 1:
                length = seen(s, 'l%d' % g, buf)
                if length == LONG:
                    length = seen(s, 's%d' % k, buf)
                held |= in_unit[k] & mask[g, max(1, min(total - g, length))]
        return held

    def all_of(s, k):
        head = getattr(s, 'c%d' % k)
        held = own_heads(s, k, None)
        if head is not None:
            h = unit_of[head]
            held |= covers(k, head, getattr(s, 'A%d' % h), getattr(s, 'R%d' % h), getattr(s, 'l%d' % head),
                           getattr(s, 's%d' % h))
        return held

    def owned(at):                              # what a participant at this place believes to own
        if at[0] in ('own', 'back'):
            return touched(at[1])[:at[2]]
        if at[0] == 'write' or (at[0] == 'check' and verify == 'owned'):
            return touched(at[1])
        return touched(at[1])[at[2]:] if at[0] == 'give' else []

    def touched(run):
        return touches[run][:-1] if own == 'all but the last' and len(touches[run]) > 1 else touches[run]

    def stores(run):
        head, length = run
        h = unit_of[head]
        long = len(touches[run]) > 1
        cover = [('c%d' % k, head) for k in touches[run][1:]]
        span = [('s%d' % h, length)] if long else []
        name = [('l%d' % head, LONG if long else length)]
        if write == 'cover after commit':
            return span + name + ['A'] + cover
        if write == 'span after commit':
            return cover + name + ['A'] + span
        return (cover if cover_when == 'found free' else []) + span + name + ['A']

    def next_steps(s, add):
        quiet = not any(getattr(s, 'buf' + x) for x in who)
        for x in who:
            buf, pc = 'buf' + x, 'pc' + x
            drain(s, add, x, buf)
            at, waiting = getattr(s, pc), getattr(s, buf)
            if at[0] == 'dead':
                continue
            if at[0] == 'idle':
                for run in shapes:
                    add('%s wants %s' % (x, run), **{pc: ('own' if verify == 'owned' else 'check', run, 0)})
                continue
            if x == 'P':
                add('P killed', pcP=('dead',))
            run = at[1]
            mine = touched(run)
            if at[0] == 'own' and not waiting:
                i = at[2]
                if i == len(mine):
                    add(x + ' owns all', **{pc: ('check' if verify == 'owned' else 'write', run, 0)})
                elif getattr(s, 'ctl%d' % mine[i]) == '-':
                    early = {}
                    if cover_when == 'owned' and i:
                        early = {buf: (('c%d' % mine[i], run[0]),)}
                    add('%s owns %d' % (x, mine[i]), **dict(early, **{'ctl%d' % mine[i]: x, pc: ('own', run, i + 1)}))
                elif roll_back == 'one too many':
                    add(x + ' gives one too many back', **{'ctl%d' % mine[i]: '-', pc: ('back', run, i)})
                else:
                    add(x + ' finds a unit taken', **{pc: ('back', run, i)})
            if at[0] == 'back' and not waiting:
                i = at[2]
                if not i:
                    add(x + ' has given all back', **{pc: ('idle',)})
                else:
                    add('%s gives %d back' % (x, mine[i - 1]), **{'ctl%d' % mine[i - 1]: '-', pc: ('back', run, i - 1)})
            if at[0] == 'check':
                check(s, add, x, at, mine)
            if at[0] == 'write':
                todo = stores(run)
                store = todo[at[2]]
                change = {pc: ('write', run, at[2] + 1) if at[2] + 1 < len(todo) else ('give', run, 0)}
                if store == 'A':                # commit
                    h = 'A%d' % unit_of[run[0]]
                    store = (h, seen(s, h, buf) ^ 1 << run[0])
                    if mask[run] & sum(mask[r] for r in s.runs):
                        change['fault'] = 'overlap'
                    change['runs'] = tuple(sorted(s.runs + (run,)))
                    change[buf] = waiting + (store,)
                    add('%s commits %s' % (x, run), **change)
                else:
                    change[buf] = waiting + (store,)
                    add('%s stores %s=%s' % ((x,) + store), **change)
            if at[0] == 'give':
                i = at[2]
                if i == len(mine):
                    add(x + ' is done', **{pc: ('idle',)})
                elif not waiting:
                    if getattr(s, 'ctl%d' % mine[i]) == x:
                        add('%s gives %d up' % (x, mine[i]), **{'ctl%d' % mine[i]: '-', pc: ('give', run, i + 1)})
                if quiet:
                    for r in s.runs:
                        if unit_of[r[0]] in mine[i:]:
                            h = 'A%d' % unit_of[r[0]]
                            add('%s frees %s by A' % (x, r), runs=tuple(q for q in s.runs if q != r),
                                **{buf: waiting + ((h, getattr(s, h) ^ 1 << r[0]),)})
        if quiet:
            for r in s.runs:
                h = 'R%d' % unit_of[r[0]]
                add('%s is freed by R' % (r,), runs=tuple(q for q in s.runs if q != r),
                    **{h: getattr(s, h) ^ 1 << r[0]})
        if s.pcP[0] == 'dead' and not s.bufP:
            for k in units:
                if getattr(s, 'ctl%d' % k) == 'P':
                    add('unit %d of P recovered' % k, **{'ctl%d' % k: '-'})

    def check(s, add, x, at, mine):
        buf, pc = 'buf' + x, 'pc' + x
        run, i, known = at[1], at[2], at[3:]
        if i == len(mine):
            add(x + ' finds all free', **{pc: ('write' if verify == 'owned' else 'own', run, 0)})
            return
        k = mine[i]
        head = seen(s, 'c%d' % k, buf)
        if k == 0 or head is None:
            held = own_heads(s, k, buf)
        else:
            h = unit_of[head]
            loads = [('A', lambda: seen(s, 'A%d' % h, buf)), ('R', lambda: getattr(s, 'R%d' % h)),
                     ('len', lambda: seen(s, 'l%d' % head, buf)), ('span', lambda: seen(s, 's%d' % h, buf))]
            if order == 'span first':
                loads.reverse()
            if len(known) < 4:
                name, load = loads[len(known)]
                add('%s of %d loads %s' % (x, k, name), **{pc: at + (load(),)})
                return
            held = covers(k, head, *(known if order == 'A first' else known[::-1])) | own_heads(s, k, buf)
        if held & mask[run]:
            add('%s finds %d held' % (x, k), **{pc: ('back', run, len(mine) if verify == 'owned' else 0)})
        else:
            add('%s finds %d free' % (x, k), **{pc: ('check', run, i + 1)})

    def bad(s, final):
        if s.fault:
            return s.fault
        for x in who:
            for k in owned(getattr(s, 'pc' + x)):
                if getattr(s, 'ctl%d' % k) != x:
                    return 'two owners: %s believes to own unit %d' % (x, k)
        if not any(getattr(s, 'buf' + x) for x in who):
            held = sum(mask[r] for r in s.runs)
            for k in units:
                if getattr(s, 'ctl%d' % k) == '-':
                    reads = all_of(s, k)
                    if held & in_unit[k] & ~reads:
                        return 'held granule reads as free: in unit %d' % k
                    if reads & ~held:
                        return 'lost: a free granule reads as held, in unit %d' % k
    init = dict(runs=(), fault='')
    for k in units:
        init.update({'ctl%d' % k: '-', 'A%d' % k: 0, 'R%d' % k: 0, 'c%d' % k: None, 's%d' % k: 0})
    for g in range(total):
        init['l%d' % g] = 1
    for x in who:
        init.update({'pc' + x: ('idle',), 'buf' + x: ()})
    return init, next_steps, bad


def main():
    suite = Suite('long runs')
    three = (1, 1, 1)
    life = ('P owns 0', 'Q owns 1', 'P finds a unit taken', 'P gives 0 back', 'P finds 1 held', 'Q finds 1 free',
            'P commits', 'P frees', 'P killed', 'unit 1 of P recovered')
    suite.right('K two units, cover read A first', long_run((1, 1), ((0, 1), (0, 2), (1, 1))), life)
    suite.right('K three units, runs of 1, 2 and 3', long_run(three, ((0, 1), (0, 3), (1, 2))), life)
    suite.right('K three units, runs of 1, 2 and 3 in conflict, cover read span first',
                long_run(three, ((0, 3), (1, 1), (1, 2)), order='span first'))
    suite.right('K three participants, runs of 2', long_run(three, ((0, 2), (1, 2)), who='PQS'), life)
    suite.right('K straddling, a short run in the head\'s unit', long_run((2, 1), ((0, 3), (1, 1), (1, 2))),
                ('P finds 0 held', 'Q finds 1 free', 'P killed'))
    suite.right('K straddling into a unit of two', long_run((1, 2, 1), ((0, 2), (2, 2))), ('P finds 1 free',))
    pair = ((0, 2), (1, 1))
    same_head = ((0, 1), (0, 2), (1, 1))
    suite.mutant('K cover written after the commit', long_run(three, pair, write='cover after commit'),
                 'held granule reads as free')
    suite.mutant('K span written after the commit', long_run(three, pair, write='span after commit'),
                 'held granule reads as free')
    suite.mutant('K cover written when the unit is owned, before it is found free',
                 long_run(three, ((0, 3), (1, 2)), cover_when='owned'), 'held granule reads as free')
    suite.mutant('K the last unit not owned', long_run(three, pair, own='all but the last'), 'overlap')
    suite.mutant('K found free before it is owned', long_run(three, pair, verify='first'), 'overlap')
    suite.mutant('K cover believed, head not live', long_run(three, pair, believe='cover alone'), 'lost')
    suite.mutant('K cover and live head believed, no length', long_run(three, same_head, believe='cover and live'),
                 'lost')
    suite.mutant('K cover, live head and span believed, len not LONG',
                 long_run(three, same_head, believe='live and span'), 'lost')
    suite.mutant('K roll-back of one unit too many', long_run(three, pair, roll_back='one too many'), 'two owners')
    suite.finish()


if __name__ == '__main__':
    main()
