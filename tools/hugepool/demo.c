/* hugepool demo: the command line, and the supervisor of the pipeline (demo.h has the design).
 *
 * The supervisor makes the pool, forks one process for each stage, which inherit the pool by that alone, and waits for
 * children and for the bell. A stage that was ended by SIGKILL, whoever sent it, is recovered and replaced: a worker at once,
 * reader and sender when both of them stand still or are dead, after what the dead held has been put back. Any other end
 * before its time ends the run. Children die with the supervisor (PR_SET_PDEATHSIG), and it never ends before it has reaped
 * them. */
#include "demo.h"

#include "cli.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_FRAMES 200000
#define EXIT_INTERRUPTED 130
#define TICK_MS 100
#define HASTE_MS 2              /* the tick while somebody waits for us */
#define LINGER_NS 2000000u      /* the victim's fifos go on filling for that long */
#define GRACE_NS 3000000000u    /* from a stop to SIGKILL */
#define PROGRESS_NS 5000000000u /* between lines of progress; on a terminal it is rewritten more often */
#define TERMINAL_NS 500000000u

enum { READER, SENDER, FIRST_WORKER, CHILDREN = FIRST_WORKER + DEMO_MAX_WORKERS };

struct supervisor {
	struct demo demo;
	struct demo_options options;
	struct capture capture;
	struct demo_result result;
	pid_t child[CHILDREN];
	unsigned children, alive;
	pid_t self;
	int signal_fd;
	sigset_t blocked, before;
	bool killed;  /* --kill has been done */
	bool lost[2]; /* reader, sender: dead, and not replaced yet */
	uint64_t lost_since[2];
	uint32_t holds; /* so many times they had to stand still */
	uint64_t lingering_since, stopped_at, next_progress;
	bool terminal, progress_shown;
};

enum { KEY_PCAP = 0x200, KEY_STRICT };

static const struct argp_option options_known[] = {
	{"pcap", 'r', "FILE", 0, "Take the frames from this capture (Ethernet; pcap or pcapng) instead of making them up",
     0},
	{"frames", 'n', "N", 0, "How many frames to make up, without --pcap (200000)", 0},
	{"loop", 'l', "N", 0, "Send all of them N times (1)", 0},
	{"workers", 'w', "N", 0, "Worker processes, 1 to 64 (2)", 0},
	{"kill", 'k', "FRAME", OPTION_ARG_OPTIONAL, "Kill a worker with SIGKILL while it works at this frame (half-way)",
     0},
	{"size", 's', "SIZE", 0, "Size of the pool (64M)", 0},
	{"pages", 'p', "RUNG", 0, "Its pages: 1G, 2M, thp, 4K or best (best); what cannot be had is replaced, and said", 0},
	{"strict", KEY_STRICT, NULL, 0, "Fail where --pages cannot be had", 0},
	{"json", 'j', NULL, 0, "Print one JSON object instead of the summary", 0},
	{"quiet", 'q', NULL, 0, "No progress on standard error", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct demo_options *options = state->input;
	switch (key) {
	case 'r': options->path = arg; return 0;
	case 'n': options->frames = cli_number(state, "--frames", arg, 1, UINT32_MAX); return 0;
	case 'l': options->loop = cli_number(state, "--loop", arg, 1, UINT32_MAX); return 0;
	case 'w': options->workers = (unsigned)cli_number(state, "--workers", arg, 1, DEMO_MAX_WORKERS); return 0;
	case 'k':
		options->kill = true;
		options->kill_frame = arg ? cli_number(state, "--kill", arg, 1, UINT64_MAX) : 0;
		return 0;
	case 's': options->size = cli_bytes(state, "--size", arg); return 0;
	case 'p': options->rung = cli_rung(state, "--pages", arg); return 0;
	case KEY_STRICT: options->strict = true; return 0;
	case 'j': options->json = true; return 0;
	case 'q': options->quiet = true; return 0;
	case ARGP_KEY_END:
		if (options->path && options->frames)
			cli_wrong(state, "--frames is for the generated mix; a capture is repeated with --loop");
		if (options->strict && options->rung == HP_RUNG_BEST)
			cli_wrong(state, "--strict needs --pages to say which pages are meant");
		return 0;
	default: return cli_unknown(key, arg, state);
	}
}

static const struct argp argp = {
	options_known,
	parse,
	"",
	"Pass packets between processes through one pool: a reader copies each frame into a buffer of a cache and hands its "
	"offset to a worker, chosen by the frame's flow; workers parse and count flows; a sender puts the buffers back. With "
	"--kill a worker "
	"is killed in the middle of a frame, its memory is recovered, and another goes on in its place."
	"\vExit status: 0 all frames came through and no page is missing; 1 a file could not be read or is damaged, the pool "
	"could not be had, or the counts disagree; 2 wrong usage.",
	NULL,
	NULL,
	NULL};

__attribute__((format(printf, 2, 3))) static void fail(struct supervisor *sup, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (!sup->result.error[0]) vsnprintf(sup->result.error, sizeof(sup->result.error), format, args);
	va_end(args);
}

/* Ends everybody: at once by a word in the pool, with SIGKILL when that takes too long. */
static void stop(struct supervisor *sup)
{
	if (sup->stopped_at) return;
	sup->stopped_at = os_now_ns();
	atomic_store(&sup->demo.shared->stop, 1);
	plant_ring_bells(&sup->demo);
}

static const char *child_name(unsigned child)
{
	static char name[32];
	if (child == READER || child == SENDER) return child == READER ? "reader" : "sender";
	snprintf(name, sizeof(name), "worker %u", child - FIRST_WORKER);
	return name;
}

static void child_life(struct supervisor *sup, unsigned child, bool successor)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != sup->self) _exit(1); /* the supervisor died before the line above */
	signal(SIGINT, SIG_IGN);              /* Ctrl-C reaches the whole group; the supervisor passes it on in order */
	sigprocmask(SIG_SETMASK, &sup->before, NULL);
	close(sup->signal_fd);
	char name[16];
	snprintf(name, sizeof(name), "%s", child_name(child));
	prctl(PR_SET_NAME, name); /* for ps and for who wants to kill one */
	if (child == READER)
		reader_run(&sup->demo);
	else if (child == SENDER)
		sender_run(&sup->demo);
	else
		worker_run(&sup->demo, child - FIRST_WORKER, successor);
	hp_pool_detach(sup->demo.pool);
	_exit(0);
}

static int start(struct supervisor *sup, unsigned child, bool successor)
{
	pid_t pid = fork();
	if (pid < 0) {
		fail(sup, "no process for a stage of the pipeline: %s", strerror(errno));
		return -1;
	}
	if (pid == 0) child_life(sup, child, successor);
	sup->child[child] = pid;
	sup->alive++;
	return 0;
}

static void note_recovery(struct demo_result *result, uint64_t noticed, uint64_t recovered)
{
	uint64_t outage = os_now_ns() - noticed;
	result->recovery_ns += recovered;
	if (recovered > result->recovery_worst_ns) result->recovery_worst_ns = recovered;
	if (outage > result->outage_ns) result->outage_ns = outage;
}

/* What the dead held comes back to the pool. False: the run ends. */
static bool recover(struct supervisor *sup, unsigned child, uint64_t *took)
{
	uint64_t start = os_now_ns();
	int recovered = hp_pool_recover(sup->demo.pool);
	*took = os_now_ns() - start;
	if (recovered >= 0) return true;
	fail(sup, "what %s left could not be recovered: %s", child_name(child), strerror(-recovered));
	stop(sup);
	return false;
}

/* A worker has been killed: another process takes its place. */
static void replace(struct supervisor *sup, unsigned child)
{
	uint64_t noticed = os_now_ns(), took;
	sup->result.taken_over += plant_in_hands(&sup->demo, child - FIRST_WORKER);
	if (!recover(sup, child, &took)) return;
	if (start(sup, child, true) < 0) {
		stop(sup);
		return;
	}
	note_recovery(&sup->result, noticed, took);
}

/* The reader or the sender has been killed. */
static void lose(struct supervisor *sup, unsigned child)
{
	struct demo_shared *shared = sup->demo.shared;
	sup->lost[child] = true;
	sup->lost_since[child] = os_now_ns();
	if (atomic_load(&shared->hold) == 0) atomic_store(&shared->hold, ++sup->holds);
	bell_ring(&shared->reader_bell);
	bell_ring(&shared->sender_bell);
}

/* Replaces them, as soon as nobody gets or puts a buffer. True: soon. */
static bool replace_lost(struct supervisor *sup)
{
	struct demo_shared *shared = sup->demo.shared;
	uint64_t took;
	if (!sup->lost[READER] && !sup->lost[SENDER]) return false;
	for (unsigned i = READER; i <= SENDER; i++)
		if (sup->child[i] > 0 && atomic_load(&shared->standing[i]) != sup->holds) return true;
	if (!recover(sup, sup->lost[READER] ? READER : SENDER, &took)) return false;
	int64_t swept = sweep_dead(&sup->demo);
	if (swept < 0) {
		fail(sup, "what the dead held could not be found: %s", strerror((int)-swept));
		stop(sup);
		return false;
	}
	sup->result.swept += (uint64_t)swept;
	atomic_store(&shared->hold, 0);
	for (unsigned i = READER; i <= SENDER; i++) {
		if (!sup->lost[i]) continue;
		sup->lost[i] = false;
		if (start(sup, i, true) < 0) {
			stop(sup);
			return false;
		}
		note_recovery(&sup->result, sup->lost_since[i], took);
	}
	bell_ring(&shared->reader_bell);
	bell_ring(&shared->sender_bell);
	return false;
}

static void ended(struct supervisor *sup, unsigned child, int status)
{
	struct demo_shared *shared = sup->demo.shared;
	sup->child[child] = 0;
	sup->alive--;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
	if (demo_stopped(&sup->demo)) /* of our own SIGKILL, or of what stopped the run */
		return;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		if (child >= FIRST_WORKER && atomic_load(&shared->worker[child - FIRST_WORKER].finished) != 0) return;
		if (++sup->result.deaths > DEMO_MAX_DEATHS) {
			fail(sup, "stages were killed %u times; that is enough", DEMO_MAX_DEATHS);
			stop(sup);
		} else if (child >= FIRST_WORKER) {
			replace(sup, child);
		} else {
			lose(sup, child);
		}
		return;
	}
	if (WIFSIGNALED(status))
		fail(sup, "the %s was ended by signal %d (%s)", child_name(child), WTERMSIG(status),
		     strsignal(WTERMSIG(status)));
	else
		fail(sup, "the %s ended with status %d", child_name(child), WEXITSTATUS(status));
	stop(sup);
}

static void reap(struct supervisor *sup)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < sup->children; i++)
			if (sup->child[i] == pid) {
				ended(sup, i, status);
				break;
			}
}

static void read_signals(struct supervisor *sup)
{
	struct signalfd_siginfo info;
	while (read(sup->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD) continue;
		sup->result.interrupted = true;
		stop(sup);
	}
	reap(sup);
}

/* --kill: the victim lingers in the middle of its frame; its fifos fill for a moment, then it dies. True: soon. */
static bool execute(struct supervisor *sup)
{
	struct demo_shared *shared = sup->demo.shared;
	if (sup->killed || shared->kill_frame == 0) return false;
	for (unsigned i = 0; i < shared->workers; i++) {
		if (atomic_load_explicit(&shared->worker[i].lingering, memory_order_acquire) == 0) continue;
		if (sup->lingering_since == 0) sup->lingering_since = os_now_ns();
		if (os_now_ns() - sup->lingering_since < LINGER_NS) return true;
		if (sup->child[FIRST_WORKER + i] > 0) kill(sup->child[FIRST_WORKER + i], SIGKILL);
		sup->killed = true;
	}
	return false;
}

static void progress(struct supervisor *sup)
{
	struct demo_shared *shared = sup->demo.shared;
	uint64_t now = os_now_ns(), started = demo_get(&shared->start_ns), sent = demo_get(&shared->sent);
	if (sup->options.quiet || now < sup->next_progress) return;
	bool first = sup->next_progress == 0;
	sup->next_progress = now + (sup->terminal ? TERMINAL_NS : PROGRESS_NS);
	if (first || started == 0) return;
	double seconds = (double)(now - started) / 1e9;
	fprintf(stderr, "%s%" PRIu64 " of %" PRIu64 " frames (%.0f%%), %.2f million a second%s", sup->terminal ? "\r" : "",
	        sent, sup->demo.frames, 100.0 * (double)sent / (double)sup->demo.frames, (double)sent / seconds / 1e6,
	        sup->terminal ? "  " : "\n");
	sup->progress_shown = true;
}

/* Returns when no child is left. */
static void supervise(struct supervisor *sup)
{
	struct demo *demo = &sup->demo;
	while (sup->alive > 0 || sup->lost[READER] || sup->lost[SENDER]) {
		if (sup->stopped_at) sup->lost[READER] = sup->lost[SENDER] = false;
		struct pollfd fds[] = {{.fd = sup->signal_fd, .events = POLLIN}, {.fd = demo->bell_fd, .events = POLLIN}};
		bool hasty = !sup->stopped_at && (plant_mail(demo) | execute(sup) | replace_lost(sup));
		poll(fds, 2, hasty ? HASTE_MS : TICK_MS);
		uint64_t rung;
		if ((fds[1].revents & POLLIN) && read(demo->bell_fd, &rung, sizeof(rung)) < 0) continue;
		read_signals(sup);
		if (atomic_load(&demo->shared->failed) == 2) stop(sup);
		if (sup->stopped_at && os_now_ns() - sup->stopped_at > GRACE_NS)
			for (unsigned i = 0; i < sup->children; i++)
				if (sup->child[i] > 0) kill(sup->child[i], SIGKILL);
		progress(sup);
	}
	if (sup->progress_shown && sup->terminal) fputc('\n', stderr);
}

static int open_ears(struct supervisor *sup)
{
	sigemptyset(&sup->blocked);
	sigaddset(&sup->blocked, SIGCHLD);
	sigaddset(&sup->blocked, SIGINT);
	sigaddset(&sup->blocked, SIGTERM);
	sigaddset(&sup->blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &sup->blocked, &sup->before);
	sup->signal_fd = signalfd(-1, &sup->blocked, SFD_CLOEXEC | SFD_NONBLOCK);
	sup->demo.bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sup->signal_fd >= 0 && sup->demo.bell_fd >= 0) return 0;
	fail(sup, "no descriptors to wait with: %s", strerror(errno));
	return -1;
}

/* Makes the pool, runs everything, and puts the pool away. */
static void run(struct supervisor *sup)
{
	struct demo *demo = &sup->demo;
	if (open_ears(sup) < 0) return;
	if (plant_make(demo, &sup->result) == 0) {
		demo->shared->kill_frame = sup->options.kill ? sup->options.kill_frame : 0;
		sup->children = FIRST_WORKER + sup->options.workers;
		/* The reader last: it starts the clock. */
		for (unsigned i = sup->children; i-- > 0;)
			if (start(sup, i, false) < 0) {
				stop(sup);
				break;
			}
		supervise(sup);
		plant_clear(demo, &sup->result);
	}
	plant_leave(demo);
}

static int read_frames(struct supervisor *sup)
{
	struct demo_options *options = &sup->options;
	struct demo *demo = &sup->demo;
	char error[400];
	uint64_t once = options->frames ? options->frames : DEFAULT_FRAMES;
	int failed = options->path ? capture_read(options->path, &sup->capture, error, sizeof(error))
	                           : capture_generate(once, &sup->capture, error, sizeof(error));
	if (failed) {
		fail(sup, "%s", error);
		return EXIT_FOUND;
	}
	if (options->path) once = sup->capture.frames;
	demo->frames = once * options->loop; /* both below 2^32, or what memory holds */
	if (options->kill_frame > demo->frames) {
		fail(sup, "--kill wants a frame that there is; there are %" PRIu64, demo->frames);
		return EXIT_USAGE;
	}
	if (options->kill && options->kill_frame == 0)
		options->kill_frame = demo->frames > 1 ? demo->frames / 2 : demo->frames;
	return EXIT_SUCCESS;
}

int demo_main(int argc, char **argv)
{
	static struct supervisor sup;
	sup.options = (struct demo_options){.workers = 2, .loop = 1};
	cli_parse(&argp, argc, argv, &sup.options);
	sup.demo.capture = &sup.capture;
	sup.demo.options = &sup.options;
	sup.self = getpid();
	sup.terminal = isatty(STDERR_FILENO) != 0;
	cpu_set_t cpus;
	if (os_affinity(&cpus) == 0 && (unsigned)CPU_COUNT(&cpus) >= sup.options.workers + 2) sup.demo.spin = 2000;
	int status = read_frames(&sup);
	if (status == EXIT_SUCCESS) {
		run(&sup);
		if (sup.capture.damage[0]) fail(&sup, "%s", sup.capture.damage);
		if (sup.options.json)
			cli_print_json(summary_json(&sup.demo, &sup.result));
		else
			summary_text(&sup.demo, &sup.result);
		status = sup.result.error[0] ? EXIT_FOUND : EXIT_SUCCESS;
	}
	fflush(stdout);
	if (sup.result.interrupted) {
		fprintf(stderr, "%s: interrupted\n", argv[0]);
		status = EXIT_INTERRUPTED;
	} else if (status != EXIT_SUCCESS) {
		fprintf(stderr, "%s: %s\n", argv[0], sup.result.error);
	}
	capture_free(&sup.capture);
	return status;
}
