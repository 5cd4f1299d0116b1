/* What is wrong with a host, and what cures it. A pure function of the facts, so that every finding can be tested. */
#ifndef HUGEPOOL_TOOL_DOCTOR_H
#define HUGEPOOL_TOOL_DOCTOR_H

#include "os/host.h"

#define DIAGNOSIS_MOST 64

struct diagnosis {
	unsigned problems;
	struct {
		char text[512], cure[700]; /* the cure is a command, or empty where there is none */
	} problem[DIAGNOSIS_MOST];
	char best[128]; /* the pages that the default pool would get */
};

void diagnose(const struct host *host, struct diagnosis *diagnosis);

#endif
