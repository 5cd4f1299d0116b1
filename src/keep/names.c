/* Names, sorted, and the rules of who may do what with them: those of files, decided by what the kernel says of the peer.
 *
 * What is published is verified as an attacher would, and by reading alone; nothing is mapped, and nothing that was verified
 * is believed later on: who attaches verifies again. It has to be open for writing already: the keeper may have more rights
 * than its clients, and must not turn a descriptor for reading into one for writing. */
#include "keep/server.h"
#include "os/os.h"
#include "pool/pass.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Where the name is, or would be. */
static unsigned position(const struct names *names, const char *name)
{
	unsigned from = 0, to = names->count;
	while (from < to) {
		unsigned middle = (from + to) / 2;
		if (strcmp(names->kept[middle].entry.name, name) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static struct kept *find(const struct names *names, const char *name)
{
	unsigned at = position(names, name);
	return at < names->count && strcmp(names->kept[at].entry.name, name) == 0 ? &names->kept[at] : NULL;
}

static bool in_group(const struct asker *asker, gid_t group)
{
	if (asker->peer.gid == group) return true;
	int count = os_peer_groups(asker->socket, asker->groups, KEEP_GROUPS);
	for (int i = 0; i < count; i++)
		if (asker->groups[i] == group) return true;
	return false;
}

/* The bits of the first of owner, group and others that the asker is: rw as 6, as for files. */
static unsigned rights(const struct asker *asker, const struct keep_entry *entry)
{
	if (asker->peer.uid == 0) return 6;
	if (asker->peer.uid == entry->owner) return entry->mode >> 6 & 6;
	return in_group(asker, entry->group) ? entry->mode >> 3 & 6 : entry->mode & 6;
}

int names_publish(struct names *names, const struct asker *asker, const struct keep_request *request, const int fds[3])
{
	const struct hp_attach_options silent = {0};
	struct pool_geometry geometry;
	if (request->mode & ~KEEP_MODES) return -EINVAL;
	if (find(names, request->name)) return -EEXIST;
	unsigned mine = 0;
	for (unsigned i = 0; i < names->count; i++) mine += names->kept[i].entry.owner == asker->peer.uid;
	if (mine >= KEEP_POOLS_EACH && asker->peer.uid != 0) return -EDQUOT;
	if (names->count == names->room) return -ENOSPC;
	int error = pool_verify(fds, &silent, &geometry);
	for (int i = 0; i < 3 && error == 0; i++)
		if (os_access_mode(fds[i]) != O_RDWR) error = -EACCES;
	if (error < 0) return error;

	struct kept new = {.entry = {.owner = asker->peer.uid,
	                             .group = asker->peer.gid,
	                             .mode = request->mode,
	                             .rung = geometry.rung,
	                             .capacity = geometry.capacity,
	                             .page_size = geometry.page_size},
	                   .id = {geometry.id[0], geometry.id[1]},
	                   .fds = {fds[0], fds[1], fds[2]}};
	memcpy(new.entry.name, request->name, strlen(request->name));
	unsigned at = position(names, request->name);
	memmove(&names->kept[at + 1], &names->kept[at], (names->count - at) * sizeof new);
	names->kept[at] = new;
	names->count++; /* commit: from here on it is there as long as the keeper is */
	return 0;
}

const struct kept *names_find(const struct names *names, const struct asker *asker, const struct keep_request *request,
                              int *error)
{
	const struct kept *kept = find(names, request->name);
	unsigned wanted = request->what == KEEP_ATTACH ? 2 : 4;
	*error = !kept ? -ENOENT : rights(asker, &kept->entry) & wanted ? 0 : -EACCES;
	return *error ? NULL : kept;
}

static void let_go(struct kept *kept)
{
	for (int i = 0; i < 3; i++) os_close(kept->fds[i]);
}

int names_unlink(struct names *names, const struct asker *asker, const struct keep_request *request)
{
	struct kept *kept = find(names, request->name), gone;
	if (!kept) return -ENOENT;
	if (asker->peer.uid != 0 && asker->peer.uid != kept->entry.owner) return -EACCES;
	gone = *kept;
	names->count--; /* commit: gone with its name, for all but those who are attached */
	memmove(kept, kept + 1, (size_t)(&names->kept[names->count] - kept) * sizeof gone);
	let_go(&gone);
	return 0;
}

unsigned names_list(const struct names *names, const char *behind, struct keep_entry *entry)
{
	unsigned at = position(names, behind), count = 0;
	if (at < names->count && strcmp(names->kept[at].entry.name, behind) == 0) at++;
	for (; at < names->count && count < KEEP_PAGE; at++) entry[count++] = names->kept[at].entry;
	return count;
}

void names_end(struct names *names)
{
	for (unsigned i = 0; i < names->count; i++) let_go(&names->kept[i]);
	names->count = 0;
}
