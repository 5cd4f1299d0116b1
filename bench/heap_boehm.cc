// Boehm's collector: what a full collection costs for each live object. Its own heap in private memory, one thread, one
// marker. It looks at one root and this thread's stack only, so the rest of this program costs nothing.
#include "heap_shapes.h"

#ifdef HAVE_BOEHM

#include <algorithm>

#define GC_THREADS // declares what sets the number of markers
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>

namespace
{

struct Node {
	Node *first, *second;
	char rest[heap_shape::object_bytes - 2 * sizeof(Node *)];
};
static_assert(sizeof(Node) == heap_shape::object_bytes, "");

Node *root;
std::vector<Node *> nodes; // not looked at by the collector

void link(const std::string &shape)
{
	heap_shape::Graph graph = heap_shape::make(shape, heap_shape::objects);
	auto at = [](int32_t i) { return i == heap_shape::Graph::none ? nullptr : nodes[(size_t)i]; };
	for (size_t i = 0; i < nodes.size(); i++) {
		nodes[i]->first = at(graph.nodes[i].first);
		nodes[i]->second = at(graph.nodes[i].second);
	}
	root = nodes[graph.root];
}

// The same objects serve for all shapes, so that none inherits a heap that another has left.
bool set_up()
{
	GC_set_markers_count(1);
	GC_set_no_dls(1);
	GC_set_all_interior_pointers(0); // else it adds a byte, and 64 become 80
	GC_INIT();
	GC_clear_roots();
	GC_add_roots(&root, &root + 1);
	GC_disable(); // it is enabled where it shall collect
	for (uint32_t i = 0; i < heap_shape::objects; i++) {
		nodes.push_back((Node *)GC_malloc(sizeof(Node)));
		if (!nodes.back()) return false;
	}
	std::sort(nodes.begin(), nodes.end()); // of a block it hands out the last object first
	link("random");
	GC_enable();
	for (int i = 0; i < 10; i++) GC_gcollect(); // each that overflows its mark stack doubles that
	GC_disable();
	return true;
}

void gc_mark(benchmark::State &state, const std::string &shape)
{
	static const bool ready = set_up();
	if (!ready) return state.SkipWithError("allocation failed");
	link(shape);
	GC_word before = GC_get_gc_no();
	uint64_t rounds = 0;
	GC_enable();
	while (state.KeepRunningBatch(heap_shape::objects)) {
		GC_gcollect();
		rounds++;
	}
	GC_disable();
	uint64_t used = GC_get_heap_size() - GC_get_free_bytes(), live = sizeof(Node) * (uint64_t)nodes.size();
	if (GC_get_gc_no() - before < rounds || used < live) state.SkipWithError("a collection did not take place");
	if (used > live * 5 / 4) state.SkipWithError("it keeps what is dead");
}

const bool registered = [] {
	for (std::string shape : heap_shape::names)
		Register("gc_mark/boehm/shape:" + shape, [=](benchmark::State &state) { gc_mark(state, shape); });
	return true;
}();

} // namespace
#else
namespace
{
const bool registered = [] {
	for (std::string shape : heap_shape::names)
		register_missing("gc_mark/boehm/shape:" + shape,
		                 "Boehm's collector was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
