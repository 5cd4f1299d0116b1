// Echo of 1 KiB over a Unix and a loopback TCP socket: received into objects of a cache that a ring has been given, by one
// request for all of them, sent back from where they are, and put back; beside it liburing with a ring of provided buffers of its
// own, its setup and its requests the same. The other side is a thread with plain system calls, which keeps so many messages
// under way as `window` says. Timed is a message's way around; with one under way that is mostly the scheduler's.
#include "bench.h"

#include <cstring>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace
{

constexpr unsigned message = 1024, buffers = 64, window_most = 32;

// Two connected sockets, and the thread at the second one's end.
class Peer
{
  public:
	Peer(bool tcp, unsigned window)
	{
		if (tcp ? !connect_tcp() : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds_) != 0) return;
		thread_ = std::thread([=] {
			static char bytes[window_most * message];
			ssize_t got = window * message;
			while (got > 0 && send(fds_[1], bytes, (size_t)got, MSG_NOSIGNAL) == got)
				got = recv(fds_[1], bytes, sizeof bytes, 0);
		});
	}
	~Peer()
	{
		if (!thread_.joinable()) return;
		shutdown(fds_[0], SHUT_RDWR);
		thread_.join();
		for (int fd : fds_) close(fd);
	}
	Peer(const Peer &) = delete;
	Peer &operator=(const Peer &) = delete;
	explicit operator bool() const
	{
		return thread_.joinable();
	}
	int fd() const
	{
		return fds_[0];
	}

  private:
	bool connect_tcp()
	{
		sockaddr_in address{};
		socklen_t bytes = sizeof address;
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		auto *at = reinterpret_cast<sockaddr *>(&address);
		int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		fds_[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool well = bind(fd, at, bytes) == 0 && listen(fd, 1) == 0 && getsockname(fd, at, &bytes) == 0 &&
		            connect(fds_[1], at, bytes) == 0 && (fds_[0] = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;
		for (int end : fds_) setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		close(fd);
		return well;
	}

	int fds_[2] = {-1, -1};
	std::thread thread_;
};

// Echo: go(), which takes what is there and returns the bytes that have been sent back, or 0: something failed.
template <typename Echo> void measure(benchmark::State &state, bool tcp, unsigned window)
{
	Peer peer(tcp, window);
	if (!peer) return state.SkipWithError("no sockets");
	Echo echo(peer.fd());
	if (const char *why = echo.why()) return state.SkipWithError(why);
	uint64_t sent = 0, wanted = 16 * window * message; // until TCP has seen how much it may have under way
	bool well = true;
	auto go_on = [&] {
		while (well && sent < wanted) {
			unsigned more = echo.go();
			sent += more;
			well = more != 0;
		}
	};
	go_on();
	for (auto _ : state) {
		(void)_;
		wanted += message;
		go_on();
		if (!well) return state.SkipWithError("the echo has stopped");
	}
}

class Ours
{
  public:
	explicit Ours(int fd)
	{
		hp_ring_options options{};
		options.struct_size = sizeof options;
		options.depth = buffers;
		options.flags = HP_RING_REQUIRE | HP_RING_ONE_THREAD;
		hp_cache_options cut{};
		cut.struct_size = sizeof cut;
		cut.size = message;
		if (!page_pool()) {
			why_ = kept(page_pool().why());
		} else if (hp_ring_create(page_pool(), &options, &ring_)) {
			why_ = "no io_uring";
		} else if (hp_cache_create(page_pool(), "echo", &cut, &cache_) || hp_ring_buffers(ring_, cache_, buffers) ||
		           (fd_ = hp_ring_register_file(ring_, fd)) < 0) {
			why_ = "no objects, or no place for the socket";
		} else {
			hp_ring_recv_object(ring_, fd_, HP_RING_MULTI | HP_RING_FILE, 0);
		}
	}
	~Ours()
	{
		closing_ = true;
		while (sends_ && go()) {}
		hp_ring_destroy(ring_);
		if (cache_) hp_cache_destroy(cache_);
	}
	Ours(const Ours &) = delete;
	Ours &operator=(const Ours &) = delete;
	const char *why() const
	{
		return why_;
	}
	unsigned go()
	{
		hp_ring_completion done[buffers];
		unsigned sent = 0;
		while (!sent) {
			if (hp_ring_submit_and_wait(ring_, 1, UINT64_MAX) < 0) return 0;
			int got = hp_ring_poll(ring_, done, buffers);
			for (int i = 0; i < got; i++) {
				if (done[i].result <= 0) return 0;
				void *object = done[i].object;
				if (done[i].user) { // a send: of what it says
					hp_cache_put(cache_, reinterpret_cast<void *>(done[i].user));
					sent += (unsigned)done[i].result;
					sends_--;
				} else if (closing_) {
					hp_cache_put(cache_, object);
				} else if (hp_ring_send(ring_, fd_, object, (size_t)done[i].result, HP_RING_FILE,
				                        reinterpret_cast<uintptr_t>(object)) == 0) {
					sends_++;
				} else {
					return 0;
				}
			}
		}
		return sent;
	}

  private:
	hp_ring *ring_ = nullptr;
	hp_cache *cache_ = nullptr;
	int fd_ = -1;
	const char *why_ = nullptr;
	unsigned sends_ = 0;
	bool closing_ = false;
};

class Liburing
{
  public:
	explicit Liburing(int fd)
	{
		io_uring_params params{};
		params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
		               IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
		params.cq_entries = 2 * buffers;
		const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
		memory_ = static_cast<char *>(mmap(nullptr, 2 * MiB, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0));
		if (memory_ == MAP_FAILED)
			memory_ = static_cast<char *>(mmap(nullptr, 2 * MiB, PROT_READ | PROT_WRITE, flags, -1, 0));
		provided_ = static_cast<io_uring_buf_ring *>(
			mmap(nullptr, buffers * sizeof(io_uring_buf), PROT_READ | PROT_WRITE, flags, -1, 0));
		if (memory_ == MAP_FAILED || provided_ == MAP_FAILED || io_uring_queue_init_params(buffers, &ring_, &params)) {
			why_ = "no io_uring, or no memory";
			return;
		}
		made_ = true;
		io_uring_buf_reg group{};
		group.ring_addr = reinterpret_cast<uintptr_t>(provided_);
		group.ring_entries = buffers;
		if (io_uring_register_buf_ring(&ring_, &group, 0) || io_uring_register_files(&ring_, &fd, 1)) {
			why_ = "registration failed";
			return;
		}
		for (unsigned i = 0; i < buffers; i++) lay_out(i, i);
		io_uring_buf_ring_advance(provided_, buffers);
		receive();
	}
	~Liburing()
	{
		if (made_) io_uring_queue_exit(&ring_);
		if (memory_ != MAP_FAILED) munmap(memory_, 2 * MiB);
		if (provided_ != MAP_FAILED) munmap(provided_, buffers * sizeof(io_uring_buf));
	}
	Liburing(const Liburing &) = delete;
	Liburing &operator=(const Liburing &) = delete;
	const char *why() const
	{
		return why_;
	}
	unsigned go()
	{
		io_uring_cqe *done[buffers];
		unsigned sent = 0;
		while (!sent) {
			if (io_uring_submit_and_wait(&ring_, 1) < 0) return 0;
			unsigned got = io_uring_peek_batch_cqe(&ring_, done, buffers), back = 0;
			for (unsigned i = 0; i < got; i++) {
				if (done[i]->res <= 0 && done[i]->res != -ENOBUFS) return 0;
				if (io_uring_cqe_get_data64(done[i]) != receives) {
					lay_out((unsigned)io_uring_cqe_get_data64(done[i]), back++);
					sent += (unsigned)done[i]->res;
					continue;
				}
				if (done[i]->res > 0) {
					unsigned id = done[i]->flags >> IORING_CQE_BUFFER_SHIFT;
					io_uring_sqe *sqe = io_uring_get_sqe(&ring_);
					io_uring_prep_send(sqe, 0, memory_ + id * message, (size_t)done[i]->res, MSG_NOSIGNAL);
					sqe->flags |= IOSQE_FIXED_FILE;
					io_uring_sqe_set_data64(sqe, id);
				}
				if (!(done[i]->flags & IORING_CQE_F_MORE)) receive();
			}
			io_uring_buf_ring_advance(provided_, (int)back);
			io_uring_cq_advance(&ring_, got);
		}
		return sent;
	}

  private:
	static constexpr uint64_t receives = UINT64_MAX;
	void lay_out(unsigned id, unsigned place)
	{
		io_uring_buf_ring_add(provided_, memory_ + id * message, message, (unsigned short)id,
		                      io_uring_buf_ring_mask(buffers), (int)place);
	}
	void receive()
	{
		io_uring_sqe *sqe = io_uring_get_sqe(&ring_);
		io_uring_prep_recv_multishot(sqe, 0, nullptr, 0, 0);
		sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
		sqe->buf_group = 0;
		io_uring_sqe_set_data64(sqe, receives);
	}

	char *memory_;
	io_uring_buf_ring *provided_;
	io_uring ring_;
	bool made_ = false;
	const char *why_ = nullptr;
};

const bool registered = [] {
	for (bool tcp : {false, true})
		for (unsigned window : {1u, window_most}) {
			const std::string end = std::string("/socket:") + (tcp ? "tcp" : "unix") +
			                        "/window:" + std::to_string(window);
			Register("uring_echo/hugepool" + end, [=](benchmark::State &state) {
				measure<Ours>(state, tcp, window);
			})->UseRealTime();
			Register("uring_echo/liburing" + end, [=](benchmark::State &state) {
				measure<Liburing>(state, tcp, window);
			})->UseRealTime();
		}
	return true;
}();

} // namespace
