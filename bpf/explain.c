/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* explain.c - says what service a destination belongs to, and where a connect would go, for
 * `tidegate explain`: the text of connect.h in a program that can be test-run, which those of
 * sockets cannot. The packet is a struct question. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>

#include "types.h"
#include "maps.h"
#include "connect.h"

/* What the programs return, which nobody looks at: the answer is in the packet. */
enum said {
	SAID = 0,
};

static __always_inline bool is_asked(struct __sk_buff *ctx, struct question *question)
{
	if (bpf_skb_load_bytes(ctx, ETH_HLEN, question, sizeof(*question)))
		return false;
	question->to.frontend = question->destination;
	question->to.frontend_port = question->port;
	return true;
}

static __always_inline int say(struct __sk_buff *ctx, const struct question *question)
{
	bpf_skb_store_bytes(ctx, ETH_HLEN, question, sizeof(*question), 0);
	return SAID;
}

/* What is the destination to services, for this asker? */
int explain_frontend(struct __sk_buff *ctx)
{
	struct question question = {};
	struct frontend *frontend;
	__u32 flags = 0;

	if (!is_asked(ctx, &question))
		return SAID;
	frontend = frontend_of(question.protocol, &question.to, question.netns, &flags);
	if (!frontend)
		return SAID;
	question.found = 1;
	question.type = frontend->type;
	question.flags = frontend->flags;
	question.service = frontend->service;
	question.view = view_of(frontend, question.asker != ASKER_OUTSIDE ||
						  in_cidr(&question.source, CIDR_PODS));
	question.allowed = !(question.flags & FRONTEND_RANGES) ||
			   in_ranges(question.service, &question.source);
	return say(ctx, &question);
}

/* Where does a socket's connect go? */
int explain_connect(struct __sk_buff *ctx)
{
	struct question question = {};
	struct frontend *frontend;
	__u32 flags = 0;

	if (!is_asked(ctx, &question))
		return SAID;
	frontend = frontend_of(question.protocol, &question.to, question.netns, &flags);
	question.outcome = translate(frontend, flags, &question.to, question.netns);
	return say(ctx, &question);
}
