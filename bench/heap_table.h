// A table of a million keys that two processes read while a third updates values as fast as it can: the topic
// table_lookup, named table_lookup/IMPLEMENTATION/readers:2. The time is that of a look-up as a reader sees it, with
// whatever it waits for; the counters lookups_per_second (of all readers) and updates_per_second go with it.
//
// An implementation is a type that can be made without arguments, and an object of it is a table:
//
//   ready()             static: null, or why it cannot be measured here
//   build(keys)         puts in table_key(0) to table_key(keys - 1), in this order, each with table_value(key, 0)
//   open_reader()       by every process that reads, forked after build(), before its first look-up
//   lookup(key, value)  of a key that is there. What makes it safe beside the writer belongs in it: each look-up is a
//                       read section, a transaction or a holding of the lock of its own
//   open_writer()       by the process that writes
//   update(key, value)  of a key that is there; readers see the new value when it has returned
//   close()             by every process that opened it
//
// All but ready() and close() return false when they fail. The destructor is called where build() was: the other
// processes end without it. A value that does not belong to its key fails the benchmark.
//
//   const bool registered = register_table<Table>("name");
#ifndef HUGEPOOL_HEAP_TABLE_H
#define HUGEPOOL_HEAP_TABLE_H

#include "crew.h"
#include "shapes.h"

#include <chrono>

constexpr uint64_t table_keys = 1000000;
constexpr unsigned table_readers = 2;

// Neighbours in number are not neighbours in value; no two are the same.
inline uint64_t table_key(uint64_t number)
{
	uint64_t key = (number + 1) * 0x9e3779b97f4a7c15u;
	return key ^ key >> 29;
}

// The upper 32 bits show whose value it is.
inline uint64_t table_value(uint64_t key, uint32_t turn)
{
	return (key & 0xffffffff00000000u) | turn;
}
inline bool table_value_fits(uint64_t key, uint64_t value)
{
	return (key ^ value) >> 32 == 0;
}

class TableRun
{
  public:
	static constexpr unsigned workers = table_readers + 1;

	struct alignas(64) Result {
		uint64_t operations;
		double seconds;
	};
	Result result[workers];

	void fail(const char *why)
	{
		failed_.store(why, std::memory_order_release);
	}
	const char *failed() const
	{
		return failed_.load(std::memory_order_acquire);
	}

	template <class Table> void work(Table &table, unsigned worker)
	{
		bool reader = worker < table_readers;
		if (!(reader ? table.open_reader() : table.open_writer())) fail("a process could not open the table");
		opened_.fetch_add(1, std::memory_order_acq_rel);
		for (unsigned spins = 0; opened_.load(std::memory_order_acquire) < workers && !failed(); spins++)
			Turns::relax(spins);
		shape::Random random(worker + 400);
		if (reader) {
			read(table, random, warm_up);
			result[worker] = read(table, random, measured);
			finished_.fetch_add(1, std::memory_order_acq_rel);
		} else {
			result[worker] = write(table, random);
		}
		table.close();
	}

  private:
	using Clock = std::chrono::steady_clock;
	static constexpr std::chrono::milliseconds warm_up{100}, measured{300};
	static constexpr unsigned batch = 64; // between looks at the clock

	static Result since(Clock::time_point start, uint64_t operations)
	{
		return {operations, std::chrono::duration<double>(Clock::now() - start).count()};
	}

	template <class Table> Result read(Table &table, shape::Random &random, Clock::duration time)
	{
		Clock::time_point start = Clock::now();
		uint64_t count = 0;
		for (; !failed() && Clock::now() - start < time; count += batch)
			for (unsigned i = 0; i < batch; i++) {
				uint64_t key = table_key(random.below(table_keys)), value = 0;
				if (!table.lookup(key, &value) || !table_value_fits(key, value)) fail("a look-up went wrong");
			}
		return since(start, count);
	}

	template <class Table> Result write(Table &table, shape::Random &random)
	{
		Clock::time_point start = Clock::now();
		uint64_t count = 0;
		for (; !failed() && finished_.load(std::memory_order_acquire) < table_readers; count++) {
			uint64_t key = table_key(random.below(table_keys));
			if (!table.update(key, table_value(key, (uint32_t)count))) fail("an update failed");
		}
		return since(start, count);
	}

	alignas(64) std::atomic<const char *> failed_; // literals: at the same address in forked processes
	alignas(64) std::atomic<uint32_t> opened_, finished_;
};

template <class Table> void run_table(benchmark::State &state)
{
	if (const char *why = Table::ready()) return state.SkipWithError(why);
	Table table;
	if (!table.build(table_keys)) return state.SkipWithError("the table could not be built");
	for (auto _ : state) {
		Shared<TableRun> run;
		Crew::Plan plan;
		plan.kind = Crew::PROCESSES;
		plan.workers = TableRun::workers;
		plan.generations = 1;
		plan.prepare = [&] { run.populate(); };
		plan.work = [&](unsigned, unsigned worker) { run->work(table, worker); };
		plan.leave = [] {};
		plan.give_up = [&] { run->fail("a process failed"); };
		Crew crew(plan);
		crew.run();
		crew.dismiss();
		if (!crew.error().empty()) return state.SkipWithError(crew.error().c_str());
		if (run->failed()) return state.SkipWithError(run->failed());
		double seconds = 0, lookups = 0;
		for (unsigned i = 0; i < table_readers; i++) {
			seconds += run->result[i].seconds;
			lookups += (double)run->result[i].operations;
		}
		const TableRun::Result &writer = run->result[table_readers];
		state.SetIterationTime(seconds / lookups);
		state.counters["lookups_per_second"] = lookups / seconds * table_readers;
		state.counters["updates_per_second"] = (double)writer.operations / writer.seconds;
	}
}

inline std::string table_name(const std::string &implementation)
{
	return "table_lookup/" + implementation + "/readers:" + std::to_string(table_readers);
}

// One iteration a repetition: building takes longer than measuring.
template <class Table> bool register_table(const std::string &implementation)
{
	Register(table_name(implementation), run_table<Table>)->UseManualTime()->Iterations(1);
	return true;
}

#endif
