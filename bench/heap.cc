// The shared heap: read sections, references, transactions, new values, collections, beside what a reader pays for a
// collecting writer. Peers: heap_boehm.cc, heap_urcu.cc, heap_table.cc.
#include "crew.h"
#include "heap_shapes.h"

#include <hugepool/inline.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

struct Node {
	HP_REF(struct Node) first;
	HP_REF(struct Node) second;
	char rest[heap_shape::object_bytes - 2 * sizeof(hp_ref)];
};
extern const hp_type node_type;
HP_TYPE(node_type, struct Node, (first, node_type), (second, node_type));

// A pool of its own, since a million values and the garbage of a run take more than the others' 256 MiB.
struct Heap {
	Pool pool{GiB, HP_RUNG_2M, HP_CHOICE_PREFER};
	hp_heap *heap = nullptr;
	std::vector<hp_ref> nodes; // for gc_mark
	const char *why = nullptr;

	Heap()
	{
		if (!pool)
			why = kept(pool.why());
		else if (hp_heap_create(pool, nullptr, nullptr, nullptr, &heap) < 0)
			why = "no heap";
	}
	Node *at(hp_ref ref) const
	{
		return (Node *)hp_heap_deref(heap, ref);
	}
	static Heap &get()
	{
		static Heap heap;
		return heap;
	}
};

template <bool inlined> void read_section(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	for (auto _ : state) {
		if (inlined) {
			benchmark::DoNotOptimize(hp_heap_read_enter_inline(h.pool));
			benchmark::ClobberMemory();
			hp_heap_read_exit_inline(h.pool);
		} else {
			benchmark::DoNotOptimize(hp_heap_read_enter(h.pool));
			benchmark::ClobberMemory();
			hp_heap_read_exit(h.pool);
		}
	}
}
const Register section("read_section/hugepool", read_section<false>);
const Register section_inline("read_section/hugepool_inline", read_section<true>);

// A ring of 256 values, from one to the next.
std::vector<hp_ref> ring(Heap &h)
{
	std::vector<hp_ref> nodes;
	hp_tx *tx;
	if (hp_heap_begin(h.heap, -1, &tx) < 0) return nodes;
	for (int i = 0; i < 256; i++) nodes.push_back(hp_heap_new(tx, &node_type, 0));
	for (int i = 0; i < 256 && nodes.back().word; i++)
		hp_heap_set(tx, &h.at(nodes[i])->first.ref, nodes[(i + 1) % 256]);
	hp_heap_set_root(tx, nodes[0]);
	if (hp_heap_commit(tx) < 0) nodes.clear();
	return nodes;
}

void deref(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	std::vector<hp_ref> nodes = ring(h);
	if (nodes.empty()) return state.SkipWithError("no room");
	hp_ref at = nodes[0];
	hp_heap_read_enter(h.pool);
	for (auto _ : state) at = hp_heap_load(&h.at(at)->first.ref);
	benchmark::DoNotOptimize(at);
	hp_heap_read_exit(h.pool);
}
const Register deref_plain("deref/hugepool", deref);

void deref_checked(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	std::vector<hp_ref> nodes = ring(h);
	if (nodes.empty()) return state.SkipWithError("no room");
	unsigned i = 0;
	hp_heap_read_enter(h.pool);
	for (auto _ : state) {
		benchmark::DoNotOptimize(hp_heap_deref_checked(h.heap, nodes[i], &node_type, nullptr));
		i = (i + 1) % 256;
	}
	hp_heap_read_exit(h.pool);
}
const Register checked("deref_checked/hugepool", deref_checked);

// Stores to values that others can see, so each is logged; a commit every 128.
void heap_set(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	std::vector<hp_ref> nodes = ring(h);
	if (nodes.empty()) return state.SkipWithError("no room");
	std::vector<hp_ref *> member;
	for (hp_ref ref : nodes) member.push_back(&h.at(ref)->second.ref);
	while (state.KeepRunningBatch(128)) {
		hp_tx *tx;
		if (hp_heap_begin(h.heap, -1, &tx) < 0) return state.SkipWithError("no transaction");
		for (unsigned i = 0; i < 128; i++) hp_heap_set(tx, member[i], nodes[255 - i]);
		if (hp_heap_commit(tx) < 0) return state.SkipWithError("it failed");
	}
}
const Register set("heap_set/hugepool", heap_set);

void begin_commit(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	for (auto _ : state) {
		hp_tx *tx;
		if (hp_heap_begin(h.heap, -1, &tx) < 0) return state.SkipWithError("no transaction");
		hp_heap_commit(tx);
	}
}
const Register transaction("begin_commit/hugepool", begin_commit);

// New values that come to be garbage at once: collections are not timed.
void heap_new(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	constexpr unsigned batch = 1000; // a MiB of garbage between collections, as by default
	unsigned batches = 0;
	while (state.KeepRunningBatch(batch)) {
		if (batches++ % 16 == 0) {
			state.PauseTiming();
			hp_heap_gc(h.heap, HP_GC_WAIT, 1000);
			state.ResumeTiming();
		}
		hp_tx *tx;
		if (hp_heap_begin(h.heap, -1, &tx) < 0) return state.SkipWithError("no transaction");
		for (unsigned i = 0; i < batch; i++) benchmark::DoNotOptimize(hp_heap_new(tx, &node_type, 0));
		if (hp_heap_commit(tx) < 0) return state.SkipWithError("it failed");
	}
}
const Register fresh("heap_new/hugepool/bytes:64", heap_new);

bool link(Heap &h, const std::string &shape)
{
	heap_shape::Graph graph = heap_shape::make(shape, heap_shape::objects);
	hp_tx *tx;
	if (hp_heap_begin(h.heap, -1, &tx) < 0) return false;
	auto at = [&](int32_t i) { return i == heap_shape::Graph::none ? HP_NONE : h.nodes[(size_t)i]; };
	for (size_t i = 0; i < h.nodes.size(); i++) {
		Node *node = h.at(h.nodes[i]);
		hp_heap_set(tx, &node->first.ref, at(graph.nodes[i].first));
		hp_heap_set(tx, &node->second.ref, at(graph.nodes[i].second));
	}
	hp_heap_set_root(tx, h.nodes[graph.root]);
	return hp_heap_commit(tx) == 0;
}

// Heaps of their own, so that other benchmarks' garbage is not marked, and each shape's objects are there once.
struct MarkHeap : Heap {
	MarkHeap()
	{
		hp_tx *tx;
		if (why || hp_heap_begin(heap, -1, &tx) < 0) return;
		for (uint32_t i = 0; i < heap_shape::objects; i++) nodes.push_back(hp_heap_new(tx, &node_type, 0));
		if (hp_heap_commit(tx) < 0) why = "no room";
	}
	static MarkHeap &get()
	{
		static MarkHeap heap;
		return heap;
	}
};

void gc_mark(benchmark::State &state, const std::string &shape)
{
	MarkHeap &h = MarkHeap::get();
	if (h.why) return state.SkipWithError(h.why);
	if (!link(h, shape)) return state.SkipWithError("no room");
	state.SetLabel(h.pool.pages());
	hp_heap_gc(h.heap, HP_GC_WAIT, 1000);
	struct hp_heap_stat stat;
	uint64_t pause = 0;
	while (state.KeepRunningBatch(heap_shape::objects)) {
		if (hp_heap_gc(h.heap, HP_GC_WAIT, 1000) < 0) return state.SkipWithError("it failed");
		hp_heap_stat(h.heap, &stat);
		if (stat.pause_ns > pause) pause = stat.pause_ns;
	}
	if (stat.values != heap_shape::objects) state.SkipWithError("it keeps what is dead, or not what lives");
	state.counters["longest_pause_ms"] = (double)pause / 1e6;
}
// What the machine's memory takes for the same lists, without any marking: nobody can be faster.
void walk(benchmark::State &state, const std::string &shape)
{
	MarkHeap &h = MarkHeap::get();
	if (h.why) return state.SkipWithError(h.why);
	if (!link(h, shape)) return state.SkipWithError("no room");
	hp_heap_read_enter(h.pool);
	while (state.KeepRunningBatch(heap_shape::objects))
		for (hp_ref at = hp_heap_root(h.heap); at.word;) at = hp_heap_load(&h.at(at)->first.ref);
	hp_heap_read_exit(h.pool);
}

const bool registered = [] {
	for (std::string shape : {"list", "shuffled"})
		Register("gc_mark/walk/shape:" + shape, [=](benchmark::State &state) { walk(state, shape); });
	for (std::string shape : heap_shape::names)
		Register("gc_mark/hugepool/shape:" + shape, [=](benchmark::State &state) { gc_mark(state, shape); });
	return true;
}();

// A writer is killed in a transaction of 1,000 stores; timed is the next one's begin, from the kill on.
void takeover(benchmark::State &state)
{
	Heap &h = Heap::get();
	if (h.why) return state.SkipWithError(h.why);
	std::vector<hp_ref> nodes = ring(h);
	if (nodes.empty()) return state.SkipWithError("no room");
	for (auto _ : state) {
		int ready[2];
		char said = 0;
		if (pipe(ready) != 0) return state.SkipWithError("no pipe");
		pid_t pid = fork();
		if (pid == 0) {
			hp_tx *tx;
			if (hp_heap_begin(h.heap, -1, &tx) < 0) _exit(1);
			for (unsigned i = 0; i < 1000; i++) hp_heap_set(tx, &h.at(nodes[i % 256])->second.ref, nodes[i % 255]);
			if (write(ready[1], "x", 1) != 1) _exit(1);
			for (;;) pause();
		}
		close(ready[1]);
		bool ok = pid > 0 && read(ready[0], &said, 1) == 1;
		close(ready[0]);
		hp_tx *tx;
		auto start = std::chrono::steady_clock::now();
		if (pid > 0) kill(pid, SIGKILL);
		ok = hp_heap_begin(h.heap, 10000, &tx) == 0 && ok;
		std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
		if (ok) hp_heap_commit(tx);
		if (pid > 0) waitpid(pid, nullptr, 0);
		if (!ok) return state.SkipWithError("the child or the next writer failed");
		state.SetIterationTime(took.count());
	}
}
const Register killed = [] {
	Register r("heap_takeover/hugepool/stores:1000", takeover, benchmark::kMillisecond);
	r->UseManualTime();
	return r;
}();

// A reader that looks at a whole ring in each section, beside a thread that goes through a graph of a million values again and
// again: a reader, too, or the writer, who collects it.
void reader(benchmark::State &state, bool collecting)
{
	Heap &h = Heap::get();
	MarkHeap &large = MarkHeap::get();
	if (h.why || large.why) return state.SkipWithError(h.why ? h.why : large.why);
	if (ring(h).empty() || !link(large, "shuffled")) return state.SkipWithError("no room");
	std::atomic<bool> over{false};
	std::thread other([&] {
		while (!over) {
			if (collecting) {
				hp_heap_gc(large.heap, 0, 1000);
				continue;
			}
			hp_heap_read_enter(large.pool);
			hp_ref at = hp_heap_root(large.heap);
			while (at.word && !over) at = hp_heap_load(&large.at(at)->first.ref);
			hp_heap_read_exit(large.pool);
		}
	});
	for (auto _ : state) {
		hp_heap_read_enter(h.pool);
		hp_ref first = hp_heap_root(h.heap), at = first;
		do at = hp_heap_load(&h.at(at)->first.ref);
		while (at.word != first.word);
		hp_heap_read_exit(h.pool);
	}
	over = true;
	other.join();
}
const Register alone("heap_reader/hugepool/collecting:0", [](benchmark::State &state) { reader(state, false); });
const Register beside("heap_reader/hugepool/collecting:1", [](benchmark::State &state) { reader(state, true); });

} // namespace
