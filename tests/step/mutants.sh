#!/bin/bash
# Shows that the stepping harness can fail: builds copies of the library, each with one fault, and expects the tests named
# beside it to fail. Not part of the ordinary run (several minutes): run it by hand after changing the harness, or the
# protocols. Usage: tests/step/mutants.sh [NAME...]; exit status 1 when a mutant survives, or cannot be made any more.
set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# name | file | perl program over the whole file | tests, as TEST or TEST:PART OF THE NAMES OF ITS ENTRIES
mutants=$(cat <<'END'
len_after_commit | parity/parity.h | s/(\tatomic_store_explicit\(&unit->len\[i\], \(uint16_t\)len, memory_order_relaxed\);\n)((?:.*\n){2}\tparity_flip\(a, [^;]*;\n)/$2\tatomic_signal_fence(memory_order_seq_cst);\n$1/ | alloc:local
free_marks_before_check | parity/parity.h | s/(if \(__builtin_expect\(!\(\(a \^ r\) & parity_bit\(i\)\), 0\)\) return) 0;/if (0) return 0;/ | interleave:two
remote_free_without_cas | parity/parity.h | s/!atomic_compare_exchange_weak_explicit\(&unit->r\[i >> 6\], &r, r \^ parity_bit\(i\), memory_order_release,\s*memory_order_relaxed\)/(atomic_store_explicit(&unit->r[i >> 6], r ^ parity_bit(i), memory_order_release), 0)/ | interleave:two
cover_after_commit | page/survey.c | s/(\t\tfor \(uint32_t i = run->first \+ 1; i <= run->last; i\+\+\)\n\t\t\tatomic_store_explicit\(&pool->chunks\[i\]\.cover(?:[^;]*);\n)(.*?)(\t\tfor \(uint32_t i = run->first; i <= run->last; i\+\+\) \{)/$2$1$3/s | alloc:alloc 513
span_after_commit | page/survey.c | s/(\t\tatomic_store_explicit\(&pool->chunks\[run->first\]\.span[^;]*;\n)(.*?)(\t\tfor \(uint32_t i = run->first; i <= run->last; i\+\+\) \{)/$2\t\tatomic_signal_fence(memory_order_seq_cst);\n$1$3/s | alloc:alloc 513
view_not_looked_at_again | page/survey.c | s/if \(parity_view_count\(&view\) - parity_view_count\(&rest\) != to - from\) goto end;// | interleave:run
rollback_frees | page/survey.c | s/(static void release_reach\(.*?\{\n)(.*?)(page_release\(me->pool, me->who, i\);)/$1$2\{ parity_free_all(&me->pool->units[i]); $3 \}/s | alloc interleave
claim_by_store | page/own.c | s/got = got && atomic_compare_exchange_strong_explicit\(word, &old, mine, memory_order_acq_rel, memory_order_relaxed\);/if (got) atomic_store(word, mine);/ | interleave
release_by_store | page/own.c | s/if \(!atomic_compare_exchange_strong\(word, &old, nobody\)\) return;/atomic_store(word, nobody);/ | interleave
tags_ignored | page/own.c | s/return tag == \(process \? page_tag\(pool\) : 0\) \|\|/return true || tag == (process ? page_tag(pool) : 0) ||/; s/if \(!page_chunk_over\(pool, chunk, old\)\) return false;/{}/ | alloc:PROCESS interleave:PROCESS
process_memory_kept | pool/recover.c | s/if \(\(\*layer\)->recover_record\) \(\*layer\)->recover_record/if (0) (*layer)->recover_record/g | recover:holder
slot_freed_first | pool/recover.c | s/(\tfor \(const struct pool_layer \*const \*layer = pool_layers; \*layer; layer\+\+\)\n\t\tif \(\(\*layer\)->recover_slot\)[^;]*;\n)(.*?slot_make\(SLOT_FREE[^;]*;\n)/$2$1/s | recover alloc:dead
marks_of_the_dead_stay | pool/recover.c | s/(static void displace_marks\(.*?\{\n)/$1\treturn;\n/s | recover:marked
recoverers_live_for_ever | pool/recover.c | s/if \(record_state\(word\) == RECORD_RECOVERING\) \{/if (record_state(word) == RECORD_RECOVERING) return false;\n\tif (0) {/ | recover
record_freed_first | pool/record.c | s/(\t\trecover_record\(pool, pool->record, pool->record_generation\);\n)(\t\tatomic_store_explicit\(&record->word[^;]*;\n)/$2$1/ | life:detach
in_op_never_set | pool/participant.h | s/"subl \$1, %0"/"cmpl \$1, %0"/; s/(&me->slot->in_op), SLOT_IN_OP, memory_order_relaxed/$1, 0, memory_order_relaxed/ | interleave:owner
in_op_cleared_early | page/page.c | s/(parity_allocate_(?:run_)?near\([^;]*)\;/(participant_end(me), $1);/g | interleave:owner
marks_not_noticed | pool/participant.h | s/atomic_load_explicit\(&(me->slot|slot)->news, memory_order_acquire\)/0/g | interleave
marks_not_told | pool/take.c | s/atomic_store_explicit\(&pool->slots\[slot\]\.news, 1, memory_order_release\);// | interleave
busy_owners_robbed | pool/take.c | s/idle\[k\] = [^;]*;/idle[k] = true;/ | alloc:is somebody interleave:owner
sequence_not_counted | pool/take.c | s/\(uint32_t\)\(mark\[k\] \+ 1\)/(uint32_t)mark[k]/ | interleave
publishing_not_said | pool/grow.c | s/atomic_store_explicit\(&pool->header->plan_phase, PLAN_PUBLISHING, memory_order_release\);// | life:grow by
plan_not_written | pool/grow.c | s/plan_write\(pool, PLAN_POPULATING, at, to\);// | life:grow by recover:populated
growth_lock_of_the_dead_stays | pool/grow.c | s/(static bool lock_holder_dead\(.*?\{\n)/$1\tif (pool) return false;\n/s | recover:growth
trim_plan_not_written | page/trim.c | s/growth_plan_trim\(pool, first, first \+ group\);// | life:trim
trim_looks_once | page/trim.c | s/if \(page_chunk_free\(pool, chunk\)\) return true;/return true;/; s/all = ctl_state\(ctl\) == CTL_OWNED && ctl_who\(ctl\) == me->who && page_chunk_free\(pool, i\);/all = true;/ | life:trim interleave:trim
ready_too_early | pool/create.c | s/(\tgrowth_publish_first\()/\tatomic_store(&pool->header->ready, POOL_READY); pool->header->geometry.magic = POOL_MAGIC;\n$1/ | life:create
slab_remote_free_without_cas | slab/slab.c | s/!atomic_compare_exchange_weak_explicit\(word, &r, r \^ bits, memory_order_release, memory_order_relaxed\)/(atomic_store_explicit(word, r ^ bits, memory_order_release), 0)/ | slab_interleave:two
slab_owner_frees_what_is_free | slab/slab.h | s/if \(unlikely\(!\(live & bit\)\)\) return SLAB_NOT;// | slab:again
slab_owner_not_asked | slab/slab.h | s/return ctl_who\(atomic_load_explicit\(&slab->ctl, memory_order_relaxed\)\) == me->who;/return slab || me;/ | slab:remote slab_interleave:owner
slab_map_before_run | slab/make.c | s/(static void prepare\(.*?)(\n\}\n)/$1\n\tatomic_store(&pool->map[page], map_make(known->reciprocal, 0, class, 0));$2/s | slab:malloc
slab_owned_before_map | slab/make.c | s/(\tint first = atomic_load_explicit\(&slab->first[^;]*;\n)/$1\tatomic_store(&slab->ctl, ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, atomic_load(&slab->ctl)));\n/ | slab_interleave:making
slab_ends_with_objects | slab/slab.c | s/if \(!slab_is_empty\(pool, slab\) \|\| !atomic_compare_exchange_strong\(&slab->ctl, &seen, ours/if (!atomic_compare_exchange_strong(&slab->ctl, &seen, ours/ | slab_interleave slab:recover
slab_ends_by_store | slab/slab.c | s/if \(!slab_is_empty\(pool, slab\) \|\| !atomic_compare_exchange_strong\(&slab->ctl, &seen, ours\)\)\s*return false;/if (!slab_is_empty(pool, slab)) return false;\n\tatomic_store(&slab->ctl, ours);/ | slab_interleave
slab_run_freed_before_map | slab/slab.c | s/(\tfor \(unsigned i = 0; i < pages; i\+\+\) atomic_store_explicit\(&pool->map\[page \+ i\], 0, memory_order_relaxed\);\n)(.*?page_free_typed\(pool, page, PAGE_TYPE_SLAB\) == 0;\n)/$2$1/s | slab:nobody
slab_half_not_finished | slab/layer.c | s/(static int finish_half\(.*?\{\n)/$1\tif (arg) return 0;\n/s | slab:recover slab:making
slab_of_the_dead_stays | slab/layer.c | s/(static int release_if_owned\(.*?\{\n)/$1\tif (arg) return 0;\n/s | slab:recover
slab_magazine_kept_in_reread | slab/layer.c | s/\tslab_state_forget\(state\);\n// | slab_interleave:take
slab_adopted_by_store | slab/search.c | s/mine = atomic_compare_exchange_strong_explicit\(&slab->ctl, &seen, ours, memory_order_acq_rel,\s*memory_order_relaxed\);/atomic_store(&slab->ctl, ours), mine = true;/ | slab_interleave:adopt
slab_class_read_before_its_word | slab/search.c | s/(static int try_slab\(.*?)(\tuint64_t seen = atomic_load_explicit\(&slab->ctl, memory_order_acquire\);\n)(\tif \(atomic_load_explicit\(&slab->class[^;]*;\n)/$1$3$2/s | slab_interleave:another size
cache_place_claimed_by_store | cache/place.c | s/if \(!atomic_compare_exchange_strong\(word, &old, word_make\(pool, old, true, 0\)\)\) continue;/atomic_store(word, word_make(pool, old, true, 0));/ | cache_interleave:last place
cache_claims_do_not_count | cache/place.c | s/if \(same && record_alive\(pool, record\) != 0\) return false;// | cache_interleave:last place
cache_claims_of_the_dead_stay | cache/place.c | s/if \(same && record_alive\(pool, record\) != 0\) return false;/return false;/ | cache:place and slab
cache_limit_looked_at_once | cache/place.c | s/return !limit \|\| \(place < places_for[^;]*;/return true;/ | cache_interleave:set a limit
cache_ending_not_said | cache/cache.c | s/uint64_t ending = cache_word\(CACHE_ENDING, cache->generation\);/uint64_t ending = cache_word(CACHE_LIVE, cache->generation);/ | cache_interleave:destroy
cache_ended_by_store | cache/cache.c | s/atomic_compare_exchange_strong\(&shared->word, &ending, cache_word\(CACHE_FREE, cache->generation \+ 1\)\)/(atomic_store(&shared->word, cache_word(CACHE_FREE, cache->generation + 1)), true)/ | cache_interleave:destroy
cache_ending_is_gone | cache/place.c | s/if \(cache_state\(word\) != CACHE_ENDING\) return false;/return false;/ | cache_interleave:in vain
cache_ending_of_the_dead_stays | cache/cache.c | s/if \(cache_state\(word\) == CACHE_ENDING\) atomic_store\(&shared->word, cache_word\(CACHE_LIVE[^;]*;// | cache:destroy
cache_slabs_of_the_next_are_taken | cache/place.c | s/(bool cache_place_fits\(.*?)\tif \(cache_has_ended\(pool, class\)\) return false;\n/$1/s | cache_interleave:anew
cache_next_ones_object_is_given_out | cache/get.c | s/if \(object && unlikely\(!cache_is_live\(cache\)\)\) \{/if (object && error > 0) {/ | cache_interleave:anew, open
cache_next_ones_object_is_kept | cache/get.c | s/(looked: what we have is the new one.*?)if \(cache_find\(cache, object, &slab, &index\) == 0\)/$1if (cache_find(cache, object, &slab, &index) > 0)/s | cache_interleave:anew, open
cache_invalidates_the_next | cache/cache.c | s/\tif \(!cache_is_live\(cache\)\) return -ESTALE; (\/\* what is there now)/\t$1/ | cache_interleave:destroy, invalidate
cache_reclaims_the_next | cache/cache.c | s/\tif \(!cache_is_live\(cache\)\) return -ESTALE; (\/\* as in hp_cache_invalidate)/\t$1/ | cache_interleave:anew, reclaim
cache_ends_before_its_objects | slab/slab.c | s/built \? slab_by_destroyer\(pool, seen\) : slab_by_record/slab_by_record/ | cache_interleave:reclaim, destroy
cache_limit_passes_by_what_is_razed | slab/census.c | s/slab_by_destroyer\(pool, seen\)/slab_by_record(pool, seen)/ | cache_interleave:date, set
cache_held_slabs_get_no_place | cache/place.c | s/if \(has_place\(to, page\)\) return;/if (has_place(to, page)) return;\n\tif (ctl_state(ctl) == CTL_RECOVERING) { to->busy = true; return; }/ | cache_interleave:with room
cache_dead_destroyer_keeps_the_limit_away | cache/cache.c | s/\tif \(n\) recover_slabs\(pool\);\n// | cache:limit, of a dead
cache_dead_destroyer_keeps_the_cache | cache/cache.c | s/\trecover_slabs\(pool\);\n(\t\/\* destructors first)/$1/ | cache:destroy, of a dead destroyer
cache_next_ones_objects_are_destroyed | slab/slab.c | s/ &&\s*!cache_has_ended\(pool, class\);/;/ | cache_interleave:date, destroy and
cache_next_ones_objects_are_razed | slab/census.c | s/\tif \(cache_has_ended\(pool, census->class\)\) return 1;\n// | cache_interleave:date, destroy and
cache_live_too_early | cache/cache.c | s/atomic_store\(&shared->word, cache_word\(CACHE_MAKING, generation\)\);/atomic_store(&shared->word, cache_word(CACHE_LIVE, generation));/ | cache:create
cache_raised_limit_not_told | cache/place.c | s/(\tcache_places_widen\(pool, class\);\n)(\treturn -EAGAIN;)/$2/ | cache:raise
cache_built_before_constructor | cache/get.c | s/(\tif \(cache->ctor\(cache->arg, object, flags\) == 0\) \{\n)(\t\tslab_set_built\(slab, index, epoch\);\n)/$2$1/ | cache:constructing
cache_not_built_after_destructor | cache/get.c | s/(\t\tslab_set_built\(slab, index, 0\);\n)(\t\tif \(cache->dtor\) cache->dtor\(cache->arg, object\);\n)(\t\}\n\tif \(cache->ctor)/$2$1$3/ | cache:destroying
slab_built_cleared_after_destructor | slab/slab.c | s/(\t\tslab_set_built\(slab, i, 0\);\n)(\t\tif \(known->dtor\) known->dtor\(known->arg, object\);\n)/$2$1/ | cache:invalidate
cache_epoch_not_counted | cache/cache.c | s/(while \(!atomic_compare_exchange_weak\(&shared->epoch, &epoch, )epoch % 255 \+ 1/$1epoch/ | cache:invalidate
waiting_said_after_the_look | cache/wait.c | s/(\t\t\tatomic_store\(cache->waiting, 1\);\n)(.*?)(\t\tif \(object \|\| )/$2\t\tatomic_store(cache->waiting, 1);\n$3/s | cache_interleave:wait
waiting_without_slices | cache/wait.c | s/deadline - now < SLICE_NS \? deadline - now : SLICE_NS/deadline - now/ | wait:putter
waiting_tickets_of_the_dead_stay | cache/wait.c | s/if \(atomic_load\(&wait->ticket\)\) atomic_store\(&wait->ticket, 0\);/(void)wait;/ | wait:wait at
put_without_a_look_at_the_flag | cache/get.c | s/if \(unlikely\(atomic_load_explicit\(cache->waiting, memory_order_relaxed\)\)\) hp_cache_wake\(cache\);/(void)cache;/ | cache_interleave:wait
publish_without_intent | malloc/publish.c | s/intend\(cell, INTENT_INTO, object, at\);// | publish:into
publish_before_the_bit | malloc/publish.c | s/(\t\t\t\tslab_at_hand\(slab_state\(me\), class\);\n)(.*?)(\t\t\t\tatomic_store_explicit\(word, value, memory_order_release\);\n)/$3$1/s | publish:into
publish_claimed_by_store | malloc/publish.c | s/if \(atomic_compare_exchange_strong\(word, &old, value \| PENDING\)\) \{/if (!atomic_load(word)) { (void)old; atomic_store(word, value | PENDING);/ | publish:into, into
free_from_without_announcing | malloc/publish.c | s/if \(!mine && !announce\(slab, slot\)\) \{/if (!mine && !slab) {/ | publish:malloc
free_from_claimed_by_store | malloc/publish.c | s/if \(!atomic_compare_exchange_strong\(word, &value, name_of\(slot\)\)\) \{/if (atomic_load(word) != value || (atomic_store(word, name_of(slot)), 0)) {/ | publish:from another
free_from_without_intent | malloc/publish.c | s/intend\(cell, INTENT_FROM, [^;]*;/(void)pool;/ | publish:from
free_from_emptied_first | malloc/publish.c | s/(\t\tenum slab_gave gave = mine.*?)(\t\tatomic_store_explicit\(word, 0, memory_order_release\);\n)/$2$1/s | publish:from
free_from_recovered_by_a_flip | malloc/publish.c | s/if \(slab_live\(slab, index\)\) slab_flip_remote/slab_flip_remote/ | publish:from
announced_slabs_reused | slab/internal.h | s/if \(unlikely\(atomic_load_explicit\(&slab->announce, memory_order_acquire\)\)\) return 0;// | publish:malloc
heap_commit_after_version | heap/tx.c | s/(\t\tatomic_store_explicit\(&entry->log_n, 0, memory_order_release\);\n)(\t\tversion_even\(entry\);\n)/$2$1/ | heap:change
heap_value_before_entry | heap/tx.c | s/(\tlog_entry\(tx, cursor, off \| [^;]*)atomic_load_explicit\(word, memory_order_relaxed\)\);\n(.*?)\tatomic_store_explicit\(word, value\.word, memory_order_release\);\n/\tuint64_t old = atomic_load(word);\n\tatomic_store_explicit(word, value.word, memory_order_release);\n$2$1old);\n/s | heap:change
heap_counted_before_entry | heap/tx.c | s/(\tatomic_store_explicit\(&cursor->what, what[^;]*;\n\tatomic_store_explicit\(&cursor->old, old[^;]*;\n)(\ttx->cursor = \+\+cursor;\n)(.*?\tatomic_store_explicit\(tx->log_n[^;]*;\n)/$2$3\tcursor--;\n$1/s | heap:change
heap_undone_without_version | heap/tx.c | s/(log_n, 0, memory_order_release\);\n)\tversion_even\(entry\);\n\}/$1}/ | heap:change
heap_extent_after_run | heap/tx.c | s/(\tatomic_store_explicit\(&heap->entry->log\[k\], page \+ 1, memory_order_release\);\n)(\theap_run_named\(heap\);\n)/$2$1/ | heap:log
heap_slab_after_run | heap/slab.c | s/(\t\t\tatomic_store_explicit\(last, \(uint32_t\)\*page \+ 1, memory_order_release\);\n)(\t\t\theap_run_named\(heap\);\n)/$2$1/ | heap:slab
heap_next_after_cell | heap/slab.c | s/(\t\t\tatomic_store_explicit\(&slab->next, atomic_load_explicit\(last[^;]*;\n)(.*?)(\t\t\tatomic_store_explicit\(last, \(uint32_t\)\*page \+ 1, memory_order_release\);\n)/\t\t\tuint32_t old = atomic_load(last);\n$2$3\t\t\tatomic_store_explicit(&slab->next, old, memory_order_relaxed);\n/s | heap:alone
heap_run_not_noted | heap/run.c | s/(\t\/\* last: before the run becomes live[^\n]*\n)\tatomic_store_explicit\(&entry->run, page \+ 1, memory_order_release\);\n/\t(void)entry;\n/ | heap:slab
heap_given_without_a_note | heap/run.c | s/(uint64_t value\)\n\{\n)\tatomic_store_explicit\(&heap->entry->run, page \+ 1, memory_order_release\);\n/$1/ | heap:trim heap:shorten
heap_given_before_cell | heap/run.c | s/(\t\/\* commit: nothing names it any more \*\/\n.*?)(\tgive\(heap, page\);\n)/$2$1/s | heap:trim heap:shorten
heap_settles_others_runs | heap/run.c | s/ &&\n\t       atomic_load_explicit\(&slab->tag, memory_order_acquire\) == heap->tag >> HEAP_OFFSET_BITS// | heap:another
heap_settles_nothing | heap/tx.c | s/\theap_run_settle\(heap\);\n// | heap:after
heap_log_is_no_root | heap/mark.c | s/uint64_t n = atomic_load_explicit\(&entry->log_n, memory_order_relaxed\);\n\tfor \(uint64_t k/uint64_t n = 0;\n\tfor (uint64_t k/ | heap:inside
heap_born_are_no_roots | heap/mark.c | s/(tx->pin\[k\]\.word\);\n)\tmark_all_born\(tx, true\);\n/$1/ | heap:inside
heap_guards_not_read | heap/collect.c | s/\theap_mark_guards\(heap\);\n// | heap:collect
heap_released_is_empty | heap/reader.c | s/stays \? word \| HEAP_RELEASED : 0/stays \&\& !word ? word : 0/ | heap:move
heap_released_is_used_again | heap/reader.c | s/return cell == word \|\| !heap_is_pending[^;]*;/return heap || word;/ | heap:move
heap_marks_of_before_are_believed | heap/reader.c | s/atomic_load_explicit\(&slab->mark_stamp, memory_order_acquire\) == cycle/(cycle != UINT64_MAX)/ | heap:move
heap_grace_not_waited_for | heap/reader.c | s/if \(!section \|\| section >> 16 >= epoch\) continue;/continue;/ | heap:again
heap_epoch_stays | heap/collect.c | s/atomic_fetch_add\(&pool->header->epoch, 1\) \+ 1/atomic_load(&pool->header->epoch)/ | heap:again
heap_condemned_by_the_dead | heap/tx.c | s/\tif \(heap_is_pending\(phase\)\)\n\t\tatomic_store_explicit[^;]*;\n// | heap:collect heap:waits
heap_sweep_of_the_dead_stays | heap/tx.c | s/\tif \(heap_phase\(phase\) == HEAP_SWEEP\) heap_sweep\(heap\);\n// | heap:collect heap:sweeping
heap_type_counted_first | heap/type.c | s/(\tmemcpy\(&new->shape, shape, sizeof \*shape\);\n)(.*?\tatomic_store_explicit\(&entry->types, id \+ 1, memory_order_release\);\n)/$2$1/s | heap:type
heap_live_too_early | heap/heap.c | s/(\t\tif \(error == 0\) error = hp_heap_checkpoint\(tx\);\n)/\t\tatomic_store(&entry->word, heap_word(HEAP_LIVE, generation));\n$1/ | heap:create
heap_making_not_said | heap/heap.c | s/\tatomic_store_explicit\(&entry->word, heap_word\(HEAP_MAKING, generation\), memory_order_release\);\n// | heap:create
heap_gone_not_said | heap/heap.c | s/\t\tatomic_store_explicit\(&entry->word, heap_word\(HEAP_GONE, heap->generation\), memory_order_seq_cst\);\n// | heap:destroy
heap_free_before_its_runs | heap/heap.c | s/(\theap_wipe\(heap\);\n)(.*?)(\tatomic_store_explicit\(&heap->entry->word, heap_word\(HEAP_FREE[^;]*;\n)/$3$1$2/s | heap:destroy
heap_opened_after_the_look | heap/heap.c | s/(hp_heap_open\(.*?)if \(\(error = enlist\(heap\)\) == 0\) \{/$1error = 0;\n\t{/s; s/(\t\tif \(error == 0\) )\{\n(\t\t\t\*out = heap;\n\t\t\treturn 0;\n\t\t\}\n\t\tdelist)/$1error = enlist(heap);\n\t\tif (error == 0) {\n$2/s | heap:open
heap_lock_of_the_dead_is_free | heap/layer.c | s/atomic_compare_exchange_strong\(&pool->heaps\[i\]\.lock, &holder, HEAP_ORPHAN\)/atomic_compare_exchange_strong(&pool->heaps[i].lock, \&holder, 0)/ | heap:change
batch_frees_what_lives | slab/batch.h | s/(\tatomic_store_explicit\(a, old \^ )bits(, memory_order_release\);\n)/$1live$2\tatomic_signal_fence(memory_order_seq_cst);\n$1bits$2/ | cache:together
END
)

mkdir "$work/copy"
cp -r "$source"/{CMakeLists.txt,cmake,docs,include,src,tests} "$work/copy/"
cp -r "$source/src" "$work/src" # as it was now, whatever is edited meanwhile
build() {
	cmake --build "$work/build" -j2 --target step_alloc_test step_life_test step_recover_test step_interleave_test \
		step_slab_test step_slab_interleave_test step_cache_test step_cache_interleave_test step_publish_test step_wait_test \
		step_heap_test
}
cmake -S "$work/copy" -B "$work/build" -DHUGEPOOL_TOOLS=OFF -DHUGEPOOL_BENCH=OFF -DHUGEPOOL_INSTALL=OFF >"$work/log" 2>&1 &&
	build >>"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }

killed=0 survived=0
while IFS='|' read -r name file rest; do
	name=${name// /} file=src/${file// /}
	program=${rest% | *} tests=${rest##* | }
	if (($#)) && [[ " $* " != *" $name "* ]]; then continue; fi
	cp "$work/$file" "$work/copy/$file"
	perl -0pi -e "$program" "$work/copy/$file"
	if cmp -s "$work/$file" "$work/copy/$file"; then
		echo "not made: $name (the source reads differently now)"
		survived=$((survived + 1))
		continue
	fi
	verdict=survived
	if ! build >"$work/log" 2>&1; then
		grep -m3 'error' "$work/log"
		verdict="not built"
	else
		while [ -n "$tests" ]; do # TEST:PART may hold blanks, so take one after the other
			[[ $tests =~ ^\ *(alloc|life|recover|interleave|slab|slab_interleave|cache|cache_interleave|publish|wait|heap)(:([^:]*))?(\ (alloc|life|recover|interleave|slab|slab_interleave|cache|cache_interleave|publish|wait|heap)(:.*|\ .*)?)?$ ]] || break
			test=${BASH_REMATCH[1]} part=${BASH_REMATCH[3]} rest=${BASH_REMATCH[4]}
			tests=$rest
			if [ -n "$part" ]; then export HP_STEP_ONLY=$part; else unset HP_STEP_ONLY; fi
			HP_STEP_IMPATIENT=1 timeout 280 "$work/build/tests/step_${test}_test" >"$work/log" 2>&1
			status=$?
			if [ $status -ne 0 ] && [ $status -ne 77 ]; then
				verdict="killed by $test: $(grep -a -m1 -E 'FAILED:|BROKEN:' "$work/log" | cut -c1-160)"
				break
			fi
		done
	fi
	echo "$name: $verdict"
	if [[ $verdict == killed* ]]; then killed=$((killed + 1)); else survived=$((survived + 1)); fi
	cp -p "$work/$file" "$work/copy/$file"
	touch "$work/copy/$file"
done <<<"$mutants"
echo "$killed mutants killed, $survived not"
[ "$survived" -eq 0 ]
