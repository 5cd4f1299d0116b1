# Locked instructions of the fast paths, by disassembly: none in a local pair, one in a free by anybody else. Would catch
# one that slips in with a counter or a stronger ordering.
. "$(dirname "$0")/lib.bash"
build=${3:-$(dirname "$hugepool")}
command -v objdump >/dev/null || skip "objdump is missing (package binutils)"
[ "$(uname -m)" = x86_64 ] || skip "looks for x86-64 instructions"
library=$build/libhugepool.so
[ -e "$library" ] || skip "no $library"
objdump -d --no-show-raw-insn "$library" >"$scratch/code" || skip "objdump cannot read $library"
grep -qE '__(tsan|asan)_' "$scratch/code" && skip "a sanitizer adds instructions of its own"

# How many in a function; xchg with memory locks without saying so.
locked() {
	awk -v f="<$1>:" 'index($0, f) { p = 1 } p && /^$/ { exit } p' "$scratch/code" |
		grep -cE '[[:space:]]lock([[:space:]]|$)|xchg +.*\('
}

for function in hp_page_alloc_address alloc_other hp_page_free free_run; do
	count=$(locked $function)
	[ "$count" = 0 ] || fail "$function has $count locked instructions"
done
grep -q "<free_remote>:" "$scratch/code" || skip "free_remote was inlined by this compiler"
count=$(locked free_remote)
[ "$count" = 1 ] || fail "free_remote has $count locked instructions, not 1"

# A heap's readers and stores have none, a transaction one, for the lock.
for function in hp_heap_read_enter hp_heap_read_exit hp_heap_deref_checked hp_heap_guard hp_heap_unguard hp_heap_set \
	hp_heap_new hp_heap_commit; do
	grep -q "<$function>:" "$scratch/code" || fail "there is no $function"
	count=$(locked $function)
	[ "$count" = 0 ] || fail "$function has $count locked instructions"
done
count=$(locked hp_heap_begin)
[ "$count" = 1 ] || fail "hp_heap_begin has $count locked instructions, not 1"
echo "locked instructions: 0 in a local pair, 1 in a remote free; 0 in a heap's sections, guards and stores, 1 in a transaction"
