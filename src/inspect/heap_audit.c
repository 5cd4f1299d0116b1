/* What a heap may have wrong without breaking a rule: words that look like references and are not declared as such, which
 * the collector does not follow; and values that nothing reaches. Both are counted by type, so that a forgotten member shows
 * as one line with its share of the values. */
#include "inspect/look.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of a type: hits of each word of the fixed part, then of each word of an element of the tail. */
struct heap_audit {
	uint32_t words, tail_words; /* 0: not met yet */
	uint64_t step;              /* bytes from one element to the next; of tails that are no words: 8 */
	uint64_t base;              /* where they begin */
	uint64_t elements;
	uint64_t *hits; /* UINT64_MAX: a member */
	struct {
		uint32_t slab, object;
		uint64_t offset, word;
	} * first;
};

#define MEMBER UINT64_MAX
#define MOST_WORDS 8192u /* of an element */

static bool prepare(struct heap_check *check, struct heap_audit *audit, const struct heap_type_shape *shape)
{
	audit->words = (shape->element ? shape->tail : shape->size) / 8;
	bool whole = shape->element % 8 == 0 && shape->tail % 8 == 0;
	audit->step = whole ? shape->element : 8;
	audit->base = (shape->tail + 7) / 8 * 8;
	audit->tail_words = !shape->element ? 0 : (uint32_t)(audit->step / 8);
	if (audit->tail_words > MOST_WORDS) audit->tail_words = MOST_WORDS;
	audit->hits = calloc((uint64_t)audit->words + audit->tail_words + 1, sizeof *audit->hits);
	audit->first = calloc((uint64_t)audit->words + audit->tail_words + 1, sizeof *audit->first);
	if (!audit->hits || !audit->first) {
		check->look.error = -ENOMEM;
		return false;
	}
	for (uint32_t k = 0; k < shape->members; k++)
		if (shape->member[k].offset / 8 < audit->words) audit->hits[shape->member[k].offset / 8] = MEMBER;
	for (uint32_t k = 0; k < shape->tail_members; k++)
		if (shape->tail_member[k].offset / 8 < audit->tail_words)
			audit->hits[audit->words + shape->tail_member[k].offset / 8] = MEMBER;
	return true;
}

static void look_at_word(struct heap_check *check, struct heap_audit *audit, uint32_t which,
                         const struct look_slab *slab, uint32_t object, uint64_t offset, const char *at)
{
	uint32_t target;
	const char *why;
	uint64_t word = __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
	if (audit->hits[which] == MEMBER || !look_find(&check->look, word, &target, &why)) return;
	if (audit->hits[which]++ == 0) {
		audit->first[which].slab = (uint32_t)(slab - check->look.slab);
		audit->first[which].object = object;
		audit->first[which].offset = offset;
		audit->first[which].word = word;
	}
}

void heap_audit_value(struct heap_check *check, const struct look_slab *slab, uint32_t object)
{
	struct look *look = &check->look;
	const struct heap_type_shape *shape = &look->type[slab->type].shape;
	if (!check->audit && !(check->audit = calloc(look->types + 1, sizeof *check->audit))) {
		look->error = -ENOMEM;
		return;
	}
	struct heap_audit *audit = &check->audit[slab->type];
	uint64_t start = look_offset(slab, object);
	if (!audit->hits && !prepare(check, audit, shape)) return;
	const char *at = audit->words ? look_at(look, start, audit->words * 8, look->buffer) : NULL;
	for (uint32_t w = 0; at && w < audit->words; w++)
		look_at_word(check, audit, w, slab, object, w * UINT64_C(8), at + w * UINT64_C(8));
	if (!audit->tail_words) return;
	uint64_t many = LOOK_BUFFER / audit->step ? LOOK_BUFFER / audit->step : 1;
	uint64_t bytes = many * audit->step <= LOOK_BUFFER ? many * audit->step : audit->tail_words * UINT64_C(8);
	for (uint64_t from = audit->base; from + audit->step <= slab->size && !look->error; from += many * audit->step) {
		uint64_t block = slab->size - from < bytes ? slab->size - from : bytes;
		if (!(at = look_at(look, start + from, block, look->buffer))) return;
		for (uint64_t e = 0; e < many && (e * audit->step + audit->tail_words * UINT64_C(8) <= block); e++) {
			audit->elements++;
			for (uint32_t w = 0; w < audit->tail_words; w++) {
				uint64_t in = e * audit->step + w * UINT64_C(8);
				look_at_word(check, audit, audit->words + w, slab, object, from + in, at + in);
			}
		}
	}
}

void heap_audit_report(struct heap_check *check)
{
	struct look *look = &check->look;
	for (uint32_t id = 0; check->audit && id < look->types; id++) {
		const struct heap_audit *audit = &check->audit[id];
		const struct look_type *type = &look->type[id];
		for (uint32_t w = 0; audit->hits && w < audit->words + audit->tail_words; w++) {
			uint64_t hits = audit->hits[w], of = w < audit->words ? type->reached : audit->elements;
			if (hits == 0 || hits == MEMBER) continue;
			bool tail = w >= audit->words;
			uint64_t share = of ? (hits * 100 + of / 2) / of : 0;
			heap_check_value(check, HP_HEAP_UNLISTED, &look->slab[audit->first[w].slab], audit->first[w].object,
			                 audit->first[w].offset, audit->first[w].word,
			                 "offset %llu of %s%s looks like an unlisted reference in %llu %% of them (%llu of %llu)",
			                 (unsigned long long)(tail ? w - audit->words : w) * 8, tail ? "elements of " : "",
			                 type->shape.name, (unsigned long long)share, (unsigned long long)hits,
			                 (unsigned long long)of);
		}
	}
}

void heap_audit_free(struct heap_check *check)
{
	for (uint32_t id = 0; check->audit && id < check->look.types; id++) {
		free(check->audit[id].hits);
		free(check->audit[id].first);
	}
	free(check->audit);
	check->audit = NULL;
}

void heap_audit_leaks(struct heap_check *check)
{
	struct look *look = &check->look;
	struct {
		const struct look_slab *slab;
		uint32_t object;
		uint64_t values, bytes;
	} *of = calloc(look->types + 1, sizeof *of);
	if (!of) {
		look->error = -ENOMEM;
		return;
	}
	for (size_t k = 0; k < look->slabs; k++) {
		const struct look_slab *slab = &look->slab[k];
		for (uint32_t i = 0; i < slab->objects; i++) {
			uint64_t bit = slab->first + i;
			if (look->reached[bit / 64] >> (bit % 64) & 1 || !look_lives(look, slab, i)) continue;
			if (!of[slab->type].values++) {
				of[slab->type].slab = slab;
				of[slab->type].object = i;
			}
			of[slab->type].bytes += slab->size;
		}
	}
	check->still = true;
	for (uint32_t id = 0; id < look->types; id++)
		if (of[id].values)
			heap_check_value(check, HP_HEAP_UNREACHED, of[id].slab, of[id].object, 0, of[id].values,
			                 "%llu values of %s, %llu bytes, that nothing reaches", (unsigned long long)of[id].values,
			                 look->type[id].shape.name, (unsigned long long)of[id].bytes);
	check->still = false;
	free(of);
}
