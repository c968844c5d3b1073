/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* reason.h - counts why something did not get through, and answers with the verdict for it.
 * Writes: reasons. No program refuses or drops without passing here. */
#ifndef TIDEGATE_REASON_H
#define TIDEGATE_REASON_H

#include "maps.h"

#define ECONNREFUSED 111
#define ENOMEM 12

/* Verdicts of cgroup programs. A sock_addr program that returns 0 fails the system call (with
 * EPERM unless another error was set); an egress program that returns 2 discards the packet
 * and lets the sender believe it went out (include/linux/bpf-cgroup.h). */
enum verdict {
	SOCK_FAIL = 0,
	SOCK_PROCEED = 1,
	SKB_PASS = 1,
	SKB_DISCARD = 2,
};

static __always_inline void count(__u32 reason)
{
	struct reason_count *seen = reasons.lookup(&reason);

	if (seen)
		seen->packets++;
}

/* The system call fails at once: ECONNREFUSED as if nobody listened, ENOMEM without memory. */
static __always_inline int refuse(__u32 reason)
{
	count(reason);
	if (HAVE_SET_RETVAL)
		bpf_set_retval(reason == REASON_NO_MEMORY ? -ENOMEM : -ECONNREFUSED);
	return SOCK_FAIL;
}

/* The packet disappears without a word, so that the sender waits. */
static __always_inline int discard(__u32 reason)
{
	count(reason);
	return SKB_DISCARD;
}

#endif
