// Graphs for collectors of garbage: n objects with two references each, all of them reached from one root. A graph says
// nothing of where objects lie: they are numbered, and whoever builds it allocates them in the order of their numbers,
// at rising addresses, then stores the references. All graphs of one shape and size are the same.
//
//   list      a list in address order: what prefetchers of the hardware like best
//   tree      a binary tree in shuffled order
//   random    a shuffled list whose second references lead to random objects: a collector can go on elsewhere while it
//             waits for memory
//   shuffled  a shuffled list: every object is known only when the one before it has come from memory
#ifndef HUGEPOOL_HEAP_SHAPES_H
#define HUGEPOOL_HEAP_SHAPES_H

#include "shapes.h"

#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace heap_shape
{

constexpr uint32_t objects = 1000000; // in the benchmarks gc_mark
constexpr size_t object_bytes = 64;
constexpr const char *names[] = {"list", "tree", "random", "shuffled"};

struct Graph {
	static constexpr int32_t none = -1;
	struct Node {
		int32_t first, second; // numbers of objects, or none
	};
	std::vector<Node> nodes;
	uint32_t root;
};

// `name` is one of `names`; n is at least 1.
inline Graph make(const std::string &name, uint32_t n)
{
	shape::Random random(1);
	std::vector<uint32_t> order(n); // which object stands at a place of the list or the tree
	std::iota(order.begin(), order.end(), 0);
	if (name != "list")
		for (uint32_t i = n - 1; i > 0; i--) std::swap(order[i], order[random.below(i + 1)]);
	auto at = [&](uint64_t place) { return place < n ? (int32_t)order[place] : Graph::none; };

	Graph graph{std::vector<Graph::Node>(n), order[0]};
	for (uint64_t place = 0; place < n; place++) {
		Graph::Node &node = graph.nodes[order[place]];
		if (name == "tree")
			node = {at(2 * place + 1), at(2 * place + 2)};
		else
			node = {at(place + 1), name == "random" ? (int32_t)random.below(n) : Graph::none};
	}
	return graph;
}

} // namespace heap_shape

#endif
