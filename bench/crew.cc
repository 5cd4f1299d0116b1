#include "crew.h"

#include <climits>
#include <csignal>
#include <ctime>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

void sleep_on(std::atomic<uint32_t> &word, uint32_t seen)
{
	timespec slice = {0, 100000000}; // then the children are looked after
	syscall(SYS_futex, &word, FUTEX_WAIT, seen, &slice, nullptr, 0);
}

void add(std::atomic<uint32_t> &word)
{
	word.fetch_add(1, std::memory_order_acq_rel);
	syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

} // namespace

Crew::Crew(Plan plan) : plan_(std::move(plan))
{
	pid_t parent = getpid();
	uint32_t all = plan_.workers * plan_.generations;
	for (uint32_t i = 0; i < all && error_.empty(); i++) {
		unsigned generation = i / plan_.workers, number = i % plan_.workers;
		if (plan_.kind == THREADS) {
			threads_.emplace_back([=] { worker(generation, number); });
			continue;
		}
		pid_t pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent) _exit(1);
			worker(generation, number);
			plan_.leave();
			_exit(0);
		}
		if (pid > 0)
			pids_.push_back(pid);
		else
			error_ = "a process could not be forked";
	}
	await(control_->ready, all);
}

Crew::~Crew()
{
	dismiss();
}

void Crew::worker(unsigned generation, unsigned number)
{
	Control &control = *control_;
	if (plan_.kind == PROCESSES) control_.populate();
	plan_.prepare();
	add(control.ready);
	for (uint32_t now; (now = control.go.load(std::memory_order_acquire)) == 0;) sleep_on(control.go, now);
	uint32_t before = generation * plan_.workers;
	for (uint32_t now; (now = control.done.load(std::memory_order_acquire)) < before;) sleep_on(control.done, now);
	try {
		if (!control.failed.load(std::memory_order_relaxed)) plan_.work(generation, number);
	} catch (const std::bad_alloc &) {
		control.failed.store(1, std::memory_order_relaxed);
		plan_.give_up();
	}
	add(control.done);
	if (generation + 1 == plan_.generations)
		while (control.leave.load(std::memory_order_acquire) == 0) sleep_on(control.leave, 0);
}

// A worker that died can make nobody wait for ever.
void Crew::watch()
{
	for (int &pid : pids_) {
		int status;
		if (!pid || waitpid(pid, &status, WNOHANG) != pid) continue;
		pid = 0;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
		error_ = "a process died";
		control_->failed.store(1, std::memory_order_relaxed);
		plan_.give_up();
	}
}

void Crew::await(std::atomic<uint32_t> &word, uint32_t at_least)
{
	for (uint32_t now; (now = word.load(std::memory_order_acquire)) < at_least && error_.empty();) {
		sleep_on(word, now);
		watch();
	}
}

void Crew::run()
{
	add(control_->go);
	await(control_->done, plan_.workers * plan_.generations);
	if (control_->failed.load(std::memory_order_relaxed) && error_.empty()) error_ = "allocation failed";
}

void Crew::dismiss()
{
	if (!error_.empty()) // of processes, some may be beyond help
		for (int pid : pids_)
			if (pid) kill(pid, SIGKILL);
	add(control_->go);
	add(control_->leave);
	for (std::thread &thread : threads_)
		if (thread.joinable()) thread.join();
	for (int &pid : pids_) {
		if (pid) waitpid(pid, nullptr, 0);
		pid = 0;
	}
}
