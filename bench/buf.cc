// Blits: what checking both ranges costs beside memcpy, which checks nothing. Lengths and offsets are such that the compiler
// does not know them. From view to view, to bytes, unchecked, and by the exported function that other languages call.
#include "bench.h"

#include <cstring>

namespace
{

struct Memory {
	alignas(64) char from[8192], to[8192];
};

Memory memory;

template <typename Copy> void measure(const std::string &name, Copy copy)
{
	for (size_t bytes : {64, 4096})
		Register("blit/" + name + "/bytes:" + std::to_string(bytes), [=](benchmark::State &state) {
			hp_buf src = hp_buf_of(memory.from, sizeof memory.from), dst = hp_buf_of(memory.to, sizeof memory.to);
			size_t len = bytes, off = 128;
			benchmark::DoNotOptimize(src);
			benchmark::DoNotOptimize(dst);
			for (auto _ : state) {
				benchmark::DoNotOptimize(len);
				benchmark::DoNotOptimize(off);
				copy(src, off, dst, off, len);
				benchmark::ClobberMemory();
			}
			state.SetBytesProcessed((int64_t)(state.iterations() * bytes));
		});
}

auto *volatile exported = hp_buf_blit;

bool registered = [] {
	measure("memcpy", [](const hp_buf &src, size_t src_off, const hp_buf &dst, size_t dst_off, size_t len) {
		std::memcpy(dst.start + dst_off, src.start + src_off, len);
	});
	measure("hugepool", [](const hp_buf &src, size_t src_off, const hp_buf &dst, size_t dst_off, size_t len) {
		benchmark::DoNotOptimize(hp_buf_blit(src, src_off, dst, dst_off, len));
	});
	measure("hugepool_bytes", [](const hp_buf &src, size_t src_off, const hp_buf &dst, size_t dst_off, size_t len) {
		benchmark::DoNotOptimize(hp_buf_blit_to_bytes(src, src_off, dst.start + dst_off, len));
	});
	measure("hugepool_unchecked", [](const hp_buf &src, size_t src_off, const hp_buf &dst, size_t dst_off, size_t len) {
		hp_buf_blit_unchecked(src, src_off, dst, dst_off, len);
	});
	measure("hugepool_called", [](const hp_buf &src, size_t src_off, const hp_buf &dst, size_t dst_off, size_t len) {
		benchmark::DoNotOptimize(exported(src, src_off, dst, dst_off, len));
	});
	return true;
}();

} // namespace
