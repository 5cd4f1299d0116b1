/* The report as text, and the words that all messages of the backing use. */
#include <backing/internal.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hp_rung_name(hp_rung rung)
{
	switch (rung) {
	case HP_RUNG_1G: return "1 GiB";
	case HP_RUNG_2M: return "2 MiB";
	case HP_RUNG_THP: return "2 MiB (THP)";
	case HP_RUNG_4K: return "4 KiB";
	case HP_RUNG_BEST: return "best";
	}
	return "unknown";
}

uint64_t rung_page_size(hp_rung rung)
{
	switch (rung) {
	case HP_RUNG_1G: return GIB;
	case HP_RUNG_2M:
	case HP_RUNG_THP: return 2 * MIB;
	default: return 4 * KIB;
	}
}

const char *text_size(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned unit = 0;
	while (unit < 5 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, 32, "%llu %s", (unsigned long long)bytes, units[unit]);
	return text;
}

const char *text_nodes(uint64_t nodes, char *text, size_t size)
{
	size_t length = 0;
	text[0] = 0;
	for (unsigned node = 0; node < HP_MAX_NODES && length < size; node++) {
		if (!(nodes >> node & 1)) continue;
		unsigned last = node;
		while (last + 1 < HP_MAX_NODES && nodes >> (last + 1) & 1) last++;
		length += snprintf(text + length, size - length, last > node ? "%s%u-%u" : "%s%u", length ? "," : "", node,
		                   last);
		node = last;
	}
	return text;
}

const char *text_error(int error)
{
	const char *text = strerrordesc_np(-error);
	return text ? text : "unknown error";
}

void put_cause(char cause[192], const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(cause, 192, format, args);
	va_end(args);
}

void put_cure(char cure[192], const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int length = vsnprintf(cure, 192, format, args);
	va_end(args);
	if (length < 0 || length >= 192) cure[0] = 0;
}

/* Collects text as snprintf does: goes on counting when the room is used up. */
struct writer {
	char *text;
	size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *writer, const char *format, ...)
{
	va_list args;
	size_t left = writer->length < writer->size ? writer->size - writer->length : 0;
	va_start(args, format);
	int length = vsnprintf(left ? writer->text + writer->length : NULL, left, format, args);
	va_end(args);
	if (length > 0) writer->length += length;
}

static void put_asked(struct writer *to, const struct hp_report *report)
{
	static const char *const policies[] = {"", "on the local node", "bound to", "preferring", "interleaved over"};
	char size[32], nodes[256];
	put(to, "asked: %s, ", text_size(report->bytes_asked, size));
	if (report->choice == HP_CHOICE_ANY || report->rung_asked == HP_RUNG_BEST)
		put(to, "the best pages there are");
	else
		put(to, "%s pages %s", hp_rung_name(report->rung_asked),
		    report->choice == HP_CHOICE_REQUIRE ? "or none" : "or smaller ones");
	const struct hp_numa *numa = &report->numa;
	if (numa->policy > HP_NUMA_DEFAULT && numa->policy <= HP_NUMA_INTERLEAVE) {
		put(to, ", %s", policies[numa->policy]);
		if (numa->policy != HP_NUMA_LOCAL) {
			if (numa->nodes)
				put(to, " node %s", text_nodes(numa->nodes, nodes, sizeof nodes));
			else
				put(to, "%s", numa->policy == HP_NUMA_INTERLEAVE ? " all nodes" : " the local node");
		}
		if (numa->strict) put(to, ", strictly");
	}
	put(to, "\n");
}

static void put_got(struct writer *to, const struct hp_report *report)
{
	char size[32];
	if (report->rung_got == HP_RUNG_BEST) {
		put(to, "got: nothing\n");
		return;
	}
	put(to, "got: %s on %s pages", text_size(report->bytes_got, size), hp_rung_name(report->rung_got));
	if (!rung_is_hugetlb(report->rung_got)) {
		if (!report->lock_error)
			put(to, ", locked in memory");
		else if (report->lock_error == -ENODATA)
			put(to, ", each at its first touch");
		else
			put(to, ", not locked in memory (%s; cure: ulimit -l unlimited)", text_error(report->lock_error));
	}
	if (report->threads)
		put(to, ", populated by %u thread%s in %.1f ms", report->threads, report->threads > 1 ? "s" : "",
		    report->prefault_ns / 1e6);
	put(to, "\n");
}

int hp_report_text(const struct hp_report *report, char *text, size_t size)
{
	struct writer to = {.text = text, .size = size};
	if (size) text[0] = 0;
	put_asked(&to, report);
	put_got(&to, report);
	for (unsigned i = 0; i < report->rungs && i < HP_RUNGS; i++) {
		const struct hp_report_rung *rung = &report->rung[i];
		if (rung->tried && !rung->error) continue;
		put(&to, "%s: ", hp_rung_name(rung->rung));
		if (rung->tried)
			put(&to, "no (%s)%s%s\n", text_error(rung->error), rung->cause[0] ? ": " : "", rung->cause);
		else
			put(&to, "not tried: %s\n", rung->cause);
		if (rung->cure[0]) put(&to, "  cure: %s\n", rung->cure);
	}
	if (report->numa_error) {
		put(&to, "NUMA: %s\n", report->numa_cause[0] ? report->numa_cause : text_error(report->numa_error));
		if (report->numa_cure[0]) put(&to, "  cure: %s\n", report->numa_cure);
	}
	for (unsigned i = 0; i < report->nodes && i < HP_MAX_NODES; i++) {
		const struct hp_report_node *node = &report->node[i];
		put(&to, "node %d: %llu page%s", node->node, (unsigned long long)node->pages, node->pages == 1 ? "" : "s");
		if (node->misplaced) put(&to, ", %llu of them misplaced", (unsigned long long)node->misplaced);
		put(&to, "\n");
	}
	return to.length > INT32_MAX ? INT32_MAX : (int)to.length;
}
