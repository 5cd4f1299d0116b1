"""
TX: the lock, the undo log, commit, rollback, and several deaths. T1, T2, T3 do one transaction each; T1 and T2 may
be killed before any step. Ti stores its number into both words (two entries), or its number and then its number + 4
into word 0 (twice). Recovery of a dead slot is one compare-and-swap of the lock from who to ORPHAN, by anybody, any
time; who takes the lock, from 0 or ORPHAN, looks at the log and at the version first. C adds to a counter that lies
in the granule of word 1 and belongs to nobody's transaction; S reads both words by version. The version is kept as
its parity; when it changes, an S that has begun goes back to its start (it would find out at its second look).
Checked: one owner; who owns finds what was last committed, and so does who finds the lock free, with an even
version; S accepts no torn pair; no addition of C is lost.

WH: the writer stores into Q, which only a guard keeps; the guard goes; the same transaction collects; then
rollback.

ST: born in this transaction, and so not logged, is what lies in a slab whose born stamp is the transaction's
number. Three transactions store into an object that is born and linked in an earlier one, or in the first half of
their own (checkpoint), and abort.

A killed process's retired stores all become visible, and decisions here follow a compare-and-swap: no store
buffers.
"""
from explore import Suite

ORPHAN = 'orphan'


def transactions(twice=False, mutant=None, killed=(1, 2)):
    orders = {'store first': ('entry', 'store', 'count'), 'count first': ('count', 'entry', 'store')}
    order = orders.get(mutant, ('entry', 'count', 'store'))
    empty = ((0, 0, 0), (0, 0, 0))

    def next_steps(s, add):
        for i in (1, 2, 3):
            if not s.dead >> i & 1 and getattr(s, 'p%d' % i)[0] != 'end':
                thread(s, add, i)
        for i in killed:
            if not s.dead >> i & 1:
                continue
            if s.lock == i:
                add('slot of T%d recovered' % i, lock=ORPHAN)
                if mutant == 'recovery stores' and not s.sees:
                    add('V sees T%d own the lock' % i, sees=i)
        if s.sees:
            add('V stores ORPHAN', lock=ORPHAN, sees=0)
        if s.adds < 1 and mutant in (None, 'whole granules'):
            add('C adds', cnt=s.cnt + 1, adds=s.adds + 1)
        at, a, b = s.rd
        if not twice:
            if at == 0 and not s.ver:
                add('S reads the version', rd=(1, 0, 0))
            if at == 1:
                add('S reads word 0', rd=(2, s.w[0], 0))
            if at == 2:
                add('S reads word 1', rd=(3, a, s.w[1]))
            if at == 3:
                add('S accepts', rd=(0, 0, 0))

    def thread(s, add, i):
        pc, st, k = getattr(s, 'p%d' % i)
        name = 'T%d ' % i

        def go(label, *new, **changes):
            if 'ver' in changes:
                changes.update(ver=changes['ver'] % 2, rd=(0, 0, 0))
            if new[0] == 'unlock' and mutant != 'count first':
                changes['log'] = empty          # what is stale in it is never read again
            changes['p%d' % i] = new + (0,) * (3 - len(new))
            add(name + label, **changes)
        if i in killed and pc != 'idle':
            add(name + 'killed', dead=s.dead | 1 << i)
        if pc == 'idle' and s.lock in (0, ORPHAN):
            if mutant == 'taken by a store':
                go('sees nobody own it', 'take')
            else:
                go('takes the lock' + (' of the dead' if s.lock else ''), 'look', int(s.lock == ORPHAN), lock=i)
        if pc == 'take':
            go('stores its name', 'look', lock=i)
        if pc == 'look':
            if mutant == 'only the version is looked at':
                go('makes the version even', 'begun', ver=0)
            elif s.n or (s.ver and mutant != 'only the log is looked at'):
                go('finds something to undo', 'roll')
            else:
                go('finds nothing to undo', 'begun')
        if pc in ('roll', 'abort'):             # st: 0 look, 1 replay, 2 log_n, 3 version, 4 done
            if st == 0 and not s.n:
                go('log is empty', pc, 3)
            elif st == 0 and mutant == 'log_n=0 before the replay':
                go('log_n=0', pc, 1, s.n, n=0)
            elif st == 0:
                go('reads log_n', pc, 1, s.n)
            if st == 1 and not k:
                go('has replayed', pc, 3 if mutant == 'log_n=0 before the replay' else 2)
            elif st == 1:
                where, old, beside = s.log[k - 1] if mutant != 'replay forward' else s.log[-k]
                more = dict(cnt=beside) if mutant == 'whole granules' and where == 1 else {}
                go('restores word %d' % where, pc, 1, k - 1,
                   w=(old, s.w[1]) if where == 0 else (s.w[0], old), **more)
            if st == 2:
                go('log_n=0', pc, 3, n=0)
            if st == 3:
                go('version even', pc, 4, ver=s.ver + s.ver % 2)
            if st == 4:
                go('has rolled back', 'begun' if pc == 'roll' else 'unlock')
        if pc == 'begun':
            go('number + 1', 'tx')
        if pc == 'tx' and st == 2:
            go('commits', 'commit')
            go('aborts', 'abort')
        elif pc == 'tx' and not s.ver:
            go('version odd', pc, st, k, ver=s.ver + 1)
        elif pc == 'tx':
            where, value = (0, i + 4 * st) if twice else (st, i)
            then = ('tx', st, k + 1) if k < 2 else ('tx', st + 1)
            if order[k] == 'entry':
                entry = (where, s.w[where], s.cnt)
                go('entry', *then, log=(entry, s.log[1]) if st == 0 else (s.log[0], entry))
            if order[k] == 'count':
                go('log_n=%d' % (st + 1), *then, n=st + 1)
            if order[k] == 'store':
                go('stores word %d' % where, *then, w=(value, s.w[1]) if where == 0 else (s.w[0], value))
        if pc == 'commit':
            if (st == 0) != (mutant == 'version even before log_n=0') and s.n:
                go('log_n=0: commit', 'commit', 1, n=0, com=s.w)
            elif s.ver:
                go('version even', 'commit', 1, ver=s.ver + 1)
            else:
                go('is done', 'unlock')
        if pc == 'unlock':
            go('unlocks', 'end', lock=0)

    def bad(s, final):
        owners = [i for i in (1, 2, 3) if not s.dead >> i & 1 and
                  getattr(s, 'p%d' % i)[0] not in ('idle', 'take', 'end')]
        if len(owners) > 1:
            return 'two owners'
        new = owners and getattr(s, 'p%d' % owners[0])[0] == 'begun'
        if new and s.w != s.com:
            return 'a new owner finds what was not committed'
        if s.lock == 0 and s.w != s.com:
            return 'free, with what was not committed'
        if s.ver and (new or s.lock == 0):
            return 'the version stays odd'
        if s.rd[0] == 3 and s.rd[1] != s.rd[2]:
            return 'S accepts a torn pair'
        if s.cnt != s.adds:
            return 'an addition of another was lost'
        if final and any(getattr(s, 'p%d' % i)[0] != 'end' and not s.dead >> i & 1 for i in (1, 2, 3)):
            return 'nobody can go on'
    idle = ('idle', 0, 0)
    return dict(w=(0, 0), cnt=0, adds=0, log=empty, n=0, ver=0, lock=0, dead=0, com=(0, 0), rd=(0, 0, 0), sees=0,
                p1=idle, p2=idle, p3=idle), next_steps, bad


def where(roots='old values and objects'):
    def next_steps(s, add):
        kept = s.guard or (s.log and roots == 'old values and objects')
        if s.guard:
            add('guard on Q dropped', guard=0)
        if s.owner == 'free':
            add('somebody allocates the pages, writes 7', owner='F', q=7)
        if s.dead:
            if s.log:
                add('next holder: Q.f:=0', q=0)
                if s.q == 0:
                    add('next holder: log_n=0', log=0)
            return
        add('writer killed', dead=1)
        if s.at == 0 and s.guard:
            add('logs Q.f', at=1, log=1)
        if s.at == 1:
            add('Q.f=1', at=2, q=1)
        if s.at == 2 and not s.collected:
            add('collects: Q ' + ('stays' if kept else 'goes, and its slab'), collected=1,
                owner=s.owner if kept else 'free')
        if s.at == 2:
            add('commits', at=9, log=0)
            add('aborts: Q.f:=0', at=3, q=0)
        if s.at == 3:
            add('log_n=0', at=9, log=0)

    def bad(s, final):
        if s.owner == 'F' and s.q != 7:
            return "rollback wrote into another's memory"
    return dict(at=0, guard=1, log=0, q=0, owner='Q', collected=0, dead=0), next_steps, bad


def stamps(bits=0, checkpoint='a new number'):
    def wrap(number):
        return number % (1 << bits) if bits else number

    def next_steps(s, add):
        if s.at == 0 and s.k < 3:
            add('begins', number=wrap(s.number + 1), at=1, k=s.k + 1)
        if s.at == 1:
            logs = s.stamp != s.number
            add('sets, logged' if logs else 'sets, not logged', f=1, log=int(s.log or logs), at=2)
            if s.number < 5:
                add('links what is born, checkpoint', stamp=s.number, f=0, log=0,
                    number=wrap(s.number + 1) if checkpoint == 'a new number' else s.number)
        if s.at == 2:
            add('aborts', f=0 if s.log else s.f, log=0, at=0)

    def bad(s, final):
        if s.at == 0 and s.f:
            return 'an aborted transaction changed what was committed'
    return dict(number=0, stamp=0, f=0, log=0, at=0, k=0), next_steps, bad


def main():
    suite = Suite('heap, transactions')
    life = ('T2 takes the lock of the dead', 'T2 finds something to undo', 'T3 takes the lock of the dead',
            'T3 restores', 'T2 killed', 'T1 commits', 'T1 aborts', 'slot of T2 recovered')
    suite.right('TX two words, two deaths', transactions(), life + ('S accepts', 'C adds'))
    suite.right('TX one word twice, two deaths', transactions(twice=True), life)
    lost = 'a new owner finds what was not committed'
    free = 'free, with what was not committed'
    for title, fault in (('recovery stores', 'two owners'), ('taken by a store', 'two owners'),
                         ('only the version is looked at', lost),
                         ('only the log is looked at', 'the version stays odd'),
                         ('store first', lost), ('count first', lost), ('log_n=0 before the replay', lost),
                         ('version even before log_n=0', 'S accepts a torn pair'),
                         ('whole granules', 'an addition of another was lost')):
        suite.mutant('TX ' + title, transactions(mutant=title), fault)
    suite.mutant('TX replay forward', transactions(twice=True, mutant='replay forward'), lost)
    suite.right('WH old values and the objects that entries lie in are roots', where(), ('collects: Q stays',))
    suite.mutant('WH only old values are roots', where('old values'), "rollback wrote into another's memory")
    suite.right('ST numbers do not come round, a checkpoint takes a new one', stamps(), ('sets, logged',))
    suite.mutant('ST numbers come round', stamps(bits=1), 'an aborted transaction changed what was committed')
    suite.mutant('ST a checkpoint keeps the number', stamps(checkpoint='keeps'),
                 'an aborted transaction changed what was committed')
    suite.finish()


if __name__ == '__main__':
    main()
