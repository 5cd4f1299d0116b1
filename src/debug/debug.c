/* The state of the modes, the environment, and reports. */
#include "debug/debug.h"
#include "debug/track.h"
#include "pool/participant.h"
#include "os/os.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MODES (HP_DEBUG_POISON | HP_DEBUG_CANARY | HP_DEBUG_COLD | HP_DEBUG_CALLER | HP_DEBUG_GUARD | HP_DEBUG_TRACK)

void debug_say(const hp_pool *pool, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	if (length > (int)sizeof line - 2) length = sizeof line - 2;
	if (length < 0) return;
	if (pool->log) {
		pool->log(pool->log_arg, line);
		return;
	}
	line[length++] = '\n';
	os_write_error(line, (size_t)length);
}

/* The state, made when it is not there; called inside participant_lock or before others know the handle. It stays as long
 * as the handle, so that nobody has to be waited for. No malloc: this may be malloc's own pool. */
static int state(hp_pool *pool, struct debug **debug)
{
	void *memory;
	*debug = atomic_load(&pool->debug);
	if (*debug) return 0;
	int error = os_map(NULL, sizeof **debug, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &memory);
	if (error < 0) return error;
	*debug = memory;
	atomic_store_explicit(&pool->debug, memory, memory_order_release);
	return 0;
}

static int possible(const hp_pool *pool, unsigned flags)
{
	if (flags & ~MODES) return -EINVAL;
	if (pool->observer) return -EROFS;
	if (flags & HP_DEBUG_GUARD && !debug_guard_possible(pool)) return -ENOTSUP;
	return flags & HP_DEBUG_TRACK && !pool->private ? -ENOTSUP : 0;
}

static uint64_t committed_bytes(const hp_pool *pool)
{
	uint64_t bytes = (uint64_t)pool_top(pool) * pool_chunk_bytes(pool);
	return bytes < pool->capacity ? bytes : pool->capacity; /* the last chunk of lent memory may lie beyond its end */
}

static void set(hp_pool *pool, struct debug *debug, unsigned flags)
{
	unsigned before = atomic_exchange(&debug->flags, flags);
	if (flags & ~before & HP_DEBUG_POISON) atomic_fetch_add(&debug->epoch, 1);
	if (before & ~flags & HP_DEBUG_TRACK) track_forget(pool->base, committed_bytes(pool));
	pool->slow = 1;
	participant_set_fast(pool);
}

static int change(hp_pool *pool, bool modes, unsigned flags, bool failing, unsigned fail)
{
	struct participant_guard guard;
	struct debug *debug;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	if ((error = state(pool, &debug)) == 0) {
		if (failing) {
			atomic_store(&debug->asked, 0);
			atomic_store(&debug->fail, fail);
		}
		set(pool, debug, modes ? flags : atomic_load(&debug->flags));
	}
	participant_unlock(&guard);
	return error;
}

int hp_pool_debug(hp_pool *pool, unsigned flags)
{
	if (!pool) return -EINVAL;
	int error = possible(pool, flags);
	if (error < 0 || (!flags && !debug_on(pool))) return error;
	return change(pool, true, flags, false, 0);
}

int hp_pool_debug_fail(hp_pool *pool, unsigned n)
{
	if (!pool) return -EINVAL;
	if (pool->observer) return -EROFS;
	return n || debug_on(pool) ? change(pool, false, 0, true, n) : 0;
}

uint64_t hp_pool_debug_findings(const hp_pool *pool)
{
	const struct debug *debug = pool ? atomic_load(&pool->debug) : NULL;
	return debug ? atomic_load(&debug->findings) : 0;
}

void debug_pages(const hp_pool *pool, void *start, size_t bytes)
{
	if (debug_flags(pool) & HP_DEBUG_TRACK) track_pages(start, bytes);
}

bool debug_fails(hp_pool *pool)
{
	struct debug *debug = atomic_load(&pool->debug);
	uint32_t one_in = atomic_load_explicit(&debug->fail, memory_order_relaxed);
	return one_in && atomic_fetch_add_explicit(&debug->asked, 1, memory_order_relaxed) % one_in == one_in - 1;
}

/* ---- the environment ---- */

static const struct {
	const char *word;
	unsigned flag;
} words[] = {{"poison", HP_DEBUG_POISON}, {"canary", HP_DEBUG_CANARY}, {"cold", HP_DEBUG_COLD},
             {"caller", HP_DEBUG_CALLER}, {"guard", HP_DEBUG_GUARD},   {"track", HP_DEBUG_TRACK}};

static void read_word(const hp_pool *pool, const char *word, size_t length, unsigned *flags, unsigned *fail)
{
	int shown = length < 40 ? (int)length : 40;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strlen(words[i].word) != length || memcmp(words[i].word, word, length)) continue;
		if (possible(pool, words[i].flag) == 0)
			*flags |= words[i].flag;
		else
			debug_say(pool, "hugepool: HUGEPOOL_DEBUG: %.*s is not possible in pool %s: %s", shown, word,
			          pool->geometry.name,
			          words[i].flag == HP_DEBUG_GUARD ? "it stands on huge pages; use pages of 4 KiB"
			                                          : "it is for private pools only");
		return;
	}
	if (length > 5 && length < 15 && memcmp(word, "fail=", 5) == 0) {
		uint64_t number = 0;
		size_t i = 5;
		for (; i < length && word[i] >= '0' && word[i] <= '9'; i++) number = number * 10 + (uint64_t)(word[i] - '0');
		if (i == length && number && number <= UINT32_MAX) {
			*fail = (unsigned)number;
			return;
		}
	}
	debug_say(pool,
	          "hugepool: HUGEPOOL_DEBUG: '%.*s' is no mode; the modes are poison, canary, cold, caller, guard, "
	          "track and fail=N (N from 1)",
	          shown, word);
}

void debug_begin(hp_pool *pool)
{
	unsigned flags = 0, fail = 0;
	const char *text = secure_getenv("HUGEPOOL_DEBUG");
	if (!text) return;
	while (*text) {
		size_t length = strcspn(text, ",");
		if (length) read_word(pool, text, length, &flags, &fail);
		text += length + (text[length] == ',');
	}
	if (!flags && !fail) return;
	int error = change(pool, true, flags, fail != 0, fail);
	if (error < 0) debug_say(pool, "hugepool: HUGEPOOL_DEBUG: no memory for it: error %d", -error);
}

void debug_end(hp_pool *pool)
{
	struct debug *debug = atomic_exchange(&pool->debug, NULL);
	if (!debug) return;
	/* what comes to lie at these addresses next knows of nothing */
	if (track_is_compiled() && pool->private) track_forget(pool->base, committed_bytes(pool));
	os_unmap(debug, sizeof *debug);
}
