// Our table: hp_table of numbers, where a look-up is a read section of its own and an update a transaction of its own.
#include "heap_table.h"

#include <hugepool/collections.h>

#include <memory>

namespace
{

class Hugepool
{
  public:
	static const char *ready()
	{
		return nullptr;
	}
	~Hugepool()
	{
		hp_heap_close(heap_);
	}
	Hugepool() = default;
	Hugepool(const Hugepool &) = delete;
	Hugepool &operator=(const Hugepool &) = delete;

	bool build(uint64_t keys)
	{
		hp_tx *tx;
		pool_ = std::make_unique<Pool>(256 * MiB, HP_RUNG_2M, HP_CHOICE_PREFER);
		if (!*pool_ || hp_heap_create(*pool_, nullptr, nullptr, nullptr, &heap_) < 0) return false;
		if (hp_heap_begin(heap_, -1, &tx) < 0) return false;
		table_ = hp_table_new(tx, HP_TABLE_NUMBERS, 0);
		hp_heap_set_root(tx, table_);
		for (uint64_t i = 0; i < keys; i++) {
			hp_table_put(tx, table_, table_key(i), table_value(table_key(i), 0));
			if (i % 1000 == 999) hp_heap_checkpoint(tx);
		}
		return hp_heap_commit(tx) == 0 && hp_heap_gc(heap_, HP_GC_TRIM, -1) == 0;
	}
	bool open_reader()
	{
		// A forked process begins with empty page tables for shared memory: one look at everything.
		if (hp_heap_read_enter(*pool_) < 0) return false;
		hp_table_each(
			heap_, table_, [](const hp_heap *, const hp_table_item *, void *) { return 0; }, nullptr);
		hp_heap_read_exit(*pool_);
		return true;
	}
	bool lookup(uint64_t key, uint64_t *value)
	{
		if (hp_heap_read_enter(*pool_) < 0) return false;
		bool found = hp_table_get(heap_, table_, key, value);
		hp_heap_read_exit(*pool_);
		return found;
	}
	bool open_writer()
	{
		return open_reader();
	}
	bool update(uint64_t key, uint64_t value)
	{
		hp_tx *tx;
		if (hp_heap_begin(heap_, -1, &tx) < 0) return false;
		hp_table_put(tx, table_, key, value);
		return hp_heap_commit(tx) == 0;
	}
	void close() {}

  private:
	std::unique_ptr<Pool> pool_;
	hp_heap *heap_ = nullptr;
	hp_ref table_ = {0};
};

const bool hugepool_registered = register_table<Hugepool>("hugepool");

} // namespace
