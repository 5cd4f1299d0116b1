// Userspace RCU: entering and leaving a read section, in the flavour that leaves the barriers to the writer
// (membarrier), as ours does. By calls of its library, and inline. Two empty calls, the floor, are in floor.cc.
#include "bench.h"

#ifdef HAVE_URCU

#include <urcu/urcu-memb.h>
#include <urcu/static/urcu-memb.h>

namespace
{

template <void (*enter)(), void (*leave)()> void read_section(benchmark::State &state)
{
	urcu_memb_register_thread();
	for (auto _ : state) {
		enter();
		benchmark::ClobberMemory();
		leave();
	}
	urcu_memb_unregister_thread();
	if (!urcu_memb_has_sys_membarrier) state.SetLabel("no membarrier here: readers have barriers");
}

const Register called("read_section/urcu", read_section<urcu_memb_read_lock, urcu_memb_read_unlock>);
const Register inlined("read_section/urcu_inline", read_section<_urcu_memb_read_lock, _urcu_memb_read_unlock>);

} // namespace
#else
namespace
{
const bool registered = [] {
	for (const char *name : {"read_section/urcu", "read_section/urcu_inline"})
		register_missing(name, "Userspace RCU was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
