/* Looks through the links of a descriptor folder for the files of pools; find.h has the design.
 *
 * A process may have several pools, even of the same name, and the same file under several numbers. So the candidates
 * are sorted by file, and which data file belongs to which control file is decided by the library, which refuses what
 * does not belong together. */
#include "find.h"

#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hugepool/keep.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILES 512
#define DEFAULT_VARIABLE "HUGEPOOL_POOL"

enum kind { LIVES, CONTROL, DATA, KINDS };

struct pool_file {
	enum kind kind;
	char name[256]; /* of the pool */
	char path[512]; /* to open it by */
	dev_t dev;
	ino_t ino;
};

struct pool_files {
	struct pool_file *file;
	unsigned count;
};

error_t find_option(int key, char *arg, struct argp_state *state, struct find_target *target)
{
	switch (key) {
	case FIND_KEY_ENV:
		target->from_env = true;
		target->variable = arg;
		return 0;
	case FIND_KEY_NAME: target->name = arg; return 0;
	case ARGP_KEY_ARG:
		if (target->text) cli_wrong(state, "one PID or FD only, not '%s' too", arg);
		cli_number(state, "PID or FD", arg, 0, INT32_MAX);
		target->text = arg;
		return 0;
	case ARGP_KEY_END:
		if ((target->text != NULL) + target->from_env + (target->name != NULL) > 1)
			cli_wrong(state, "either a PID or FD, or --env, or --name, not both");
		if (!target->text && !target->from_env && !target->name)
			cli_wrong(state, "which pool? Give a PID, an FD, --env or --name");
		return 0;
	default: return cli_unknown(key, arg, state);
	}
}

__attribute__((format(printf, 2, 3))) static int fail(struct find_result *result, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(result->error, sizeof(result->error), format, args);
	va_end(args);
	return -1;
}

/* "/memfd:hugepool-control:NAME (deleted)" */
static bool read_link(const char *link, enum kind *kind, char *name, size_t size)
{
	static const char *const prefixes[KINDS] = {
		"/memfd:hugepool-lives:", "/memfd:hugepool-control:", "/memfd:hugepool-data:"};
	static const char suffix[] = " (deleted)";
	for (unsigned i = 0; i < KINDS; i++) {
		size_t length = strlen(prefixes[i]);
		if (strncmp(link, prefixes[i], length) != 0) continue;
		size_t rest = strlen(link + length);
		if (rest >= sizeof(suffix) - 1 && strcmp(link + length + rest - (sizeof(suffix) - 1), suffix) == 0)
			rest -= sizeof(suffix) - 1;
		snprintf(name, size, "%.*s", (int)rest, link + length);
		*kind = (enum kind)i;
		return true;
	}
	return false;
}

/* Notes the file behind a link, unless it is no pool's or known already. */
static bool note(struct pool_files *files, const char *path)
{
	char link[320];
	struct pool_file file;
	struct stat st;
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	if (length < 0) return false;
	link[length] = 0;
	if (!read_link(link, &file.kind, file.name, sizeof(file.name)) || stat(path, &st) != 0) return false;
	file.dev = st.st_dev;
	file.ino = st.st_ino;
	snprintf(file.path, sizeof(file.path), "%s", path);
	for (unsigned i = 0; i < files->count; i++)
		if (files->file[i].dev == file.dev && files->file[i].ino == file.ino) return true;
	if (files->count < MAX_FILES) files->file[files->count++] = file;
	return true;
}

/* All links of /proc/PID/fd, or of /proc/PID/map_files for a process that has closed the descriptors since. */
static int scan(struct pool_files *files, const char *pid, const char *folder)
{
	char path[512];
	snprintf(path, sizeof(path), "/proc/%s/%s", pid, folder);
	DIR *dir = opendir(path);
	if (!dir) return -errno;
	struct dirent *entry;
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.') continue;
		snprintf(path, sizeof(path), "/proc/%s/%s/%s", pid, folder, entry->d_name);
		note(files, path);
	}
	closedir(dir);
	return 0;
}

static int open_file(const struct pool_files *files, enum kind kind, const char *name, unsigned skip)
{
	for (unsigned i = 0; i < files->count; i++)
		if (files->file[i].kind == kind && strcmp(files->file[i].name, name) == 0 && skip-- == 0)
			return open(files->file[i].path, O_RDONLY | O_CLOEXEC);
	errno = ENOENT;
	return -1;
}

static void add(struct find_result *result, hp_pool *pool)
{
	hp_pool **pools = realloc(result->pool, (result->pools + 1) * sizeof(*pools));
	if (!pools) {
		hp_pool_detach(pool);
		fail(result, "no memory");
		return;
	}
	result->pool = pools;
	result->pool[result->pools++] = pool;
}

/* Tries the control file with each data file of its name, and with each lives file for that; -1 for one that is not
 * there stands for itself. */
static int observe_any(const struct pool_files *files, const char *name, int control, hp_pool **pool)
{
	int error = -ENOENT;
	for (unsigned d = 0;; d++) {
		int data = open_file(files, DATA, name, d);
		if (data < 0) return error == -ENOENT && errno != ENOENT ? -errno : error;
		for (unsigned l = 0;; l++) {
			int lives = open_file(files, LIVES, name, l);
			if (lives < 0 && l > 0) break;
			error = hp_pool_observe((const int[3]){lives, control, data}, pool);
			if (lives >= 0) close(lives);
			if (error == 0 || lives < 0) break;
		}
		close(data);
		if (error == 0) return 0;
	}
}

static const char *cause(int error)
{
	switch (error) {
	case -ENOENT: return "its data file is not among the descriptors";
	case -EPROTO: return "made by another version of the library";
	case -EBADMSG: return "truncated, or its header makes no sense";
	case -ENODATA: return "its creator died before it was ready";
	case -EINVAL: return "not the files of one pool";
	case -EACCES:
	case -EPERM: return "no permission; run as its owner or as root";
	default: return strerror(-error);
	}
}

/* Observes every pool whose control file was found; with `only`, that of this name. */
static void observe(const struct pool_files *files, const char *only, struct find_result *result)
{
	for (unsigned i = 0; i < files->count; i++) {
		const struct pool_file *file = &files->file[i];
		if (file->kind != CONTROL || (only && strcmp(only, file->name) != 0)) continue;
		int control = open(file->path, O_RDONLY | O_CLOEXEC), error = control < 0 ? -errno : 0;
		hp_pool *pool = NULL;
		if (error == 0) {
			error = observe_any(files, file->name, control, &pool);
			close(control);
		}
		if (error == 0)
			add(result, pool);
		else
			fail(result, "pool '%s': %s", file->name, cause(error));
	}
}

static int find_in_process(const char *pid, struct pool_files *files, struct find_result *result)
{
	int error = scan(files, pid, "fd");
	bool gone = error == -ENOENT;
	if (gone) return fail(result, "there is no process %s, and %s is no descriptor of a pool here", pid, pid);
	if (error < 0)
		return fail(result, "process %s: %s", pid,
		            error == -EACCES ? "no permission to see its descriptors; run as its owner or as root"
		                             : strerror(-error));
	observe(files, NULL, result);
	if (result->pools == 0) {
		char before[sizeof(result->error)];
		snprintf(before, sizeof(before), "%s", result->error);
		if (scan(files, pid, "map_files") == 0) observe(files, NULL, result);
		if (result->pools == 0 && before[0]) return fail(result, "%s", before);
	}
	if (result->pools == 0) return fail(result, "process %s has no pool", pid);
	return 0;
}

/* The pool that one of our own descriptors belongs to; its files are looked for among all of ours. */
static int find_by_own(const char *number, struct pool_files *files, struct find_result *result)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%s", number);
	struct pool_files one = {.file = files->file, .count = 0};
	if (!note(&one, path)) return -1;
	char name[256];
	struct pool_file control = files->file[0];
	snprintf(name, sizeof(name), "%s", control.name);
	files->count = one.count;
	scan(files, "self", "fd");
	/* A control file names one pool; the other two name all pools called so. */
	if (control.kind == CONTROL)
		for (unsigned i = files->count; i-- > 1;)
			if (files->file[i].kind == CONTROL) files->file[i] = files->file[--files->count];
	observe(files, name, result);
	if (result->pools == 0 && !result->error[0])
		fail(result, "descriptor %s is a file of pool '%s', but its control file is not among the descriptors", number,
		     name);
	return result->pools ? 0 : -1;
}

/* The variable holds the numbers of the three descriptors. */
static int find_in_environment(const char *variable, struct find_result *result)
{
	const char *text = getenv(variable);
	if (!text) return fail(result, "the environment has no %s", variable);
	int fds[3];
	const char *at = text;
	for (int i = 0; i < 3; i++) {
		char *end;
		at += strcspn(at, "0123456789");
		long number = strtol(at, &end, 10);
		if (end == at || number < 0 || number > INT32_MAX)
			return fail(result, "%s=%s does not name three descriptors", variable, text);
		fds[i] = (int)number;
		at = end;
	}
	hp_pool *pool;
	int error = hp_pool_observe(fds, &pool);
	if (error == -EBADF) return fail(result, "%s=%s names descriptors that are not open here", variable, text);
	if (error < 0) return fail(result, "%s=%s: %s", variable, text, cause(error));
	add(result, pool);
	return result->pools ? 0 : -1;
}

static void keep_message(void *arg, const char *message)
{
	fail(arg, "%s", strncmp(message, "hugepool: ", 10) == 0 ? message + 10 : message);
}

static int find_by_name(const char *name, struct find_result *result)
{
	const struct hp_keep_options options = {
		.struct_size = sizeof(options), .observe = true, .log = keep_message, .log_arg = result};
	hp_pool *pool;
	int error = hp_pool_open(name, &options, &pool);
	if (error < 0) return result->error[0] ? -1 : fail(result, "pool '%s': %s", name, cause(error));
	add(result, pool);
	return result->pools ? 0 : -1;
}

int find_pools(const struct find_target *target, struct find_result *result)
{
	*result = (struct find_result){0};
	if (target->name) return find_by_name(target->name, result);
	if (target->from_env) return find_in_environment(target->variable ? target->variable : DEFAULT_VARIABLE, result);
	struct pool_files files = {.file = calloc(MAX_FILES, sizeof(struct pool_file))};
	if (!files.file) return fail(result, "no memory");
	int found = atoi(target->text) >= 3 ? find_by_own(target->text, &files, result) : -1;
	if (found < 0 && !result->error[0]) {
		files.count = 0;
		found = find_in_process(target->text, &files, result);
	}
	free(files.file);
	return found;
}

void find_release(struct find_result *result)
{
	for (unsigned i = 0; i < result->pools; i++) hp_pool_detach(result->pool[i]);
	free(result->pool);
	*result = (struct find_result){0};
}
