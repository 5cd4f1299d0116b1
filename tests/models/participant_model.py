"""
S: one process record with its lock byte: registration and recovery. The record's word is (state, generation,
recoverer). P registers: locks the byte, then CAS FREE -> LIVE; owns a unit, tagged with the generation; may die at
any step, then the kernel frees the byte. Q registers in the same record after it. R1 and R2 recover: read the word;
test the byte; if it is free CAS that very word to RECOVERING(who I am); give the units back; then FREE with
generation + 1. R1 may die in the middle, R2 takes over from it by CAS.

Abstracted: the byte is one word that the kernel clears in the step in which P dies (that it does so only after all
of P's stores is a fact of the kernel, tested elsewhere); one unit stands for all a record holds; ctl of that unit
is compared by generation, as recovery's CAS does.

Checked: a live process is never recovered, nothing tagged with a generation that is over stays behind.
"""
from explore import Suite


def record(lock_first=True, read_first=True, units_first=True, bump=1):
    def next_steps(s, add):
        state, generation, recoverer = s.word
        for p in 'PQ':
            at = getattr(s, p)
            if at == 'dead' or (p == 'Q' and s.P != 'dead'):
                continue

            def locks(then):
                if s.byte == '-':
                    add(p + ' locks its byte', byte=p, **{p: then})

            def publishes(then):
                if state == 'FREE':
                    add(p + ' publishes LIVE', word=('LIVE', generation, '-'), **{p: then, 'g' + p: generation})
            if at == 0:
                (locks if lock_first else publishes)(1)
            if at == 1:
                if lock_first and state != 'FREE':
                    add(p + ' backs off', byte='-', **{p: 0})
                (publishes if lock_first else locks)(2)
            if at == 2 and s.unit == -1:
                add(p + ' owns the unit', unit=getattr(s, 'g' + p), user=p, **{p: 3})
            if p == 'P':
                add('P killed', P='dead', byte='-' if s.byte == 'P' else s.byte, user='-' if s.user == 'P' else s.user)
        for r in ('R1', 'R2'):
            at, known = getattr(s, r)
            if at == 'dead':
                continue
            begins = at == 'idle'
            if begins:
                at = 'read' if read_first else 'test'
            if at == 'read':
                if state == 'LIVE':
                    add(r + ' reads the word', **{r: ('test' if read_first else 'claim', s.word)})
                if state == 'REC' and recoverer == 'R1' and r == 'R2' and s.R1[0] == 'dead':
                    add('R2 takes over from R1', word=('REC', generation, 'R2'), R2=('units', generation))
            if at == 'test':
                if s.byte == '-':
                    add(r + ' finds the byte free', **{r: ('claim' if read_first else 'read', known)})
                elif not begins:
                    add(r + ' finds the byte held', **{r: ('idle', 0)})
            if at == 'claim':
                if s.word == known:
                    add(r + ' claims', word=('REC', generation, r),
                        **{r: ('units' if units_first else 'free', generation)})
                else:
                    add(r + ' comes late', **{r: ('idle', 0)})
            if at == 'units':
                hit = s.unit == known
                add(r + ' gives units back', unit=-1 if hit else s.unit, stolen=int(hit and s.user != '-'),
                    **{r: ('free' if units_first else 'idle', known)})
            if at == 'free':
                add(r + ' stores FREE', word=('FREE', known + bump, '-'),
                    **{r: ('idle', 0) if units_first else ('units', known)})
            if r == 'R1' and at in ('units', 'free', 'claim'):
                add('R1 killed', R1=('dead', 0))

    def bad(s, final):
        if s.stolen:
            return 'a live process was recovered'
        if -1 < s.unit < s.word[1] and ('units', s.unit) not in (s.R1, s.R2):
            return 'lost: unit of the dead'
    init = dict(byte='-', word=('FREE', 0, '-'), unit=-1, user='-', P=0, Q=0, gP=-1, gQ=-1,
                R1=('idle', 0), R2=('idle', 0), stolen=0)
    return init, next_steps, bad


def main():
    suite = Suite('participants')
    suite.right('S lock, publish; read, test, claim, units, FREE with generation + 1', record(),
                ('Q owns the unit', 'Q backs off', 'R1 killed', 'R2 takes over', 'R2 stores FREE', 'R1 comes late'))
    suite.mutant('S LIVE published before the byte is locked', record(lock_first=False), 'a live process was recovered')
    suite.mutant('S byte tested before the word is read', record(read_first=False), 'a live process was recovered')
    suite.mutant('S FREE stored before the units are given back', record(units_first=False), 'lost')
    suite.mutant('S generation not counted up', record(bump=0), 'a live process was recovered')
    suite.finish()


if __name__ == '__main__':
    main()
