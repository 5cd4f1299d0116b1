/* Cgroup limits of this process, in both hierarchies.
 *
 * /proc/self/cgroup names the groups, /proc/self/mountinfo where their hierarchies are mounted (inside a container the
 * mount may begin somewhere in the middle of the hierarchy, and the group's path may lie outside of it). From the
 * process' own group upwards every group may set a limit; the one that leaves least is the one that counts. Of memory,
 * the page cache of files does not count as used: the kernel drops it before it refuses anything. */
#include <os/host.h>
#include <os/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <errno.h>

#define FILE_MOST ((size_t)1 << 20)

/* A whole file of up to 1 MiB, or NULL. Not from malloc: an allocation that grows a pool may be made by a signal handler
 * that interrupted malloc. */
static char *slurp(const char *path)
{
	void *text;
	if (os_map(NULL, FILE_MOST, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &text) < 0)
		return NULL;
	if (os_read_file(path, text, FILE_MOST) >= 0) return text;
	os_unmap(text, FILE_MOST);
	return NULL;
}

static void forget(char *text)
{
	if (text) os_unmap(text, FILE_MOST);
}

static bool listed(const char *list, size_t length, const char *word)
{
	size_t wanted = strlen(word);
	for (const char *at = list, *end = list + length; at < end;) {
		const char *comma = memchr(at, ',', end - at);
		size_t here = (comma ? comma : end) - at;
		if (here == wanted && !memcmp(at, word, wanted)) return true;
		at += here + 1;
	}
	return false;
}

/* The path of this process' group in the hierarchy of `controller` (NULL: v2). */
static bool group_path(const char *cgroups, const char *controller, char *path, size_t size)
{
	for (const char *line = cgroups; line && *line;) {
		const char *end = strchrnul(line, '\n');
		const char *list = memchr(line, ':', end - line);
		const char *colon = list ? memchr(list + 1, ':', end - list - 1) : NULL;
		if (colon) {
			size_t length = colon - list - 1;
			if (controller ? listed(list + 1, length, controller) : !length && line[0] == '0') {
				snprintf(path, size, "%.*s", (int)(end - colon - 1), colon + 1);
				return true;
			}
		}
		line = *end ? end + 1 : NULL;
	}
	return false;
}

/* Where the hierarchy is mounted, and which group of it the mount shows as its root. */
static bool mount_point(const char *mounts, const char *controller, char *point, char *root, size_t size)
{
	for (const char *line = mounts; line && *line;) {
		char at[512], from[512], type[32], options[512];
		const char *end = strchrnul(line, '\n');
		const char *dash = memmem(line, end - line, " - ", 3);
		if (dash && sscanf(line, "%*s %*s %*s %511s %511s", from, at) == 2 &&
		    sscanf(dash, " - %31s %*s %511s", type, options) == 2 &&
		    (controller ? !strcmp(type, "cgroup") && listed(options, strlen(options), controller)
		                : !strcmp(type, "cgroup2"))) {
			snprintf(point, size, "%s", at);
			snprintf(root, size, "%s", from);
			return true;
		}
		line = *end ? end + 1 : NULL;
	}
	return false;
}

/* A number in a file of a group; "max" and v1's very large number are no limit. */
static uint64_t group_number(const char *group, const char *file)
{
	char path[640], text[64], *end;
	snprintf(path, sizeof path, "%s/%s", group, file);
	if (os_read_file(path, text, sizeof text) < 0) return HOST_UNKNOWN;
	if (!strcmp(text, "max")) return HOST_NO_LIMIT;
	uint64_t number = strtoull(text, &end, 10);
	if (end == text) return HOST_UNKNOWN;
	return number >= UINT64_C(1) << 60 ? HOST_NO_LIMIT : number;
}

/* Bytes of file cache of a group and all below it. */
static uint64_t group_cache(const char *group, bool v2)
{
	char path[640];
	uint64_t sum = 0;
	snprintf(path, sizeof path, "%s/memory.stat", group);
	char *text = slurp(path);
	for (char *line = text; line && *line;) {
		char key[64];
		unsigned long long value;
		if (sscanf(line, "%63s %llu", key, &value) == 2) {
			const char *name = key;
			if (!v2) name = !strncmp(key, "total_", 6) ? key + 6 : "";
			if (!strcmp(name, "inactive_file") || !strcmp(name, "active_file")) sum += value;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	forget(text);
	return sum;
}

static uint64_t room(const struct host_limit *limit)
{
	return limit->used < limit->limit ? limit->limit - limit->used : 0;
}

static void tighten(struct host_limit *limit, const char *group, const char *file, const char *used_file, bool memory,
                    bool v2)
{
	struct host_limit here = {.found = true, .limit = group_number(group, file)};
	if (here.limit >= HOST_NO_LIMIT) return;
	here.used = group_number(group, used_file);
	if (here.used >= HOST_NO_LIMIT) here.used = 0;
	if (memory) {
		uint64_t cache = group_cache(group, v2);
		here.used = here.used > cache ? here.used - cache : 0;
	}
	if (limit->found && room(limit) <= room(&here)) return;
	snprintf(here.group, sizeof here.group, "%s", group);
	snprintf(here.file, sizeof here.file, "%s", file);
	*limit = here;
}

/* A limit's file and the file that says how much is used. */
struct pair {
	const char *limit, *used;
};

static void climb(struct host_limit *limit, const char *cgroups, const char *mounts, const char *controller,
                  const struct pair *pairs, unsigned count, bool memory)
{
	char path[512], point[512], root[512], group[1024];
	if (!group_path(cgroups, controller, path, sizeof path) ||
	    !mount_point(mounts, controller, point, root, sizeof point))
		return;
	const char *below = path;
	if (strcmp(root, "/")) {
		size_t length = strlen(root);
		below = !strncmp(path, root, length) && (path[length] == '/' || !path[length]) ? path + length : "";
	}
	if (!strncmp(below, "/..", 3)) /* outside of our cgroup namespace: only the mount's root can be seen */
		below = "";
	size_t top = snprintf(group, sizeof group, "%s", point);
	snprintf(group + top, sizeof group - top, "%s", below);
	for (;;) {
		size_t length = strlen(group);
		while (length > top && group[length - 1] == '/') group[--length] = 0;
		if (length < sizeof limit->group)
			for (unsigned i = 0; i < count; i++)
				tighten(limit, group, pairs[i].limit, pairs[i].used, memory, !controller);
		if (length <= top) return;
		*strrchr(group, '/') = 0;
	}
}

static void find(struct host_limit *limit, const char *controller, const struct pair *v1, const struct pair *v2,
                 unsigned count, bool memory)
{
	*limit = (struct host_limit){0};
	char *cgroups = slurp("/proc/self/cgroup");
	char *mounts = cgroups ? slurp("/proc/self/mountinfo") : NULL;
	if (mounts) {
		climb(limit, cgroups, mounts, NULL, v2, count, memory);
		climb(limit, cgroups, mounts, controller, v1, count, memory);
	}
	forget(mounts);
	forget(cgroups);
}

void host_hugetlb_limit(uint64_t page_size, struct host_limit *limit)
{
	char size[32], names[8][64];
	if (page_size >= UINT64_C(1) << 30)
		snprintf(size, sizeof size, "%lluGB", (unsigned long long)(page_size >> 30));
	else if (page_size >= UINT64_C(1) << 20)
		snprintf(size, sizeof size, "%lluMB", (unsigned long long)(page_size >> 20));
	else
		snprintf(size, sizeof size, "%lluKB", (unsigned long long)(page_size >> 10));
	/* A fault without a reservation is charged to both limits. */
	static const char *const endings[8] = {
		"limit_in_bytes", "usage_in_bytes", "rsvd.limit_in_bytes", "rsvd.usage_in_bytes", "max",
		"current",        "rsvd.max",       "rsvd.current"};
	for (unsigned i = 0; i < 8; i++) snprintf(names[i], sizeof names[i], "hugetlb.%s.%s", size, endings[i]);
	struct pair v1[2] = {{names[0], names[1]}, {names[2], names[3]}};
	struct pair v2[2] = {{names[4], names[5]}, {names[6], names[7]}};
	find(limit, "hugetlb", v1, v2, 2, false);
}

void host_memory_limit(struct host_limit *limit)
{
	struct pair v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes"};
	struct pair v2 = {"memory.max", "memory.current"};
	find(limit, "memory", &v1, &v2, 1, true);
}
