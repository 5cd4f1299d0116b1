"""
P: many producers. The head is a pair {position, claim}; a claim that is odd is somebody's. A producer looks for room, claims
(by a CAS of the pair; one that is already claimed it may take over at any time), writes its elements behind the head,
each by a CAS of the pair {tag, word} whose tag is its claim, and publishes all of them by a CAS of the head. Before each
CAS of an entry, but after it has read what is there, it looks whether the claim is still its own. So one that was stopped,
and whose claim was taken over, changes nothing that others have published, and who is killed leaves what means nothing.
The consumer reads elements first and then moves the tail by a CAS. P1 may stand still for ever at any point.

T: taking. A taker claims a hold, copies what lies at the tail into it, and moves the tail, a pair {position, mover}, by a
CAS that names hold and sequence: the commit. Who takes next first confirms the hold that is named; who pops leaves it, so
that of a tentative hold of the dead the tail tells whether it has been committed. A hold that is confirmed is handed on by
a CAS of its word when its holder is dead, as its cell tells; who takes over a dead one's cell lets go of its holds first.
C1 may be killed at any point; C2 takes and acknowledges, or pops; C3 opens the cell of the dead, and takes and acknowledges.

W: waiting. A waiter reads the futex word, puts the flag up, passes a barrier, looks, sleeps. Who pushes publishes, then
takes the flag down, where it is up, counts the futex word up and wakes all. The processor of the one who pushes may delay
its store behind its look at the flag, but not over the barrier, which is one for all processors.

Checked: every element arrives once, those of a burst together or not at all, in order; nobody who runs is kept from
ending; what was taken and not acknowledged is delivered to another; nobody sleeps for ever beside an element.
"""
from explore import Suite, drain, seen


def put(tup, i, value):
    return tup[:i] + (value,) + tup[i + 1:]


def producers(bursts=(('a',), ('b', 'c')), cap=2, takeovers=2, tag='claim', order='checked after', entry='cas',
              publish='cas', revoke=True):
    """bursts: what each producer pushes, all or nothing."""
    n = len(bursts)

    def next_steps(s, add):
        for k in range(n):
            p = s.p[k]
            at = p[0]

            def go(label, *state, **more):
                add('P%d %s' % (k + 1, label), p=put(s.p, k, state), **more)

            if at in ('done', 'stopped'):
                continue
            burst = bursts[k]
            if at == 'begin':
                pos, claim = s.head
                if cap - (pos - s.tail) >= len(burst):
                    go('reads the head, and finds room', 'room', pos, claim)
            elif at == 'room':
                pos, claim = p[1:]
                cost = claim % 2 if s.p[0][0] != 'stopped' else 0
                if claim % 2 and not (revoke and s.takeovers >= cost):
                    if s.head != (pos, claim):
                        go('sees it move', 'begin')
                elif s.head != (pos, claim):
                    go('fails to claim', 'begin')
                else:
                    mine = claim + 1 + claim % 2
                    go('takes the claim over' if claim % 2 else 'claims', 'old', pos, mine, 0, None, head=(pos, mine),
                       takeovers=s.takeovers - cost)
            elif at in ('old', 'checkfirst', 'oldsecond', 'check', 'write'):
                pos, mine, i, old = p[1:]
                slot, ours = (pos + i) % cap, s.head == (pos, mine)
                new = (mine if tag == 'claim' else pos + i + 1, burst[i])
                written = ('old' if i + 1 < len(burst) else 'publish', pos, mine, i + 1, None)
                if at == 'old' and order == 'checked before':
                    go('checks', *(('oldsecond', pos, mine, i, None) if ours else ('begin',)))
                elif at in ('old', 'oldsecond'):
                    go('reads the entry', 'check' if at == 'old' else 'write', pos, mine, i, s.slot[slot])
                elif at == 'check':
                    go('is still the claimer' if ours else 'has lost the claim',
                       *(('write', pos, mine, i, old) if ours else ('begin',)))
                elif entry == 'store' or s.slot[slot] == old:
                    go('writes an entry', *written, slot=put(s.slot, slot, new))
                else:
                    go('fails to write', 'old', pos, mine, i, None)
            elif at == 'publish':
                pos, mine = p[1:3]
                if s.head == (pos, mine) or publish == 'store':
                    go('publishes', 'done', head=(pos + len(burst), mine + 1))
                else:
                    go('fails to publish', 'begin')
            if k == 0:
                go('stands still', 'stopped')
        c = s.c
        if c[0] == 'begin' and s.tail < s.head[0]:
            add('C reads', c=('read', s.tail, s.slot[s.tail % cap][1]))
        if c[0] == 'read':
            if c[1] == s.tail:
                add('C moves the tail', c=('begin',), tail=s.tail + 1, got=s.got + (c[2],))
            else:
                add('C fails', c=('begin',))

    def bad(s, final):
        if len(set(s.got)) < len(s.got) or None in s.got:
            return 'twice: an element, or rubbish'
        for k in range(n):
            here = [v for v in s.got if v in bursts[k]]
            if here != list(bursts[k])[:len(here)]:
                return 'out of order'
            if s.p[k][0] == 'done' and final and len(here) < len(bursts[k]):
                return 'lost: a burst that was pushed'
            if final and here and len(here) < len(bursts[k]):
                return 'torn: half of a burst'
            if final and s.p[k][0] not in ('done', 'stopped'):
                return 'blocked: P%d' % (k + 1)
    start = (('begin',),) * n
    return dict(p=start, head=(0, 0), tail=0, slot=((0, None),) * cap, c=('begin',), got=(),
                takeovers=takeovers), next_steps, bad


FREE, TENTATIVE, TAKEN = 'free', 'tentative', 'taken'
NOBODY = -1


def taking(elements=2, confirm=True, dead_tentative='asks the tail', reopen='lets go first', look='hold first', fill='before'):
    """Holds are (sequence, state, holder, elements); two of them, one element a take."""
    names = ('C1', 'C2', 'C3')
    dead = 'C1'

    def next_steps(s, add):
        if s.kill == 0:
            add('C1 killed', kill=1, c=put(s.c, 0, ('dead',)))

        def is_dead(cell):
            owner = s.owner[cell]
            return owner == dead and s.kill == 1

        for k, name in enumerate(names):
            c = s.c[k]
            at = c[0]
            cell = {'C1': 0, 'C2': 1, 'C3': 0}[name]

            def go(label, *state, **more):
                add(name + ' ' + label, c=put(s.c, k, state), **more)

            if at in ('dead', 'end', 'closed'):
                if at == 'closed' and is_dead(0):
                    go('finds the cell of the dead', 'open' if reopen == 'lets go first' else 'own', 0)
                continue
            if at == 'open':                            # let go of the dead one's holds, one by one
                h = c[1]
                if h == len(s.hold):
                    go('has let go of all', 'own', 0)
                elif s.hold[h][1] != FREE and s.hold[h][2] == 0:
                    go('sees a hold of the dead', 'letgo', h, s.hold[h])
                else:
                    go('passes by a hold', 'open', h + 1)
            elif at == 'letgo':
                h, hold = c[1:]
                seq, kind, holder, value = hold
                committed = dead_tentative == 'taken' or (dead_tentative == 'asks the tail' and s.tail[1] == (h, seq))
                new = (seq + 1, TAKEN, NOBODY, value) if kind == TAKEN or committed else (seq + 1, FREE, NOBODY, None)
                if s.hold[h] == hold:
                    go('lets go of it', 'open', h, hold=put(s.hold, h, new))
                else:
                    go('fails to let go', 'open', h)
            elif at == 'own':
                if s.owner[0] == dead and s.kill:
                    go('has the cell', 'begin', owner=put(s.owner, 0, name))
                else:
                    go('fails to have the cell', 'end')
            elif at == 'begin':
                for h, hold in enumerate(s.hold):       # of others first
                    if hold[1] == FREE or hold[2] == cell:
                        continue
                    if look == 'hold first' or hold[2] == NOBODY:
                        go('sees a hold of another', 'orphan', h, hold)
                    elif is_dead(hold[2]):
                        go('sees a cell of the dead', 'late', h, hold[2])
                for h, hold in enumerate(s.hold):
                    if hold[1] == FREE and s.tail[0] < elements:
                        go('claims a hold', 'look', h, hold[0] + 1,
                           hold=put(s.hold, h, (hold[0] + 1, TENTATIVE, cell, None)))
                        break
                if name == 'C2' and s.tail[0] < elements:
                    go('reads the tail to pop', 'pop', s.tail[0])
                if s.tail[0] == elements and not any(h[1] != FREE for h in s.hold):
                    go('finds nothing more', 'end')
            elif at == 'pop':                           # of the pair it swaps the position alone
                if s.tail[0] == c[1]:
                    go('pops', 'begin', tail=(c[1] + 1, s.tail[1]), acked=s.acked + (c[1],))
                else:
                    go('fails to pop', 'begin')
            elif at == 'late':
                h, other = c[1:]
                if s.hold[h][1] != FREE and s.hold[h][2] == other:
                    go('sees a hold', 'adopt', h, s.hold[h])
                else:
                    go('sees that it is gone', 'begin')
            elif at == 'orphan':
                h, hold = c[1:]
                if hold[2] == NOBODY or is_dead(hold[2]):
                    go('sees that its holder is dead', 'adopt', h, hold)
                elif s.hold[h] != hold:             # else it looks again, which changes nothing
                    go('sees that its holder lives', 'begin')
            elif at == 'adopt':
                h, hold = c[1:]
                seq, kind, holder, value = hold
                if kind == TENTATIVE:
                    committed = dead_tentative == 'taken' or (dead_tentative == 'asks the tail' and s.tail[1] == (h, seq))
                    go('reads the tail', 'judge', h, hold, committed)
                elif s.hold[h] == hold:
                    go('adopts', 'has', h, hold=put(s.hold, h, (seq + 1, TAKEN, cell, value)))
                else:
                    go('fails to adopt', 'begin')
            elif at == 'judge':
                h, hold, committed = c[1:]
                seq, kind, holder, value = hold
                new = (seq, TAKEN, holder, value) if committed else (seq + 1, FREE, NOBODY, None)
                go('judges a hold', 'begin', **({'hold': put(s.hold, h, new)} if s.hold[h] == hold else {}))
            elif at == 'look':
                h, seq = c[1:]
                pos, mover = s.tail
                if pos == elements:
                    go('finds nothing', 'begin', hold=put(s.hold, h, (seq + 1, FREE, NOBODY, None)))
                elif fill == 'before':
                    go('copies', 'confirm', h, seq, pos, mover, hold=put(s.hold, h, (seq, TENTATIVE, cell, pos)))
                else:
                    go('copies nothing yet', 'confirm', h, seq, pos, mover)
            elif at == 'confirm':
                h, seq, pos, mover = c[1:]
                more = {}
                if confirm and mover:
                    held = s.hold[mover[0]]
                    if held[0] == mover[1] and held[1] == TENTATIVE:
                        more = {'hold': put(s.hold, mover[0], (held[0], TAKEN) + held[2:])}
                go('confirms the last one', 'move', h, seq, pos, mover, **more)
            elif at == 'move':
                h, seq, pos, mover = c[1:]
                if s.tail == (pos, mover):
                    go('moves the tail', 'own it', h, seq, pos, tail=(pos + 1, (h, seq)))
                else:
                    go('fails to move the tail', 'look', h, seq)
            elif at == 'own it':
                h, seq, pos = c[1:]
                held = s.hold[h]
                value = pos if fill == 'after' else held[3]
                go('confirms its own', 'has', h, **({'hold': put(s.hold, h, (seq, TAKEN, cell, value))}
                                                     if held[:2] == (seq, TENTATIVE) else {}))
            elif at == 'has':
                seq, kind, holder, value = s.hold[c[1]]
                go('acknowledges', 'begin', hold=put(s.hold, c[1], (seq + 1, FREE, NOBODY, None)),
                   acked=s.acked + (value,), wrong=s.wrong or kind != TAKEN or holder != cell)

    def bad(s, final):
        if s.wrong:
            return 'another has what was taken'
        if len(set(s.acked)) < len(s.acked) or None in s.acked:
            return 'twice: an element, or rubbish'
        if final and len(s.acked) < elements:
            return 'lost: an element that was taken'
    return dict(c=(('begin',), ('begin',), ('closed',)), kill=0, owner=('C1', 'C2'), tail=(0, None),
                hold=((0, FREE, NOBODY, None),) * 2, acked=(), wrong=False), next_steps, bad


def waiting(barrier=True, flag='before', futex='before', slices=False, killed=False, pushes=1):
    def next_steps(s, add):
        drain(s, add, 'P')
        if s.p == 0:
            add('P publishes', p=1, buf=s.buf + (('there', seen(s, 'there') + 1),))
        if s.p == 1:
            if s.flag:
                add('P sees the flag', p=2)
            else:
                add('P sees no flag', p=9)
        if s.p == 2:
            add('P takes it down', p=3, flag=0)
        if s.p == 3:
            add('P counts up', p=4, futex=s.futex + 1)
        if s.p == 4:
            add('P wakes', p=9, asleep=0)
        if killed and s.p in (1, 2, 3, 4):
            add('P killed', p=9, there=seen(s, 'there'), buf=())
        if s.w == 0:
            add('W reads the futex word', w=1, read=s.futex)
        if s.w == 1:
            add('W puts the flag up', w=2 if flag == 'before' else 4, flag=1)
        if s.w == 2 and flag == 'before':
            if not barrier:
                add('W goes on', w=3)
            elif not s.buf:
                add('W barrier', w=3)
            else:
                add('W barrier', w=3, there=seen(s, 'there'), buf=())
        if s.w == 3:
            if s.there:
                add('W finds it', w='got')
            else:
                add('W finds nothing', w=5)
        if s.w == 5:
            if futex == 'before' and s.futex != s.read:
                add('W does not sleep', w=0)
            else:
                add('W sleeps', w=6, asleep=1)
        if s.w == 6 and (not s.asleep or slices):
            add('W wakes up', w=0, asleep=0)

    def bad(s, final):
        if final and s.there and s.w != 'got':
            return 'asleep for ever'
    return dict(p=0, w=0, buf=(), there=0, flag=0, futex=0, read=0, asleep=0), next_steps, bad


def main():
    suite = Suite('fifo')
    suite.right('P claims that are taken over, entries tagged with the claim', producers(),
                ('P2 takes the claim over', 'P1 has lost the claim', 'P2 fails to write', 'P1 fails to publish'))
    suite.right('P four takeovers, one by one', producers((('a',), ('b',)), takeovers=4), ('P1 takes the claim over',))
    suite.mutant('P entries are stored', producers(entry='store'), 'out of order')
    suite.mutant('P entries tagged with their position', producers((('a',), ('b',)), takeovers=4, tag='position'),
                 'lost')
    suite.mutant('P the claim checked before the entry is read', producers(order='checked before'), 'out of order')
    suite.mutant('P published by a store', producers(publish='store'), 'lost')
    suite.mutant('P a claim is never taken over', producers(revoke=False), 'blocked')
    suite.right('T the hold that the tail names is confirmed', taking(),
                ('C2 judges a hold', 'C2 adopts', 'C2 pops', 'C3 lets go of it', 'C3 adopts', 'C2 fails to move the tail'))
    suite.mutant('T the tail moves on without confirming', taking(confirm=False), 'lost')
    suite.mutant('T tentative holds of the dead count as taken', taking(dead_tentative='taken'), 'twice')
    suite.mutant('T tentative holds of the dead count as free', taking(dead_tentative='free'), 'lost')
    suite.mutant('T who opens does not let go of what the dead one held', taking(reopen='takes it'), 'lost')
    suite.mutant('T copied after the tail has moved', taking(fill='after'), 'twice')
    suite.mutant('T the cell is looked at before the hold', taking(look='cell first'), 'another has what was taken')
    suite.right('W flag, barrier, look', waiting(), ('W barrier', 'P wakes', 'W does not sleep'))
    suite.right('W who pushes may be killed, slices', waiting(slices=True, killed=True), ('P killed', 'W wakes up'))
    suite.mutant('W no barrier', waiting(barrier=False), 'asleep for ever')
    suite.mutant('W sleeps whatever the futex word', waiting(futex='ignored'), 'asleep for ever')
    suite.mutant('W who pushes is killed, no slices', waiting(killed=True), 'asleep for ever')
    suite.finish()


if __name__ == '__main__':
    main()
