/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* explain.c - says where a connect would go, for `tidegate explain`: the text of connect.h in a
 * program that can be test-run, which those of sockets cannot. The packet is a struct question. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>

#include "types.h"
#include "maps.h"
#include "connect.h"

int explain_connect(struct __sk_buff *ctx)
{
	struct question question = {};
	struct frontend *frontend;
	__u32 flags = 0;

	if (bpf_skb_load_bytes(ctx, ETH_HLEN, &question, sizeof(question)))
		return OUTCOME_FOREIGN;
	question.to.frontend = question.destination;
	question.to.frontend_port = question.port;
	frontend = frontend_of(question.protocol, &question.to, question.netns, &flags);
	question.outcome = translate(frontend, flags, &question.to, question.netns);
	question.allowed = !(question.to.flags & PEER_RANGES) ||
			   in_ranges(question.to.service, &question.source);
	bpf_skb_store_bytes(ctx, ETH_HLEN, &question, sizeof(question), 0);
	return question.outcome;
}
