"""
G: growth, trim and attach. Two chunks; page[i] is the node chunk i's page lies on, or '-'; ctl[i] is UNC
(uncommitted), FREE (unowned) or its owner. A lock word names its holder; plan = {phase, from, to}. Growing: lock;
store from and to; phase POPULATING; instantiate the pages on the wanted node; verify; phase PUBLISHING (the
commit); each ctl UNC -> FREE by CAS; phase 0; unlock. Trimming: lock; own a wholly free unit; from and to; phase
TRIMMING; ctl -> UNC; punch; phase 0; unlock. An attacher reads under the lock which chunks are committed and
touches them. Whoever finds a dead holder takes the lock over by CAS and first finishes its plan: POPULATING: punch
the uncommitted chunks of the range; PUBLISHING: finish, CAS UNC -> FREE; TRIMMING: punch the uncommitted chunks of
the range; then phase 0. It may die in the middle too. Units of a dead slot go FREE by ordinary recovery, with no
lock.

G1 grows both chunks on node a, G2 whatever is left on node b, X trims chunk 1, Y attaches on node y, M allocates a
whole chunk, frees it and may keep it for ever; which of them there are, who may die, and one recoverer that may die
are parameters. Abstracted: the lock's generation (a record does not come back here); a page that is there stays
where it is when it is touched again, a punch takes it away; what a system call does is one step a chunk, and a
death comes before or after it. No store buffers: what matters is the order of each one's own stores, and stores
leave in order.

Checked: a committed chunk always has its page (no SIGBUS), on the node it was asked for; nobody holds a chunk that
is uncommitted or somebody else's; and when all have come to rest, no page is held that no committed chunk has.
"""
from explore import Suite

NONE = (0, 0, 0, '-')       # phase, from, to; the node wanted is a ghost


def growth(who=('G1', 'G2', 'M'), dies=('G1',), start='empty', plan='first', publish='after', recover=True,
           takeover='finishes', finish='CAS', trim='UNC, punch', trim_plan='first', attach='locked', r_dies=True,
           helpers=True):
    want = {'G1': (2, 'a'), 'G2': (2, 'b')}
    people = tuple(who) + (('R1', 'R2') if helpers else ())

    def put(row, i, value):
        return row[:i] + (value,) + row[i + 1:]

    def next_steps(s, add):
        def dead(p):
            return p in s.dead
        def touch(i, node):
            return put(s.page, i, node) if s.page[i] == '-' else s.page
        for p in people:
            at = getattr(s, p)
            if dead(p) or at == 'end':
                continue
            if p == 'M':
                for i in (0, 1):
                    if s.ctl[i] == 'FREE':
                        add('M owns %d' % i, ctl=put(s.ctl, i, 'M'), M=s.M + (i,))
                    if i in s.M:
                        add('M gives %d up' % i, ctl=put(s.ctl, i, 'FREE'), M=tuple(j for j in s.M if j != i))
                continue
            step(s, add, p, at, touch, dead)
            if (p in dies or (p == 'R1' and r_dies)) and at != 'start' and not s.dead.count(p):
                add(p + ' killed', dead=s.dead + (p,))
        for i in (0, 1):
            if s.ctl[i] in s.dead:
                add('unit %d recovered' % i, ctl=put(s.ctl, i, 'FREE'))

    def step(s, add, p, at, touch, dead):
        if at == 'start':
            if s.lock == '-' and not p.startswith('R'):
                add(p + ' locks', lock=p, **{p: 'locked'})
            elif dead(s.lock) and (p != 'R2' or dead('R1')):
                add('%s takes the lock of %s over' % (p, s.lock), lock=p,
                    **{p: 'finish' if takeover == 'finishes' else 'locked'})
            elif p == 'Y' and attach == 'unlocked':
                add('Y reads what is committed', Y=('touch', s.ctl))
            return
        if at == 'finish':
            phase, lo, hi, node = s.plan
            for i in range(lo, hi):
                if phase == 'PUBLISHING' and (s.ctl[i] == 'UNC' or (finish == 'store' and s.ctl[i] != 'FREE')):
                    return add('%s finishes: publishes %d' % (p, i), ctl=put(s.ctl, i, 'FREE'),
                               asked=put(s.asked, i, node))
                if phase in ('POPULATING', 'TRIMMING') and recover and s.ctl[i] == 'UNC' and s.page[i] != '-':
                    return add('%s finishes %s: punches %d' % (p, phase, i), page=put(s.page, i, '-'))
            return add(p + ' has finished', plan=NONE, **{p: 'locked'})
        if at == 'locked':
            if p.startswith('R'):
                return add(p + ' unlocks', lock='-', **{p: 'end'})
            if p == 'Y':
                return add('Y reads what is committed', Y=('touch', s.ctl))
            if p == 'X':
                if s.ctl[1] == 'FREE':
                    return add('X owns 1', ctl=put(s.ctl, 1, 'X'), X='owned')
                return add('X unlocks', lock='-', X='end')
            left = [i for i in (0, 1) if s.ctl[i] == 'UNC'][:want[p][0]]
            if not left:
                return add(p + ' unlocks', lock='-', **{p: 'end'})
            return add(p + ' plans', plan=('POPULATING' if plan == 'first' else 0, left[0], left[-1] + 1, want[p][1]),
                       **{p: ('populate', left[0], left[-1] + 1, left[0])})
        if at == 'owned':
            return add('X plans', plan=('TRIMMING' if trim_plan == 'first' else 0, 1, 2, '-'), X='A')
        if at in ('A', 'B'):
            first, second = ('UNC', 'punch') if trim == 'UNC, punch' else ('punch', 'UNC')
            then = 'B' if at == 'A' else 'clear'
            if (first if at == 'A' else second) == 'UNC':
                return add('X makes 1 UNC', ctl=put(s.ctl, 1, 'UNC'), X=then)
            return add('X punches 1', page=put(s.page, 1, '-'), X=then)
        if at == 'clear':
            return add(p + ' clears the plan', plan=NONE, **{p: 'unlock'})
        if at == 'unlock':
            return add(p + ' unlocks', lock='-', **{p: 'end'})
        if at[0] == 'touch':
            for i in (0, 1):
                if at[1][i] != 'UNC':
                    return add('Y touches %d' % i, page=touch(i, 'y'), Y=('touch', put(at[1], i, 'UNC')))
            if s.lock == 'Y':
                return add('Y unlocks', lock='-', Y='end')
            return add('Y has attached', Y='end')
        kind, lo, hi, i = at
        if publish == 'before' and kind == 'populate' and s.plan[0] != 'PUBLISHING':
            return add(p + ' publishes too early', plan=('PUBLISHING', lo, hi, want[p][1]))
        if kind == 'populate' and i < hi:
            k = dict(page=touch(i, want[p][1]))
            if plan == 'after the pages' and i + 1 == hi:
                k['plan'] = ('POPULATING', lo, hi, want[p][1])
            return add('%s populates %d' % (p, i), **dict(k, **{p: (kind, lo, hi, i + 1)}))
        if kind == 'populate':
            return add(p + ' publishes', plan=('PUBLISHING' if plan != 'none' else 0, lo, hi, want[p][1]),
                       **{p: ('publish', lo, hi, lo)})
        if i < hi:
            k = dict(ctl=put(s.ctl, i, 'FREE'), asked=put(s.asked, i, want[p][1])) if s.ctl[i] == 'UNC' else {}
            return add('%s makes %d FREE' % (p, i), **dict(k, **{p: (kind, lo, hi, i + 1)}))
        add(p + ' clears the plan', plan=NONE, **{p: 'unlock'})

    def bad(s, final):
        for i in (0, 1):
            if s.ctl[i] not in ('UNC', 'X') and s.page[i] == '-':
                return 'committed chunk without a page (SIGBUS): %d' % i
            if s.ctl[i] != 'UNC' and s.page[i] not in ('-', s.asked[i]):
                return 'page on the wrong node: %d was asked on %s, lies on %s' % (i, s.asked[i], s.page[i])
            if 'M' in who and i in s.M and s.ctl[i] != 'M':
                return 'two owners: of chunk %d' % i
            if s.lock == '-' and s.ctl[i] == 'UNC' and s.page[i] != '-':
                return 'page held that no committed chunk has: %d' % i
    full = start == 'full'
    init = dict(lock='-', plan=NONE, page=('a', 'a') if full else ('-', '-'), asked=('a', 'a') if full else ('-', '-'),
                ctl=('FREE', 'FREE') if full else ('UNC', 'UNC'), dead=(), M=())
    for p in people:
        init.setdefault(p, 'start')
    return init, next_steps, bad


def main():
    suite = Suite('growth')
    grow = ('G1 populates 1', 'G1 killed', 'G2 takes the lock of G1 over', 'R1 finishes POPULATING: punches 0',
            'R1 finishes: publishes 1', 'R1 killed', 'R2 finishes: publishes 1', 'G2 makes 0 FREE', 'M owns 1')
    suite.right('G two growers, one and a recoverer die', growth(), grow)
    everybody = ('G1', 'G2', 'X', 'Y', 'M')
    suite.right('G growers, trim and attach, the trimmer dies', growth(everybody, dies=('X',), start='full'),
                ('X makes 1 UNC', 'R1 finishes TRIMMING: punches 1', 'unit 1 recovered', 'Y touches 1',
                 'G2 populates 1'))
    suite.right('G growers, trim and attach from nothing, grower and trimmer die',
                growth(('G1', 'G2', 'X', 'Y'), dies=('G1', 'X'), r_dies=False), ('X killed', 'Y touches 1'))
    for title, fault, options in (
            ('no plan', 'page held that no committed chunk has', dict(plan='none')),
            ('plan written after the pages', 'page held that no committed chunk has', dict(plan='after the pages')),
            ('range of a dead grower not punched', 'page held that no committed chunk has', dict(recover=False)),
            ('lock taken over by a grower, plan not finished', 'page on the wrong node',
             dict(takeover='forgets', helpers=False)),
            ('lock taken over, plan not finished', 'page held that no committed chunk has', dict(takeover='forgets')),
            ('PUBLISHING before the pages are there', 'committed chunk without a page (SIGBUS)',
             dict(publish='before')),
            ('publication finished by stores, not by CAS', 'two owners', dict(finish='store'))):
        suite.mutant('G ' + title, growth(**options), fault)
    for title, fault, options in (
            ('trim without a plan', 'page held that no committed chunk has', dict(trim_plan='none')),
            ('trim punches before the chunk is uncommitted', 'committed chunk without a page (SIGBUS)',
             dict(trim='punch, UNC')),
            ('attach without the lock', 'page held that no committed chunk has', dict(attach='unlocked'))):
        suite.mutant('G ' + title, growth(everybody, dies=('X',), start='full', **options), fault)
    suite.finish()


if __name__ == '__main__':
    main()
