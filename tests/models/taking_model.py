"""
T: taking units from a live owner. O owns U, nobody owns V. Every operation of O: in_op = 1; load `news`; work;
in_op = 0, all plain, through a store buffer. Where there is news, O clears it by a locked instruction, then loads the
word taker = (mark, sequence) and compares it with the value O remembers. A taker lists the control words it wants,
marks by CAS (nobody, n) -> (me, n), stores news, runs membarrier (O's buffer is empty), and only if in_op is 0 moves
what it listed, each by CAS at unchanged version; then it takes the mark away, of which there is no news. If O meets a
mark it gives its units back by CAS, remembers the marked word and competes for units like anybody, V or U
again, by CAS; the mark may stay for ever, the taker stop anywhere. If O meets another sequence it reads ctl of its
units again and drops what was moved. Two takers; the first goes round twice and may be killed at any step: its mark
is displaced by n + 1, its units are recovered. O may be killed too.

Every unmarking counts: (me, n) -> (nobody, n + 1), also when nothing was moved. An earlier rule kept n in that
case; then the same taker's next mark equals the word O remembers, and O goes on with units that were moved (case "n
kept"). Keeping n is right only if O remembers unmarked words alone, at the price of giving its units back in every
operation for as long as the mark stands.

Adopted early: O may also adopt a unit between operations, begin one, and use it there. Such a unit is not among
those it gives back when it meets a mark, and between adopting and using another operation may come (a signal
handler's, or one that gives something back) that meets the mark and remembers it. So any news since the first
adoption must make it drop what it has adopted; and before the operation begins nothing may be written into the unit
(a tag, A := R), since a taker may have moved it: such writes belong into one operation with the CAS that adopts.

Abstracted: a unit is one granule, never freed; ctl's version is "has ctl changed since I listed it". Checked: no
granule has two owners.
"""
from explore import Suite, drain, seen


def taking(barrier=True, fenced=False, moves='listed, version', unmark='n + 1', remembers='marks too',
           on_mark='gives back', on_sequence='reads ctl', displaced='n + 1', kill_o=False, ops=2, rounds=(2, 0),
           early=None, settles='with the CAS', tells='after the mark', clears='before the look'):
    takers = (('1', rounds[0]), ('2', rounds[1]))

    def next_steps(s, add):
        def moved(label, unit, owner, **changes):       # a CAS of ctl: nobody's listing of it is current any more
            stale = {f: 0 for f in ('l1' + unit, 'l2' + unit) if getattr(s, f) == 1}
            if moves != 'listed, version':
                stale = {}
            add(label, **dict(stale, **{'ctl' + unit: owner}, **changes))
        drain(s, add, 'O')
        if s.o != 'dead':
            owner_steps(s, add, moved)
            if kill_o:
                add('O killed', o='dead', mineU=0, mineV=0)
        elif not s.buf:
            for u in 'UV':
                if getattr(s, 'ctl' + u) == 'O':
                    moved('%s of O recovered' % u, u, '-')
        for t, last in takers:
            taker_steps(s, add, moved, t, last)

    def owner_steps(s, add, moved):
        o = s.o
        if o == 0 and early and not s.buf and not s.hand:
            for u in 'UV':
                if getattr(s, 'ctl' + u) == '-':
                    old = {'mine' + u: -1} if getattr(s, 'mine' + u) else {}    # known with an earlier version of ctl
                    write = settles == 'outside' and not getattr(s, 'A' + u)
                    moved('O adopts %s early' % u, u, 'O', hand=u, news=0, unsettled=int(write), **old)
        if o == 0 and s.unsettled:
            add('O settles ' + s.hand, unsettled=0, buf=s.buf + (('A' + s.hand, 0),))
        if o == 0 and s.k < ops and not s.unsettled:
            if not fenced:
                add('O in_op=1', o=1, buf=s.buf + (('in_op', 1),))
            elif not s.buf:                                 # a locked store
                add('O in_op=1', o=1, in_op=1)
        if o == 1 and not s.bell:
            add('O sees no news', o=2)
        elif o == 1 and clears == 'after the look':
            add('O looks first', o='clear', reg=s.word)
        elif o == 1 and not s.buf:
            add('O clears the news', o='look', bell=0, news=1)
        if o == 'clear' and not s.buf:
            add('O clears the news', o='look', bell=0, news=1)
        if o == 'look':
            word = s.reg if clears == 'after the look' else s.word
            if word == s.exp or (word[0] and on_mark == 'goes on'):
                add('O sees what it remembers', o=2, reg=0)
            elif word[0]:
                add('O sees a mark', o=3, reg=word)
            elif on_sequence == 'reads ctl':
                add('O sees a sequence', exp=word, o='read U', reg=0)
            else:
                add('O sees a sequence', exp=word, o=2, reg=0)
        for u, then in (('U', 'read V'), ('V', 2)):
            if o == 'read ' + u:
                still = getattr(s, 'ctl' + u) == 'O' and getattr(s, 'mine' + u) == 1
                add('O reads ctl of ' + u, o=then, **{'mine' + u: int(still)})
        if o == 3 and not s.buf:
            for u in 'UV':
                if getattr(s, 'mine' + u):
                    if getattr(s, 'ctl' + u) == 'O' and getattr(s, 'mine' + u) == 1:
                        moved('O gives %s back' % u, u, '-', **{'mine' + u: 0})
                    else:
                        add('O has lost ' + u, **{'mine' + u: 0})
                    return
            add('O has given all back', o=2, exp=s.reg if remembers == 'marks too' else s.exp, reg=0)
        if o == 2 and s.hand:
            if getattr(s, 'ctl' + s.hand) == 'O' and not s.news:
                add('O uses what it adopted early', hand='', **{'mine' + s.hand: 1})
            elif getattr(s, 'ctl' + s.hand) != 'O':
                add('O has lost what it adopted early', hand='')
            elif not s.buf:
                moved('O gives back what it adopted early', s.hand, '-', hand='')
        if o == 2:
            for u in 'UV':
                if getattr(s, 'mine' + u) and not seen(s, 'A' + u) and len(s.buf) < 3:
                    add('O allocates in ' + u, o=4, buf=s.buf + (('A' + u, 1),), **{'h' + u: getattr(s, 'h' + u) + 1})
                if getattr(s, 'ctl' + u) == '-' and not s.buf:
                    moved('O adopts ' + u, u, 'O', hand='' if s.hand == u else s.hand, **{'mine' + u: 1})
            add('O ends', o=4)
        if o == 4 and len(s.buf) < 3:
            forgets = {'news': 0} if early == 'news of this operation' else {}
            add('O in_op=0', o=0, k=s.k + 1, **forgets, buf=s.buf + (('in_op', 0),))

    def taker_steps(s, add, moved, t, last):
        pc, me, at = 't' + t, 'T' + t, getattr(s, 't' + t)
        n = s.word[1]
        if at == 'dead':
            if s.word[0] == me:
                add(me + "'s mark displaced", word=('', n + 1 if displaced == 'n + 1' else n))
            for u in 'UV':
                if getattr(s, 'ctl' + u) == me:
                    moved('%s of %s recovered' % (u, me), u, '-')
            return
        if at == 'list U' and getattr(s, 'r' + t) < last:
            add(me + ' lists U', **{pc: 'list V', 'l%sU' % t: int(s.ctlU == 'O')})
        if at == 'list V':
            add(me + ' lists V', **{pc: 'mark', 'l%sV' % t: int(s.ctlV == 'O')})
        if at == 'mark' and tells == 'before the mark':
            add(me + ' tells', bell=1, **{pc: 'mark now'})
        elif at in ('mark', 'mark now') and not s.word[0]:
            add(me + ' marks', word=(me, n), **{pc: 'tell' if tells == 'after the mark' else 'barrier', 'm' + t: 0})
        if at == 'tell':
            add(me + ' tells', bell=1, **{pc: 'in_op' if tells == 'after the barrier' else 'barrier'})
        if at == 'barrier':
            then = 'tell' if tells == 'after the barrier' else 'in_op'
            if not barrier:
                add(me + ' goes on', **{pc: then})
            elif not s.buf:
                add(me + ' membarrier', **{pc: then})
        if at == 'in_op':
            add('%s reads in_op=%d' % (me, s.in_op), **{pc: 'unmark' if s.in_op else 'move U'})
        for u, then in (('U', 'move V'), ('V', 'unmark')):
            if at == 'move ' + u:
                listed = getattr(s, 'l%s%s' % (t, u)) or moves == "all that is O's"
                if listed and getattr(s, 'ctl' + u) == 'O':
                    moved('%s moves %s' % (me, u), u, me, **{pc: then, 'm' + t: 1})
                else:
                    add('%s leaves %s' % (me, u), **{pc: then})
        if at == 'unmark':
            counts = unmark == 'n + 1' or (unmark == 'n kept if nothing moved' and getattr(s, 'm' + t))
            add(me + ' unmarks', word=('', n + counts), **{pc: 'list U', 'r' + t: getattr(s, 'r' + t) + 1, 'm' + t: 0,
                                                        'l%sU' % t: 0, 'l%sV' % t: 0})
        if at == 'list U':
            for u in 'UV':
                if getattr(s, 'ctl' + u) == me:
                    if not getattr(s, 'A' + u):
                        add('%s allocates in %s' % (me, u), **{'A' + u: 1, 'h' + u: getattr(s, 'h' + u) + 1})
                    moved('%s gives %s up' % (me, u), u, '-')
                if getattr(s, 'ctl' + u) == '-':
                    moved('%s adopts %s' % (me, u), u, me)
        if t == '1' and at != 'list U':
            add(me + ' killed', **{pc: 'dead', 'l1U': 0, 'l1V': 0})

    def bad(s, final):
        if s.hU > 1 or s.hV > 1:
            return 'two owners'
        for u in 'UV':
            if getattr(s, 'h' + u) and not getattr(s, 'A' + u) and not s.buf:
                return 'a held run was freed'
    init = dict(o=0, k=0, buf=(), in_op=0, bell=0, word=('', 0), exp=('', 0), reg=0, ctlU='O', ctlV='-', mineU=1, mineV=0,
                AU=0, AV=0, hU=0, hV=0, hand='', news=0, unsettled=0)
    for t in '12':
        init.update({'t' + t: 'list U', 'r' + t: 0, 'm' + t: 0, 'l%sU' % t: 0, 'l%sV' % t: 0})
    return init, next_steps, bad


def main():
    suite = Suite('taking')
    life = ('O sees a mark', 'O gives U back', 'O has lost U', 'O adopts V', 'O adopts U', 'O sees a sequence',
            'O reads ctl of U', 'O allocates in V', 'T1 reads in_op=1', 'T1 moves U', 'T1 moves V', 'T1 leaves U',
            "T1's mark displaced", 'U of T1 recovered')
    suite.right('T owner gives back, remembers the mark; one taker twice, owner killed', taking(kill_o=True),
                life + ('O killed', 'U of O recovered'))
    suite.right('T two takers', taking(rounds=(1, 1)), life + ('T2 moves U',))
    if suite.deep:
        suite.right('T n kept if nothing moved, the owner remembers unmarked words alone',
                    taking(unmark='n kept if nothing moved', remembers='unmarked'), life)
        suite.right('T two takers, one twice', taking(rounds=(2, 1)), limit=4000000)
        suite.right('T one taker twice, three operations', taking(ops=3, kill_o=True), limit=4000000)
    suite.right('T no membarrier, in_op = 1 is a locked store (fenced mode)', taking(barrier=False, fenced=True), life)
    suite.right('T units adopted outside of an operation, all news since then count',
                taking(early='news since', rounds=(1, 0)),
                ('O uses what it adopted early', 'O gives back what it adopted'))
    suite.mutant('T units adopted outside of an operation, news of the using operation count',
                 taking(early='news of this operation', rounds=(1, 0)), 'two owners')
    suite.mutant('T a unit adopted outside of an operation is written to before the next begins',
                 taking(early='news since', settles='outside', rounds=(1, 0)), 'a held run was freed')
    suite.mutant('T n kept if nothing moved, the owner remembers the mark', taking(unmark='n kept if nothing moved'),
                 'two owners')
    suite.mutant('T n kept though units were moved', taking(unmark='n kept'), 'two owners')
    suite.mutant('T news before the mark', taking(tells='before the mark'), 'two owners')
    suite.mutant('T news after the barrier', taking(tells='after the barrier'), 'two owners')
    suite.mutant('T the owner looks at the mark before it clears the news', taking(clears='after the look'),
                 'two owners')
    suite.mutant('T no membarrier', taking(barrier=False), 'two owners')
    suite.mutant("T all that is O's at that time is moved", taking(moves="all that is O's"), 'two owners')
    suite.mutant('T what was listed is moved, owner alone compared', taking(moves='listed, owner alone'), 'two owners')
    suite.mutant('T owner goes on with what it holds under a mark', taking(on_mark='goes on'), 'two owners')
    suite.mutant('T owner sees another sequence, does not read ctl again', taking(on_sequence='ignored'), 'two owners')
    suite.mutant("T a dead taker's mark displaced with n kept", taking(displaced='n'), 'two owners')
    suite.finish()


if __name__ == '__main__':
    main()
