/* hugepool keep: the keeper of named pools, and what to ask of it.
 *
 * The keeper itself is src/keep; here are its signals, its way into the background, and its messages. It goes there only when
 * it listens, so whoever started it may ask at once, and so that what went wrong is the exit status. It makes no pools: who
 * asks for one makes it, as its own user, and publishes it. */
#include "cli.h"
#include "keep/server.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <hugepool/hugepool.h>
#include <hugepool/keep.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FOREGROUND = 0x200, LIST, CREATE, ATTACH, UNLINK, SIZE, CAPACITY, RUNG, MODE };

struct order {
	int what; /* LIST, CREATE, ATTACH, UNLINK; 0: be the keeper */
	const char *name, *socket;
	bool foreground, json, making;
	uint64_t size, capacity;
	hp_rung rung;
	unsigned mode;
	char **program;
};

static const struct argp_option options_known[] = {
	{"socket", 's', "PATH", 0,
     "Where the keeper is (HUGEPOOL_KEEPER, else for root /run/hugepool.sock, for others $XDG_RUNTIME_DIR/hugepool.sock)",
     0},
	{"foreground", FOREGROUND, NULL, 0, "Stay in the foreground, and say on standard error what happens", 0},
	{"list", LIST, NULL, 0, "Print the pools that the keeper has", 0},
	{"json", 'j', NULL, 0, "With --list: as one JSON object", 0},
	{"create", CREATE, "NAME", 0, "Make a pool, and have the keeper hold it", 0},
	{"size", SIZE, "SIZE", 0, "With --create: its memory (64M)", 0},
	{"capacity", CAPACITY, "SIZE", 0, "With --create: what it may grow to (its size)", 0},
	{"rung", RUNG, "RUNG", 0, "With --create: its pages: 1G, 2M, thp or 4K, or nothing; or best (best)", 0},
	{"mode", MODE, "MODE", 0,
     "With --create: who may look (r) and attach (w), as octal bits of owner, group and others (0600)", 0},
	{"attach", ATTACH, "NAME", 0, "Run PROGRAM with that pool in HUGEPOOL_POOL, for hp_pool_from_env", 0},
	{"unlink", UNLINK, "NAME", 0, "Take the name away: the pool ends with its last user", 0},
	{0},
};

static void what(struct order *order, struct argp_state *state, int key, const char *name)
{
	if (order->what) cli_wrong(state, "one of --list, --create, --attach and --unlink, not more");
	if (name && !keep_name_ok(name, POOL_NAME_MAX))
		cli_wrong(state, "'%s' is no name for a pool: 1 to %d bytes, no '/', no control characters", name,
		          POOL_NAME_MAX - 1);
	order->what = key;
	order->name = name;
}

static unsigned mode_of(const struct argp_state *state, const char *text)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);
	if (text[0] < '0' || text[0] > '7' || *end || mode & ~(unsigned long)KEEP_MODES)
		cli_wrong(state, "--mode wants an octal number of bits of 0666, not '%s'", text);
	return (unsigned)mode;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct order *order = state->input;
	switch (key) {
	case 's': order->socket = arg; return 0;
	case 'j': order->json = true; return 0;
	case FOREGROUND: order->foreground = true; return 0;
	case LIST:
	case CREATE:
	case ATTACH:
	case UNLINK: what(order, state, key, arg); return 0;
	case SIZE: order->size = cli_bytes(state, "--size", arg); break;
	case CAPACITY: order->capacity = cli_bytes(state, "--capacity", arg); break;
	case RUNG: order->rung = cli_rung(state, "--rung", arg); break;
	case MODE: order->mode = mode_of(state, arg); break;
	case ARGP_KEY_ARG:
		if (order->what != ATTACH) return cli_unknown(key, arg, state);
		order->program = state->argv + state->next - 1; /* what follows is its own */
		state->next = state->argc;
		return 0;
	case ARGP_KEY_END:
		if (order->making && order->what != CREATE)
			cli_wrong(state, "--size, --capacity, --rung and --mode are for --create");
		if (order->json && order->what != LIST) cli_wrong(state, "--json is for --list");
		if (order->foreground && order->what) cli_wrong(state, "--foreground is for the keeper itself");
		if (order->what == ATTACH && !order->program)
			cli_wrong(state, "no program given: hugepool keep --attach NAME -- PROGRAM [ARGUMENT...]");
		return 0;
	default: return cli_unknown(key, arg, state);
	}
	order->making = true;
	return 0;
}

static const struct argp argp = {
	options_known,
	parse,
	"\n--list\n--create NAME\n--attach NAME -- PROGRAM [ARGUMENT...]\n--unlink NAME",
	"Be the keeper, which holds the descriptors of named pools, so that they outlive their users until they are unlinked; or "
	"ask it. SIGTERM ends it; processes that are attached go on, and a pool without any ends with it."
	"\vExit status: 0 done; 1 refused, or no such pool; 2 wrong usage; 3 the keeper could not be asked, or not be "
	"started.",
	NULL,
	NULL,
	NULL};

static void print(void *arg, const char *message)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
}

static int status_of(int error)
{
	if (error == 0) return EXIT_SUCCESS;
	return error == -ECONNREFUSED || error == -ECONNRESET || error == -ETIMEDOUT || error == -EPROTO ? EXIT_BLIND
	                                                                                                 : EXIT_FOUND;
}

/* ---- the keeper ---- */

static int stop = -1;

static void on_end(int signal)
{
	(void)signal;
	os_event_signal(stop);
}

static int background(void)
{
	pid_t pid = fork();
	if (pid < 0) return -errno;
	if (pid > 0) _exit(EXIT_SUCCESS);
	setsid();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && null >= 0; fd++) dup2(null, fd);
	if (null > 2) close(null);
	return 0;
}

static int keep(const struct order *order)
{
	const struct keep_server_options options = {.socket = order->socket, .log = print};
	struct keep_server *server;
	if (!order->foreground) closefrom(3); /* who started us may wait for the end of a pipe */
	stop = os_event();
	if (stop < 0) {
		fprintf(stderr, "hugepool keep: %s\n", strerror(-stop));
		return EXIT_BLIND;
	}
	const struct sigaction end = {.sa_handler = on_end};
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	int error = keep_server_open(&options, &server);
	if (error < 0) return EXIT_BLIND;
	if (order->foreground)
		fprintf(stderr, "hugepool: the keeper listens at %s\n", keep_server_path(server));
	else
		error = background();
	if (error == 0) error = keep_server_run(server, stop);
	if (error < 0) fprintf(stderr, "hugepool keep: %s\n", strerror(-error));
	keep_server_close(server);
	return error < 0 ? EXIT_BLIND : EXIT_SUCCESS;
}

/* ---- asking it ---- */

static int create(const struct order *order, const struct hp_keep_options *keeper)
{
	const struct hp_pool_options options = {.struct_size = sizeof(options),
	                                        .name = order->name,
	                                        .size = order->size,
	                                        .capacity = order->capacity,
	                                        .rung = order->rung,
	                                        .choice = order->rung == HP_RUNG_BEST ? HP_CHOICE_ANY : HP_CHOICE_REQUIRE,
	                                        .log = print};
	hp_pool *pool;
	int error = hp_pool_create(&options, &pool);
	if (error < 0) {
		fprintf(stderr, "hugepool keep: pool '%s' could not be made: %s\n", order->name, strerror(-error));
		return EXIT_FOUND;
	}
	error = hp_pool_publish(pool, order->name, order->mode, keeper);
	hp_pool_detach(pool);
	return status_of(error);
}

static int attach(const struct order *order, const struct hp_keep_options *keeper)
{
	hp_pool *pool;
	int error = hp_pool_open(order->name, keeper, &pool);
	if (error < 0) return status_of(error);
	if ((error = hp_pool_export_env(pool, NULL)) == 0) {
		execvp(order->program[0], order->program);
		error = -errno;
	}
	fprintf(stderr, "hugepool keep: %s: %s\n", order->program[0], strerror(-error));
	hp_pool_detach(pool);
	return EXIT_FOUND;
}

static const char *user_name(unsigned uid)
{
	static char text[64];
	const struct passwd *user = getpwuid(uid);
	if (user)
		snprintf(text, sizeof(text), "%s", user->pw_name);
	else
		snprintf(text, sizeof(text), "%u", uid);
	return text;
}

static const char *group_name(unsigned gid)
{
	static char text[64];
	const struct group *group = getgrgid(gid);
	if (group)
		snprintf(text, sizeof(text), "%s", group->gr_name);
	else
		snprintf(text, sizeof(text), "%u", gid);
	return text;
}

static int listed(void *arg, const struct hp_kept *pool)
{
	static const char *const bits[] = {"--", "-w", "r-", "rw"};
	if (arg)
		return json_array_append_new(arg, json_pack("{s:s, s:i, s:i, s:i, s:I, s:I}", "name", pool->name, "owner",
		                                            (int)pool->owner, "group", (int)pool->group, "mode",
		                                            (int)pool->mode, "capacity", (json_int_t)pool->capacity,
		                                            "page_size", (json_int_t)pool->page_size));
	printf("%s%s%s  %-10s %-10s %10s  on %8s  %s\n", bits[pool->mode >> 7 & 3], bits[pool->mode >> 4 & 3],
	       bits[pool->mode >> 1 & 3], user_name(pool->owner), group_name(pool->group), cli_size(pool->capacity),
	       cli_size(pool->page_size), pool->name);
	return 0;
}

static int list(const struct order *order, const struct hp_keep_options *keeper)
{
	json_t *pools = order->json ? json_array() : NULL;
	int error = hp_pool_list(keeper, listed, pools);
	if (pools && error == 0)
		cli_print_json(json_pack("{s:o}", "pools", pools));
	else
		json_decref(pools);
	return status_of(error);
}

int keep_main(int argc, char **argv)
{
	struct order order = {.mode = 0600};
	cli_parse(&argp, argc, argv, &order);
	const struct hp_keep_options keeper = {.struct_size = sizeof(keeper), .socket = order.socket, .log = print};
	switch (order.what) {
	case LIST: return list(&order, &keeper);
	case CREATE: return create(&order, &keeper);
	case ATTACH: return attach(&order, &keeper);
	case UNLINK: return status_of(hp_pool_unlink(order.name, &keeper));
	default: return keep(&order);
	}
}
